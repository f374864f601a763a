//! Loads and values that need a way of a full set.

use std::sync::Arc;

use everfresh::model::{Begun, DropLater, Flight, Outcome, Published};
use loom::thread::spawn;

use crate::Threads::{Two, TwoBusy};
use crate::fixture::*;
use crate::run_model;

/// The value that the waiters of an ended load got.
fn delivered(flight: &Flight<u8, u64>) -> Option<u64> {
    match flight.outcome() {
        Some(Outcome::Published(entry, _)) => entry.value().copied(),
        _ => None,
    }
}

/// The limit of loads: the value in a full set leaves while a load looks for room. The load takes
/// its way, or waits for the other load, but never removes the value itself.
#[test]
fn load_in_a_full_set_whose_value_leaves() {
    run_model(TwoBusy, || {
        let cache = empty();
        let loading = begin(&cache, 1, CREATED);
        assert!(put(&cache, 2, 20, CREATED));
        let other = spawn({
            let cache = cache.clone();
            move || assert!(invalidate(&cache, 2), "a load took the place of a value")
        });
        let begun = begun(&cache, 3, CREATED);
        assert!(!matches!(begun, Begun::Exists));
        if let Begun::Full(_, loads) = &begun {
            assert_eq!(loads.len(), 1, "it waits for the load in its set");
        }
        other.join().unwrap();
        drop((loading, begun));
        assert_exact(&cache);
    });
}

/// The limit of loads: a value gets its successor while a load looks for room. Both stay.
#[test]
fn load_in_a_full_set_whose_value_is_replaced() {
    run_model(Two, || {
        let cache = filled();
        let loading = begin(&cache, 2, STALE);
        let claim = claim(&cache, STALE);
        let refresher = spawn(move || publish(claim, 1, STALE));
        let begun = begun(&cache, 3, STALE);
        let is_full = matches!(begun, Begun::Full(..));
        assert!(is_full, "a load took the place of a value");
        let published = refresher.join().unwrap();
        assert_eq!(
            published,
            Published::Yes,
            "a load took the place of a value"
        );
        assert_eq!(
            peek(&cache, KEY),
            Some(1),
            "a load took the place of a value"
        );
        drop((loading, begun));
        assert_exact(&cache);
    });
}

/// P4: an insert and a load want the last way. The value is kept, if need be in the place of a
/// load.
#[test]
fn load_and_insert_for_the_last_way() {
    run_model(TwoBusy, || {
        let cache = empty();
        let loading = begin(&cache, 1, CREATED);
        let other = spawn({
            let cache = cache.clone();
            move || put(&cache, 2, 20, CREATED)
        });
        let begun = begun(&cache, 3, CREATED);
        assert!(other.join().unwrap(), "an insert vanished");
        assert_eq!(peek(&cache, 2), Some(20), "an insert vanished");
        drop((loading, begun));
        assert_exact(&cache);
    });
}

/// P3, P4: an insert takes the place of a load that ends at that moment. The value is kept, and the
/// waiters of the load get its result.
#[test]
fn insert_in_the_place_of_a_load_that_ends() {
    run_model(TwoBusy, || {
        let cache = empty();
        let other = begin(&cache, 2, STALE);
        // The load that began last gives up its place.
        let claim = begin(&cache, 1, STALE_RESTED);
        let flight = claim.flight().clone();
        let loader = spawn(move || publish(claim, 10, STALE_RESTED));
        assert!(put(&cache, 3, 30, STALE_RESTED));
        assert_eq!(peek(&cache, 3), Some(30), "an insert vanished");
        let published = loader.join().unwrap();
        assert!(matches!(published, Published::Yes | Published::Overtaken));
        assert_eq!(
            delivered(&flight),
            Some(10),
            "a load lost its result with its place"
        );
        assert_eq!(peek(&cache, 3), Some(30), "an insert vanished");
        drop(other);
        assert_exact(&cache);
    });
}

/// P4: a load that lost its place to an insert fails. Its failure removes nothing.
#[test]
fn insert_in_the_place_of_a_load_that_fails() {
    run_model(TwoBusy, || {
        let cache = empty();
        let other = begin(&cache, 2, STALE);
        let claim = begin(&cache, 1, STALE_RESTED);
        let flight = claim.flight().clone();
        let loader = spawn(move || fail(claim, STALE_RESTED));
        assert!(put(&cache, 3, 30, STALE_RESTED));
        loader.join().unwrap();
        assert_eq!(peek(&cache, 3), Some(30), "an insert vanished");
        assert!(matches!(flight.outcome(), Some(Outcome::Failed(_))));
        drop(other);
        assert_exact(&cache);
    });
}

