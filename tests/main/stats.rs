//! The counters, their ratios and their text.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use everfresh::{Cache, CountingLoader, Histogram, ManualClock, Stats};

use crate::support::gates::numbering;
use crate::support::*;

/// One miss, one fresh hit, one stale hit whose refresh takes 3 s on the clock, and one failure.
fn some_history(clock: &ManualClock) -> Cache<u64, u64> {
    let moved = clock.clone();
    let loader = CountingLoader::new(move |_: &u64| {
        moved.advance(secs(3));
        1
    });
    let cache = computing(builder(clock), &loader);
    cache.get_blocking(&1).unwrap();
    cache.get_blocking(&1).unwrap();
    clock.advance(secs(11));
    cache.get_blocking(&1).unwrap();
    until("the refresh is published", || cache.stats().published == 2);
    loader.fail_next(1);
    cache.get_blocking(&2).unwrap_err();
    cache
}

#[test]
fn every_read_and_every_load_is_counted_once() {
    let stats = some_history(&ManualClock::new()).stats();
    assert_eq!((stats.fresh, stats.early, stats.stale), (1, 0, 1));
    assert_eq!((stats.misses, stats.coalesced), (2, 0));
    assert_eq!((stats.loads, stats.refreshes_stale), (2, 1));
    assert_eq!((stats.published, stats.failed), (2, 1));
    assert_eq!((stats.hits(), stats.reads(), stats.computes()), (2, 4, 3));
    assert_eq!((stats.hit_ratio(), stats.stale_ratio()), (0.5, 0.25));
    assert_eq!(stats.computes_per_trigger(), 1.0);
    assert_eq!((stats.load_time.count(), stats.stale_age.count()), (3, 1));
}

