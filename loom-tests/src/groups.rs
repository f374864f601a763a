//! Models of groups: what a load read before its group was invalidated is not served afterwards.
//!
//! The origin is one number. A writer changes it, without any order of its own, and then
//! invalidates the group.

use std::sync::Arc;

use everfresh::model::{
    Cell, ClaimGuard, Entry, EvictionState, Flight, Groups, Lifetime, Made, Outcome, Published,
    Times, Weight, generation,
};
use loom::sync::atomic::{AtomicU64, Ordering};
use loom::thread::spawn;

use crate::Threads::{Two, TwoBusy};
use crate::fixture::*;
use crate::run_model;

const GROUP: u64 = 7;
/// The origin before and after the write.
const BEFORE: u64 = 1;
const AFTER: u64 = 2;

fn made(value: u64, created: u64, began: u64, groups: &Groups) -> Arc<Item> {
    let times = Times::new(Lifetime {
        created,
        fresh_for: 10_000_000_000,
        stale_for: 10_000_000_000,
        error_for: 10_000_000_000,
        early_for: 0,
        cost: 0,
    });
    let eviction_state = EvictionState {
        uses: 0,
        generation: generation(hash(KEY), created),
        weight: Weight::new(0),
    };
    let stamps = groups.stamps([GROUP], began);
    Arc::new(Entry::ready(KEY, value, times, stamps, eviction_state))
}

/// A user's insert of a value with the group.
fn insert(cache: &Cache, value: u64, now: u64) {
    let new = made(value, now, cache.groups.now(), &cache.groups);
    assert!(cache.insert(hash(KEY), &new, now));
}

fn filled_with_group() -> Arc<Cache> {
    let cache = empty();
    insert(&cache, BEFORE, CREATED);
    cache
}

/// A load, from its beginning to its end.
fn load(cache: &Cache, claim: ClaimGuard<u8, u64>, origin: &AtomicU64, now: u64) -> Published {
    claim.flight().begins(cache.groups.now());
    let value = origin.load(Ordering::Relaxed);
    let new = made(value, now, claim.flight().began(), &cache.groups);
    claim.publish(new, Made::Here, now)
}

fn write(cache: &Cache, origin: &AtomicU64) {
    origin.store(AFTER, Ordering::Relaxed);
    cache.groups.invalidate(Cell::of(GROUP));
}

/// Tells the groups of a key, if they follow from the key.
fn groups_of(by_key: bool) -> Option<impl FnOnce(&u8) -> Vec<u64>> {
    by_key.then_some(|_: &u8| vec![GROUP])
}

/// What a caller found.
enum Found {
    Value(u64),
    Waits(Arc<Flight<u8, u64>>),
    Missing,
}

/// The first step of a `get`, as the public API makes it.
fn look(cache: &Cache, by_key: bool) -> Found {
    let Some((place, entry)) = find(cache, KEY) else {
        return Found::Missing;
    };
    if cache.is_outdated(&entry, groups_of(by_key)) {
        cache.remove_outdated(place, entry.arc());
        return Found::Missing;
    }
    match (entry.value(), cache.last_flight(&entry)) {
        (Some(value), _) => Found::Value(*value),
        (None, Some(flight)) if !flight.is_closed() => Found::Waits(flight),
        _ => Found::Missing,
    }
}

/// What a caller that arrived then gets of the flight for which it waited, after its end.
fn landed(cache: &Cache, flight: &Flight<u8, u64>, arrived: u64) -> Option<u64> {
    match flight.outcome() {
        Some(Outcome::Published(entry, made)) => cache
            .is_answer(&entry, made, flight, false, arrived)
            .then(|| *entry.value().expect("a load makes a value")),
        _ => None,
    }
}

/// P4: a load that runs while its group is invalidated is not served to a caller that comes after.
fn a_load_against_an_invalidation(by_key: bool) {
    run_model(TwoBusy, move || {
        let (cache, origin) = (empty(), Arc::new(AtomicU64::new(BEFORE)));
        let claim = begin(&cache, KEY, CREATED);
        let loader = spawn({
            let (cache, origin) = (cache.clone(), origin.clone());
            move || load(&cache, claim, &origin, CREATED)
        });
        write(&cache, &origin);
        let arrived = cache.groups.now();
        let found = look(&cache, by_key);
        loader.join().unwrap();
        let told = match found {
            Found::Value(value) => Some(value),
            Found::Waits(flight) => landed(&cache, &flight, arrived),
            Found::Missing => None,
        };
        assert!(
            told.is_none_or(|value| value == AFTER),
            "an old value is served"
        );
        let kept = look(&cache, by_key);
        assert!(!matches!(kept, Found::Value(BEFORE)), "an old value stays");
        assert_exact(&cache);
    });
}

