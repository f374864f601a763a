//! Loads take no value's place, need no place themselves, and never make an insert vanish.

use std::future::{Future, poll_fn};
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Poll;

use everfresh::{Builder, Cache, Error, ManualClock};

use crate::support::gates::End;
use crate::support::*;

fn resident<S: BuildHasher>(cache: &Cache<u64, u64, S>, keys: std::ops::Range<u64>) -> usize {
    keys.filter(|key| cache.contains_key(key)).count()
}

/// Polls the tasks and the reads until each read has its answer.
fn all_answers(tasks: &Tasks, reads: Vec<Reading<u64>>) -> Vec<Result<u64, Error>> {
    let mut reads = reads;
    let mut answers = Vec::new();
    while !reads.is_empty() {
        tasks.poll_all();
        reads.retain_mut(|read| match poll(read) {
            Poll::Ready(answer) => {
                answers.push(answer.map(|value| *value));
                false
            }
            Poll::Pending => true,
        });
    }
    answers
}

#[test]
fn a_flood_of_missing_keys_costs_no_value_its_place() {
    let clock = ManualClock::new();
    let (cache, tasks, gates) = by_hand(builder(&clock).capacity(1_000));
    for key in 0..900 {
        cache.insert(key, key);
    }
    for key in (0..900).cycle().take(2_700) {
        assert!(cache.get_if_present(&key).is_some());
    }
    let mut flood: Vec<_> = (10_000..20_000).map(|key| get(&cache, key)).collect();
    assert!(flood.iter_mut().all(is_pending));
    tasks.poll_all();
    assert!(gates.calls() > 1_000, "{} loads under way", gates.calls());
    let during = resident(&cache, 0..900);
    assert!(during >= 890, "{during} values are left during the flood");
    // Inserts during the flood are kept, and cost no value its place either.
    for key in 30_000..30_050 {
        cache.insert(key, key);
        assert!(cache.contains_key(&key));
    }
    let mut ended = 0;
    while !flood.is_empty() {
        while ended < gates.calls() {
            gates.end(ended, End::NotFound);
            ended += 1;
        }
        tasks.poll_all();
        flood.retain_mut(|read| match poll(read) {
            Poll::Ready(answer) => {
                assert!(answer.unwrap_err().is_not_found());
                false
            }
            Poll::Pending => true,
        });
        tasks.poll_all();
    }
    let after = resident(&cache, 0..900);
    assert!(after >= 890, "{after} values are left after the flood");
    assert!(resident(&cache, 30_000..30_050) >= 49);
}

#[test]
fn a_cache_of_four_entries_runs_a_hundred_loads_at_once() {
    let clock = ManualClock::new();
    let (cache, tasks, gates) = by_hand(builder(&clock).capacity(4));
    let mut reads: Vec<_> = (0..100).map(|key| get(&cache, key)).collect();
    assert!(reads.iter_mut().all(is_pending));
    tasks.poll_all();
    assert_eq!(gates.calls(), 100, "not all loads are under way");
    for call in 0..100 {
        gates.end(call, End::Value(gates.key(call)));
    }
    let answers = all_answers(&tasks, reads);
    assert!(answers.into_iter().all(|answer| answer.is_ok()));
    assert_eq!(gates.calls(), 100);
    assert_eq!(cache.len(), 4);
}

type Handle<S> = Arc<OnceLock<Cache<u64, u64, S>>>;

/// A cache whose loads read it, run step by step.
fn reading_itself<S, F>(
    builder: Builder<u64, u64, S>,
    load: impl Fn(Cache<u64, u64, S>, u64) -> F + Send + Sync + 'static,
) -> (Cache<u64, u64, S>, Tasks)
where
    S: BuildHasher + Send + Sync + 'static,
    F: Future<Output = Result<u64, Error>> + Send + 'static,
{
    let (tasks, handle) = (Tasks::default(), Handle::default());
    let inside = handle.clone();
    let cache = builder
        .spawner(tasks.spawner())
        .try_load(move |key: &u64| load(inside.get().cloned().unwrap(), *key))
        .build()
        .unwrap();
    assert!(handle.set(cache.clone()).is_ok());
    (cache, tasks)
}

