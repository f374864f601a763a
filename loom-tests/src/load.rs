//! The load of a missing key: there is only one, and a write during the load wins.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use everfresh::model::{AtomicU64, Published, Read};
use loom::thread::spawn;

use crate::Threads::{Three, Two, TwoBusy};
use crate::fixture::*;
use crate::run_model;

/// P3: of two callers of a missing key one loads.
#[test]
fn two_callers() {
    run_model(Two, || {
        let cache = empty();
        let other = spawn({
            let cache = cache.clone();
            move || ours(begun(&cache, KEY, STALE))
        });
        let mine = ours(begun(&cache, KEY, STALE));
        let other = other.join().unwrap();
        assert!(mine.is_some() != other.is_some(), "not exactly one load");
        assert_exact(&cache);
    });
}

/// P3: a caller that comes while a load ends gets its value and does not start another.
#[test]
fn published_against_a_caller() {
    run_model(Two, || {
        let cache = empty();
        let claim = begin(&cache, KEY, STALE);
        let loader = spawn(move || publish(claim, 1, STALE));
        let called = get(&cache, KEY, STALE, |_| panic!("a second load"));
        assert_eq!(loader.join().unwrap(), Published::Yes);
        assert_eq!(called.ended().ok(), Some(1));
        assert_exact(&cache);
    });
}

/// P3: of two callers one loads, and a third that looks meanwhile does not.
#[test]
fn three_callers() {
    run_model(Three, || {
        let cache = empty();
        let others = [(); 2].map(|()| {
            let cache = cache.clone();
            spawn(move || ours(begun(&cache, KEY, STALE)))
        });
        let third = read(&cache, KEY, STALE);
        assert!(
            matches!(third, Read::Missing | Read::Wait(..)),
            "a caller does not wait for the load that runs"
        );
        let others = others.map(|other| other.join().unwrap());
        let loads = others.iter().flatten().count();
        assert_eq!(loads, 1, "not exactly one load");
        assert_exact(&cache);
    });
}

/// P4: a caller that comes after an invalidation starts a new load and never sees the old result.
#[test]
fn against_invalidate_and_a_caller_after_it() {
    run_model(Two, || {
        let cache = empty();
        let first = begin(&cache, KEY, STALE);
        let loader = spawn(move || publish(first, 1, STALE));
        invalidate(&cache, KEY);
        assert!(
            find(&cache, KEY).is_none(),
            "a load survived an invalidation"
        );
        let second = ours(begun(&cache, KEY, STALE)).expect("a new load");
        loader.join().unwrap();
        assert_eq!(
            peek(&cache, KEY),
            None,
            "the result of a load undid an invalidation"
        );
        assert_eq!(publish(second, 2, STALE), Published::Yes);
        assert_eq!(peek(&cache, KEY), Some(2));
        assert_exact(&cache);
    });
}

/// P4: a value that a user inserts during a load stays.
#[test]
fn against_insert() {
    run_model(TwoBusy, || {
        let cache = empty();
        let claim = begin(&cache, KEY, STALE);
        let loader = spawn(move || publish(claim, 1, STALE));
        assert!(put(&cache, KEY, 9, STALE));
        assert_eq!(peek(&cache, KEY), Some(9), "a load undid an insert");
        loader.join().unwrap();
        assert_eq!(peek(&cache, KEY), Some(9), "a load undid an insert");
        assert_exact(&cache);
    });
}

/// P4: a load that fails does not remove the user's value either.
#[test]
fn failure_against_insert() {
    run_model(Two, || {
        let cache = empty();
        let claim = begin(&cache, KEY, STALE);
        let loader = spawn(move || fail(claim, STALE));
        assert!(put(&cache, KEY, 9, STALE));
        assert_eq!(peek(&cache, KEY), Some(9), "a failing load undid an insert");
        loader.join().unwrap();
        assert_eq!(peek(&cache, KEY), Some(9), "a failing load undid an insert");
        assert_exact(&cache);
    });
}

/// P1, P5: a load that hangs is taken over, and the first of the two results counts.
#[test]
fn late_result_against_takeover() {
    run_model(TwoBusy, || {
        let cache = empty();
        let slow = begin(&cache, KEY, STALE);
        let slow = spawn(move || publish(slow, 1, STALE_LATE));
        let took_over =
            won(read(&cache, KEY, STALE_LATE)).map(|claim| publish(claim, 2, STALE_LATE));
        let slow = slow.join().unwrap();
        assert_first_counts(&cache, slow, took_over);
        assert_exact(&cache);
    });
}

/// P5: the late failure of a load that was taken over changes nothing.
#[test]
fn late_failure_against_takeover() {
    run_model(Two, || {
        let cache = empty();
        let slow = begin(&cache, KEY, STALE);
        let slow = spawn(move || fail(slow, STALE_LATE));
        let took_over =
            won(read(&cache, KEY, STALE_LATE)).map(|claim| publish(claim, 2, STALE_LATE));
        slow.join().unwrap();
        if let Some(mine) = took_over {
            assert_eq!(mine, Published::Yes, "a late failure removed a later load");
            assert_eq!(peek(&cache, KEY), Some(2), "a late failure removed a value");
        }
        assert_exact(&cache);
    });
}

/// P4: a load that starts after an invalidation sees everything written before the invalidation.
#[test]
fn after_an_invalidation_sees_its_cause() {
    run_model(Two, || {
        let cache = filled();
        let source = Arc::new(AtomicU64::new(1));
        let writer = spawn({
            let (cache, source) = (cache.clone(), source.clone());
            move || {
                source.store(2, Relaxed);
                invalidate(&cache, KEY);
            }
        });
        if let Some(claim) = ours(begun(&cache, KEY, CREATED)) {
            assert_eq!(source.load(Relaxed), 2, "a load read invalidated data");
            drop(claim);
        }
        writer.join().unwrap();
    });
}

/// P5: a dropped load leaves the key usable and no caller waiting.
#[test]
fn dropped_against_a_caller() {
    run_model(Two, || {
        let cache = empty();
        let claim = begin(&cache, KEY, STALE);
        let loader = spawn(move || drop(claim));
        let called = get(&cache, KEY, STALE, |claim| {
            publish(claim, 2, STALE);
        });
        loader.join().unwrap();
        match called.ended() {
            Ok(value) => assert_eq!((value, peek(&cache, KEY)), (2, Some(2))),
            Err(_) => assert!(
                find(&cache, KEY).is_none(),
                "the placeholder of an ended load is resident"
            ),
        }
        assert_exact(&cache);
    });
}