/// P4: an insert overwrites an expired value while a load takes its place.
#[test]
fn load_in_the_place_of_an_expired_value_that_is_overwritten() {
    run_model(TwoBusy, || {
        let cache = filled();
        let other = spawn({
            let cache = cache.clone();
            move || put(&cache, KEY, 9, EXPIRED)
        });
        // The steps of a load that finds its set full.
        cache.evict_idle(0, EXPIRED, &mut DropLater::new());
        assert!(other.join().unwrap());
        assert_eq!(peek(&cache, KEY), Some(9), "a load made an insert vanish");
        assert_exact(&cache);
    });
}

/// P2: the caller of a key whose tombstone another load has left. It depends on no step of that
/// load, and begins a load of its own.
#[test]
fn load_of_a_key_whose_place_is_taken() {
    run_model(TwoBusy, || {
        let cache = filled();
        let other = spawn({
            let cache = cache.clone();
            move || cache.evict_idle(0, EXPIRED, &mut DropLater::new())
        });
        let mine = loop {
            match begun(&cache, KEY, EXPIRED) {
                Begun::Exists if peek(&cache, KEY).is_none() => {}
                begun => break begun,
            }
        };
        assert!(other.join().unwrap());
        if let Begun::Ours(_) = mine {
            assert!(find(&cache, KEY).is_some(), "another load is removed");
        }
        drop(mine);
        assert_exact(&cache);
    });
}

/// P3: a caller looks for room in a set of two loads while one of them ends. It waits for both, so
/// it goes on whichever ends first, or it finds the room.
#[test]
fn wait_for_room_against_the_end_of_a_load() {
    run_model(TwoBusy, || {
        let cache = empty();
        let (ends, stays) = (begin(&cache, 1, STALE), begin(&cache, 2, STALE));
        let loader = spawn(move || fail(ends, STALE));
        match begun(&cache, 3, STALE) {
            Begun::Ours(claim) => drop(claim),
            Begun::Exists => unreachable!("no other caller loads this key"),
            Begun::Full(_, loads) => {
                assert_eq!(loads.len(), 2, "a caller misses the end of a load")
            }
        }
        loader.join().unwrap();
        drop(stays);
        assert_exact(&cache);
    });
}

/// P4: a load without a place ends while its key is inserted. Its waiters get its result, and the
/// inserted value stays.
#[test]
fn load_without_a_place_against_insert() {
    run_model(TwoBusy, || {
        let cache = empty();
        let others = (begin(&cache, 1, STALE), begin(&cache, 2, STALE));
        let Begun::Full(claim, _) = begun(&cache, 3, STALE) else {
            unreachable!("the set is full of loads");
        };
        let flight = claim.flight().clone();
        let loader = spawn(move || publish(claim, 31, STALE));
        assert!(put(&cache, 3, 30, STALE));
        assert_eq!(loader.join().unwrap(), Published::Overtaken);
        assert_eq!(
            delivered(&flight),
            Some(31),
            "a load lost its result for want of a place"
        );
        assert_eq!(
            peek(&cache, 3),
            Some(30),
            "a load without a place undid an insert"
        );
        drop(others);
        assert_exact(&cache);
    });
}

/// The limits: a result whose placeholder is gone takes no permit from a value that is resident.
#[test]
fn overtaken_result_in_a_full_cache() {
    run_model(TwoBusy, || {
        let cache: Arc<Cache> = with_capacity(1);
        let claim = begin(&cache, 1, STALE);
        let flight = claim.flight().clone();
        invalidate(&cache, 1);
        let loader = spawn(move || publish(claim, 10, STALE));
        assert!(put(&cache, 2, 20, STALE));
        assert_eq!(loader.join().unwrap(), Published::Overtaken);
        assert_eq!(delivered(&flight), Some(10));
        assert_eq!(
            peek(&cache, 2),
            Some(20),
            "a discarded result evicted a value"
        );
        assert_exact(&cache);
    });
}
