//! A later write wins, in the whole fleet (P4).

use std::time::Duration;

use everfresh::store::{ErrorClass, Fault, Op};
use futures_lite::future::block_on;

use crate::support::{FRESH, Fleet, until};

#[test]
fn an_invalidation_is_seen_by_all_and_nothing_older_comes_back() {
    let fleet = Fleet::new();
    let (a, b) = (fleet.process(), fleet.process());
    a.get(1);
    a.published(1);
    b.get(1);
    assert!(block_on(a.cache.invalidate_everywhere(&1)).unwrap());
    until("the other heard of it", || {
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
    until("the other has it", || b.get(1) == 500);
    assert_eq!((a.get(1), fleet.origin.loads()), (500, 1));
}

#[test]
fn a_load_that_began_before_an_invalidation_elsewhere_is_not_stored_and_leaves_its_process() {
    let fleet = Fleet::new();
    let (a, b) = (fleet.process(), fleet.process());
    fleet.origin.gate.shut();
    // The loader does not hear of the invalidation: only the store can stop it.
    a.chaos.lose_changes(true);
    std::thread::scope(|scope| {
        let load = scope.spawn(|| a.get(1));
        until("it loads", || fleet.origin.loads() == 1);
        block_on(b.cache.invalidate_everywhere(&1)).unwrap();
        fleet.origin.gate.open();
        assert_eq!(load.join().unwrap(), 0, "who waited gets the old answer");
    });
    until("refused", || a.stats().refused == 1);
    until("gone", || a.cache.get_if_present(&1).is_none());
    assert_eq!(a.get(1), 1);
}

#[test]
fn a_key_that_was_invalidated_here_is_not_read_from_the_store_before_the_store_knows() {
    let fleet = Fleet::new();
    let a = fleet.process();
    a.get(1);
    a.published(1);
    let refused = Fault::Fail(ErrorClass::Refused);
    a.chaos.always(Op::Invalidate, Some(refused));
    assert!(block_on(a.cache.invalidate_everywhere(&1)).is_err());
    let reads = a.chaos.calls(Op::Read);
    assert_eq!(a.get(1), 1, "never what was stored before");
    assert_eq!(
        a.chaos.calls(Op::Read),
        reads,
        "it was not even asked for it"
    );
}

#[test]
fn a_write_that_cannot_be_told_says_so_and_is_told_later() {
    let fleet = Fleet::new();
    let (a, b) = (fleet.process(), fleet.process());
    a.get(1);
    a.published(1);
    b.get(1);
    a.chaos.disconnect();
    assert!(block_on(a.cache.invalidate_everywhere(&1)).is_err());
    assert!(
        a.cache.get_if_present(&1).is_none(),
        "here it is gone at once"
    );
    // Loaded without the store, which still has the old value.
    assert_eq!(a.get(1), 1);
    assert_eq!((a.stats().unleased, a.stats().pending), (1, 1));
    a.chaos.reconnect();
    until("told", || {
        fleet.clock.advance(Duration::from_millis(50));
        a.stats().pending == 0
    });
    until("the other heard of it", || {
        b.cache.get_if_present(&1).is_none_or(|value| *value != 0)
    });
}

#[test]
fn a_write_that_is_given_up_is_an_error_and_nothing_older_is_used() {
    const WAITING: u64 = 65_536;
    let fleet = Fleet::new();
    let (a, b) = (fleet.process(), fleet.process());
    let last = WAITING + 10;
    b.get(last);
    b.published(1);
    // An epoch may be ahead of a clock that stands still.
    fleet.clock.advance(Duration::from_millis(1));
    a.chaos.disconnect();
    for key in 0..=WAITING {
        a.cache.invalidate(&key);
    }
    until("all have been tried", || a.stats().retried > WAITING);
    assert!(block_on(a.cache.invalidate_everywhere(&last)).is_err());
    assert!(a.stats().given_up >= 1);
    a.chaos.reconnect();
    assert_eq!(a.get(last), 1, "what the store has is from before that");
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
    until("told", || a.stats().pending == 0);
    assert_eq!((a.get(1), b.get(1)), (7, 7));
    assert_eq!(fleet.origin.loads(), 0);
}

#[test]
fn what_the_loader_says_is_absent_leaves_the_store() {
    let fleet = Fleet::new();
    let a = fleet.process();
    block_on(a.cache.insert_everywhere(1, 9)).unwrap();
    a.cache.insert(1, everfresh::Loaded::not_found());
    until("told", || a.stats().pending == 0);
    let b = fleet.process();
    assert_eq!(b.get(1), 0, "loaded, not read");
    fleet.clock.advance(FRESH);
}

#[test]
fn everything_that_is_known_can_be_invalidated() {
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
    until("told", || b.stats().pending == 0);
    until("heard", || a.cache.is_empty());
    a.get(3);
    assert_eq!(fleet.origin.loads(), 11);
}

#[test]
fn a_payload_that_was_refreshed_while_it_travelled_is_not_installed() {
    let fleet = Fleet::new();
    let (a, b) = (fleet.process(), fleet.process());
    a.get(1);
    a.published(1);
    b.chaos.next(Op::Read, Fault::HoldAnswer);
    std::thread::scope(|scope| {
        let read = scope.spawn(|| b.get(1));
        b.chaos.wait_for_calls(Op::Read, 1);
        block_on(a.cache.refresh(&1)).unwrap();
        a.published(2);
        until("the other heard of it", || b.stats().followed_changes == 1);
        b.chaos.let_go();
        assert_eq!(read.join().unwrap(), 1);
    });
    assert_eq!(b.stats().outdated, 1);
}
