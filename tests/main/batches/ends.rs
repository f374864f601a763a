//! How the keys of a batch end: each by itself.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use everfresh::{Cache, ManualClock, Source};

use super::{Origin, calls};
use crate::support::*;

const HOUR: Duration = Duration::from_secs(3_600);

fn hundred() -> Vec<u64> {
    (0..100).collect()
}

/// A cache with a batch of 100 refreshes under way.
fn refreshing(clock: &ManualClock, origin: &Origin) -> Cache<u64, u64> {
    let cache = origin.cache(builder(clock));
    assert!(
        cache
            .get_many_blocking(&hundred())
            .iter()
            .all(Result::is_ok)
    );
    clock.advance(secs(12));
    origin.calls.hold();
    for key in hundred() {
        assert_eq!(cache.get_blocking(&key).unwrap().source(), Source::Stale);
    }
    calls(origin, 2);
    cache
}

/// P4
#[test]
fn a_key_that_is_invalidated_while_its_batch_runs_is_discarded_and_99_are_published() {
    let clock = ManualClock::new();
    let origin = Origin::new();
    let cache = refreshing(&clock, &origin);
    cache.invalidate(&40);
    origin.calls.release();
    until("the batch has ended", || {
        let stats = cache.stats();
        stats.published + stats.discarded_overtaken == 200
    });
    assert!(cache.peek(&40).is_none());
    assert_eq!(cache.len(), 99);
    let stats = cache.stats();
    assert_eq!((stats.published, stats.discarded_overtaken), (199, 1));
    assert!(
        hundred()
            .iter()
            .filter(|key| **key != 40)
            .all(|key| *cache.peek(key).unwrap() == 2)
    );
}

/// P4
#[test]
fn a_key_that_is_overwritten_while_its_batch_runs_keeps_the_later_value() {
    let clock = ManualClock::new();
    let origin = Origin::new();
    let cache = refreshing(&clock, &origin);
    cache.insert(40, 400);
    origin.calls.release();
    until("the batch has ended", || cache.stats().published == 199);
    assert_eq!(*cache.peek(&40).unwrap(), 400);
}

#[test]
fn a_key_that_is_invalidated_before_its_batch_leaves_is_not_asked_for() {
    let clock = ManualClock::new();
    let origin = Origin::new();
    let cache = origin.cache(builder(&clock).batch(100, secs(1)));
    assert!(
        cache
            .get_many_blocking(&[1, 2, 3])
            .iter()
            .all(Result::is_ok)
    );
    clock.advance(secs(12));
    for key in [1, 2, 3] {
        cache.get_blocking(&key).unwrap();
    }
    cache.invalidate(&2);
    clock.advance(secs(1));
    until("the others are refreshed", || cache.stats().published == 5);
    assert_eq!(origin.batches()[1], [1, 3]);
}

/// P5
#[test]
fn a_batch_that_hangs_wedges_none_of_its_keys() {
    let clock = ManualClock::new();
    let origin = Origin::new();
    let cache = origin.cache(builder(&clock).threads(1).load_timeout(secs(2)));
    origin.calls.hold();
    std::thread::scope(|scope| {
        let read = scope.spawn(|| cache.get_many_blocking(&[1, 2, 3]));
        calls(&origin, 1);
        clock.advance(secs(3));
        let answers = read.join().unwrap();
        assert!(
            answers
                .iter()
                .all(|answer| answer.as_ref().is_err_and(|e| e.is_timeout()))
        );
    });
    let stats = cache.stats();
    assert_eq!(
        (stats.timed_out, stats.replaced_workers, stats.overdue),
        (3, 1, 1)
    );
    assert_eq!(stats.running, 0);
    // The keys rest, and then the spare worker loads them. No batch may wait for the one that
    // hangs.
    clock.advance(secs(60));
    std::thread::scope(|scope| {
        let read = scope.spawn(|| cache.get_many_blocking(&[1, 2]));
        until("they have left", || {
            clock.advance(millis(1));
            origin.batches().len() == 2
        });
        origin.calls.release();
        assert!(read.join().unwrap().iter().all(Result::is_ok));
    });
    // Of the late results one key has no other value by now.
    until("the late results are there", || cache.stats().overdue == 0);
    until("the third key is there", || cache.peek(&3).is_some());
}

#[test]
fn the_future_of_a_batch_is_dropped_when_the_last_deadline_has_passed() {
    let clock = ManualClock::new();
    let (tasks, origin) = (Tasks::default(), Origin::new());
    let cache: Cache<u64, u64> = builder(&clock)
        .load_timeout(secs(10))
        .batch(2, secs(1))
        .spawner(tasks.spawner())
        .load_many_on(origin.clone(), async |origin: &Origin, keys: &[u64]| {
            origin.answer(keys).await
        })
        .build()
        .unwrap();
    origin.calls.hold();
    cache.insert(1, 1);
    cache.insert(2, 1);
    clock.advance(secs(12));
    cache.get_blocking(&1).unwrap();
    clock.advance(millis(500));
    cache.get_blocking(&2).unwrap();
    assert_eq!(tasks.spawned(), 1);
    tasks.poll_all();
    assert_eq!(origin.calls.running(), 1);
    clock.advance(millis(9_800));
    tasks.poll_all();
    assert_eq!((cache.stats().timed_out, origin.calls.running()), (1, 1));
    clock.advance(millis(500));
    tasks.poll_all();
    assert_eq!((cache.stats().timed_out, origin.calls.running()), (2, 0));
    assert_eq!(tasks.running(), 0);
}

