//! Keys without a value: remembered for a while, and apart from the values.
//!
//! How long an answer is *believed* goes by the clock of the cache, how long it takes memory by the real one. The windows here
//! are so long that no machine is slow enough for the second to matter.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Waker};

use everfresh::{BoxFuture, Builder, Cache, InjectedFailure, Loaded, ManualClock, Request};

use crate::support::gates::{End, numbering};
use crate::support::*;

pub const WINDOW: u64 = 10_000;

pub fn remembering<V>(clock: &ManualClock) -> Builder<u64, V> {
    builder(clock)
        .not_found_for(secs(WINDOW))
        .backoff(secs(WINDOW), secs(WINDOW * 100))
}

/// Begins a load of key 1 and ends it that way.
pub fn load(
    cache: &Cache<u64, u64>,
    tasks: &Tasks,
    gates: &Gates<u64>,
    end: End<u64>,
) -> Reading<u64> {
    let mut read = get(cache, 1);
    assert!(is_pending(&mut read));
    tasks.poll_all();
    gates.end(gates.calls() - 1, end);
    tasks.poll_all();
    read
}

#[test]
fn an_absent_key_is_remembered_for_its_time() {
    let clock = ManualClock::new();
    let (cache, tasks, gates) = by_hand(remembering(&clock));
    for loads in 1..3 {
        let error = ready(load(&cache, &tasks, &gates, End::Absent)).unwrap_err();
        assert!(error.is_not_found() && !error.is_load_failure(), "{error}");
        for _ in 0..3 {
            assert!(ready(get(&cache, 1)).unwrap_err().is_not_found());
        }
        assert!(cache.get_blocking(&1).unwrap_err().is_not_found());
        clock.advance(secs(WINDOW) - NANO);
        assert!(ready(get(&cache, 1)).unwrap_err().is_not_found());
        assert_eq!(gates.calls(), loads);
        clock.advance(NANO);
    }
    // Now there is one.
    assert_eq!(
        *ready(load(&cache, &tasks, &gates, End::Value(10))).unwrap(),
        10
    );
    assert_eq!(*ready(get(&cache, 1)).unwrap(), 10);
    assert!(cache.len() == 1 && gates.calls() == 3);
    assert_eq!(cache.stats().failed, 0, "an answer is not a failure");
}

#[test]
fn callers_who_wait_share_the_answer_that_there_is_none() {
    let clock = ManualClock::new();
    let (cache, tasks, gates) = by_hand(remembering(&clock));
    let mut reads: Vec<_> = (0..10).map(|_| get(&cache, 1)).collect();
    assert!(reads.iter_mut().all(is_pending));
    tasks.poll_all();
    gates.end(0, End::Absent);
    tasks.poll_all();
    for read in reads {
        assert!(ready(read).unwrap_err().is_not_found());
    }
    assert!(gates.calls() == 1 && cache.is_empty());
}

#[test]
fn an_answer_may_have_its_own_time() {
    let clock = ManualClock::new();
    let calls = Arc::new(AtomicU64::new(0));
    let counted = calls.clone();
    let cache: Cache<u64, u64> = remembering(&clock)
        .compute_with(move |request: &Request<u64, u64>| {
            counted.fetch_add(1, Ordering::Relaxed);
            let window = secs(WINDOW * request.key());
            Ok::<_, InjectedFailure>(Loaded::not_found().fresh_for(window))
        })
        .build()
        .unwrap();
    // Key 0 is asked for each time.
    for expected in [3, 4] {
        for key in [0, 1, 3] {
            assert!(cache.get_blocking(&key).unwrap_err().is_not_found());
        }
        assert_eq!(calls.load(Ordering::Relaxed), expected);
    }
    clock.advance(secs(WINDOW * 3) - NANO);
    assert!(cache.get_blocking(&3).is_err());
    assert_eq!(calls.load(Ordering::Relaxed), 4);
    assert!(cache.get_blocking(&1).is_err());
    assert_eq!(calls.load(Ordering::Relaxed), 5);
    clock.advance(NANO);
    assert!(cache.get_blocking(&3).is_err());
    assert_eq!(calls.load(Ordering::Relaxed), 6);
}

