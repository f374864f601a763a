//! Writes that become ready, fail, or are woken at the moment when the task for them ends or waits.

use std::sync::Arc;

use everfresh::model::{AtomicUsize, WriteQueue};
use loom::future::block_on;
use loom::thread::spawn;
use std::sync::atomic::Ordering;

use crate::Threads::Two;
use crate::run_model;

#[derive(Default)]
struct Writes {
    queue: WriteQueue<u8>,
    flushed: AtomicUsize,
}

impl Writes {
    fn push(&self) {
        if self.queue.push(1) {
            while self.queue.next().is_some() {
                self.flushed.fetch_add(1, Ordering::AcqRel);
            }
        }
    }

    fn fail(&self) {
        if self.queue.failed(Some(1), false).start_probe {
            while self.queue.retry().is_some() {
                self.flushed.fetch_add(1, Ordering::AcqRel);
            }
        }
    }
}

fn twice(write: fn(&Writes)) {
    let writes = Arc::new(Writes::default());
    let other = spawn({
        let writes = writes.clone();
        move || write(&writes)
    });
    write(&writes);
    other.join().unwrap();
    let flushed = writes.flushed.load(Ordering::Acquire);
    assert_eq!(flushed, 2, "a write was left behind");
}

/// P4: a write that becomes ready at the moment when the last task ends is flushed.
#[test]
fn a_ready_write_against_the_end_of_the_task() {
    run_model(Two, || twice(Writes::push));
}

/// P4: a write that fails at the moment when the probe ends is tried again.
#[test]
fn a_failed_write_against_the_end_of_the_probe() {
    run_model(Two, || twice(Writes::fail));
}

/// P4: a wake at the moment when the probe begins to wait ends its pause. A lost wake is a deadlock
/// here.
#[test]
fn a_wake_against_a_probe_that_begins_to_wait() {
    run_model(Two, || {
        let writes = Arc::new(Writes::default());
        assert!(writes.queue.failed(Some(1), true).start_probe);
        let other = spawn({
            let writes = writes.clone();
            move || assert!(!writes.queue.wake(), "there is a probe")
        });
        block_on(writes.queue.woken());
        other.join().unwrap();
    });
}
