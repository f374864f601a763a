//! Errors: a predicate for each kind, a text with advice, and the loader's error as source.

use std::error::Error as StdError;
use std::fmt;

use everfresh::{Cache, Error, InjectedFailure, ManualClock};

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

/// Returns the error that a caller gets when the load ends in this way.
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
fn a_failure_contains_the_error_of_the_loader() {
    let error = failed(|_, _, gates| gates.end(0, End::Fail));
    assert_eq!(kind(&error), "load_failure");
    assert_eq!(
        chain(&error),
        ["the loader failed", "the counting loader fails on request"]
    );
    assert_eq!(error.downcast_ref(), Some(&InjectedFailure));
    assert!(error.downcast_ref::<fmt::Error>().is_none());
    assert_eq!(
        error.source().unwrap().downcast_ref::<InjectedFailure>(),
        Some(&InjectedFailure)
    );
    assert_eq!(format!("{error:?}"), "Failed(InjectedFailure)");
    assert_eq!(error.clone().to_string(), error.to_string());
}

/// The texts that a program prints when it logs an error with its sources.
fn chain(error: &dyn StdError) -> Vec<String> {
    let errors = std::iter::successors(Some(error), |&error| error.source());
    errors.map(ToString::to_string).collect()
}

/// An error with its own text and a source.
#[derive(Debug)]
struct Context<E>(&'static str, E);

impl<E> fmt::Display for Context<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl<E: StdError + 'static> StdError for Context<E> {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&self.1)
    }
}

/// An error that hides another error, as `anyhow::Error` does when it is converted into a box.
#[derive(Debug)]
struct Hiding<E>(E);

impl<E: fmt::Display> fmt::Display for Hiding<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<E: StdError> StdError for Hiding<E> {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source()
    }
}

/// A cache whose loader fails with this error.
fn failing<E: StdError + Send + Sync + 'static>(
    error: impl Fn(&u64) -> E + Send + Sync + 'static,
) -> Cache<u64, u64> {
    Cache::builder()
        .threads(1)
        .try_compute(move |key: &u64| Err::<u64, _>(error(key)))
        .build()
        .unwrap()
}

#[test]
fn a_chain_of_sources_repeats_no_text_and_each_of_its_errors_is_found() {
    let not_a_number = || "x".parse::<u64>().unwrap_err();
    let cache = failing(move |_| Context("middle", Context("inner", not_a_number())));
    let error = cache.get_blocking(&1).unwrap_err();
    assert_eq!(
        chain(&error),
        [
            "the loader failed",
            "middle",
            "inner",
            "invalid digit found in string"
        ]
    );
    assert!(error.downcast_ref::<std::num::ParseIntError>().is_some());
    assert!(
        error
            .downcast_ref::<Context<std::num::ParseIntError>>()
            .is_some()
    );
    assert!(error.downcast_ref::<Error>().is_none());
    // An error that hides its source hides everything behind it.
    let cache = failing(move |_| Hiding(Context("hidden", not_a_number())));
    let error = cache.get_blocking(&1).unwrap_err();
    assert!(
        error
            .downcast_ref::<Context<std::num::ParseIntError>>()
            .is_none()
    );
    assert!(error.downcast_ref::<std::num::ParseIntError>().is_some());
}

#[test]
fn predicates_hold_for_the_error_of_a_read_that_a_loader_passes_on() {
    let below = failed(|_, _, gates| gates.end(0, End::Panic));
    let found = |error: &Error| {
        let kinds = PREDICATES.iter().filter(|(_, holds)| holds(error));
        kinds.map(|(name, _)| *name).collect::<Vec<_>>()
    };
    let passed_on: [Cache<u64, u64>; 3] = [
        failing({
            let below = below.clone();
            move |_| below.clone()
        }),
        failing({
            let below = below.clone();
            move |_| Context("reading the price", below.clone())
        }),
        failing({
            let cache = failing(move |_| below.clone());
            move |_| Hiding(Context("twice", cache.get_blocking(&1).unwrap_err()))
        }),
    ];
    for cache in passed_on {
        let error = cache.get_blocking(&1).unwrap_err();
        assert_eq!(found(&error), ["load_failure", "panic"]);
        assert!(error.downcast_ref::<Error>().is_some_and(Error::is_panic));
    }
}

#[test]
fn a_string_is_an_error_too() {
    let cache: Cache<u64, u64> = Cache::builder()
        .try_compute(|_: &u64| Err::<u64, _>("out of paper"))
        .build()
        .unwrap();
    let error = cache.get_blocking(&1).unwrap_err();
    assert_eq!(chain(&error), ["the loader failed", "out of paper"]);
}

#[test]
fn a_panic_contains_its_text() {
    let error = failed(|_, _, gates| gates.end(0, End::Panic));
    assert_eq!(kind(&error), "panic");
    assert_eq!(
        error.to_string(),
        "the loader panicked: the gate was set to panic"
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
fn a_timeout_and_a_cancelled_load_have_their_own_texts() {
    let error = failed(|clock, _, _| clock.advance(secs(5)));
    assert_eq!(kind(&error), "timeout");
    assert_eq!(
        error.to_string(),
        "the load did not finish within 5s; another may start after the backoff"
    );
    assert_eq!(format!("{error:?}"), "TimedOut(5s)");
    let error = failed(|_, tasks, _| assert!(tasks.abort(0)));
    assert_eq!(kind(&error), "cancelled");
    assert!(error.to_string().contains("dropped before it finished"));
    assert_eq!(format!("{error:?}"), "Cancelled");
}

#[test]
fn recursion_and_overload_have_their_own_predicates() {
    let handle: std::sync::Arc<std::sync::OnceLock<Cache<u64, u64>>> = Default::default();
    let inside = handle.clone();
    let cache: Cache<u64, u64> = Cache::builder()
        .try_compute(move |key: &u64| inside.get().unwrap().get_blocking(key).map(|read| *read))
        .build()
        .unwrap();
    handle.set(cache.clone()).unwrap();
    let error = cache.get_blocking(&1).unwrap_err();
    assert!(error.is_load_failure() && error.is_recursive());
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
    assert!(
        error
            .to_string()
            .contains("as many loads wait as `queue` allows")
    );
    loader.release();
    loader.wait_until_idle();
}
