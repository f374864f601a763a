//! Loads that fail, panic or are dropped, and callers that stop waiting. The key stays usable.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use everfresh::{BoxFuture, Cache, CountingLoader, InjectedFailure, ManualClock, Source};

use crate::support::gates::{End, numbering};
use crate::support::*;

/// A backoff is at least half of its setting, so here no backoff is shorter than 500 s.
fn resting(clock: &ManualClock) -> everfresh::Builder<u64, u64> {
    builder(clock).backoff(secs(1_000), secs(100_000))
}

#[test]
fn every_caller_gets_the_error_until_the_backoff_ends_and_then_one_loads_again() {
    let clock = ManualClock::new();
    let loader = numbering();
    let cache = computing(resting(&clock), &loader);
    loader.fail_next(2);
    for attempts in 1..3 {
        for _ in 0..3 {
            let error = cache.get_blocking(&1).unwrap_err();
            assert!(error.is_load_failure());
            assert_eq!(error.downcast_ref(), Some(&InjectedFailure));
            assert_eq!(loader.calls(), attempts);
        }
        clock.advance(secs(2_000));
    }
    assert_eq!(*cache.get_blocking(&1).unwrap(), 1);
    // A result is delivered before it is counted.
    until("the result is counted", || cache.stats().published == 1);
    let stats = cache.stats();
    assert_eq!((stats.loads, stats.failed), (3, 2));
    assert_eq!((stats.misses, stats.negative), (3, 4));
}

#[test]
fn a_panic_while_computing_is_an_error_and_does_not_harm_the_pool() {
    let clock = ManualClock::new();
    let loader = numbering();
    let cache = computing(resting(&clock).threads(1), &loader);
    loader.panic_next(3);
    for attempts in 1..4 {
        for _ in 0..2 {
            let error = cache.get_blocking(&1).unwrap_err();
            assert!(error.is_panic());
            assert_eq!(
                error.to_string(),
                "the loader panicked: the counting loader panics on request"
            );
            assert_eq!(loader.calls(), attempts);
        }
        clock.advance(secs(4_000));
    }
    assert_eq!(*cache.get_blocking(&1).unwrap(), 1);
}

#[test]
fn a_panic_in_an_async_loader_is_an_error_when_called_and_when_polled() {
    let clock = ManualClock::new();
    let tasks = Tasks::default();
    let cache: Cache<u64, u64> = builder(&clock)
        .spawner(tasks.spawner())
        .load(|key: &u64| {
            let key = *key;
            assert!(key != 1, "when called");
            async move {
                assert!(key != 2, "when polled");
                key
            }
        })
        .build()
        .unwrap();
    for (key, text) in [(1, "when called"), (2, "when polled")] {
        let mut read = get(&cache, key);
        assert!(is_pending(&mut read));
        tasks.poll_all();
        let error = ready(read).unwrap_err();
        assert!(error.is_panic());
        assert!(error.to_string().contains(text), "{error}");
    }
    let mut read = get(&cache, 3);
    assert!(is_pending(&mut read));
    tasks.poll_all();
    assert_eq!(*ready(read).unwrap(), 3);
}

#[test]
fn a_caller_that_stops_waiting_does_not_stop_the_others() {
    let clock = ManualClock::new();
    let (cache, tasks, gates) = by_hand(builder(&clock));
    let mut first = get(&cache, 1);
    assert!(is_pending(&mut first));
    let mut second = get(&cache, 1);
    assert!(is_pending(&mut second));
    drop(first);
    tasks.poll_all();
    gates.end(0, End::Value(10));
    tasks.poll_all();
    let second = ready(second).unwrap();
    assert_eq!((*second, second.source()), (10, Source::Coalesced));
    assert_eq!(gates.calls(), 1);
}

#[test]
fn a_load_ends_although_every_caller_has_stopped_waiting() {
    let clock = ManualClock::new();
    let (cache, tasks, gates) = by_hand(builder(&clock));
    let mut only = get(&cache, 1);
    assert!(is_pending(&mut only));
    drop(only);
    tasks.poll_all();
    gates.end(0, End::Value(10));
    tasks.poll_all();
    assert_eq!(*cache.get_if_present(&1).unwrap(), 10);
}

#[test]
fn a_caller_that_is_never_polled_again_does_not_delay_the_others() {
    let clock = ManualClock::new();
    let (cache, tasks, gates) = by_hand(builder(&clock));
    let untouched = get(&cache, 1);
    assert_eq!(tasks.spawned(), 0, "nothing happens before the first poll");
    let mut leader = get(&cache, 1);
    assert!(is_pending(&mut leader));
    tasks.poll_all();
    gates.end(0, End::Value(10));
    tasks.poll_all();
    // The first caller is polled once and never again, but all others are served, and writes
    // succeed.
    assert_eq!(*ready(get(&cache, 1)).unwrap(), 10);
    cache.insert(1, 11);
    assert_eq!(*ready(untouched).unwrap(), 11);
    assert_eq!(*ready(leader).unwrap(), 10);
}

