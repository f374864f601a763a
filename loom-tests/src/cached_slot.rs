//! Reads by a watch, which takes no guard.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use everfresh::model::{AtomicU64, CachedSlot, DropLater, Inserted};
use loom::thread::spawn;

use crate::Threads::Two;
use crate::fixture::*;
use crate::run_model;

/// P4: whoever's invalidation found nothing left to do, because another one was half done, is not
/// served the old value by its watch either.
#[test]
fn after_an_invalidation() {
    run_model(Two, || {
        let cache = filled();
        let (place, _) = cache.find(hash(KEY), |key| *key == KEY).unwrap();
        let mut cached_slot = CachedSlot::new(&cache, place);
        assert!(cached_slot.look(&cache, |key| *key == KEY).is_some());
        let other = spawn({
            let cache = cache.clone();
            move || drop(cache.remove(hash(KEY), |key| *key == KEY))
        });
        cache.remove(hash(KEY), |key| *key == KEY);
        assert!(
            cached_slot.look(&cache, |key| *key == KEY).is_none(),
            "a watch saw what was invalidated"
        );
        other.join().unwrap();
    });
}

/// P4: a watch that looks while its key is removed and inserted anew sees one or the other, or
/// nothing; and the new value once it is there.
#[test]
fn against_remove_and_insert() {
    run_model(Two, || {
        let cache = filled();
        let (place, _) = cache.find(hash(KEY), |key| *key == KEY).unwrap();
        let mut cached_slot = CachedSlot::new(&cache, place);
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
        assert!(seen.is_sorted(), "a watch saw an older value after a newer");
        assert!(other.join().unwrap());
    });
}

/// P4: a watch that remembers an item which left, and which is put in once more, does not see it
/// before that.
///
/// An insert that reserves a way twice does this. The slot then holds what the watch remembers, so
/// its look is a Relaxed load and no more; the fence alone keeps the second look at `control` behind.
#[test]
fn an_item_that_comes_back() {
    run_model(Two, || {
        let cache = filled();
        let (place, first) = find(&cache, KEY).unwrap();
        let item = first.into_arc();
        let mut cached_slot = CachedSlot::new(&cache, place);
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
                    .absent(hash(KEY), |_| false)
                    .expect("it is absent");
                let drop_later = &mut DropLater::new();
                let inserted = cache.table.insert(hash(KEY), &item, seen, drop_later);
                assert!(matches!(inserted, Inserted::Here(at) if at == place));
            }
        });
        if cached_slot.look(&cache, |key| *key == KEY).is_some()
            && cached_slot
                .seen()
                .is_some_and(|seen| Arc::ptr_eq(seen, &item))
        {
            assert_eq!(source.load(Relaxed), 2, "a watch saw what was not yet in");
        }
        other.join().unwrap();
    });
}
