//! An origin that is down is not called, except for one probe at a time.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use everfresh::{
    Breaker, BreakerState, Budget, Cache, CountingLoader, Loaded, ManualClock, Request, Source,
};

use crate::support::gates::End;
use crate::support::*;

/// Opens after two failures of two loads, probes every 5 s.
fn breaker() -> Breaker {
    Breaker::new().opens_at(1.0).of_last(2).probe_every(secs(5))
}

fn fail(cache: &Cache<u64, u64>, tasks: &Tasks, gates: &Gates<u64>, key: u64) {
    let call = gates.calls();
    let mut read = get(cache, key);
    assert!(is_pending(&mut read));
    tasks.poll_all();
    gates.end(call, End::Fail);
    tasks.poll_all();
    assert!(ready(read).unwrap_err().is_load_failure());
}

#[test]
fn an_open_breaker_gives_stale_values_or_an_error_until_a_probe_succeeds() {
    let clock = ManualClock::new();
    let (cache, tasks, gates) = by_hand(builder(&clock).breaker(breaker()));
    cache.insert(7, Loaded::new(7).fresh_for(secs(1)));
    clock.advance(secs(1));
    fail(&cache, &tasks, &gates, 0);
    assert_eq!(cache.stats().breaker, BreakerState::Closed);
    fail(&cache, &tasks, &gates, 1);
    assert_eq!(cache.stats().breaker, BreakerState::Open);
    clock.advance(secs(3));
    let error = ready(get(&cache, 2)).unwrap_err();
    assert!(error.is_unavailable() && !error.is_load_failure());
    assert!(
        error.to_string().contains("again in at most 2.0s"),
        "{error}"
    );
    for _ in 0..3 {
        assert_eq!(ready(get(&cache, 7)).unwrap().source(), Source::Stale);
    }
    let stats = cache.stats();
    // The refresh rests until the next probe.
    assert_eq!((stats.breaker_rejected, stats.failed), (2, 2));
    assert_eq!(gates.calls(), 2);
    // The probe.
    clock.advance(secs(2));
    let mut probe = get(&cache, 2);
    assert!(is_pending(&mut probe));
    tasks.poll_all();
    assert_eq!(cache.stats().breaker, BreakerState::HalfOpen);
    assert!(ready(get(&cache, 3)).unwrap_err().is_unavailable());
    gates.end(2, End::Value(2));
    tasks.poll_all();
    assert_eq!(*ready(probe).unwrap(), 2);
    assert_eq!(cache.stats().breaker, BreakerState::Closed);
    let mut next = get(&cache, 3);
    assert!(is_pending(&mut next));
    tasks.poll_all();
    gates.end(3, End::NotFound);
    tasks.poll_all();
    assert!(ready(next).unwrap_err().is_not_found());
}

#[test]
fn a_dead_origin_with_ten_thousand_keys_in_use_gets_one_call_each_interval() {
    const KEYS: u64 = 10_000;
    let clock = ManualClock::new();
    let loader = CountingLoader::<u64, u64>::new(|key| *key);
    let limits = builder(&clock)
        .capacity(20_000)
        .stale_for(secs(1_000))
        .threads(2)
        .breaker(breaker());
    let cache = computing(limits, &loader);
    // Half of them have a value.
    for key in 0..KEYS / 2 {
        cache.insert(key, Loaded::new(key).fresh_for(secs(1)));
    }
    clock.advance(secs(1));
    loader.fail_next(usize::MAX);
    let read_all = || {
        for key in 0..KEYS {
            match poll(&mut get(&cache, key)) {
                std::task::Poll::Ready(Ok(value)) => assert_eq!(*value, key),
                std::task::Poll::Ready(Err(error)) => {
                    assert!(error.is_unavailable() || error.is_load_failure());
                }
                std::task::Poll::Pending => {}
            }
        }
        until("all loads have ended", || {
            let stats = cache.stats();
            (stats.running, stats.waiting_cold, stats.waiting_stale) == (0, 0, 0)
        });
    };
    read_all();
    let opened = loader.calls();
    // Two that opened it, and at most those that ran at that moment.
    assert!((2..=4).contains(&opened), "{opened} calls");
    for interval in 1..=3 {
        clock.advance(secs(5) - NANO);
        read_all();
        assert!(loader.calls() < opened + interval);
        clock.advance(NANO);
        read_all();
        assert_eq!(loader.calls(), opened + interval);
    }
}

