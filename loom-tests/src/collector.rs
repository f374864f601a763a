//! Keys that are collected into batches: each leaves once, whatever happens at that moment.

use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Relaxed};

use everfresh::model::{AtomicU64, AtomicUsize, Collector, Leaving};
use loom::thread::spawn;

use crate::Threads::{Three, Two};
use crate::run_model;

const PROCESS: u32 = 1;
const LONGEST_WAIT: u64 = 10;

/// A collector, and the keys that have left it.
struct Batches {
    collector: Collector<u8, u8>,
    time: AtomicU64,
    /// When the alarm rings; 0 while none is set.
    alarm: AtomicU64,
    left: AtomicUsize,
    calls: AtomicUsize,
}

type Left = Option<Leaving<u8, u8>>;

fn end(batches: &Batches, leaving: Left) {
    batches.start(leaving);
}

impl Batches {
    fn new() -> Arc<Self> {
        Arc::new(Batches {
            collector: Collector::new(10, LONGEST_WAIT),
            time: AtomicU64::new(0),
            alarm: AtomicU64::new(0),
            left: AtomicUsize::new(0),
            calls: AtomicUsize::new(0),
        })
    }

    /// The batch leaves, and does not end.
    fn start(&self, leaving: Left) -> bool {
        let Some(Leaving { keys, .. }) = leaving else {
            return false;
        };
        self.left.fetch_add(keys.len(), Relaxed);
        self.calls.fetch_add(1, Relaxed);
        true
    }

    /// Adds a key, for which a caller waits or not. Returns the ticket of its batch.
    fn add(&self, is_wanted: bool) -> Arc<u8> {
        let (ticket, leaving) = self.collector.add(
            1,
            is_wanted,
            PROCESS,
            || Arc::new(0),
            || self.time.fetch_add(0, AcqRel),
            |at| {
                self.alarm.swap(at, AcqRel);
            },
        );
        self.start(leaving);
        ticket
    }

    /// Time passes, and an alarm that is set rings.
    fn pass(&self) {
        self.time.swap(LONGEST_WAIT, AcqRel);
        if self.alarm.fetch_add(0, AcqRel) == LONGEST_WAIT {
            self.start(self.collector.due(LONGEST_WAIT));
        }
    }

    /// A batch leaves for a key for which a caller waits.
    fn under_way() -> Arc<Self> {
        let batches = Batches::new();
        batches.add(true);
        assert_eq!(batches.left.load(Relaxed), 1);
        batches
    }

    fn assert_left(&self, keys: usize) {
        assert_eq!(self.left.load(Relaxed), keys, "not every key left once");
    }
}

/// P3: a key comes while the batch under way ends.
#[test]
fn a_key_against_the_end_of_the_batch_under_way() {
    run_model(Two, || {
        let batches = Batches::under_way();
        let other = spawn({
            let batches = batches.clone();
            move || drop(batches.add(true))
        });
        batches.start(batches.collector.ended());
        other.join().unwrap();
        batches.assert_left(2);
    });
}

/// P3: two callers add keys under holds. The last of them makes the keys leave, together unless one
/// had added nothing yet.
#[test]
fn two_holds_end() {
    run_model(Two, || {
        let batches = Batches::new();
        let add = |batches: &Batches| {
            batches.collector.hold(PROCESS);
            batches.add(true);
            batches.add(true);
            batches.start(batches.collector.release());
        };
        let other = spawn({
            let batches = batches.clone();
            move || add(&batches)
        });
        add(&batches);
        other.join().unwrap();
        // The second batch leaves when the first one has ended.
        if batches.calls.load(Relaxed) > 0 {
            batches.start(batches.collector.ended());
        }
        batches.assert_left(4);
        assert!(batches.calls.load(Relaxed) <= 2, "a call was split");
    });
}

/// P3: a hold ends while the batch under way ends, and a caller adds a key.
#[test]
fn a_hold_against_the_end_and_a_key() {
    run_model(Three, || {
        let batches = Batches::under_way();
        batches.collector.hold(PROCESS);
        batches.add(true);
        let others = [
            spawn({
                let batches = batches.clone();
                move || end(&batches, batches.collector.release())
            }),
            spawn({
                let batches = batches.clone();
                move || drop(batches.add(true))
            }),
        ];
        batches.start(batches.collector.ended());
        others.into_iter().for_each(|other| other.join().unwrap());
        batches.start(batches.collector.ended());
        batches.assert_left(3);
    });
}

/// P5: a refresh, for which no caller waits, leaves when the time has come, even if the alarm is
/// set at that very moment.
#[test]
fn a_refresh_against_its_alarm() {
    run_model(Two, || {
        let batches = Batches::new();
        let other = spawn({
            let batches = batches.clone();
            move || batches.pass()
        });
        batches.add(false);
        other.join().unwrap();
        let rings_later = batches.alarm.fetch_add(0, AcqRel) > LONGEST_WAIT;
        let has_left = batches.left.load(Relaxed) == 1;
        assert!(
            has_left || rings_later,
            "a refresh whose alarm does not ring"
        );
    });
}

/// P3: a load waits for a key while a batch is under way, which may be the one that waits. The key
/// leaves at once, unless it has left.
#[test]
fn a_load_that_waits_beside_a_caller() {
    run_model(Two, || {
        let batches = Batches::under_way();
        let ticket = batches.add(false);
        let other = spawn({
            let (batches, ticket) = (batches.clone(), ticket.clone());
            move || end(&batches, batches.collector.wanted(&ticket))
        });
        batches.start(batches.collector.leave(&ticket));
        other.join().unwrap();
        batches.assert_left(2);
    });
}

/// A load waits for a key whose batch leaves at that moment. A later batch goes on collecting.
#[test]
fn a_load_that_waits_for_a_batch_that_leaves() {
    run_model(Two, || {
        let batches = Batches::under_way();
        let ticket = batches.add(false);
        let other = spawn({
            let batches = batches.clone();
            move || {
                batches.start(batches.collector.leave_all());
                batches.add(false);
            }
        });
        batches.start(batches.collector.leave(&ticket));
        other.join().unwrap();
        // The later key, whose batch has another ticket.
        batches.assert_left(2);
    });
}

/// P3: a caller begins to wait for a refresh while the batch under way ends.
#[test]
fn a_caller_that_waits_against_the_end() {
    run_model(Two, || {
        let batches = Batches::under_way();
        let ticket = batches.add(false);
        let other = spawn({
            let batches = batches.clone();
            move || end(&batches, batches.collector.ended())
        });
        batches.start(batches.collector.wanted(&ticket));
        other.join().unwrap();
        batches.assert_left(2);
    });
}
