//! A message of another process causes a read, and never a load.

use everfresh::store::{Fault, Op, PayloadError};
use futures_lite::future::block_on;

use crate::support::{FRESH, Fleet, Process, until};

fn unreadable(process: &Process) -> u64 {
    process.stats().payload_errors(PayloadError::Schema)
}

#[test]
fn two_processes_that_cannot_read_each_other_load_once_for_each_epoch_of_their_own() {
    const KEYS: u64 = 10;
    let fleet = Fleet::new();
    let (a, b) = (fleet.process_of_schema(1), fleet.process_of_schema(2));
    for key in 0..KEYS {
        assert_eq!(a.get(key), key);
    }
    a.published(KEYS);
    for key in 0..KEYS {
        assert_eq!(b.get(key), KEYS + key);
    }
    b.published(KEYS);
    until("the first has seen the other values", || {
        unreadable(&a) == KEYS
    });
    assert_eq!(fleet.origin.loads(), 2 * KEYS);
    for key in 0..KEYS {
        assert_eq!((a.get(key), b.get(key)), (key, KEYS + key));
    }
    // A reader of one process finds a stale value and refreshes it. The other process does nothing
    // but read.
    fleet.clock.advance(FRESH);
    for key in 0..KEYS {
        assert_eq!(a.get(key), key);
    }
    a.published(2 * KEYS);
    let seen_before_a_refresh = KEYS;
    until("the second has seen the other values", || {
        unreadable(&b) == seen_before_a_refresh + KEYS
    });
    assert_eq!(fleet.origin.loads(), 3 * KEYS);
    assert_eq!(
        (a.stats().leases_granted, b.stats().leases_granted),
        (20, 10)
    );
}

#[test]
fn an_unreadable_value_is_asked_for_once() {
    let fleet = Fleet::new();
    let (a, b) = (fleet.process_of_schema(1), fleet.process_of_schema(2));
    a.get(1);
    a.published(1);
    b.get(1);
    b.published(1);
    until("the first has seen the other value", || unreadable(&a) == 1);
    // Neither a gap nor a refresh asks for the same epoch again.
    let reads = a.chaos.calls(Op::Read);
    a.chaos.disconnect();
    a.chaos.reconnect();
    a.chaos.wait_for_calls(Op::Read, reads + 1);
    fleet.clock.advance(FRESH);
    let acquired = a.chaos.calls(Op::Acquire);
    a.get(1);
    a.published(2);
    assert_eq!(a.chaos.calls(Op::Acquire), acquired + 1);
    assert_eq!(unreadable(&a), 1);
}

#[test]
fn a_burst_of_messages_is_read_a_batch_at_a_time() {
    const KEYS: u64 = 200;
    let fleet = Fleet::new();
    let (a, b) = fleet.filled(KEYS);
    let reads = b.chaos.calls(Op::Read);
    b.chaos.next(Op::Read, Fault::Hold);
    for key in 0..KEYS {
        block_on(a.cache.refresh(&key)).unwrap();
    }
    a.published(2 * KEYS);
    until("all messages came", || b.stats().followed_changes == KEYS);
    assert_eq!(b.chaos.calls(Op::Read), reads + 1, "one request at a time");
    for key in 0..KEYS {
        assert_eq!(b.get(key), key, "the value at hand is served meanwhile");
    }
    b.chaos.let_go();
    for key in 0..KEYS {
        until("the newer value is there", || b.get(key) == KEYS + key);
    }
    assert!(b.chaos.calls(Op::Read) <= reads + 1 + (KEYS as usize).div_ceil(64));
    assert_eq!(b.chaos.calls(Op::Acquire), 0);
    assert_eq!(fleet.origin.loads(), 2 * KEYS);
}
