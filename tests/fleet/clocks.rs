//! The clock of the store is set, or a server with another clock takes its place.

use std::time::Duration;

use everfresh::Source;
use everfresh::store::Store;
use futures_lite::future::block_on;

use crate::support::{FRESH, Fleet, Process, name, until};

const HOUR: Duration = Duration::from_secs(3_600);
const KEYS: u64 = 20;

/// How far the clock of the new server is behind that of its predecessor.
const BEHIND: Duration = Duration::from_secs(20);

/// A fleet of two processes with the fresh values of some keys. Half of them were inserted, and
/// some were invalidated and loaded again.
fn fleet() -> (Fleet, Process, Process) {
    fresh_for(FRESH)
}

/// The same, with values that are fresh for so long.
fn fresh_for(fresh: Duration) -> (Fleet, Process, Process) {
    let fleet = Fleet {
        fresh,
        ..Fleet::new()
    };
    let (a, b) = fleet.filled(KEYS);
    for key in 0..KEYS / 2 {
        block_on(a.cache.insert_everywhere(key, 100 + key)).unwrap();
        until("it arrives", || b.get(key) == 100 + key);
    }
    for key in KEYS / 2..KEYS / 2 + 5 {
        block_on(b.cache.invalidate_everywhere(&key)).unwrap();
        until("it leaves", || a.cache.get_if_present(&key).is_none());
        let value = a.get(key);
        a.published(KEYS + key - KEYS / 2 + 1);
        until("it arrives", || b.get(key) == value);
    }
    fleet.clock.advance(Duration::from_secs(2));
    (fleet, a, b)
}

/// Another server takes the place of the store's, with the data or without.
fn failover(fleet: &Fleet, processes: [&Process; 2], with_data: bool) {
    for process in processes {
        process.chaos.disconnect();
        if !with_data {
            process.chaos.begin_history();
        }
    }
    if !with_data {
        fleet.memory.flush();
    }
    fleet.memory.set_clock_back(BEHIND);
    for process in processes {
        process.chaos.reconnect();
    }
}

fn all_fresh(process: &Process) -> Vec<u64> {
    let values = (0..KEYS).map(|key| {
        let value = process.cache.get_blocking(&key).unwrap();
        assert_eq!(value.source(), Source::Fresh, "key {key}");
        *value
    });
    values.collect()
}

/// All that one process writes reaches the other one.
fn changes_arrive(fleet: &Fleet, a: &Process, b: &Process) {
    for key in 0..KEYS {
        block_on(b.cache.insert_everywhere(key, 1_000 + key)).unwrap();
        until("the insert arrives", || a.get(key) == 1_000 + key);
        fleet.clock.advance(Duration::from_millis(1));
        block_on(b.cache.refresh(&key)).unwrap();
        let value = b.get(key);
        until("the refresh arrives", || a.get(key) == value);
        block_on(b.cache.invalidate_everywhere(&key)).unwrap();
        assert!(a.cache.get_if_present(&key).is_none_or(|old| *old != value));
        until("both have the next value", || {
            a.get(key) != value && a.get(key) == b.get(key)
        });
    }
}

#[test]
fn fresh_values_are_served_over_a_failover_to_an_empty_server_with_a_slower_clock() {
    let (fleet, a, b) = fleet();
    let (loads, before) = (fleet.origin.loads(), all_fresh(&a));
    failover(&fleet, [&a, &b], false);
    until("the values are stored again", || {
        assert_eq!(
            (all_fresh(&a), all_fresh(&b)),
            (before.clone(), before.clone())
        );
        fleet.memory.len() as u64 == KEYS
    });
    until("the values were compared", || {
        let present = |process: &Process| all_fresh(process) == before;
        present(&a) && present(&b) && a.stats().published + b.stats().published >= 45
    });
    let c = fleet.process();
    for key in 0..KEYS {
        assert_eq!(c.get(key), before[key as usize]);
    }
    assert_eq!(fleet.origin.loads(), loads);
    changes_arrive(&fleet, &a, &b);
}

