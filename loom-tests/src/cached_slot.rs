//! Reads by a cached slot, which takes no guard.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use everfresh::model::{AtomicU64, CachedSlot, Inserted};
use loom::thread::spawn;

use crate::Threads::Two;
use crate::fixture::*;
use crate::run_model;

/// P4: an invalidation that found the key already half removed by another one has returned. Then
/// the caller's cached slot does not return the old value either.
#[test]
fn after_an_invalidation() {
    run_model(Two, || {
        let cache = filled();
        let (place, _) = cache.find(hash(KEY), |key| *key == KEY).unwrap();
        let mut cached_slot = CachedSlot::new(place);
        assert!(cached_slot.look(&cache, |key| *key == KEY).is_some());
        let other = spawn({
            let cache = cache.clone();
            move || drop(cache.remove(hash(KEY), |key| *key == KEY))
        });
        cache.remove(hash(KEY), |key| *key == KEY);
        assert!(
            cached_slot.look(&cache, |key| *key == KEY).is_none(),
            "a cached slot returned an invalidated value"
        );
        other.join().unwrap();
    });
}

/// P4: a cached slot that reads while its key is removed and inserted again returns the old value,
/// the new value, or nothing. Once the new value is in the table, it returns that.
#[test]
fn against_remove_and_insert() {
    run_model(Two, || {
        let cache = filled();
        let (place, _) = cache.find(hash(KEY), |key| *key == KEY).unwrap();
        let mut cached_slot = CachedSlot::new(place);
        let other = spawn({
            let cache = cache.clone();
            move || {
                cache.remove(hash(KEY), |key| *key == KEY);
                put(&cache, KEY, 200, CREATED)
            }
        });
        let mut seen = Vec::new();
        for _ in 0..2 {
            if let Some(entry) = cached_slot.look(&cache, |key| *key == KEY) {
                seen.push(*entry.value().unwrap());
            }
        }
        assert!(
            seen.is_sorted(),
            "a cached slot returned an older value after a newer one"
        );
        assert!(other.join().unwrap());
    });
}

/// P4: a cached slot does not return an item that left before that item is inserted again.
///
/// An insert that reserves a way twice can insert an item again. The slot then holds the item that
/// the cached slot remembers, so its read is only a Relaxed load. The fence alone keeps the second
/// read of `control` behind it.
#[test]
fn an_item_that_comes_back() {
    run_model(Two, || {
        let cache = filled();
        let (place, first) = find(&cache, KEY).unwrap();
        let item = first.into_arc();
        let mut cached_slot = CachedSlot::new(place);
        assert!(cached_slot.look(&cache, |key| *key == KEY).is_some());
        assert!(invalidate(&cache, KEY));
        assert!(put(&cache, KEY, 200, CREATED));
        let source = Arc::new(AtomicU64::new(1));
        let other = spawn({
            let (cache, item, source) = (cache.clone(), item.clone(), source.clone());
            move || {
                invalidate(&cache, KEY);
                source.store(2, Relaxed);
                let seen = cache
                    .table
                    .missing(hash(KEY), |_| false)
                    .expect("the key is missing");
                let inserted = cache.table.insert(hash(KEY), &item, seen);
                assert!(matches!(inserted, Inserted::Here(at) if at == place));
            }
        });
        if cached_slot.look(&cache, |key| *key == KEY).is_some()
            && cached_slot
                .seen()
                .is_some_and(|seen| Arc::ptr_eq(seen, &item))
        {
            assert_eq!(
                source.load(Relaxed),
                2,
                "a cached slot returned an item before its insert"
            );
        }
        other.join().unwrap();
    });
}
