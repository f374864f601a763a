//! Refreshes that fail: the second stale window, the hard limit and the backoff.

use std::time::Duration;

use everfresh::{Cache, CountingLoader, Freshness, ManualClock, Source};

use crate::support::gates::End;
use crate::support::*;

/// A value inserted at 0 s, fresh until 10 s, stale-while-revalidate until 30 s, stale-if-error
/// until 50 s.
fn cache(clock: &ManualClock) -> (Cache<u64, u64>, Tasks, Gates<u64>) {
    let (cache, tasks, gates) = by_hand(
        builder(clock)
            .stale_if_error_for(secs(40))
            .load_timeout(secs(1_000))
            .backoff(secs(2), secs(2)),
    );
    cache.insert(1, 10);
    (cache, tasks, gates)
}

fn end(tasks: &Tasks, gates: &Gates<u64>, call: usize, end: End<u64>) {
    tasks.poll_all();
    gates.end(call, end);
    tasks.poll_all();
}

#[test]
fn in_the_second_window_callers_wait_and_get_the_new_value() {
    let clock = ManualClock::new();
    let (cache, tasks, gates) = cache(&clock);
    clock.advance(secs(30));
    let mut reads = [get(&cache, 1), get(&cache, 1)];
    assert!(reads.iter_mut().all(is_pending));
    assert_eq!(tasks.spawned(), 1);
    end(&tasks, &gates, 0, End::Value(11));
    let [first, second] = reads.map(|read| ready(read).unwrap());
    assert_eq!((*first, first.source()), (11, Source::Loaded));
    assert_eq!((*second, second.source()), (11, Source::Coalesced));
    assert_eq!(gates.previous(0), Some(10));
}

#[test]
fn in_the_second_window_callers_get_the_old_value_if_the_refresh_fails() {
    for how in [End::Fail, End::Panic] {
        let clock = ManualClock::new();
        let (cache, tasks, gates) = cache(&clock);
        clock.advance(secs(30));
        let mut reads = [get(&cache, 1), get(&cache, 1)];
        assert!(reads.iter_mut().all(is_pending));
        end(&tasks, &gates, 0, how);
        for read in reads {
            let old = ready(read).unwrap();
            assert_eq!((*old, old.source()), (10, Source::AfterFailure));
            assert_eq!(old.freshness(), Freshness::Stale { by: secs(20) });
        }
        // During the backoff no caller waits. After it one caller tries again.
        let old = ready(get(&cache, 1)).unwrap();
        assert_eq!((*old, old.source()), (10, Source::AfterFailure));
        assert_eq!(tasks.spawned(), 1);
        clock.advance(secs(2));
        assert!(is_pending(&mut get(&cache, 1)));
        assert_eq!(tasks.spawned(), 2);
    }
}

#[test]
fn a_refresh_that_is_dropped_counts_as_failed() {
    let clock = ManualClock::new();
    let (cache, tasks, _gates) = cache(&clock);
    clock.advance(secs(30));
    let mut read = get(&cache, 1);
    assert!(is_pending(&mut read));
    assert!(tasks.abort(0));
    assert_eq!(ready(read).unwrap().source(), Source::AfterFailure);
    assert_eq!(
        ready(get(&cache, 1)).unwrap().source(),
        Source::AfterFailure
    );
}

#[test]
fn the_backoff_of_a_dropped_refresh_starts_at_its_end_and_counts_earlier_failures() {
    let clock = ManualClock::new();
    let limits = builder(&clock)
        .backoff(secs(1), secs(100))
        .stale_for(secs(1_000));
    let (cache, tasks, gates) = by_hand(limits);
    cache.insert(1, 10);
    for call in 0..3 {
        let mut failing = refresh(&cache, 1);
        assert!(is_pending(&mut failing));
        end(&tasks, &gates, call, End::Fail);
        assert!(ready(failing).is_err());
    }
    clock.advance(secs(12));
    assert!(ready(get(&cache, 1)).is_ok());
    assert_eq!(tasks.spawned(), 4);
    // The refresh runs for 20 s, and its runtime drops it.
    clock.advance(secs(20));
    assert!(tasks.abort(3));
    let after_failure = || ready(get(&cache, 1)).unwrap().source() == Source::AfterFailure;
    assert!(after_failure());
    // The backoff after three failures is 4 to 8 s.
    clock.advance(secs(4) - NANO);
    assert!(after_failure());
    assert_eq!(tasks.spawned(), 4);
    clock.advance(secs(4) + millis(1));
    assert_eq!(ready(get(&cache, 1)).unwrap().source(), Source::Stale);
    assert_eq!(tasks.spawned(), 5);
}