#[test]
fn fresh_values_are_served_over_a_failover_to_a_replica_with_a_slower_clock() {
    let (fleet, a, b) = fleet();
    let (loads, before) = (fleet.origin.loads(), all_fresh(&a));
    failover(&fleet, [&a, &b], true);
    until("the values are compared twice", || {
        assert_eq!(
            (all_fresh(&a), all_fresh(&b)),
            (before.clone(), before.clone())
        );
        a.stats().rechecks >= 2 && b.stats().rechecks >= 2
    });
    assert_eq!(fleet.origin.loads(), loads);
    changes_arrive(&fleet, &a, &b);
}

#[test]
fn a_write_that_was_missed_in_a_failover_takes_effect() {
    let (fleet, a, b) = fleet();
    a.chaos.disconnect();
    block_on(b.cache.insert_everywhere(1, 7)).unwrap();
    block_on(b.cache.invalidate_everywhere(&2)).unwrap();
    block_on(b.cache.invalidate_everywhere(&3)).unwrap();
    let third = b.get(3);
    fleet.memory.set_clock_back(BEHIND);
    a.chaos.reconnect();
    until("the old values leave", || {
        a.get(1) != 101 && a.get(2) != 102 && a.get(3) >= third && a.get(3) != 103
    });
}

#[test]
fn changes_arrive_while_the_clock_of_the_store_is_set() {
    let (fleet, a, b) = fleet();
    fleet.memory.set_clock_ahead(HOUR);
    changes_arrive(&fleet, &a, &b);
    fleet.memory.set_clock_back(HOUR);
    changes_arrive(&fleet, &b, &a);
    fleet.memory.set_clock_back(BEHIND);
    changes_arrive(&fleet, &a, &b);
}

#[test]
fn a_value_from_the_future_is_stale_and_refreshed_once() {
    let fleet = Fleet::new();
    fleet.memory.set_clock_ahead(HOUR);
    let a = fleet.process();
    for key in 0..KEYS {
        a.get(key);
    }
    a.published(KEYS);
    fleet.memory.set_clock_back(HOUR);
    let (b, c) = (fleet.process(), fleet.process());
    for key in 0..KEYS {
        let value = b.cache.get_blocking(&key).unwrap();
        assert!(value.freshness().is_stale(), "its age is unknown");
        assert_eq!(*value, key);
        assert_eq!(c.get(key), key);
        until("all have the next value", || {
            [&a, &b, &c].map(|process| process.get(key)).iter().min() >= Some(&KEYS)
        });
    }
    assert_eq!(fleet.origin.loads(), 2 * KEYS);
    // The successor is not from the future.
    let heads = block_on(fleet.memory.heads(&[name(1)]));
    let epoch = heads[0].as_ref().unwrap().unwrap().epoch;
    assert!(epoch.micros() <= fleet.memory.now().unwrap() + 1_000);
    let d = fleet.process();
    for process in [&a, &b, &c, &d] {
        for key in 0..KEYS {
            let value = process.cache.get_blocking(&key).unwrap();
            assert!(!value.freshness().is_stale());
        }
    }
    fleet.clock.advance(FRESH);
    let value = d.get(1);
    until("it is refreshed again", || d.get(1) > value);
    assert_eq!(fleet.origin.loads(), 2 * KEYS + 1);
}

#[test]
fn a_set_of_the_clock_does_not_make_a_write_that_waited_younger() {
    // The clock goes on while other threads are busy.
    let (fleet, a, b) = fresh_for(Duration::MAX);
    a.chaos.disconnect();
    assert!(block_on(a.cache.insert_everywhere(1, 5)).is_err());
    fleet.memory.set_clock_back(BEHIND);
    fleet.clock.advance(Duration::from_secs(5));
    block_on(b.cache.insert_everywhere(1, 6)).unwrap();
    a.chaos.reconnect();
    until("the write is refused", || {
        fleet.clock.advance(Duration::from_millis(50));
        a.stats().superseded == 1
    });
    assert_eq!((a.get(1), b.get(1)), (6, 6));
}
