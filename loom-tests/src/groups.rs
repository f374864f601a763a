//! Models of groups: whole calls of the cache against the invalidation of a group.
//!
//! The origin is one number. A writer changes it, without any order of its own, and then
//! invalidates the group; from then on no call shows what the origin was before.

use std::future::Future;
use std::hash::BuildHasherDefault;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use everfresh::model::{Cell, Groups};
use everfresh::{BoxFuture, Cache, Cached, Error, Loaded, ManualClock};
use loom::sync::atomic::{AtomicU64, Ordering};
use loom::thread::spawn;

use crate::Threads::{Two, TwoBusy};
use crate::fixture::KEY;
use crate::run_model;
use crate::whole::{Fixed, Loads, on_a_large_stack, poll, run};

type Whole = Cache<u8, u64, BuildHasherDefault<Fixed>>;

const GROUP: u64 = 7;
/// The origin before and after the write.
const BEFORE: u64 = 1;
const AFTER: u64 = 2;
/// An origin that has no value.
const NOTHING: u64 = 0;

/// How the cache learns the group of a value.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Known {
    ByKey,
    /// Only when it is loaded.
    ByLoader,
}

struct Scene {
    cache: Whole,
    loads: Loads,
    clock: ManualClock,
    origin: Arc<AtomicU64>,
}

impl Scene {
    fn new(known: Known, origin: u64) -> Self {
        on_a_large_stack(move || Self::build(known, origin))
    }

    fn build(known: Known, origin: u64) -> Self {
        let origin = Arc::new(AtomicU64::new(origin));
        let (loads, clock) = (Loads::default(), ManualClock::new());
        let builder = Cache::builder()
            .capacity(1)
            .hasher(BuildHasherDefault::default())
            .clock(&clock)
            .fresh_for(Duration::from_secs(10))
            .stale_for(Duration::from_secs(10))
            .not_found_for(Duration::from_secs(1_000))
            .beta(0.0)
            .spawner(loads.spawner());
        let builder = match known {
            Known::ByKey => builder.group_by(|_| [GROUP]),
            Known::ByLoader => builder,
        };
        let read = async |origin: &Arc<AtomicU64>, _: &u8| match origin.load(Ordering::Relaxed) {
            NOTHING => Loaded::not_found(),
            value => Loaded::new(value).group(GROUP),
        };
        let cache = builder.load_on(origin.clone(), read).build().unwrap();
        // The first invalidation makes the cells.
        cache.invalidate_group(GROUP);
        Scene {
            cache,
            loads,
            clock,
            origin,
        }
    }

    /// Puts the value of the origin in, with its group.
    fn filled(known: Known) -> Self {
        let scene = Self::new(known, BEFORE);
        scene.cache.insert(KEY, Loaded::new(BEFORE).group(GROUP));
        scene
    }

    /// A load that has not begun.
    fn begun(&self) -> BoxFuture {
        assert!(poll(get(&self.cache).as_mut()).is_pending());
        self.loads.take()
    }

    /// The write of the origin, and the invalidation.
    fn write(&self) {
        self.origin.store(AFTER, Ordering::Relaxed);
        self.cache.invalidate_group(GROUP);
    }

    /// What a caller gets that comes now, once all loads have ended.
    fn finish(&self, mut caller: Reading<'_>, mut told: Poll<Option<u64>>) -> Option<u64> {
        while told.is_pending() {
            if self.loads.is_any() {
                run(self.loads.take());
            }
            told = answer(&mut caller);
        }
        match told {
            Poll::Ready(told) => told,
            Poll::Pending => unreachable!("it was ready"),
        }
    }
}

type Reading<'a> = Pin<Box<dyn Future<Output = Result<Cached<u8, u64>, Error>> + 'a>>;

fn get(cache: &Whole) -> Reading<'_> {
    Box::pin(cache.get(&KEY))
}

/// The answer of a caller: the value, or none.
fn answer(reading: &mut Reading<'_>) -> Poll<Option<u64>> {
    poll(reading.as_mut()).map(|read| match read {
        Ok(cached) => Some(*cached),
        Err(error) => {
            assert!(error.is_not_found());
            None
        }
    })
}

