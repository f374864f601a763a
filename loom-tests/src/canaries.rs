//! Canaries for the checker: tiny races with known outcomes, all of which must be found.
//!
//! Loom alone fails two of them; see the model side of the sync shim. If one of these turns red, no
//! other green result here means anything.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::{Arc, Mutex};

use everfresh::model::{ArrayQueue, AtomicU64, SegQueue, SetOnce};
use loom::thread::spawn;

use crate::Threads::Two;
use crate::run_model;

/// All outcomes of a race, over all executions.
fn outcomes<T, F>(race: F) -> BTreeSet<T>
where
    T: Ord + Clone + Send + 'static,
    F: Fn() -> T + Send + Sync + 'static,
{
    let seen = Arc::new(Mutex::new(BTreeSet::new()));
    let collected = seen.clone();
    run_model(Two, move || {
        let outcome = race();
        collected.lock().unwrap().insert(outcome);
    });
    let seen = seen.lock().unwrap();
    seen.clone()
}

fn two_words() -> (Arc<AtomicU64>, Arc<AtomicU64>) {
    (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)))
}

/// Two threads each store one word and load the other: all four outcomes.
#[test]
fn store_buffering() {
    let seen = outcomes(|| {
        let (x, y) = two_words();
        let other = spawn({
            let (x, y) = (x.clone(), y.clone());
            move || {
                x.store(1, Relaxed);
                y.load(Relaxed)
            }
        });
        y.store(1, Relaxed);
        let mine = x.load(Relaxed);
        (mine, other.join().unwrap())
    });
    assert_eq!(seen, BTreeSet::from([(0, 0), (0, 1), (1, 0), (1, 1)]));
}

/// Sends data and then a flag; returns `(flag, data)` as the receiver sees them.
fn message(
    send: std::sync::atomic::Ordering,
    receive: std::sync::atomic::Ordering,
) -> BTreeSet<(u64, u64)> {
    outcomes(move || {
        let (data, flag) = two_words();
        let sender = spawn({
            let (data, flag) = (data.clone(), flag.clone());
            move || {
                data.store(1, Relaxed);
                flag.store(1, send);
            }
        });
        let flagged = flag.load(receive);
        let received = data.load(Relaxed);
        sender.join().unwrap();
        (flagged, received)
    })
}

/// Without ordering the flag may arrive before its data.
#[test]
fn relaxed_message() {
    let seen = message(Relaxed, Relaxed);
    assert_eq!(seen, BTreeSet::from([(0, 0), (0, 1), (1, 0), (1, 1)]));
}

/// Release and acquire forbid exactly that.
#[test]
fn released_message() {
    let seen = message(Release, Acquire);
    assert_eq!(seen, BTreeSet::from([(0, 0), (0, 1), (1, 1)]));
}

/// One half of the pair forbids nothing.
#[test]
fn half_a_released_message() {
    assert!(message(Release, Relaxed).contains(&(1, 0)));
    assert!(message(Relaxed, Acquire).contains(&(1, 0)));
}

/// A load may come before or after another thread's load-then-exchange of the same word.
#[test]
fn load_against_exchange() {
    let seen = outcomes(|| {
        let (word, _) = two_words();
        let other = spawn({
            let word = word.clone();
            move || {
                let found = word.load(Acquire);
                word.compare_exchange(found, 1, AcqRel, Relaxed).unwrap();
            }
        });
        let seen = word.load(Acquire);
        other.join().unwrap();
        seen
    });
    assert_eq!(seen, BTreeSet::from([0, 1]));
}

/// A full queue exchanges its oldest item for a new one in one step.
#[test]
fn steps_of_a_full_queue() {
    let seen = outcomes(|| {
        let queue = Arc::new(ArrayQueue::new(1));
        let other = spawn({
            let queue = queue.clone();
            move || queue.force_push(1)
        });
        let mine = queue.force_push(2);
        (mine, other.join().unwrap(), queue.pop(), queue.len())
    });
    let expected = [(None, Some(2), Some(1), 0), (Some(1), None, Some(2), 0)];
    assert_eq!(seen, BTreeSet::from(expected));
}

/// A pop comes before, between or after the two pushes of another thread, and so does a read of the
/// length.
#[test]
fn steps_of_a_queue() {
    let seen = outcomes(|| {
        let queue = Arc::new(SegQueue::new());
        let other = spawn({
            let queue = queue.clone();
            move || (1..=2).for_each(|item| queue.push(item))
        });
        let seen = (queue.pop(), queue.len());
        other.join().unwrap();
        seen
    });
    let before = [(None, 0), (None, 1), (None, 2)];
    let after = [(Some(1), 0), (Some(1), 1)];
    assert_eq!(seen, before.into_iter().chain(after).collect());
}

/// Everything written before a push is visible to the thread that pops the item, and to no other.
#[test]
fn a_queue_publishes() {
    let seen = outcomes(|| {
        let queue = Arc::new(SegQueue::new());
        let data = Arc::new(AtomicU64::new(0));
        let other = spawn({
            let (queue, data) = (queue.clone(), data.clone());
            move || {
                data.store(1, Relaxed);
                queue.push(1);
            }
        });
        let (pushed, popped) = match queue.len() {
            0 => (false, queue.pop()),
            _ => (true, None),
        };
        let received = data.load(Relaxed);
        other.join().unwrap();
        (pushed, popped.is_some(), received)
    });
    assert!(seen.contains(&(false, true, 1)));
    assert!(
        !seen.contains(&(false, true, 0)),
        "an item came before what was written before its push"
    );
    assert!(
        seen.contains(&(true, false, 0)),
        "the model is stronger than a queue"
    );
}

/// A cell that is set once is found empty or set. If it is set, its whole content is visible.
#[test]
fn a_cell_that_is_set() {
    let seen = outcomes(|| {
        let cell = Arc::new(SetOnce::new());
        let data = Arc::new(AtomicU64::new(0));
        let other = spawn({
            let (cell, data) = (cell.clone(), data.clone());
            move || {
                data.store(1, Relaxed);
                *cell.get_or_init(|| 1)
            }
        });
        let found = cell.get().is_some();
        let received = data.load(Relaxed);
        other.join().unwrap();
        (found, received)
    });
    assert_eq!(
        seen,
        BTreeSet::from([(false, 0), (false, 1), (true, 1)]),
        "a cell's value came before what was written before it"
    );
}
