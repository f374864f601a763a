//! Values of a group that was invalidated are never served again, by any call that reads, and leave
//! like values past their hard limit.

use std::sync::{Arc, Mutex};

use dev_support::allocator::PerThread;
use everfresh::{Builder, Cache, Cause, CountingLoader, Loaded, ManualClock, Source};

use crate::readers::Tier;
use crate::support::gates::{End, numbering};
use crate::support::*;

/// The group of every key of these tests.
const GROUP: u64 = 7;

/// All keys are in one group.
fn grouped(clock: &ManualClock) -> Builder<u64, u64> {
    builder(clock).group_by(|_| [GROUP])
}

/// How key 1 got its value and its group.
type Fill = fn(&ManualClock) -> Cache<u64, u64>;

const FILLS: [(&str, Fill); 4] = [
    ("inserted, by its key", |clock| {
        let cache = computing(grouped(clock), &numbering());
        cache.insert(1, 10);
        cache
    }),
    ("inserted, by its value", |clock| {
        let cache = computing(builder(clock), &numbering());
        cache.insert(1, Loaded::new(10).group(GROUP));
        cache
    }),
    ("inserted, with several", |clock| {
        let cache = computing(builder(clock).group_by(|key| [key + 1_000]), &numbering());
        cache.insert(1, Loaded::new(10).groups([GROUP + 1, GROUP]));
        cache
    }),
    ("loaded, with several", |clock| {
        let loaded = |_: &u64| Loaded::new(10).group(GROUP).groups([1, 2, 3]);
        let cache = builder(clock).compute(loaded).build().unwrap();
        assert_eq!(*cache.get_blocking(&1).unwrap(), 10);
        cache
    }),
];

#[test]
fn no_call_shows_a_value_of_an_invalidated_group() {
    for (name, fill) in FILLS {
        let clock = ManualClock::new();
        let cache = fill(&clock);
        let seen = cache.get_blocking(&1).unwrap();
        assert_eq!((*seen, seen.source()), (10, Source::Fresh), "{name}");
        cache.invalidate_group(GROUP);
        assert!(cache.get_if_present(&1).is_none(), "{name}");
        assert!(cache.peek(&1).is_none(), "{name}");
        assert!(!cache.contains_key(&1), "{name}");
        assert!(cache.remove(&1).is_none(), "{name}");
        assert_eq!(*seen, 10, "a value that a caller holds stays");
        let cache = fill(&clock);
        cache.invalidate_group(GROUP);
        assert_eq!(
            cache.get_blocking(&1).unwrap().source(),
            Source::Loaded,
            "{name}"
        );
        assert_eq!(
            cache.get_blocking(&1).unwrap().source(),
            Source::Fresh,
            "{name}"
        );
        assert_eq!(cache.len(), 1);
    }
}

#[test]
fn other_groups_stay() {
    for (name, fill) in FILLS {
        let clock = ManualClock::new();
        let cache = fill(&clock);
        cache.invalidate_group(GROUP + 100);
        assert_eq!(*cache.peek(&1).unwrap(), 10, "{name}");
    }
}

#[test]
fn a_value_of_several_groups_leaves_with_each_of_them() {
    for group in [1, 2, 3, GROUP] {
        let clock = ManualClock::new();
        let cache = FILLS[3].1(&clock);
        cache.invalidate_group(group);
        assert!(!cache.contains_key(&1), "{group}");
    }
}

#[test]
fn every_tier_of_reads_loads_anew() {
    for tier in 0..3 {
        let clock = ManualClock::new();
        let cache = computing(grouped(&clock), &numbering());
        let mut tier = Tier::all(&cache).into_iter().nth(tier).unwrap();
        for round in 1..4 {
            assert_eq!(tier.read().unwrap(), (round, Source::Loaded));
            for _ in 0..5 {
                assert_eq!(tier.read().unwrap(), (round, Source::Fresh));
            }
            cache.invalidate_group(GROUP);
        }
    }
}

