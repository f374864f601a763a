//! A remembered "not found" never hides a later write.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use everfresh::{Cache, InjectedFailure, Loaded, ManualClock, Request, Source};

use crate::not_found::{WINDOW, load, remembering};
use crate::support::gates::End;
use crate::support::random::rounds;
use crate::support::*;

type Write = fn(&Cache<u64, u64>);

/// Every way to overwrite key 1, and the value after it.
const WRITES: [(&str, Write, Option<u64>); 6] = [
    (
        "invalidate",
        |cache| {
            cache.invalidate(&1);
        },
        None,
    ),
    ("remove", |cache| drop(cache.remove(&1)), None),
    ("invalidate_all", |cache| cache.invalidate_all(), None),
    ("insert", |cache| cache.insert(1, 99), Some(99)),
    (
        "insert and invalidate",
        |cache| {
            cache.insert(1, 99);
            assert!(cache.invalidate(&1));
        },
        None,
    ),
    (
        "insert of `not found`",
        |cache| cache.insert(1, Loaded::not_found()),
        None,
    ),
];

/// Checks that the next caller after the write finds the written value, or loads.
fn assert_not_hidden(cache: &Cache<u64, u64>, tasks: &Tasks, after: Option<u64>, what: &str) {
    let loads = tasks.spawned();
    let mut next = get(cache, 1);
    match after {
        Some(value) => {
            let read = ready(next).unwrap();
            assert_eq!((*read, read.source()), (value, Source::Fresh), "{what}");
            assert_eq!(tasks.spawned(), loads, "{what}");
        }
        None => {
            assert!(is_pending(&mut next), "{what} is hidden");
            assert_eq!(tasks.spawned(), loads + 1, "{what}");
        }
    }
}

#[test]
fn a_write_during_the_load_is_not_hidden_by_its_answer() {
    for (name, write, after) in WRITES {
        for how in [End::NotFound, End::Fail, End::Panic] {
            let clock = ManualClock::new();
            let (cache, tasks, gates) = by_hand(remembering(&clock));
            let mut earlier = get(&cache, 1);
            assert!(is_pending(&mut earlier));
            tasks.poll_all();
            write(&cache);
            gates.end(0, how);
            tasks.poll_all();
            // This caller asked before the write.
            assert!(ready(earlier).is_err(), "{name} during {how:?}");
            assert_not_hidden(&cache, &tasks, after, name);
        }
    }
}

#[test]
fn a_write_after_the_answer_is_not_hidden_by_it() {
    for (name, write, after) in WRITES {
        for how in [End::NotFound, End::Fail, End::Panic] {
            let clock = ManualClock::new();
            let (cache, tasks, gates) = by_hand(remembering(&clock));
            assert!(ready(load(&cache, &tasks, &gates, how)).is_err());
            assert!(ready(get(&cache, 1)).is_err(), "remembered");
            write(&cache);
            assert_not_hidden(&cache, &tasks, after, name);
        }
    }
}

#[test]
fn a_write_during_a_refresh_is_not_hidden_by_its_answer() {
    for (name, write, after) in WRITES {
        let clock = ManualClock::new();
        let (cache, tasks, gates) = by_hand(remembering(&clock));
        cache.insert(1, 5);
        let mut refreshing = refresh(&cache, 1);
        assert!(is_pending(&mut refreshing));
        tasks.poll_all();
        write(&cache);
        gates.end(0, End::NotFound);
        tasks.poll_all();
        assert!(ready(refreshing).unwrap_err().is_not_found());
        assert_not_hidden(&cache, &tasks, after, name);
    }
}

#[test]
fn an_overtaken_answer_does_not_remove_the_later_one() {
    // The load before the write ends after the load that follows the write.
    let clock = ManualClock::new();
    let (cache, tasks, gates) = by_hand(remembering(&clock));
    let mut reads = [get(&cache, 1), get(&cache, 1)];
    for read in &mut reads {
        assert!(is_pending(read));
        tasks.poll_all();
        cache.invalidate(&1);
    }
    assert_eq!(gates.calls(), 2);
    let latest = load(&cache, &tasks, &gates, End::Value(30));
    assert_eq!(*ready(latest).unwrap(), 30);
    for call in [1, 0] {
        gates.end(call, End::NotFound);
        tasks.poll_all();
        assert_eq!(*ready(get(&cache, 1)).unwrap(), 30);
    }
    for read in reads {
        assert!(ready(read).unwrap_err().is_not_found());
    }
}