#[test]
fn reads_that_never_load_report_the_same_state_as_a_get() {
    let clock = ManualClock::new();
    let limits = builder(&clock)
        .stale_if_error_for(secs(1_000))
        .backoff(secs(100), secs(100));
    let (cache, tasks, gates) = by_hand(limits);
    cache.insert(1, 10);
    let both = || {
        let peeked = cache.peek(&1).map(|read| read.source());
        let present = cache.get_if_present(&1).map(|read| read.source());
        assert_eq!(present, peeked);
        let read = ready(get(&cache, 1)).map(|read| read.source()).ok();
        assert_eq!(peeked, read);
        peeked
    };
    assert_eq!(both(), Some(Source::Fresh));
    clock.advance(secs(12));
    assert_eq!(both(), Some(Source::Stale));
    end(&tasks, &gates, 0, End::Fail);
    assert_eq!(both(), Some(Source::AfterFailure));
    // In the second window too, during the backoff.
    clock.advance(secs(49));
    assert_eq!(both(), Some(Source::AfterFailure));
    assert_eq!(tasks.spawned(), 1);
}

#[test]
fn no_value_is_served_past_the_hard_limit_even_after_a_failure() {
    let clock = ManualClock::new();
    let (cache, tasks, gates) = cache(&clock);
    clock.advance(secs(50));
    let mut read = get(&cache, 1);
    assert!(is_pending(&mut read));
    end(&tasks, &gates, 0, End::Fail);
    assert!(ready(read).unwrap_err().is_load_failure());
    // During the backoff every caller gets the error at once, and the loader is not called.
    assert!(ready(get(&cache, 1)).unwrap_err().is_load_failure());
    assert!(cache.get_if_present(&1).is_none());
    assert_eq!(tasks.spawned(), 1);
    clock.advance(secs(2));
    assert!(is_pending(&mut get(&cache, 1)));
    assert_eq!(tasks.spawned(), 2);
}

#[test]
fn a_refresh_begun_in_time_does_not_extend_a_value_that_expires_meanwhile() {
    let clock = ManualClock::new();
    let (cache, tasks, gates) = cache(&clock);
    clock.advance(secs(49));
    let mut read = get(&cache, 1);
    assert!(is_pending(&mut read));
    clock.advance(secs(1));
    end(&tasks, &gates, 0, End::Fail);
    assert!(ready(read).unwrap_err().is_load_failure());
}

#[test]
fn a_stale_value_is_served_after_failures_up_to_the_hard_limit() {
    let clock = ManualClock::new();
    let (cache, tasks, gates) = cache(&clock);
    clock.advance(secs(12));
    assert_eq!(ready(get(&cache, 1)).unwrap().source(), Source::Stale);
    end(&tasks, &gates, 0, End::Fail);
    assert_eq!(
        ready(get(&cache, 1)).unwrap().source(),
        Source::AfterFailure
    );
    clock.advance(secs(2));
    assert_eq!(ready(get(&cache, 1)).unwrap().source(), Source::Stale);
    assert_eq!(tasks.spawned(), 2);
}

#[test]
fn an_early_refresh_that_fails_leaves_a_fresh_value() {
    let clock = ManualClock::new();
    let (cache, tasks, gates) = cache(&clock);
    clock.advance(secs(5));
    let mut refreshing = refresh(&cache, 1);
    assert!(is_pending(&mut refreshing));
    end(&tasks, &gates, 0, End::Fail);
    assert!(ready(refreshing).unwrap_err().is_load_failure());
    let read = ready(get(&cache, 1)).unwrap();
    assert_eq!((*read, read.source()), (10, Source::Fresh));
}

#[test]
fn a_full_queue_counts_as_a_failure() {
    let clock = ManualClock::new();
    let loader = CountingLoader::new(|key: &u64| *key);
    let limits = builder(&clock)
        .stale_if_error_for(secs(40))
        .load_timeout(secs(1_000))
        .threads(1)
        .queue(1);
    let cache = computing(limits, &loader);
    cache.insert(1, 10);
    clock.advance(secs(30));
    loader.hold();
    let mut running = get(&cache, 100);
    assert!(is_pending(&mut running));
    loader.wait_for_calls(1);
    let mut queued = get(&cache, 101);
    assert!(is_pending(&mut queued));
    // The queue has no room to refresh key 1, so the first caller and later ones get the old value.
    for _ in 0..3 {
        let old = ready(get(&cache, 1)).unwrap();
        assert_eq!((*old, old.source()), (10, Source::AfterFailure));
    }
    loader.release();
    loader.wait_for_calls(2);
    loader.wait_until_idle();
}

/// Returns the times at which a loader that always fails is called, while key 1 is read ten times a
/// second.
fn attempts(
    cache: &Cache<u64, u64>,
    clock: &ManualClock,
    loader: &CountingLoader<u64, u64>,
) -> Vec<u32> {
    let mut attempts = Vec::new();
    for tick in 0..1_000 {
        let seen = cache.stats();
        let calls = loader.calls();
        cache.get_blocking(&1).unwrap();
        let started = cache.stats().claims_denied == seen.claims_denied;
        if started {
            loader.wait_for_calls(calls + 1);
            until("the failure is counted", || {
                cache.stats().failed > seen.failed
            });
            until("the backoff has begun", || {
                cache.get_blocking(&1).unwrap().source() == Source::AfterFailure
            });
            attempts.push(tick);
        }
        clock.advance(Duration::from_millis(100));
    }
    attempts
}

