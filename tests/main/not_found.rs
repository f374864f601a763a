//! Keys that are not found: remembered for a while, and apart from the values.
//!
//! The clock of the cache decides how long an answer is *valid*. The real clock decides how long it
//! takes memory. The windows here are so long that memory is not freed during a test.

use std::hash::{Hash, Hasher};
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

/// Starts a load of key 1 and ends it in this way.
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
fn a_key_that_is_not_found_is_remembered_for_its_time() {
    let clock = ManualClock::new();
    let (cache, tasks, gates) = by_hand(remembering(&clock));
    for loads in 1..3 {
        let error = ready(load(&cache, &tasks, &gates, End::NotFound)).unwrap_err();
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
    // Now the origin has a value.
    assert_eq!(
        *ready(load(&cache, &tasks, &gates, End::Value(10))).unwrap(),
        10
    );
    assert_eq!(*ready(get(&cache, 1)).unwrap(), 10);
    assert!(cache.len() == 1 && gates.calls() == 3);
    assert_eq!(cache.stats().failed, 0, "`not found` is not a failure");
}

#[test]
fn callers_that_wait_share_the_answer_not_found() {
    let clock = ManualClock::new();
    let (cache, tasks, gates) = by_hand(remembering(&clock));
    let mut reads: Vec<_> = (0..10).map(|_| get(&cache, 1)).collect();
    assert!(reads.iter_mut().all(is_pending));
    tasks.poll_all();
    gates.end(0, End::NotFound);
    tasks.poll_all();
    for read in reads {
        assert!(ready(read).unwrap_err().is_not_found());
    }
    assert!(gates.calls() == 1 && cache.is_empty());
}

#[test]
fn an_answer_may_have_its_own_lifetime() {
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
    // Key 0 is loaded each time.
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
        gates.end(0, End::NotFound);
        tasks.poll_all();
        if explicit {
            assert!(ready(read).unwrap_err().is_not_found());
        }
        assert!(!cache.contains_key(&1) && cache.is_empty());
        assert!(ready(get(&cache, 1)).unwrap_err().is_not_found());
        assert_eq!(tasks.spawned(), 1);
    }
}

#[test]
fn the_backoff_after_failures_doubles_and_a_value_ends_it() {
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
        // A backoff is shortened at random by up to a half.
        let longest = WINDOW << failures;
        fails(calls);
        clock.advance(secs(longest / 2) - NANO);
        fails(calls);
        clock.advance(secs(longest - longest / 2));
    }
    assert!(cache.get_blocking(&1).is_ok());
    // The next failure starts with the shortest backoff.
    cache.invalidate(&1);
    loader.fail_next(2);
    fails(6);
    clock.advance(secs(WINDOW));
    fails(7);
}

/// Runs each load at once, on the thread of the caller.
fn inline(future: BoxFuture) {
    let mut future = future;
    let mut context = Context::from_waker(Waker::noop());
    assert!(future.as_mut().poll(&mut context).is_ready());
}

#[test]
fn a_flood_of_bad_keys_evicts_no_good_value_and_costs_one_load_each() {
    const GOOD: u64 = 300;
    const BAD: u64 = 20_000;
    let clock = ManualClock::new();
    let calls = Arc::new(AtomicU64::new(0));
    let counted = calls.clone();
    let cache: Cache<u64, u64> = remembering(&clock)
        .capacity(1_000)
        .negative_capacity(2 * BAD)
        // Good values stay fresh through two windows.
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
        assert!((0..GOOD).all(|key| cache.contains_key(&key)));
        clock.advance(secs(WINDOW));
    }
}

/// A key that has the same hash as every other key, under any hasher.
#[derive(Clone, PartialEq, Eq)]
struct Colliding(u64);

