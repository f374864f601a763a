//! Groups in a fleet: what was loaded before an invalidation of its group is not served after it,
//! in whichever process, by whatever way (P4).

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use everfresh::store::{ChaosStore, ErrorClass, Fault, MemoryStore, Op, Store};
use everfresh::{Cache, Loaded, SecondLevel};
use futures_lite::future::block_on;

use crate::support::{Fleet, Process, STALE, name, until};

const TICK: Duration = Duration::from_millis(20);

/// A process whose keys are in the group of their tens.
fn process(fleet: &Fleet) -> Process {
    fleet.process_where(|builder, load| {
        builder
            .group_by(|key| [key / 10])
            .try_compute(move |_: &u64| load())
    })
}

/// A process whose loader tells the group.
fn told(fleet: &Fleet) -> Process {
    fleet.process_where(|builder, load| {
        builder.try_compute(move |key: &u64| {
            let loaded = load()?.map_or_else(Loaded::not_found, Loaded::new);
            Ok::<_, &str>(loaded.group(key / 10))
        })
    })
}

fn invalidate(process: &Process, group: u64) {
    process
        .cache
        .invalidate_group_everywhere_blocking(group)
        .unwrap();
}

/// Lets the time pass until this holds.
fn soon(fleet: &Fleet, what: &str, mut holds: impl FnMut() -> bool) {
    until(what, || {
        fleet.clock.advance(TICK);
        holds()
    });
}

fn never_stale() -> Fleet {
    Fleet {
        fresh: Duration::MAX,
        ..Fleet::new()
    }
}

#[test]
fn a_resident_value_leaves_every_process() {
    let fleet = Fleet::new();
    let (a, b) = (process(&fleet), process(&fleet));
    assert_eq!((a.get(1), a.get(11)), (0, 1));
    a.published(2);
    assert_eq!((b.get(1), b.get(11)), (0, 1));
    invalidate(&b, 0);
    assert!(a.cache.peek(&1).is_none() && b.cache.peek(&1).is_none());
    assert_eq!(a.get(1), 2);
    a.published(3);
    assert_eq!(b.get(1), 2, "it is shared again");
    assert_eq!((a.get(11), b.get(11), fleet.origin.loads()), (1, 1, 3));
}

#[test]
fn a_stored_value_is_not_served_to_a_process_that_knew_nothing_of_it() {
    let fleet = Fleet::new();
    let a = process(&fleet);
    assert_eq!(a.get(1), 0);
    a.published(1);
    let b = process(&fleet);
    invalidate(&b, 0);
    let late = process(&fleet);
    assert_eq!(late.get(1), 1);
    late.published(1);
    assert_eq!(b.get(1), 1);
}

#[test]
fn a_load_of_another_process_is_not_shared_after_the_invalidation() {
    let fleet = Fleet::new();
    let (a, b) = (process(&fleet), process(&fleet));
    fleet.origin.gate.shut();
    thread::scope(|scope| {
        let waits = scope.spawn(|| a.get(1));
        until("the loader runs", || fleet.origin.loads() == 1);
        invalidate(&b, 0);
        let comes_later = scope.spawn(|| b.get(1));
        fleet.origin.gate.open();
        assert_eq!(waits.join().unwrap(), 0, "it waited before");
        assert_ne!(comes_later.join().unwrap(), 0);
    });
    assert_ne!(a.get(1), 0);
}

#[test]
fn a_result_that_is_stored_late_is_not_read() {
    let fleet = Fleet::new();
    let (a, b) = (process(&fleet), process(&fleet));
    a.chaos.next(Op::Publish, Fault::Hold);
    assert_eq!(a.get(1), 0);
    a.chaos.wait_for_calls(Op::Publish, 1);
    invalidate(&b, 0);
    a.chaos.let_go();
    a.published(1);
    assert_eq!(b.get(1), 1);
    assert_eq!(a.get(1), 1);
}