#[test]
fn the_backoff_grows_exponentially_with_jitter_up_to_the_longest() {
    let clock = ManualClock::new();
    let loader = CountingLoader::new(|key: &u64| *key);
    let limits = builder(&clock)
        .stale_for(secs(10_000))
        .backoff(secs(1), secs(8));
    let cache = computing(limits, &loader);
    cache.insert(1, 10);
    clock.advance(secs(10));
    loader.fail_next(usize::MAX);
    let attempts = attempts(&cache, &clock, &loader);
    let gaps: Vec<u32> = attempts.windows(2).map(|pair| pair[1] - pair[0]).collect();
    for (gap, longest) in gaps.iter().zip([10, 20, 40, 80, 80, 80, 80, 80, 80, 80]) {
        // Jitter shortens the backoff by up to a half. The reads are one tick apart.
        assert!((longest / 2..=longest).contains(gap), "{gaps:?}");
    }
    assert!(gaps.len() >= 10, "{gaps:?}");
    assert_eq!(attempts.len(), loader.calls());
    // Eight equal backoffs do not happen at random.
    assert!(gaps[3..].iter().any(|gap| *gap != gaps[3]), "{gaps:?}");

    // A success resets the failures.
    loader.fail_next(0);
    clock.advance(secs(8));
    cache.get_blocking(&1).unwrap();
    until("the refresh is published", || cache.stats().published == 1);
    loader.fail_next(usize::MAX);
    clock.advance(secs(10));
    let gaps: Vec<u32> = self::attempts(&cache, &clock, &loader)
        .windows(2)
        .map(|pair| pair[1] - pair[0])
        .collect();
    assert!((5..=10).contains(&gaps[0]), "{gaps:?}");
}

#[test]
fn an_explicit_refresh_does_not_wait_for_the_backoff_to_end() {
    let clock = ManualClock::new();
    let (cache, tasks, gates) = cache(&clock);
    clock.advance(secs(12));
    assert!(ready(get(&cache, 1)).is_ok());
    end(&tasks, &gates, 0, End::Fail);
    let mut refreshing = refresh(&cache, 1);
    assert!(is_pending(&mut refreshing));
    end(&tasks, &gates, 1, End::Value(11));
    let new = ready(refreshing).unwrap();
    assert_eq!((*new, new.source()), (11, Source::Loaded));
    assert_eq!(*cache.get_if_present(&1).unwrap(), 11);
}

#[test]
fn an_explicit_refresh_right_after_a_failed_one_loads_again() {
    let clock = ManualClock::new();
    let loader = CountingLoader::new(|key: &u64| *key);
    let cache = computing(builder(&clock), &loader);
    cache.insert(1, 10);
    // The caller gets the error a moment before the worker releases the claim.
    for calls in 1..=1_000 {
        loader.fail_next(1);
        let failed = futures_lite::future::block_on(cache.refresh(&1));
        assert!(failed.unwrap_err().is_load_failure());
        assert_eq!(loader.calls(), calls);
    }
}

#[test]
fn an_explicit_refresh_of_an_expired_value_does_not_wait_for_the_backoff_either() {
    let clock = ManualClock::new();
    let (cache, tasks, gates) = cache(&clock);
    clock.advance(secs(1_000));
    let mut reading = get(&cache, 1);
    assert!(is_pending(&mut reading));
    end(&tasks, &gates, 0, End::Fail);
    assert!(ready(reading).is_err());
    // A read respects the backoff. An explicit refresh does not, and others may join it.
    assert!(ready(get(&cache, 1)).unwrap_err().is_load_failure());
    let mut refreshing = [refresh(&cache, 1), refresh(&cache, 1)];
    assert!(refreshing.iter_mut().all(is_pending));
    assert_eq!(tasks.spawned(), 2);
    end(&tasks, &gates, 1, End::Value(11));
    assert!(
        refreshing
            .map(ready)
            .iter()
            .all(|read| **read.as_ref().unwrap() == 11)
    );
}

#[test]
fn an_explicit_refresh_joins_the_running_one_while_others_read_the_old_value() {
    let clock = ManualClock::new();
    let (cache, tasks, gates) = cache(&clock);
    let mut refreshing = [refresh(&cache, 1), refresh(&cache, 1)];
    assert!(refreshing.iter_mut().all(is_pending));
    assert_eq!(ready(get(&cache, 1)).unwrap().source(), Source::Fresh);
    assert_eq!(tasks.spawned(), 1);
    end(&tasks, &gates, 0, End::Value(11));
    let [first, second] = refreshing.map(|refreshing| ready(refreshing).unwrap());
    assert_eq!((*first, first.source()), (11, Source::Loaded));
    assert_eq!((*second, second.source()), (11, Source::Coalesced));
    // A missing key is loaded.
    let mut absent = refresh(&cache, 2);
    assert!(is_pending(&mut absent));
    end(&tasks, &gates, 1, End::Value(20));
    assert_eq!(*ready(absent).unwrap(), 20);
}
