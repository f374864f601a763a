//! The shapes of a loader, and what each may return.

use std::convert::Infallible;
use std::future::ready;
use std::num::ParseIntError;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use everfresh::{Builder, Cache, Freshness, Loaded, Loader, ManualClock, Request};
use futures_lite::future::block_on;

use crate::support::{NANO, builder, secs};

struct Rig {
    /// The method that gave the loader.
    method: &'static str,
    cache: Cache<u64, u64>,
    clock: ManualClock,
}

type Unloaded = Builder<u64, u64>;

fn rig(method: &'static str, give: impl FnOnce(Unloaded) -> Unloaded) -> Rig {
    let clock = ManualClock::new();
    let mut builder = builder(&clock);
    if !method.contains("compute") {
        builder = builder.spawner(block_on);
    }
    let cache = give(builder).build().unwrap();
    Rig {
        method,
        cache,
        clock,
    }
}

type Make<L> = fn(&u64) -> L;

/// A loader that may fail, with the error for the keys above 9.
struct Made<L>(Make<L>);

fn checked<L>(key: &u64, make: Make<L>) -> Result<L, ParseIntError> {
    match key {
        0..10 => Ok(make(key)),
        _ => Err("ten".parse::<u64>().unwrap_err()),
    }
}

impl<L: Into<Loaded<u64>> + 'static> Loader<u64, u64> for Made<L> {
    type Value = L;
    type Error = ParseIntError;

    async fn load(&self, request: &Request<u64, u64>) -> Result<L, ParseIntError> {
        checked(request.key(), self.0)
    }
}

/// One cache for each method that takes a loader which always succeeds.
fn infallible<L: Into<Loaded<u64>> + Send + 'static>(make: Make<L>) -> [Rig; 3] {
    [
        rig("compute", |new| new.compute(make)),
        rig("load", |new| new.load(move |key: &u64| ready(make(key)))),
        rig("load_on", |new| {
            new.load_on(make, async |make: &Make<L>, key: &u64| make(key))
        }),
    ]
}

/// One cache for each method that takes a loader which may fail.
fn fallible<L: Into<Loaded<u64>> + Send + 'static>(make: Make<L>) -> [Rig; 5] {
    [
        rig("try_compute", |new| {
            new.try_compute(move |key: &u64| checked(key, make))
        }),
        rig("compute_with", |new| {
            new.compute_with(move |request: &Request<u64, u64>| checked(request.key(), make))
        }),
        rig("try_load", |new| {
            new.try_load(move |key: &u64| ready(checked(key, make)))
        }),
        rig("try_load_on", |new| {
            new.try_load_on(make, async |make: &Make<L>, key: &u64| checked(key, *make))
        }),
        rig("loader", |new| new.loader(Made(make))),
    ]
}

fn all<L: Into<Loaded<u64>> + Send + 'static>(make: Make<L>) -> impl Iterator<Item = Rig> {
    infallible(make).into_iter().chain(fallible(make))
}

#[test]
fn every_loader_may_return_a_plain_value() {
    for Rig { method, cache, .. } in all(|key| key * 2) {
        assert_eq!(*cache.get_blocking(&4).unwrap(), 8, "{method}");
    }
}

#[test]
fn every_loader_may_return_an_option_whose_none_is_not_found() {
    for Rig { method, cache, .. } in all(|key| key.checked_sub(5)) {
        assert_eq!(*cache.get_blocking(&7).unwrap(), 2, "{method}");
        let error = cache.get_blocking(&4).unwrap_err();
        assert!(error.is_not_found(), "{method}: {error}");
    }
}

#[test]
fn every_loader_may_return_times_of_its_own() {
    for rig in all(|key| Loaded::new(*key).fresh_for(secs(3))) {
        let read = || rig.cache.get_blocking(&4).unwrap().freshness();
        read();
        rig.clock.advance(secs(3) - NANO);
        assert_eq!(read(), Freshness::Fresh, "{}", rig.method);
        rig.clock.advance(NANO);
        assert!(read().is_stale(), "{}", rig.method);
    }
}

#[test]
fn every_loader_that_may_fail_gives_its_error_to_the_callers() {
    for Rig { method, cache, .. } in fallible(|key| *key) {
        let error = cache.get_blocking(&10).unwrap_err();
        assert!(error.is_load_failure(), "{method}");
        assert!(error.downcast_ref::<ParseIntError>().is_some(), "{method}");
    }
}

#[test]
fn a_value_that_is_an_option_itself_is_a_value() {
    let cache = Cache::<u64, Option<u64>>::builder()
        .compute(|key: &u64| key.checked_sub(5))
        .build()
        .unwrap();
    assert_eq!(*cache.get_blocking(&4).unwrap(), None);
}

/// Some state that cannot be cloned, and how often it was used.
struct Origin(Arc<AtomicU64>);

impl Origin {
    async fn find(&self, key: u64) -> u64 {
        key + self.0.fetch_add(1, Ordering::Relaxed)
    }
}

#[test]
fn the_state_of_a_loader_is_lent_to_each_call_and_dropped_with_the_cache() {
    let calls: [Arc<AtomicU64>; 2] = Default::default();
    let [first, second] = calls.clone().map(Origin);
    let always = rig("load_on", |new| {
        new.load_on(first, async |origin: &Origin, key: &u64| {
            origin.find(*key).await
        })
    });
    let perhaps = rig("try_load_on", |new| {
        new.try_load_on((second, 10), async |state: &(Origin, u64), key: &u64| {
            let (origin, most) = state;
            let found = origin.find(*key).await;
            Ok::<_, Infallible>((found < *most).then_some(found))
        })
    });
    for Rig { method, cache, .. } in [always, perhaps] {
        assert_eq!(*cache.get_blocking(&5).unwrap(), 5, "{method}");
        assert_eq!(*cache.get_blocking(&6).unwrap(), 7, "{method}");
    }
    assert!(calls.iter().all(|calls| Arc::strong_count(calls) == 1));
}

struct Next;

impl Loader<u64, u64> for Next {
    type Value = Loaded<u64>;
    type Error = Infallible;

    async fn load(&self, request: &Request<u64, u64>) -> Result<Loaded<u64>, Infallible> {
        // Borrowed over a pause, as an async function may.
        let (key, previous) = (request.key(), request.previous());
        futures_lite::future::yield_now().await;
        Ok(previous.map_or(*key, |before| before + 1).into())
    }
}

#[test]
fn a_loader_sees_the_value_that_it_replaces() {
    let Rig { cache, .. } = rig("loader", |new| new.loader(Next));
    assert_eq!(*cache.get_blocking(&5).unwrap(), 5);
    assert_eq!(*block_on(cache.refresh(&5)).unwrap(), 6);
    assert_eq!(*block_on(cache.refresh(&5)).unwrap(), 7);
}
