//! X-Fetch as callers see it. Unit tests check its probability.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use everfresh::{Cache, ManualClock, Source};

use crate::support::*;

/// Fresh for 100 s. The first load takes 2 s, later loads take no time.
fn slow(clock: &ManualClock, beta: f64) -> (Cache<u64, u64>, Tasks) {
    let tasks = Tasks::default();
    let (loads, moved) = (Arc::new(AtomicU64::new(0)), clock.clone());
    let cache = builder(clock)
        .fresh_for(secs(100))
        .beta(beta)
        .spawner(tasks.spawner())
        .load(move |_: &u64| {
            let load = loads.fetch_add(1, Ordering::Relaxed);
            if load == 0 {
                moved.advance(secs(2));
            }
            async move { load }
        })
        .build()
        .unwrap();
    let mut first = get(&cache, 1);
    assert!(is_pending(&mut first));
    tasks.poll_all();
    // The cost is stored in two bytes, rounded down.
    let cost = ready(first).unwrap().cost();
    assert!(cost <= secs(2) && cost > secs(2) - millis(2), "{cost:?}");
    (cache, tasks)
}

/// So close to the soft limit, the chance that a read does not refresh is one in a hundred million.
const HARDLY_FRESH: Duration = Duration::from_nanos(20);

#[test]
fn one_reader_refreshes_early_and_all_are_served_fresh() {
    let clock = ManualClock::new();
    let (cache, tasks) = slow(&clock, 1.0);
    clock.advance(secs(100) - HARDLY_FRESH);
    let first = ready(get(&cache, 1)).unwrap();
    assert_eq!((*first, first.source()), (0, Source::Early));
    assert!(first.freshness().is_fresh());
    for _ in 0..100 {
        assert_eq!(ready(get(&cache, 1)).unwrap().source(), Source::Fresh);
    }
    assert_eq!(tasks.spawned(), 2);
    tasks.poll_all();
    clock.advance(HARDLY_FRESH);
    let next = ready(get(&cache, 1)).unwrap();
    assert_eq!((*next, next.source()), (1, Source::Fresh));
    let stats = cache.stats();
    assert_eq!((stats.early, stats.refreshes_early, stats.stale), (1, 1, 0));
    // The cost is the moving average of 2 s and 0 s.
    assert!(next.cost() <= millis(1_400) && next.cost() > millis(1_398));
}

#[test]
fn no_read_refreshes_before_the_window() {
    let clock = ManualClock::new();
    let (cache, tasks) = slow(&clock, 1.0);
    // The window is ln(1e9) times the cost, 41.4 s.
    clock.advance(secs(58));
    for _ in 0..10_000 {
        assert_eq!(ready(get(&cache, 1)).unwrap().source(), Source::Fresh);
    }
    assert_eq!(tasks.spawned(), 1);
}

#[test]
fn beta_zero_never_refreshes_early() {
    let clock = ManualClock::new();
    let (cache, tasks) = slow(&clock, 0.0);
    clock.advance(secs(100) - NANO);
    for _ in 0..1_000 {
        assert_eq!(ready(get(&cache, 1)).unwrap().source(), Source::Fresh);
    }
    assert_eq!(tasks.spawned(), 1);
}

#[test]
fn reads_that_never_load_never_refresh() {
    let clock = ManualClock::new();
    let (cache, tasks) = slow(&clock, 1.0);
    clock.advance(secs(100) - HARDLY_FRESH);
    for read in [Cache::get_if_present::<u64>, Cache::peek::<u64>] {
        assert_eq!(read(&cache, &1).unwrap().source(), Source::Fresh);
    }
    clock.advance(secs(1));
    for read in [Cache::get_if_present::<u64>, Cache::peek::<u64>] {
        assert_eq!(read(&cache, &1).unwrap().source(), Source::Stale);
    }
    assert_eq!(tasks.spawned(), 1);
}
