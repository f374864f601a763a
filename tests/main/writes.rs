//! Writes and refreshes: the value that `remove` returns, and the forms for threads.

use std::thread;

use everfresh::{Cache, Cause, Fresh, Loaded, ManualClock, Source};

use crate::support::gates::{End, numbering};
use crate::support::*;

#[test]
fn remove_returns_the_value_that_it_removed() {
    let clock = ManualClock::new();
    let (cache, ..) = by_hand(builder(&clock));
    assert!(cache.remove(&1).is_none(), "it never was there");
    cache.insert(1, 10);
    clock.advance(secs(4));
    let before = cache.stats().to_string();
    let removed = cache.remove(&1).unwrap();
    assert_eq!((*removed, *removed.key()), (10, 1));
    assert_eq!(removed.source(), Source::Fresh);
    assert_eq!(
        (removed.age(), removed.fresh_remaining()),
        (secs(4), secs(6))
    );
    assert!(cache.remove(&1).is_none() && !cache.contains_key(&1) && cache.is_empty());
    assert_eq!(cache.stats().to_string(), before, "it is no read");
}

#[test]
fn remove_returns_a_stale_value_and_no_expired_one() {
    let clock = ManualClock::new();
    let (cache, ..) = by_hand(builder(&clock));
    cache.insert(1, 10);
    clock.advance(secs(30) - NANO);
    let stale = cache.remove(&1).unwrap();
    assert_eq!((*stale, stale.source()), (10, Source::Stale));

    for expired in [secs(0), NANO, secs(1_000)] {
        cache.insert(1, 10);
        clock.advance(secs(30) + expired);
        assert!(cache.remove(&1).is_none());
        assert!(cache.is_empty(), "it is removed all the same");
    }
    cache.insert(1, 10);
    clock.advance(secs(30));
    assert!(cache.invalidate(&1), "a value was resident");
}

#[test]
fn remove_during_a_load_returns_nothing_and_wins() {
    let clock = ManualClock::new();
    let (cache, tasks, gates) = by_hand(builder(&clock));
    let mut earlier = get(&cache, 1);
    assert!(is_pending(&mut earlier));
    tasks.poll_all();
    assert!(cache.remove(&1).is_none());
    gates.end(0, End::Value(10));
    tasks.poll_all();
    assert_eq!(*ready(earlier).unwrap(), 10, "it waited before the write");
    assert!(cache.peek(&1).is_none());
    assert_eq!(cache.stats().discarded_overtaken, 1);
}

#[test]
fn remove_during_a_refresh_returns_the_old_value_and_wins() {
    let clock = ManualClock::new();
    let (cache, tasks, gates) = by_hand(builder(&clock));
    cache.insert(1, 9);
    let mut refreshing = refresh(&cache, 1);
    assert!(is_pending(&mut refreshing));
    tasks.poll_all();
    assert_eq!(cache.remove(&1).as_deref(), Some(&9));
    gates.end(0, End::Value(10));
    tasks.poll_all();
    assert_eq!(*ready(refreshing).unwrap(), 10);
    assert!(cache.peek(&1).is_none() && cache.remove(&1).is_none());
}

#[test]
fn of_many_removals_one_gets_each_value() {
    let keys = if cfg!(miri) { 20 } else { 2_000 };
    let clock = ManualClock::new();
    let cache = computing(builder(&clock).capacity(5_000), &numbering());
    (0..keys).for_each(|key| cache.insert(key, key));
    let resident: Vec<u64> = (0..keys).filter(|key| cache.contains_key(key)).collect();
    let removed: Vec<u64> = thread::scope(|scope| {
        let remove = || {
            let removed = (0..keys).filter_map(|key| cache.remove(&key));
            removed.map(|value| *value).collect::<Vec<_>>()
        };
        let threads = [(); 3].map(|()| scope.spawn(remove));
        let mut removed = threads.map(|thread| thread.join().unwrap()).concat();
        removed.sort_unstable();
        removed
    });
    assert_eq!(removed, resident);
    assert!(cache.is_empty());
}

#[test]
fn the_listener_hears_of_a_removed_value() {
    let (told, heard) = std::sync::mpsc::channel();
    let told = std::sync::Mutex::new(told);
    let cache: Cache<u64, u64> = builder(&ManualClock::new())
        .on_removal(move |key: &u64, value: &u64, cause| {
            told.lock().unwrap().send((*key, *value, cause)).unwrap();
        })
        .compute(|key: &u64| *key)
        .build()
        .unwrap();
    cache.insert(1, 10);
    assert_eq!(cache.remove(&1).as_deref(), Some(&10));
    assert_eq!(heard.try_recv().unwrap(), (1, 10, Cause::Invalidated));
    assert!(cache.remove(&1).is_none() && heard.try_recv().is_err());
}

#[test]
fn a_removed_value_lives_as_long_as_its_handle() {
    let tally = Tally::default();
    let made = tally.clone();
    let cache: Cache<u64, Tracked> = builder(&ManualClock::new())
        .compute(move |_: &u64| made.make())
        .build()
        .unwrap();
    cache.get_blocking(&1).unwrap();
    let removed = cache.remove(&1).unwrap();
    removed.check();
    assert_eq!(tally.alive(), 1);
    drop(removed);
    // The worker that loaded the value may hold it for a moment after its callers have it.
    until("the value is dropped", || tally.alive() == 0);
}