#[test]
fn one_key_is_not_remembered_for_another() {
    let clock = ManualClock::new();
    let (cache, tasks, gates) = by_hand(remembering(&clock));
    assert!(ready(load(&cache, &tasks, &gates, End::NotFound)).is_err());
    cache.insert(2, 2);
    cache.invalidate(&2);
    assert!(is_pending(&mut get(&cache, 2)));
    assert!(
        ready(get(&cache, 1)).unwrap_err().is_not_found(),
        "the key is still remembered"
    );
}

#[test]
fn no_answer_outlives_a_write_by_another_thread() {
    let clock = ManualClock::new();
    // The value at the origin; 0 means "not found".
    let origin = Arc::new(AtomicU64::new(0));
    let asked = origin.clone();
    let cache: Cache<u64, u64> = remembering(&clock)
        .compute_with(move |_: &Request<u64, u64>| {
            let answer = match asked.load(Ordering::SeqCst) {
                0 => Loaded::not_found(),
                value => Loaded::new(value),
            };
            Ok::<_, InjectedFailure>(answer)
        })
        .build()
        .unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let _ = cache.get_blocking(&1);
                }
            });
        }
        // This is the only writer, so between its writes the value must not change.
        for round in 1..=rounds(3_000) {
            cache.insert(1, round);
            assert_eq!(*cache.get_blocking(&1).unwrap(), round, "after insert");
            origin.store(0, Ordering::SeqCst);
            cache.invalidate(&1);
            let gone = cache.get_blocking(&1);
            assert!(
                gone.is_err_and(|error| error.is_not_found()),
                "after invalidate"
            );
            origin.store(round, Ordering::SeqCst);
            if round % 16 == 0 {
                cache.invalidate_all();
            } else {
                cache.invalidate(&1);
            }
            assert_eq!(
                *cache.get_blocking(&1).unwrap(),
                round,
                "after the value is back at the origin"
            );
            origin.store(0, Ordering::SeqCst);
            cache.invalidate(&1);
        }
        done.store(true, Ordering::Relaxed);
    });
}

thread_local! {
    /// Runs at the next clone of a key on this thread.
    static AT_CLONE: RefCell<Option<Box<dyn FnOnce()>>> = const { RefCell::new(None) };
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Key;

impl Clone for Key {
    fn clone(&self) -> Self {
        if let Some(run) = AT_CLONE.take() {
            run();
        }
        Key
    }
}

#[test]
fn a_load_that_ends_between_two_steps_of_a_caller_answers_this_caller() {
    let clock = ManualClock::new();
    let calls = Arc::new(AtomicU64::new(0));
    let counted = calls.clone();
    let cache: Cache<Key, u64> = Cache::builder()
        .clock(&clock)
        .not_found_for(secs(WINDOW))
        .compute_with(move |_: &Request<Key, u64>| {
            counted.fetch_add(1, Ordering::Relaxed);
            Ok::<_, InjectedFailure>(Loaded::not_found())
        })
        .build()
        .unwrap();
    // The key is cloned after the caller found neither a value nor an answer, and before the caller
    // claims the load.
    let other = cache.clone();
    AT_CLONE.set(Some(Box::new(move || {
        assert!(other.get_blocking(&Key).unwrap_err().is_not_found());
    })));
    assert!(cache.get_blocking(&Key).unwrap_err().is_not_found());
    assert!(
        AT_CLONE.take().is_none(),
        "the other caller loads in between"
    );
    assert_eq!(calls.load(Ordering::Relaxed), 1);
    assert!(cache.is_empty());
    assert!(cache.get_blocking(&Key).unwrap_err().is_not_found());
}
