//! Work that is pushed while the batcher's task ends, or while the batcher is paused.

use std::sync::Arc;

use everfresh::model::{AtomicUsize, Batcher};
use loom::thread::spawn;
use std::sync::atomic::Ordering;

use crate::Threads::{Three, Two};
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

/// P3: work that is pushed while the batcher is paused is done once the last pause ends. Work
/// collected in one pause does not wait for the end of a later one.
#[test]
fn work_against_the_end_of_a_pause() {
    run_model(Three, || {
        let shared = Arc::new((Batcher::default(), AtomicUsize::new(0)));
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let shared = shared.clone();
                spawn(move || {
                    shared.0.pause();
                    push(&shared.0, &shared.1);
                    if shared.0.resume() {
                        work(&shared.0, &shared.1);
                    }
                })
            })
            .collect();
        push(&shared.0, &shared.1);
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(shared.1.load(Ordering::Acquire), 3, "work was not done");
    });
}
