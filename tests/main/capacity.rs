//! The entry limit at every moment, and sets full of loads.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use everfresh::{Cache, Error, ManualClock, Source};

use crate::support::gates::End;
use crate::support::random::{Rng, rounds};
use crate::support::*;

#[test]
fn the_limit_holds_at_every_moment() {
    for capacity in [1, 2, 10] {
        let clock = ManualClock::new();
        let cache: Cache<u64, u64> = builder(&clock)
            .capacity(capacity)
            .compute(|key: &u64| *key)
            .build()
            .unwrap();
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let workers: Vec<_> = (0..4)
                .map(|stream| {
                    let cache = &cache;
                    scope.spawn(move || {
                        let mut rng = Rng::new(stream);
                        for _ in 0..rounds(3_000) {
                            let key = rng.below(40);
                            match rng.below(8) {
                                0 => drop(cache.invalidate(&key)),
                                1..4 => cache.insert(key, key),
                                _ => assert_eq!(*cache.get_blocking(&key).unwrap(), key),
                            }
                            assert!(cache.len() <= capacity);
                        }
                    })
                })
                .collect();
            let watcher = scope.spawn(|| {
                let mut most = 0;
                while !done.load(Ordering::Relaxed) {
                    let len = cache.len();
                    assert!(len <= capacity, "{len} of {capacity}");
                    most = most.max(len);
                    thread::yield_now();
                }
                most
            });
            for worker in workers {
                worker.join().unwrap();
            }
            done.store(true, Ordering::Relaxed);
            assert!(watcher.join().unwrap() > 0);
        });
        // The count matches the resident values, and the limit can be reached.
        for key in 0..40 {
            cache.insert(key, key);
            assert!(cache.contains_key(&key), "an inserted value is resident");
        }
        let resident = (0..40).filter(|key| cache.contains_key(key)).count();
        assert_eq!((resident, cache.len()), (capacity, capacity));
        cache.invalidate_all();
        assert_eq!(cache.len(), 0);
    }
}

#[test]
fn an_expired_value_is_evicted_before_one_that_can_be_served() {
    let clock = ManualClock::new();
    let (cache, ..) = by_hand(builder(&clock).capacity(2));
    cache.insert(
        1,
        everfresh::Loaded::new(1)
            .fresh_for(secs(1))
            .stale_for(secs(1)),
    );
    cache.insert(2, 2);
    for _ in 0..3 {
        assert!(cache.get_if_present(&1).is_some());
    }
    clock.advance(secs(2));
    cache.insert(3, 3);
    assert!(cache.contains_key(&2) && cache.contains_key(&3));
}

/// A cache of one entry, whose set of 13 ways is full of loads.
fn full_of_loads(clock: &ManualClock) -> (Cache<u64, u64>, Tasks, Gates<u64>, Vec<Reading<u64>>) {
    let (cache, tasks, gates) = by_hand(builder(clock).capacity(1).load_timeout(secs(5)));
    let mut reads: Vec<_> = (0..13).map(|key| get(&cache, key)).collect();
    assert!(reads.iter_mut().all(is_pending));
    tasks.poll_all();
    assert_eq!(gates.calls(), 13);
    (cache, tasks, gates, reads)
}

#[test]
fn a_caller_from_outside_waits_for_room_in_a_set_full_of_loads() {
    let clock = ManualClock::new();
    let (cache, tasks, gates, reads) = full_of_loads(&clock);
    let mut more = get(&cache, 100);
    assert!(is_pending(&mut more));
    assert_eq!(tasks.spawned(), 13, "its load has no room yet");
    for call in 0..13 {
        gates.end(call, End::Value(call as u64));
    }
    tasks.poll_all();
    assert!(is_pending(&mut more));
    assert_eq!(tasks.spawned(), 14);
    tasks.poll_all();
    gates.end(13, End::Value(100));
    tasks.poll_all();
    assert_eq!(*ready(more).unwrap(), 100);
    for (key, read) in reads.into_iter().enumerate() {
        assert_eq!(*ready(read).unwrap(), key as u64);
    }
    assert_eq!(cache.len(), 1);
}

#[test]
fn a_load_past_its_deadline_makes_room() {
    let clock = ManualClock::new();
    let (cache, tasks, gates, reads) = full_of_loads(&clock);
    let mut more = get(&cache, 100);
    assert!(is_pending(&mut more));
    clock.advance(secs(5));
    assert!(is_pending(&mut more));
    assert_eq!(tasks.spawned(), 14);
    for read in reads {
        assert!(ready(read).unwrap_err().is_timeout());
    }
    tasks.poll_all();
    gates.end(13, End::Value(100));
    tasks.poll_all();
    assert_eq!(*ready(more).unwrap(), 100);
}

#[test]
fn a_load_that_needs_room_in_a_set_full_of_loads_is_refused() {
    let clock = ManualClock::new();
    let tasks = Tasks::default();
    let handle: std::sync::Arc<std::sync::OnceLock<Cache<u64, u64>>> = Default::default();
    let inside = handle.clone();
    let cache: Cache<u64, u64> = builder(&clock)
        .capacity(1)
        .spawner(tasks.spawner())
        .try_load(move |key: &u64| {
            let (cache, key) = (inside.get().unwrap().clone(), *key);
            async move {
                // All other loads hold their ways. If this load waited for room, it could wait for
                // a load that waits for it.
                match key {
                    0 => cache.get(&100).await.map(|read| *read),
                    _ => std::future::pending().await,
                }
            }
        })
        .build()
        .unwrap();
    handle.set(cache.clone()).unwrap();
    let mut reads: Vec<_> = (0..13).map(|key| get(&cache, key)).collect();
    assert!(reads.iter_mut().all(is_pending));
    tasks.poll_all();
    let error = ready(reads.remove(0)).unwrap_err();
    let inner = error.downcast_ref::<Error>();
    assert!(inner.is_some_and(Error::is_overloaded), "{error}");
    assert!(reads.iter_mut().all(is_pending));
    assert!(cache.is_empty());
}

#[test]
fn an_insert_into_a_set_full_of_loads_keeps_nothing_older() {
    let clock = ManualClock::new();
    let (cache, tasks, gates, reads) = full_of_loads(&clock);
    // A new key has no room. A key that is being loaded takes the room of its load.
    cache.insert(100, 5);
    assert!(!cache.contains_key(&100));
    cache.insert(3, 33);
    assert_eq!(ready(get(&cache, 3)).unwrap().source(), Source::Fresh);
    for call in 0..13 {
        gates.end(call, End::Value(call as u64));
    }
    tasks.poll_all();
    for (key, read) in reads.into_iter().enumerate() {
        assert_eq!(*ready(read).unwrap(), key as u64);
    }
    assert!(cache.get_if_present(&3).is_none_or(|read| *read == 33));
    assert_eq!(cache.len(), 1);
}