#[test]
fn refresh_blocking_returns_the_new_value_or_the_failure() {
    let clock = ManualClock::new();
    let loader = numbering();
    let cache = computing(builder(&clock), &loader);
    // A missing key is loaded.
    assert_eq!(*cache.refresh_blocking(&1).unwrap(), 1);
    assert_eq!(*cache.refresh_blocking(&1).unwrap(), 2);
    assert_eq!(*cache.get_blocking(&1).unwrap(), 2);
    loader.fail_next(1);
    assert!(cache.refresh_blocking(&1).unwrap_err().is_load_failure());
    assert_eq!(*cache.get_blocking(&1).unwrap(), 2, "the old value stays");
    // It does not wait for the rest after the failure.
    assert_eq!(*cache.refresh_blocking(&1).unwrap(), 3);
}

#[test]
fn refresh_blocking_joins_a_refresh_that_is_running() {
    let loader = numbering();
    let cache = computing(builder(&ManualClock::new()), &loader);
    cache.insert(1, 100);
    loader.hold();
    thread::scope(|scope| {
        let first = scope.spawn(|| *cache.refresh_blocking(&1).unwrap());
        loader.wait_for_calls(1);
        let second = scope.spawn(|| *cache.refresh_blocking(&1).unwrap());
        until("the second has joined", || cache.stats().coalesced == 1);
        assert_eq!(*cache.get_blocking(&1).unwrap(), 100);
        loader.release();
        assert_eq!((first.join().unwrap(), second.join().unwrap()), (1, 1));
    });
    assert_eq!(loader.calls(), 1);
}

#[test]
fn get_many_blocking_answers_each_key_in_its_place() {
    let cache: Cache<u64, u64> = builder(&ManualClock::new())
        .try_compute(|key: &u64| match key {
            13 => Err("unlucky"),
            key => Ok(key * 10),
        })
        .build()
        .unwrap();
    cache.insert(2, 0);
    let read = cache.get_many_blocking(&[1, 2, 13, 1, 3]);
    let read: Vec<_> = read
        .into_iter()
        .map(|read| read.map(|read| *read))
        .collect();
    assert_eq!(read[0].as_ref().unwrap(), &10);
    assert_eq!(read[1].as_ref().unwrap(), &0);
    assert!(read[2].as_ref().unwrap_err().is_load_failure());
    assert_eq!(read[3].as_ref().unwrap(), &10);
    assert_eq!(read[4].as_ref().unwrap(), &30);
    assert_eq!(cache.stats().computes(), 3);
    assert!(cache.get_many_blocking::<u64>(&[]).is_empty());
}

#[test]
fn a_load_on_a_pool_of_one_thread_may_read_many_and_refresh() {
    let cache = std::sync::Arc::new(std::sync::OnceLock::<Cache<u64, u64>>::new());
    let inner = cache.clone();
    let built = builder(&ManualClock::new())
        .threads(1)
        .compute(move |key: &u64| match key {
            0 => {
                let cache = inner.get().unwrap();
                let many = cache.get_many_blocking(&[1, 2]);
                let sum: u64 = many.iter().flatten().map(|read| **read).sum();
                sum + *cache.refresh_blocking(&3).unwrap()
            }
            key => key * 10,
        })
        .build()
        .unwrap();
    let cache = cache.get_or_init(|| built);
    assert_eq!(*cache.get_blocking(&0).unwrap(), 60);
}

#[test]
fn without_a_store_writes_everywhere_end_at_once() {
    let cache = computing(builder(&ManualClock::new()), &numbering());
    cache.insert_everywhere_blocking(1, 10).unwrap();
    assert_eq!(cache.peek(&1).as_deref(), Some(&10));
    assert!(cache.invalidate_everywhere_blocking(&1).unwrap());
    assert!(!cache.invalidate_everywhere_blocking(&1).unwrap());
    // A value that says that there is none removes the key.
    cache.insert(1, 10);
    ready(Box::pin(cache.insert_everywhere(1, Loaded::not_found()))).unwrap();
    assert!(!cache.contains_key(&1));
}

#[test]
fn a_fresh_gives_its_cache_and_the_calls_that_are_used_all_the_time() {
    let clock = ManualClock::new();
    let level: Fresh<u64> = Fresh::builder()
        .name("level")
        .clock(&clock)
        .fresh_for(secs(10))
        .stale_for(secs(20))
        .beta(0.0)
        .compute(|()| 1)
        .build_fresh()
        .unwrap();
    assert_eq!((level.name(), level.cache().name()), ("level", "level"));
    assert!(!level.is_set() && level.get_if_present().is_none());
    level.set(5);
    assert!(level.is_set());
    assert_eq!(level.peek().as_deref(), Some(&5));
    assert_eq!(level.get_if_present().as_deref(), Some(&5));
    assert_eq!((level.stats().fresh, level.stats().misses), (1, 1));
    assert_eq!(*level.refresh_blocking().unwrap(), 1);
    assert_eq!(level.cache().remove(&()).as_deref(), Some(&1));
    assert!(!level.is_set());
    assert!(level.cache().store_stats().is_none());
    level.set(5);
    clock.advance(secs(30));
    assert!(
        !level.is_set() && level.cache().len() == 1,
        "it has expired"
    );
    assert_eq!(level.cache().sweep(), 1);
}