#[test]
fn loads_that_wait_when_the_breaker_opens_are_refused_without_a_call() {
    let clock = ManualClock::new();
    let (cache, tasks, gates) = by_hand(builder(&clock).max_loads(2).breaker(breaker()));
    let mut reads: Vec<_> = (0..10).map(|key| get(&cache, key)).collect();
    assert!(reads.iter_mut().all(is_pending));
    tasks.poll_all();
    gates.end(0, End::Fail);
    gates.end(1, End::Fail);
    // The third one is spawned in place of the first, but has not begun when the second one fails.
    tasks.poll_all();
    let refused = reads.split_off(2);
    for read in refused {
        assert!(ready(read).unwrap_err().is_unavailable());
    }
    assert_eq!((gates.calls(), tasks.spawned()), (2, 3));
    let stats = cache.stats();
    assert_eq!(
        (stats.breaker, stats.breaker_rejected),
        (BreakerState::Open, 8)
    );
    assert_eq!((stats.running, stats.waiting_cold), (0, 0));
}

#[test]
fn a_probe_that_is_dropped_or_hangs_is_followed_by_another() {
    let clock = ManualClock::new();
    let limits = builder(&clock).load_timeout(secs(30)).breaker(breaker());
    let (cache, tasks, gates) = by_hand(limits);
    fail(&cache, &tasks, &gates, 0);
    fail(&cache, &tasks, &gates, 1);
    clock.advance(secs(5));
    assert!(is_pending(&mut get(&cache, 2)));
    tasks.poll_all();
    assert!(tasks.abort(2));
    assert!(ready(get(&cache, 3)).unwrap_err().is_unavailable());
    clock.advance(secs(5));
    assert!(is_pending(&mut get(&cache, 3)));
    tasks.poll_all();
    clock.advance(secs(30) - NANO);
    assert!(ready(get(&cache, 4)).unwrap_err().is_unavailable());
    clock.advance(NANO);
    // The probe timed out, which is a failure of the origin.
    assert!(ready(get(&cache, 4)).unwrap_err().is_unavailable());
    clock.advance(secs(5));
    assert!(is_pending(&mut get(&cache, 4)));
    tasks.poll_all();
    assert_eq!(gates.calls(), 5);
}

#[test]
fn a_probe_may_read_other_missing_keys_of_its_origin() {
    let clock = ManualClock::new();
    let is_down = Arc::new(AtomicBool::new(true));
    let down = is_down.clone();
    let load = move |request: &Request<u64, u64>| -> Result<u64, Box<dyn Error + Send + Sync>> {
        match *request.key() {
            _ if down.load(Ordering::SeqCst) => Err("the origin is down".into()),
            0 => Ok(0),
            key => Ok(*request.cache()?.get_blocking(&(key - 1))? + 1),
        }
    };
    let cache: Cache<u64, u64> = builder(&clock)
        .threads(1)
        .breaker(breaker())
        .compute_with(load)
        .build()
        .unwrap();
    for key in [10, 20] {
        assert!(cache.get_blocking(&key).unwrap_err().is_load_failure());
    }
    assert_eq!(cache.stats().breaker, BreakerState::Open);
    is_down.store(false, Ordering::SeqCst);
    clock.advance(secs(5));
    assert_eq!(*cache.get_blocking(&3).unwrap(), 3);
    assert_eq!(cache.stats().breaker, BreakerState::Closed);
}

