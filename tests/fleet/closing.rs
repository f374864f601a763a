//! The clean end of a process: what is under way reaches the store, and no lease stays behind.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use everfresh::store::{ErrorClass, Fault, Op, Store};
use everfresh::{Cache, CloseError, SecondLevel};
use futures_lite::future::{block_on, poll_once};

use crate::support::{FRESH, Fleet, Process, STALE, name, until};

/// The default of `close_timeout`.
const LIMIT: Duration = Duration::from_secs(5);

type Closing = JoinHandle<Result<(), CloseError>>;

/// Begins to close a cache, and waits for the end on a thread.
fn closing(process: &Process) -> Closing {
    let cache = process.cache.clone();
    let mut closing = Box::pin(async move { cache.close().await });
    let mut context = Context::from_waker(Waker::noop());
    match closing.as_mut().poll(&mut context) {
        Poll::Ready(closed) => thread::spawn(move || closed),
        Poll::Pending => thread::spawn(move || block_on(closing)),
    }
}

/// Lets the limit of a close pass.
fn passes(fleet: &Fleet, closing: Closing) -> Result<(), CloseError> {
    // It waits already. The last answers of the store have their time.
    fleet.clock.advance(LIMIT);
    closing.join().unwrap()
}

/// Begins a load that stops at the gate.
fn load(fleet: &Fleet, process: &Process, key: u64) -> JoinHandle<Option<u64>> {
    let (cache, loads) = (process.cache.clone(), fleet.origin.loads());
    fleet.origin.gate.shut();
    let load = thread::spawn(move || cache.get_blocking(&key).ok().map(|value| *value));
    until("the load runs", || fleet.origin.loads() > loads);
    load
}

#[test]
fn the_result_of_a_load_under_way_is_in_the_store_after_a_close() {
    let fleet = Fleet::new();
    let (a, b) = (fleet.process(), fleet.process());
    let load = load(&fleet, &a, 1);
    let closing = closing(&a);
    assert!(!closing.is_finished());
    fleet.origin.gate.open();
    assert_eq!(closing.join().unwrap(), Ok(()));
    assert_eq!(fleet.memory.len(), 1);
    assert_eq!(fleet.memory.lease_left(&name(1)), None);
    assert_eq!((b.get(1), fleet.origin.loads()), (0, 1));
    assert_eq!(load.join().unwrap(), Some(0));
}

#[test]
fn a_result_on_its_way_is_in_the_store_after_a_close() {
    let fleet = Fleet::new();
    for key in 0..200 {
        let a = fleet.process();
        assert_eq!(a.get(key), key);
        a.cache.close_blocking().unwrap();
        assert_eq!(fleet.memory.len() as u64, key + 1);
        assert_eq!(fleet.memory.lease_left(&name(key)), None);
    }
}

#[test]
fn a_load_past_the_limit_gives_its_lease_back() {
    let fleet = Fleet::new();
    let a = fleet.process();
    let load = load(&fleet, &a, 1);
    assert!(fleet.memory.lease_left(&name(1)).is_some());
    let error = passes(&fleet, closing(&a)).unwrap_err();
    assert_eq!(error.left().loads, 1);
    assert_eq!((error.left().results, error.left().leases), (0, 0));
    assert!(error.to_string().contains("1 loads did not end"), "{error}");
    assert_eq!(fleet.memory.lease_left(&name(1)), None);
    // The next process takes the key at once.
    let next = fleet.beside().process();
    assert_eq!(next.get(1), 0);
    // The late result stays where it was made.
    fleet.origin.gate.open();
    assert_eq!(load.join().unwrap(), Some(0));
    assert_eq!(a.get(1), 0);
}

#[test]
fn dropping_the_last_handle_gives_the_leases_back() {
    let fleet = Fleet::new();
    let a = fleet.process();
    a.get(1);
    a.published(1);
    fleet.clock.advance(FRESH);
    fleet.origin.gate.shut();
    a.get(1);
    until("the refresh runs", || fleet.origin.loads() == 2);
    assert!(fleet.memory.lease_left(&name(1)).is_some());
    drop(a);
    // No time passes.
    until("the lease is given back", || {
        fleet.memory.lease_left(&name(1)).is_none()
    });
    fleet.origin.gate.open();
}

