//! The clocks: their range, what they count, and that no load times out early.

use std::task::Poll;
use std::time::{Duration, Instant};

use everfresh::{Cache, Clock, Loaded, ManualClock};

use crate::support::*;

#[test]
fn a_manual_clock_stops_at_its_end_and_never_goes_back() {
    let clock = ManualClock::new();
    let (cache, tasks, gates) = by_hand(builder(&clock).load_timeout(secs(5)));
    let year = secs(365 * 86_400);
    cache.insert(1, Loaded::new(1).fresh_for(Duration::MAX));
    cache.insert(2, Loaded::new(2).fresh_for(9 * year));
    clock.advance(secs(1));
    for _ in 0..3 {
        clock.advance(Duration::MAX);
        let for_ever = cache.get_if_present(&1).unwrap();
        assert!(for_ever.freshness().is_fresh());
        assert!(for_ever.age() > 70 * year);
        assert!(cache.get_if_present(&2).is_none());
    }
    // At the end of the clock, loads are shared and end as usual.
    let mut reads = [get(&cache, 3), get(&cache, 3)];
    assert!(reads.iter_mut().all(is_pending));
    tasks.poll_all();
    assert_eq!(gates.calls(), 1);
    gates.end(0, gates::End::Value(3));
    tasks.poll_all();
    assert!(reads.into_iter().all(|read| *ready(read).unwrap() == 3));
}

#[test]
fn a_clock_that_counts_suspensions_advances_and_ends_waits() {
    let tasks = Tasks::default();
    let cache: Cache<u64, u64> = Cache::builder()
        .clock(Clock::boottime())
        .fresh_for(millis(1))
        .stale_for(secs(3_600))
        .load_timeout(millis(1))
        .spawner(tasks.spawner())
        .load(async |_: &u64| std::future::pending::<u64>().await)
        .build()
        .unwrap();
    cache.insert(1, 10);
    until("the value is stale", || {
        cache
            .get_if_present(&1)
            .is_some_and(|read| read.freshness().is_stale())
    });
    assert!(cache.get_blocking(&2).unwrap_err().is_timeout());
}

#[test]
fn a_load_never_ends_before_its_timeout_on_any_clock() {
    let timeout = millis(3);
    for clock in [Clock::coarse(), Clock::precise(), Clock::boottime()] {
        let tasks = Tasks::default();
        let cache: Cache<u64, u64> = Cache::builder()
            .clock(clock.clone())
            .load_timeout(timeout)
            .spawner(tasks.spawner())
            .load(async |_: &u64| std::future::pending::<u64>().await)
            .build()
            .unwrap();
        // Each iteration starts at another moment between two steps of the clock.
        for key in 0..20 {
            let begun = Instant::now();
            let mut first = get(&cache, key);
            // Ready at once if this thread was suspended until after the timeout.
            let at_once = poll(&mut first);
            let loads = tasks.spawned();
            until("another caller loads", || {
                let _ = poll(&mut get(&cache, key));
                tasks.spawned() > loads
            });
            let waited = begun.elapsed();
            assert!(waited >= timeout, "{clock:?}: over after {waited:?}");
            let ended = match at_once {
                Poll::Ready(ended) => ended,
                Poll::Pending => wait(first),
            };
            let error = ended.unwrap_err();
            assert!(error.is_timeout());
            assert!(error.to_string().contains("within 3ms"), "{error}");
        }
    }
}