impl Hash for Colliding {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

/// A cache of which each key up to 9 has a value, each up to 99 has none, and all others fail; and
/// the number of its loads.
fn colliding(clock: &ManualClock) -> (Cache<Colliding, u64>, Arc<AtomicU64>) {
    let loads = Arc::new(AtomicU64::new(0));
    let started = loads.clone();
    let cache = Cache::builder()
        .clock(clock)
        .capacity(100)
        .beta(0.0)
        .not_found_for(secs(WINDOW))
        .backoff(secs(WINDOW), secs(WINDOW * 100))
        .compute_with(move |request: &Request<Colliding, u64>| {
            started.fetch_add(1, Ordering::Relaxed);
            match request.key().0 {
                value @ 0..10 => Ok(Loaded::new(value)),
                10..100 => Ok(Loaded::not_found()),
                _ => Err(InjectedFailure),
            }
        })
        .build()
        .unwrap();
    (cache, loads)
}

/// Reads a key, checks the answer, and returns how many loads that took.
fn loads_of(cache: &Cache<Colliding, u64>, loads: &AtomicU64, key: u64) -> u64 {
    let before = loads.load(Ordering::Relaxed);
    match (key, cache.get_blocking(&Colliding(key))) {
        (0..10, Ok(value)) => assert_eq!(*value, key),
        (10..100, Err(error)) => assert!(error.is_not_found(), "{key}: {error}"),
        (100.., Err(error)) => assert!(error.is_load_failure(), "{key}: {error}"),
        (_, answer) => panic!("{key}: {:?}", answer.map(|value| *value)),
    }
    loads.load(Ordering::Relaxed) - before
}

#[test]
fn an_answer_is_never_given_for_another_key_of_the_same_hash() {
    let (cache, loads) = colliding(&ManualClock::new());
    let read = |key| loads_of(&cache, &loads, key);
    assert_eq!((read(10), read(10)), (1, 0));
    // Neither for a key that has a value, nor for one that fails, nor for one that has no value.
    assert_eq!((read(1), read(10)), (1, 0));
    assert_eq!((read(100), read(100)), (1, 0));
    assert_eq!((read(20), read(20)), (1, 0));
    // The later key has taken the place of the earlier ones, which are only forgotten.
    assert_eq!((read(10), read(10)), (1, 0));
    assert_eq!((read(100), read(100)), (1, 0));
    // A write forgets the answers of all keys of its hash.
    cache.insert(Colliding(2), 2);
    assert_eq!((read(2), read(100), read(100)), (0, 1, 0));
    cache.invalidate(&Colliding(2));
    assert_eq!((read(100), read(2)), (1, 1));
}

#[test]
fn failures_of_a_key_are_never_counted_for_another_key_of_the_same_hash() {
    let clock = ManualClock::new();
    let (cache, loads) = colliding(&clock);
    let read = |key| loads_of(&cache, &loads, key);
    for failures in 0..4 {
        assert_eq!((read(100), read(100)), (1, 0));
        clock.advance(secs(WINDOW << failures));
    }
    // The first failure of another key rests for as long as a first failure.
    assert_eq!((read(101), read(101)), (1, 0));
    clock.advance(secs(WINDOW));
    assert_eq!((read(101), read(101)), (1, 0));
}

/// An error with a text of this many bytes.
#[derive(Debug)]
struct Long(usize);

impl std::fmt::Display for Long {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&"x".repeat(self.0))
    }
}

impl std::error::Error for Long {}

fn failing_with(clock: &ManualClock, length: usize) -> Cache<u64, u64> {
    builder(clock)
        .negative_capacity(1_000)
        .backoff(secs(1_000), secs(1_000))
        .try_compute(move |_: &u64| Err::<u64, _>(Long(length)))
        .build()
        .unwrap()
}

#[test]
fn negative_entries_are_bounded_by_the_size_of_their_errors() {
    let clock = ManualClock::new();
    let cache = failing_with(&clock, 100_000);
    for key in (0..1_000).chain(0..1_000) {
        assert!(cache.get_blocking(&key).is_err());
    }
    // 64 MB are 671 such errors.
    let remembered = 2_000 - cache.stats().loads;
    assert!(
        remembered <= 700,
        "{remembered} keys of 1 000 are remembered"
    );
}

#[test]
fn a_key_rests_after_an_error_that_is_too_large_to_keep() {
    let clock = ManualClock::new();
    let cache = failing_with(&clock, 5_000_000);
    let first = cache.get_blocking(&1).unwrap_err();
    assert!(first.downcast_ref::<Long>().is_some());
    let second = cache.get_blocking(&1).unwrap_err();
    assert!(second.is_load_failure() && second.downcast_ref::<Long>().is_none());
    assert_eq!(cache.stats().loads, 1);
}

/// A key that counts its clones.
#[derive(PartialEq, Eq, Hash)]
struct ClonedKey(u64);

static CLONES: AtomicU64 = AtomicU64::new(0);

impl Clone for ClonedKey {
    fn clone(&self) -> Self {
        CLONES.fetch_add(1, Ordering::Relaxed);
        ClonedKey(self.0)
    }
}

#[test]
fn a_remembered_answer_clones_no_key() {
    let cache: Cache<ClonedKey, u64> = Cache::builder()
        .clock(ManualClock::new())
        .not_found_for(secs(WINDOW))
        .compute(|_: &ClonedKey| None)
        .build()
        .unwrap();
    assert!(cache.get_blocking(&ClonedKey(1)).is_err());
    let clones = CLONES.load(Ordering::Relaxed);
    assert!(clones > 0, "the load needs the key");
    for _ in 0..10 {
        let error = cache.get_blocking(&ClonedKey(1)).unwrap_err();
        assert!(error.is_not_found());
    }
    assert_eq!(CLONES.load(Ordering::Relaxed), clones);
}