#[test]
fn a_payload_that_was_read_before_the_invalidation_is_not_installed_after_it() {
    let fleet = Fleet::new();
    let (a, b) = (process(&fleet), process(&fleet));
    assert_eq!((a.get(1), b.get(2)), (0, 1));
    a.published(1);
    b.published(1);
    b.chaos.next(Op::Read, Fault::HoldAnswer);
    thread::scope(|scope| {
        let reads = b.chaos.calls(Op::Read);
        let reader = scope.spawn(|| b.get(1));
        b.chaos.wait_for_calls(Op::Read, reads + 1);
        invalidate(&a, 0);
        b.chaos.let_go();
        assert_eq!(reader.join().unwrap(), 2);
    });
}

#[test]
fn no_older_payload_is_read_while_the_invalidation_waits() {
    let fleet = never_stale();
    let (a, b) = (process(&fleet), process(&fleet));
    assert_eq!(b.get(1), 0);
    b.published(1);
    let fails = Fault::Fail(ErrorClass::Unavailable);
    a.chaos.always(Op::Set, Some(fails));
    let error = a.cache.invalidate_group_everywhere_blocking(0);
    assert_eq!(error.unwrap_err().class(), ErrorClass::Unavailable);
    assert_eq!((a.get(1), a.stats().pending), (1, 1));
    assert_eq!(b.get(1), 0, "it is not told yet");
    a.chaos.always(Op::Set, None);
    soon(&fleet, "the store knows", || a.stats().pending == 0);
    // First here, because the value of the other process is taken over as soon as it is told.
    assert_eq!((a.get(1), b.get(1)), (1, 2));
}

#[test]
fn an_invalidation_during_an_outage_is_told_after_it() {
    let fleet = never_stale();
    let (a, b) = (process(&fleet), process(&fleet));
    assert_eq!((a.get(1), b.get(2)), (0, 1));
    a.published(1);
    b.published(1);
    a.chaos.disconnect();
    a.cache.invalidate_group(0);
    assert_eq!(a.get(1), 2, "loaded without the store");
    assert_eq!(b.get(1), 0);
    a.chaos.reconnect();
    soon(&fleet, "the store knows", || a.stats().pending == 0);
    assert_ne!(b.get(1), 0);
    assert_ne!(b.get(2), 1);
    assert_ne!(process(&fleet).get(1), 0);
}

#[test]
fn a_message_that_was_missed_is_found_after_the_gap() {
    let fleet = never_stale();
    let (a, b) = (process(&fleet), process(&fleet));
    assert_eq!(a.get(1), 0);
    a.published(1);
    assert_eq!(b.get(1), 0);
    b.chaos.disconnect();
    invalidate(&a, 0);
    assert_eq!(b.get(1), 0, "it is not told");
    b.chaos.reconnect();
    soon(&fleet, "the value is loaded anew", || b.get(1) != 0);
}

#[test]
fn a_value_loaded_during_an_outage_is_not_kept_after_a_missed_invalidation() {
    for process in [process, told] {
        let fleet = never_stale();
        let (a, b) = (process(&fleet), process(&fleet));
        b.chaos.disconnect();
        assert_eq!(b.get(1), 0);
        invalidate(&a, 0);
        b.chaos.reconnect();
        soon(&fleet, "the value is loaded anew", || b.get(1) != 0);
    }
}

#[test]
fn a_load_that_outlasts_an_outage_is_not_kept_after_a_missed_invalidation() {
    for process in [process, told] {
        let fleet = never_stale();
        let (a, b) = (process(&fleet), process(&fleet));
        b.chaos.disconnect();
        fleet.origin.gate.shut();
        thread::scope(|scope| {
            let waits = scope.spawn(|| b.get(1));
            until("the loader runs", || fleet.origin.loads() == 1);
            invalidate(&a, 0);
            b.chaos.reconnect();
            fleet.origin.gate.open();
            waits.join().unwrap();
        });
        assert_ne!(b.get(1), 0);
    }
}

#[test]
fn a_store_that_lost_the_invalidation_serves_no_older_payload() {
    let fleet = never_stale();
    let a = process(&fleet);
    assert_eq!(a.get(1), 0);
    a.published(1);
    let read = block_on(fleet.memory.read(&[name(1)]));
    let old = read.into_iter().next().unwrap().unwrap().unwrap();
    invalidate(&a, 0);
    fleet.memory.flush();
    fleet.memory.plant(&name(1), old);
    assert_ne!(process(&fleet).get(1), 0);
    a.chaos.disconnect();
    a.chaos.begin_history();
    a.chaos.reconnect();
    assert_ne!(a.get(1), 0);
}

