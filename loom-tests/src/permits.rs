//! Permits of two shards: what moves between them is never there twice and never lost.

use std::sync::Arc;

use everfresh::model::{CachePermit, Limit, Need, Shards, Weight};
use loom::thread::spawn;

use crate::Threads::Two;
use crate::run_model;

/// Of an odd limit the first shard has the larger part.
fn limit(entries: usize, weight: u64) -> Arc<Limit> {
    Arc::new(Limit::new(entries, weight, Shards::new(2, 2)))
}

fn need(weight: u32) -> Need {
    Need::entry(Weight::new(weight))
}

/// Takes a permit and keeps it.
fn take(limit: &Limit, shard: usize, weight: u32) -> bool {
    let taken = limit.take(shard, need(weight));
    taken.map(CachePermit::keep).is_some()
}

/// A thread that finds nothing to evict.
fn take_anywhere(limit: &Limit, shard: usize, weight: u32) -> bool {
    let taken = limit.take_anywhere(shard, need(weight));
    taken.map(CachePermit::keep).is_some()
}

/// What the permits hold, and what may still be taken, make up the limit.
fn assert_whole(limit: &Limit, entries: usize, weight: u64) {
    assert_eq!(
        limit.entries(),
        entries,
        "the permits differ from the values"
    );
    assert_eq!(
        limit.weight(),
        weight,
        "the permits differ from the weights"
    );
    let each: usize = (0..2).map(|shard| limit.entries_in(shard)).sum();
    assert_eq!(each, entries, "the shards differ from the whole");
}

/// Two shards, and one permit in one of them.
#[test]
fn two_takes_of_the_last_permit() {
    run_model(Two, || {
        let limit = limit(1, u64::MAX);
        let other = spawn({
            let limit = limit.clone();
            move || take(&limit, 1, 0)
        });
        let mine = take(&limit, 0, 0);
        assert!(mine != other.join().unwrap(), "not exactly one permit");
        assert_whole(&limit, 1, 0);
    });
}

/// Two threads that each need what both shards have.
#[test]
fn two_searches_for_all_of_the_weight() {
    run_model(Two, || {
        let limit = limit(2, 3);
        let other = spawn({
            let limit = limit.clone();
            move || take_anywhere(&limit, 1, 3)
        });
        let mine = take_anywhere(&limit, 0, 3);
        assert!(mine != other.join().unwrap(), "not exactly one search");
        assert_whole(&limit, 1, 3);
    });
}

/// A permit goes to another shard, while both shards have takers.
#[test]
fn permit_passed_on_to_another_shard() {
    run_model(Two, || {
        let limit = limit(2, 4);
        assert!(take(&limit, 0, 3));
        let other = spawn({
            let limit = limit.clone();
            move || take(&limit, 0, 2)
        });
        let victim = CachePermit::inherit(&limit, 0, Weight::new(3));
        let passed_on = victim.reuse(1, need(1)).map(CachePermit::keep);
        assert!(passed_on.is_some(), "the victim is heavier");
        let taken = usize::from(other.join().unwrap());
        assert_whole(&limit, 1 + taken, 1 + 2 * taken as u64);
        assert_eq!(limit.entries_in(1), 1, "the shards differ from the values");
        assert_eq!(take(&limit, 1, 3), taken == 0, "a permit is lost");
    });
}

/// A permit is given back while another shard looks for one. That shard may find it or not, but the
/// next search does.
#[test]
fn permit_given_back_to_another_shard() {
    run_model(Two, || {
        let limit = limit(1, u64::MAX);
        assert!(take(&limit, 0, 0));
        let other = spawn({
            let limit = limit.clone();
            move || take(&limit, 1, 0)
        });
        limit.release(0, need(0));
        let taken = other.join().unwrap();
        assert_whole(&limit, taken.into(), 0);
        assert_eq!(take_anywhere(&limit, 1, 0), !taken, "a permit is lost");
    });
}
