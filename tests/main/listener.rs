//! What a listener may do: call the cache, call another one, and panic.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;

use everfresh::{Builder, Cache, Cause, ManualClock, Source};

use crate::removal::Told;
use crate::support::gates::numbering;
use crate::support::*;

/// A listener that may call the cache it listens to.
fn calling(
    builder: Builder<u64, u64>,
    listener: impl Fn(&Cache<u64, u64>, u64, Cause) + Send + Sync + 'static,
) -> Cache<u64, u64> {
    let handle: Arc<OnceLock<Cache<u64, u64>>> = Arc::default();
    let inside = handle.clone();
    let cache = builder
        .on_removal(move |key, _, cause| listener(inside.get().unwrap(), *key, cause))
        .compute(|key: &u64| *key)
        .build()
        .unwrap();
    handle.set(cache.clone()).unwrap();
    cache
}

#[test]
fn a_listener_may_call_the_cache() {
    let clock = ManualClock::new();
    let told = Told::default();
    let telling = told.clone();
    // Each removal of a key below 4 makes others enter and leave; one worker runs the loads, and publishes on its own thread.
    let cache = calling(
        builder(&clock).capacity(4).threads(1),
        move |cache, key, cause| {
            telling.push(key, 0, cause);
            if key < 4 {
                assert_eq!(*cache.get_blocking(&(key + 10)).unwrap(), key + 10);
                cache.insert(key + 20, 0);
                cache.invalidate(&(key + 20));
                cache.sweep();
            }
        },
    );
    cache.insert(0, 0);
    cache.invalidate(&0);
    assert_eq!(told.count(0, Cause::Invalidated), 1);
    assert_eq!(told.count(20, Cause::Invalidated), 1);
    assert!(cache.contains_key(&10));
    cache.insert(1, 1);
    cache.insert(1, 1);
    assert_eq!(told.count(1, Cause::Replaced), 1);
    cache.insert(2, 2);
    clock.advance(secs(12));
    assert_eq!(cache.get_blocking(&2).unwrap().source(), Source::Stale);
    until("the worker has told of the refresh", || {
        told.count(2, Cause::Replaced) == 1 && told.count(22, Cause::Invalidated) == 1
    });
    assert!(cache.contains_key(&12));
    for key in 100..110 {
        cache.insert(key, key);
    }
    assert!(cache.len() <= 4);
}

#[test]
fn a_listener_may_put_back_what_left() {
    // What its own calls remove is told after it returns, not inside, and the call ends although
    // there is always more.
    let clock = ManualClock::new();
    let (told, ending) = (
        Arc::new(AtomicU64::new(0)),
        Arc::new(AtomicBool::new(false)),
    );
    let (counted, ends) = (told.clone(), ending.clone());
    let depth = AtomicU64::new(0);
    let cache = calling(builder(&clock).capacity(1), move |cache, key, cause| {
        let outer = depth.fetch_add(1, Ordering::Relaxed);
        assert_eq!(outer, 0, "called inside itself");
        counted.fetch_add(1, Ordering::Relaxed);
        if cause == Cause::Size && !ends.load(Ordering::Relaxed) {
            cache.insert(key, key);
        }
        depth.fetch_sub(1, Ordering::Relaxed);
    });
    cache.insert(0, 0);
    for key in 1..5 {
        let before = told.load(Ordering::Relaxed);
        cache.insert(key, key);
        let more = told.load(Ordering::Relaxed) - before;
        assert!((1..=66).contains(&more), "{more} calls");
        assert_eq!(cache.len(), 1);
    }
    // Each call tells of one that an earlier one left, until none is left.
    ending.store(true, Ordering::Relaxed);
    let mut inserted = 5;
    let mut calls = 1;
    while calls > 0 {
        let before = told.load(Ordering::Relaxed);
        cache.insert(100 + inserted, 0);
        inserted += 1;
        calls = told.load(Ordering::Relaxed) - before - 1;
        assert!(calls <= 1);
    }
}

#[test]
fn a_finite_chain_of_calls_is_told_by_the_call_that_began_it() {
    let clock = ManualClock::new();
    let told = Arc::new(AtomicU64::new(0));
    let counted = told.clone();
    let cache = calling(builder(&clock).capacity(1), move |cache, key, _| {
        if counted.fetch_add(1, Ordering::Relaxed) < 20 {
            cache.insert(key, key);
        }
    });
    cache.insert(1, 1);
    cache.insert(2, 2);
    assert_eq!(told.load(Ordering::Relaxed), 21);
}

#[test]
fn a_call_does_not_tell_of_what_others_removed() {
    // The listener is held on the thread that clears, and counts what other threads tell.
    let clock = ManualClock::new();
    let (holding, told) = (Arc::new(Mutex::new(())), Told::default());
    let (held, telling) = (holding.clone(), told.clone());
    let own = thread::current().id();
    let on_this_thread = Arc::new(AtomicU64::new(0));
    let counting = on_this_thread.clone();
    let cache: Cache<u64, u64> = builder(&clock)
        .on_removal(move |key, value, cause| {
            match thread::current().id() == own {
                true => drop(counting.fetch_add(1, Ordering::Relaxed)),
                false => drop(held.lock().unwrap()),
            }
            telling.push(*key, *value, cause);
        })
        .compute(|key: &u64| *key)
        .build()
        .unwrap();
    for key in 0..300 {
        cache.insert(key, 1);
    }
    let hold = holding.lock().unwrap();
    let clearing = {
        let cache = cache.clone();
        thread::spawn(move || cache.invalidate_all())
    };
    until("everything is removed", || cache.is_empty());
    // A cold read removes nothing.
    assert_eq!(*cache.get_blocking(&999).unwrap(), 999);
    assert_eq!(on_this_thread.load(Ordering::Relaxed), 0);
    // One that removes tells of as many, and of one that a call might have left that panicked.
    cache.insert(999, 2);
    assert!(on_this_thread.load(Ordering::Relaxed) <= 2);
    assert!(cache.invalidate(&999));
    assert!(on_this_thread.load(Ordering::Relaxed) <= 4);
    drop(hold);
    clearing.join().unwrap();
    let told = told.take();
    assert_eq!(told.len(), 302);
    let keys: std::collections::HashSet<u64> = told.iter().map(|told| told.0).collect();
    assert_eq!(
        keys.len(),
        301,
        "each key once, but one that was overwritten"
    );
}

