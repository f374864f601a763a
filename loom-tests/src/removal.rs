//! Values that left, told by calls of two threads at once.

use std::sync::{Arc, Mutex};

use everfresh::Cause;
use everfresh::model::Removals;
use loom::thread::spawn;

use crate::Threads::Two;
use crate::fixture::value;
use crate::run_model;

/// P5: each value is told once, by whichever call, and none is left when all calls have ended.
#[test]
fn told_by_two_calls() {
    run_model(Two, || {
        let told = Arc::new(Mutex::new(Vec::new()));
        let telling = told.clone();
        let listener = move |key: &u8, _: &u64, _| telling.lock().unwrap().push(*key);
        let removals = Arc::new(Removals::new(Some(Box::new(listener))));
        let other = spawn({
            let removals = removals.clone();
            move || {
                removals.push(&value(1, 0), Cause::Invalidated);
                removals.push(&value(2, 0), Cause::Invalidated);
                removals.deliver();
            }
        });
        removals.push(&value(3, 0), Cause::Invalidated);
        removals.deliver();
        other.join().unwrap();
        let mut told = told.lock().unwrap().clone();
        told.sort();
        assert_eq!(told, [1, 2, 3], "each value is told once");
    });
}
