//! The cache survives its store (P7).

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Waker};
use std::time::Duration;

use everfresh::SecondLevel;
use everfresh::store::{
    ChaosStore, Codec, ErrorClass, Fault, Format, Namespace, Op, PayloadError, Postcard, Rejected,
};
use everfresh::{Breaker, Cache, Source};
use futures_lite::future::block_on;

use crate::support::{FRESH, Fleet, Gate, until};

#[test]
fn without_a_store_every_process_loads_its_values() {
    let fleet = Fleet::new();
    let (a, b) = (fleet.process(), fleet.process());
    a.chaos.disconnect();
    b.chaos.disconnect();
    assert_eq!((a.get(1), b.get(1)), (0, 1));
    assert_eq!(a.stats().unleased, 1);
    fleet.clock.advance(FRESH);
    assert_eq!(a.get(1), 0, "the stale value is served");
    until("the value is refreshed", || a.get(1) > 1);
}

#[test]
fn a_store_that_does_not_answer_blocks_no_read_of_a_resident_key() {
    let fleet = Fleet::new();
    let a = fleet.process();
    a.get(1);
    a.published(1);
    for op in [Op::Read, Op::Acquire, Op::Publish] {
        a.chaos.always(op, Some(Fault::Hang));
    }
    fleet.clock.advance(FRESH);
    for _ in 0..100 {
        assert_eq!(a.get(1), 0);
    }
    a.chaos.always(Op::Acquire, None);
    a.chaos.always(Op::Publish, None);
    a.chaos.let_go();
}

#[test]
fn an_unreadable_payload_is_loaded_again_and_replaced() {
    let fleet = Fleet::new();
    let a = fleet.process();
    a.get(1);
    a.published(1);
    let b = fleet.process();
    b.chaos.next(Op::Read, Fault::Corrupt);
    b.chaos.next(Op::Acquire, Fault::Corrupt);
    assert_eq!(b.get(1), 1);
    let broken = PayloadError::ALL
        .iter()
        .map(|reason| b.stats().payload_errors(*reason));
    assert!(broken.sum::<u64>() > 0);
    b.published(1);
    assert_eq!(fleet.process().get(1), 1);
}

#[test]
fn a_result_that_cannot_be_stored_is_still_served() {
    let fleet = Fleet::new();
    let a = fleet.process();
    a.chaos.next(Op::Publish, Fault::Fail(ErrorClass::Refused));
    assert_eq!(a.get(1), 0);
    until("the failure is counted", || a.stats().not_stored == 1);
    assert_eq!(a.get(1), 0);
}

#[test]
fn a_load_that_a_breaker_refuses_ends_its_lease_at_once() {
    let fleet = Fleet::new();
    let level = SecondLevel::new(fleet.memory.clone(), "test:v1").unwrap();
    let broken: Cache<u64, u64> = Cache::builder()
        .clock(&fleet.clock)
        .threads(1)
        .breaker(Breaker::new().of_last(1))
        .store(level.lease(Duration::from_secs(3)))
        .try_compute(|_: &u64| Err::<u64, _>("the origin is down"))
        .build()
        .unwrap();
    assert!(broken.get_blocking(&1).unwrap_err().is_load_failure());
    assert!(broken.get_blocking(&2).unwrap_err().is_unavailable());
    assert_eq!(broken.store_stats().unwrap().leases_granted, 2);
    // No time passes, so no lease ends by itself.
    assert_eq!(fleet.process().get(2), 0);
}

/// A codec whose `encode` panics and whose `decode` fails.
struct Broken;

impl Codec<u64> for Broken {
    fn id(&self) -> u8 {
        99
    }

    fn encode(&self, _: &u64, _: &mut Vec<u8>) -> Result<(), Rejected> {
        panic!("a codec may panic")
    }

    fn decode(&self, _: &[u8]) -> Result<u64, Rejected> {
        Err("never".into())
    }
}

