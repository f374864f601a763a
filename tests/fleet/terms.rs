//! Reads on terms of their own, in a fleet.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use everfresh::store::{ChaosStore, Store};
use everfresh::{Builder, Cache, Fresh, SecondLevel, Source};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::support::{FRESH, Fleet, STALE, until};

/// A cache of the fleet whose loader the test gives.
fn builder<K>(fleet: &Fleet) -> Builder<K, u64>
where
    K: Serialize + DeserializeOwned + std::hash::Hash + Eq + Clone + Send + Sync + 'static,
{
    let memory: Arc<dyn Store> = fleet.memory.clone();
    let level = SecondLevel::new(Arc::new(ChaosStore::new(memory)), "test:v1").unwrap();
    Cache::builder()
        .capacity(1)
        .clock(&fleet.clock)
        .fresh_for(FRESH)
        .stale_for(STALE)
        .beta(0.0)
        .store(level)
}

fn bare(fleet: &Fleet) -> Cache<u64, u64> {
    builder(fleet).without_loader().build().unwrap()
}

#[test]
fn the_function_of_one_caller_in_the_fleet_runs() {
    let fleet = Fleet::new();
    let (a, b) = (bare(&fleet), bare(&fleet));
    let gate = fleet.origin.gate.clone();
    gate.shut();
    let runs = Arc::new(AtomicU64::new(0));
    std::thread::scope(|scope| {
        let reads = [&a, &b, &a, &b].map(|cache| {
            let (gate, runs) = (gate.clone(), runs.clone());
            scope.spawn(move || {
                let function = move || {
                    runs.fetch_add(1, Ordering::Relaxed);
                    gate.pass();
                    7
                };
                *cache.read(&1).or_compute(function).blocking().unwrap()
            })
        });
        until("a process waits for the lease of the other", || {
            let denied = |cache: &Cache<u64, u64>| cache.store_stats().unwrap().leases_denied;
            denied(&a) + denied(&b) > 0
        });
        gate.open();
        for read in reads {
            assert_eq!(read.join().unwrap(), 7);
        }
    });
    assert_eq!(runs.load(Ordering::Relaxed), 1);
}

#[test]
fn without_a_loader_a_value_of_the_store_is_read_and_a_missing_one_keeps_no_lease() {
    let fleet = Fleet::new();
    let a = fleet.process();
    a.get(1);
    a.published(1);
    let b = bare(&fleet);
    let read = b.get_blocking(&1).unwrap();
    assert_eq!((*read, read.source()), (0, Source::Store));
    assert!(b.get_blocking(&2).unwrap_err().is_without_loader());
    // The other process loads at once: the clock stands still, so no lease could end.
    assert_eq!(a.get(2), 1);
    // And this one with a function.
    assert!(b.get_blocking(&3).unwrap_err().is_without_loader());
    assert_eq!(*b.read(&3).or_compute(|| 30).blocking().unwrap(), 30);
}

#[test]
fn a_value_of_the_store_that_is_too_old_is_not_accepted() {
    let fleet = Fleet::new();
    let a = fleet.process();
    a.get(1);
    a.get(2);
    a.published(2);
    fleet.clock.advance(Duration::from_secs(5));
    let b = fleet.process();
    let read = |key, seconds| {
        let terms = b.cache.read(&key).max_age(Duration::from_secs(seconds));
        terms.blocking().unwrap()
    };
    let old = read(1, 6);
    assert_eq!((*old, old.source()), (0, Source::Store));
    let new = read(2, 2);
    assert_eq!((*new, new.source()), (2, Source::Loaded));
    assert_eq!(fleet.origin.loads(), 3);
}

#[test]
fn a_value_that_is_kept_fresh_is_loaded_when_another_process_invalidates_it() {
    let fleet = Fleet::new();
    let loads = Arc::new(AtomicU64::new(0));
    let [a, b] = [(), ()].map(|()| -> Fresh<u64> {
        let loads = loads.clone();
        let value = builder::<()>(&fleet);
        let value = value.compute(move |&()| loads.fetch_add(1, Ordering::Relaxed));
        value.build_fresh().unwrap()
    });
    a.keep_fresh();
    let shows = |value: u64| {
        until("the value is there", || {
            a.peek().is_some_and(|cached| *cached == value)
        });
    };
    shows(0);
    b.cache().invalidate_everywhere_blocking(&()).unwrap();
    shows(1);
}
