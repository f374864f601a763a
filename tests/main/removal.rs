//! The listener is notified once of every removed value, with the cause.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use everfresh::{Builder, Cache, Cause, Loaded, ManualClock};

use crate::support::gates::End;
use crate::support::random::{Rng, rounds};
use crate::support::*;

/// The removals of which a listener was notified.
#[derive(Clone, Default)]
pub struct Removals(Arc<Mutex<Vec<(u64, u64, Cause)>>>);

impl Removals {
    pub fn listen(&self, builder: Builder<u64, u64>) -> Builder<u64, u64> {
        let removals = self.clone();
        builder.on_removal(move |key, value, cause| removals.push(*key, *value, cause))
    }

    pub fn push(&self, key: u64, value: u64, cause: Cause) {
        self.0.lock().unwrap().push((key, value, cause));
    }

    pub fn count(&self, key: u64, cause: Cause) -> usize {
        let removals = self.0.lock().unwrap();
        removals
            .iter()
            .filter(|removal| (removal.0, removal.2) == (key, cause))
            .count()
    }

    /// Returns all removals since the last call, in the order of the keys.
    pub fn take(&self) -> Vec<(u64, u64, Cause)> {
        let mut removals = std::mem::take(&mut *self.0.lock().unwrap());
        removals.sort_by_key(|(key, value, _)| (*key, *value));
        removals
    }
}

fn listened(
    clock: &ManualClock,
    set: impl FnOnce(Builder<u64, u64>) -> Builder<u64, u64>,
) -> (Cache<u64, u64>, Tasks, Gates<u64>, Removals) {
    let removals = Removals::default();
    let (cache, tasks, gates) = by_hand(removals.listen(set(builder(clock))));
    (cache, tasks, gates, removals)
}

fn short(value: u64) -> Loaded<u64> {
    Loaded::new(value).fresh_for(secs(1)).stale_for(secs(1))
}

#[test]
fn a_value_evicted_for_room_has_the_cause_size() {
    let (cache, _, _, removals) = listened(&ManualClock::new(), |builder| builder.capacity(1));
    cache.insert(1, 10);
    assert!(removals.take().is_empty());
    cache.insert(2, 20);
    assert_eq!(removals.take(), [(1, 10, Cause::Size)]);
    // A load that makes room at its end notifies as well.
    let (cache, tasks, gates, removals) =
        listened(&ManualClock::new(), |builder| builder.capacity(1));
    cache.insert(1, 10);
    let mut read = get(&cache, 2);
    assert!(is_pending(&mut read));
    tasks.poll_all();
    gates.end(0, End::Value(20));
    tasks.poll_all();
    assert_eq!(removals.take(), [(1, 10, Cause::Size)]);
}

#[test]
fn an_expired_value_has_the_cause_expired() {
    let clock = ManualClock::new();
    let (cache, _, _, removals) = listened(&clock, |builder| builder.capacity(2));
    cache.insert(1, short(10));
    cache.insert(2, short(20));
    clock.advance(secs(2));
    // A read removes nothing.
    assert!(cache.get_if_present(&1).is_none());
    assert!(removals.take().is_empty());
    cache.insert(3, 30);
    assert_eq!(removals.take(), [(1, 10, Cause::Expired)]);
    assert_eq!(cache.sweep(), 1);
    assert_eq!(removals.take(), [(2, 20, Cause::Expired)]);
}

#[test]
fn a_value_with_a_successor_has_the_cause_replaced() {
    let clock = ManualClock::new();
    let (cache, tasks, gates, removals) = listened(&clock, |builder| builder);
    cache.insert(1, 10);
    cache.insert(1, 11);
    assert_eq!(removals.take(), [(1, 10, Cause::Replaced)]);
    for (call, read) in [refresh, get].into_iter().enumerate() {
        clock.advance(secs(12));
        let mut reading = read(&cache, 1);
        let _ = poll(&mut reading);
        tasks.poll_all();
        assert!(
            removals.take().is_empty(),
            "the value stays until it is replaced"
        );
        gates.end(call, End::Value(12 + call as u64));
        tasks.poll_all();
        assert_eq!(removals.take(), [(1, 11 + call as u64, Cause::Replaced)]);
    }
    // A load replaces an expired value.
    clock.advance(secs(100));
    let mut reading = get(&cache, 1);
    assert!(is_pending(&mut reading));
    tasks.poll_all();
    gates.end(2, End::Value(14));
    tasks.poll_all();
    assert_eq!(removals.take(), [(1, 13, Cause::Replaced)]);
}

