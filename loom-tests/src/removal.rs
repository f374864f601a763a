//! Removed values, delivered by calls of two threads at once.

use std::sync::{Arc, Mutex};

use everfresh::Cause;
use everfresh::model::Removals;
use loom::thread::spawn;

use crate::Threads::Two;
use crate::fixture::value;
use crate::run_model;

/// P5: each value is delivered once, by either call, and none is left when all calls have ended.
#[test]
fn delivered_by_two_calls() {
    run_model(Two, || {
        let delivered = Arc::new(Mutex::new(Vec::new()));
        let sink = delivered.clone();
        let listener = move |key: &u8, _: &u64, _| sink.lock().unwrap().push(*key);
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
        let mut delivered = delivered.lock().unwrap().clone();
        delivered.sort();
        assert_eq!(delivered, [1, 2, 3], "a value was delivered twice or never");
    });
}
