//! Loads past their deadline that go on: the first result of an entry counts, unless its key was
//! written since.

use everfresh::{Builder, ManualClock};

use crate::support::gates::{End, Gates};
use crate::support::*;

fn end(tasks: &Tasks, gates: &Gates<u64>, call: usize, end: End<u64>) {
    gates.end(call, end);
    tasks.poll_all();
}

/// A time limit of 5 s for loads, and no loads dropped.
fn kept(clock: &ManualClock) -> Builder<u64, u64> {
    builder(clock).load_timeout(secs(5)).keep_late_loads(true)
}

/// Longer than the first backoff, and shorter than a load may take.
const RESTED: std::time::Duration = std::time::Duration::from_millis(100);

#[test]
fn the_first_result_wins_and_later_ones_are_discarded() {
    let clock = ManualClock::new();
    let (cache, tasks, gates) = by_hand(kept(&clock));
    let mut hung = get(&cache, 1);
    assert!(is_pending(&mut hung));
    tasks.poll_all();
    clock.advance(secs(5));
    assert!(ready(hung).unwrap_err().is_timeout());
    clock.advance(RESTED);
    let mut next = get(&cache, 1);
    assert!(is_pending(&mut next));
    tasks.poll_all();
    assert_eq!(gates.calls(), 2);
    end(&tasks, &gates, 0, End::Value(10));
    assert_eq!(*ready(next).unwrap(), 10, "callers of the next load get it");
    assert_eq!(*cache.get_if_present(&1).unwrap(), 10);
    end(&tasks, &gates, 1, End::Value(11));
    assert_eq!(*cache.get_if_present(&1).unwrap(), 10);
    let stats = cache.stats();
    assert_eq!((stats.discarded_taken_over, stats.published), (1, 1));
    assert_eq!((stats.timed_out, stats.late_published), (1, 1));
    assert_eq!((stats.loads, cache.len()), (2, 1));
}

#[test]
fn a_late_answer_that_the_key_has_no_value_wins_too() {
    let clock = ManualClock::new();
    let (cache, tasks, gates) = by_hand(kept(&clock));
    assert!(is_pending(&mut get(&cache, 1)));
    tasks.poll_all();
    clock.advance(secs(5));
    clock.advance(RESTED);
    let mut next = get(&cache, 1);
    assert!(is_pending(&mut next));
    tasks.poll_all();
    end(&tasks, &gates, 0, End::NotFound);
    assert!(ready(next).unwrap_err().is_not_found());
    assert!(ready(get(&cache, 1)).unwrap_err().is_not_found());
    end(&tasks, &gates, 1, End::Value(11));
    assert!(cache.get_if_present(&1).is_none());
    let stats = cache.stats();
    assert_eq!((stats.late_published, stats.discarded_taken_over), (1, 1));
}

#[test]
fn a_write_since_the_load_began_beats_its_late_result() {
    let clock = ManualClock::new();
    let (cache, tasks, gates) = by_hand(kept(&clock));
    for key in 0..3 {
        assert!(is_pending(&mut get(&cache, key)));
    }
    tasks.poll_all();
    clock.advance(secs(5));
    cache.insert(0, 1);
    cache.invalidate(&1);
    cache.invalidate_all();
    for call in 0..3 {
        end(&tasks, &gates, call, End::Value(10));
    }
    assert!((0..3).all(|key| cache.get_if_present(&key).is_none()));
    let stats = cache.stats();
    assert_eq!((stats.late_published, stats.late_discarded), (0, 3));
}

#[test]
fn a_late_failure_changes_nothing() {
    let clock = ManualClock::new();
    for late in [End::Fail, End::Panic] {
        let (cache, tasks, gates) = by_hand(kept(&clock));
        assert!(is_pending(&mut get(&cache, 1)));
        tasks.poll_all();
        clock.advance(secs(5));
        end(&tasks, &gates, 0, late);
        assert!(ready(get(&cache, 1)).is_err(), "the key rests");
        clock.advance(RESTED);
        let mut next = get(&cache, 1);
        assert!(is_pending(&mut next), "no longer than after the time-out");
        tasks.poll_all();
        end(&tasks, &gates, 1, End::Value(11));
        assert_eq!(*ready(next).unwrap(), 11);
    }
}

/// The origin lends ten connections, and one key hangs.
#[test]
fn a_late_result_after_its_successor_is_discarded() {
    let clock = ManualClock::new();
    let (cache, tasks, gates) = by_hand(kept(&clock));
    for late in [End::Value(10), End::NotFound, End::Fail, End::Panic] {
        cache.invalidate_all();
        let first = gates.calls();
        assert!(is_pending(&mut get(&cache, 1)));
        tasks.poll_all();
        clock.advance(secs(5));
        clock.advance(RESTED);
        assert!(is_pending(&mut get(&cache, 1)));
        tasks.poll_all();
        end(&tasks, &gates, first + 1, End::Value(11));
        end(&tasks, &gates, first, late);
        assert_eq!(*cache.get_if_present(&1).unwrap(), 11);
    }
    let stats = cache.stats();
    assert_eq!((stats.discarded_taken_over, stats.late_discarded), (1, 2));
}

#[test]
fn a_late_result_is_published_if_no_caller_took_over() {
    let clock = ManualClock::new();
    let (cache, tasks, gates) = by_hand(kept(&clock));
    let mut hung = get(&cache, 1);
    assert!(is_pending(&mut hung));
    tasks.poll_all();
    clock.advance(secs(7));
    assert!(ready(&mut hung).unwrap_err().is_timeout());
    end(&tasks, &gates, 0, End::Value(10));
    assert_eq!(*cache.get_if_present(&1).unwrap(), 10);
}
