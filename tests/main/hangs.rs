//! Loads that hang or are slow: at the deadline the waiters get an error and the key rests. A load
//! that goes on may still have the first result.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use everfresh::{Builder, Cache, Clock, ManualClock, Source};

use crate::support::gates::{End, numbering};
use crate::support::*;

fn end(tasks: &Tasks, gates: &Gates<u64>, call: usize, end: End<u64>) {
    gates.end(call, end);
    tasks.poll_all();
}

/// A time limit of 5 s for loads, and no loads dropped.
fn kept(clock: &ManualClock) -> Builder<u64, u64> {
    builder(clock).load_timeout(secs(5)).keep_late_loads(true)
}

/// Longer than the first backoff, and shorter than a load may take.
const RESTED: std::time::Duration = std::time::Duration::from_millis(100);

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
fn a_hanging_key_uses_at_most_two_connections_and_other_keys_go_on() {
    struct Connection(Arc<AtomicUsize>);
    impl Drop for Connection {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }
    let clock = ManualClock::new();
    let tasks = Tasks::default();
    let used = Arc::new(AtomicUsize::new(0));
    let connections = used.clone();
    let cache: Cache<u64, u64> = builder(&clock)
        .load_timeout(secs(5))
        .spawner(tasks.spawner())
        .load(move |key: &u64| {
            let (key, connections) = (*key, connections.clone());
            async move {
                assert!(connections.fetch_add(1, Ordering::SeqCst) < 10);
                let _connection = Connection(connections);
                if key == 0 {
                    std::future::pending::<()>().await;
                }
                key
            }
        })
        .build()
        .unwrap();
    let mut most = 0;
    for round in 0..600 {
        let mut hung = get(&cache, 0);
        let _ = poll(&mut hung);
        tasks.poll_all();
        most = most.max(used.load(Ordering::SeqCst));
        let mut other = get(&cache, 1 + round);
        assert!(is_pending(&mut other));
        tasks.poll_all();
        assert_eq!(*ready(other).unwrap(), 1 + round);
        clock.advance(secs(1));
    }
    assert!(most <= 2, "{most} connections of the hanging key");
    let stats = cache.stats();
    assert!((15..=100).contains(&stats.timed_out), "{}", stats.timed_out);
}

#[test]
fn an_async_load_is_dropped_at_its_deadline_and_its_key_rests() {
    let clock = ManualClock::new();
    let (cache, tasks, gates) = by_hand(builder(&clock).load_timeout(secs(5)));
    let mut hung = get(&cache, 1);
    assert!(is_pending(&mut hung));
    tasks.poll_all();
    clock.advance(secs(5) - NANO);
    tasks.poll_all();
    assert_eq!(tasks.running(), 1);
    clock.advance(NANO);
    assert!(
        ready(get(&cache, 1)).unwrap_err().is_timeout(),
        "before the drop"
    );
    tasks.poll_all();
    assert_eq!(tasks.running(), 0);
    assert!(
        ready(get(&cache, 1)).unwrap_err().is_timeout(),
        "after the drop"
    );
    clock.advance(RESTED / 2 - NANO);
    assert!(ready(get(&cache, 1)).unwrap_err().is_timeout());
    clock.advance(RESTED / 2 + NANO);
    let mut next = get(&cache, 1);
    assert!(is_pending(&mut next));
    tasks.poll_all();
    assert_eq!(gates.calls(), 2);
    // The second failure in a row rests twice as long.
    clock.advance(secs(5) + RESTED - NANO);
    tasks.poll_all();
    assert!(ready(get(&cache, 1)).unwrap_err().is_timeout());
    let stats = cache.stats();
    assert_eq!((stats.timed_out, stats.failed, stats.dropped), (2, 0, 0));
}

/// The origin needs 1.2 times the time that it is given.
#[test]
fn a_key_whose_computation_is_slower_than_its_deadline_is_served() {
    let clock = ManualClock::new();
    let loader = numbering();
    let limits = builder(&clock).threads(2).load_timeout(secs(5));
    let cache = computing(limits, &loader);
    loader.hold();
    std::thread::scope(|scope| {
        let hung = scope.spawn(|| cache.get_blocking(&1));
        loader.wait_for_calls(1);
        clock.advance(secs(5));
        assert!(hung.join().unwrap().unwrap_err().is_timeout());
    });
    assert!(cache.get_blocking(&1).unwrap_err().is_timeout(), "it rests");
    clock.advance(secs(1));
    loader.release();
    until("the late result is counted", || {
        cache.stats().late_published == 1
    });
    for _ in 0..7 {
        assert_eq!(*cache.get_blocking(&1).unwrap(), 1);
    }
    let stats = cache.stats();
    assert_eq!((stats.loads, stats.published, stats.timed_out), (1, 1, 1));
}

