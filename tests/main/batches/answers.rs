//! What one key's answer means, and whose failure it is.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use everfresh::{Cache, Loaded, ManualClock};
use futures_lite::future::block_on;

use super::Origin;
use crate::support::*;

#[test]
fn a_key_without_an_answer_is_not_found_and_the_first_of_two_counts() {
    let clock = ManualClock::new();
    let cache: Cache<u64, u64> = builder(&clock)
        .compute_many(|_: &[u64]| vec![(9, 90), (3, 30), (1, 10), (3, 31)])
        .build()
        .unwrap();
    let answers = cache.get_many_blocking(&[1, 2, 3]);
    assert_eq!(**answers[0].as_ref().unwrap(), 10);
    assert!(answers[1].as_ref().is_err_and(|error| error.is_not_found()));
    assert_eq!(**answers[2].as_ref().unwrap(), 30);
    // The key that was not asked for is ignored.
    assert!(cache.peek(&9).is_none());
    assert_eq!(cache.len(), 2);
}

#[test]
fn answers_come_in_any_order_and_with_times_of_their_own() {
    let clock = ManualClock::new();
    let cache: Cache<u64, u64> = builder(&clock)
        .compute_many(|keys: &[u64]| {
            let own = |key: &u64| (*key, Loaded::new(*key).fresh_for(secs(*key)));
            keys.iter().rev().map(own).collect::<Vec<_>>()
        })
        .build()
        .unwrap();
    let keys: Vec<u64> = (1..=100).collect();
    for (key, answer) in keys.iter().zip(cache.get_many_blocking(&keys)) {
        let answer = answer.unwrap();
        assert_eq!((*answer, answer.fresh_remaining()), (*key, secs(*key)));
    }
}

#[test]
fn a_map_with_options_is_an_answer() {
    let clock = ManualClock::new();
    let cache: Cache<u64, u64> = builder(&clock)
        .compute_many(|keys: &[u64]| {
            let answer = |key: &u64| (*key, (*key < 2).then_some(*key));
            keys.iter().map(answer).collect::<HashMap<_, _>>()
        })
        .build()
        .unwrap();
    let answers = cache.get_many_blocking(&[1, 2]);
    assert!(answers[0].is_ok());
    assert!(answers[1].as_ref().is_err_and(|error| error.is_not_found()));
}

#[test]
fn one_keys_failure_is_its_own() {
    let clock = ManualClock::new();
    let cache: Cache<u64, u64> = builder(&clock)
        .compute_many(|keys: &[u64]| {
            let answer = |key: &u64| match key {
                7 => (*key, "seven".parse::<u64>()),
                _ => (*key, Ok(*key)),
            };
            keys.iter().map(answer).collect::<Vec<_>>()
        })
        .build()
        .unwrap();
    let keys: Vec<u64> = (0..100).collect();
    let answers = cache.get_many_blocking(&keys);
    for (key, answer) in keys.iter().zip(&answers) {
        assert_eq!(answer.is_ok(), *key != 7, "{key}");
    }
    let error = answers[7].as_ref().unwrap_err();
    assert!(error.downcast_ref::<std::num::ParseIntError>().is_some());
    until("all are counted", || cache.stats().published == 99);
    let stats = cache.stats();
    assert_eq!((stats.loads, stats.failed), (100, 1));
    // It rests, and the others do not.
    assert!(cache.get_blocking(&7).unwrap_err().is_load_failure());
    assert_eq!(cache.stats().batches, 1);
}

#[test]
fn the_failure_of_the_call_is_everybodys() {
    let clock = ManualClock::new();
    let origin = Origin::new();
    let cache = origin.cache(builder(&clock));
    origin.calls.fail_next(1);
    let answers = cache.get_many_blocking(&[1, 2]);
    assert!(
        answers
            .iter()
            .all(|answer| answer.as_ref().is_err_and(|e| e.is_load_failure()))
    );
    clock.advance(secs(60));
    origin.calls.panic_next(1);
    let answers = cache.get_many_blocking(&[1, 2]);
    assert!(
        answers
            .iter()
            .all(|answer| answer.as_ref().is_err_and(|e| e.is_panic()))
    );
    clock.advance(secs(60));
    assert!(cache.get_many_blocking(&[1, 2]).iter().all(Result::is_ok));
}

/// A key that panics where it is told to.
#[derive(Debug)]
struct Poisoned {
    number: u64,
    poison: Arc<Poison>,
}

#[derive(Debug, Default)]
struct Poison {
    eq: AtomicBool,
    clone: AtomicBool,
    hash: AtomicBool,
}

fn is_set(flag: &AtomicBool) -> bool {
    flag.load(Ordering::SeqCst)
}

impl PartialEq for Poisoned {
    fn eq(&self, other: &Self) -> bool {
        assert!(
            !is_set(&self.poison.eq) && !is_set(&other.poison.eq),
            "poisoned"
        );
        self.number == other.number
    }
}

impl Eq for Poisoned {}

impl Hash for Poisoned {
    fn hash<H: Hasher>(&self, state: &mut H) {
        assert!(!is_set(&self.poison.hash), "poisoned");
        self.number.hash(state);
    }
}

impl Clone for Poisoned {
    fn clone(&self) -> Self {
        assert!(!is_set(&self.poison.clone), "poisoned");
        Poisoned {
            number: self.number,
            poison: self.poison.clone(),
        }
    }
}

fn poisoned_key_fails_alone(
    poison: impl Fn(&Poison) -> &AtomicBool + Send + Sync + Copy + 'static,
) {
    let clock = ManualClock::new();
    let key = |number: u64| Poisoned {
        number,
        poison: Arc::default(),
    };
    let keys: Vec<Poisoned> = (0..10).map(key).collect();
    let poisoned = keys[4].poison.clone();
    let cache: Cache<Poisoned, u64> = Cache::builder()
        .clock(&clock)
        .compute_many(move |keys: &[Poisoned]| {
            // In another order, so that the answers are looked up.
            let answers: Vec<_> = keys
                .iter()
                .rev()
                .map(|key| (key.clone(), key.number))
                .collect();
            poison(&poisoned).store(true, Ordering::SeqCst);
            answers
        })
        .build()
        .unwrap();
    let poison_of_four = keys[4].poison.clone();
    let answers = block_on(cache.get_many(&keys));
    poison(&poison_of_four).store(false, Ordering::SeqCst);
    for (number, answer) in answers.iter().enumerate() {
        match number {
            4 => assert!(
                answer.as_ref().is_err_and(|error| error.is_panic()),
                "{answer:?}"
            ),
            _ => assert!(answer.is_ok(), "{number}: {answer:?}"),
        }
    }
}

#[test]
fn a_key_whose_eq_panics_fails_alone() {
    poisoned_key_fails_alone(|poison| &poison.eq);
}

#[test]
fn a_key_whose_clone_panics_fails_alone() {
    poisoned_key_fails_alone(|poison| &poison.clone);
}

#[test]
fn a_key_whose_hash_panics_fails_alone() {
    poisoned_key_fails_alone(|poison| &poison.hash);
}