#[test]
fn load_against_an_invalidation_by_key() {
    a_load_against_an_invalidation(true);
}

#[test]
fn load_against_an_invalidation_by_loader() {
    a_load_against_an_invalidation(false);
}

/// P4: a refresh that runs while the group is invalidated is discarded, and the old value goes.
#[test]
fn refresh_against_an_invalidation() {
    run_model(TwoBusy, || {
        let (cache, origin) = (filled_with_group(), Arc::new(AtomicU64::new(BEFORE)));
        let claim = claim(&cache, STALE);
        let refresher = spawn({
            let (cache, origin) = (cache.clone(), origin.clone());
            move || load(&cache, claim, &origin, STALE)
        });
        write(&cache, &origin);
        let found = look(&cache, false);
        assert!(
            !matches!(found, Found::Value(BEFORE)),
            "an old value is served"
        );
        refresher.join().unwrap();
        let kept = look(&cache, false);
        assert!(!matches!(kept, Found::Value(BEFORE)), "an old value stays");
        assert_exact(&cache);
    });
}

/// A caller that finds no load of its key which began before an invalidation joins one that sees
/// what was written before the invalidation.
#[test]
fn beginning_against_a_caller() {
    run_model(Two, || {
        let (cache, origin) = (empty(), Arc::new(AtomicU64::new(BEFORE)));
        let claim = begin(&cache, KEY, CREATED);
        let (_, entry) = find(&cache, KEY).expect("it is being loaded");
        let loader = spawn({
            let (cache, origin) = (cache.clone(), origin.clone());
            move || {
                claim.flight().begins(cache.groups.now());
                (origin.load(Ordering::Relaxed), claim)
            }
        });
        write(&cache, &origin);
        let joins = !cache.is_outdated(&entry, groups_of(true));
        let (read, claim) = loader.join().unwrap();
        assert!(!joins || read == AFTER, "it joined an old load");
        drop(claim);
    });
}

/// P1: a caller that removes an outdated value as well does not remove the load that another one
/// has begun.
#[test]
fn removal_against_a_load() {
    run_model(TwoBusy, || {
        let cache = filled_with_group();
        cache.groups.invalidate(Cell::of(GROUP));
        let other = spawn({
            let cache = cache.clone();
            move || {
                let found = look(&cache, true);
                assert!(!matches!(found, Found::Value(_)), "an old value is served");
            }
        });
        // A tombstone of the other thread may be in the way for a moment.
        let claim = loop {
            let found = look(&cache, true);
            assert!(matches!(found, Found::Missing), "an old value is served");
            if let Some(claim) = ours(begun(&cache, KEY, CREATED)) {
                break claim;
            }
        };
        other.join().unwrap();
        assert!(claim.is_wanted());
        let (_, entry) = find(&cache, KEY).expect("the load is removed");
        assert!(
            Arc::ptr_eq(entry.arc(), claim.entry()),
            "the load is removed"
        );
        drop((entry, claim));
        assert_exact(&cache);
    });
}

/// P4: a caller that removes an outdated value does not remove a value that was inserted meanwhile.
#[test]
fn removal_against_insert() {
    run_model(TwoBusy, || {
        let cache = filled_with_group();
        cache.groups.invalidate(Cell::of(GROUP));
        let reader = spawn({
            let cache = cache.clone();
            move || {
                let found = look(&cache, true);
                assert!(
                    !matches!(found, Found::Value(BEFORE)),
                    "an old value is served"
                );
            }
        });
        insert(&cache, AFTER, CREATED);
        reader.join().unwrap();
        assert_eq!(peek(&cache, KEY), Some(AFTER), "an insert is undone");
        assert_exact(&cache);
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

/// P4, in a fleet: a value whose load began before a gap is not current after it, even if it is the
/// first value with a group.
#[test]
fn gap_against_the_first_value() {
    run_model(Two, || {
        let groups = Arc::new(Groups::default());
        // Allocates the cells, which is not what is explored here.
        groups.invalidate(Cell::of(GROUP));
        let began = groups.now();
        let maker = spawn({
            let groups = groups.clone();
            move || groups.stamps([GROUP], began)
        });
        groups.invalidate_others(|_| true);
        let stamps = maker.join().unwrap();
        assert!(!groups.are_current(&stamps), "a value from before the gap");
        assert!(groups.are_current(&groups.stamps([GROUP], groups.now())));
    });
}