#[test]
fn two_thousand_loads_that_each_read_another_key_all_succeed() {
    const OTHER: u64 = 1_000_000;
    let clock = ManualClock::new();
    let (open, begun) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let (gate, count) = (open.clone(), begun.clone());
    let (cache, tasks) = reading_itself(builder(&clock).capacity(1_000), move |cache, key| {
        let (gate, count) = (gate.clone(), count.clone());
        async move {
            if key < OTHER {
                return cache.get(&(key + OTHER)).await.map(|read| *read);
            }
            count.fetch_add(1, Ordering::Relaxed);
            poll_fn(|_| match gate.load(Ordering::Relaxed) {
                true => Poll::Ready(Ok(key)),
                false => Poll::Pending,
            })
            .await
        }
    });
    let mut reads: Vec<_> = (0..2_000).map(|key| get(&cache, key)).collect();
    assert!(reads.iter_mut().all(is_pending));
    tasks.poll_all();
    let inner = begun.load(Ordering::Relaxed);
    assert!(inner > 1_500, "only {inner} inner loads are under way");
    open.store(true, Ordering::Relaxed);
    let answers = all_answers(&tasks, reads);
    let failed = answers.iter().filter(|answer| answer.is_err()).count();
    assert_eq!(failed, 0, "of {} loads", answers.len());
}

#[test]
fn loads_nest_a_hundred_deep_in_a_cache_of_four_entries() {
    let clock = ManualClock::new();
    let next = |cache: Cache<u64, u64, OneSet>, key: u64| async move {
        match key {
            0 => Ok(0),
            _ => cache.get(&(key - 1)).await.map(|read| *read + 1),
        }
    };
    let builder = builder(&clock).capacity(4).hasher(OneSet::default());
    let (cache, tasks) = reading_itself(builder, next);
    let answers = all_answers(&tasks, vec![get(&cache, 100)]);
    assert_eq!(*answers[0].as_ref().unwrap(), 100);
    assert!(cache.len() <= 4);
    assert_eq!(cache.stats().failed, 0);
}

#[test]
fn computations_nest_in_a_set_that_has_no_way_left() {
    let clock = ManualClock::new();
    for threads in [1, 2] {
        let handle = Handle::default();
        let inside = handle.clone();
        let cache: Cache<u64, u64, OneSet> = builder(&clock)
            .capacity(4)
            .threads(threads)
            .hasher(OneSet::default())
            .try_compute(move |key: &u64| match key {
                0 => Ok::<u64, Error>(0),
                _ => {
                    let cache: &Cache<u64, u64, OneSet> = inside.get().unwrap();
                    Ok(*cache.get_blocking(&(key - 1))? + 1)
                }
            })
            .build()
            .unwrap();
        assert!(handle.set(cache.clone()).is_ok());
        assert_eq!(*cache.get_blocking(&20).unwrap(), 20, "{threads} threads");
    }
}

#[test]
fn a_load_reads_forty_keys_at_once_in_a_cache_of_one_entry() {
    let clock = ManualClock::new();
    let builder = builder(&clock).capacity(1).hasher(OneSet::default());
    let (cache, tasks) = reading_itself(builder, |cache, key| async move {
        if key > 0 {
            return Ok(key);
        }
        let mut reads: Vec<_> = (1..=40).map(|key| get(&cache, key)).collect();
        let mut sum = 0;
        poll_fn(|cx| {
            let mut failed = None;
            reads.retain_mut(|read| match read.as_mut().poll(cx) {
                Poll::Ready(answer) => {
                    match answer {
                        Ok(value) => sum += *value,
                        Err(error) => failed = Some(error),
                    }
                    false
                }
                Poll::Pending => true,
            });
            match (failed, reads.is_empty()) {
                (Some(error), _) => Poll::Ready(Err(error)),
                (None, true) => Poll::Ready(Ok(sum)),
                (None, false) => Poll::Pending,
            }
        })
        .await
    });
    let answers = all_answers(&tasks, vec![get(&cache, 0)]);
    assert_eq!(*answers[0].as_ref().unwrap(), (1..=40).sum::<u64>());
    let stats = cache.stats();
    assert_eq!((stats.loads, stats.failed), (41, 0));
}

/// A cache whose set of 13 ways is full of loads.
struct FullOfLoads {
    cache: Cache<u64, u64, OneSet>,
    tasks: Tasks,
    gates: Gates<u64>,
    reads: Vec<Reading<u64>>,
}

fn full_of_loads(clock: &ManualClock) -> FullOfLoads {
    let builder = builder(clock).load_timeout(secs(5));
    let (cache, tasks, gates) = by_hand(builder.hasher(OneSet::default()));
    let mut reads: Vec<_> = (0..13).map(|key| get(&cache, key)).collect();
    assert!(reads.iter_mut().all(is_pending));
    tasks.poll_all();
    assert_eq!(gates.calls(), 13);
    FullOfLoads {
        cache,
        tasks,
        gates,
        reads,
    }
}

