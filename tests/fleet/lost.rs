//! A store that comes back without its data gets the fresh values again.

use std::time::Duration;

use everfresh::store::{Fault, Op};
use futures_lite::future::block_on;

use crate::support::{FRESH, Fleet, Process, until};

/// The store comes back empty, before the processes are connected again.
fn lose_everything(fleet: &Fleet, processes: &[&Process]) {
    for process in processes {
        process.chaos.disconnect();
        process.chaos.begin_history();
    }
    fleet.memory.flush();
    for process in processes {
        process.chaos.reconnect();
    }
}

#[test]
fn fresh_values_are_stored_again_and_not_loaded_again() {
    const KEYS: u64 = 200;
    const AGE: Duration = Duration::from_secs(4);
    let fleet = Fleet::new();
    let (a, b) = fleet.filled(KEYS);
    fleet.clock.advance(AGE);
    lose_everything(&fleet, &[&a, &b]);
    until("the store has all values", || {
        fleet.memory.len() as u64 == KEYS
    });
    let c = fleet.process();
    for key in 0..KEYS {
        assert_eq!((a.get(key), b.get(key), c.get(key)), (key, key, key));
    }
    assert_eq!(fleet.origin.loads(), KEYS);
    // They do not become younger.
    fleet.clock.advance(FRESH - AGE);
    assert!(c.cache.get_blocking(&1).unwrap().freshness().is_stale());
}

#[test]
fn a_stale_value_is_left_to_its_next_reader() {
    let fleet = Fleet::new();
    let a = fleet.process();
    a.get(1);
    a.get(2);
    a.published(2);
    fleet.clock.advance(FRESH);
    block_on(a.cache.refresh(&2)).unwrap();
    a.published(3);
    lose_everything(&fleet, &[&a]);
    until("the fresh value is stored", || fleet.memory.len() == 1);
    assert_eq!(fleet.origin.loads(), 3);
    assert_eq!(a.get(1), 0);
    a.published(5);
    assert_eq!(a.get(1), 3);
}

#[test]
fn a_value_that_is_stored_again_does_not_undo_a_later_write() {
    let fleet = Fleet::new();
    let (a, b) = (fleet.process(), fleet.process());
    a.get(1);
    a.published(1);
    a.chaos.next(Op::Publish, Fault::Hold);
    let publications = a.chaos.calls(Op::Publish);
    lose_everything(&fleet, &[&a]);
    a.chaos.wait_for_calls(Op::Publish, publications + 1);
    block_on(b.cache.invalidate_everywhere(&1)).unwrap();
    a.chaos.let_go();
    assert_eq!(b.get(1), 1);
    until("the value is loaded again", || a.get(1) == 1);
    assert_eq!((fleet.origin.loads(), a.stats().published), (2, 1));
}

#[test]
fn an_older_history_is_not_that_of_values_stored_since() {
    let fleet = Fleet::new();
    let (a, b) = (fleet.process(), fleet.process());
    a.get(1);
    a.published(1);
    lose_everything(&fleet, &[&a]);
    a.published(2);
    // In the same history, a missing value was invalidated.
    a.chaos.disconnect();
    block_on(b.cache.invalidate_everywhere(&1)).unwrap();
    a.chaos.reconnect();
    until("the value is loaded again", || a.get(1) == 1);
    assert_eq!(fleet.origin.loads(), 2);
}
