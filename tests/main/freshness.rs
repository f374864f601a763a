//! Fresh, stale and expired, to the nanosecond.

use std::convert::Infallible;

use everfresh::{Cache, Freshness, Loaded, Loader, ManualClock, Request, Source};

use crate::support::gates::{End, numbering};
use crate::support::*;

#[test]
fn fresh_up_to_the_soft_limit_then_stale_with_its_age() {
    let clock = ManualClock::new();
    let (cache, tasks, _gates) = by_hand(builder(&clock).load_timeout(secs(1_000)));
    cache.insert(1, 10);

    clock.advance(secs(10) - NANO);
    let fresh = ready(get(&cache, 1)).unwrap();
    assert_eq!(
        (fresh.freshness(), fresh.source()),
        (Freshness::Fresh, Source::Fresh)
    );
    assert_eq!(fresh.age(), secs(10) - NANO);
    assert_eq!(tasks.spawned(), 0);

    clock.advance(NANO);
    let stale = ready(get(&cache, 1)).unwrap();
    assert_eq!(stale.freshness(), Freshness::Stale { by: secs(0) });
    assert_eq!((*stale, stale.source()), (10, Source::Stale));
    assert_eq!(tasks.spawned(), 1, "the first stale read starts a refresh");

    clock.advance(secs(20) - NANO);
    let stale = ready(get(&cache, 1)).unwrap();
    let by = secs(20) - NANO;
    assert_eq!(stale.freshness(), Freshness::Stale { by });
    assert_eq!(stale.age(), secs(30) - NANO);
    assert_eq!(cache.get_if_present(&1).unwrap().source(), Source::Stale);
    assert!(cache.contains_key(&1));

    clock.advance(NANO);
    assert!(
        is_pending(&mut get(&cache, 1)),
        "an expired value is never served"
    );
    assert!(cache.get_if_present(&1).is_none());
    assert!(!cache.contains_key(&1));
    assert_eq!(
        tasks.spawned(),
        1,
        "the caller waits for the running refresh"
    );

    // A value that was read before stays unchanged.
    assert_eq!(fresh.freshness(), Freshness::Fresh);
    assert_eq!(*fresh, 10);
}

#[test]
fn a_refresh_starts_new_lifetimes() {
    let clock = ManualClock::new();
    let loader = numbering();
    let cache = computing(builder(&clock), &loader);
    let loaded = cache.get_blocking(&1).unwrap();
    assert_eq!((*loaded, loaded.source()), (1, Source::Loaded));
    for epoch in 1..=3 {
        clock.advance(secs(12));
        let stale = cache.get_blocking(&1).unwrap();
        assert_eq!(*stale, epoch);
        assert_eq!(stale.freshness(), Freshness::Stale { by: secs(2) });
        until("the refresh is published", || {
            cache.stats().published > epoch
        });
        let fresh = cache.get_blocking(&1).unwrap();
        assert_eq!((*fresh, fresh.age()), (epoch + 1, secs(0)));
        assert!(fresh.freshness().is_fresh());
    }
    assert_eq!(loader.calls(), 4);
}

#[test]
fn an_insert_has_the_lifetime_of_a_load_or_its_own() {
    let clock = ManualClock::new();
    let (cache, ..) = by_hand(builder(&clock));
    cache.insert(1, 1);
    cache.insert(2, Loaded::new(2).fresh_for(secs(5)));
    cache.insert(3, Loaded::new(3).fresh_for(secs(15)).stale_for(secs(0)));
    cache.insert(4, Loaded::new(4).stale_if_error_for(secs(100)));
    let is_fresh = |key: u64| cache.get_if_present(&key).unwrap().freshness().is_fresh();
    clock.advance(secs(5));
    assert!(is_fresh(1) && !is_fresh(2) && is_fresh(3) && is_fresh(4));
    clock.advance(secs(5));
    assert!(!is_fresh(1) && is_fresh(3) && !is_fresh(4));
    clock.advance(secs(5));
    assert!(cache.contains_key(&1) && cache.contains_key(&2) && !cache.contains_key(&3));
    clock.advance(secs(15));
    assert!(!cache.contains_key(&1) && !cache.contains_key(&2) && cache.contains_key(&4));
    clock.advance(secs(80) - NANO);
    assert!(cache.contains_key(&4));
    clock.advance(NANO);
    assert!(!cache.contains_key(&4));
}

#[test]
fn a_computing_loader_sets_the_times_and_sees_the_previous_value() {
    let clock = ManualClock::new();
    // Fresh for as many seconds as there were loads.
    let cache: Cache<u64, u64> = builder(&clock)
        .compute_with(|request: &Request<u64, u64>| {
            let value = request.previous().map_or(1, |previous| previous + 1);
            assert_eq!(*request.key(), 7);
            Ok::<_, std::convert::Infallible>(Loaded::new(value).fresh_for(secs(value)))
        })
        .build()
        .unwrap();
    assert_eq!(*cache.get_blocking(&7).unwrap(), 1);
    for value in 1..5 {
        clock.advance(secs(value) - NANO);
        assert!(
            cache.get_blocking(&7).unwrap().freshness().is_fresh(),
            "{value}"
        );
        clock.advance(NANO);
        assert_eq!(*cache.get_blocking(&7).unwrap(), value);
        until("the refresh is published", || {
            cache.stats().published > value
        });
    }
    // The loader sees even an expired previous value, which no caller is served.
    clock.advance(secs(1_000));
    assert_eq!(*cache.get_blocking(&7).unwrap(), 6);
    cache.invalidate(&7);
    assert_eq!(*cache.get_blocking(&7).unwrap(), 1);
}

