//! A listener may call the cache, call another cache, and panic.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;

use everfresh::{Builder, Cache, Cause, ManualClock, Source};

use crate::removal::Removals;
use crate::support::gates::numbering;
use crate::support::*;

/// A cache with a listener that may call this cache.
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
    let removals = Removals::default();
    let recorder = removals.clone();
    // Each removal of a key below 4 inserts and removes other keys. One worker runs the loads and
    // publishes on its own thread.
    let cache = calling(
        builder(&clock).capacity(4).threads(1),
        move |cache, key, cause| {
            recorder.push(key, 0, cause);
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
    assert_eq!(removals.count(0, Cause::Invalidated), 1);
    assert_eq!(removals.count(20, Cause::Invalidated), 1);
    assert!(cache.contains_key(&10));
    cache.insert(1, 1);
    cache.insert(1, 1);
    assert_eq!(removals.count(1, Cause::Replaced), 1);
    cache.insert(2, 2);
    clock.advance(secs(12));
    assert_eq!(cache.get_blocking(&2).unwrap().source(), Source::Stale);
    until("the worker has notified of the refresh", || {
        removals.count(2, Cause::Replaced) == 1 && removals.count(22, Cause::Invalidated) == 1
    });
    assert!(cache.contains_key(&12));
    for key in 100..110 {
        cache.insert(key, key);
    }
    assert!(cache.len() <= 4);
}

#[test]
fn a_listener_may_reinsert_removed_keys() {
    // The removals that a listener causes are notified after it returns, and not inside the
    // listener. The call ends although every notification causes another removal.
    let clock = ManualClock::new();
    let (removals, ending) = (
        Arc::new(AtomicU64::new(0)),
        Arc::new(AtomicBool::new(false)),
    );
    let (counted, ends) = (removals.clone(), ending.clone());
    let depth = AtomicU64::new(0);
    let cache = calling(builder(&clock).capacity(1), move |cache, key, cause| {
        let outer = depth.fetch_add(1, Ordering::Relaxed);
        assert_eq!(outer, 0, "the listener is called inside itself");
        counted.fetch_add(1, Ordering::Relaxed);
        if cause == Cause::Size && !ends.load(Ordering::Relaxed) {
            cache.insert(key, key);
        }
        depth.fetch_sub(1, Ordering::Relaxed);
    });
    cache.insert(0, 0);
    for key in 1..5 {
        let before = removals.load(Ordering::Relaxed);
        cache.insert(key, key);
        let more = removals.load(Ordering::Relaxed) - before;
        assert!((1..=66).contains(&more), "{more} calls");
        assert_eq!(cache.len(), 1);
    }
    // Each call notifies of one removal left over by an earlier call, until none is left.
    ending.store(true, Ordering::Relaxed);
    let mut inserted = 5;
    let mut calls = 1;
    while calls > 0 {
        let before = removals.load(Ordering::Relaxed);
        cache.insert(100 + inserted, 0);
        inserted += 1;
        calls = removals.load(Ordering::Relaxed) - before - 1;
        assert!(calls <= 1);
    }
}

#[test]
fn the_call_that_starts_a_finite_chain_of_removals_notifies_of_all_of_them() {
    let clock = ManualClock::new();
    let removals = Arc::new(AtomicU64::new(0));
    let counted = removals.clone();
    let cache = calling(builder(&clock).capacity(1), move |cache, key, _| {
        if counted.fetch_add(1, Ordering::Relaxed) < 20 {
            cache.insert(key, key);
        }
    });
    cache.insert(1, 1);
    cache.insert(2, 2);
    assert_eq!(removals.load(Ordering::Relaxed), 21);
}

#[test]
fn a_call_does_not_notify_of_removals_by_other_threads() {
    // The listener blocks the thread that clears, and counts its calls on the thread of the test.
    let clock = ManualClock::new();
    let (holding, removals) = (Arc::new(Mutex::new(())), Removals::default());
    let (held, recorder) = (holding.clone(), removals.clone());
    let own = thread::current().id();
    let on_this_thread = Arc::new(AtomicU64::new(0));
    let counting = on_this_thread.clone();
    let cache: Cache<u64, u64> = builder(&clock)
        .on_removal(move |key, value, cause| {
            match thread::current().id() == own {
                true => drop(counting.fetch_add(1, Ordering::Relaxed)),
                false => drop(held.lock().unwrap()),
            }
            recorder.push(*key, *value, cause);
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
    until("all values are removed", || cache.is_empty());
    // A cold read removes nothing.
    assert_eq!(*cache.get_blocking(&999).unwrap(), 999);
    assert_eq!(on_this_thread.load(Ordering::Relaxed), 0);
    // A call that removes a value notifies of it, and of at most one left over by a call that
    // panicked.
    cache.insert(999, 2);
    assert!(on_this_thread.load(Ordering::Relaxed) <= 2);
    assert!(cache.invalidate(&999));
    assert!(on_this_thread.load(Ordering::Relaxed) <= 4);
    drop(hold);
    clearing.join().unwrap();
    let removals = removals.take();
    assert_eq!(removals.len(), 302);
    let keys: std::collections::HashSet<u64> = removals.iter().map(|removal| removal.0).collect();
    assert_eq!(
        keys.len(),
        301,
        "each key once, except for the one that was overwritten"
    );
}

#[test]
fn later_calls_notify_of_the_removals_left_by_a_call_that_panicked() {
    // The thread that removes four values panics in the `Drop` of the second.
    let removals = Arc::new(AtomicU64::new(0));
    let recorder = removals.clone();
    let cache: Cache<u64, Bomb> = builder(&ManualClock::new())
        .on_removal(move |_, _, _| {
            recorder.fetch_add(1, Ordering::Relaxed);
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
    assert_eq!(removals.load(Ordering::Relaxed), 1);
    for key in 0..3 {
        cache.insert(key, Bomb(false));
        // This call may notify of a value of the first call, whose drop panics.
        let _ = catch_unwind(AssertUnwindSafe(|| cache.invalidate(&key)));
    }
    until("the listener is notified of all removals", || {
        cache.insert(9, Bomb(false));
        let _ = catch_unwind(AssertUnwindSafe(|| cache.invalidate(&9)));
        cache.is_empty() && removals.load(Ordering::Relaxed) >= 7
    });
}

#[test]
fn a_listener_may_call_another_cache_with_a_listener() {
    let clock = ManualClock::new();
    let removals = Removals::default();
    let second: Cache<u64, u64> = removals
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
    // The second cache is not called again.
    assert_eq!(removals.take(), [(0, 0, Cause::Size), (1, 10, Cause::Size)]);
    assert_eq!(*second.get_if_present(&2).unwrap(), 20);
}

#[test]
fn a_panic_in_a_listener_is_harmless() {
    let clock = ManualClock::new();
    let removals = Removals::default();
    let recorder = removals.clone();
    let loader = numbering();
    let cache = computing(
        builder(&clock)
            .threads(1)
            .on_removal(move |key, value, cause| {
                recorder.push(*key, *value, cause);
                assert!(key % 2 == 0, "the listener panics for odd keys");
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
    // The worker is not harmed either.
    clock.advance(secs(12));
    assert!(cache.get_blocking(&3).is_ok());
    until("the refresh is published", || cache.stats().published == 1);
    assert_eq!(*cache.get_blocking(&3).unwrap(), 1);
    assert_eq!(*cache.get_blocking(&5).unwrap(), 2);
    cache.invalidate_all();
    let removals: Vec<_> = removals
        .take()
        .iter()
        .map(|removal| (removal.0, removal.2))
        .collect();
    let expected = [
        (0, Cause::Invalidated),
        (1, Cause::Invalidated),
        (2, Cause::Invalidated),
        (3, Cause::Invalidated),
        (3, Cause::Replaced),
        (3, Cause::Replaced),
        (5, Cause::Invalidated),
    ];
    assert_eq!(removals, expected);
}

/// Panics when it is dropped, if the flag is set.
struct Bomb(bool);

impl Drop for Bomb {
    fn drop(&mut self) {
        assert!(!self.0, "a bomb");
    }
}

#[test]
fn a_value_that_panics_when_dropped_does_not_suppress_notifications() {
    let removals = Arc::new(AtomicU64::new(0));
    let recorder = removals.clone();
    let cache: Cache<u64, Bomb> = builder(&ManualClock::new())
        .on_removal(move |_, _, _| {
            recorder.fetch_add(1, Ordering::Relaxed);
        })
        .compute(|_: &u64| Bomb(false))
        .build()
        .unwrap();
    for (key, armed) in [(1, true), (2, false)] {
        cache.insert(key, Bomb(armed));
        let unwound = catch_unwind(AssertUnwindSafe(|| cache.invalidate(&key))).is_err();
        assert_eq!(unwound, armed);
    }
    assert_eq!(removals.load(Ordering::Relaxed), 2);
}
