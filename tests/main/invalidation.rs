//! A later write wins over loads and refreshes, for every kind of write and every order of results.

use std::sync::Barrier;
use std::thread;

use everfresh::{Cache, ManualClock, Source};

use crate::support::gates::{End, numbering};
use crate::support::*;

type Write = fn(&Cache<u64, u64>);

/// Every way to overwrite key 1, and the value after it.
const WRITES: [(&str, Write, Option<u64>); 4] = [
    (
        "invalidate",
        |cache| {
            cache.invalidate(&1);
        },
        None,
    ),
    ("remove", |cache| drop(cache.remove(&1)), None),
    ("invalidate_all", |cache| cache.invalidate_all(), None),
    ("insert", |cache| cache.insert(1, 99), Some(99)),
];

fn end(tasks: &Tasks, gates: &Gates<u64>, call: usize, end: End<u64>) {
    gates.end(call, end);
    tasks.poll_all();
}

#[test]
fn a_write_during_a_load_wins_and_earlier_waiters_get_the_old_result() {
    for (name, write, after) in WRITES {
        let clock = ManualClock::new();
        let (cache, tasks, gates) = by_hand(builder(&clock));
        let mut earlier = get(&cache, 1);
        assert!(is_pending(&mut earlier));
        tasks.poll_all();
        write(&cache);
        assert_eq!(cache.get_if_present(&1).map(|read| *read), after, "{name}");
        end(&tasks, &gates, 0, End::Value(10));
        assert_eq!(*ready(earlier).unwrap(), 10, "{name}");
        assert_eq!(cache.get_if_present(&1).map(|read| *read), after, "{name}");
        assert_eq!(cache.len(), after.iter().count());
        let stats = cache.stats();
        assert_eq!((stats.discarded_overtaken, stats.published), (1, 0));
    }
}

#[test]
fn a_caller_after_the_write_starts_its_own_load() {
    for new_first in [true, false] {
        for (name, write, _) in &WRITES[..3] {
            let clock = ManualClock::new();
            let (cache, tasks, gates) = by_hand(builder(&clock));
            let mut earlier = get(&cache, 1);
            assert!(is_pending(&mut earlier));
            tasks.poll_all();
            write(&cache);
            let mut later = [get(&cache, 1), get(&cache, 1)];
            assert!(later.iter_mut().all(is_pending));
            tasks.poll_all();
            assert_eq!(gates.calls(), 2, "{name}");
            if new_first {
                end(&tasks, &gates, 1, End::Value(11));
                end(&tasks, &gates, 0, End::Value(10));
            } else {
                end(&tasks, &gates, 0, End::Value(10));
                assert!(later.iter_mut().all(is_pending), "{name}");
                end(&tasks, &gates, 1, End::Value(11));
            }
            assert_eq!(*ready(earlier).unwrap(), 10, "{name}");
            for read in later {
                assert_eq!(*ready(read).unwrap(), 11, "{name}");
            }
            assert_eq!(*cache.get_if_present(&1).unwrap(), 11, "{name}");
            assert_eq!(cache.len(), 1);
        }
    }
}

#[test]
fn a_load_that_fails_after_a_write_removes_nothing() {
    for (name, write, after) in WRITES {
        let clock = ManualClock::new();
        let (cache, tasks, gates) = by_hand(builder(&clock));
        let mut earlier = get(&cache, 1);
        assert!(is_pending(&mut earlier));
        tasks.poll_all();
        write(&cache);
        end(&tasks, &gates, 0, End::Fail);
        assert!(ready(earlier).unwrap_err().is_load_failure(), "{name}");
        assert_eq!(cache.get_if_present(&1).map(|read| *read), after, "{name}");
    }
}

#[test]
fn a_write_during_a_refresh_wins() {
    for how in [End::Value(10), End::Fail, End::Panic] {
        for (name, write, after) in WRITES {
            let clock = ManualClock::new();
            let (cache, tasks, gates) = by_hand(builder(&clock));
            cache.insert(1, 5);
            clock.advance(secs(12));
            assert_eq!(ready(get(&cache, 1)).unwrap().source(), Source::Stale);
            let mut refreshing = refresh(&cache, 1);
            assert!(is_pending(&mut refreshing));
            tasks.poll_all();
            write(&cache);
            end(&tasks, &gates, 0, how);
            assert_eq!(
                cache.get_if_present(&1).map(|read| *read),
                after,
                "{name} during {how:?}"
            );
            // The caller that asked for the refresh before the write gets its result.
            assert_eq!(ready(refreshing).is_ok(), how == End::Value(10), "{name}");
            assert_eq!(gates.calls(), 1);
            let stats = cache.stats();
            assert_eq!((stats.published, cache.len()), (0, after.iter().count()));
            if let Some(after) = after {
                let fresh = ready(get(&cache, 1)).unwrap();
                assert_eq!((*fresh, fresh.source()), (after, Source::Fresh));
            }
        }
    }
}