#[test]
fn codecs_that_fail_disable_only_the_second_level() {
    let fleet = Fleet::new();
    let build = |level| {
        let cache: Cache<u64, u64> = Cache::builder()
            .store(level)
            .compute(|n: &u64| n * n)
            .build()
            .unwrap();
        cache
    };
    let namespace = Namespace::new("broken:v1").unwrap();
    let memory = Arc::clone(&fleet.memory);
    let keys = build(SecondLevel::with(
        memory,
        namespace.clone(),
        Format::new(Postcard),
        Broken,
    ));
    assert_eq!(*keys.get_blocking(&5).unwrap(), 25);
    keys.insert(5, 1);
    assert_eq!(*keys.get_blocking(&5).unwrap(), 1);
    assert!(keys.invalidate(&5));
    let memory = Arc::clone(&fleet.memory);
    let values = build(SecondLevel::with(
        memory,
        namespace,
        Format::new(Broken),
        Postcard,
    ));
    assert_eq!(*values.get_blocking(&5).unwrap(), 25);
    block_on(values.insert_everywhere(5, 1)).unwrap();
    assert_eq!(*values.get_blocking(&5).unwrap(), 1);
    until("both failures are counted", || {
        let stats = values.store_stats().unwrap();
        stats.payload_errors(PayloadError::Panicked) == 2
    });
}

#[test]
fn missed_changes_are_found_after_the_gap() {
    let fleet = Fleet::new();
    let (a, b) = (fleet.process(), fleet.process());
    for key in 0..3 {
        a.get(key);
    }
    a.published(3);
    for key in 0..3 {
        b.get(key);
    }
    b.chaos.lose_changes(true);
    block_on(a.cache.insert_everywhere(0, 700)).unwrap();
    block_on(a.cache.invalidate_everywhere(&1)).unwrap();
    assert_eq!(
        (b.get(0), b.get(1)),
        (0, 1),
        "the process does not know of the changes"
    );
    b.chaos.lose_changes(false);
    b.chaos.disconnect();
    b.chaos.reconnect();
    until("key 0 is overwritten", || b.get(0) == 700);
    until("key 1 is invalidated", || b.get(1) == 3);
    assert_eq!(b.get(2), 2);
    assert_eq!(fleet.origin.loads(), 4);
}

#[test]
fn a_failed_comparison_after_a_gap_is_repeated() {
    let fleet = Fleet::new();
    let (a, b) = (fleet.process(), fleet.process());
    a.get(1);
    a.published(1);
    b.get(1);
    b.chaos.disconnect();
    block_on(a.cache.invalidate_everywhere(&1)).unwrap();
    let class = ErrorClass::Unavailable;
    b.chaos.next(Op::Read, Fault::Fail(class));
    b.chaos.next(Op::Read, Fault::Fail(class));
    b.chaos.reconnect();
    until("key 1 is invalidated", || {
        fleet.clock.advance(Duration::from_millis(1));
        b.get(1) == 1
    });
    assert_eq!(fleet.origin.loads(), 2);
}

/// There are more invalidations than threads of the pool, and these threads are busy.
#[test]
fn every_missed_invalidation_is_found_however_busy_the_loader_is() {
    let fleet = Fleet::new();
    let (a, b) = (fleet.process(), fleet.process());
    for key in 0..20 {
        assert_eq!(a.get(key), key);
    }
    a.published(20);
    for key in 0..20 {
        b.get(key);
    }
    b.chaos.disconnect();
    for key in 0..20 {
        block_on(a.cache.invalidate_everywhere(&key)).unwrap();
    }
    fleet.origin.gate.shut();
    b.chaos.reconnect();
    until("both threads are busy", || fleet.origin.loads() == 22);
    fleet.origin.gate.open();
    for key in 0..20 {
        until("the key is invalidated", || b.get(key) >= 20);
    }
}

#[test]
fn a_payload_in_transit_while_its_key_is_invalidated_is_not_installed() {
    let fleet = Fleet::new();
    let (a, b) = (fleet.process(), fleet.process());
    a.get(1);
    a.published(1);
    // Known to b before, so that b tracks the key.
    b.get(1);
    block_on(b.cache.refresh(&1)).unwrap();
    b.published(1);
    let before = b.get(1);
    b.chaos.next(Op::Read, Fault::Hold);
    b.cache.invalidate(&1);
    until("all writes are flushed", || b.stats().pending == 0);
    b.cache.insert(1, 42);
    until("all writes are flushed", || b.stats().pending == 0);
    assert_ne!(b.get(1), before);
    b.chaos.let_go();
    assert_eq!(b.get(1), 42);
}

