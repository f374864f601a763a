//! When a batch leaves.

use std::thread;

use everfresh::{Cache, ManualClock, Source};

use super::{Origin, calls};
use crate::support::*;

#[test]
fn the_keys_of_one_call_leave_together() {
    let clock = ManualClock::new();
    let origin = Origin::new();
    let cache = origin.cache(builder(&clock));
    let keys: Vec<u64> = (0..50).collect();
    assert!(cache.get_many_blocking(&keys).iter().all(Result::is_ok));
    assert_eq!(origin.batches(), [keys]);
    until("all are counted", || cache.stats().published == 50);
    let stats = cache.stats();
    assert_eq!((stats.loads, stats.batches), (50, 1));
}

#[test]
fn a_single_miss_waits_for_nothing() {
    let clock = ManualClock::new();
    let origin = Origin::new();
    let cache = origin.cache(builder(&clock));
    assert_eq!(*cache.get_blocking(&1).unwrap(), 1);
    assert_eq!(*cache.get_blocking(&2).unwrap(), 1);
    assert_eq!(origin.batches(), [[1], [2]]);
}

#[test]
fn a_full_batch_leaves_and_the_rest_is_the_next() {
    let clock = ManualClock::new();
    let origin = Origin::new();
    let cache = origin.cache(builder(&clock).batch(20, secs(1)));
    let keys: Vec<u64> = (0..50).collect();
    assert!(cache.get_many_blocking(&keys).iter().all(Result::is_ok));
    let sizes: Vec<usize> = origin.batches().iter().map(Vec::len).collect();
    assert_eq!(sizes.iter().sum::<usize>(), 50);
    assert_eq!(sizes.len(), 3, "{sizes:?}");
}

#[test]
fn misses_that_come_while_a_batch_runs_share_the_next_one() {
    let clock = ManualClock::new();
    let origin = Origin::new();
    let cache = origin.cache(builder(&clock));
    origin.calls.hold();
    thread::scope(|scope| {
        let read = |key: u64| {
            let cache = &cache;
            scope.spawn(move || cache.get_blocking(&key).unwrap());
        };
        read(0);
        calls(&origin, 1);
        (1..=10).for_each(read);
        until("all of them wait", || {
            let stats = cache.stats();
            stats.waiting_cold == 0 && cache_keys(&cache) == 11
        });
        origin.calls.release();
    });
    let mut batches = origin.batches();
    assert_eq!(batches.len(), 2, "{batches:?}");
    batches[1].sort_unstable();
    assert_eq!(batches[1], (1..=10).collect::<Vec<u64>>());
}

/// How many keys are loaded or have a value.
fn cache_keys(cache: &Cache<u64, u64>) -> u64 {
    // Only looks: a key that is being loaded has no value.
    (0..=10)
        .filter(|key| {
            let read = get(cache, *key);
            let mut read = read;
            match cache.contains_key(key) {
                true => true,
                // Joins the load, or begins it.
                false => is_pending(&mut read),
            }
        })
        .count() as u64
}

#[test]
fn ten_thousand_stale_keys_are_a_hundred_calls_and_no_reader_waits() {
    let clock = ManualClock::new();
    let origin = Origin::new();
    let cache = origin.cache(builder(&clock).capacity(20_000).threads(2));
    let keys: Vec<u64> = (0..10_000).collect();
    assert!(cache.get_many_blocking(&keys).iter().all(Result::is_ok));
    assert_eq!(origin.batches().len(), 100);
    clock.advance(secs(12));
    origin.calls.hold();
    // The loader is held, so a reader that waited would wait for ever.
    for key in &keys {
        assert_eq!(cache.get_blocking(key).unwrap().source(), Source::Stale);
    }
    origin.calls.release();
    until("all are published", || cache.stats().published == 20_000);
    assert_eq!(origin.batches().len(), 200);
    assert!(origin.batches().iter().all(|batch| batch.len() == 100));
    assert!(origin.asked().values().all(|asked| *asked == 2));
    let stats = cache.stats();
    assert_eq!((stats.batches, stats.refreshes_stale), (200, 10_000));
    assert!(
        keys.iter()
            .all(|key| *cache.get_blocking(key).unwrap() == 2)
    );
}