#[test]
fn a_load_that_its_runtime_drops_is_cancelled() {
    let clock = ManualClock::new();
    let (cache, tasks, gates) = by_hand(builder(&clock));
    for begun in [false, true] {
        // Past the rest after the load before.
        clock.advance(secs(60));
        let mut reads = [get(&cache, 1), get(&cache, 1)];
        assert!(reads.iter_mut().all(is_pending));
        let task = tasks.spawned() - 1;
        if begun {
            tasks.poll(task);
        }
        assert!(tasks.abort(task));
        for read in reads {
            assert!(ready(read).unwrap_err().is_cancelled());
        }
    }
    clock.advance(secs(60));
    let mut read = get(&cache, 1);
    assert!(is_pending(&mut read));
    tasks.poll_all();
    gates.end(gates.calls() - 1, End::Value(10));
    tasks.poll_all();
    assert_eq!(*ready(read).unwrap(), 10);
}

#[test]
fn a_spawner_that_drops_the_future_cancels_the_load() {
    let clock = ManualClock::new();
    let handed_in = Arc::new(AtomicUsize::new(0));
    let counted = handed_in.clone();
    let cache: Cache<u64, u64> = builder(&clock)
        .spawner(move |future: BoxFuture| {
            counted.fetch_add(1, Ordering::Relaxed);
            drop(future);
        })
        .load(async |key: &u64| *key)
        .build()
        .unwrap();
    for calls in 1..4 {
        assert!(cache.get_blocking(&1).unwrap_err().is_cancelled());
        clock.advance(secs(60));
        assert_eq!(handed_in.load(Ordering::Relaxed), calls);
    }
    // A stale value survives the cancelled load.
    cache.insert(1, 10);
    clock.advance(secs(12));
    assert_eq!(*cache.get_blocking(&1).unwrap(), 10);
    assert_eq!(
        cache.get_blocking(&1).unwrap().source(),
        Source::AfterFailure
    );
}

#[test]
fn a_spawner_that_panics_leaves_the_key_usable() {
    let clock = ManualClock::new();
    let calls = Arc::new(AtomicUsize::new(0));
    let tasks = Tasks::default();
    let spawn = tasks.spawner();
    let cache: Cache<u64, u64> = builder(&clock)
        .spawner(move |future| {
            assert!(calls.fetch_add(1, Ordering::Relaxed) > 0, "no runtime");
            spawn(future);
        })
        .load(async |key: &u64| *key)
        .build()
        .unwrap();
    let first = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| cache.get_blocking(&1)));
    assert!(first.is_err());
    // The key rests, as after a loader that panics.
    assert!(cache.get_blocking(&1).unwrap_err().is_panic());
    clock.advance(secs(1));
    let mut read = get(&cache, 1);
    assert!(is_pending(&mut read));
    tasks.poll_all();
    assert_eq!(*ready(read).unwrap(), 1);
}

#[test]
fn a_runtime_that_shuts_down_cancels_its_loads_and_leaves_the_key_usable() {
    let clock = ManualClock::new();
    let loader = CountingLoader::new(|key: &u64| *key);
    let runtime = || {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .build()
            .unwrap()
    };
    let first = runtime();
    // The spawner uses the runtime that is current at that moment.
    let current = Arc::new(std::sync::Mutex::new(first.handle().clone()));
    let spawning = current.clone();
    let counted = loader.clone();
    let cache: Cache<u64, u64> = builder(&clock)
        .spawner(move |future| drop(spawning.lock().unwrap().spawn(future)))
        .try_load(move |key: &u64| {
            let (counted, key) = (counted.clone(), *key);
            async move { counted.load(&key).await }
        })
        .build()
        .unwrap();
    loader.hold();
    let mut waiting = get(&cache, 1);
    assert!(is_pending(&mut waiting));
    loader.wait_for_calls(1);
    drop(first);
    assert!(ready(waiting).unwrap_err().is_cancelled());
    assert_eq!(loader.running(), 0);
    // On a runtime that has ended, loads are cancelled at once.
    clock.advance(secs(60));
    assert!(cache.get_blocking(&1).unwrap_err().is_cancelled());
    let second = runtime();
    *current.lock().unwrap() = second.handle().clone();
    loader.release();
    clock.advance(secs(60));
    assert_eq!(*cache.get_blocking(&1).unwrap(), 1);
}

#[test]
fn loads_run_on_the_runtime_on_which_the_cache_was_built() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let cache: Cache<u64, u64> = runtime.block_on(async {
        Cache::builder()
            .load(async |key: &u64| key * 2)
            .build()
            .unwrap()
    });
    assert_eq!(*runtime.block_on(cache.get(&4)).unwrap(), 8);
    drop(runtime);
    assert!(cache.get_blocking(&5).unwrap_err().is_cancelled());
    assert_eq!(*cache.get_blocking(&4).unwrap(), 8);
}
