//! The listener is told of every value that leaves, once, and why.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use everfresh::{Builder, Cache, Cause, Loaded, ManualClock};

use crate::support::gates::End;
use crate::support::random::{Rng, rounds};
use crate::support::*;

/// What a listener was told.
#[derive(Clone, Default)]
pub struct Told(Arc<Mutex<Vec<(u64, u64, Cause)>>>);

impl Told {
    pub fn listen(&self, builder: Builder<u64, u64>) -> Builder<u64, u64> {
        let told = self.clone();
        builder.on_removal(move |key, value, cause| told.push(*key, *value, cause))
    }

    pub fn push(&self, key: u64, value: u64, cause: Cause) {
        self.0.lock().unwrap().push((key, value, cause));
    }

    pub fn count(&self, key: u64, cause: Cause) -> usize {
        let told = self.0.lock().unwrap();
        told.iter()
            .filter(|told| (told.0, told.2) == (key, cause))
            .count()
    }

    /// Everything since the last call, in order of the keys.
    pub fn take(&self) -> Vec<(u64, u64, Cause)> {
        let mut told = std::mem::take(&mut *self.0.lock().unwrap());
        told.sort_by_key(|(key, value, _)| (*key, *value));
        told
    }
}

fn listened(
    clock: &ManualClock,
    set: impl FnOnce(Builder<u64, u64>) -> Builder<u64, u64>,
) -> (Cache<u64, u64>, Tasks, Gates<u64>, Told) {
    let told = Told::default();
    let (cache, tasks, gates) = by_hand(told.listen(set(builder(clock))));
    (cache, tasks, gates, told)
}

fn short(value: u64) -> Loaded<u64> {
    Loaded::new(value).fresh_for(secs(1)).stale_for(secs(1))
}

#[test]
fn a_value_that_makes_room_leaves_for_size() {
    let (cache, _, _, told) = listened(&ManualClock::new(), |builder| builder.capacity(1));
    cache.insert(1, 10);
    assert!(told.take().is_empty());
    cache.insert(2, 20);
    assert_eq!(told.take(), [(1, 10, Cause::Size)]);
    // A load that makes room at its end tells of it too.
    let (cache, tasks, gates, told) = listened(&ManualClock::new(), |builder| builder.capacity(1));
    cache.insert(1, 10);
    let mut read = get(&cache, 2);
    assert!(is_pending(&mut read));
    tasks.poll_all();
    gates.end(0, End::Value(20));
    tasks.poll_all();
    assert_eq!(told.take(), [(1, 10, Cause::Size)]);
}

#[test]
fn an_expired_value_leaves_as_expired() {
    let clock = ManualClock::new();
    let (cache, _, _, told) = listened(&clock, |builder| builder.capacity(2));
    cache.insert(1, short(10));
    cache.insert(2, short(20));
    clock.advance(secs(2));
    // Reading it removes nothing.
    assert!(cache.get_if_present(&1).is_none());
    assert!(told.take().is_empty());
    cache.insert(3, 30);
    assert_eq!(told.take(), [(1, 10, Cause::Expired)]);
    assert_eq!(cache.sweep(), 1);
    assert_eq!(told.take(), [(2, 20, Cause::Expired)]);
}

#[test]
fn a_value_with_a_successor_is_replaced() {
    let clock = ManualClock::new();
    let (cache, tasks, gates, told) = listened(&clock, |builder| builder);
    cache.insert(1, 10);
    cache.insert(1, 11);
    assert_eq!(told.take(), [(1, 10, Cause::Replaced)]);
    for (call, read) in [refresh, get].into_iter().enumerate() {
        clock.advance(secs(12));
        let mut reading = read(&cache, 1);
        let _ = poll(&mut reading);
        tasks.poll_all();
        assert!(told.take().is_empty(), "it is there until it is replaced");
        gates.end(call, End::Value(12 + call as u64));
        tasks.poll_all();
        assert_eq!(told.take(), [(1, 11 + call as u64, Cause::Replaced)]);
    }
    // Its load replaces an expired one.
    clock.advance(secs(100));
    let mut reading = get(&cache, 1);
    assert!(is_pending(&mut reading));
    tasks.poll_all();
    gates.end(2, End::Value(14));
    tasks.poll_all();
    assert_eq!(told.take(), [(1, 13, Cause::Replaced)]);
}

#[test]
fn an_invalidated_value_leaves_as_invalidated() {
    let (cache, tasks, gates, told) = listened(&ManualClock::new(), |builder| builder);
    for key in 0..3 {
        cache.insert(key, key);
    }
    assert!(cache.invalidate(&1));
    assert!(!cache.invalidate(&1));
    assert_eq!(told.take(), [(1, 1, Cause::Invalidated)]);
    cache.invalidate_all();
    cache.invalidate_all();
    assert_eq!(
        told.take(),
        [(0, 0, Cause::Invalidated), (2, 2, Cause::Invalidated)]
    );
    // A refresh that finds the key gone at its origin removes the value as well.
    cache.insert(1, 10);
    let mut refreshing = refresh(&cache, 1);
    assert!(is_pending(&mut refreshing));
    tasks.poll_all();
    gates.end(0, End::Absent);
    tasks.poll_all();
    assert_eq!(told.take(), [(1, 10, Cause::Invalidated)]);
}

#[test]
fn what_was_never_there_never_leaves() {
    let clock = ManualClock::new();
    let (cache, tasks, gates, told) = listened(&clock, |builder| {
        builder.max_weight(100, |_, value| *value as u32)
    });
    // Loads that are invalidated, that fail, that find nothing, whose value is too heavy.
    let ends = [End::Value(1), End::Fail, End::Absent, End::Value(101)];
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
    assert_eq!(told.take(), []);
}

#[test]
fn a_value_whose_successor_is_too_heavy_leaves() {
    let clock = ManualClock::new();
    let (cache, tasks, gates, told) = listened(&clock, |builder| {
        builder.max_weight(100, |_, value| *value as u32)
    });
    cache.insert(1, 10);
    let mut refreshing = refresh(&cache, 1);
    assert!(is_pending(&mut refreshing));
    tasks.poll_all();
    gates.end(0, End::Value(101));
    tasks.poll_all();
    assert_eq!(told.take(), [(1, 10, Cause::Size)]);
    cache.insert(1, 10);
    cache.insert(1, 102);
    assert_eq!(told.take(), [(1, 10, Cause::Replaced)]);
}

#[test]
fn every_value_is_told_once_by_many_threads() {
    let clock = ManualClock::new();
    let told = Told::default();
    let numbers = Arc::new(AtomicU64::new(0));
    let next = {
        let numbers = numbers.clone();
        move || numbers.fetch_add(1, Ordering::Relaxed)
    };
    let loading = next.clone();
    let cache: Cache<u64, u64> = told
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
    // The last refreshes may still be publishing; all that was resident has left once nothing is.
    until("all that was read has left", || {
        cache.invalidate_all();
        for (_, value, _) in told.take() {
            *counts.entry(value).or_default() += 1;
        }
        seen.iter().all(|value| counts.contains_key(value))
    });
    assert!(seen.len() > 100 || rounds(3_000) < 1_000);
    assert!(counts.values().all(|count| *count == 1), "told twice");
    assert!(
        counts
            .keys()
            .all(|value| *value < numbers.load(Ordering::Relaxed))
    );
}
