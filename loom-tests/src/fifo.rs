//! The queues of S3-FIFO against everything that changes the table meanwhile.
//!
//! The common invariant: a resident value is in one of the two queues, by its token or by its bit.
//! A value in neither would never be evicted, nor would its successors.

use everfresh::model::{CachedSlot, Published};
use loom::thread::spawn;

use crate::Threads::{Two, TwoBusy};
use crate::fixture::*;
use crate::run_model;

/// A refresh replaces a value that is being promoted at that moment.
#[test]
fn promotion_against_refresh() {
    run_model(Two, || {
        let cache = filled();
        assert!(put(&cache, 2, 20, CREATED));
        use_often(&cache, KEY);
        let claim = claim(&cache, STALE);
        let refresher = spawn(move || publish(claim, 1, STALE));
        assert!(evict(&cache, STALE), "the other value has no uses");
        assert_eq!(refresher.join().unwrap(), Published::Yes);
        assert_eq!(peek(&cache, KEY), Some(1), "a used value was evicted");
        assert_eq!(peek(&cache, 2), None);
        assert_evictable(&cache, STALE);
    });
}

/// An insert overwrites a value that is being promoted at that moment.
#[test]
fn promotion_against_overwrite() {
    run_model(Two, || {
        let cache = filled();
        assert!(put(&cache, 2, 20, CREATED));
        use_often(&cache, KEY);
        let inserter = spawn({
            let cache = cache.clone();
            move || put(&cache, KEY, 9, STALE)
        });
        assert!(evict(&cache, STALE), "the other value has no uses");
        assert!(inserter.join().unwrap());
        assert_eq!(peek(&cache, KEY), Some(9), "a used value was evicted");
        assert_evictable(&cache, STALE);
    });
}

/// A value moves to the main queue, because the small queue is too long, while a refresh replaces
/// it.
#[test]
fn overflow_against_refresh() {
    run_model(Two, || {
        let cache = filled();
        for _ in 0..2 {
            assert!(put(&cache, 2, 20, CREATED));
            assert!(invalidate(&cache, 2));
        }
        let claim = claim(&cache, STALE);
        let refresher = spawn(move || publish(claim, 1, STALE));
        assert!(put(&cache, 2, 21, STALE), "there is room");
        assert_eq!(refresher.join().unwrap(), Published::Yes);
        assert_evictable(&cache, STALE);
    });
}

/// The same while another value leaves the set.
#[test]
fn overflow_against_a_neighbour() {
    run_model(Two, || {
        let cache = filled();
        for _ in 0..2 {
            assert!(put(&cache, 2, 20, CREATED));
            assert!(invalidate(&cache, 2));
        }
        let neighbour = spawn({
            let cache = cache.clone();
            move || invalidate(&cache, 2)
        });
        assert!(put(&cache, 2, 21, STALE), "there is room");
        neighbour.join().unwrap();
        assert_evictable(&cache, STALE);
    });
}

/// A value is invalidated while it is promoted. The next value of its way starts in the small
/// queue.
#[test]
fn promotion_against_invalidate() {
    run_model(TwoBusy, || {
        let cache = filled();
        use_often(&cache, KEY);
        let invalidator = spawn({
            let cache = cache.clone();
            move || invalidate(&cache, KEY)
        });
        evict(&cache, STALE);
        invalidator.join().unwrap();
        assert!(put(&cache, KEY, 9, STALE));
        assert!(!is_promoted(&cache, KEY), "a value starts promoted");
        assert_evictable(&cache, STALE);
    });
}

/// A key comes back and is promoted at once, while a refresh replaces its value.
#[test]
fn comeback_against_refresh() {
    run_model(Two, || {
        let cache = filled();
        assert!(evict(&cache, CREATED));
        let refresher = spawn({
            let cache = cache.clone();
            move || won(read(&cache, KEY, STALE)).map(|claim| publish(claim, 1, STALE))
        });
        assert!(put(&cache, KEY, 9, CREATED));
        refresher.join().unwrap();
        assert_evictable(&cache, STALE);
    });
}