#[test]
fn a_caller_from_outside_waits_for_whichever_load_of_its_set_ends_first() {
    for first in [0, 7, 12] {
        let clock = ManualClock::new();
        let full = full_of_loads(&clock);
        let mut more = get(&full.cache, 100);
        assert!(is_pending(&mut more));
        assert_eq!(full.tasks.spawned(), 13, "its load has no place yet");
        full.gates.end(first, End::NotFound);
        full.tasks.poll_all();
        assert!(is_pending(&mut more));
        assert_eq!(full.tasks.spawned(), 14, "its load has begun");
        full.tasks.poll_all();
        full.gates.end(13, End::Value(100));
        full.tasks.poll_all();
        assert_eq!(*ready(more).unwrap(), 100);
        assert_eq!(full.cache.stats().coalesced, 0, "it shared no load");
    }
}

#[test]
fn a_load_past_its_deadline_makes_room() {
    let clock = ManualClock::new();
    let full = full_of_loads(&clock);
    let mut more = get(&full.cache, 100);
    assert!(is_pending(&mut more));
    clock.advance(secs(5));
    assert!(is_pending(&mut more));
    assert_eq!(full.tasks.spawned(), 14);
    for read in full.reads {
        assert!(ready(read).unwrap_err().is_timeout());
    }
    full.tasks.poll_all();
    full.gates.end(13, End::Value(100));
    full.tasks.poll_all();
    assert_eq!(*ready(more).unwrap(), 100);
}

#[test]
fn an_insert_into_a_set_full_of_loads_is_kept_and_the_load_that_makes_room_goes_on() {
    let clock = ManualClock::new();
    let full = full_of_loads(&clock);
    full.cache.insert(100, 5);
    assert_eq!(full.cache.get_if_present(&100).as_deref(), Some(&5));
    // A key that is being loaded takes the place of its own load.
    full.cache.insert(3, 33);
    assert_eq!(full.cache.get_if_present(&3).as_deref(), Some(&33));
    for call in 0..13 {
        full.gates.end(call, End::Value(call as u64));
    }
    full.tasks.poll_all();
    for (key, read) in full.reads.into_iter().enumerate() {
        assert_eq!(*ready(read).unwrap(), key as u64);
    }
    assert_eq!(full.cache.get_if_present(&100).as_deref(), Some(&5));
    assert_eq!(full.cache.get_if_present(&3).as_deref(), Some(&33));
    let stats = full.cache.stats();
    assert_eq!((stats.published, stats.discarded_overtaken), (11, 2));
    assert_eq!(stats.failed, 0);
    assert_eq!(full.cache.len(), 13);
}

#[test]
fn a_load_that_lost_its_place_and_fails_leaves_the_inserted_value() {
    for end in [End::Fail, End::Panic, End::NotFound] {
        let clock = ManualClock::new();
        let full = full_of_loads(&clock);
        full.cache.insert(100, 5);
        for call in 0..13 {
            full.gates.end(call, end);
        }
        full.tasks.poll_all();
        assert!(full.reads.into_iter().all(|read| ready(read).is_err()));
        assert_eq!(full.cache.get_if_present(&100).as_deref(), Some(&5));
        assert_eq!(full.cache.len(), 1);
    }
}

#[test]
fn a_result_that_is_not_kept_evicts_no_value() {
    let clock = ManualClock::new();
    let (cache, tasks, gates) = by_hand(builder(&clock).capacity(3));
    let mut read = get(&cache, 100);
    assert!(is_pending(&mut read));
    tasks.poll_all();
    cache.invalidate(&100);
    for key in 0..3 {
        cache.insert(key, key);
    }
    gates.end(0, End::Value(100));
    tasks.poll_all();
    assert_eq!(*ready(read).unwrap(), 100);
    assert_eq!(resident(&cache, 0..3), 3);
    assert_eq!(cache.stats().discarded_overtaken, 1);
}

#[test]
fn a_load_takes_the_place_of_an_expired_value() {
    let clock = ManualClock::new();
    let full = full_of_loads(&clock);
    for call in 0..13 {
        full.gates.end(call, End::Value(1));
    }
    full.tasks.poll_all();
    assert_eq!(full.cache.len(), 13);
    clock.advance(secs(31));
    let mut more = get(&full.cache, 100);
    assert!(is_pending(&mut more));
    assert_eq!(full.tasks.spawned(), 14, "its load has a place");
    assert_eq!(full.cache.len(), 12);
}

#[test]
fn a_set_full_of_values_gives_up_the_least_used_for_a_load() {
    let clock = ManualClock::new();
    let full = full_of_loads(&clock);
    for call in 0..13 {
        full.gates.end(call, End::Value(1));
    }
    full.tasks.poll_all();
    for key in (0..13).filter(|key| *key != 6) {
        assert!(full.cache.get_if_present(&key).is_some());
    }
    let mut more = get(&full.cache, 100);
    assert!(is_pending(&mut more));
    assert_eq!(full.tasks.spawned(), 14);
    assert_eq!(resident(&full.cache, 0..13), 12);
    assert!(!full.cache.contains_key(&6));
}
