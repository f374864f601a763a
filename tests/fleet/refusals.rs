//! A result that the store refuses leaves its process only if it may be wrong.

use futures_lite::future::block_on;

use crate::support::{Fleet, Process, name, until};

/// Loads key 1, and loses its lease meanwhile, as a server that evicts it does.
fn load_and_lose_the_lease(fleet: &Fleet, process: &Process, meanwhile: impl FnOnce()) {
    let loads = fleet.origin.loads();
    fleet.origin.gate.shut();
    std::thread::scope(|scope| {
        let load = scope.spawn(|| process.get(1));
        until("the load has begun", || fleet.origin.loads() == loads + 1);
        fleet.memory.lose_lease(&name(1));
        meanwhile();
        fleet.origin.gate.open();
        assert_eq!(load.join().unwrap(), loads);
    });
}

fn is_resident(process: &Process, value: u64) -> bool {
    (process.cache.get_if_present(&1)).is_some_and(|resident| *resident == value)
}

#[test]
fn a_value_whose_lease_was_evicted_stays_in_its_process() {
    let fleet = Fleet::new();
    let a = fleet.process();
    load_and_lose_the_lease(&fleet, &a, || {});
    until("the result is not stored", || a.stats().not_stored == 1);
    assert!(is_resident(&a, 0));
    assert_eq!((a.stats().refused, fleet.origin.loads()), (0, 1));
}

#[test]
fn a_value_whose_lease_was_evicted_leaves_if_its_key_was_invalidated_too() {
    let fleet = Fleet::new();
    let (a, b) = (fleet.process(), fleet.process());
    load_and_lose_the_lease(&fleet, &a, || {
        block_on(b.cache.invalidate_everywhere(&1)).unwrap();
    });
    until("the result is refused", || a.stats().refused == 1);
    until("the value is removed", || !is_resident(&a, 0));
}

#[test]
fn after_a_gap_a_refused_value_leaves() {
    let fleet = Fleet::new();
    let a = fleet.process();
    load_and_lose_the_lease(&fleet, &a, || {
        a.chaos.disconnect();
        a.chaos.reconnect();
    });
    until("the result is refused", || a.stats().refused == 1);
    until("the value is removed", || !is_resident(&a, 0));
}

#[test]
fn a_kept_value_is_compared_with_the_store_after_a_gap() {
    let fleet = Fleet::new();
    let (a, b) = (fleet.process(), fleet.process());
    load_and_lose_the_lease(&fleet, &a, || {});
    until("the result is not stored", || a.stats().not_stored == 1);
    a.chaos.disconnect();
    block_on(b.cache.invalidate_everywhere(&1)).unwrap();
    assert!(is_resident(&a, 0));
    a.chaos.reconnect();
    until("the missed invalidation is found", || a.get(1) == 1);
}

#[test]
fn a_value_of_which_another_process_stored_a_later_one_stays_until_that_is_read() {
    let fleet = Fleet::new();
    let beside = fleet.beside();
    let (a, b) = (fleet.process(), beside.process());
    b.get(2);
    load_and_lose_the_lease(&fleet, &a, || {
        assert_eq!(b.get(1), 1);
        b.published(2);
    });
    until("the other value is here", || a.get(1) == 1);
    assert_eq!((a.stats().refused, fleet.origin.loads()), (0, 1));
}