#[test]
fn a_share_counts_as_it_is_written() {
    for (share, last, opens_after) in [(0.55, 100, 55), (0.07, 100, 7), (0.14, 50, 7), (1.0, 3, 3)]
    {
        let loader = CountingLoader::<u64, u64>::new(|key| *key);
        let breaker = Breaker::new().opens_at(share).of_last(last);
        let limits = builder(&ManualClock::new()).threads(1).breaker(breaker);
        let cache = computing(limits, &loader);
        for key in 0..(last - opens_after) as u64 {
            assert!(cache.get_blocking(&key).is_ok());
        }
        loader.fail_next(usize::MAX);
        for key in 1_000..1_000 + opens_after as u64 {
            assert_eq!(cache.stats().breaker, BreakerState::Closed);
            assert!(cache.get_blocking(&key).is_err());
        }
        assert_eq!(
            cache.stats().breaker,
            BreakerState::Open,
            "{share} of {last}"
        );
    }
}

#[test]
fn a_probe_lasts_as_long_by_the_clock_of_a_budget_as_by_that_of_its_cache() {
    let (clock, ahead) = (ManualClock::new(), ManualClock::new());
    ahead.advance(secs(1_000));
    let budget = Budget::builder().breaker(breaker()).clock(&ahead).build();
    let limits = builder(&clock).load_timeout(secs(30));
    let (cache, tasks, gates) = by_hand(limits.budget(&budget.unwrap()));
    fail(&cache, &tasks, &gates, 0);
    fail(&cache, &tasks, &gates, 1);
    ahead.advance(secs(5));
    assert!(is_pending(&mut get(&cache, 2)));
    tasks.poll_all();
    ahead.advance(secs(30) - NANO);
    assert!(ready(get(&cache, 3)).unwrap_err().is_unavailable());
    ahead.advance(NANO);
    assert!(is_pending(&mut get(&cache, 3)));
}

/// The error of a read of another cache.
fn error_of(cache: &Cache<u64, u64>) -> everfresh::Error {
    futures_lite::future::block_on(cache.get(&1)).unwrap_err()
}

#[test]
fn what_the_origin_did_not_cause_is_no_failure_of_it() {
    type Failed = Box<dyn Error + Send + Sync>;
    let clock = ManualClock::new();
    let not_found = error_of(&builder(&clock).compute(|_: &u64| None).build().unwrap());
    let no_runtime = builder(&clock).load(async |key: &u64| *key);
    let no_runtime = error_of(&no_runtime.build().unwrap());
    assert!(not_found.is_not_found() && no_runtime.is_without_runtime());
    // The same through another cache.
    let error = no_runtime.clone();
    let deeper = builder(&clock).try_compute(move |_: &u64| Err::<u64, _>(error.clone()));
    let deeper = error_of(&deeper.build().unwrap());
    let cache: Cache<u64, u64> = builder(&clock)
        .breaker(breaker())
        .try_compute(move |key: &u64| match key % 10 {
            0 => Err(Failed::from("the origin is down")),
            1 => Err(not_found.clone().into()),
            2 => Err(no_runtime.clone().into()),
            3 => Err(deeper.clone().into()),
            _ => Ok(*key),
        })
        .build()
        .unwrap();
    let fails = |key: u64| {
        assert!(cache.get_blocking(&key).unwrap_err().is_load_failure());
        until("the load has ended", || cache.stats().running == 0);
        cache.stats().breaker
    };
    for key in [10, 2, 3, 12, 13, 1, 20, 22, 23] {
        assert_eq!(fails(key), BreakerState::Closed, "{key}");
    }
    assert_eq!(fails(30), BreakerState::Open);
    // A probe that says nothing leaves the turn to the next load.
    clock.advance(secs(5));
    for key in [42, 43] {
        assert_eq!(fails(key), BreakerState::Open);
    }
    assert_eq!(fails(41), BreakerState::Closed);
}
