//! Loads that read the cache. Recursion is an error; for all other reads one worker is enough.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::thread;

use everfresh::{Cache, ManualClock};

use crate::support::*;

type Handle = Arc<OnceLock<Cache<u64, u64>>>;

#[test]
fn a_load_that_reads_its_own_key_gets_an_error() {
    let clock = ManualClock::new();
    let cache = reading_itself(builder(&clock), |cache, key| Ok(*cache.get_blocking(&key)?));
    for _ in 0..3 {
        let error = cache.get_blocking(&1).unwrap_err();
        assert!(error.is_load_failure());
        assert!(error.is_recursive());
    }
}

#[test]
fn a_cycle_through_other_keys_is_detected_in_a_pool_of_any_size() {
    for threads in [1, 2, 4] {
        let clock = ManualClock::new();
        let cache = reading_itself(builder(&clock).threads(threads), |cache, key| {
            Ok(*cache.get_blocking(&((key + 1) % 5))?)
        });
        let error = cache.get_blocking(&0).unwrap_err();
        assert!(error.is_recursive(), "{threads}: {error}");
        // The failed loads leave nothing behind.
        assert!(cache.is_empty());
        assert!(cache.get_blocking(&3).is_err());
    }
}

#[test]
fn a_cycle_closed_by_two_callers_is_detected() {
    // Both loads run before either reads the key of the other.
    let clock = ManualClock::new();
    let begun = Arc::new(AtomicUsize::new(0));
    let cache = reading_itself(builder(&clock).threads(2), move |cache, key| {
        begun.fetch_add(1, Ordering::SeqCst);
        until("both loads run", || begun.load(Ordering::SeqCst) >= 2);
        Ok(*cache.get_blocking(&(1 - key))?)
    });
    thread::scope(|scope| {
        let callers = [0, 1].map(|key| {
            let cache = &cache;
            scope.spawn(move || cache.get_blocking(&key))
        });
        for caller in callers {
            let error = caller.join().unwrap().unwrap_err();
            assert!(error.is_recursive(), "{error}");
        }
    });
}

#[test]
fn an_async_load_that_reads_its_own_key_or_a_cycle_gets_an_error() {
    let clock = ManualClock::new();
    for length in [1, 2, 3] {
        let (tasks, handle) = (Tasks::default(), Handle::default());
        let inside = handle.clone();
        let cache: Cache<u64, u64> = builder(&clock)
            .spawner(tasks.spawner())
            .try_load(move |key: &u64| {
                let (cache, next) = (inside.get().unwrap().clone(), (key + 1) % length);
                async move { cache.get(&next).await.map(|read| *read) }
            })
            .build()
            .unwrap();
        handle.set(cache.clone()).unwrap();
        // A separate caller reads every key.
        let mut reads: Vec<_> = (0..length).map(|key| get(&cache, key)).collect();
        assert!(reads.iter_mut().all(is_pending));
        for _ in 0..4 {
            tasks.poll_all();
        }
        for read in reads {
            let error = ready(read).unwrap_err();
            assert!(error.is_recursive(), "{length}: {error}");
        }
        handle.get().unwrap().invalidate_all();
    }
}

#[test]
fn a_refresh_that_reads_its_own_key_sees_the_old_value() {
    let clock = ManualClock::new();
    let cache = reading_itself(builder(&clock), |cache, key| {
        Ok(cache.get_if_present(&key).map_or(1, |old| *old + 1) + *cache.get_blocking(&key)?)
    });
    cache.insert(1, 10);
    clock.advance(secs(12));
    assert_eq!(*cache.get_blocking(&1).unwrap(), 10);
    until("the refresh is published", || cache.stats().published == 1);
    assert_eq!(*cache.get_blocking(&1).unwrap(), 21);
    // Past its hard limit the load sees no old value, and the read would wait for itself.
    clock.advance(secs(31));
    let error = cache.get_blocking(&1).unwrap_err();
    assert!(error.is_recursive(), "{error}");
}

#[test]
fn a_pool_of_one_computes_loads_that_read_other_keys() {
    let clock = ManualClock::new();
    let cache = reading_itself(builder(&clock).threads(1), |cache, key| match key {
        0 | 1 => Ok(key),
        _ => Ok(*cache.get_blocking(&(key - 1))? + *cache.get_blocking(&(key - 2))?),
    });
    assert_eq!(*cache.get_blocking(&30).unwrap(), 832_040);
    assert_eq!(cache.stats().loads, 31);
}

