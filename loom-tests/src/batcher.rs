//! Work that is pushed while the batcher's task ends.

use std::sync::Arc;

use everfresh::model::{AtomicUsize, Batcher};
use loom::thread::spawn;
use std::sync::atomic::Ordering;

use crate::Threads::Two;
use crate::run_model;

/// Does the queued work until the task may stop, and counts it.
fn work(batcher: &Batcher<u8>, done: &AtomicUsize) {
    loop {
        while batcher.next().is_some() {
            done.fetch_add(1, Ordering::AcqRel);
        }
        if batcher.stops() {
            return;
        }
    }
}

fn push(batcher: &Batcher<u8>, done: &AtomicUsize) {
    if batcher.push(1) {
        work(batcher, done);
    }
}

/// P3: work that is pushed at the moment when the task stops is done.
#[test]
fn work_against_the_end_of_the_task() {
    run_model(Two, || {
        let shared = Arc::new((Batcher::default(), AtomicUsize::new(0)));
        let other = spawn({
            let shared = shared.clone();
            move || push(&shared.0, &shared.1)
        });
        push(&shared.0, &shared.1);
        other.join().unwrap();
        assert_eq!(shared.1.load(Ordering::Acquire), 2, "work was not done");
    });
}