#[test]
fn a_hung_refresh_rests_and_is_taken_over_while_the_stale_value_is_served() {
    let clock = ManualClock::new();
    let (cache, tasks, gates) = by_hand(kept(&clock));
    cache.insert(1, 9);
    clock.advance(secs(12));
    assert_eq!(ready(get(&cache, 1)).unwrap().source(), Source::Stale);
    tasks.poll_all();
    clock.advance(secs(5) - NANO);
    assert!(ready(get(&cache, 1)).is_ok());
    clock.advance(NANO);
    let resting = ready(get(&cache, 1)).unwrap();
    assert_eq!(resting.source(), Source::AfterFailure);
    assert_eq!(tasks.spawned(), 1);
    clock.advance(RESTED);
    assert!(ready(get(&cache, 1)).is_ok());
    tasks.poll_all();
    assert_eq!(gates.calls(), 2);
    end(&tasks, &gates, 0, End::Value(10));
    assert_eq!(*cache.get_if_present(&1).unwrap(), 10);
    end(&tasks, &gates, 1, End::Value(11));
    assert_eq!(*cache.get_if_present(&1).unwrap(), 10);
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
fn of_a_chain_of_hangs_the_first_that_ends_counts() {
    let clock = ManualClock::new();
    let (cache, tasks, gates) = by_hand(kept(&clock));
    for hung in 0..20 {
        let mut read = get(&cache, 1);
        assert!(is_pending(&mut read));
        tasks.poll_all();
        assert_eq!(gates.calls(), hung + 1);
        clock.advance(secs(5));
        assert!(ready(read).unwrap_err().is_timeout());
        // The longest backoff.
        clock.advance(secs(30));
    }
    let mut read = get(&cache, 1);
    assert!(is_pending(&mut read));
    tasks.poll_all();
    end(&tasks, &gates, 7, End::Value(7));
    assert_eq!(*ready(read).unwrap(), 7);
    for call in 0..=20 {
        end(&tasks, &gates, call, End::Value(call as u64));
    }
    let stats = cache.stats();
    assert_eq!((stats.discarded_taken_over, stats.late_discarded), (20, 19));
    assert_eq!(*cache.get_if_present(&1).unwrap(), 7);
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
        clock.advance(RESTED);
        let next = scope.spawn(|| cache.get_blocking(&1));
        loader.wait_for_calls(2);
        loader.release();
        next.join().unwrap().unwrap();
    });
    until("one of the two results is discarded", || {
        cache.stats().discarded_taken_over == 1
    });
    // A result is counted after its waiters are woken.
    until("the result is counted", || cache.stats().published == 1);
}

#[test]
fn a_load_that_waited_for_its_turn_gets_its_full_time_from_its_start() {
    let clock = ManualClock::new();
    let (cache, tasks, gates) = by_hand(builder(&clock).load_timeout(secs(5)));
    let mut first = get(&cache, 1);
    assert!(is_pending(&mut first));
    clock.advance(secs(4));
    tasks.poll_all();
    clock.advance(secs(4));
    let mut second = get(&cache, 1);
    assert!(is_pending(&mut first) && is_pending(&mut second));
    end(&tasks, &gates, 0, End::Value(10));
    assert_eq!((*ready(first).unwrap(), *ready(second).unwrap()), (10, 10));
    let mut late = get(&cache, 2);
    assert!(is_pending(&mut late));
    clock.advance(secs(4));
    tasks.poll_all();
    clock.advance(secs(5));
    assert!(ready(late).unwrap_err().is_timeout());
    assert_eq!((cache.stats().loads, cache.stats().timed_out), (2, 1));
}

#[test]
fn other_keys_go_on_while_every_thread_computes_a_key_that_hangs() {
    let clock = ManualClock::new();
    let (release, hung) = mpsc::channel::<()>();
    let hung = Mutex::new(hung);
    let cache: Cache<u64, u64> = builder(&clock)
        .threads(2)
        .load_timeout(secs(5))
        .compute(move |key: &u64| {
            if *key < 2 {
                // Until the sender is dropped.
                let _ = hung.lock().unwrap().recv();
            }
            *key
        })
        .build()
        .unwrap();
    let mut hanging = [get(&cache, 0), get(&cache, 1)];
    assert!(hanging.iter_mut().all(is_pending));
    until("both threads are busy", || cache.stats().loads == 2);
    let mut other = get(&cache, 2);
    assert!(is_pending(&mut other));
    // Both start a moment after they are counted.
    until("the keys rest", || {
        clock.advance(secs(1));
        cache.stats().timed_out == 2
    });
    for read in hanging {
        assert!(ready(read).unwrap_err().is_timeout());
    }
    for key in 3..9 {
        assert_eq!(*wait(get(&cache, key)).unwrap(), key);
    }
    let stats = cache.stats();
    assert_eq!((stats.replaced_workers, stats.overdue), (2, 2));
    drop(release);
    until("both late results count", || {
        cache.stats().late_published == 2
    });
    until("no load is overdue", || cache.stats().overdue == 0);
    assert!((0..2).all(|key| *cache.get_blocking(&key).unwrap() == key));
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
    let error = ready(queued).unwrap_err();
    assert!(error.is_timeout());
    let text = "the load did not start within 5s; ";
    assert!(error.to_string().starts_with(text), "{error}");
    // The loader is not to blame, so the key does not rest.
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
    assert_eq!(cache.stats().never_started, 1);
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
