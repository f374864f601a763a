//! The metrics of one cache.
use dev_support::caches::gates::End;
use dev_support::caches::*;
use everfresh::{Cache, CountingLoader, ManualClock, Source};

use crate::SECRET;
use crate::recorder::RECORDED;

/// So near to the soft limit, an early refresh fails to begin with a probability of 1e-8.
const HARDLY_FRESH: std::time::Duration = std::time::Duration::from_nanos(20);

/// All outcomes of reads, loads and results, with a loader that is never busy.
fn history(name: &str) -> Cache<u64, u64> {
    let clock = ManualClock::new();
    let builder = builder(&clock).name(name).capacity(50).beta(1.0);
    let builder = builder
        .load_timeout(secs(5))
        .keep_late_loads(true)
        .max_weight(1_000, |_, value| *value as u32);
    let (cache, tasks, gates) = by_hand(builder);
    let end = |call, end| {
        gates.end(call, end);
        tasks.poll_all();
    };
    // Two callers of one load, which takes 2 s; then three fresh hits.
    let mut reads = [get(&cache, SECRET), get(&cache, SECRET)];
    assert!(reads.iter_mut().all(is_pending));
    tasks.poll_all();
    clock.advance(secs(2));
    end(0, End::Value(7));
    for read in reads {
        ready(read).unwrap();
    }
    for _ in 0..3 {
        assert_eq!(ready(get(&cache, SECRET)).unwrap().source(), Source::Fresh);
    }
    // One early hit, whose refresh takes no time.
    clock.advance(secs(10) - HARDLY_FRESH);
    let early = ready(get(&cache, SECRET)).unwrap();
    assert_eq!(early.source(), Source::Early);
    tasks.poll_all();
    end(1, End::Value(8));
    // Five stale hits and a refresh that fails, five hits during the pause after it, and a refresh
    // that succeeds after 4 s.
    clock.advance(secs(11));
    for _ in 0..5 {
        ready(get(&cache, SECRET)).unwrap();
    }
    tasks.poll_all();
    end(2, End::Fail);
    for _ in 0..5 {
        ready(get(&cache, SECRET)).unwrap();
    }
    clock.advance(secs(1));
    ready(get(&cache, SECRET)).unwrap();
    tasks.poll_all();
    clock.advance(secs(4));
    end(3, End::Value(9));
    // Two loads that an invalidation overtakes, one that is taken over, three whose values are too
    // heavy, and one that finds no value.
    for call in 4..6 {
        cache.invalidate(&SECRET);
        let mut read = get(&cache, SECRET);
        assert!(is_pending(&mut read));
        tasks.poll_all();
        cache.invalidate(&SECRET);
        end(call, End::Value(1));
        ready(read).unwrap();
    }
    assert!(is_pending(&mut get(&cache, SECRET)));
    tasks.poll_all();
    // Past its deadline, which is rounded up, and past the rest.
    clock.advance(secs(6));
    clock.advance(secs(1));
    let mut next = get(&cache, SECRET);
    assert!(is_pending(&mut next));
    tasks.poll_all();
    end(7, End::Value(10));
    end(6, End::Value(11));
    ready(next).unwrap();
    for call in 8..11 {
        cache.invalidate(&SECRET);
        let mut read = get(&cache, SECRET);
        assert!(is_pending(&mut read));
        tasks.poll_all();
        end(call, End::Value(1_001));
        ready(read).unwrap();
    }
    let mut read = get(&cache, SECRET);
    assert!(is_pending(&mut read));
    tasks.poll_all();
    end(11, End::NotFound);
    ready(read).unwrap_err();
    // The answer is remembered.
    ready(get(&cache, SECRET)).unwrap_err();
    cache.insert(SECRET, 12);
    cache.insert(1, 13);
    cache
}

#[test]
fn every_counter_of_a_cache_is_recorded_and_right() {
    let recorded = &*RECORDED;
    let cache = history("counted");
    cache.record_metrics();
    let stats = cache.stats();
    let number = |series: &str| recorded.number("counted", series);
    let recorded_series = [
        ("everfresh_reads_total fresh", stats.fresh),
        ("everfresh_reads_total early", stats.early),
        ("everfresh_reads_total stale", stats.stale),
        ("everfresh_reads_total miss", stats.misses),
        ("everfresh_reads_total negative", stats.negative),
        ("everfresh_coalesced_total", stats.coalesced),
        ("everfresh_claims_denied_total", stats.claims_denied),
        ("everfresh_loads_total cold", stats.loads),
        ("everfresh_loads_total stale", stats.refreshes_stale),
        ("everfresh_loads_total early", stats.refreshes_early),
        ("everfresh_load_failures_total", stats.failed),
        ("everfresh_load_timeouts_total", stats.timed_out),
        (
            "everfresh_late_results_total discarded",
            stats.late_discarded,
        ),
        ("everfresh_results_total published", stats.published),
        (
            "everfresh_results_total overtaken",
            stats.discarded_overtaken,
        ),
        (
            "everfresh_results_total taken_over",
            stats.discarded_taken_over,
        ),
        ("everfresh_results_total not_kept", stats.not_kept),
    ];
    for (series, count) in recorded_series {
        assert!(count > 0, "{series}");
        assert_eq!(number(series), count as f64, "{series}");
    }
    // Counts known without the statistics, so that an exchange of two series is found.
    assert_eq!(number("everfresh_reads_total fresh"), 3.0);
    assert_eq!(number("everfresh_reads_total early"), 1.0);
    assert_eq!(number("everfresh_reads_total stale"), 11.0);
    assert_eq!(number("everfresh_loads_total cold"), 9.0);
    assert_eq!(number("everfresh_loads_total stale"), 2.0);
    assert_eq!(number("everfresh_results_total published"), 4.0);
    assert_eq!(number("everfresh_results_total overtaken"), 2.0);
    assert_eq!(number("everfresh_results_total taken_over"), 1.0);
    assert_eq!(number("everfresh_results_total not_kept"), 3.0);
    assert_eq!(number("everfresh_entries"), 2.0);
    assert_eq!(number("everfresh_capacity"), 50.0);
    assert_eq!(number("everfresh_weight"), 25.0);
    assert_eq!(number("everfresh_max_weight"), 1_000.0);
}

