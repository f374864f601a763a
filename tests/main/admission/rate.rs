//! How many loads start in a second.

use everfresh::{Budget, CountingLoader, Loaded, ManualClock, Source};

use crate::support::gates::End;
use crate::support::*;

#[test]
fn loads_start_evenly_and_a_caller_of_a_missing_key_is_next() {
    let clock = ManualClock::new();
    let (cache, tasks, gates) = by_hand(builder(&clock).load_rate(10));
    for key in 0..20 {
        cache.insert(key, Loaded::new(key).fresh_for(secs(1)));
    }
    clock.advance(secs(1));
    for key in 0..20 {
        assert_eq!(ready(get(&cache, key)).unwrap().source(), Source::Stale);
    }
    tasks.poll_all();
    assert_eq!(gates.calls(), 1);
    let mut cold = get(&cache, 100);
    assert!(is_pending(&mut cold));
    for begun in 1..10 {
        clock.advance(millis(100) - NANO);
        tasks.poll_all();
        assert_eq!(gates.calls(), begun);
        clock.advance(NANO);
        tasks.poll_all();
        assert_eq!(gates.calls(), begun + 1);
    }
    assert_eq!(gates.key(1), 100);
    gates.end(1, End::Value(1));
    tasks.poll_all();
    assert_eq!(*ready(cold).unwrap(), 1);
    assert_eq!(cache.stats().waiting_stale, 11);
    // Starts that no load uses are not saved up.
    clock.advance(secs(10));
    tasks.poll_all();
    assert_eq!(gates.calls(), 11);
}

#[test]
fn a_load_inside_a_load_waits_for_its_start_and_for_no_permit() {
    let clock = ManualClock::new();
    let handle = std::sync::Arc::new(std::sync::OnceLock::new());
    let budget = Budget::builder()
        .max_loads(1)
        .load_rate(1)
        .clock(&clock)
        .build()
        .unwrap();
    let tasks = Tasks::default();
    let cache: everfresh::Cache<u64, u64> = builder(&clock)
        .spawner(tasks.spawner())
        .budget(&budget)
        .try_load_on(
            handle.clone(),
            async |cache: &std::sync::Arc<std::sync::OnceLock<_>>, key: &u64| {
                let cache: &everfresh::Cache<u64, u64> = cache.get().unwrap();
                match key {
                    0 => Ok::<u64, everfresh::Error>(0),
                    key => Ok(*cache.get(&(key - 1)).await? + 1),
                }
            },
        )
        .build()
        .unwrap();
    handle.set(cache.clone()).unwrap();
    let mut read = get(&cache, 3);
    assert!(is_pending(&mut read));
    for spawned in 1..4 {
        tasks.poll_all();
        assert_eq!(tasks.spawned(), spawned);
        clock.advance(secs(1));
    }
    (0..4).for_each(|_| tasks.poll_all());
    assert_eq!(*ready(read).unwrap(), 3);
}

#[test]
fn computes_that_got_their_start_do_not_gather_before_the_pool() {
    let clock = ManualClock::new();
    let loader = CountingLoader::new(|key: &u64| *key);
    let cache = computing(builder(&clock).threads(2).load_rate(10), &loader);
    loader.hold();
    let mut reads: Vec<_> = (0..20).map(|key| get(&cache, key)).collect();
    assert!(reads.iter_mut().all(is_pending));
    for _ in 0..50 {
        clock.advance(millis(100));
    }
    loader.wait_for_calls(2);
    // Both threads were busy for five seconds. Now one load starts, and the next 100 ms later.
    loader.release();
    loader.hold();
    loader.wait_for_calls(3);
    // The third one may have begun before the loader was held again.
    until("the first two ended", || cache.stats().published >= 2);
    assert_eq!(cache.stats().waiting_cold, 17);
    loader.release();
    until("all are loaded", || {
        clock.advance(millis(100));
        cache.stats().published == 20
    });
    for (key, read) in reads.into_iter().enumerate() {
        assert_eq!(*ready(read).unwrap(), key as u64);
    }
}