#[test]
fn a_refresh_that_finds_no_value_removes_the_old_one() {
    for explicit in [true, false] {
        let clock = ManualClock::new();
        let (cache, tasks, gates) = by_hand(remembering(&clock));
        cache.insert(1, 10);
        clock.advance(secs(12));
        let mut read = if explicit {
            refresh(&cache, 1)
        } else {
            get(&cache, 1)
        };
        assert_eq!(is_pending(&mut read), explicit);
        tasks.poll_all();
        gates.end(0, End::Absent);
        tasks.poll_all();
        if explicit {
            assert!(ready(read).unwrap_err().is_not_found());
        }
        assert!(!cache.contains(&1) && cache.is_empty());
        assert!(ready(get(&cache, 1)).unwrap_err().is_not_found());
        assert_eq!(tasks.spawned(), 1);
    }
}

#[test]
fn rests_after_failures_double_and_a_value_ends_them() {
    let clock = ManualClock::new();
    let loader = numbering();
    let cache = computing(remembering(&clock), &loader);
    let fails = |calls| {
        let error = cache.get_blocking(&1).unwrap_err();
        assert!(error.is_load_failure());
        assert_eq!(loader.calls(), calls);
    };
    loader.fail_next(4);
    for (failures, calls) in [(0, 1), (1, 2), (2, 3), (3, 4)] {
        // A rest is as long as is said, less up to a half.
        let longest = WINDOW << failures;
        fails(calls);
        clock.advance(secs(longest / 2) - NANO);
        fails(calls);
        clock.advance(secs(longest - longest / 2));
    }
    assert!(cache.get_blocking(&1).is_ok());
    // And the next failure begins anew.
    cache.invalidate(&1);
    loader.fail_next(2);
    fails(6);
    clock.advance(secs(WINDOW));
    fails(7);
}

/// Runs each load at once, on the thread that asks for it.
fn inline(future: BoxFuture) {
    let mut future = future;
    let mut context = Context::from_waker(Waker::noop());
    assert!(future.as_mut().poll(&mut context).is_ready());
}

#[test]
fn a_flood_of_bad_keys_takes_no_good_value_and_one_load_each() {
    const GOOD: u64 = 300;
    const BAD: u64 = 20_000;
    let clock = ManualClock::new();
    let calls = Arc::new(AtomicU64::new(0));
    let counted = calls.clone();
    let cache: Cache<u64, u64> = remembering(&clock)
        .capacity(1_000)
        .negative_capacity(2 * BAD)
        // So that good values stay fresh through two windows.
        .fresh_for(secs(10 * WINDOW))
        .spawner(inline)
        .try_load_on(counted, async |counted: &Arc<AtomicU64>, key: &u64| {
            counted.fetch_add(1, Ordering::Relaxed);
            match *key {
                ..GOOD => Ok(Some(*key)),
                _ if key % 2 == 0 => Ok(None),
                _ => Err(InjectedFailure),
            }
        })
        .build()
        .unwrap();
    for key in 0..GOOD {
        assert_eq!(*cache.get_blocking(&key).unwrap(), key);
    }
    for window in 0..2 {
        for _ in 0..2 {
            for key in GOOD..GOOD + BAD {
                let error = cache.get_blocking(&key).unwrap_err();
                assert_eq!(error.is_not_found(), key % 2 == 0);
            }
            assert_eq!(calls.load(Ordering::Relaxed), GOOD + BAD * (window + 1));
            assert_eq!(cache.len(), GOOD as usize);
        }
        assert!((0..GOOD).all(|key| cache.contains(&key)));
        clock.advance(secs(WINDOW));
    }
}