/// A refresh replaces the value that eviction has chosen: either its result is discarded, or its
/// result is evicted.
#[test]
fn eviction_against_refresh() {
    run_model(Two, || {
        let cache = filled();
        let claim = claim(&cache, STALE);
        let refresher = spawn(move || publish(claim, 1, STALE));
        assert!(evict(&cache, STALE), "a value was resident throughout");
        refresher.join().unwrap();
        assert_eq!(peek(&cache, KEY), None, "a result undid an eviction");
        assert_evictable(&cache, STALE);
    });
}

/// The same for a value that the hand of eviction reaches.
#[test]
fn hand_against_refresh() {
    run_model(Two, || {
        let cache = filled();
        promote(&cache, KEY);
        let claim = claim(&cache, STALE);
        let refresher = spawn(move || publish(claim, 1, STALE));
        evict(&cache, STALE);
        refresher.join().unwrap();
        assert_evictable(&cache, STALE);
    });
}

/// Another key is inserted into the set of the value that eviction has chosen, whose token has left
/// the queue by then.
#[test]
fn eviction_against_a_neighbour() {
    run_model(TwoBusy, || {
        let cache = filled();
        let neighbour = spawn({
            let cache = cache.clone();
            move || put(&cache, 2, 20, STALE)
        });
        assert!(evict(&cache, STALE), "a value was resident throughout");
        assert!(neighbour.join().unwrap());
        assert_evictable(&cache, STALE);
    });
}

/// An insert overwrites the value that eviction has chosen.
#[test]
fn eviction_against_overwrite() {
    run_model(Two, || {
        let cache = filled();
        let inserter = spawn({
            let cache = cache.clone();
            move || put(&cache, KEY, 9, STALE)
        });
        assert!(evict(&cache, STALE), "a value is evicted, old or new");
        assert!(inserter.join().unwrap());
        assert_evictable(&cache, STALE);
    });
}

/// A token does not count for a later generation of the same key in the same way, which has its
/// own, later token.
#[test]
fn token_of_an_earlier_generation() {
    run_model(TwoBusy, || {
        let cache = filled();
        assert!(put(&cache, 2, 20, CREATED));
        assert!(invalidate(&cache, KEY));
        let inserter = spawn({
            let cache = cache.clone();
            move || put(&cache, KEY, 9, STALE)
        });
        assert!(evict(&cache, STALE), "a value was resident throughout");
        assert!(inserter.join().unwrap());
        assert_eq!(
            peek(&cache, KEY),
            Some(9),
            "a value was evicted out of turn"
        );
        assert_evictable(&cache, STALE);
    });
}

/// A value is removed once, by eviction or by invalidation.
#[test]
fn eviction_against_invalidate() {
    run_model(Two, || {
        let cache = filled();
        let other = spawn({
            let cache = cache.clone();
            move || invalidate(&cache, KEY)
        });
        let evicted = evict(&cache, STALE);
        assert!(
            evicted != other.join().unwrap(),
            "the value was removed twice or never"
        );
        assert_evictable(&cache, STALE);
    });
}

/// A value is removed once, by eviction or because its refresh found no value. Its permit is either
/// passed on or given back.
#[test]
fn eviction_against_not_found() {
    run_model(Two, || {
        let cache = filled();
        let claim = claim(&cache, STALE);
        let refresher = spawn(move || end_without_value(claim));
        let evicted = evict(&cache, STALE);
        assert!(
            evicted != refresher.join().unwrap(),
            "the value was removed twice or never"
        );
        assert_eq!(peek(&cache, KEY), None);
        assert_evictable(&cache, STALE);
    });
}

/// A value is in the table before its token is in the queue.
#[test]
fn enqueue_against_eviction() {
    run_model(Two, || {
        let cache = empty();
        let inserter = spawn({
            let cache = cache.clone();
            move || put(&cache, KEY, 9, STALE)
        });
        evict(&cache, STALE);
        assert!(inserter.join().unwrap());
        assert_evictable(&cache, STALE);
    });
}