#[test]
fn an_invalidated_value_has_the_cause_invalidated() {
    let (cache, tasks, gates, removals) = listened(&ManualClock::new(), |builder| builder);
    for key in 0..3 {
        cache.insert(key, key);
    }
    assert!(cache.invalidate(&1));
    assert!(!cache.invalidate(&1));
    assert_eq!(removals.take(), [(1, 1, Cause::Invalidated)]);
    cache.invalidate_all();
    cache.invalidate_all();
    assert_eq!(
        removals.take(),
        [(0, 0, Cause::Invalidated), (2, 2, Cause::Invalidated)]
    );
    // A refresh that does not find the key at the origin removes the value as well.
    cache.insert(1, 10);
    let mut refreshing = refresh(&cache, 1);
    assert!(is_pending(&mut refreshing));
    tasks.poll_all();
    gates.end(0, End::NotFound);
    tasks.poll_all();
    assert_eq!(removals.take(), [(1, 10, Cause::Invalidated)]);
}

#[test]
fn no_removal_is_notified_for_values_that_were_never_resident() {
    let clock = ManualClock::new();
    let (cache, tasks, gates, removals) = listened(&clock, |builder| {
        builder.max_weight(100, |_, value| *value as u32)
    });
    // Loads that are invalidated, fail, do not find the key, or return a value that is too heavy.
    let ends = [End::Value(1), End::Fail, End::NotFound, End::Value(101)];
    for (call, end) in ends.into_iter().enumerate() {
        let mut read = get(&cache, call as u64);
        assert!(is_pending(&mut read));
        tasks.poll_all();
        if call == 0 {
            cache.invalidate(&0);
        }
        gates.end(call, end);
        tasks.poll_all();
        let _ = ready(read);
    }
    cache.insert(9, 102);
    cache.invalidate_all();
    assert_eq!(removals.take(), []);
}

#[test]
fn a_value_whose_successor_is_too_heavy_is_removed() {
    let clock = ManualClock::new();
    let (cache, tasks, gates, removals) = listened(&clock, |builder| {
        builder.max_weight(100, |_, value| *value as u32)
    });
    cache.insert(1, 10);
    let mut refreshing = refresh(&cache, 1);
    assert!(is_pending(&mut refreshing));
    tasks.poll_all();
    gates.end(0, End::Value(101));
    tasks.poll_all();
    assert_eq!(removals.take(), [(1, 10, Cause::Size)]);
    cache.insert(1, 10);
    cache.insert(1, 102);
    assert_eq!(removals.take(), [(1, 10, Cause::Replaced)]);
}

#[test]
fn every_removal_is_notified_once_by_many_threads() {
    let clock = ManualClock::new();
    let removals = Removals::default();
    let numbers = Arc::new(AtomicU64::new(0));
    let next = {
        let numbers = numbers.clone();
        move || numbers.fetch_add(1, Ordering::Relaxed)
    };
    let loading = next.clone();
    let cache: Cache<u64, u64> = removals
        .listen(builder(&clock).capacity(6))
        .compute(move |_: &u64| loading())
        .build()
        .unwrap();
    let seen: Vec<u64> = thread::scope(|scope| {
        let workers: Vec<_> = (0..4)
            .map(|stream| {
                let (cache, clock, next) = (&cache, &clock, next.clone());
                scope.spawn(move || {
                    let (mut rng, mut seen) = (Rng::new(stream), Vec::new());
                    for _ in 0..rounds(3_000) {
                        let key = rng.below(12);
                        match rng.below(10) {
                            0 => drop(cache.invalidate(&key)),
                            1 => cache.insert(key, next()),
                            2 => clock.advance(secs(4)),
                            3 => drop(cache.sweep()),
                            4 if rng.below(20) == 0 => cache.invalidate_all(),
                            4..7 => seen.extend(cache.get_if_present(&key).map(|read| *read)),
                            _ => drop(cache.get_blocking(&key)),
                        }
                    }
                    seen
                })
            })
            .collect();
        workers
            .into_iter()
            .flat_map(|worker| worker.join().unwrap())
            .collect()
    });
    let mut counts = HashMap::<u64, u32>::new();
    // The last refreshes may still publish. Once the cache stays empty, every resident value was
    // removed.
    until("every value that was read is removed", || {
        cache.invalidate_all();
        for (_, value, _) in removals.take() {
            *counts.entry(value).or_default() += 1;
        }
        seen.iter().all(|value| counts.contains_key(value))
    });
    assert!(seen.len() > 100 || rounds(3_000) < 1_000);
    assert!(
        counts.values().all(|count| *count == 1),
        "a removal is notified twice"
    );
    assert!(
        counts
            .keys()
            .all(|value| *value < numbers.load(Ordering::Relaxed))
    );
}
