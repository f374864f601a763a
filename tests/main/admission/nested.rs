//! Loads that read caches need no permit of their own, so they never block each other.

use std::sync::{Arc, OnceLock};
use std::thread;

use everfresh::{BoxFuture, Budget, Cache, Error, Loaded, ManualClock};
use futures_lite::future::block_on;

use crate::support::*;

type Handle = Arc<OnceLock<Cache<u64, u64>>>;

/// A runtime with a thread for each load.
fn thread_each(load: BoxFuture) {
    thread::spawn(|| block_on(load));
}

#[test]
fn computes_nested_deeper_than_there_are_permits_end() {
    for threads in [1, 2] {
        let handle: Handle = Arc::default();
        let inside = handle.clone();
        let cache: Cache<u64, u64> = builder(&ManualClock::new())
            .threads(threads)
            .max_loads(1)
            .try_compute(move |key: &u64| match key {
                0 => Ok(0),
                key => inside
                    .get()
                    .unwrap()
                    .get_blocking(&(key - 1))
                    .map(|it| *it + 1),
            })
            .build()
            .unwrap();
        handle.set(cache.clone()).unwrap();
        assert_eq!(*cache.get_blocking(&20).unwrap(), 20);
        until("none runs", || cache.stats().running == 0);
    }
}

#[test]
fn async_loads_nested_deeper_than_there_are_permits_end() {
    let handle: Handle = Arc::default();
    let cache: Cache<u64, u64> = builder(&ManualClock::new())
        .spawner(thread_each)
        .max_loads(1)
        .try_load_on(
            handle.clone(),
            async |cache: &Handle, key: &u64| match key {
                0 => Ok::<u64, Error>(0),
                key => Ok(*cache.get().unwrap().get(&(key - 1)).await? + 1),
            },
        )
        .build()
        .unwrap();
    handle.set(cache.clone()).unwrap();
    assert_eq!(*cache.get_blocking(&20).unwrap(), 20);
}

#[test]
fn two_caches_that_read_each_other_share_a_budget_of_one() {
    let budget = Budget::new(1).unwrap();
    let [first, second]: [Handle; 2] = Default::default();
    let make = |other: &Handle| {
        builder(&ManualClock::new())
            .spawner(thread_each)
            .budget(&budget)
            .try_load_on(other.clone(), async |other: &Handle, key: &u64| match key {
                0 => Ok::<u64, Error>(0),
                key => Ok(*other.get().unwrap().get(&(key - 1)).await? + 1),
            })
            .build()
            .unwrap()
    };
    first.set(make(&second)).unwrap();
    second.set(make(&first)).unwrap();
    let (first, second) = (first.get().unwrap().clone(), second.get().unwrap().clone());
    thread::scope(|scope| {
        for key in 10..30 {
            let (first, second) = (&first, &second);
            scope.spawn(move || assert_eq!(*first.get_blocking(&key).unwrap(), key));
            scope.spawn(move || assert_eq!(*second.get_blocking(&key).unwrap(), key));
        }
    });
}

/// The load of 0 reads 1, which waits for the permit of 0.
#[test]
fn a_waiting_compute_that_a_load_needs_starts_at_once() {
    for threads in [1, 2] {
        let handle: Handle = Arc::default();
        let inside = handle.clone();
        let cache: Cache<u64, u64> = builder(&ManualClock::new())
            .threads(threads)
            .max_loads(1)
            .try_compute(move |key: &u64| {
                let cache = inside.get().unwrap();
                if *key > 0 {
                    return Ok(*key);
                }
                until("another load waits", || cache.stats().waiting_cold == 1);
                cache.get_blocking(&1).map(|it| *it + 10)
            })
            .build()
            .unwrap();
        handle.set(cache.clone()).unwrap();
        let mut outer = get(&cache, 0);
        assert!(is_pending(&mut outer));
        until("the outer load runs", || cache.stats().running == 1);
        let mut waits = get(&cache, 1);
        assert!(is_pending(&mut waits));
        assert_eq!(*wait(outer).unwrap(), 11);
        assert_eq!(*wait(waits).unwrap(), 1);
        // The place that it left takes no permit.
        assert_eq!(*cache.get_blocking(&2).unwrap(), 2);
        until("none runs", || cache.stats().running == 0);
    }
}

#[test]
fn a_waiting_async_load_that_a_load_needs_starts_at_once() {
    let handle: Handle = Arc::default();
    let cache: Cache<u64, u64> = builder(&ManualClock::new())
        .spawner(thread_each)
        .max_loads(1)
        .try_load_on(handle.clone(), async |cache: &Handle, key: &u64| {
            let cache = cache.get().unwrap();
            if *key > 0 {
                return Ok::<u64, Error>(*key);
            }
            until("another load waits", || cache.stats().waiting_cold == 1);
            Ok(*cache.get(&1).await? + 10)
        })
        .build()
        .unwrap();
    handle.set(cache.clone()).unwrap();
    let mut outer = get(&cache, 0);
    assert!(is_pending(&mut outer));
    until("the outer load runs", || cache.stats().running == 1);
    let mut waits = get(&cache, 1);
    assert!(is_pending(&mut waits));
    assert_eq!(*wait(outer).unwrap(), 11);
    assert_eq!(*wait(waits).unwrap(), 1);
    assert_eq!(*cache.get_blocking(&2).unwrap(), 2);
}

#[test]
fn refreshes_of_stale_values_that_a_load_reads_wait_for_permits() {
    let clock = ManualClock::new();
    let (tasks, handle) = (Tasks::default(), Handle::default());
    let cache: Cache<u64, u64> = builder(&clock)
        .spawner(tasks.spawner())
        .max_loads(2)
        .try_load_on(handle.clone(), async |cache: &Handle, key: &u64| {
            if *key == 100 {
                for stale in 0..50 {
                    cache.get().unwrap().get(&stale).await?;
                }
            }
            Ok::<u64, Error>(*key)
        })
        .build()
        .unwrap();
    handle.set(cache.clone()).unwrap();
    for key in 0..50 {
        cache.insert(key, Loaded::new(key).fresh_for(secs(1)));
    }
    clock.advance(secs(1));
    let mut outer = get(&cache, 100);
    assert!(is_pending(&mut outer));
    assert!(tasks.poll(0));
    let stats = cache.stats();
    // The permit of the load itself has been given back by now.
    assert_eq!((tasks.spawned(), stats.waiting_stale), (3, 50));
    assert_eq!(*ready(outer).unwrap(), 100);
    while cache.stats().waiting_stale > 0 {
        tasks.poll_all();
    }
    assert_eq!(cache.stats().refreshes_stale, 50);
}
