//! A later write wins in the whole fleet (P4).

use std::time::Duration;

use everfresh::store::{ErrorClass, Fault, Op, Store};
use futures_lite::future::block_on;

use crate::support::{FRESH, Fleet, Process, until};

#[test]
fn all_processes_see_an_invalidation_and_no_older_value_comes_back() {
    let fleet = Fleet::new();
    let (a, b) = (fleet.process(), fleet.process());
    a.get(1);
    a.published(1);
    b.get(1);
    assert!(block_on(a.cache.invalidate_everywhere(&1)).unwrap());
    until("the other process sees the invalidation", || {
        b.cache.get_if_present(&1).is_none()
    });
    assert_eq!(b.get(1), 1);
    b.published(1);
    assert_eq!(a.get(1), 1);
    assert_eq!(fleet.origin.loads(), 2);
}

#[test]
fn writes_of_threads_wait_for_the_store_too() {
    let fleet = Fleet::new();
    let (a, b) = (fleet.process(), fleet.process());
    a.cache.insert_everywhere_blocking(1, 500).unwrap();
    assert_eq!((b.get(1), fleet.origin.loads()), (500, 0));
    assert!(a.cache.invalidate_everywhere_blocking(&1).unwrap());
    until("the other heard of it", || b.cache.peek(&1).is_none());
    a.chaos.disconnect();
    a.cache.insert_everywhere_blocking(1, 600).unwrap_err();
    assert_eq!(a.get(1), 600, "in this process it is in");
    // Another key, because the store is asked again for the first only after a pause.
    a.cache.invalidate_everywhere_blocking(&3).unwrap_err();
}

#[test]
fn an_inserted_value_reaches_the_others() {
    let fleet = Fleet::new();
    let (a, b) = (fleet.process(), fleet.process());
    a.get(1);
    a.published(1);
    b.get(1);
    block_on(a.cache.insert_everywhere(1, 500)).unwrap();
    until("the other process has the value", || b.get(1) == 500);
    assert_eq!((a.get(1), fleet.origin.loads()), (500, 1));
}

#[test]
fn a_load_begun_before_an_invalidation_elsewhere_is_neither_stored_nor_kept() {
    let fleet = Fleet::new();
    let (a, b) = (fleet.process(), fleet.process());
    fleet.origin.gate.shut();
    // The loading process does not see the invalidation, so only the store can refuse the result.
    a.chaos.lose_changes(true);
    std::thread::scope(|scope| {
        let load = scope.spawn(|| a.get(1));
        until("the load has begun", || fleet.origin.loads() == 1);
        block_on(b.cache.invalidate_everywhere(&1)).unwrap();
        fleet.origin.gate.open();
        assert_eq!(
            load.join().unwrap(),
            0,
            "the waiting caller gets the old result"
        );
    });
    until("the result is refused", || a.stats().refused == 1);
    until("the value is removed", || {
        a.cache.get_if_present(&1).is_none()
    });
    assert_eq!(a.get(1), 1);
}

#[test]
fn a_key_invalidated_here_is_not_read_from_the_store_while_the_write_is_pending() {
    let fleet = Fleet::new();
    let a = fleet.process();
    a.get(1);
    a.published(1);
    let refused = Fault::Fail(ErrorClass::Refused);
    a.chaos.always(Op::Invalidate, Some(refused));
    assert!(block_on(a.cache.invalidate_everywhere(&1)).is_err());
    let reads = a.chaos.calls(Op::Read);
    assert_eq!(a.get(1), 1, "the value stored before is not used");
    assert_eq!(
        a.chaos.calls(Op::Read),
        reads,
        "the store is not asked for the key"
    );
}

#[test]
fn a_write_that_does_not_reach_the_store_is_an_error_and_is_flushed_later() {
    let fleet = Fleet::new();
    let (a, b) = (fleet.process(), fleet.process());
    a.get(1);
    a.published(1);
    b.get(1);
    a.chaos.disconnect();
    assert!(block_on(a.cache.invalidate_everywhere(&1)).is_err());
    assert!(
        a.cache.get_if_present(&1).is_none(),
        "the value is removed from this process at once"
    );
    // The value is loaded without the store, which still has the old value.
    assert_eq!(a.get(1), 1);
    assert_eq!((a.stats().unleased, a.stats().pending), (1, 1));
    a.chaos.reconnect();
    until("all writes are flushed", || {
        fleet.clock.advance(Duration::from_millis(50));
        a.stats().pending == 0
    });
    until("the other process sees the invalidation", || {
        b.cache.get_if_present(&1).is_none_or(|value| *value != 0)
    });
}