#[test]
fn a_batch_whose_runtime_drops_it_leaves_its_keys_usable() {
    let clock = ManualClock::new();
    let (tasks, origin) = (Tasks::default(), Origin::new());
    let cache: Cache<u64, u64> = builder(&clock)
        .spawner(tasks.spawner())
        .load_many_on(origin.clone(), async |origin: &Origin, keys: &[u64]| {
            origin.answer(keys).await
        })
        .build()
        .unwrap();
    origin.calls.hold();
    let mut reads: Vec<_> = [1, 2].map(|key| get(&cache, key)).into();
    assert!(reads.iter_mut().all(is_pending));
    tasks.poll_all();
    tasks.abort(0);
    clock.advance(millis(1));
    assert!(ready(&mut reads[0]).is_err());
    // The other key left as soon as nothing else was under way.
    origin.calls.release();
    tasks.poll_all();
    assert_eq!(*ready(&mut reads[1]).unwrap(), 1);
    clock.advance(secs(60));
    let mut again = get(&cache, 1);
    assert!(is_pending(&mut again));
    tasks.poll_all();
    assert_eq!(*ready(&mut again).unwrap(), 2);
}

#[test]
fn a_close_starts_what_is_collected_and_waits_for_it() {
    let clock = ManualClock::new();
    let origin = Origin::new();
    let cache = origin.cache(builder(&clock).load_timeout(HOUR * 2).batch(100, HOUR));
    cache.insert(1, 100);
    clock.advance(secs(12));
    assert_eq!(cache.get_blocking(&1).unwrap().source(), Source::Stale);
    cache.close_blocking().unwrap();
    assert_eq!(*cache.peek(&1).unwrap(), 1);
    assert_eq!(cache.stats().running, 0);
}

#[test]
fn a_cache_that_is_dropped_keeps_nothing_that_is_collected() {
    let tally = Arc::new(Tally::default());
    let clock = ManualClock::new();
    let calls = Arc::new(AtomicUsize::new(0));
    {
        let (tally, calls) = (tally.clone(), calls.clone());
        let cache: Cache<u64, Tracked> = builder(&clock)
            .load_timeout(HOUR * 2)
            .batch(100, HOUR)
            .compute_many(move |keys: &[u64]| {
                calls.fetch_add(1, Ordering::SeqCst);
                keys.iter()
                    .map(|key| (*key, tally.make()))
                    .collect::<Vec<_>>()
            })
            .build()
            .unwrap();
        cache.get_blocking(&1).unwrap();
        clock.advance(secs(12));
        cache.get_blocking(&1).unwrap();
    }
    until("no value is left", || tally.alive() == 0);
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

#[test]
fn a_load_of_a_batch_may_use_another_cache_of_the_same_worker() {
    let clock = ManualClock::new();
    let pool = everfresh::Pool::builder().threads(1).build().unwrap();
    let inner: Cache<u64, u64> = builder(&clock)
        .pool(&pool)
        .batch(100, secs(5))
        .compute_many(|keys: &[u64]| keys.iter().map(|key| (*key, key * 2)).collect::<Vec<_>>())
        .build()
        .unwrap();
    let reads = inner.clone();
    let outer: Cache<u64, u64> = builder(&clock)
        .pool(&pool)
        .compute_many(move |keys: &[u64]| {
            let inner = reads.get_many_blocking(keys);
            let answer = |(key, value): (&u64, Result<everfresh::Cached<u64, u64>, _>)| {
                (*key, value.map(|value| *value + 1))
            };
            keys.iter().zip(inner).map(answer).collect::<Vec<_>>()
        })
        .build()
        .unwrap();
    // The inner batch leaves at once, whatever is under way, because a load waits for it.
    let answers = outer.get_many_blocking(&[1, 2, 3]);
    let answers: Vec<u64> = answers.into_iter().map(|answer| *answer.unwrap()).collect();
    assert_eq!(answers, [3, 5, 7]);
    assert_eq!((outer.stats().batches, inner.stats().batches), (1, 1));
}

type Handle = Arc<OnceLock<Cache<u64, u64>>>;

/// A cache whose loader reads, for each batch, the key that `next` gives for its first.
fn recursive(clock: &ManualClock, next: fn(u64) -> u64) -> Cache<u64, u64> {
    let handle = Handle::default();
    let inside = handle.clone();
    let cache: Cache<u64, u64> = builder(clock)
        .threads(1)
        .compute_many(move |keys: &[u64]| {
            let read = inside.get().unwrap().get_blocking(&next(keys[0]))?;
            Ok::<_, everfresh::Error>(keys.iter().map(|key| (*key, *read)).collect::<Vec<_>>())
        })
        .build()
        .unwrap();
    assert!(handle.set(cache.clone()).is_ok());
    cache
}

#[test]
fn a_batch_that_reads_one_of_its_keys_gets_an_error() {
    for read in [|_| 1, |_| 2, |_| 3] {
        let clock = ManualClock::new();
        let cache = recursive(&clock, read);
        for answer in cache.get_many_blocking(&[1, 2, 3]) {
            assert!(answer.unwrap_err().is_recursive());
        }
        assert!(cache.is_empty());
    }
}

#[test]
fn a_cycle_through_other_batches_is_found() {
    let clock = ManualClock::new();
    let cache = recursive(&clock, |key| (key + 1) % 5);
    assert!(cache.get_blocking(&0).unwrap_err().is_recursive());
    assert_eq!(cache.stats().batches, 5);
}
