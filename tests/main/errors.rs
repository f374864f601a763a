//! Errors: one predicate each, a text that says what to do, and the loader's own error inside.

use std::error::Error as StdError;
use std::time::Duration;

use everfresh::{BuildError, Builder, Cache, Error, ManualClock, ToldToFail};

use crate::support::gates::End;
use crate::support::*;

type Predicate = (&'static str, fn(&Error) -> bool);

const PREDICATES: [Predicate; 6] = [
    ("load_failure", Error::is_load_failure),
    ("panic", Error::is_panic),
    ("timeout", Error::is_timeout),
    ("overloaded", Error::is_overloaded),
    ("recursive", Error::is_recursive),
    ("cancelled", Error::is_cancelled),
];

fn kind(error: &Error) -> &'static str {
    let kinds: Vec<_> = PREDICATES
        .iter()
        .filter(|(_, holds)| holds(error))
        .collect();
    assert_eq!(kinds.len(), 1, "exactly one predicate holds for {error:?}");
    kinds[0].0
}

/// The error that a caller gets if the load ends so.
fn failed(end: impl FnOnce(&ManualClock, &Tasks, &Gates<u64>)) -> Error {
    let clock = ManualClock::new();
    let (cache, tasks, gates) = by_hand(builder(&clock).load_timeout(secs(5)));
    let mut read = get(&cache, 1);
    assert!(is_pending(&mut read));
    tasks.poll_all();
    end(&clock, &tasks, &gates);
    tasks.poll_all();
    ready(read).unwrap_err()
}

#[test]
fn a_failure_carries_the_loaders_own_error() {
    let error = failed(|_, _, gates| gates.end(0, End::Fail));
    assert_eq!(kind(&error), "load_failure");
    assert_eq!(
        error.to_string(),
        "the loader failed: the counting loader was told to fail"
    );
    assert_eq!(error.downcast_ref(), Some(&ToldToFail));
    assert!(error.downcast_ref::<std::fmt::Error>().is_none());
    assert_eq!(
        error.source().unwrap().downcast_ref::<ToldToFail>(),
        Some(&ToldToFail)
    );
    assert_eq!(format!("{error:?}"), "Failed(ToldToFail)");
    assert_eq!(error.clone().to_string(), error.to_string());
}

#[test]
fn a_source_may_have_a_source() {
    #[derive(Debug)]
    struct Outer(std::num::ParseIntError);
    impl std::fmt::Display for Outer {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("outer")
        }
    }
    impl StdError for Outer {
        fn source(&self) -> Option<&(dyn StdError + 'static)> {
            Some(&self.0)
        }
    }
    let cache: Cache<String, u64> = Cache::builder()
        .try_compute(|text: &String| text.parse().map_err(Outer))
        .build()
        .unwrap();
    let error = cache.get_blocking("x").unwrap_err();
    let (mut chain, mut next) = (Vec::new(), Some(&error as &dyn StdError));
    while let Some(error) = next {
        chain.push(error.to_string());
        next = error.source();
    }
    assert_eq!(
        chain,
        [
            "the loader failed: outer",
            "outer",
            "invalid digit found in string"
        ]
    );
}

#[test]
fn a_string_is_an_error_too() {
    let cache: Cache<u64, u64> = Cache::builder()
        .try_compute(|_: &u64| Err("out of paper"))
        .build()
        .unwrap();
    let error = cache.get_blocking(&1).unwrap_err();
    assert_eq!(error.to_string(), "the loader failed: out of paper");
}

#[test]
fn a_panic_carries_its_text() {
    let error = failed(|_, _, gates| gates.end(0, End::Panic));
    assert_eq!(kind(&error), "panic");
    assert_eq!(
        error.to_string(),
        "the loader panicked: the gate was told to panic"
    );
    assert!(error.source().is_none());
    type Panics = fn() -> u64;
    let texts: [(Panics, &str); 2] = [
        (|| panic!("number {}", 7), "number 7"),
        (|| std::panic::panic_any(7), "a payload that is not text"),
    ];
    for (panics, text) in texts {
        let cache: Cache<u64, u64> = Cache::builder()
            .compute(move |_: &u64| panics())
            .build()
            .unwrap();
        let error = cache.get_blocking(&1).unwrap_err();
        assert_eq!(error.to_string(), format!("the loader panicked: {text}"));
    }
}

#[test]
fn a_timeout_and_a_cancelled_load_say_so() {
    let error = failed(|clock, _, _| clock.advance(secs(5)));
    assert_eq!(kind(&error), "timeout");
    assert_eq!(
        error.to_string(),
        "the load did not finish within 5s; the next caller starts another"
    );
    assert_eq!(format!("{error:?}"), "TimedOut(5s)");
    let error = failed(|_, tasks, _| assert!(tasks.abort(0)));
    assert_eq!(kind(&error), "cancelled");
    assert!(error.to_string().contains("dropped before it finished"));
    assert_eq!(format!("{error:?}"), "Cancelled");
}

