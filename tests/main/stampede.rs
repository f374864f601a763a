//! A stampede of callers on one key. On a stale key all are served and one refresh runs; on a
//! missing key they share one load.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use everfresh::{Cache, CountingLoader, Error, InjectedFailure, ManualClock, Source};

use crate::support::gates::numbering;
use crate::support::*;

const CALLERS: usize = 100;

#[test]
fn threads_on_a_stale_key_are_all_served_while_one_refresh_runs() {
    let clock = ManualClock::new();
    let loader = numbering();
    let cache = computing(builder(&clock), &loader);
    cache.get_blocking(&1).unwrap();
    clock.advance(secs(12));
    loader.hold();
    // No caller can have waited for the refresh, because it ends only after all callers have
    // returned.
    thread::scope(|scope| {
        let callers: Vec<_> = (0..CALLERS)
            .map(|_| scope.spawn(|| cache.get_blocking(&1).unwrap()))
            .collect();
        for caller in callers {
            let stale = caller.join().unwrap();
            assert_eq!((*stale, stale.source()), (1, Source::Stale));
        }
    });
    loader.wait_for_calls(2);
    loader.release();
    until("the refresh is published", || cache.stats().published == 2);
    assert_eq!(*cache.get_blocking(&1).unwrap(), 2);
    assert_eq!(loader.calls(), 2);
    let stats = cache.stats();
    assert_eq!((stats.stale, stats.refreshes_stale), (100, 1));
    assert_eq!(stats.claims_denied, 99);
}

#[test]
fn tasks_on_a_stale_key_are_ready_at_the_first_poll() {
    let clock = ManualClock::new();
    let (cache, tasks, _gates) = by_hand(builder(&clock));
    cache.insert(1, 10);
    clock.advance(secs(12));
    let mut reads: Vec<_> = (0..CALLERS).map(|_| get(&cache, 1)).collect();
    for read in &mut reads {
        assert_eq!(ready(read).unwrap().source(), Source::Stale);
    }
    assert_eq!(tasks.spawned(), 1);
}

/// `CALLERS` threads read a missing key. The loader is released once all of them wait.
fn cold(
    cache: &Cache<u64, u64>,
    loader: &CountingLoader<u64, u64>,
) -> Vec<Result<everfresh::Cached<u64, u64>, Error>> {
    loader.hold();
    let waited = cache.stats().coalesced;
    thread::scope(|scope| {
        let callers: Vec<_> = (0..CALLERS)
            .map(|_| scope.spawn(|| cache.get_blocking(&1)))
            .collect();
        until("all callers but one wait", || {
            cache.stats().coalesced == waited + CALLERS as u64 - 1
        });
        loader.release();
        callers
            .into_iter()
            .map(|caller| caller.join().unwrap())
            .collect()
    })
}

#[test]
fn threads_on_a_missing_key_share_one_load_and_its_result() {
    let clock = ManualClock::new();
    let loader = numbering();
    let cache = computing(builder(&clock), &loader);
    let read = cold(&cache, &loader);
    assert!(read.iter().all(|read| **read.as_ref().unwrap() == 1));
    let with = |source| {
        read.iter()
            .filter(|read| read.as_ref().unwrap().source() == source)
            .count()
    };
    assert_eq!(
        (with(Source::Loaded), with(Source::Coalesced)),
        (1, CALLERS - 1)
    );
    assert_eq!(loader.calls(), 1);
    assert_eq!(cache.len(), 1);
}

#[test]
fn threads_on_a_missing_key_share_its_error_and_its_panic() {
    let clock = ManualClock::new();
    let loader = numbering();
    let cache = computing(builder(&clock).backoff(secs(1_000), secs(100_000)), &loader);
    loader.fail_next(1);
    for read in cold(&cache, &loader) {
        let error = read.unwrap_err();
        assert!(error.is_load_failure());
        assert_eq!(error.downcast_ref(), Some(&InjectedFailure));
    }
    assert_eq!((loader.calls(), cache.len()), (1, 0));
    // All callers again, at the end of the backoff.
    assert!(cache.get_blocking(&1).unwrap_err().is_load_failure());
    clock.advance(secs(1_000));
    loader.panic_next(1);
    for read in cold(&cache, &loader) {
        let error = read.unwrap_err();
        assert!(error.is_panic());
        assert!(error.to_string().contains("panics on request"), "{error}");
    }
    assert_eq!((loader.calls(), cache.len()), (2, 0));
    clock.advance(secs(2_000));
    // The key works as before.
    assert!(cold(&cache, &loader).iter().all(Result::is_ok));
    assert_eq!(loader.calls(), 3);
}

#[test]
fn tasks_on_a_missing_key_share_one_load_on_a_runtime() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .unwrap();
    let loader = CountingLoader::new(|key: &u64| key * 10);
    loader.hold();
    runtime.block_on(async {
        let counted = loader.clone();
        let cache: Cache<u64, u64> = Cache::builder()
            .clock(ManualClock::new())
            .try_load(move |key: &u64| {
                let (counted, key) = (counted.clone(), *key);
                async move { counted.load(&key).await }
            })
            .build()
            .unwrap();
        let callers: Vec<_> = (0..CALLERS).map(|_| tokio::spawn(get(&cache, 4))).collect();
        while cache.stats().coalesced < CALLERS as u64 - 1 || loader.calls() == 0 {
            tokio::task::yield_now().await;
        }
        loader.release();
        for caller in callers {
            assert_eq!(*caller.await.unwrap().unwrap(), 40);
        }
        assert_eq!(loader.calls(), 1);
        assert_eq!(cache.stats().loads, 1);
    });
}

#[test]
fn threads_and_tasks_wait_for_the_same_load() {
    let clock = ManualClock::new();
    let loader = CountingLoader::new(|key: &u64| *key);
    let cache = computing(builder(&clock), &loader);
    loader.hold();
    let mut task = get(&cache, 5);
    assert!(is_pending(&mut task));
    thread::scope(|scope| {
        let thread = scope.spawn(|| *cache.get_blocking(&5).unwrap());
        until("the thread waits", || cache.stats().coalesced == 1);
        loader.release();
        assert_eq!(thread.join().unwrap(), 5);
    });
    assert_eq!(*wait(task).unwrap(), 5);
    assert_eq!(loader.calls(), 1);
}

#[test]
fn different_keys_do_not_wait_for_each_other() {
    let clock = ManualClock::new();
    let (cache, tasks, gates) = by_hand(builder(&clock));
    let mut reads: Vec<_> = (0..20).map(|key| get(&cache, key)).collect();
    assert!(reads.iter_mut().all(is_pending));
    assert_eq!(tasks.spawned(), 20);
    tasks.poll_all();
    for (call, read) in reads.into_iter().enumerate().rev() {
        gates.end(call, crate::support::gates::End::Value(gates.key(call)));
        tasks.poll(call);
        assert_eq!(*ready(read).unwrap(), call as u64);
    }
}

#[test]
fn a_panic_in_a_caller_does_not_affect_the_cache() {
    let clock = ManualClock::new();
    let loader = numbering();
    let cache = computing(builder(&clock), &loader);
    let held = catch_unwind(AssertUnwindSafe(|| {
        let _read = cache.get_blocking(&1).unwrap();
        panic!("the caller panics");
    }));
    assert!(held.is_err());
    assert_eq!(*cache.get_blocking(&1).unwrap(), 1);
}
