//! The queues of S3-FIFO against everything that changes the table meanwhile.
//!
//! The invariant of all of them: what is resident is in one of the two queues, by its token or by its mark. A value in neither would never
//! be evicted, nor would its successors.

use everfresh::model::{CachedSlot, Published};
use loom::thread::spawn;

use crate::Threads::{Two, TwoBusy};
use crate::fixture::*;
use crate::run_model;

/// A refresh takes over from a value that is promoted at that moment.
#[test]
fn promotion_against_refresh() {
    run_model(Two, || {
        let cache = filled();
        assert!(put(&cache, 2, 20, CREATED));
        use_often(&cache, KEY);
        let claim = claim(&cache, STALE);
        let refresher = spawn(move || publish(claim, 1, STALE));
        assert!(evict(&cache, STALE), "nobody used the other value");
        assert_eq!(refresher.join().unwrap(), Published::Yes);
        assert_eq!(peek(&cache, KEY), Some(1), "a used value was evicted");
        assert_eq!(peek(&cache, 2), None);
        assert_evictable(&cache, STALE);
    });
}

/// An insert takes over from a value that is promoted at that moment.
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
        assert!(evict(&cache, STALE), "nobody used the other value");
        assert!(inserter.join().unwrap());
        assert_eq!(peek(&cache, KEY), Some(9), "a used value was evicted");
        assert_evictable(&cache, STALE);
    });
}

/// A value moves on, because the queue is too long, while a refresh takes over from it.
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

/// A key comes back and is promoted at once, while a refresh takes over from it.
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

/// A refresh takes over from the value that eviction has chosen: either the refresh is discarded, or its result is what goes.
#[test]
fn eviction_against_refresh() {
    run_model(Two, || {
        let cache = filled();
        let claim = claim(&cache, STALE);
        let refresher = spawn(move || publish(claim, 1, STALE));
        assert!(evict(&cache, STALE), "there was a value all the time");
        refresher.join().unwrap();
        assert_eq!(peek(&cache, KEY), None, "a result undid an eviction");
        assert_evictable(&cache, STALE);
    });
}

/// The same for a value that eviction meets with its hand.
#[test]
fn hand_against_refresh() {
    run_model(Two, || {
        let cache = filled();
        find(&cache, KEY).unwrap().1.promote(0);
        let claim = claim(&cache, STALE);
        let refresher = spawn(move || publish(claim, 1, STALE));
        evict(&cache, STALE);
        refresher.join().unwrap();
        assert_evictable(&cache, STALE);
    });
}

/// Another key comes to the set of the value that eviction has chosen, whose token is out of the queue by then.
#[test]
fn eviction_against_a_neighbour() {
    run_model(Two, || {
        let cache = filled();
        let neighbour = spawn({
            let cache = cache.clone();
            move || put(&cache, 2, 20, STALE)
        });
        assert!(evict(&cache, STALE), "there was a value all the time");
        assert!(neighbour.join().unwrap());
        assert_evictable(&cache, STALE);
    });
}

/// An insert takes over from the value that eviction has chosen.
#[test]
fn eviction_against_overwrite() {
    run_model(Two, || {
        let cache = filled();
        let inserter = spawn({
            let cache = cache.clone();
            move || put(&cache, KEY, 9, STALE)
        });
        assert!(evict(&cache, STALE), "there is a value or none yet");
        assert!(inserter.join().unwrap());
        assert_evictable(&cache, STALE);
    });
}

/// A token is worth nothing for another stay of the same key in the same way: that one has its own, which comes later.
#[test]
fn token_of_an_earlier_stay() {
    run_model(TwoBusy, || {
        let cache = filled();
        assert!(put(&cache, 2, 20, CREATED));
        assert!(invalidate(&cache, KEY));
        let inserter = spawn({
            let cache = cache.clone();
            move || put(&cache, KEY, 9, STALE)
        });
        assert!(evict(&cache, STALE), "there was a value all the time");
        assert!(inserter.join().unwrap());
        assert_eq!(peek(&cache, KEY), Some(9), "it was evicted out of turn");
        assert_evictable(&cache, STALE);
    });
}

/// A value leaves once, by eviction or by invalidation.
#[test]
fn eviction_against_invalidate() {
    run_model(Two, || {
        let cache = filled();
        let other = spawn({
            let cache = cache.clone();
            move || invalidate(&cache, KEY)
        });
        let evicted = evict(&cache, STALE);
        assert!(evicted != other.join().unwrap(), "it left once");
        assert_evictable(&cache, STALE);
    });
}

/// A value leaves once, by eviction or because its refresh found that there is none any more: its permit is passed on or given back.
#[test]
fn eviction_against_departure() {
    run_model(Two, || {
        let cache = filled();
        let claim = claim(&cache, STALE);
        let refresher = spawn({
            let cache = cache.clone();
            move || leave(&cache, claim)
        });
        let evicted = evict(&cache, STALE);
        assert!(evicted != refresher.join().unwrap(), "it left once");
        assert_eq!(peek(&cache, KEY), None);
        assert_evictable(&cache, STALE);
    });
}

/// A value is in the table before its token is in the queue.
#[test]
fn enrolment_against_eviction() {
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

/// The first value of a load is queued like an inserted one.
#[test]
fn enrolment_of_a_load_against_eviction() {
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

/// One value leaves for each eviction.
#[test]
fn two_evictions() {
    run_model(Two, || {
        let cache = filled();
        let other = spawn({
            let cache = cache.clone();
            move || evict(&cache, STALE)
        });
        let mine = evict(&cache, STALE);
        assert!(mine != other.join().unwrap(), "one value, one eviction");
        assert_evictable(&cache, STALE);
    });
}

/// The limit on the weight: a refresh that grows and an insert at once, where there is room for one of them.
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

/// The limit on the weight: whoever removes a value gives back what that one weighs, not what it looked at.
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

/// The same where a user overwrites the value by a heavier one.
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

/// Of two inserts of one key, each with a generation of its own, the later one overwrites the earlier
/// one and takes over its token.
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

/// The same where a watch has met one of them while that was reserved for a moment: it cannot take
/// over a token then, and needs its own.
#[test]
fn two_inserts_and_a_watch() {
    run_model(TwoBusy, || {
        let cache = filled();
        let (place, _) = find(&cache, KEY).unwrap();
        let mut cached_slot = CachedSlot::new(&cache, place);
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