#[test]
fn get_many_and_the_refreshes_load_anew() {
    let clock = ManualClock::new();
    let loader = numbering();
    let cache = computing(grouped(&clock), &loader);
    let seen = cache.get_blocking(&1).unwrap();
    cache.invalidate_group(GROUP);
    let read = |key: u64| {
        cache
            .get_many_blocking(&[key, key])
            .into_iter()
            .map(Result::unwrap)
    };
    assert!(read(1).all(|read| *read == 2));
    cache.invalidate_group(GROUP);
    assert_eq!(*cache.refresh_blocking(&1).unwrap(), 3);
    cache.invalidate_group(GROUP);
    assert_eq!(*cache.refresh_from_now_blocking(&1).unwrap(), 4);
    cache.invalidate_group(GROUP);
    assert_eq!(*cache.refresh_if_blocking(&seen).unwrap(), 5);
    assert_eq!((loader.calls(), cache.len()), (5, 1));
}

#[test]
fn an_outdated_value_is_not_served_after_a_failure() {
    for stale in [5, 15] {
        let clock = ManualClock::new();
        let loader = numbering();
        let cache = computing(grouped(&clock), &loader);
        cache.insert(1, 10);
        clock.advance(secs(stale));
        loader.fail_next(1);
        cache.invalidate_group(GROUP);
        assert!(cache.get_blocking(&1).unwrap_err().is_load_failure());
        assert!(cache.get_blocking(&1).is_err(), "the key rests");
    }
}

#[test]
fn an_insert_after_the_invalidation_stays() {
    let clock = ManualClock::new();
    let cache = computing(grouped(&clock), &numbering());
    cache.insert(1, 10);
    cache.invalidate_group(GROUP);
    cache.insert(1, 11);
    assert_eq!(*cache.get_blocking(&1).unwrap(), 11);
    assert_eq!(cache.len(), 1);
}

#[test]
fn answers_without_a_value_are_forgotten() {
    for not_found in [true, false] {
        let clock = ManualClock::new();
        let (cache, tasks, gates) = by_hand(grouped(&clock).not_found_for(secs(1_000)));
        let mut first = get(&cache, 1);
        assert!(is_pending(&mut first));
        tasks.poll_all();
        gates.end(0, if not_found { End::NotFound } else { End::Fail });
        tasks.poll_all();
        assert!(ready(first).is_err());
        cache.invalidate_group(GROUP + 1);
        assert!(ready(get(&cache, 1)).is_err());
        assert_eq!(gates.calls(), 1, "the answer is remembered");
        cache.invalidate_group(GROUP);
        let mut next = get(&cache, 1);
        assert!(is_pending(&mut next));
        tasks.poll_all();
        gates.end(1, End::Value(11));
        tasks.poll_all();
        assert_eq!(*ready(next).unwrap(), 11);
    }
}

#[test]
fn a_loader_does_not_see_an_outdated_value() {
    let clock = ManualClock::new();
    let (cache, tasks, gates) = by_hand(grouped(&clock));
    cache.insert(1, 10);
    clock.advance(secs(12));
    assert_eq!(ready(get(&cache, 1)).unwrap().source(), Source::Stale);
    // The refresh has not begun yet.
    cache.invalidate_group(GROUP);
    tasks.poll_all();
    assert_eq!(gates.previous(0), None);
}

#[test]
fn outdated_values_leave_like_expired_ones() {
    let clock = ManualClock::new();
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = told.clone();
    let cache: Cache<u64, u64> = builder(&clock)
        .capacity(10)
        .group_by(|key| [key % 2])
        .on_removal(move |key, _, cause| tell.lock().unwrap().push((*key, cause)))
        .compute(|key: &u64| *key)
        .build()
        .unwrap();
    (0..10).for_each(|key| cache.insert(key, key));
    cache.invalidate_group(1);
    assert_eq!(cache.len(), 10, "no entry is touched");
    assert!(told.lock().unwrap().is_empty());
    assert_eq!(*cache.get_blocking(&3).unwrap(), 3);
    assert_eq!(*told.lock().unwrap(), [(3, Cause::Invalidated)]);
    assert_eq!(cache.sweep(), 4);
    assert_eq!(cache.len(), 6);
    let mut left = std::mem::take(&mut *told.lock().unwrap());
    left.sort_by_key(|(key, _)| *key);
    let outdated = [1, 3, 5, 7, 9].map(|key| (key, Cause::Invalidated));
    assert_eq!(left, outdated);
    // A full cache gives up outdated values, whatever their uses.
    (0..5).for_each(|_| drop(cache.get_blocking(&0)));
    cache.invalidate_group(0);
    for key in 200..1_000 {
        cache.insert(key, key);
        (0..3).for_each(|_| drop(cache.get_blocking(&key)));
    }
    let mut left = told.lock().unwrap().clone();
    left.retain(|(key, _)| *key < 10 && key % 2 == 0);
    left.sort_by_key(|(key, _)| *key);
    let outdated = [0, 2, 4, 6, 8].map(|key| (key, Cause::Invalidated));
    assert_eq!(left, outdated);
}

