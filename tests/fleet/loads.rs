//! One load in the fleet.

use std::time::Duration;

use everfresh::Source;

use crate::support::{FRESH, Fleet, STALE, until};

#[test]
fn a_value_that_one_process_loaded_is_taken_from_the_store_by_the_others() {
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
fn a_new_process_serves_what_the_last_one_left_and_a_stale_value_is_refreshed_once() {
    let fleet = Fleet::new();
    let a = fleet.process();
    a.get(1);
    a.published(1);
    drop(a);
    fleet.clock.advance(FRESH + Duration::from_secs(5));
    let b = fleet.process();
    let read = b.cache.get_blocking(&1).unwrap();
    assert_eq!((*read, read.source()), (0, Source::Store));
    assert!(read.freshness().is_stale(), "its age came along");
    let off = (FRESH + Duration::from_secs(5)) - read.age();
    // A clock that stands still gives epochs a microsecond apart.
    assert!(off <= Duration::from_micros(2), "{off:?}");
    assert_eq!(fleet.origin.loads(), 1, "warm: nothing was loaded");
    // The next read refreshes it.
    b.get(1);
    until("refreshed", || *b.cache.get_blocking(&1).unwrap() == 1);
    assert_eq!(fleet.origin.loads(), 2);
}

#[test]
fn a_stale_key_is_refreshed_by_one_process_and_taken_over_by_all() {
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
            assert_eq!(process.get(1), epoch - 1, "stale is served meanwhile");
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
        until("three are denied the lease", || {
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
        until("the first loads", || fleet.origin.loads() == 1);
        // As good as dead: nothing it says reaches the store any more.
        a.chaos.disconnect();
        let waits = scope.spawn(|| b.get(1));
        until("the second waits", || b.stats().leases_denied == 1);
        fleet.clock.advance(Duration::from_millis(3_001));
        until("the second loads", || fleet.origin.loads() == 2);
        fleet.origin.gate.open();
        assert_eq!(waits.join().unwrap(), 1);
    });
    b.published(1);
    assert_eq!(a.stats().published, 0);
}

#[test]
fn a_slow_loader_keeps_its_lease() {
    let fleet = Fleet::new();
    let (a, b) = (fleet.process(), fleet.process());
    fleet.origin.gate.shut();
    std::thread::scope(|scope| {
        let first = scope.spawn(|| a.get(1));
        until("the first loads", || fleet.origin.loads() == 1);
        let waits = scope.spawn(|| b.get(1));
        until("the second waits", || b.stats().leases_denied >= 1);
        for renewal in 1..=6 {
            fleet.clock.advance(Duration::from_secs(1));
            until("renewed", || a.stats().leases_renewed >= renewal);
        }
        assert_eq!(
            fleet.origin.loads(),
            1,
            "six seconds under a lease of three"
        );
        fleet.origin.gate.open();
        assert_eq!((first.join().unwrap(), waits.join().unwrap()), (0, 0));
    });
    assert_eq!(fleet.origin.loads(), 1);
}

#[test]
fn a_failure_rests_in_the_whole_fleet() {
    let fleet = Fleet::new();
    let (a, b) = (fleet.process(), fleet.process());
    fleet.origin.fail(true);
    assert!(a.cache.get_blocking(&1).unwrap_err().is_load_failure());
    let error = until_error(&b);
    let source = std::error::Error::source(&error).unwrap();
    assert!(source.to_string().contains("another process"), "{source}");
    assert_eq!(fleet.origin.loads(), 1);
    fleet.origin.fail(false);
    fleet.clock.advance(Duration::from_secs(1));
    assert_eq!(b.get(1), 1);
}

/// The release of the lease travels in the background.
fn until_error(process: &crate::support::Process) -> everfresh::Error {
    let error = process.cache.get_blocking(&1);
    error.unwrap_err()
}

#[test]
fn past_its_hard_limit_nothing_comes_from_the_store() {
    let fleet = Fleet::new();
    let (a, b) = (fleet.process(), fleet.process());
    a.get(1);
    a.published(1);
    fleet.clock.advance(FRESH + STALE);
    assert_eq!(b.get(1), 1);
}

#[test]
fn a_refresh_by_name_takes_what_the_fleet_has_or_loads() {
    let fleet = Fleet::new();
    let (a, b) = (fleet.process(), fleet.process());
    a.get(1);
    a.published(1);
    b.get(1);
    let refreshed = futures_lite::future::block_on(a.cache.refresh(&1)).unwrap();
    assert_eq!(*refreshed, 1, "the store has nothing newer: loaded");
    a.published(2);
    until("told", || b.get(1) == 1);
    assert_eq!(fleet.origin.loads(), 2);
}
