//! Values that were loaded without the store, or missed a change, do not outlive what another
//! process wrote.

use std::time::Duration;

use everfresh::store::{ErrorClass, Fault, Op};
use futures_lite::future::block_on;

use crate::support::{Fleet, Process, until};

/// A fleet whose values are never stale, so that no reader refreshes them.
fn fleet() -> Fleet {
    Fleet {
        fresh: Duration::MAX,
        ..Fleet::new()
    }
}

const TICK: Duration = Duration::from_millis(20);

/// Lets the time pass until the process serves a value for which this holds.
fn serves(fleet: &Fleet, process: &Process, what: &str, wanted: impl Fn(u64) -> bool) {
    until(what, || {
        fleet.clock.advance(TICK);
        wanted(process.get(1))
    });
}

#[test]
fn a_value_loaded_while_an_invalidation_waits_leaves_on_a_later_change() {
    let fleet = fleet();
    let (a, b) = (fleet.process(), fleet.process());
    let fails = Fault::Fail(ErrorClass::Unavailable);
    a.chaos.always(Op::Invalidate, Some(fails));
    block_on(a.cache.invalidate_everywhere(&1)).unwrap_err();
    assert_eq!(a.get(1), 0);
    // The messages still come.
    fleet.clock.advance(TICK);
    block_on(b.cache.insert_everywhere(1, 555)).unwrap();
    assert!(
        a.cache.peek(&1).is_none(),
        "it is older than the other's value"
    );
    a.chaos.always(Op::Invalidate, None);
    serves(&fleet, &a, "the other's value is here", |value| {
        value == 555
    });
}

#[test]
fn the_value_of_a_set_that_waits_stays_until_the_store_has_decided() {
    let fleet = fleet();
    let (a, b) = (fleet.process(), fleet.process());
    a.chaos
        .always(Op::Set, Some(Fault::Fail(ErrorClass::Unavailable)));
    block_on(a.cache.insert_everywhere(1, 555)).unwrap_err();
    fleet.clock.advance(TICK);
    block_on(b.cache.invalidate_everywhere(&1)).unwrap();
    assert_eq!(a.cache.peek(&1).as_deref(), Some(&555));
}

#[test]
fn a_value_loaded_during_an_outage_is_compared_with_the_store_after_it() {
    let fleet = fleet();
    let (a, b) = (fleet.process(), fleet.process());
    a.chaos.disconnect();
    assert_eq!(a.get(1), 0);
    block_on(b.cache.insert_everywhere(1, 555)).unwrap();
    a.chaos.reconnect();
    serves(&fleet, &a, "the other's value is here", |value| {
        value == 555
    });
    assert_eq!(fleet.origin.loads(), 1);
}

#[test]
fn a_load_that_outlasts_an_outage_is_compared_with_the_store_after_it() {
    let fleet = fleet();
    let (a, b) = (fleet.process(), fleet.process());
    a.chaos.disconnect();
    fleet.origin.gate.shut();
    let cache = a.cache.clone();
    let reader = std::thread::spawn(move || *cache.get_blocking(&1).unwrap());
    until("the load runs", || fleet.origin.loads() == 1);
    block_on(b.cache.insert_everywhere(1, 555)).unwrap();
    a.chaos.reconnect();
    let reads = a.chaos.calls(Op::Read);
    fleet.origin.gate.open();
    assert_eq!(reader.join().unwrap(), 0);
    until("the value is compared", || {
        fleet.clock.advance(TICK);
        a.chaos.calls(Op::Read) > reads
    });
    serves(&fleet, &a, "the other's value is here", |value| {
        value == 555
    });
    assert_eq!(fleet.origin.loads(), 1);
}

#[test]
fn a_value_loaded_while_an_invalidation_waits_is_compared_with_the_store_too() {
    let fleet = fleet();
    let (a, b) = (fleet.process(), fleet.process());
    a.chaos.disconnect();
    block_on(a.cache.invalidate_everywhere(&1)).unwrap_err();
    assert_eq!(a.get(1), 0);
    block_on(b.cache.invalidate_everywhere(&1)).unwrap();
    a.chaos.reconnect();
    serves(&fleet, &a, "the value is loaded again", |value| value == 1);
    assert_eq!(fleet.origin.loads(), 2);
}

#[test]
fn an_invalidation_missed_long_after_a_new_history_is_not_undone() {
    let fleet = fleet();
    let (a, b) = fleet.filled(2);
    // The server has come back with its data, and the value stays.
    a.chaos.disconnect();
    a.chaos.begin_history();
    a.chaos.reconnect();
    until("the values are compared", || a.chaos.calls(Op::Read) >= 1);
    a.chaos.disconnect();
    block_on(b.cache.invalidate_everywhere(&1)).unwrap();
    a.chaos.reconnect();
    serves(&fleet, &a, "the value is loaded again", |value| value == 2);
    assert_eq!((b.get(1), fleet.origin.loads()), (2, 3));
}

#[test]
fn a_set_whose_epoch_a_comparison_found_first_still_removes_the_older_value() {
    let fleet = fleet();
    let (a, b) = fleet.filled(2);
    a.chaos.hold_changes();
    block_on(b.cache.insert_everywhere(1, 555)).unwrap();
    a.chaos.disconnect();
    // The epochs come, and the values do not.
    let reads = a.chaos.calls(Op::Read);
    a.chaos.next(Op::Read, Fault::HoldAnswer);
    a.chaos.reconnect();
    a.chaos.wait_for_calls(Op::Read, reads + 1);
    a.chaos.next(Op::Read, Fault::Hang);
    a.chaos.let_go();
    a.chaos.wait_for_calls(Op::Read, reads + 2);
    assert_eq!(a.get(1), 1);
    a.chaos.let_changes_go();
    assert_eq!(a.get(1), 555);
}

#[test]
fn a_value_that_the_store_cannot_hold_leaves_for_a_later_write_of_another_process() {
    let fleet = fleet();
    let (a, b) = (fleet.process(), fleet.process());
    let fails = |class| Some(Fault::Fail(class));
    a.chaos.always(Op::Set, fails(ErrorClass::Unavailable));
    block_on(a.cache.insert_everywhere(1, 555)).unwrap_err();
    fleet.clock.advance(TICK);
    block_on(b.cache.invalidate_everywhere(&1)).unwrap();
    // The store is told of a removal instead, which is later than the other one there.
    a.chaos.always(Op::Set, fails(ErrorClass::TooLarge));
    until("the write has reached the store", || {
        fleet.clock.advance(TICK);
        a.stats().pending == 0
    });
    assert_eq!(a.cache.peek(&1).as_deref(), None);
}
