//! Every value is dropped exactly once, and no value keeps its predecessor or successor alive.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use everfresh::{Cache, CountingLoader, ManualClock};

use crate::support::random::{Rng, rounds};
use crate::support::*;

fn tracked(
    capacity: usize,
) -> (
    Cache<u64, Tracked>,
    CountingLoader<u64, Tracked>,
    Tally,
    ManualClock,
) {
    let (clock, tally) = (ManualClock::new(), Tally::default());
    let making = tally.clone();
    let loader = CountingLoader::new(move |_: &u64| making.make());
    let cache = computing(builder(&clock).capacity(capacity), &loader);
    (cache, loader, tally, clock)
}

#[test]
fn random_programs_on_many_threads_drop_every_value_once() {
    for capacity in [1, 3, 50] {
        let (cache, loader, tally, clock) = tracked(capacity);
        thread::scope(|scope| {
            for stream in 0..4 {
                let (cache, loader, tally, clock) = (&cache, &loader, &tally, &clock);
                scope.spawn(move || {
                    let mut rng = Rng::new(100 + stream);
                    let mut kept = Vec::new();
                    for _ in 0..rounds(2_000) {
                        let key = rng.below(8);
                        match rng.below(20) {
                            0..3 => cache.insert(key, tally.make()),
                            3 => drop(cache.invalidate(&key)),
                            4 if rng.below(10) == 0 => cache.invalidate_all(),
                            5 => clock.advance(secs(rng.below(8))),
                            6 => loader.fail_next(1),
                            7 => drop(ready_or_drop(refresh(cache, key))),
                            8..11 => kept.extend(cache.get_if_present(&key)),
                            11 => kept.clear(),
                            _ => kept.extend(cache.get_blocking(&key)),
                        }
                        // Every kept value is intact.
                        assert!(kept.iter().all(|read| read.number < tally.made()));
                        kept.truncate(20);
                    }
                });
            }
        });
        loader.wait_until_idle();
        drop(cache);
        until("every value is dropped", || tally.alive() == 0);
        assert!(tally.made() > 100);
    }
}

/// Polls once, and drops the future if it is not ready.
fn ready_or_drop<V>(mut reading: Reading<V>) -> Option<everfresh::Cached<u64, V>> {
    match poll(&mut reading) {
        std::task::Poll::Ready(read) => read.ok(),
        std::task::Poll::Pending => None,
    }
}

#[test]
fn a_kept_value_keeps_itself_alive_and_nothing_else() {
    let (cache, _loader, tally, clock) = tracked(10);
    let kept = cache.get_blocking(&1).unwrap();
    for epoch in 1..20 {
        clock.advance(secs(12));
        assert!(cache.get_blocking(&1).is_ok());
        until("the refresh is published", || {
            cache.stats().published == epoch + 1
        });
        // The worker drops the old value a moment after it has published the new one.
        until("the kept value and the newest are alive", || {
            tally.alive() == 2
        });
    }
    cache.invalidate(&1);
    until("only the kept value is alive", || tally.alive() == 1);
    assert_eq!(kept.number, 0);
    drop(kept);
    // The worker that loaded the value may hold it for a moment after its callers have it.
    until("the kept value is dropped", || tally.alive() == 0);
}

#[test]
fn a_kept_newest_value_does_not_keep_its_predecessors() {
    let (cache, loader, tally, clock) = tracked(10);
    cache.get_blocking(&1).unwrap();
    for _ in 0..5 {
        clock.advance(secs(12));
        let calls = loader.calls();
        assert!(cache.get_blocking(&1).is_ok());
        loader.wait_for_calls(calls + 1);
        until("the refresh is published", || {
            cache.get_if_present(&1).unwrap().freshness().is_fresh()
        });
    }
    let newest = cache.get_blocking(&1).unwrap();
    until("only the newest is alive", || tally.alive() == 1);
    drop(cache);
    until("only the newest is alive", || tally.alive() == 1);
    assert_eq!(newest.number, 5);
}

#[test]
fn values_removed_overwritten_evicted_and_discarded_are_dropped() {
    let (cache, loader, tally, clock) = tracked(2);
    cache.insert(1, tally.make());
    cache.insert(1, tally.make());
    assert_eq!(tally.alive(), 1);
    cache.insert(2, tally.make());
    cache.insert(3, tally.make());
    assert_eq!((tally.alive(), cache.len()), (2, 2));
    cache.invalidate_all();
    assert_eq!(tally.alive(), 0);
    // A late result.
    cache.insert(1, tally.make());
    clock.advance(secs(12));
    loader.hold();
    assert!(cache.get_blocking(&1).is_ok());
    loader.wait_for_calls(1);
    cache.invalidate(&1);
    loader.release();
    until("the result is discarded", || {
        cache.stats().discarded_overtaken == 1
    });
    until("no value is alive", || tally.alive() == 0);
    assert_eq!(tally.made(), 6);
}

/// A value whose drop counts and then panics.
struct Bomb(Arc<AtomicU64>);

impl Drop for Bomb {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
        if !thread::panicking() {
            panic!("a bomb");
        }
    }
}

#[test]
fn several_values_that_panic_when_dropped_are_all_dropped() {
    type Operation = fn(Cache<u64, Bomb>, &Arc<AtomicU64>);
    let operations: [Operation; 4] = [
        |cache, dropped| cache.insert(10, Bomb(dropped.clone())),
        |cache, _| cache.invalidate_all(),
        |cache, _| _ = cache.sweep(),
        |cache, _| drop(cache),
    ];
    for (number, operation) in operations.into_iter().enumerate() {
        let clock = ManualClock::new();
        let dropped = Arc::new(AtomicU64::new(0));
        let cache: Cache<u64, Bomb> = builder(&clock)
            .max_weight(10, |key, _| if *key == 10 { 10 } else { 1 })
            .compute(|_: &u64| -> Bomb { unreachable!("nothing is loaded") })
            .build()
            .unwrap();
        for key in 0..10 {
            cache.insert(key, Bomb(dropped.clone()));
        }
        if number == 2 {
            clock.advance(secs(100));
        }
        // The last operation drops the cache itself.
        let kept = (number < 3).then(|| cache.clone());
        let panics = catch_unwind(AssertUnwindSafe(|| operation(cache, &dropped)));
        assert!(panics.is_err(), "operation {number}");
        assert_eq!(dropped.load(Ordering::SeqCst), 10, "operation {number}");
        if let Some(cache) = kept {
            let left = u64::from(number == 0);
            assert_eq!((cache.len() as u64, cache.weight()), (left, 10 * left));
            // An inserted value can be evicted like any other.
            let evicts = || cache.insert(11, Bomb(dropped.clone()));
            assert_eq!(catch_unwind(AssertUnwindSafe(evicts)).is_err(), number == 0);
            assert_eq!((cache.len(), cache.weight()), (1, 1));
            std::mem::forget(cache);
        }
    }
}

#[test]
fn many_reads_kept_at_once_are_all_intact() {
    let (cache, _loader, tally, _clock) = tracked(1_000);
    let kept: Vec<_> = (0..500)
        .map(|key| cache.get_blocking(&key).unwrap())
        .collect();
    cache.invalidate_all();
    assert_eq!((tally.alive(), cache.len()), (500, 0));
    let moved = thread::spawn(move || kept.iter().map(|read| read.number).sum::<u64>());
    assert_eq!(moved.join().unwrap(), 499 * 500 / 2);
    until("all are dropped", || tally.alive() == 0);
}
