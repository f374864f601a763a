//! Loads that hang: at the deadline the waiters get an error, and the next caller takes over.

use everfresh::{Cache, Clock, ManualClock, Source};

use crate::support::gates::{End, numbering};
use crate::support::*;

fn end(tasks: &Tasks, gates: &Gates<u64>, call: usize, end: End<u64>) {
    gates.end(call, end);
    tasks.poll_all();
}

#[test]
fn waiters_time_out_exactly_at_the_deadline() {
    let clock = ManualClock::new();
    let (cache, tasks, _gates) = by_hand(builder(&clock).load_timeout(secs(5)));
    let mut reads = [get(&cache, 1), get(&cache, 1)];
    assert!(reads.iter_mut().all(is_pending));
    tasks.poll_all();
    clock.advance(secs(5) - NANO);
    assert!(reads.iter_mut().all(is_pending));
    clock.advance(NANO);
    for read in reads {
        let error = ready(read).unwrap_err();
        assert!(error.is_timeout());
        assert!(error.to_string().contains("5s"), "{error}");
    }
}

#[test]
fn the_next_caller_takes_over_and_the_late_result_is_discarded() {
    let clock = ManualClock::new();
    let (cache, tasks, gates) = by_hand(builder(&clock).load_timeout(secs(5)));
    let mut hung = get(&cache, 1);
    assert!(is_pending(&mut hung));
    tasks.poll_all();
    // Exactly at the deadline.
    clock.advance(secs(5));
    let mut next = get(&cache, 1);
    assert!(is_pending(&mut next));
    tasks.poll_all();
    assert_eq!(gates.calls(), 2);
    assert!(ready(hung).unwrap_err().is_timeout());
    end(&tasks, &gates, 0, End::Value(10));
    assert!(
        cache.get_if_present(&1).is_none(),
        "the late result reaches no caller"
    );
    assert!(is_pending(&mut next));
    end(&tasks, &gates, 1, End::Value(11));
    assert_eq!(*ready(next).unwrap(), 11);
    assert_eq!(*cache.get_if_present(&1).unwrap(), 11);
    let stats = cache.stats();
    assert_eq!((stats.discarded_taken_over, stats.published), (1, 1));
    assert_eq!((stats.loads, cache.len()), (2, 1));
}

#[test]
fn a_late_result_after_its_successor_is_discarded_too() {
    let clock = ManualClock::new();
    let (cache, tasks, gates) = by_hand(builder(&clock).load_timeout(secs(5)));
    assert!(is_pending(&mut get(&cache, 1)));
    tasks.poll_all();
    clock.advance(secs(5));
    assert!(is_pending(&mut get(&cache, 1)));
    tasks.poll_all();
    end(&tasks, &gates, 1, End::Value(11));
    for late in [End::Value(10), End::Fail, End::Panic] {
        end(&tasks, &gates, 0, late);
        assert_eq!(*cache.get_if_present(&1).unwrap(), 11);
    }
    assert_eq!(cache.stats().discarded_taken_over, 1);
}

#[test]
fn a_late_result_is_published_if_no_caller_took_over() {
    let clock = ManualClock::new();
    let (cache, tasks, gates) = by_hand(builder(&clock).load_timeout(secs(5)));
    let mut hung = get(&cache, 1);
    assert!(is_pending(&mut hung));
    tasks.poll_all();
    clock.advance(secs(7));
    assert!(ready(&mut hung).unwrap_err().is_timeout());
    end(&tasks, &gates, 0, End::Value(10));
    assert_eq!(*cache.get_if_present(&1).unwrap(), 10);
}

#[test]
fn a_hung_refresh_is_taken_over_while_the_stale_value_is_served() {
    let clock = ManualClock::new();
    let (cache, tasks, gates) = by_hand(builder(&clock).load_timeout(secs(5)));
    cache.insert(1, 9);
    clock.advance(secs(12));
    assert_eq!(ready(get(&cache, 1)).unwrap().source(), Source::Stale);
    tasks.poll_all();
    clock.advance(secs(5) - NANO);
    assert!(ready(get(&cache, 1)).is_ok());
    assert_eq!(tasks.spawned(), 1);
    clock.advance(NANO);
    assert!(ready(get(&cache, 1)).is_ok());
    tasks.poll_all();
    assert_eq!(gates.calls(), 2);
    end(&tasks, &gates, 0, End::Value(10));
    assert_eq!(*cache.get_if_present(&1).unwrap(), 9);
    end(&tasks, &gates, 1, End::Value(11));
    assert_eq!(*cache.get_if_present(&1).unwrap(), 11);
    let stats = cache.stats();
    assert_eq!((stats.discarded_taken_over, stats.published), (1, 1));
}

#[test]
fn a_caller_in_the_second_stale_window_gets_the_old_value_at_the_deadline() {
    let clock = ManualClock::new();
    let limits = builder(&clock)
        .stale_if_error_for(secs(100))
        .load_timeout(secs(5));
    let (cache, tasks, _gates) = by_hand(limits);
    cache.insert(1, 9);
    clock.advance(secs(40));
    let mut waiting = get(&cache, 1);
    assert!(is_pending(&mut waiting));
    tasks.poll_all();
    clock.advance(secs(5));
    let old = ready(waiting).unwrap();
    assert_eq!((*old, old.source()), (9, Source::AfterFailure));
}

