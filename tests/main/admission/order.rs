//! How many loads run at once, and which comes next.

use everfresh::{Cache, CountingLoader, Loaded, ManualClock, Source};

use crate::support::gates::End;
use crate::support::*;

/// Ends a call, whose task has the same number, and starts the loads that follow it.
fn end(tasks: &Tasks, gates: &Gates<u64>, call: usize, with: End<u64>) {
    gates.end(call, with);
    assert!(tasks.poll(call));
    for task in gates.calls()..tasks.spawned() {
        tasks.poll(task);
    }
}

#[test]
fn of_ten_thousand_stale_values_eight_are_loaded_at_once_in_order_and_a_cold_key_is_next() {
    const KEYS: u64 = 10_000;
    let clock = ManualClock::new();
    let limits = builder(&clock).capacity(20_000).max_loads(8);
    let (cache, tasks, gates) = by_hand(limits);
    for key in 0..KEYS {
        cache.insert(key, Loaded::new(key).fresh_for(secs(1)));
    }
    clock.advance(secs(1));
    // No caller that has a value waits.
    for key in 0..KEYS {
        assert_eq!(ready(get(&cache, key)).unwrap().source(), Source::Stale);
    }
    tasks.poll_all();
    assert_eq!((gates.calls(), tasks.spawned()), (8, 8));
    let stats = cache.stats();
    assert_eq!((stats.running, stats.waiting_stale), (8, KEYS - 8));
    // A caller of a missing key is next.
    let mut cold = get(&cache, KEYS);
    assert!(is_pending(&mut cold));
    assert_eq!(cache.stats().waiting_cold, 1);
    end(&tasks, &gates, 0, End::Value(1));
    assert_eq!(gates.key(8), KEYS);
    end(&tasks, &gates, 8, End::Value(2));
    assert_eq!(*ready(cold).unwrap(), 2);
    // The refreshes run in the order of their claims, eight in 10 ms. That is 12.5 s for all, and
    // the values are stale for 20 s.
    let mut next = 1;
    for call in (1..8).chain(9..KEYS as usize + 1) {
        assert_eq!(gates.key(call), next);
        next += 1;
        if next % 8 == 0 {
            clock.advance(millis(10));
        }
        end(&tasks, &gates, call, End::Value(3));
        assert!(cache.stats().running <= 8);
    }
    let stats = cache.stats();
    assert_eq!((stats.running, stats.waiting_stale), (0, 0));
    for key in 0..KEYS {
        assert!(ready(get(&cache, key)).is_ok());
    }
    let stats = cache.stats();
    assert_eq!((stats.misses, stats.loads), (1, 1));
}

#[test]
fn computes_are_bounded_below_the_number_of_threads() {
    let clock = ManualClock::new();
    let loader = CountingLoader::new(|key: &u64| *key);
    let cache = computing(builder(&clock).threads(4).max_loads(2), &loader);
    loader.hold();
    let mut reads: Vec<_> = (0..10).map(|key| get(&cache, key)).collect();
    assert!(reads.iter_mut().all(is_pending));
    loader.wait_for_calls(2);
    until("two run", || cache.stats().running == 2);
    assert_eq!(cache.stats().waiting_cold, 8);
    assert_eq!(loader.calls(), 2);
    loader.release();
    for (key, read) in reads.into_iter().enumerate() {
        assert_eq!(*wait(read).unwrap(), key as u64);
    }
    until("none runs", || cache.stats().running == 0);
}

#[test]
fn a_runtime_gets_256_loads_by_default() {
    let clock = ManualClock::new();
    let (cache, tasks, gates) = by_hand(builder(&clock));
    let mut reads: Vec<_> = (0..300).map(|key| get(&cache, key)).collect();
    assert!(reads.iter_mut().all(is_pending));
    tasks.poll_all();
    assert_eq!(gates.calls(), 256);
    for call in 0..300 {
        end(&tasks, &gates, call, End::Value(1));
    }
    assert!(reads.into_iter().all(|read| ready(read).is_ok()));
}

#[test]
fn a_full_queue_of_an_async_loader_refuses_loads_and_puts_refreshes_off() {
    let clock = ManualClock::new();
    let (cache, tasks, gates) = by_hand(builder(&clock).max_loads(1).queue(2));
    cache.insert(7, Loaded::new(7).fresh_for(secs(1)));
    clock.advance(secs(1));
    let mut reads: Vec<_> = (0..3).map(|key| get(&cache, key)).collect();
    tasks.poll_all();
    assert!(reads.iter_mut().all(is_pending));
    tasks.poll_all();
    assert!(ready(get(&cache, 3)).unwrap_err().is_overloaded());
    assert_eq!(ready(get(&cache, 7)).unwrap().source(), Source::Stale);
    let stats = cache.stats();
    assert_eq!((stats.rejected, stats.shed_stale), (1, 1));
    assert_eq!((stats.running, stats.waiting_cold), (1, 2));
    for call in 0..3 {
        end(&tasks, &gates, call, End::Value(1));
    }
    assert!(reads.into_iter().all(|read| ready(read).is_ok()));
    clock.advance(millis(100));
    assert_eq!(ready(get(&cache, 7)).unwrap().source(), Source::Stale);
    tasks.poll_all();
    assert_eq!(gates.key(3), 7);
}