#[test]
fn a_pool_of_one_runs_a_queued_load_inside_the_one_that_needs_it() {
    let clock = ManualClock::new();
    let release = Arc::new(OnceLock::new());
    let released = release.clone();
    let cache = reading_itself(builder(&clock).threads(1), move |cache, key| {
        if key == 1 {
            until("key 2 is queued", || released.get().is_some());
            return Ok(*cache.get_blocking(&2)? * 10);
        }
        Ok(key)
    });
    let mut needs = get(&cache, 1);
    assert!(is_pending(&mut needs));
    until("key 1 runs", || cache.stats().loads == 1);
    // Another caller queues key 1 behind the only worker.
    let mut queued = get(&cache, 2);
    assert!(is_pending(&mut queued));
    release.set(()).unwrap();
    assert_eq!(*wait(needs).unwrap(), 20);
    assert_eq!(*wait(queued).unwrap(), 2);
    assert_eq!(cache.stats().loads, 2);
}

#[test]
fn a_worker_waits_for_a_load_that_runs_on_another_worker() {
    let clock = ManualClock::new();
    let release = Arc::new(OnceLock::new());
    let released = release.clone();
    let cache = reading_itself(builder(&clock).threads(2), move |cache, key| {
        if key == 1 {
            return Ok(*cache.get_blocking(&2)? * 10);
        }
        until("the test releases key 2", || released.get().is_some());
        Ok(key)
    });
    let mut running = get(&cache, 2);
    assert!(is_pending(&mut running));
    until("key 2 runs", || cache.stats().loads == 1);
    let mut needs = get(&cache, 1);
    assert!(is_pending(&mut needs));
    until("key 1 waits for key 2", || cache.stats().coalesced == 1);
    release.set(()).unwrap();
    assert_eq!(*wait(needs).unwrap(), 20);
    assert_eq!(cache.stats().loads, 2);
}

#[test]
fn a_worker_never_waits_for_a_load_that_is_not_queued_yet() {
    // The load of key 2n on the only worker reads key 2n + 1, and so does another thread at the
    // same moment. The second of them may find a load that has begun and is not queued yet.
    let clock = ManualClock::new();
    let cache = reading_itself(
        builder(&clock).threads(1).capacity(100),
        |cache, key| match key % 2 {
            0 => Ok(*cache.get_blocking(&(key + 1))? + 1),
            _ => Ok(key),
        },
    );
    for round in 0..crate::support::random::rounds(20_000) {
        let (outer, inner) = (round * 2, round * 2 + 1);
        let mut needs = get(&cache, outer);
        let at_once = poll(&mut needs);
        assert_eq!(*cache.get_blocking(&inner).unwrap(), inner);
        let needed = match at_once {
            Poll::Ready(read) => read,
            Poll::Pending => wait(needs),
        };
        assert_eq!(*needed.unwrap(), inner + 1);
    }
}

#[test]
fn a_load_may_compute_in_parallel_on_its_own_pool() {
    // While the outer load waits for its other half, its worker could get the load of key 2, which
    // needs key 1.
    let clock = ManualClock::new();
    let release = Arc::new(OnceLock::new());
    let released = release.clone();
    let cache = reading_itself(builder(&clock).threads(2), move |cache, key| {
        if key != 1 {
            return Ok(*cache.get_blocking(&1)? + 1);
        }
        let begun = AtomicUsize::new(0);
        rayon::join(
            || until("the other half runs", || begun.load(Ordering::SeqCst) == 1),
            || {
                begun.store(1, Ordering::SeqCst);
                until("the test releases the load", || released.get().is_some());
            },
        );
        Ok(1)
    });
    let mut outer = get(&cache, 1);
    assert!(is_pending(&mut outer));
    until("the outer load runs", || cache.stats().loads == 1);
    let mut reads: Vec<_> = (2..6).map(|key| get(&cache, key)).collect();
    assert!(reads.iter_mut().all(is_pending));
    // Gives the waiting worker time to take one of these loads, which would be a fault.
    for _ in 0..10_000 {
        thread::yield_now();
    }
    release.set(()).unwrap();
    assert_eq!(*wait(outer).unwrap(), 1);
    for read in reads {
        assert_eq!(*wait(read).unwrap(), 2);
    }
}
