//! A value is loaded once in the fleet.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Waker};
use std::time::Duration;

use everfresh::store::{ChaosStore, MemoryStore, Op};
use everfresh::{Cache, SecondLevel, Source};
use futures_lite::future::block_on;

use crate::support::{FRESH, Fleet, Gate, STALE, until};

#[test]
fn a_value_loaded_by_one_process_is_read_from_the_store_by_the_others() {
    let fleet = Fleet::new();
    let (a, b) = (fleet.process(), fleet.process());
    assert_eq!(a.get(1), 0);
    a.published(1);
    let read = b.cache.get_blocking(&1).unwrap();
    assert_eq!((*read, read.source()), (0, Source::Store));
    assert_eq!(fleet.origin.loads(), 1);
    assert_eq!((b.stats().hits, b.cache.stats().loads), (1, 0));
}

#[test]
fn a_new_process_serves_the_stored_value_and_refreshes_a_stale_one_once() {
    let fleet = Fleet::new();
    let a = fleet.process();
    a.get(1);
    a.published(1);
    drop(a);
    fleet.clock.advance(FRESH + Duration::from_secs(5));
    let b = fleet.process();
    let read = b.cache.get_blocking(&1).unwrap();
    assert_eq!((*read, read.source()), (0, Source::Store));
    assert!(
        read.freshness().is_stale(),
        "the age is stored with the value"
    );
    let off = (FRESH + Duration::from_secs(5)) - read.age();
    // While the clock stands still, epochs are a microsecond apart.
    assert!(off <= Duration::from_micros(2), "{off:?}");
    assert_eq!(fleet.origin.loads(), 1, "the new process loads nothing");
    // The next read refreshes it.
    b.get(1);
    until("the value is refreshed", || {
        *b.cache.get_blocking(&1).unwrap() == 1
    });
    assert_eq!(fleet.origin.loads(), 2);
}

#[test]
fn a_stale_key_is_refreshed_by_one_process_and_all_processes_get_the_value() {
    let fleet = Fleet::new();
    let processes: Vec<_> = (0..4).map(|_| fleet.process()).collect();
    assert_eq!(processes[0].get(1), 0);
    processes[0].published(1);
    for process in &processes {
        assert_eq!(process.get(1), 0);
    }
    for epoch in 1..=5 {
        fleet.clock.advance(FRESH);
        fleet.origin.gate.shut();
        for process in &processes {
            assert_eq!(
                process.get(1),
                epoch - 1,
                "the stale value is served meanwhile"
            );
        }
        fleet.origin.gate.open();
        for process in &processes {
            until("all have the new value", || process.get(1) == epoch);
        }
        assert_eq!(fleet.origin.loads(), epoch + 1, "one load for each epoch");
    }
}

#[test]
fn cold_callers_in_the_whole_fleet_share_one_load() {
    let fleet = Fleet::new();
    let processes: Vec<_> = (0..4).map(|_| fleet.process()).collect();
    fleet.origin.gate.shut();
    std::thread::scope(|scope| {
        let reads: Vec<_> = (processes.iter())
            .flat_map(|process| [process, process])
            .map(|process| scope.spawn(|| process.get(7)))
            .collect();
        until("three processes are denied the lease", || {
            processes
                .iter()
                .map(|p| p.stats().leases_denied)
                .sum::<u64>()
                >= 3
        });
        fleet.origin.gate.open();
        for read in reads {
            assert_eq!(read.join().unwrap(), 0);
        }
    });
    assert_eq!(fleet.origin.loads(), 1);
}

#[test]
fn a_process_that_dies_while_it_loads_delays_the_others_by_one_lease() {
    let fleet = Fleet::new();
    let (a, b) = (fleet.process(), fleet.process());
    fleet.origin.gate.shut();
    std::thread::scope(|scope| {
        scope.spawn(|| a.cache.get_blocking(&1));
        until("the first process loads", || fleet.origin.loads() == 1);
        // The process is as good as dead, because none of its commands reaches the store.
        a.chaos.disconnect();
        let waits = scope.spawn(|| b.get(1));
        until("the second process waits", || b.stats().leases_denied == 1);
        fleet.clock.advance(Duration::from_millis(3_001));
        until("the second process loads", || fleet.origin.loads() == 2);
        fleet.origin.gate.open();
        assert_eq!(waits.join().unwrap(), 1);
    });
    b.published(1);
    assert_eq!(a.stats().published, 0);
}

