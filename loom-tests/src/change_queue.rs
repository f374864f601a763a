//! Changes of a record store whose steps end while another caller delivers.

use std::sync::{Arc, Mutex};

use everfresh::model::{AtomicU8, ChangeQueue};
use loom::thread::spawn;
use std::sync::atomic::Ordering;

use crate::Threads::Two;
use crate::run_model;

/// Makes one change, and returns with it and all earlier changes delivered, or being delivered.
fn change(queue: &ChangeQueue<u8>, delivered: &Mutex<Vec<u8>>, number: u8) {
    let mut place = queue.place();
    place.take(number);
    drop(place);
    queue.deliver(|number| delivered.lock().unwrap().push(number));
}

/// P3, P4: a step that ends while another caller delivers is delivered too, once, and in order.
#[test]
fn a_step_that_ends_during_a_delivery() {
    run_model(Two, || {
        let shared = Arc::new((ChangeQueue::default(), Mutex::new(Vec::new())));
        // The order of the steps, before either has ended.
        let mut first = shared.0.place();
        first.take(1);
        let other = spawn({
            let shared = shared.clone();
            move || change(&shared.0, &shared.1, 2)
        });
        drop(first);
        (shared.0).deliver(|number| shared.1.lock().unwrap().push(number));
        other.join().unwrap();
        let delivered = shared.1.lock().unwrap();
        assert_eq!(*delivered, [1, 2], "a change was not delivered in its turn");
    });
}

/// P4: a change is not delivered before its step has ended.
#[test]
fn a_change_waits_for_its_step() {
    run_model(Two, || {
        let shared = Arc::new((ChangeQueue::default(), Mutex::new(Vec::new())));
        let stored = Arc::new(AtomicU8::new(0));
        let mut first = shared.0.place();
        first.take(1);
        let other = spawn({
            let (shared, stored) = (shared.clone(), stored.clone());
            move || {
                let mut place = shared.0.place();
                place.take(2);
                drop(place);
                shared.0.deliver(|number| {
                    let is_stored = number != 1 || stored.load(Ordering::Acquire) == 1;
                    shared.1.lock().unwrap().push((number, is_stored));
                });
            }
        });
        stored.store(1, Ordering::Release);
        drop(first);
        shared
            .0
            .deliver(|number| shared.1.lock().unwrap().push((number, true)));
        other.join().unwrap();
        let delivered = shared.1.lock().unwrap();
        let all_stored = delivered.iter().all(|(_, is_stored)| *is_stored);
        assert!(
            all_stored,
            "a change was delivered before its step had ended"
        );
    });
}