#[test]
fn a_payload_with_a_later_epoch_from_before_a_clock_was_set_back_is_not_read() {
    let fleet = never_stale();
    let a = process(&fleet);
    fleet.memory.set_clock_ahead(STALE);
    assert_eq!(a.get(1), 0);
    a.published(1);
    fleet.memory.set_clock_back(STALE);
    invalidate(&a, 0);
    let late = process(&fleet);
    assert_eq!(late.get(1), 1);
    late.published(1);
    assert_eq!(a.get(1), 1);
}

#[test]
fn a_payload_that_overtakes_its_message_is_read() {
    let fleet = Fleet::new();
    let (a, b) = (process(&fleet), process(&fleet));
    assert_eq!((a.get(1), b.get(2)), (0, 1));
    b.published(1);
    b.chaos.hold_changes();
    invalidate(&a, 0);
    assert_eq!(a.get(1), 2);
    a.published(2);
    assert_eq!(b.get(1), 2, "the cell is compared");
    b.chaos.let_changes_go();
    assert_ne!(b.get(2), 1);
    assert_eq!(b.get(1), 2);
}

#[test]
fn groups_that_the_loader_tells_are_shared_from_the_second_load_on() {
    let fleet = Fleet::new();
    let (a, b) = (told(&fleet), told(&fleet));
    assert_eq!(a.get(1), 0);
    until("the first result is not shared", || {
        a.stats().not_stored == 1
    });
    soon(&fleet, "a later one is", || {
        a.get(2);
        a.cache.invalidate(&2);
        a.stats().published > 0
    });
    a.cache.invalidate_everywhere_blocking(&2).unwrap();
    let loads = fleet.origin.loads();
    let value = a.get(2);
    let stored = a.stats().published;
    a.published(stored.max(2));
    assert_eq!((b.get(2), fleet.origin.loads()), (value, loads + 1));
    invalidate(&b, 0);
    assert!(a.cache.peek(&1).is_none());
    assert!(a.get(2) > value && b.get(2) > value);
}

#[test]
fn an_answer_not_found_is_forgotten_with_its_group() {
    let fleet = Fleet::new();
    let (a, b) = (process(&fleet), process(&fleet));
    fleet.origin.empty(true);
    assert!(a.cache.get_blocking(&1).unwrap_err().is_not_found());
    a.published(1);
    assert!(b.cache.get_blocking(&1).unwrap_err().is_not_found());
    assert_eq!(fleet.origin.loads(), 1);
    fleet.origin.empty(false);
    invalidate(&b, 0);
    assert_eq!((a.get(1), process(&fleet).get(2)), (1, 2));
    a.published(2);
    assert_eq!(b.get(1), 1);
}

#[test]
fn a_set_is_shared_and_leaves_with_its_group() {
    let fleet = Fleet::new();
    let (a, b) = (process(&fleet), process(&fleet));
    // So that the cell is known.
    assert_eq!(a.get(2), 0);
    a.cache.insert_everywhere_blocking(1, 100).unwrap();
    assert_eq!(b.get(1), 100);
    invalidate(&b, 0);
    assert_eq!((a.get(1), fleet.origin.loads()), (1, 2));
    a.cache.invalidate_group(0);
    a.cache.insert_everywhere_blocking(1, 200).unwrap();
    assert_eq!(a.get(1), 200);
    invalidate(&b, 0);
    a.cache.insert_everywhere_blocking(1, 300).unwrap();
    assert_eq!((a.get(1), b.get(1)), (300, 300));
}

#[test]
fn a_set_that_waited_leaves_with_its_group() {
    let fleet = Fleet::new();
    let (a, b) = (process(&fleet), process(&fleet));
    assert_eq!(a.get(2), 0);
    a.chaos
        .always(Op::Set, Some(Fault::Fail(ErrorClass::Unavailable)));
    a.cache.insert(1, 100);
    invalidate(&b, 0);
    a.chaos.always(Op::Set, None);
    soon(&fleet, "the set is flushed", || a.stats().pending == 0);
    assert!(b.get(1) < 100 && a.get(1) < 100);
}