#[test]
fn a_load_past_its_deadline_gives_its_lease_back() {
    let fleet = Fleet::new();
    // Far longer than the time limit of a load, which is 30 s.
    let lease = Duration::from_secs(1_000);
    let [a, b] = [(); 2].map(|()| fleet.process_with(SecondLevel::lease, lease));
    fleet.origin.gate.shut();
    std::thread::scope(|scope| {
        let hung = scope.spawn(|| a.cache.get_blocking(&1));
        until("the load runs", || fleet.origin.loads() == 1);
        until("the load is past its deadline", || {
            fleet.clock.advance(Duration::from_secs(30));
            a.cache.stats().timed_out == 1
        });
        assert!(hung.join().unwrap().unwrap_err().is_timeout());
        let other = scope.spawn(|| b.cache.get_blocking(&1));
        until("another process loads at once", || {
            fleet.origin.loads() == 2
        });
        fleet.origin.gate.open();
        assert!(other.join().unwrap().is_ok());
    });
    until("the late result counts", || {
        a.cache.stats().late_published == 1
    });
    assert!(a.cache.get_blocking(&1).is_ok());
    assert_eq!(fleet.origin.loads(), 2);
}

#[test]
fn a_slow_loader_keeps_its_lease() {
    let fleet = Fleet::new();
    let (a, b) = (fleet.process(), fleet.process());
    fleet.origin.gate.shut();
    std::thread::scope(|scope| {
        let first = scope.spawn(|| a.get(1));
        until("the first process loads", || fleet.origin.loads() == 1);
        let waits = scope.spawn(|| b.get(1));
        until("the second process waits", || b.stats().leases_denied >= 1);
        for renewal in 1..=6 {
            fleet.clock.advance(Duration::from_secs(1));
            until("the lease is renewed", || {
                a.stats().leases_renewed >= renewal
            });
        }
        assert_eq!(
            fleet.origin.loads(),
            1,
            "a load of 6 s keeps a lease of 3 s"
        );
        fleet.origin.gate.open();
        assert_eq!((first.join().unwrap(), waits.join().unwrap()), (0, 0));
    });
    assert_eq!(fleet.origin.loads(), 1);
}

#[test]
fn after_a_failure_each_process_tries_once_in_a_cool_down() {
    let fleet = Fleet::new();
    let processes: Vec<_> = (0..3).map(|_| fleet.process()).collect();
    fleet.origin.fail(true);
    for round in 0..2 {
        for process in &processes {
            let error = process.cache.get_blocking(&1).unwrap_err();
            assert!(error.is_load_failure());
        }
        assert_eq!(fleet.origin.loads(), 3, "round {round}");
    }
    fleet.origin.fail(false);
    // The cool-down begins in the background.
    until("the cool-down is over", || {
        fleet.clock.advance(Duration::from_millis(100));
        processes[0].cache.get_blocking(&1).is_ok()
    });
    assert_eq!(processes[0].get(1), 3);
}

#[test]
fn a_process_whose_loader_fails_does_not_keep_a_key_from_the_others() {
    const ROUNDS: u64 = 20;
    let fleet = Fleet::new();
    let beside = fleet.beside();
    let sick = beside.process();
    beside.origin.fail(true);
    let healthy: Vec<_> = (0..7).map(|_| fleet.process()).collect();
    for round in 0..ROUNDS {
        let failures = beside.origin.loads();
        // It finds the key missing, or stale, before all others, and fails.
        let value = sick.cache.get_blocking(&1).map(|value| *value).ok();
        assert_eq!(value, round.checked_sub(1));
        until("the load has failed", || {
            beside.origin.loads() == failures + 1 && sick.cache.stats().failed == failures + 1
        });
        // The cool-down is not over, because no time has passed.
        for process in &healthy {
            process.cache.get_blocking(&1).unwrap();
        }
        for process in healthy.iter().chain([&sick]) {
            until("all have the value", || {
                process
                    .cache
                    .get_blocking(&1)
                    .is_ok_and(|value| *value == round)
            });
        }
        fleet.clock.advance(FRESH);
    }
    assert_eq!(fleet.origin.loads(), ROUNDS);
}

#[test]
fn no_value_past_its_hard_limit_is_read_from_the_store() {
    let fleet = Fleet::new();
    let (a, b) = (fleet.process(), fleet.process());
    a.get(1);
    a.published(1);
    fleet.clock.advance(FRESH + STALE);
    assert_eq!(b.get(1), 1);
}

#[test]
fn an_explicit_refresh_takes_a_newer_stored_value_or_loads() {
    let fleet = Fleet::new();
    let (a, b) = (fleet.process(), fleet.process());
    a.get(1);
    a.published(1);
    b.get(1);
    let refreshed = futures_lite::future::block_on(a.cache.refresh(&1)).unwrap();
    assert_eq!(
        *refreshed, 1,
        "the store has no newer value, so the refresh loads"
    );
    a.published(2);
    until("the other process has the value", || b.get(1) == 1);
    assert_eq!(fleet.origin.loads(), 2);
}

