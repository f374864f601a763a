//! The entry limit, at every moment.

use std::sync::Arc;

use loom::thread::spawn;

use crate::Threads::{Three, Two, TwoBusy};
use crate::fixture::*;
use crate::run_model;

/// Whether both ways held a value at one moment.
///
/// An entry never comes back after it left. So an entry that is in the table before and after a
/// read of another was there during that read.
fn both_at_once(cache: &Cache) -> bool {
    let places: Vec<_> = cache.table.occupied_in(0).collect();
    let [first_place, second_place] = places[..] else {
        return false;
    };
    let value_at = |place| {
        cache
            .table
            .item_at(place)
            .filter(|entry| !entry.is_loading())
    };
    let Some(first) = value_at(first_place) else {
        return false;
    };
    value_at(second_place).is_some() && cache.table.holds(first_place, first.arc())
}

/// The limit: a value that is inserted during a read never exceeds it.
#[test]
fn limit_against_an_observer() {
    run_model(Two, || {
        let cache = with_capacity(1);
        assert!(put(&cache, 1, 10, CREATED));
        let inserter = spawn({
            let cache = cache.clone();
            move || assert!(put(&cache, 2, 20, CREATED))
        });
        assert!(!both_at_once(&cache), "more values than the limit");
        inserter.join().unwrap();
        assert_exact(&cache);
    });
}

/// The limit: two inserts for one free permit.
#[test]
fn two_inserts_for_one_permit() {
    run_model(TwoBusy, || {
        let cache = with_capacity(1);
        let other = spawn({
            let cache = cache.clone();
            move || put(&cache, 2, 20, CREATED)
        });
        assert!(put(&cache, 3, 30, CREATED));
        assert!(other.join().unwrap());
        assert!(cache.limit.entries() <= 1, "more values than the limit");
        assert_exact(&cache);
    });
}

/// The limits: an insert gets the permit of a heavier victim and gives back the rest, while an
/// invalidation removes the same victim.
#[test]
fn permit_passed_on_against_invalidate() {
    run_model(TwoBusy, || {
        let cache = with_max_weight(3);
        assert!(put_weighing(&cache, 1, 10, 3, CREATED));
        let invalidator = spawn({
            let cache = cache.clone();
            move || invalidate(&cache, 1)
        });
        assert!(put_weighing(&cache, 2, 20, 1, STALE));
        assert!(cache.limit.weight() <= 3, "heavier than the limit");
        invalidator.join().unwrap();
        assert_eq!((peek(&cache, 1), peek(&cache, 2)), (None, Some(20)));
        assert_exact(&cache);
    });
}

/// The limits: the permit of a victim is too small for an insert, which gives it back and
/// continues.
#[test]
fn permit_too_small_against_invalidate() {
    run_model(TwoBusy, || {
        let cache = with_max_weight(3);
        assert!(put_weighing(&cache, 1, 10, 1, CREATED));
        assert!(put_weighing(&cache, 2, 20, 1, CREATED));
        let invalidator = spawn({
            let cache = cache.clone();
            move || invalidate(&cache, 2)
        });
        assert!(put_weighing(&cache, 3, 30, 3, STALE));
        assert!(cache.limit.weight() <= 3, "heavier than the limit");
        invalidator.join().unwrap();
        assert_eq!(peek(&cache, 3), Some(30));
        assert_exact(&cache);
    });
}

/// The limit: two loads end at once and there is room for one value.
#[test]
fn two_loads_for_one_permit() {
    run_model(TwoBusy, || {
        let cache = with_capacity(1);
        let (first, second) = (begin(&cache, 2, CREATED), begin(&cache, 3, CREATED));
        let other = spawn(move || publish(first, 20, CREATED));
        publish(second, 30, CREATED);
        other.join().unwrap();
        assert!(cache.limit.entries() <= 1, "more values than the limit");
        assert_exact(&cache);
    });
}

/// The limit: an insert, an invalidation and an observer at once.
#[test]
fn insert_against_invalidate_against_an_observer() {
    run_model(Three, || {
        let cache = with_capacity(1);
        assert!(put(&cache, 1, 10, CREATED));
        let inserter = spawn({
            let cache = cache.clone();
            move || assert!(put(&cache, 2, 20, CREATED))
        });
        let invalidator = spawn({
            let cache: Arc<Cache> = cache.clone();
            move || invalidate(&cache, 1)
        });
        assert!(!both_at_once(&cache), "more values than the limit");
        inserter.join().unwrap();
        invalidator.join().unwrap();
        assert_eq!(peek(&cache, 2), Some(20));
        assert_exact(&cache);
    });
}
