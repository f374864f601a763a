//! A cache that is dropped while loads run or are queued releases everything it owns.

use std::sync::{Arc, Mutex};

use everfresh::{Cache, CountingLoader, ManualClock};

use crate::support::*;

#[test]
fn a_cache_may_be_dropped_while_a_load_runs_and_others_are_queued() {
    let tally = Tally::default();
    let clock = ManualClock::new();
    let making = tally.clone();
    let loader = CountingLoader::new(move |_: &u64| making.make());
    let cache = computing(builder(&clock).threads(1), &loader);
    cache.insert(100, tally.make());
    cache.insert(101, tally.make());
    clock.advance(secs(12));
    loader.hold();
    let mut running = get(&cache, 1);
    assert!(is_pending(&mut running));
    loader.wait_for_calls(1);
    let mut queued = get(&cache, 2);
    assert!(is_pending(&mut queued));
    assert!(ready(get(&cache, 100)).is_ok(), "a refresh is queued too");
    drop((running, queued));
    drop(cache);
    loader.release();
    loader.wait_until_idle();
    until("every value is dropped", || tally.alive() == 0);
    assert_eq!(tally.made(), 3);
    assert_eq!(loader.calls(), 1, "the queued loads never ran");
}

#[test]
fn a_cache_may_be_dropped_by_its_own_load() {
    let tally = Tally::default();
    let clock = ManualClock::new();
    let handle: Arc<Mutex<Option<Cache<u64, Tracked>>>> = Arc::default();
    let (inside, making) = (handle.clone(), tally.clone());
    let cache: Cache<u64, Tracked> = builder(&clock)
        .threads(1)
        .compute(move |_: &u64| {
            until("the caller is gone", || inside.lock().unwrap().is_some());
            drop(inside.lock().unwrap().take());
            making.make()
        })
        .build()
        .unwrap();
    cache.insert(100, tally.make());
    let mut read = get(&cache, 1);
    assert!(is_pending(&mut read));
    drop(read);
    *handle.lock().unwrap() = Some(cache);
    until("every value is dropped", || {
        tally.made() == 2 && tally.alive() == 0
    });
}

#[test]
fn a_cache_may_be_dropped_while_async_loads_hang() {
    let tally = Tally::default();
    let clock = ManualClock::new();
    let (tasks, making) = (Tasks::default(), tally.clone());
    let counted = CountingLoader::new(move |_: &u64| making.make());
    let loader = counted.clone();
    let cache: Cache<u64, Tracked> = builder(&clock)
        .spawner(tasks.spawner())
        .try_load(move |key: &u64| {
            let (loader, key) = (loader.clone(), *key);
            async move { loader.load(&key).await }
        })
        .build()
        .unwrap();
    counted.hold();
    cache.insert(100, tally.make());
    clock.advance(secs(12));
    let mut read = get(&cache, 1);
    assert!(is_pending(&mut read) && ready(get(&cache, 100)).is_ok());
    tasks.poll(0);
    drop((read, cache));
    // The first load has begun, and no caller gets its value. The second has not begun.
    counted.release();
    tasks.poll_all();
    assert_eq!((tally.made(), counted.calls()), (2, 1));
    assert_eq!(tally.alive(), 0);
}

#[test]
fn the_cache_lives_until_its_last_clone_is_dropped_and_a_kept_value_outlives_it() {
    let tally = Tally::default();
    let clock = ManualClock::new();
    let making = tally.clone();
    let loader = CountingLoader::new(move |_: &u64| making.make());
    let cache = computing(builder(&clock), &loader);
    let kept = cache.get_blocking(&1).unwrap();
    let clone = cache.clone();
    drop(cache);
    assert_eq!(clone.get_blocking(&1).unwrap().number, 0);
    clone.get_blocking(&2).unwrap();
    drop(clone);
    until("only the kept value is alive", || tally.alive() == 1);
    assert_eq!(kept.number, 0);
    drop(kept);
    // The worker that loaded the value may hold it for a moment after its callers have it.
    until("the kept value is dropped", || tally.alive() == 0);
}

#[test]
fn the_loader_and_the_pool_are_dropped_with_the_cache() {
    let clock = ManualClock::new();
    let held = Arc::new(());
    let in_loader = held.clone();
    let cache: Cache<u64, u64> = builder(&clock)
        .compute(move |key: &u64| {
            let _held = &in_loader;
            *key
        })
        .build()
        .unwrap();
    cache.get_blocking(&1).unwrap();
    assert_eq!(Arc::strong_count(&held), 2);
    drop(cache);
    until("the loader is dropped", || Arc::strong_count(&held) == 1);
}