#[test]
fn stats_print_as_readable_text() {
    let text = some_history(&ManualClock::new()).stats().to_string();
    let expected = "\
reads      4 (50.00 % hits, 25.00 % stale)
hits       1 fresh, 0 early, 1 stale (0 started no refresh)
misses     2 (0 waited for another caller's load), 0 negative answers
computes   3 (2 loads, 1 stale, 0 early), 1.0000 for each read with a reason
results    2 published, 1 failed, 0 overtaken, 0 after another load, 0 not kept
time-outs  0 loads, 0 late results kept, 0 thrown away; 0 loads dropped
not tried  0 early, 0 stale, 0 loads refused, 0 by the breaker, 0 never started
now        0 running, 0 overdue, 0 cold, 0 stale and 0 early wait, breaker closed
replaced   0 workers
load time  3 counted, p50 < 4.3s, p99 < 4.3s, max < 4.3s
stale age  1 counted, p50 < 1.1s, p99 < 1.1s, max < 1.1s";
    assert_eq!(text, expected);
    let nothing = Stats::default().to_string();
    assert!(nothing.contains("reads      0 (0.00 % hits"), "{nothing}");
    assert!(nothing.ends_with("stale age  none counted"), "{nothing}");
}

#[test]
fn a_reset_sets_the_counters_to_zero() {
    let clock = ManualClock::new();
    let cache = some_history(&clock);
    cache.reset_stats();
    assert_eq!(cache.stats().to_string(), Stats::default().to_string());
    cache.get_blocking(&1).unwrap();
    let stats = cache.stats();
    assert_eq!((stats.reads(), stats.fresh, stats.computes()), (1, 1, 0));
    assert_eq!(stats.load_time.count(), 0);
    assert_eq!(cache.len(), 1, "the values stay");
}

#[test]
fn reads_that_end_in_an_error_are_counted() {
    let clock = ManualClock::new();
    let loader = numbering();
    let cache = computing(builder(&clock).threads(1).queue(1), &loader);
    loader.hold();
    let mut running = get(&cache, 1);
    assert!(is_pending(&mut running));
    loader.wait_for_calls(1);
    let mut queued = get(&cache, 2);
    assert!(is_pending(&mut queued));
    assert!(ready(get(&cache, 3)).unwrap_err().is_overloaded());
    clock.advance(secs(30));
    assert!(ready(running).unwrap_err().is_timeout());
    assert!(ready(queued).unwrap_err().is_timeout());
    assert_eq!(cache.stats().misses, 3);
    loader.release();
    loader.wait_until_idle();
}

#[test]
fn a_failed_read_inside_a_load_is_counted() {
    let clock = ManualClock::new();
    let handle: std::sync::Arc<std::sync::OnceLock<Cache<u64, u64>>> = Default::default();
    let inside = handle.clone();
    let cache: Cache<u64, u64> = builder(&clock)
        .try_compute(move |key: &u64| inside.get().unwrap().get_blocking(key).map(|read| *read))
        .build()
        .unwrap();
    handle.set(cache.clone()).unwrap();
    assert!(cache.get_blocking(&1).is_err());
    // The read of the caller, and the read of the load.
    assert_eq!(cache.stats().misses, 2);
}

#[test]
fn snapshots_taken_while_counting_are_consistent() {
    let clock = ManualClock::new();
    let cache: Cache<u64, u64> = builder(&clock)
        .capacity(10)
        .try_compute(|key: &u64| match key % 5 {
            0 => Err("no"),
            _ => Ok(*key),
        })
        .build()
        .unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut last = Stats::default();
            let mut seen = 0u64;
            while !done.load(Ordering::Relaxed) {
                let stats = cache.stats();
                let ended = stats.published
                    + stats.failed
                    + stats.discarded_overtaken
                    + stats.discarded_taken_over;
                assert!(ended <= stats.load_time.count());
                assert!(stats.load_time.count() <= stats.computes());
                assert!(stats.reads() >= last.reads() && stats.loads >= last.loads);
                last = stats;
                seen += 1;
                thread::yield_now();
            }
            seen
        });
        let readers = [(); 2].map(|()| {
            scope.spawn(|| {
                for round in 0..5_000 {
                    let _ = cache.get_blocking(&(round % 37));
                    if round % 7 == 0 {
                        cache.invalidate(&(round % 36));
                    }
                }
            })
        });
        for reader in readers {
            reader.join().unwrap();
        }
        done.store(true, Ordering::Relaxed);
        assert!(watcher.join().unwrap() > 0);
    });
    assert_eq!(cache.stats().reads(), 10_000);
    until("every load has ended", || {
        let stats = cache.stats();
        stats.published + stats.failed + stats.discarded_overtaken == stats.computes()
    });
}

/// Counts stale ages of 1, 2, 4, ... 512 s, one each.
fn ages() -> Histogram {
    let clock = ManualClock::new();
    let (cache, ..) = by_hand(builder(&clock).stale_for(secs(10_000)));
    for power in 0..10 {
        cache.insert(1, 1);
        clock.advance(secs(10) + secs(1 << power));
        cache.get_if_present(&1).unwrap();
    }
    cache.stats().stale_age
}

#[test]
fn quantiles_are_upper_bounds_at_most_twice_too_high() {
    let ages = ages();
    assert_eq!(ages.count(), 10);
    for (part, age) in [
        (0.0, 1),
        (0.1, 1),
        (0.11, 2),
        (0.5, 16),
        (0.9, 256),
        (1.0, 512),
    ] {
        let bound = ages.quantile(part).unwrap();
        assert!(
            bound > secs(age) && bound <= secs(2 * age),
            "{part}: {bound:?}"
        );
    }
    // Values out of range count at the nearest end.
    assert_eq!(ages.quantile(7.0), ages.quantile(1.0));
    assert_eq!(ages.quantile(-1.0), ages.quantile(0.0));
    assert_eq!(Histogram::default().quantile(0.5), None);
    let buckets: Vec<(Duration, u64)> = ages.buckets().collect();
    assert_eq!(buckets.len(), 10);
    assert!(buckets.iter().all(|(_, count)| *count == 1));
    assert!(buckets.windows(2).all(|pair| pair[1].0 == pair[0].0 * 2));
    assert!(ages.to_string().starts_with("10 counted, p50 < "));
}