#[test]
fn a_write_while_callers_wait_in_the_second_stale_window_wins() {
    for (name, write, after) in WRITES {
        let clock = ManualClock::new();
        let (cache, tasks, gates) = by_hand(builder(&clock).stale_if_error_for(secs(100)));
        cache.insert(1, 5);
        clock.advance(secs(40));
        let mut earlier = get(&cache, 1);
        assert!(is_pending(&mut earlier));
        tasks.poll_all();
        write(&cache);
        end(&tasks, &gates, 0, End::Fail);
        // This caller asked before the write, so the old value is a correct result.
        assert_eq!(*ready(earlier).unwrap(), 5, "{name}");
        assert_eq!(cache.get_if_present(&1).map(|read| *read), after, "{name}");
        if after.is_none() {
            assert!(is_pending(&mut get(&cache, 1)), "{name}");
        }
    }
}

#[test]
fn an_eviction_during_a_refresh_discards_its_result() {
    let clock = ManualClock::new();
    let (cache, tasks, gates) = by_hand(builder(&clock).capacity(1));
    cache.insert(1, 5);
    clock.advance(secs(12));
    assert!(ready(get(&cache, 1)).is_ok());
    tasks.poll_all();
    cache.insert(2, 6);
    end(&tasks, &gates, 0, End::Value(10));
    assert!(cache.get_if_present(&1).is_none());
    assert_eq!((*cache.get_if_present(&2).unwrap(), cache.len()), (6, 1));
    assert_eq!(cache.stats().discarded_overtaken, 1);
}

#[test]
fn invalidate_returns_whether_there_was_a_value() {
    let clock = ManualClock::new();
    let (cache, ..) = by_hand(builder(&clock));
    assert!(!cache.invalidate(&1));
    cache.insert(1, 5);
    assert!(cache.invalidate(&1));
    assert!(!cache.invalidate(&1));
    assert!(is_pending(&mut get(&cache, 1)));
    assert!(!cache.invalidate(&1), "a running load is not a value");
    assert!(cache.is_empty());
}

#[test]
fn invalidate_all_removes_every_key() {
    let clock = ManualClock::new();
    let (cache, tasks, _gates) = by_hand(builder(&clock));
    for key in 0..1_000 {
        cache.insert(key, key);
    }
    let mut loading: Vec<_> = (1_000..1_010).map(|key| get(&cache, key)).collect();
    assert!(loading.iter_mut().all(is_pending));
    assert_eq!(cache.len(), 1_000);
    cache.invalidate_all();
    assert_eq!(cache.len(), 0);
    assert!((0..1_010).all(|key| !cache.contains_key(&key)));
    assert!(is_pending(&mut get(&cache, 1_000)));
    assert_eq!(
        tasks.spawned(),
        11,
        "the caller does not wait for the earlier load"
    );
}

#[test]
fn writers_and_readers_at_once_never_see_an_older_value_after_a_newer_write() {
    // One thread writes increasing numbers in all three ways. The loader returns the current
    // number. A reader that starts after a write has returned sees this number or a later one.
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    const WRITES: u64 = 1_000;
    let truth = Arc::new(AtomicU64::new(0));
    let read_truth = truth.clone();
    let cache: Cache<u64, u64> = builder(&ManualClock::new())
        .compute(move |_: &u64| read_truth.load(Ordering::SeqCst))
        .build()
        .unwrap();
    let (written, start) = (AtomicU64::new(0), Barrier::new(4));
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                start.wait();
                loop {
                    let before = written.load(Ordering::SeqCst);
                    let read = *cache.get_blocking(&1).unwrap();
                    assert!(read >= before, "{read} after {before} was written");
                    if before == WRITES {
                        break;
                    }
                }
            });
        }
        start.wait();
        for number in 1..=WRITES {
            truth.store(number, Ordering::SeqCst);
            match number % 3 {
                0 => cache.insert(1, number),
                1 => cache.invalidate_all(),
                _ => drop(cache.invalidate(&1)),
            }
            written.store(number, Ordering::SeqCst);
        }
    });
}

#[test]
fn a_value_read_before_a_write_stays_readable() {
    let clock = ManualClock::new();
    let cache = computing(builder(&clock), &numbering());
    let before = cache.get_blocking(&1).unwrap();
    cache.invalidate(&1);
    assert_eq!(*cache.get_blocking(&1).unwrap(), 2);
    assert_eq!(*before, 1);
}
