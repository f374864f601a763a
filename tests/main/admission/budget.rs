//! Caches that share one origin.

use everfresh::{Breaker, Budget, CountingLoader, Loaded, ManualClock, Source};

use crate::support::gates::End;
use crate::support::*;

#[test]
fn loads_of_two_caches_share_the_permits_and_one_order() {
    let clock = ManualClock::new();
    let budget = Budget::new(2).unwrap();
    let (stale, stale_tasks, stale_gates) = by_hand(builder(&clock).budget(&budget));
    let (cold, cold_tasks, cold_gates) = by_hand(builder(&clock).budget(&budget.clone()));
    for key in 0..10 {
        stale.insert(key, Loaded::new(key).fresh_for(secs(1)));
    }
    clock.advance(secs(1));
    for key in 0..10 {
        assert_eq!(ready(get(&stale, key)).unwrap().source(), Source::Stale);
    }
    stale_tasks.poll_all();
    assert_eq!(stale_gates.calls(), 2);
    let mut read = get(&cold, 1);
    assert!(is_pending(&mut read));
    assert_eq!(cold_tasks.spawned(), 0);
    stale_gates.end(0, End::Value(1));
    stale_tasks.poll_all();
    cold_tasks.poll_all();
    assert_eq!((stale_gates.calls(), cold_gates.calls()), (2, 1));
    cold_gates.end(0, End::Value(5));
    cold_tasks.poll_all();
    assert_eq!(*ready(read).unwrap(), 5);
    stale_tasks.poll_all();
    assert_eq!(stale_gates.calls(), 3);
}

#[test]
fn a_cache_may_have_fewer_loads_than_its_budget() {
    let clock = ManualClock::new();
    let budget = Budget::new(3).unwrap();
    let limits = || builder(&clock).budget(&budget).max_loads(2);
    let (first, first_tasks, first_gates) = by_hand(limits());
    let (second, second_tasks, second_gates) = by_hand(limits());
    for key in 0..5 {
        assert!(is_pending(&mut get(&first, key)));
        assert!(is_pending(&mut get(&second, key)));
    }
    first_tasks.poll_all();
    second_tasks.poll_all();
    assert_eq!((first_gates.calls(), second_gates.calls()), (2, 1));
    // The permit of the budget goes to the second cache, which waits longer.
    first_gates.end(0, End::Value(1));
    first_tasks.poll_all();
    second_tasks.poll_all();
    assert_eq!((first_gates.calls(), second_gates.calls()), (2, 2));
    for call in 0..5 {
        first_gates.end(call.min(first_gates.calls() - 1), End::Value(1));
        second_gates.end(call.min(second_gates.calls() - 1), End::Value(1));
        first_tasks.poll_all();
        second_tasks.poll_all();
    }
    let stats = [first.stats(), second.stats()];
    assert!(stats.iter().all(|it| it.published == 5 && it.running == 0));
}

#[test]
fn computes_that_wait_for_a_thread_hold_no_permit_of_a_budget() {
    let clock = ManualClock::new();
    let budget = Budget::new(4).unwrap();
    let loaders = [(); 2].map(|()| CountingLoader::new(|key: &u64| *key));
    let [first, second] = (loaders.each_ref())
        .map(|loader| computing(builder(&clock).budget(&budget).threads(1), loader));
    loaders[0].hold();
    let mut slow: Vec<_> = (0..8).map(|key| get(&first, key)).collect();
    assert!(slow.iter_mut().all(is_pending));
    loaders[0].wait_for_calls(1);
    assert_eq!(*wait(get(&second, 7)).unwrap(), 7);
    assert_eq!(loaders[0].calls(), 1);
    loaders[0].release();
    for (key, read) in slow.into_iter().enumerate() {
        assert_eq!(*wait(read).unwrap(), key as u64);
    }
}

#[test]
fn the_breaker_of_a_budget_is_that_of_all_its_caches() {
    let clock = ManualClock::new();
    let budget = Budget::builder()
        .breaker(Breaker::new().of_last(2))
        .clock(&clock)
        .build()
        .unwrap();
    let (first, tasks, gates) = by_hand(builder(&clock).budget(&budget));
    let (second, _, _) = by_hand(builder(&clock).budget(&budget));
    for call in 0..2 {
        let mut read = get(&first, call as u64);
        assert!(is_pending(&mut read));
        tasks.poll_all();
        gates.end(call, End::Fail);
        tasks.poll_all();
        assert!(ready(read).unwrap_err().is_load_failure());
    }
    assert!(ready(get(&second, 1)).unwrap_err().is_unavailable());
    assert_eq!(second.stats().breaker_rejected, 1);
}