#[test]
fn a_refresh_waits_for_company_and_then_leaves() {
    let clock = ManualClock::new();
    let origin = Origin::new();
    let cache = origin.cache(builder(&clock).batch(100, millis(5)));
    for key in [1, 2] {
        cache.get_blocking(&key).unwrap();
    }
    clock.advance(secs(12));
    for key in [1, 2] {
        assert_eq!(cache.get_blocking(&key).unwrap().source(), Source::Stale);
    }
    clock.advance(millis(4));
    assert_eq!(origin.batches().len(), 2);
    clock.advance(millis(1));
    until("both are refreshed", || cache.stats().published == 4);
    assert_eq!(origin.batches()[2], [1, 2]);
}

#[test]
fn a_miss_takes_the_refreshes_along() {
    let clock = ManualClock::new();
    let origin = Origin::new();
    let cache = origin.cache(builder(&clock));
    cache.get_blocking(&1).unwrap();
    clock.advance(secs(12));
    assert_eq!(*cache.get_blocking(&1).unwrap(), 1);
    cache.get_blocking(&2).unwrap();
    until("both are published", || cache.stats().published == 3);
    assert_eq!(origin.batches(), [vec![1], vec![2, 1]]);
}

#[test]
fn a_caller_that_begins_to_wait_for_a_refresh_makes_it_leave() {
    let clock = ManualClock::new();
    let origin = Origin::new();
    let cache = origin.cache(builder(&clock).batch(100, secs(20)));
    cache.get_blocking(&1).unwrap();
    clock.advance(secs(25));
    assert_eq!(cache.get_blocking(&1).unwrap().source(), Source::Stale);
    // The value is past its hard limit, and the batch has waited for less than its longest wait.
    clock.advance(secs(6));
    assert_eq!(*cache.get_blocking(&1).unwrap(), 2);
    assert_eq!(origin.batches(), [[1], [1]]);
}

#[test]
fn overlapping_callers_ask_for_no_key_twice() {
    let clock = ManualClock::new();
    let origin = Origin::new();
    let cache = origin.cache(builder(&clock).threads(2));
    thread::scope(|scope| {
        for caller in 0..64_u64 {
            let cache = &cache;
            scope.spawn(move || {
                let page: Vec<u64> = (caller * 5..caller * 5 + 50).collect();
                let mut answers = page.iter().zip(cache.get_many_blocking(&page));
                assert!(answers.all(|(key, answer)| *answer.unwrap().key() == *key));
            });
        }
        // A batch waits for the one under way, but not for ever.
        until("all keys are there", || {
            clock.advance(millis(1));
            cache.len() == 63 * 5 + 50
        });
    });
    assert!(origin.asked().values().all(|asked| *asked == 1));
    assert_eq!(origin.asked().len(), 63 * 5 + 50);
    assert!(cache.stats().batches <= 64);
}

#[test]
fn a_batch_takes_one_permit() {
    let clock = ManualClock::new();
    let origin = Origin::new();
    let cache = origin.cache(builder(&clock).max_loads(1).queue(2).batch(10, secs(1)));
    let keys: Vec<u64> = (0..20).collect();
    // Twenty loads would not fit the queue.
    assert!(cache.get_many_blocking(&keys).iter().all(Result::is_ok));
    assert_eq!(cache.stats().rejected, 0);
}

#[test]
fn urgent_keys_make_their_batch_urgent() {
    let clock = ManualClock::new();
    let origin = Origin::new();
    let cache = origin.cache(builder(&clock).max_loads(1).batch(2, secs(5)));
    for key in [1, 2, 3] {
        cache.get_blocking(&key).unwrap();
    }
    clock.advance(secs(12));
    origin.calls.hold();
    thread::scope(|scope| {
        let read = |key: u64| {
            let cache = &cache;
            scope.spawn(move || cache.get_blocking(&key).unwrap());
        };
        read(9);
        calls(&origin, 4);
        // Two refreshes fill a batch, then one shares a batch with a missing key.
        for key in [1, 2, 3] {
            cache.get_blocking(&key).unwrap();
        }
        read(10);
        until("both batches wait", || {
            let stats = cache.stats();
            (stats.waiting_cold, stats.waiting_stale) == (1, 1)
        });
        origin.calls.release();
    });
    until("all are published", || cache.stats().published == 8);
    assert_eq!(origin.batches()[4..], [vec![10, 3], vec![1, 2]]);
}
