//! Code of the user that reads the cache while keys are added or published; and the settings.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use everfresh::{BuildError, Builder, Cache, ManualClock};

use super::Origin;
use crate::support::*;

#[test]
fn a_listener_may_read_a_key_that_its_caller_has_just_added() {
    let clock = ManualClock::new();
    let origin = Origin::new();
    let handle: Arc<OnceLock<Cache<u64, u64>>> = Arc::default();
    let inside = handle.clone();
    let builder = builder(&clock)
        .capacity(1)
        .load_timeout(secs(1_000))
        .batch(100, secs(500))
        .on_removal(move |_, _, _| {
            if let Some(cache) = inside.get() {
                // Added by the same thread a moment ago, which still holds the batch.
                let _ = cache.get_blocking(&1);
            }
        });
    let cache = origin.cache(builder);
    assert!(handle.set(cache.clone()).is_ok());
    cache.insert(7, 7);
    clock.advance(secs(31));
    let answers = cache.get_many_blocking(&[1, 7, 2]);
    assert!(answers.iter().all(Result::is_ok));
}

#[test]
fn a_weigher_that_reads_a_key_of_the_same_batch_gets_an_error() {
    let clock = ManualClock::new();
    let handle: Arc<OnceLock<Cache<u64, u64>>> = Arc::default();
    let inside = handle.clone();
    let cache: Cache<u64, u64> = builder(&clock)
        .max_weight(1_000, move |key, _| {
            match (key, inside.get()) {
                // The second key of the batch, which is published after the first.
                (1, Some(cache)) => u32::from(cache.get_blocking(&2).unwrap_err().is_recursive()),
                _ => 1,
            }
        })
        .compute_many(|keys: &[u64]| keys.iter().map(|key| (*key, *key)).collect::<Vec<_>>())
        .build()
        .unwrap();
    assert!(handle.set(cache.clone()).is_ok());
    assert!(cache.get_many_blocking(&[1, 2]).iter().all(Result::is_ok));
    assert_eq!(cache.weight(), 2);
}

fn refused(build: impl FnOnce(Builder<u64, u64>) -> Result<Cache<u64, u64>, BuildError>) -> String {
    build(Cache::builder()).unwrap_err().to_string()
}

fn many(builder: Builder<u64, u64>) -> Result<Cache<u64, u64>, BuildError> {
    builder
        .compute_many(|_: &[u64]| Vec::<(u64, u64)>::new())
        .build()
}

#[test]
fn settings_without_effect_are_refused() {
    let wait = Duration::from_millis(1);
    for keys in [0, 65_537] {
        let error = refused(|builder| many(builder.batch(keys, wait)));
        assert!(
            error.contains("`batch`") && error.contains("65 536 keys"),
            "{error}"
        );
    }
    let error = refused(|builder| many(builder.batch(1, Duration::ZERO)));
    assert!(
        error.contains("`batch`") && error.contains("above zero"),
        "{error}"
    );
    let error = refused(|builder| many(builder.load_timeout(wait).batch(1, wait)));
    assert!(
        error.contains("`batch`") && error.contains("`load_timeout`"),
        "{error}"
    );
    let error = refused(|builder| builder.batch(10, wait).compute(|n: &u64| *n).build());
    assert!(
        error.contains("`batch` is 10 keys") && error.contains("one key"),
        "{error}"
    );
    let error = refused(|builder| builder.batch(10, wait).load(async |n: &u64| *n).build());
    assert!(error.contains("`batch` is 10 keys"), "{error}");
    let error = refused(|builder| many(builder.run_on_caller(true)));
    assert!(error.contains("`run_on_caller`"), "{error}");
}

#[test]
fn one_key_is_a_batch_too() {
    let clock = ManualClock::new();
    let origin = Origin::new();
    let cache = origin.cache(builder(&clock).batch(1, secs(1)));
    assert!(
        cache
            .get_many_blocking(&[1, 2, 3])
            .iter()
            .all(Result::is_ok)
    );
    assert_eq!(cache.stats().batches, 3);
}