#[test]
fn what_a_call_left_that_panicked_is_told_by_later_ones() {
    // The thread that removes four values ends in the `Drop` of the second.
    let told = Arc::new(AtomicU64::new(0));
    let telling = told.clone();
    let cache: Cache<u64, Bomb> = builder(&ManualClock::new())
        .on_removal(move |_, _, _| {
            telling.fetch_add(1, Ordering::Relaxed);
        })
        .compute(|_: &u64| Bomb(false))
        .build()
        .unwrap();
    for key in 0..4 {
        cache.insert(key, Bomb(true));
    }
    let removing = cache.clone();
    assert!(
        thread::spawn(move || removing.invalidate_all())
            .join()
            .is_err()
    );
    assert_eq!(told.load(Ordering::Relaxed), 1);
    for key in 0..3 {
        cache.insert(key, Bomb(false));
        // What is told of here may be a bomb of the first call.
        let _ = catch_unwind(AssertUnwindSafe(|| cache.invalidate(&key)));
    }
    until("all are told", || {
        cache.insert(9, Bomb(false));
        let _ = catch_unwind(AssertUnwindSafe(|| cache.invalidate(&9)));
        cache.is_empty() && told.load(Ordering::Relaxed) >= 7
    });
}

#[test]
fn a_listener_may_call_another_cache_with_a_listener() {
    let clock = ManualClock::new();
    let told = Told::default();
    let second: Cache<u64, u64> = told
        .listen(builder(&clock).capacity(1))
        .compute(|key: &u64| *key)
        .build()
        .unwrap();
    let inside = second.clone();
    let first = builder(&clock)
        .on_removal(move |key, value, _| inside.insert(*key, *value))
        .compute(|key: &u64| *key)
        .build()
        .unwrap();
    for key in 0..3 {
        first.insert(key, key * 10);
        first.invalidate(&key);
    }
    // Nothing happens to the second cache after that.
    assert_eq!(told.take(), [(0, 0, Cause::Size), (1, 10, Cause::Size)]);
    assert_eq!(*second.get_if_present(&2).unwrap(), 20);
}

#[test]
fn a_panic_in_a_listener_is_harmless() {
    let clock = ManualClock::new();
    let told = Told::default();
    let telling = told.clone();
    let loader = numbering();
    let cache = computing(
        builder(&clock)
            .threads(1)
            .on_removal(move |key, value, cause| {
                telling.push(*key, *value, cause);
                assert!(key % 2 == 0, "an odd key");
            }),
        &loader,
    );
    for key in 0..4 {
        cache.insert(key, 10);
    }
    assert!(cache.invalidate(&1));
    assert!(cache.invalidate(&2));
    cache.insert(3, 11);
    assert_eq!(*cache.get_if_present(&3).unwrap(), 11);
    // On the worker, too.
    clock.advance(secs(12));
    assert!(cache.get_blocking(&3).is_ok());
    until("the refresh is published", || cache.stats().published == 1);
    assert_eq!(*cache.get_blocking(&3).unwrap(), 1);
    assert_eq!(*cache.get_blocking(&5).unwrap(), 2);
    cache.invalidate_all();
    let told: Vec<_> = told.take().iter().map(|told| (told.0, told.2)).collect();
    let expected = [
        (0, Cause::Invalidated),
        (1, Cause::Invalidated),
        (2, Cause::Invalidated),
        (3, Cause::Invalidated),
        (3, Cause::Replaced),
        (3, Cause::Replaced),
        (5, Cause::Invalidated),
    ];
    assert_eq!(told, expected);
}

/// Panics when it is dropped, if it was told to.
struct Bomb(bool);

impl Drop for Bomb {
    fn drop(&mut self) {
        assert!(!self.0, "a bomb");
    }
}

#[test]
fn a_value_that_panics_when_dropped_does_not_silence_the_listener() {
    let told = Arc::new(AtomicU64::new(0));
    let telling = told.clone();
    let cache: Cache<u64, Bomb> = builder(&ManualClock::new())
        .on_removal(move |_, _, _| {
            telling.fetch_add(1, Ordering::Relaxed);
        })
        .compute(|_: &u64| Bomb(false))
        .build()
        .unwrap();
    for (key, armed) in [(1, true), (2, false)] {
        cache.insert(key, Bomb(armed));
        let unwound = catch_unwind(AssertUnwindSafe(|| cache.invalidate(&key))).is_err();
        assert_eq!(unwound, armed);
    }
    assert_eq!(told.load(Ordering::Relaxed), 2);
}