/// The first value of a load is enqueued like an inserted one.
#[test]
fn enqueue_of_a_load_against_eviction() {
    run_model(Two, || {
        let cache = empty();
        let claim = begin(&cache, KEY, STALE);
        let loader = spawn(move || publish(claim, 1, STALE));
        let evicted = evict(&cache, STALE);
        loader.join().unwrap();
        assert_eq!(peek(&cache, KEY).is_none(), evicted, "a load was evicted");
        assert_evictable(&cache, STALE);
    });
}

/// Each eviction removes one value.
#[test]
fn two_evictions() {
    run_model(Two, || {
        let cache = filled();
        let other = spawn({
            let cache = cache.clone();
            move || evict(&cache, STALE)
        });
        let mine = evict(&cache, STALE);
        assert!(mine != other.join().unwrap(), "not exactly one eviction");
        assert_evictable(&cache, STALE);
    });
}

/// The limit on the weight: a refresh whose value grows and an insert at once, with room for one of
/// them.
#[test]
fn weight_of_a_refresh_against_insert() {
    run_model(TwoBusy, || {
        let cache = with_max_weight(3);
        assert!(put_weighing(&cache, KEY, OLD, 1, CREATED));
        let claim = claim(&cache, STALE);
        let refresher = spawn(move || publish_weighing(claim, 1, 2, STALE));
        assert!(put_weighing(&cache, 2, 20, 2, STALE));
        assert!(cache.limit.weight() <= 3, "heavier than the limit");
        refresher.join().unwrap();
        assert_exact(&cache);
        assert_evictable(&cache, STALE);
    });
}

/// The limit on the weight: the thread that removes a value gives back the weight of the removed
/// value, not of the value that it looked at.
#[test]
fn weight_of_a_refresh_against_eviction() {
    run_model(Two, || {
        let cache = with_max_weight(3);
        assert!(put_weighing(&cache, KEY, OLD, 1, CREATED));
        let claim = claim(&cache, STALE);
        let refresher = spawn(move || publish_weighing(claim, 1, 2, STALE));
        evict(&cache, STALE);
        refresher.join().unwrap();
        assert_exact(&cache);
        assert_evictable(&cache, STALE);
    });
}

/// The same for a user's overwrite by a heavier value.
#[test]
fn weight_of_an_overwrite_against_eviction() {
    run_model(TwoBusy, || {
        let cache = with_max_weight(3);
        assert!(put_weighing(&cache, KEY, OLD, 1, CREATED));
        let inserter = spawn({
            let cache = cache.clone();
            move || put_weighing(&cache, KEY, 9, 2, STALE)
        });
        evict(&cache, STALE);
        assert!(inserter.join().unwrap());
        assert_exact(&cache);
        assert_evictable(&cache, STALE);
    });
}

/// Two inserts of one key, each with its own generation: the later one overwrites the earlier one
/// and takes over its token.
#[test]
fn two_inserts() {
    run_model(TwoBusy, || {
        let cache = empty();
        let other = spawn({
            let cache = cache.clone();
            move || put(&cache, KEY, 8, CREATED)
        });
        assert!(put(&cache, KEY, 9, STALE));
        assert!(other.join().unwrap());
        assert_evictable(&cache, STALE);
    });
}

/// The same with a cached slot that may meet one of them while it is reserved.
#[test]
fn two_inserts_and_a_cached_slot() {
    run_model(TwoBusy, || {
        let cache = filled();
        let (place, _) = find(&cache, KEY).unwrap();
        let mut cached_slot = CachedSlot::new(place);
        assert!(invalidate(&cache, KEY));
        let other = spawn({
            let cache = cache.clone();
            move || put(&cache, KEY, 8, CREATED)
        });
        cached_slot.look(&cache, |key| *key == KEY);
        assert!(put(&cache, KEY, 9, STALE));
        assert!(other.join().unwrap());
        assert_evictable(&cache, STALE);
    });
}