#[test]
fn a_chain_of_hangs_is_taken_over_each_time() {
    let clock = ManualClock::new();
    let (cache, tasks, gates) = by_hand(builder(&clock).load_timeout(secs(5)));
    for hung in 0..20 {
        let mut read = get(&cache, 1);
        assert!(is_pending(&mut read));
        tasks.poll_all();
        assert_eq!(gates.calls(), hung + 1);
        clock.advance(secs(5));
        assert!(ready(read).unwrap_err().is_timeout());
    }
    let mut read = get(&cache, 1);
    assert!(is_pending(&mut read));
    tasks.poll_all();
    for call in 0..=20 {
        end(&tasks, &gates, call, End::Value(call as u64));
    }
    assert_eq!(*ready(read).unwrap(), 20);
    assert_eq!(cache.stats().discarded_taken_over, 20);
}

#[test]
fn an_explicit_refresh_times_out_and_the_old_value_stays() {
    let clock = ManualClock::new();
    let (cache, tasks, _gates) = by_hand(builder(&clock).load_timeout(secs(5)));
    cache.insert(1, 9);
    let mut refreshing = refresh(&cache, 1);
    assert!(is_pending(&mut refreshing));
    tasks.poll_all();
    clock.advance(secs(5));
    assert!(ready(refreshing).unwrap_err().is_timeout());
    assert_eq!(ready(get(&cache, 1)).unwrap().source(), Source::Fresh);
    assert!(is_pending(&mut refresh(&cache, 1)));
    assert_eq!(
        tasks.spawned(),
        2,
        "the next refresh takes over at the deadline"
    );
}

#[test]
fn a_thread_that_waits_for_a_hung_computation_gets_an_error() {
    let clock = ManualClock::new();
    let loader = numbering();
    let cache = computing(builder(&clock).threads(2).load_timeout(secs(5)), &loader);
    loader.hold();
    std::thread::scope(|scope| {
        let hung = scope.spawn(|| cache.get_blocking(&1));
        loader.wait_for_calls(1);
        clock.advance(secs(5));
        assert!(hung.join().unwrap().unwrap_err().is_timeout());
        let next = scope.spawn(|| cache.get_blocking(&1));
        loader.wait_for_calls(2);
        loader.release();
        next.join().unwrap().unwrap();
    });
    until("the late result is discarded", || {
        cache.stats().discarded_taken_over == 1
    });
    // A result is counted after its waiters are woken.
    until("the result is counted", || cache.stats().published == 1);
}

#[test]
fn a_load_still_queued_at_its_deadline_does_not_run() {
    let clock = ManualClock::new();
    let loader = numbering();
    let cache = computing(builder(&clock).threads(1).load_timeout(secs(5)), &loader);
    loader.hold();
    let mut running = get(&cache, 1);
    assert!(is_pending(&mut running));
    loader.wait_for_calls(1);
    let mut queued = get(&cache, 2);
    assert!(is_pending(&mut queued));
    clock.advance(secs(5));
    assert!(ready(queued).unwrap_err().is_timeout());
    let mut next = get(&cache, 2);
    assert!(is_pending(&mut next));
    loader.release();
    assert!(wait(next).is_ok());
    loader.wait_until_idle();
    assert_eq!(
        loader.calls_for(&2),
        1,
        "the load that was taken over never ran"
    );
}

#[test]
fn an_unlimited_timeout_applies_to_every_attempt() {
    let clock = ManualClock::new();
    let limits = builder(&clock)
        .load_timeout(std::time::Duration::MAX)
        .backoff(std::time::Duration::MAX, std::time::Duration::MAX);
    let (cache, tasks, gates) = by_hand(limits);
    cache.insert(1, 9);
    for attempt in 0..3 {
        let mut asked = [refresh(&cache, 1), refresh(&cache, 1)];
        assert!(asked.iter_mut().all(is_pending), "{attempt}");
        tasks.poll_all();
        end(&tasks, &gates, attempt, End::Fail);
        assert!(asked.into_iter().all(|asked| ready(asked).is_err()));
    }
    let mut asked = [refresh(&cache, 1), refresh(&cache, 1)];
    assert!(asked.iter_mut().all(is_pending));
    tasks.poll_all();
    end(&tasks, &gates, 3, End::Value(10));
    assert!(asked.into_iter().all(|asked| *ready(asked).unwrap() == 10));
}

/// The cache's own clock thread wakes waiters at the deadline, even if the program does nothing
/// else.
#[test]
fn system_clocks_end_a_wait() {
    for clock in [Clock::coarse(), Clock::precise()] {
        let tasks = Tasks::default();
        let cache: Cache<u64, u64> = Cache::builder()
            .clock(clock)
            .load_timeout(std::time::Duration::from_millis(1))
            .spawner(tasks.spawner())
            .load(async |_: &u64| std::future::pending::<u64>().await)
            .build()
            .unwrap();
        for key in 0..3 {
            assert!(cache.get_blocking(&key).unwrap_err().is_timeout());
        }
        assert_eq!(tasks.spawned(), 3);
    }
}