#[test]
fn a_closed_cache_serves_what_it_has_and_loads_nothing() {
    let fleet = Fleet::new();
    let (a, b) = (fleet.process(), fleet.process());
    a.get(1);
    a.cache.close_blocking().unwrap();
    assert_eq!(a.get(1), 0);
    fleet.clock.advance(FRESH);
    let stale = a.cache.get_blocking(&1).unwrap();
    assert!(stale.freshness().is_stale());
    for error in [
        a.cache.get_blocking(&2).unwrap_err(),
        block_on(a.cache.get(&2)).unwrap_err(),
        block_on(a.cache.get_many(&[2])).remove(0).unwrap_err(),
        a.cache.refresh_blocking(&1).unwrap_err(),
        a.cache.refresh_from_now_blocking(&2).unwrap_err(),
        a.cache.refresh_if_blocking(&stale).unwrap_err(),
    ] {
        assert!(error.is_closed(), "{error}");
    }
    assert_eq!(a.get(1), 0, "a refused refresh changes nothing");
    fleet.clock.advance(STALE);
    assert!(a.cache.get_blocking(&1).unwrap_err().is_closed());
    assert_eq!(fleet.origin.loads(), 1);

    // Writes are local.
    a.cache.insert(1, 100);
    assert_eq!(a.get(1), 100);
    let error = block_on(a.cache.insert_everywhere(2, 200)).unwrap_err();
    assert_eq!(error.class(), ErrorClass::Closed);
    assert_eq!(a.get(2), 200);
    let error = block_on(a.cache.invalidate_everywhere(&1)).unwrap_err();
    assert_eq!(error.class(), ErrorClass::Closed);
    assert!(a.cache.peek(&1).is_none());
    a.cache.invalidate_all();
    assert!(a.cache.is_empty());
    assert_eq!(fleet.memory.len(), 1, "the store has what it had");
    assert_eq!(b.cache.store_stats().unwrap().notifications, 1);
}

#[test]
fn pending_writes_are_tried_again_by_a_close() {
    let fleet = Fleet::new();
    let (a, b) = (fleet.process(), fleet.process());
    a.chaos.disconnect();
    for key in 0..10 {
        a.cache.insert(key, 100 + key);
    }
    until("the attempts have failed", || a.stats().retried >= 10);
    a.chaos.reconnect();
    a.cache.close_blocking().unwrap();
    let read = |key| b.get(key);
    assert_eq!((0..10).map(read).sum::<u64>(), 1_045);
    assert_eq!(fleet.origin.loads(), 0);
}

#[test]
fn writes_that_the_store_does_not_take_are_counted() {
    let fleet = Fleet::new();
    let a = fleet.process();
    a.chaos.disconnect();
    let waits = {
        let cache = a.cache.clone();
        thread::spawn(move || block_on(cache.insert_everywhere(0, 100)))
    };
    for key in 1..200 {
        a.cache.insert(key, 100);
    }
    assert!(waits.join().unwrap().is_err());
    let error = passes(&fleet, closing(&a)).unwrap_err();
    assert_eq!(error.left().writes, 200);
    assert_eq!((error.left().loads, error.left().leases), (0, 0));
    assert_eq!(a.get(0), 100, "they stay in this process");
    assert_eq!(a.cache.close_blocking(), Err(error), "as the first close");
}

#[test]
fn a_result_that_the_store_does_not_take_is_counted() {
    let fleet = Fleet::new();
    let a = fleet.process();
    let load = load(&fleet, &a, 1);
    let closing = closing(&a);
    a.chaos.disconnect();
    fleet.origin.gate.open();
    load.join().unwrap();
    until("the result is on its way", || {
        a.chaos.calls(Op::Publish) == 1
    });
    let error = passes(&fleet, closing).unwrap_err();
    let left = error.left();
    assert_eq!((left.loads, left.results, left.leases), (0, 1, 0));
}

#[test]
fn the_store_is_given_back_and_other_caches_go_on() {
    let fleet = Fleet::new();
    let (a, b) = (fleet.process(), fleet.process());
    let shared: Arc<dyn Store> = a.chaos.clone();
    let beside: Cache<u64, u64> = Cache::builder()
        .clock(&fleet.clock)
        .store(SecondLevel::new(a.chaos.clone(), "beside:v1").unwrap())
        .compute(|n: &u64| n * n)
        .build()
        .unwrap();
    a.get(1);
    let users = Arc::strong_count(&shared);
    a.cache.close_blocking().unwrap();
    assert_eq!(Arc::strong_count(&shared), users - 1, "at once");
    assert_eq!(*beside.get_blocking(&3).unwrap(), 9);
    until("the value is published", || {
        beside.store_stats().unwrap().published == 1
    });
    assert_eq!(b.get(1), 0);
    let stats = a.stats();
    assert_eq!(stats.published, 1, "the counts stay");
    assert!(!stats.state.is_up());
}