/// More writes wait than may. `breaks` takes the connection to the store away, and `meanwhile`
/// happens before it is back. Returns the process, and a key with a younger value.
fn a_write_is_given_up(
    breaks: impl FnOnce(&Process),
    meanwhile: impl FnOnce(&Fleet),
) -> (Process, u64, u64) {
    const WAITING: u64 = 65_536;
    let fleet = Fleet::new();
    let (a, b) = (fleet.process(), fleet.process());
    let (last, later) = (WAITING + 10, WAITING + 11);
    b.get(last);
    b.published(1);
    // An epoch can be ahead of a clock that stands still.
    fleet.clock.advance(Duration::from_millis(1));
    breaks(&a);
    for key in 0..=WAITING {
        a.cache.invalidate(&key);
    }
    until("the newest write is given up", || a.stats().given_up == 1);
    assert!(block_on(a.cache.invalidate_everywhere(&last)).is_err());
    assert!(a.stats().given_up > 1);
    fleet.clock.advance(Duration::from_millis(1));
    let number = b.get(later);
    b.published(2);
    meanwhile(&fleet);
    a.chaos.reconnect();
    assert_eq!(
        a.get(last),
        number + 1,
        "the value in the store is older than the write"
    );
    (a, later, number)
}

#[test]
fn a_write_that_is_given_up_is_an_error_and_no_older_value_is_used() {
    let (a, later, number) = a_write_is_given_up(|process| process.chaos.disconnect(), |_| {});
    assert_eq!(a.get(later), number, "this value is younger");
}

#[test]
fn a_write_that_is_given_up_before_the_first_connection_hides_older_values() {
    let (a, later, number) =
        a_write_is_given_up(|process| process.chaos.not_connected_yet(), |_| {});
    assert_eq!(a.get(later), number, "this value is younger");
}

#[test]
fn a_write_that_is_given_up_hides_older_values_also_after_the_clock_was_set_back() {
    a_write_is_given_up(
        |process| process.chaos.disconnect(),
        |fleet| {
            fleet.memory.set_clock_back(Duration::from_secs(4));
            fleet.clock.advance(Duration::from_secs(5));
        },
    );
}

#[test]
fn the_last_of_several_writes_stays() {
    let fleet = Fleet::new();
    let (a, b) = (fleet.process(), fleet.process());
    for value in 100..200 {
        a.cache.insert(1, value);
    }
    a.cache.invalidate(&1);
    a.cache.insert(1, 7);
    until("all writes are flushed", || a.stats().pending == 0);
    assert_eq!((a.get(1), b.get(1)), (7, 7));
    assert_eq!(fleet.origin.loads(), 0);
}

#[test]
fn a_key_that_is_not_found_is_removed_from_the_store() {
    let fleet = Fleet::new();
    let a = fleet.process();
    block_on(a.cache.insert_everywhere(1, 9)).unwrap();
    a.cache.insert(1, everfresh::Loaded::not_found());
    until("all writes are flushed", || a.stats().pending == 0);
    let b = fleet.process();
    assert_eq!(b.get(1), 0, "the value is loaded, not read from the store");
    fleet.clock.advance(FRESH);
}

#[test]
fn invalidate_all_reaches_all_keys_known_to_the_process() {
    let fleet = Fleet::new();
    let (a, b) = (fleet.process(), fleet.process());
    for key in 0..10 {
        a.get(key);
    }
    a.published(10);
    for key in 0..10 {
        b.get(key);
    }
    b.cache.invalidate_all();
    until("all writes are flushed", || b.stats().pending == 0);
    until("the other process is empty", || a.cache.is_empty());
    a.get(3);
    assert_eq!(fleet.origin.loads(), 11);
}

#[test]
fn a_payload_refreshed_while_in_transit_is_not_installed() {
    let fleet = Fleet::new();
    let (a, b) = (fleet.process(), fleet.process());
    a.get(1);
    a.published(1);
    b.chaos.next(Op::Read, Fault::HoldAnswer);
    let reads = fleet.memory.stats().reads;
    std::thread::scope(|scope| {
        let read = scope.spawn(|| b.get(1));
        until("the answer is made", || fleet.memory.stats().reads > reads);
        block_on(a.cache.refresh(&1)).unwrap();
        a.published(2);
        until("the other process sees the change", || {
            b.stats().followed_changes == 1
        });
        b.chaos.let_go();
        assert_eq!(read.join().unwrap(), 1);
    });
    assert_eq!(b.stats().outdated, 1);
}
