//! The end of a refresh against every operation that can overtake it.

use everfresh::model::Published;
use loom::thread::spawn;

use crate::Threads::{Three, Two, TwoBusy};
use crate::fixture::*;
use crate::run_model;

/// P4: the result of a refresh does not undo an invalidation during the refresh.
#[test]
fn against_invalidate() {
    run_model(Two, || {
        let cache = filled();
        let claim = claim(&cache, STALE);
        let refresher = spawn(move || publish(claim, 1, STALE));
        assert!(invalidate(&cache, KEY), "a value was resident throughout");
        assert_eq!(peek(&cache, KEY), None, "a result undid an invalidation");
        refresher.join().unwrap();
        assert_eq!(peek(&cache, KEY), None, "a result undid an invalidation");
        assert_exact(&cache);
    });
}

/// P4: the same for an invalidation of everything.
#[test]
fn against_invalidate_all() {
    run_model(Two, || {
        let cache = filled();
        let claim = claim(&cache, STALE);
        let refresher = spawn(move || publish(claim, 1, STALE));
        cache.invalidate_all();
        assert_eq!(peek(&cache, KEY), None, "a result undid an invalidation");
        refresher.join().unwrap();
        assert_eq!(peek(&cache, KEY), None, "a result undid an invalidation");
        assert_exact(&cache);
    });
}

/// P4: a value that a user inserts during a refresh stays.
#[test]
fn against_insert() {
    run_model(Two, || {
        let cache = filled();
        let claim = claim(&cache, STALE);
        let refresher = spawn(move || publish(claim, 1, STALE));
        assert!(put(&cache, KEY, 9, STALE));
        assert_eq!(peek(&cache, KEY), Some(9), "a result undid an insert");
        refresher.join().unwrap();
        assert_eq!(peek(&cache, KEY), Some(9), "a result undid an insert");
        assert_exact(&cache);
    });
}

/// P4: a refresh that found no value does not remove a value that a user inserts meanwhile.
#[test]
fn not_found_against_insert() {
    run_model(TwoBusy, || {
        let cache = filled();
        let claim = claim(&cache, STALE);
        let refresher = spawn(move || end_without_value(claim));
        assert!(put(&cache, KEY, 9, STALE));
        assert_eq!(peek(&cache, KEY), Some(9), "a result undid an insert");
        refresher.join().unwrap();
        assert_eq!(peek(&cache, KEY), Some(9), "a result undid an insert");
        assert_evictable(&cache, STALE);
    });
}

/// The limit on the weight: an invalidation that removes the successor of a value gives back the
/// weight of the successor.
#[test]
fn heavier_against_invalidate() {
    run_model(Two, || {
        let cache = with_max_weight(3);
        assert!(put_weighing(&cache, KEY, OLD, 1, CREATED));
        let claim = claim(&cache, STALE);
        let refresher = spawn(move || publish_weighing(claim, 1, 2, STALE));
        assert!(invalidate(&cache, KEY));
        refresher.join().unwrap();
        assert_eq!(peek(&cache, KEY), None, "a result undid an invalidation");
        assert_exact(&cache);
    });
}

/// P4: the same for a refresh whose value is too heavy to be kept.
#[test]
fn too_heavy_against_insert() {
    run_model(TwoBusy, || {
        let cache = with_max_weight(3);
        assert!(put_weighing(&cache, KEY, OLD, 1, CREATED));
        let claim = claim(&cache, STALE);
        let refresher = spawn(move || publish_weighing(claim, 1, 4, STALE));
        assert!(put_weighing(&cache, KEY, 9, 2, STALE));
        assert_eq!(peek(&cache, KEY), Some(9), "a result undid an insert");
        assert_eq!(refresher.join().unwrap(), Published::NotKept);
        assert_eq!(peek(&cache, KEY), Some(9), "a result undid an insert");
        assert_evictable(&cache, STALE);
    });
}

/// The entry limit: a value is removed once, because its refresh found no value or because it is
/// invalidated.
#[test]
fn not_found_against_invalidate() {
    run_model(Two, || {
        let cache = with_max_weight(3);
        assert!(put_weighing(&cache, KEY, OLD, 1, CREATED));
        let claim = claim(&cache, STALE);
        let refresher = spawn(move || end_without_value(claim));
        let invalidated = invalidate(&cache, KEY);
        assert_eq!(peek(&cache, KEY), None);
        let left = refresher.join().unwrap();
        assert!(left || invalidated, "the value was not removed");
        assert_exact(&cache);
    });
}

/// P3: a caller that comes while the value is removed gets the outcome of the refresh, or begins
/// the next load.
#[test]
fn not_found_against_a_caller() {
    run_model(Two, || {
        let cache = filled();
        let claim = claim(&cache, EXPIRING);
        let refresher = spawn(move || end_without_value(claim));
        let called = get(&cache, KEY, EXPIRED, |claim| {
            publish(claim, 2, EXPIRED);
        });
        assert!(refresher.join().unwrap());
        assert!(called.ended().is_ok_and(|value| value == 2) || peek(&cache, KEY).is_none());
        assert_exact(&cache);
    });
}

/// P4, and the entry limit: an eviction during a refresh neither leaks a permit nor frees one
/// twice.
#[test]
fn against_eviction() {
    run_model(Two, || {
        let cache = with_capacity(1);
        assert!(put(&cache, KEY, OLD, CREATED));
        let claim = claim(&cache, STALE);
        let refresher = spawn(move || publish(claim, 1, STALE));
        assert!(put(&cache, 2, 9, STALE));
        assert_eq!(peek(&cache, 2), Some(9));
        refresher.join().unwrap();
        assert_eq!(peek(&cache, KEY), None, "a result undid an eviction");
        assert_eq!(peek(&cache, 2), Some(9));
        assert_exact(&cache);
    });
}

/// P1, P5: after the deadline another reader may take over. Then the first of the two results
/// counts.
#[test]
fn against_takeover() {
    run_model(Two, || {
        let cache = filled();
        let slow = claim(&cache, STALE);
        let slow = spawn(move || publish(slow, 1, STALE_LATE));
        let took_over =
            won(read(&cache, KEY, STALE_LATE)).map(|claim| publish(claim, 2, STALE_LATE));
        let slow = slow.join().unwrap();
        assert_first_counts(&cache, slow, took_over);
        assert_exact(&cache);
    });
}

/// P4, P5: a late result, a takeover and an invalidation at once. Afterwards no value is resident
/// unless its load began after the invalidation.
#[test]
fn against_takeover_and_invalidate() {
    run_model(Three, || {
        let cache = filled();
        let slow = claim(&cache, STALE);
        let slow = spawn(move || publish(slow, 1, STALE_LATE));
        let taker = spawn({
            let cache = cache.clone();
            move || won(read(&cache, KEY, STALE_LATE)).map(|claim| publish(claim, 2, STALE_LATE))
        });
        assert!(invalidate(&cache, KEY), "a value was resident throughout");
        let (slow, taker) = (slow.join().unwrap(), taker.join().unwrap());
        assert!(
            (slow, taker) != (Published::Yes, Some(Published::Yes)),
            "two results of one entry were published"
        );
        assert_eq!(peek(&cache, KEY), None, "a result undid an invalidation");
        assert_exact(&cache);
    });
}