#[test]
fn an_invalidation_that_a_close_gives_up_is_counted() {
    let fleet = Fleet::new();
    let (a, b) = (process(&fleet), process(&fleet));
    assert_eq!((a.get(1), b.get(11)), (0, 1));
    a.chaos.disconnect();
    a.cache.invalidate_group(0);
    a.cache.invalidate_group(0);
    a.cache.invalidate_group(1);
    assert_eq!(a.stats().pending, 2, "one write for each cell");
    let left = thread::scope(|scope| {
        let close = scope.spawn(|| a.cache.close_blocking());
        until("the close has ended", || {
            fleet.clock.advance(TICK);
            close.is_finished()
        });
        close.join().unwrap()
    });
    assert_eq!(left.unwrap_err().left().writes, 2);
    a.cache.invalidate_group_everywhere_blocking(1).unwrap_err();
}

#[test]
fn a_cache_without_groups_asks_for_no_cell() {
    let fleet = Fleet::new();
    let (plain, grouped) = (fleet.process(), process(&fleet));
    assert_eq!((plain.get(1), plain.chaos.calls(Op::Read)), (0, 1));
    plain.published(1);
    // Of the key, of its cell, and of the cell that was then made.
    assert_eq!((grouped.get(11), grouped.chaos.calls(Op::Read)), (1, 3));
    // The cell is known.
    assert_eq!((grouped.get(12), grouped.chaos.calls(Op::Read)), (2, 4));
    assert_eq!(grouped.get(1), 3, "a payload without the group of its key");
}

#[test]
fn a_store_that_tells_no_changes_of_others_is_asked_each_time() {
    let fleet = Fleet::new();
    let (a, b) = (process(&fleet), process(&fleet));
    b.chaos.lose_changes(true);
    assert_eq!((a.get(1), b.get(2)), (0, 1));
    a.published(1);
    assert_eq!(b.get(1), 0, "the payload is valid");
    b.cache.invalidate(&1);
    invalidate(&a, 0);
    soon(&fleet, "the flush", || b.stats().pending == 0);
    let loads = fleet.origin.loads();
    assert!(b.get(1) >= loads);
    assert_ne!(b.get(2), 1, "the comparison found it");
}

#[test]
fn the_cell_of_a_group_is_written_once_by_a_fleet() {
    let memory: Arc<MemoryStore> = Arc::new(MemoryStore::new());
    let caches: Vec<Cache<u64, u64>> = (0..4)
        .map(|_| {
            let store: Arc<dyn Store> = memory.clone();
            let store = Arc::new(ChaosStore::new(store));
            let level = SecondLevel::<u64, u64>::new(store, "test:v2").unwrap();
            let builder = Cache::builder().group_by(|_| [7]).store(level);
            builder.compute(|n: &u64| n * n).build().unwrap()
        })
        .collect();
    thread::scope(|scope| {
        for (number, cache) in caches.iter().enumerate() {
            scope.spawn(move || cache.get_blocking(&(number as u64)).unwrap());
        }
    });
    // The four values and the cell.
    until("all are stored", || memory.len() == 5);
}

/// A value that is kept fresh hears of the invalidation by itself.
#[test]
fn a_value_that_is_kept_fresh_is_loaded_again_without_readers() {
    let clock = everfresh::ManualClock::new();
    let store = Arc::new(MemoryStore::with_clock(&clock));
    let [a, b] = [(); 2].map(|()| {
        let loads = std::sync::atomic::AtomicU64::new(0);
        everfresh::Fresh::builder()
            .clock(&clock)
            .fresh_for(Duration::MAX)
            .group_by(|()| [7])
            .store(SecondLevel::new(store.clone(), "test:kept").unwrap())
            .compute(move |()| loads.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
            .build_fresh()
            .unwrap()
    });
    a.keep_fresh();
    until("it is loaded", || a.peek().is_some());
    let first = *a.peek().unwrap();
    b.cache().invalidate_group_everywhere_blocking(7).unwrap();
    // The time stands still, so no alarm rings.
    until("it is loaded again", || {
        a.peek().is_some_and(|value| *value > first)
    });
}
