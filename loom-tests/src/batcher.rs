//! Work that is brought while the task that does it ends, or while somebody holds it back.

use std::sync::Arc;

use everfresh::model::{AtomicUsize, Batcher};
use loom::thread::spawn;
use std::sync::atomic::Ordering;

use crate::Threads::{Three, Two};
use crate::run_model;

/// Does what there is until the task may stop; returns how much that was.
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

/// P3: a load that is brought at the moment when the task stops is not left lying.
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
        assert_eq!(shared.1.load(Ordering::Acquire), 2, "work was left lying");
    });
}

/// P3: work that is brought while somebody holds is done when nobody does any more, and what was collected does
/// not wait for a later one to let go.
#[test]
fn work_against_letting_go() {
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
        assert_eq!(shared.1.load(Ordering::Acquire), 3, "work was left lying");
    });
}
