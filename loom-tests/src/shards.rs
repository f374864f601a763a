//! Two shards: values that need a permit or a victim of the other one.

use loom::thread::spawn;

use crate::Threads::{Two, TwoBusy};
use crate::fixture::*;
use crate::run_model;

/// The limit: an insert takes the permit of the other shard, or a victim there, while that is
/// invalidated.
#[test]
fn insert_against_invalidate() {
    run_model(TwoBusy, || {
        let cache = in_shards(1);
        assert!(put(&cache, KEY, OLD, CREATED));
        let invalidator = spawn({
            let cache = cache.clone();
            move || invalidate(&cache, KEY)
        });
        assert!(put(&cache, OTHER, 20, STALE));
        invalidator.join().unwrap();
        assert_eq!((peek(&cache, KEY), peek(&cache, OTHER)), (None, Some(20)));
        assert_exact(&cache);
        assert_evictable(&cache, STALE);
    });
}

/// An eviction whose shard has no victim, and one in the shard with the victim.
#[test]
fn two_evictions() {
    run_model(Two, || {
        let cache = in_shards(2);
        assert!(put(&cache, KEY, OLD, CREATED));
        // With its second value the queue splits.
        assert!(put(&cache, OTHER, 20, CREATED));
        assert!(invalidate(&cache, OTHER));
        let other = spawn({
            let cache = cache.clone();
            move || evict_from(&cache, 1, STALE)
        });
        let mine = evict_from(&cache, 0, STALE);
        assert!(mine != other.join().unwrap(), "not exactly one eviction");
        assert_exact(&cache);
    });
}

/// A queue splits while a value is promoted from it.
#[test]
fn split_against_eviction() {
    run_model(TwoBusy, || {
        let cache = in_shards(2);
        assert!(put(&cache, KEY, OLD, CREATED));
        let inserter = spawn({
            let cache = cache.clone();
            move || put(&cache, OTHER, 20, STALE)
        });
        assert!(evict_from(&cache, 1, STALE), "there was a value");
        assert!(inserter.join().unwrap());
        assert_evictable(&cache, STALE);
    });
}

/// The queues of few values join while a thread adds a token to one that falls out of use.
#[test]
fn join_against_insert() {
    run_model(TwoBusy, || {
        let cache = in_shards(2);
        assert!(put(&cache, KEY, OLD, CREATED));
        // With its second value the queue splits.
        assert!(put(&cache, OTHER, 20, CREATED));
        assert!(invalidate(&cache, KEY) && invalidate(&cache, OTHER));
        let inserter = spawn({
            let cache = cache.clone();
            move || put(&cache, OTHER, 21, STALE)
        });
        assert!(put(&cache, KEY, 1, STALE));
        assert!(inserter.join().unwrap());
        assert_evictable(&cache, STALE);
    });
}