#[test]
fn the_time_of_a_load_is_recorded_as_it_ends() {
    let recorded = &*RECORDED;
    let cache = history("durations");
    let durations = |series: &str| {
        let name = format!("everfresh_load_seconds {series}");
        recorded.durations("durations", &name)
    };
    assert_eq!(durations("cold ok")[0], 2.0);
    // The load that was taken over took 7 s.
    assert_eq!(durations("cold ok").iter().sum::<f64>(), 9.0);
    assert_eq!(durations("cold not_found"), [0.0]);
    assert_eq!(durations("early ok"), [0.0]);
    assert_eq!(durations("stale failed"), [0.0]);
    assert_eq!(durations("stale ok"), [4.0]);
    let loads = cache.stats().load_time.count();
    let recorded_series = recorded.of("durations").into_keys();
    let recorded_series =
        recorded_series.flat_map(|series| recorded.durations("durations", &series));
    assert_eq!(recorded_series.count() as u64, loads);
}

#[test]
fn loads_that_a_busy_loader_leaves_out_are_counted() {
    let recorded = &*RECORDED;
    let clock = ManualClock::new();
    let moved = clock.clone();
    let loader = CountingLoader::new(move |key: &u64| {
        if *key == 1 {
            moved.advance(secs(2));
        }
        *key
    });
    let builder = builder(&clock).name("busy").beta(1.0).threads(1).queue(1);
    let cache = computing(builder, &loader);
    cache.insert(2, 2);
    cache.insert(3, 3);
    cache.get_blocking(&1).unwrap();
    clock.advance(secs(10) - HARDLY_FRESH);
    loader.hold();
    let mut running = get(&cache, 8);
    assert!(is_pending(&mut running));
    loader.wait_for_calls(2);
    let mut queued = get(&cache, 9);
    assert!(is_pending(&mut queued));
    for key in 10..13 {
        assert!(ready(get(&cache, key)).unwrap_err().is_overloaded());
    }
    for stale in 2..4 {
        ready(get(&cache, stale)).unwrap();
    }
    assert_eq!(ready(get(&cache, 1)).unwrap().source(), Source::Early);
    cache.record_metrics();
    for (reason, count) in [("cold", 3.0), ("stale", 2.0), ("early", 1.0)] {
        let series = format!("everfresh_not_tried_total {reason}");
        assert_eq!(recorded.number("busy", &series), count);
    }
    loader.release();
    wait(running).unwrap();
    wait(queued).unwrap();
}

#[test]
fn counters_do_not_fall_when_the_statistics_start_from_zero() {
    let recorded = &*RECORDED;
    let cache = history("reset");
    cache.record_metrics();
    let before = recorded.of("reset");
    cache.reset_stats();
    assert_eq!(cache.stats().reads(), 0);
    cache.record_metrics();
    assert_eq!(recorded.of("reset"), before);
    ready(get(&cache, 1)).unwrap();
    cache.record_metrics();
    let fresh = recorded.number("reset", "everfresh_reads_total fresh");
    assert_eq!(fresh, 4.0);
    assert!(recorded.fallen().is_empty(), "{:?}", recorded.fallen());
}

#[test]
fn a_cache_without_store_and_weigher_records_no_metrics_of_them() {
    let recorded = &*RECORDED;
    let cache: Cache<u64, u64> = Cache::builder()
        .name("alone")
        .compute(|n: &u64| *n)
        .build()
        .unwrap();
    cache.record_metrics();
    let recorded_series = recorded.of("alone");
    assert!(recorded_series.contains_key("everfresh_weight"));
    assert!(!recorded_series.contains_key("everfresh_max_weight"));
    assert!(
        !recorded_series
            .keys()
            .any(|series| series.contains("store"))
    );
    // All counters are recorded from the start, at zero, so that a rate includes the first event.
    assert!(recorded_series.contains_key("everfresh_results_total taken_over"));
    // The counters and the gauges of the first table in `docs::watching`.
    assert_eq!(recorded_series.len(), 26 + 9);
}

#[test]
fn loads_that_hang_and_loads_whose_turn_never_came_are_recorded() {
    let recorded = &*RECORDED;
    let clock = ManualClock::new();
    let limits = builder(&clock).load_timeout(secs(5)).max_loads(1);
    let (cache, tasks, gates) = by_hand(limits.name("hangs").keep_late_loads(true));
    let mut reads = [get(&cache, 1), get(&cache, 2)];
    assert!(reads.iter_mut().all(is_pending));
    tasks.poll_all();
    clock.advance(secs(6));
    for read in reads {
        assert!(ready(read).unwrap_err().is_timeout());
    }
    let number = |series| {
        cache.record_metrics();
        recorded.number("hangs", series)
    };
    assert_eq!(number("everfresh_loads_overdue"), 1.0);
    assert_eq!(number("everfresh_never_started_total"), 0.0);
    gates.end(0, End::Value(1));
    tasks.poll_all();
    assert_eq!(number("everfresh_loads_overdue"), 0.0);
    assert_eq!(number("everfresh_never_started_total"), 1.0);
}