#[test]
fn a_renewal_between_the_end_of_a_claim_and_its_result_does_not_lose_the_result() {
    const LEASE: Duration = Duration::from_secs(3);
    let fleet = Fleet::new();
    let chaos = Arc::new(ChaosStore::new(fleet.memory.clone()));
    let level = SecondLevel::new(chaos.clone(), "test:v1").unwrap();
    let (first, second) = (Gate::default(), Gate::default());
    let started = Arc::new(AtomicU64::new(0));
    let (gates, loads) = ((first.clone(), second.clone()), started.clone());
    let cache: Cache<u64, u64> = Cache::builder()
        .capacity(1)
        .clock(&fleet.clock)
        .threads(2)
        .store(level.lease(LEASE))
        .on_removal({
            let clock = fleet.clock.clone();
            move |key, _, _| {
                // The claim of key 1 has ended, and its lease has not. The renewals of both leases
                // are due; that of key 1 is checked first, because it was granted first.
                if *key == 9 {
                    clock.advance(LEASE / 3);
                    until("the other lease is renewed", || chaos.calls(Op::Renew) > 0);
                }
            }
        })
        .compute(move |key: &u64| {
            loads.fetch_add(1, Ordering::SeqCst);
            match key {
                1 => gates.0.pass(),
                _ => gates.1.pass(),
            }
            *key
        })
        .build()
        .unwrap();
    first.shut();
    second.shut();
    let mut context = Context::from_waker(Waker::noop());
    let mut reads = [1, 2].map(|key| {
        let cache = cache.clone();
        let mut read = Box::pin(async move { cache.get(&key).await });
        assert!(read.as_mut().poll(&mut context).is_pending());
        until("the load has started", || {
            started.load(Ordering::SeqCst) == key
        });
        read
    });
    // One thread does the background work of this store. When it has flushed this write, it has
    // also set the alarms of both renewals.
    cache.insert_everywhere_blocking(9, 9).unwrap();
    first.open();
    assert_eq!(*block_on(reads[0].as_mut()).unwrap(), 1);
    until("the store has the result of key 1", || {
        let stats = cache.store_stats().unwrap();
        assert_eq!(stats.refused, 0);
        stats.published == 1
    });
    second.open();
    assert_eq!(*block_on(reads[1].as_mut()).unwrap(), 2);
}

#[test]
fn a_listener_called_by_a_read_of_many_keys_may_wait_for_a_load() {
    const RESIDENT: u64 = 13;
    let handle = Arc::new(std::sync::OnceLock::<Cache<u64, u64>>::new());
    let inside = handle.clone();
    let reads = Arc::new(AtomicU64::new(0));
    let reading = reads.clone();
    let memory = Arc::new(everfresh::store::MemoryStore::new());
    let cache: Cache<u64, u64> = Cache::builder()
        .capacity(RESIDENT as usize)
        .beta(0.0)
        .store(SecondLevel::new(memory, "test:v1").unwrap())
        .on_removal(move |key: &u64, _: &u64, _| {
            if *key < RESIDENT {
                let cache = inside.get().unwrap();
                if cache.get_blocking(&(1_000 + key)).is_ok() {
                    reading.fetch_add(1, Ordering::SeqCst);
                }
            }
        })
        .compute(|key: &u64| *key)
        .build()
        .unwrap();
    handle.set(cache.clone()).ok().unwrap();
    for key in 0..RESIDENT {
        cache.insert(key, key);
    }
    let many = std::thread::spawn(move || {
        let keys: Vec<u64> = (100..180).collect();
        cache.get_many_blocking(&keys).len()
    });
    until("the read has ended", || many.is_finished());
    assert_eq!(many.join().unwrap(), 80);
    assert!(reads.load(Ordering::SeqCst) > 0);
}

#[test]
fn a_refresh_from_now_does_not_take_a_value_from_the_store() {
    let store = Arc::new(MemoryStore::new());
    let cache = |first: u64| -> Cache<u64, u64> {
        let next = AtomicU64::new(first);
        Cache::builder()
            .store(SecondLevel::new(store.clone(), "numbers:v1").unwrap())
            .compute(move |_: &u64| next.fetch_add(1, Ordering::Relaxed))
            .build()
            .unwrap()
    };
    let (one, other) = (cache(100), cache(200));
    assert_eq!(*one.get_blocking(&1).unwrap(), 100);
    until("the store has the value", || {
        one.store_stats().unwrap().published == 1
    });
    assert_eq!(*other.refresh_from_now_blocking(&1).unwrap(), 200);
    assert_eq!(*other.get_blocking(&1).unwrap(), 200);
}

#[test]
fn a_load_behind_a_store_runs_on_the_runtime_of_its_caller() {
    let store = Arc::new(MemoryStore::new());
    let cache: Cache<u64, String> = Cache::builder()
        .store(SecondLevel::new(store, "names:v1").unwrap())
        .load(async |_: &u64| std::thread::current().name().unwrap_or("none").to_owned())
        .build()
        .unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("the caller's")
        .build()
        .unwrap();
    let read = cache.clone();
    let name = runtime.spawn(async move { String::clone(&read.get(&1).await.unwrap()) });
    assert_eq!(runtime.block_on(name).unwrap(), "the caller's");
}