#[test]
fn recursion_and_overload_have_predicates_of_their_own() {
    let handle: std::sync::Arc<std::sync::OnceLock<Cache<u64, u64>>> = Default::default();
    let inside = handle.clone();
    let cache: Cache<u64, u64> = Cache::builder()
        .try_compute(move |key: &u64| inside.get().unwrap().get_blocking(key).map(|read| *read))
        .build()
        .unwrap();
    handle.set(cache.clone()).unwrap();
    let error = cache.get_blocking(&1).unwrap_err();
    assert_eq!(kind(&error), "load_failure");
    let inner = error.downcast_ref::<Error>().unwrap();
    assert_eq!(kind(inner), "recursive");
    assert!(inner.to_string().contains("waits for itself"));

    let loader = gates::numbering();
    let clock = ManualClock::new();
    let cache = computing(builder(&clock).threads(1).queue(1), &loader);
    loader.hold();
    let mut reads = [get(&cache, 1), get(&cache, 2)];
    assert!(is_pending(&mut reads[0]));
    loader.wait_for_calls(1);
    assert!(is_pending(&mut reads[1]));
    let error = ready(get(&cache, 3)).unwrap_err();
    assert_eq!(kind(&error), "overloaded");
    assert!(error.to_string().contains("raise the queue's bound"));
    loader.release();
    loader.wait_until_idle();
}

type Settings = fn(Builder<u64, u64>) -> Builder<u64, u64>;

#[test]
fn every_bad_setting_is_refused_by_name() {
    let zero = Duration::ZERO;
    assert!(zero.is_zero());
    let bad: [(&str, Settings); 15] = [
        ("`capacity`", |builder| builder.capacity(0)),
        ("`capacity`", |builder| builder.capacity((1 << 32) + 1)),
        ("`capacity`", |builder| builder.capacity(usize::MAX)),
        ("`fresh_for`", |builder| builder.fresh_for(Duration::ZERO)),
        ("`stale_if_error_for`", |builder| {
            builder.stale_for(secs(2)).stale_if_error_for(secs(1))
        }),
        ("`load_timeout`", |builder| {
            builder.load_timeout(Duration::ZERO)
        }),
        ("`backoff`", |builder| {
            builder.backoff(Duration::ZERO, secs(1))
        }),
        ("`backoff`", |builder| builder.backoff(secs(2), secs(1))),
        ("`beta`", |builder| builder.beta(-0.1)),
        ("`beta`", |builder| builder.beta(f64::NAN)),
        ("`beta`", |builder| builder.beta(f64::INFINITY)),
        ("`jitter`", |builder| builder.jitter(1.1)),
        ("`jitter`", |builder| builder.jitter(f64::NAN)),
        ("`threads`", |builder| builder.threads(0)),
        ("`queue`", |builder| builder.queue(0)),
    ];
    for (name, setting) in bad {
        let error = setting(Cache::builder().compute(|key: &u64| *key))
            .build()
            .unwrap_err();
        assert!(error.to_string().starts_with(name), "{error}");
        assert!(error.source().is_none());
    }
}

#[test]
fn a_cache_without_a_loader_or_without_a_runtime_is_refused() {
    let error: BuildError = Cache::<u64, u64>::builder().build().unwrap_err();
    assert!(error.to_string().contains("there is no loader"), "{error}");
    let error = Cache::<u64, u64>::builder()
        .load(async |key: &u64| *key)
        .build()
        .unwrap_err();
    assert!(error.to_string().contains("needs a runtime"), "{error}");
}

#[test]
fn good_settings_at_their_ends_are_accepted() {
    let good: [Settings; 9] = [
        |builder| builder.capacity(1),
        |builder| builder.fresh_for(NANO),
        |builder| builder.fresh_for(Duration::MAX).stale_for(Duration::MAX),
        |builder| builder.stale_for(Duration::ZERO),
        |builder| builder.stale_for(secs(2)).stale_if_error_for(secs(2)),
        |builder| builder.load_timeout(Duration::MAX),
        |builder| builder.backoff(NANO, NANO),
        |builder| builder.beta(0.0).jitter(0.0),
        |builder| builder.jitter(1.0).threads(1).queue(1),
    ];
    for (number, setting) in good.into_iter().enumerate() {
        let clock = ManualClock::new();
        let cache = setting(Cache::builder().threads(1).clock(&clock))
            .compute(|key: &u64| *key)
            .build()
            .unwrap();
        assert_eq!(*cache.get_blocking(&1).unwrap(), 1, "setting {number}");
    }
}