/// Counts the loads of a key; the value is fresh for as many seconds.
struct Next;

impl Loader<u64, u64> for Next {
    type Value = Loaded<u64>;
    type Error = Infallible;

    async fn load(&self, request: &Request<u64, u64>) -> Result<Loaded<u64>, Infallible> {
        let value = request.previous().map_or(1, |previous| previous + 1);
        Ok(Loaded::new(value).fresh_for(secs(value)))
    }
}

#[test]
fn an_async_loader_sets_the_times_and_sees_the_previous_value() {
    let clock = ManualClock::new();
    let tasks = Tasks::default();
    let cache: Cache<u64, u64> = builder(&clock)
        .spawner(tasks.spawner())
        .loader(Next)
        .build()
        .unwrap();
    let mut first = get(&cache, 7);
    assert!(is_pending(&mut first));
    tasks.poll_all();
    assert_eq!(*ready(first).unwrap(), 1);
    clock.advance(secs(1));
    assert!(ready(get(&cache, 7)).unwrap().freshness().is_stale());
    tasks.poll_all();
    clock.advance(secs(2) - NANO);
    let second = ready(get(&cache, 7)).unwrap();
    assert_eq!((*second, second.freshness()), (2, Freshness::Fresh));
    clock.advance(NANO);
    assert!(ready(get(&cache, 7)).unwrap().freshness().is_stale());
}

#[test]
fn a_value_without_fresh_time_is_stale_at_once() {
    let clock = ManualClock::new();
    let (cache, tasks, _gates) = by_hand(builder(&clock));
    cache.insert(1, Loaded::new(5).fresh_for(secs(0)));
    let stale = ready(get(&cache, 1)).unwrap();
    assert_eq!(stale.freshness(), Freshness::Stale { by: secs(0) });
    assert_eq!(tasks.spawned(), 1);
}

#[test]
fn a_value_without_any_lifetime_still_reaches_the_callers_that_waited_for_it() {
    let clock = ManualClock::new();
    let tasks = Tasks::default();
    let cache: Cache<u64, u64> = builder(&clock)
        .spawner(tasks.spawner())
        .load(async |_: &u64| Loaded::new(5).fresh_for(secs(0)).stale_for(secs(0)))
        .build()
        .unwrap();
    for loads in 1..4 {
        let mut waiting = [get(&cache, 1), get(&cache, 1)];
        assert!(waiting.iter_mut().all(is_pending));
        tasks.poll_all();
        assert!(waiting.into_iter().all(|read| *ready(read).unwrap() == 5));
        assert_eq!(tasks.spawned(), loads);
        assert!(cache.get_if_present(&1).is_none());
    }
}

#[test]
fn a_caller_polled_after_the_hard_limit_does_not_get_the_expired_result() {
    let clock = ManualClock::new();
    let (cache, tasks, gates) = by_hand(builder(&clock));
    let mut late = get(&cache, 1);
    assert!(is_pending(&mut late));
    tasks.poll_all();
    gates.end(0, End::Value(10));
    tasks.poll_all();
    assert_eq!(*cache.get_if_present(&1).unwrap(), 10);
    // The load has succeeded, but this caller is polled again only long after the value has
    // expired.
    clock.advance(secs(31));
    assert!(is_pending(&mut late));
    tasks.poll_all();
    gates.end(1, End::Value(11));
    tasks.poll_all();
    assert_eq!(*ready(late).unwrap(), 11);
}

#[test]
fn a_short_lived_value_is_delivered_for_a_tenth_of_a_second_and_no_longer() {
    let clock = ManualClock::new();
    let limits = builder(&clock).fresh_for(millis(50)).stale_for(secs(0));
    let (cache, tasks, gates) = by_hand(limits);
    let mut waiting = [get(&cache, 1), get(&cache, 1), get(&cache, 1)];
    assert!(waiting.iter_mut().all(is_pending));
    tasks.poll_all();
    gates.end(0, End::Value(10));
    tasks.poll_all();
    let [within, mut after, mut long_after] = waiting;
    clock.advance(millis(100) - NANO);
    assert_eq!(*ready(within).unwrap(), 10);
    assert_eq!(tasks.spawned(), 1);
    // Neither a new caller nor one that has waited too long is served the value.
    clock.advance(NANO);
    assert!(is_pending(&mut after));
    assert_eq!(tasks.spawned(), 2);
    clock.advance(secs(3_600));
    assert!(is_pending(&mut long_after));
}

#[test]
fn jitter_spreads_values_that_were_inserted_together() {
    let clock = ManualClock::new();
    let (cache, ..) = by_hand(builder(&clock).jitter(0.5));
    for key in 0..200 {
        cache.insert(key, key);
    }
    let fresh = || {
        (0..200)
            .filter(|key| cache.get_if_present(key).unwrap().freshness().is_fresh())
            .count()
    };
    clock.advance(secs(5) - millis(1));
    assert_eq!(fresh(), 200);
    // Each value is still fresh with a chance of one half. All are in the same state with a chance
    // of 2^-199.
    clock.advance(millis(2_500));
    assert!((1..200).contains(&fresh()));
    clock.advance(millis(2_501));
    assert_eq!(fresh(), 0);
}