/// Reads three stale values, whose refreshes fill a queue of three, and two of four missing keys.
fn read_stale_values_then_missing_keys(cache: &Cache<u64, u64>, clock: &ManualClock) {
    for key in 0..4 {
        cache.insert(key, Loaded::new(key).fresh_for(secs(1)));
    }
    clock.advance(secs(1));
    assert!(is_pending(&mut get(cache, 10)));
    until("the first load runs", || cache.stats().running == 1);
    for key in 0..4 {
        assert_eq!(ready(get(cache, key)).unwrap().source(), Source::Stale);
    }
    let stats = cache.stats();
    assert_eq!((stats.waiting_stale, stats.shed_stale), (3, 1));
    let mut reads: Vec<_> = (11..14).map(|key| get(cache, key)).collect();
    assert!(reads.iter_mut().all(is_pending));
    let stats = cache.stats();
    assert_eq!((stats.waiting_cold, stats.waiting_stale), (3, 3));
    // The queue is full of loads for which callers wait.
    assert!(ready(get(cache, 14)).unwrap_err().is_overloaded());
    assert_eq!(cache.stats().rejected, 1);
}

#[test]
fn a_queue_full_of_refreshes_refuses_no_missing_key_at_a_gate() {
    let clock = ManualClock::new();
    let loader = CountingLoader::new(|key: &u64| *key);
    let cache = computing(builder(&clock).threads(1).max_loads(1).queue(3), &loader);
    loader.hold();
    read_stale_values_then_missing_keys(&cache, &clock);
    loader.release();
}

#[test]
fn a_queue_full_of_refreshes_refuses_no_missing_key_at_a_pool() {
    let clock = ManualClock::new();
    let loader = CountingLoader::new(|key: &u64| *key);
    let cache = computing(builder(&clock).threads(1).queue(3), &loader);
    loader.hold();
    read_stale_values_then_missing_keys(&cache, &clock);
    loader.release();
}

#[test]
fn a_queue_full_of_refreshes_refuses_no_missing_key_of_an_async_loader() {
    let clock = ManualClock::new();
    let (cache, tasks, gates) = by_hand(builder(&clock).max_loads(1).queue(3));
    for key in 0..4 {
        cache.insert(key, Loaded::new(key).fresh_for(secs(1)));
    }
    clock.advance(secs(1));
    for key in 0..4 {
        assert_eq!(ready(get(&cache, key)).unwrap().source(), Source::Stale);
    }
    tasks.poll_all();
    let mut cold = get(&cache, 10);
    assert!(is_pending(&mut cold));
    end(&tasks, &gates, 0, End::Value(0));
    assert_eq!(gates.key(1), 10);
    end(&tasks, &gates, 1, End::Value(10));
    assert_eq!(*ready(cold).unwrap(), 10);
    assert_eq!(cache.stats().waiting_stale, 2);
}

#[test]
fn early_refreshes_are_put_off_while_nothing_is_free() {
    let clock = ManualClock::new();
    let limits = builder(&clock).beta(1.0).max_loads(1);
    let (cache, tasks, gates) = by_hand(limits);
    let mut read = get(&cache, 3);
    assert!(is_pending(&mut read));
    tasks.poll_all();
    // A load of one second has an early window.
    clock.advance(secs(1));
    end(&tasks, &gates, 0, End::Value(3));
    ready(read).unwrap();
    clock.advance(secs(10) - NANO * 20);
    let mut running = get(&cache, 8);
    assert!(is_pending(&mut running));
    tasks.poll_all();
    assert_eq!(ready(get(&cache, 3)).unwrap().source(), Source::Early);
    let stats = cache.stats();
    assert_eq!((stats.shed_early, stats.waiting_early), (1, 0));
    assert_eq!((stats.rejected, stats.failed), (0, 0));
    end(&tasks, &gates, 1, End::Value(8));
    ready(running).unwrap();
    assert_eq!(gates.calls(), 2);
}

#[test]
fn a_refresh_for_which_a_caller_waits_goes_before_the_others() {
    let clock = ManualClock::new();
    let (cache, tasks, gates) = by_hand(builder(&clock).max_loads(1));
    for key in 1..4 {
        cache.insert(key, Loaded::new(key).fresh_for(secs(1)).stale_for(secs(9)));
    }
    clock.advance(secs(1));
    for key in 1..4 {
        assert_eq!(ready(get(&cache, key)).unwrap().source(), Source::Stale);
    }
    tasks.poll_all();
    // The values expire while their refreshes wait.
    clock.advance(secs(9));
    let mut waiting = get(&cache, 3);
    assert!(is_pending(&mut waiting));
    end(&tasks, &gates, 0, End::Value(1));
    assert_eq!(gates.key(1), 3);
    end(&tasks, &gates, 1, End::Value(3));
    assert_eq!(*ready(waiting).unwrap(), 3);
    assert_eq!(gates.key(2), 2);
    end(&tasks, &gates, 2, End::Value(2));
    assert_eq!(cache.stats().running, 0);
    // Its old place in the lane of stale refreshes took no permit.
    assert!(is_pending(&mut get(&cache, 9)));
    tasks.poll_all();
    assert_eq!(gates.key(3), 9);
}
