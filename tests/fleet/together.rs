//! Requests to the store are batched.

use everfresh::store::Op;
use futures_lite::future::block_on;

use crate::support::{Fleet, until};

#[test]
fn many_keys_are_read_in_one_request() {
    let fleet = Fleet::new();
    let (a, b) = (fleet.process(), fleet.process());
    for key in 0..64 {
        a.get(key);
    }
    a.published(64);
    let keys: Vec<u64> = (0..64).collect();
    let answers = block_on(b.cache.get_many(&keys));
    let values: Vec<u64> = answers.into_iter().map(|answer| *answer.unwrap()).collect();
    let expected: Vec<u64> = keys.iter().map(|key| a.get(*key)).collect();
    assert_eq!(values, expected);
    assert_eq!(b.chaos.calls(Op::Read), 1);
    assert_eq!(b.chaos.calls(Op::Acquire), 0);
    assert_eq!(fleet.origin.loads(), 64);
}

#[test]
fn stored_and_missing_keys_are_answered_in_order() {
    let fleet = Fleet::new();
    let a = fleet.process();
    a.cache.insert(2, 20);
    a.cache.insert(4, 40);
    until("all writes are flushed", || a.stats().pending == 0);
    let answers = block_on(a.cache.get_many(&[2, 3, 4]));
    let values: Vec<u64> = answers.into_iter().map(|answer| *answer.unwrap()).collect();
    assert_eq!(values, [20, 0, 40]);
}