/// P5: of the keys in one batch, only the key whose value makes the weigher panic fails.
#[test]
fn a_panic_for_one_key_does_not_affect_the_others() {
    let fleet = Fleet::new();
    let stored = fleet.process();
    for key in 0..10 {
        stored.cache.insert(key, 100 + key);
    }
    until("all writes are flushed", || stored.stats().pending == 0);
    let level = SecondLevel::new(fleet.memory.clone(), "test:v1").unwrap();
    let cache: Cache<u64, u64> = Cache::builder()
        .clock(&fleet.clock)
        .max_weight(1_000, |key: &u64, _: &u64| match *key {
            3 => panic!("this key cannot be weighed"),
            _ => 1,
        })
        .store(level)
        .compute(|_: &u64| -> u64 { unreachable!("all keys are stored") })
        .build()
        .unwrap();
    let keys: Vec<u64> = (0..10).collect();
    let answers = block_on(cache.get_many(&keys));
    for (key, answer) in keys.iter().zip(answers) {
        match key {
            3 => assert!(answer.unwrap_err().is_panic()),
            key => assert_eq!(*answer.unwrap(), 100 + key),
        }
    }
    // A later key works too.
    stored.cache.insert(11, 111);
    until("the write is flushed", || stored.stats().pending == 0);
    assert_eq!(*cache.get_blocking(&11).unwrap(), 111);
}

#[test]
fn an_early_refresh_shed_after_the_reply_of_the_store_does_not_keep_callers_from_loading() {
    let fleet = Fleet::new();
    let chaos = Arc::new(ChaosStore::new(fleet.memory.clone()));
    let level = SecondLevel::new(chaos.clone(), "test:v1").unwrap();
    let (gate, moved, loads) = (
        Gate::default(),
        fleet.clock.clone(),
        Arc::new(AtomicU64::new(0)),
    );
    let (passed, counted) = (gate.clone(), loads.clone());
    let cache: Cache<u64, u64> = Cache::builder()
        .clock(&fleet.clock)
        .fresh_for(FRESH)
        .stale_for(Duration::ZERO)
        // Every read in the second half of the fresh time refreshes early.
        .beta(1e9)
        .threads(1)
        .store(level)
        .compute(move |key: &u64| {
            if counted.fetch_add(1, Ordering::SeqCst) == 0 {
                moved.advance(Duration::from_secs(1));
            }
            passed.pass();
            *key
        })
        .build()
        .unwrap();
    assert_eq!(*cache.get_blocking(&1).unwrap(), 1);
    // Otherwise the clock moves past the end of the lease, and the store refuses the result.
    let published = || cache.store_stats().unwrap().published == 1;
    until("the result is stored", published);
    // The only worker is busy. The refresh waits for the store until the value has expired. Then
    // the pool has no room for an early refresh.
    gate.shut();
    let mut context = Context::from_waker(Waker::noop());
    let mut busy = Box::pin(cache.get(&2));
    assert!(busy.as_mut().poll(&mut context).is_pending());
    until("the worker is busy", || loads.load(Ordering::SeqCst) == 2);
    fleet.clock.advance(FRESH - Duration::from_secs(1));
    let asked = chaos.calls(Op::Acquire);
    chaos.next(Op::Acquire, Fault::Hold);
    assert_eq!(cache.get_blocking(&1).unwrap().source(), Source::Early);
    chaos.wait_for_calls(Op::Acquire, asked + 1);
    fleet.clock.advance(Duration::from_secs(2));
    let mut late = Box::pin(cache.get(&1));
    assert!(late.as_mut().poll(&mut context).is_pending());
    chaos.let_go();
    until("the refresh is shed", || cache.stats().shed_early == 1);
    gate.open();
    assert_eq!(*block_on(late).unwrap(), 1);
    assert_eq!(*block_on(busy).unwrap(), 2);
}