#[test]
fn all_callers_of_a_close_get_its_end() {
    let fleet = Fleet::new();
    let a = fleet.process();
    let load = load(&fleet, &a, 1);
    let all: Vec<_> = (0..4).map(|_| closing(&a)).collect();
    fleet.origin.gate.open();
    for closing in all {
        assert_eq!(closing.join().unwrap(), Ok(()));
        assert_eq!(fleet.memory.len(), 1);
    }
    load.join().unwrap();
    assert_eq!(block_on(a.cache.close()), Ok(()));
}

#[test]
fn a_close_that_is_dropped_has_begun_and_another_one_ends_it() {
    let fleet = Fleet::new();
    let a = fleet.process();
    let load = load(&fleet, &a, 1);
    {
        let mut dropped = pin!(a.cache.close());
        let mut context = Context::from_waker(Waker::noop());
        assert!(dropped.as_mut().poll(&mut context) == Poll::Pending);
    }
    assert!(a.cache.get_blocking(&2).unwrap_err().is_closed());
    fleet.origin.gate.open();
    assert_eq!(load.join().unwrap(), Some(0));
    assert_eq!(a.cache.close_blocking(), Ok(()));
    assert_eq!(fleet.memory.len(), 1);
}

#[test]
fn a_job_that_waits_for_another_process_ends_at_the_limit() {
    let fleet = Fleet::new();
    let (a, b) = (fleet.process(), fleet.process());
    let load = load(&fleet, &b, 1);
    let waits = {
        let cache = a.cache.clone();
        thread::spawn(move || cache.get_blocking(&1))
    };
    until("it waits for the lease", || a.stats().leases_denied == 1);
    let closing = closing(&a);
    for second in 1..=LIMIT.as_secs() {
        assert!(!closing.is_finished());
        fleet.clock.advance(Duration::from_secs(1));
        until("the other process renews its lease", || {
            b.stats().leases_renewed >= second
        });
    }
    assert_eq!(
        closing.join().unwrap(),
        Ok(()),
        "no load of its own is left"
    );
    assert!(waits.join().unwrap().unwrap_err().is_closed());
    assert_eq!(fleet.origin.loads(), 1);
    fleet.origin.gate.open();
    load.join().unwrap();
}

#[test]
fn a_close_does_not_depend_on_the_task_of_a_reader() {
    let fleet = Fleet::new();
    let a = fleet.process();
    a.chaos.always(Op::Read, Some(Fault::Hold));
    // None of these is polled a second time before the close has ended.
    let mut one = pin!(a.cache.get(&1));
    let mut many = pin!(a.cache.get_many(&[2, 3]));
    let mut removed = pin!(a.cache.get_many(&[4]));
    assert!(block_on(poll_once(one.as_mut())).is_none());
    assert!(block_on(poll_once(many.as_mut())).is_none());
    assert!(block_on(poll_once(removed.as_mut())).is_none());
    a.cache.invalidate(&4);
    a.chaos.wait_for_calls(Op::Read, 3);
    a.chaos.let_go();
    let closing = closing(&a);
    until("the close ends", || closing.is_finished());
    assert_eq!(closing.join().unwrap(), Ok(()));
    assert!(block_on(one).is_ok());
    assert!(block_on(many).into_iter().all(|answer| answer.is_ok()));
}

#[test]
fn the_store_is_free_after_a_close_beside_a_reader_that_is_not_polled() {
    let fleet = Fleet::new();
    let a = fleet.process();
    let store: Arc<dyn Store> = a.chaos.clone();
    let users = Arc::strong_count(&store);
    a.chaos.always(Op::Read, Some(Fault::Hold));
    let mut reader = pin!(a.cache.get(&1));
    assert!(block_on(poll_once(reader.as_mut())).is_none());
    let closing = closing(&a);
    a.chaos.let_go();
    until("the close ends", || closing.is_finished());
    assert_eq!(closing.join().unwrap(), Ok(()));
    assert_eq!(Arc::strong_count(&store), users - 1);
}