#[test]
fn an_invalidation_costs_the_same_for_one_member_and_for_many() {
    let clock = ManualClock::new();
    let cache = computing(grouped(&clock), &numbering());
    cache.invalidate_group(GROUP);
    (0..1_000).for_each(|key| cache.insert(key, key));
    let before = (PerThread::allocations(), PerThread::bytes());
    (0..100).for_each(|group| cache.invalidate_group(group));
    (0..1_000).for_each(|_| cache.invalidate_group(GROUP));
    assert_eq!((PerThread::allocations(), PerThread::bytes()), before);
    assert_eq!(cache.len(), 1_000, "no entry is touched");
    assert_eq!(cache.stats().loads, 0);
}

#[test]
fn memory_does_not_depend_on_the_number_of_groups() {
    let clock = ManualClock::new();
    let before = PerThread::bytes();
    let cache: Cache<u64, u64> = builder(&clock)
        .capacity(10)
        .compute(|key: &u64| *key)
        .build()
        .unwrap();
    let empty = PerThread::bytes();
    (0..100_000).for_each(|group| cache.invalidate_group(group));
    let cells = PerThread::bytes() - empty;
    assert!((1 << 17..(1 << 17) + 64).contains(&cells), "{cells}");
    drop(cache);
    assert!(PerThread::bytes() <= before + 64);
}

#[test]
fn a_hit_of_a_value_with_groups_allocates_nothing() {
    for (name, fill) in FILLS {
        let clock = ManualClock::new();
        let cache = fill(&clock);
        cache.invalidate_group(GROUP + 50);
        let read = || assert_eq!(*cache.get_blocking(&1).unwrap(), 10);
        read();
        let before = PerThread::allocations();
        (0..100).for_each(|_| read());
        assert_eq!(PerThread::allocations(), before, "{name}");
    }
}

#[test]
fn the_time_limits_of_a_value_with_a_group_are_hardly_shorter() {
    let clock = ManualClock::new();
    let (cache, ..) = by_hand(grouped(&clock));
    cache.insert(1, 10);
    clock.advance(millis(9_999));
    assert_eq!(ready(get(&cache, 1)).unwrap().source(), Source::Fresh);
    clock.advance(millis(1));
    let read = ready(get(&cache, 1)).unwrap();
    assert_eq!(read.source(), Source::Stale);
    assert_eq!(read.age(), secs(10));
    clock.advance(millis(19_950));
    assert!(cache.contains_key(&1));
    clock.advance(millis(50));
    assert!(!cache.contains_key(&1));
}

#[test]
fn a_group_function_that_panics_fails_its_own_load() {
    let clock = ManualClock::new();
    let cache: Cache<u64, u64> = builder(&clock)
        .group_by(|key| match key {
            13 => panic!("no group"),
            _ => [GROUP],
        })
        .compute(|key: &u64| *key)
        .build()
        .unwrap();
    assert!(cache.get_blocking(&13).unwrap_err().is_panic());
    assert_eq!(*cache.get_blocking(&1).unwrap(), 1);
    cache.invalidate_group(GROUP);
    assert_eq!(cache.get_blocking(&1).unwrap().source(), Source::Loaded);
    assert_eq!(cache.len(), 1);
}

#[test]
fn groups_that_share_a_cell_are_invalidated_together_and_never_too_few() {
    let clock = ManualClock::new();
    let loader = CountingLoader::new(|key: &u64| *key);
    let cache = computing(builder(&clock).group_by(|key| [*key]), &loader);
    // More groups than cells.
    let keys = 0..40_000;
    let one = 12_345;
    let cache_of = |key: u64| cache.insert(key, key);
    keys.clone().for_each(cache_of);
    cache.invalidate_group(one);
    assert!(!cache.contains_key(&one));
    let gone = keys.filter(|key| !cache.contains_key(key)).count();
    // 10 000 entries are resident, and a cell has two or three of 40 000 groups.
    assert!((30_000..30_100).contains(&gone), "{gone}");
}