/// P4: a load that runs while its group is invalidated is not served to a caller that comes after.
fn a_load_against_an_invalidation(known: Known) {
    run_model(TwoBusy, move || {
        let scene = Scene::new(known, BEFORE);
        let load = scene.begun();
        let loader = spawn(move || run(load));
        scene.write();
        let mut caller = get(&scene.cache);
        let told = answer(&mut caller);
        loader.join().unwrap();
        let told = scene.finish(caller, told);
        assert_eq!(told, Some(AFTER), "an old value is served");
        let again = scene.cache.get_if_present(&KEY);
        assert!(
            again.is_none_or(|value| *value == AFTER),
            "an old value stays"
        );
    });
}

#[test]
fn load_against_an_invalidation_by_key() {
    a_load_against_an_invalidation(Known::ByKey);
}

#[test]
fn load_against_an_invalidation_by_loader() {
    a_load_against_an_invalidation(Known::ByLoader);
}

/// P4: so is an answer that there is no value, of a key whose groups are known.
#[test]
fn answer_against_an_invalidation() {
    run_model(TwoBusy, || {
        let scene = Scene::new(Known::ByKey, NOTHING);
        let load = scene.begun();
        let loader = spawn(move || run(load));
        scene.write();
        let mut caller = get(&scene.cache);
        let told = answer(&mut caller);
        loader.join().unwrap();
        let told = scene.finish(caller, told);
        assert_eq!(told, Some(AFTER), "an old answer counts");
    });
}

/// P4: a refresh that runs while the group is invalidated is discarded.
#[test]
fn refresh_against_an_invalidation() {
    run_model(TwoBusy, || {
        let scene = Scene::filled(Known::ByLoader);
        scene.clock.advance(Duration::from_secs(11));
        assert_eq!(answer(&mut get(&scene.cache)), Poll::Ready(Some(BEFORE)));
        let refresh = scene.loads.take();
        let refresher = spawn(move || run(refresh));
        scene.write();
        let mut caller = get(&scene.cache);
        let told = answer(&mut caller);
        refresher.join().unwrap();
        let told = scene.finish(caller, told);
        assert_eq!(told, Some(AFTER), "an old value is served");
    });
}

/// P4, P1: of two callers that find an outdated value, one begins the load, and none is served the
/// old value after the invalidation.
#[test]
fn callers_of_an_outdated_value() {
    run_model(TwoBusy, || {
        let scene = Arc::new(Scene::filled(Known::ByKey));
        scene.write();
        let other = spawn({
            let scene = scene.clone();
            move || answer(&mut get(&scene.cache)).is_pending()
        });
        let mut caller = get(&scene.cache);
        assert!(answer(&mut caller).is_pending(), "an old value is served");
        assert!(other.join().unwrap(), "an old value is served");
        assert_eq!(scene.loads.started(), 1, "two loads");
        assert_eq!(scene.finish(caller, Poll::Pending), Some(AFTER));
        assert_eq!(scene.cache.len(), 1);
    });
}

/// P4: a caller that removes an outdated value does not remove a value that was inserted meanwhile.
#[test]
fn removal_against_insert() {
    run_model(TwoBusy, || {
        let scene = Arc::new(Scene::filled(Known::ByKey));
        scene.cache.invalidate_group(GROUP);
        let reader = spawn({
            let scene = scene.clone();
            move || {
                let told = answer(&mut get(&scene.cache));
                assert_ne!(told, Poll::Ready(Some(BEFORE)), "an old value is served");
            }
        });
        scene.cache.insert(KEY, 9);
        assert_eq!(
            scene.cache.get_if_present(&KEY).as_deref(),
            Some(&9),
            "an insert is undone"
        );
        reader.join().unwrap();
        assert_eq!(
            scene.cache.get_if_present(&KEY).as_deref(),
            Some(&9),
            "an insert is undone"
        );
    });
}

/// P4: of two invalidations of one cell at a time, neither is lost.
#[test]
fn two_invalidations_of_a_cell() {
    run_model(Two, || {
        let (groups, cell) = (Arc::new(Groups::default()), Cell::of(GROUP));
        groups.invalidate(cell);
        let other = spawn({
            let groups = groups.clone();
            move || groups.invalidate(cell)
        });
        let began = groups.now();
        groups.invalidate(cell);
        let stamp = groups.stamp(cell, began);
        assert!(!groups.is_current(stamp), "an invalidation is lost");
        other.join().unwrap();
        assert!(!groups.is_current(stamp), "an invalidation is lost");
        assert!(groups.is_current(groups.stamp(cell, groups.now())));
    });
}
