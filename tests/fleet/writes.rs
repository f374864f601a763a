//! A later write wins in the whole fleet (P4).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use everfresh::store::{ChaosStore, ErrorClass, Fault, Op};
use everfresh::{Cache, SecondLevel};
use futures_lite::future::block_on;

use crate::support::{FRESH, Fleet, Gate, Process, STALE, until};

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

#[test]
fn a_write_that_is_given_up_is_an_error_and_no_older_value_is_used() {
    const WAITING: u64 = 65_536;
    let fleet = Fleet::new();
    let (a, b) = (fleet.process(), fleet.process());
    let last = WAITING + 10;
    b.get(last);
    b.published(1);
    // An epoch can be ahead of a clock that stands still.
    fleet.clock.advance(Duration::from_millis(1));
    a.chaos.disconnect();
    for key in 0..=WAITING {
        a.cache.invalidate(&key);
    }
    until("all writes have been tried", || a.stats().retried > WAITING);
    assert!(block_on(a.cache.invalidate_everywhere(&last)).is_err());
    assert!(a.stats().given_up >= 1);
    a.chaos.reconnect();
    assert_eq!(
        a.get(last),
        1,
        "the value in the store is older than the write"
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
    std::thread::scope(|scope| {
        let read = scope.spawn(|| b.get(1));
        b.chaos.wait_for_calls(Op::Read, 1);
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

/// Waits until so many attempts to write have failed.
fn failed(process: &Process, attempts: u64) {
    until("the attempts have failed", || {
        process.stats().retried >= attempts
    });
}

/// Waits until the store knows all writes of a process. The pauses between attempts end by the
/// test's clock, by less than a second in all.
fn flush(fleet: &Fleet, process: &Process) {
    until("all writes are flushed", || {
        fleet.clock.advance(Duration::from_millis(1));
        process.stats().pending == 0
    });
}

#[test]
fn a_write_that_waited_past_its_hard_limit_is_an_invalidation() {
    let fleet = Fleet::new();
    let (a, b) = (fleet.process(), fleet.process());
    block_on(b.cache.insert_everywhere(1, 300)).unwrap();
    a.chaos.disconnect();
    a.cache.insert(1, 100);
    failed(&a, 1);
    fleet.clock.advance(FRESH + STALE);
    a.chaos.reconnect();
    flush(&fleet, &a);
    assert_eq!(b.get(1), 0, "the value that waited is too old");
    assert_eq!(a.get(1), 0);
}

#[test]
fn a_write_that_waited_is_as_old_as_it_is() {
    let fleet = Fleet::new();
    let (a, b) = (fleet.process(), fleet.process());
    a.chaos.disconnect();
    a.cache.insert(1, 100);
    failed(&a, 1);
    fleet.clock.advance(FRESH / 2);
    a.chaos.reconnect();
    flush(&fleet, &a);
    assert_eq!(b.get(1), 100);
    fleet.clock.advance(FRESH / 2);
    let stale = b.cache.get_blocking(&1).unwrap();
    assert!(stale.freshness().is_stale(), "{:?}", stale.freshness());
    fleet.origin.fail(true);
    fleet.clock.advance(STALE - Duration::from_secs(1));
    assert_eq!(b.get(1), 100);
    fleet.clock.advance(Duration::from_secs(1));
    assert!(
        b.cache.get_blocking(&1).is_err(),
        "no value past its hard limit is served"
    );
}

#[test]
fn a_write_that_waited_loses_to_a_later_write_of_another_process() {
    let fleet = Fleet::new();
    let (a, b) = (fleet.process(), fleet.process());
    a.chaos.disconnect();
    a.cache.insert(1, 100);
    a.cache.insert(2, 101);
    failed(&a, 2);
    fleet.clock.advance(Duration::from_secs(2));
    block_on(b.cache.insert_everywhere(1, 200)).unwrap();
    a.chaos.reconnect();
    flush(&fleet, &a);
    assert_eq!((b.get(1), b.get(2)), (200, 101));
    assert_eq!((a.get(1), a.get(2)), (200, 101));
    assert_eq!((a.stats().superseded, fleet.origin.loads()), (1, 0));
}

#[test]
fn the_caller_of_a_write_learns_that_a_later_write_is_stored() {
    let fleet = Fleet::new();
    let (a, b) = (fleet.process(), fleet.process());
    a.chaos.next(Op::Set, Fault::Hold);
    std::thread::scope(|scope| {
        let write = scope.spawn(|| a.cache.insert_everywhere_blocking(1, 100));
        a.chaos.wait_for_calls(Op::Set, 1);
        fleet.clock.advance(Duration::from_millis(2));
        b.cache.insert_everywhere_blocking(1, 200).unwrap();
        a.chaos.let_go();
        let error = write.join().unwrap().unwrap_err();
        assert_eq!(error.class(), ErrorClass::Superseded);
    });
    assert_eq!((a.get(1), b.get(1)), (200, 200));
    // The next write of this process is later than what it has read.
    a.cache.insert_everywhere_blocking(1, 300).unwrap();
    until("the other has the value", || b.get(1) == 300);
}

#[test]
fn an_invalidation_that_waited_does_not_remove_a_later_write() {
    let fleet = Fleet::new();
    let (a, b) = (fleet.process(), fleet.process());
    a.chaos.disconnect();
    a.cache.invalidate(&1);
    a.cache.invalidate(&2);
    failed(&a, 2);
    fleet.clock.advance(Duration::from_secs(2));
    block_on(b.cache.insert_everywhere(1, 200)).unwrap();
    assert_eq!(b.get(2), 0);
    b.published(1);
    a.chaos.reconnect();
    flush(&fleet, &a);
    assert_eq!((a.get(1), b.get(1)), (200, 200));
    // The other value may have been loaded before the invalidation.
    until("the loaded value is removed", || b.cache.peek(&2).is_none());
}

#[test]
fn a_write_that_is_repeated_after_a_lost_answer_is_not_superseded_by_itself() {
    let fleet = Fleet::new();
    let (a, b) = (fleet.process(), fleet.process());
    let lost = || Fault::Lose(ErrorClass::TimedOut);
    a.chaos.next(Op::Set, lost());
    assert!(a.cache.insert_everywhere_blocking(1, 100).is_err());
    fleet.clock.advance(Duration::from_secs(2));
    flush(&fleet, &a);
    assert_eq!((a.get(1), b.get(1), a.stats().superseded), (100, 100, 0));
    // Nor is a later write of this process superseded by it.
    a.chaos.next(Op::Set, lost());
    assert!(a.cache.insert_everywhere_blocking(1, 101).is_err());
    a.cache.invalidate(&1);
    flush(&fleet, &a);
    assert_eq!((b.get(1), a.stats().superseded), (0, 0));
}

/// A refresh that finds nothing ends after another process wrote the key, of which this process
/// hears or does not.
fn nothing_is_found_after_a_write(hears: bool) {
    let fleet = Fleet::new();
    let b = fleet.process();
    let chaos = Arc::new(ChaosStore::new(fleet.memory.clone()));
    let level = SecondLevel::new(chaos.clone(), "test:v1").unwrap();
    let (gate, loads) = (Gate::default(), Arc::new(AtomicU64::new(0)));
    let (passed, counted) = (gate.clone(), loads.clone());
    let a: Cache<u64, u64> = Cache::builder()
        .clock(&fleet.clock)
        .fresh_for(FRESH)
        .stale_for(STALE)
        .threads(1)
        .store(level)
        .compute(move |_: &u64| {
            counted.fetch_add(1, Ordering::SeqCst);
            passed.pass();
            None::<u64>
        })
        .build()
        .unwrap();
    b.get(1);
    b.published(1);
    assert_eq!(*a.get_blocking(&1).unwrap(), 0);
    fleet.clock.advance(FRESH);
    gate.shut();
    assert_eq!(*a.get_blocking(&1).unwrap(), 0);
    until("the refresh runs", || loads.load(Ordering::SeqCst) == 1);
    chaos.lose_changes(!hears);
    b.cache.insert_everywhere_blocking(1, 555).unwrap();
    gate.open();
    until("the answer is refused", || {
        assert_eq!(*fleet.process().cache.get_blocking(&1).unwrap(), 555);
        a.store_stats().unwrap().refused == 1
    });
    assert_eq!((b.get(1), fleet.origin.loads()), (555, 1));
    until("this process reads it too", || {
        a.get_blocking(&1).is_ok_and(|value| *value == 555)
    });
}

#[test]
fn a_load_that_finds_nothing_does_not_remove_a_later_write() {
    nothing_is_found_after_a_write(true);
    nothing_is_found_after_a_write(false);
}
