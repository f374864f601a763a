//! Caches with a store whose loader takes many keys.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use everfresh::store::{ChaosStore, ErrorClass, Fault, MemoryStore, Op, Store};
use everfresh::{Cache, ManualClock, SecondLevel, Source};
use futures_lite::future::block_on;

use crate::support::{Fleet, until};

type Batches = Arc<Mutex<Vec<Vec<u64>>>>;

/// A cache at this store, and the batches that its loader gets.
fn cache(clock: &ManualClock, store: Arc<impl Store>) -> (Cache<u64, u64>, Batches) {
    let batches = Batches::default();
    let calls = batches.clone();
    let cache = Cache::builder()
        .clock(clock)
        .fresh_for(Duration::from_secs(10))
        .stale_for(Duration::from_secs(100))
        .beta(0.0)
        .threads(2)
        .store(SecondLevel::new(store, "test:batches").unwrap())
        .compute_many(move |keys: &[u64]| {
            let mut calls = calls.lock().unwrap();
            calls.push(keys.to_vec());
            let number = calls.len() as u64;
            keys.iter().map(|key| (*key, number)).collect::<Vec<_>>()
        })
        .build()
        .unwrap();
    (cache, batches)
}

fn hundred() -> Vec<u64> {
    (0..100).collect()
}

#[test]
fn a_batch_reads_once_asks_once_and_loads_once() {
    let clock = ManualClock::new();
    let memory = Arc::new(MemoryStore::with_clock(&clock));
    let store = Arc::new(ChaosStore::new(memory));
    let (a, batches) = cache(&clock, store.clone());
    let answers = block_on(a.get_many(&hundred()));
    assert!(
        answers
            .iter()
            .all(|answer| answer.as_ref().is_ok_and(|value| **value == 1))
    );
    assert_eq!(*batches.lock().unwrap(), [hundred()]);
    assert_eq!(store.calls(Op::Read), 1);
    assert_eq!(store.calls(Op::Acquire), 1);
    until("all results are stored", || {
        a.store_stats().unwrap().published == 100
    });

    // Another process finds them all.
    let (b, batches) = cache(&clock, store.clone());
    let answers = b.get_many_blocking(&hundred());
    assert!(
        answers
            .iter()
            .all(|answer| answer.as_ref().is_ok_and(|value| **value == 1))
    );
    assert!(batches.lock().unwrap().is_empty());
    assert_eq!(store.calls(Op::Read), 2);
    assert_eq!(store.calls(Op::Acquire), 1);
}

#[test]
fn one_process_of_a_fleet_loads_each_key() {
    let clock = ManualClock::new();
    let memory = Arc::new(MemoryStore::with_clock(&clock));
    let processes: Vec<_> = (0..4).map(|_| cache(&clock, memory.clone())).collect();
    std::thread::scope(|scope| {
        for (cache, _) in &processes {
            scope.spawn(|| {
                for keys in hundred().chunks(20) {
                    assert!(cache.get_many_blocking(keys).iter().all(Result::is_ok));
                }
            });
        }
    });
    let mut loaded: Vec<u64> = (processes.iter())
        .flat_map(|(_, batches)| batches.lock().unwrap().concat())
        .collect();
    loaded.sort_unstable();
    assert_eq!(loaded, hundred());
}

#[test]
fn refreshes_of_a_fleet_are_loaded_once_in_batches() {
    let clock = ManualClock::new();
    let memory = Arc::new(MemoryStore::with_clock(&clock));
    let (a, batches) = cache(&clock, memory.clone());
    let (b, others) = cache(&clock, memory);
    assert!(a.get_many_blocking(&hundred()).iter().all(Result::is_ok));
    until("all are stored", || {
        a.store_stats().unwrap().published == 100
    });
    assert!(b.get_many_blocking(&hundred()).iter().all(Result::is_ok));
    clock.advance(Duration::from_secs(12));
    for cache in [&a, &b] {
        for answer in cache.get_many_blocking(&hundred()) {
            assert_eq!(answer.unwrap().source(), Source::Stale);
        }
    }
    let loaded = || batches.lock().unwrap().concat().len() + others.lock().unwrap().concat().len();
    until("all are refreshed", || {
        // Batches that are not full wait for company.
        clock.advance(Duration::from_millis(1));
        loaded() >= 200 && a.stats().published + b.stats().published >= 300
    });
    assert_eq!(loaded(), 200);
}

#[test]
fn a_job_that_waits_for_another_process_holds_up_no_other() {
    let fleet = Fleet::new();
    let (a, b) = (fleet.process(), fleet.process());
    // The first process has the lease of one key and is slow.
    fleet.origin.gate.shut();
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| a.get(1));
        until("it loads", || fleet.origin.loads() == 1);
        let page = scope.spawn(|| b.cache.get_many_blocking(&[0, 1, 2]));
        until("the others load", || fleet.origin.loads() == 3);
        fleet.origin.gate.open();
        let answers = page.join().unwrap();
        assert_eq!(**answers[1].as_ref().unwrap(), slow.join().unwrap());
        assert!(answers.iter().all(Result::is_ok));
    });
    assert_eq!(fleet.origin.loads(), 3);
    assert_eq!(b.stats().leases_denied, 1);
}

#[test]
fn a_store_that_fails_costs_only_the_leases() {
    let fleet = Fleet::new();
    let process = fleet.process();
    process
        .chaos
        .always(Op::Acquire, Some(Fault::Fail(ErrorClass::TimedOut)));
    let answers = process.cache.get_many_blocking(&[1, 2, 3]);
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!((fleet.origin.loads(), process.stats().unleased), (3, 3));
}
