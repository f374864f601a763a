//! Loads that are under way when their group is invalidated: earlier callers get the old answer,
//! later ones start a new load.

use everfresh::{Builder, Cache, Error, ManualClock, Source};

use crate::support::gates::{End, Gates};
use crate::support::*;

const GROUP: u64 = 7;

/// Whether the cache knows the group by the key, or only the loader does.
const BY_KEY: [bool; 2] = [true, false];

fn grouped(clock: &ManualClock, by_key: bool) -> Builder<u64, u64> {
    match by_key {
        true => builder(clock).group_by(|_| [GROUP]),
        false => builder(clock),
    }
}

/// A value with the group, which counts twice if the key has it as well.
fn end(tasks: &Tasks, gates: &Gates<u64>, call: usize, value: u64) {
    gates.end(call, End::Grouped(value, GROUP));
    tasks.poll_all();
}

/// A caller that waits for a load.
fn waiting(cache: &Cache<u64, u64>, tasks: &Tasks) -> Reading<u64> {
    let mut read = get(cache, 1);
    assert!(is_pending(&mut read));
    tasks.poll_all();
    read
}

#[test]
fn a_cold_load_is_discarded_and_earlier_callers_get_its_answer() {
    for by_key in BY_KEY {
        let clock = ManualClock::new();
        let (cache, tasks, gates) = by_hand(grouped(&clock, by_key));
        let earlier = [waiting(&cache, &tasks), waiting(&cache, &tasks)];
        cache.invalidate_group(GROUP);
        end(&tasks, &gates, 0, 10);
        let [first, second] = earlier.map(ready);
        assert_eq!(*first.unwrap(), 10, "the caller that began the load");
        assert_eq!(*second.unwrap(), 10, "a caller that joined it");
        assert!(!cache.contains_key(&1));
        let next = waiting(&cache, &tasks);
        end(&tasks, &gates, 1, 11);
        assert_eq!(*ready(next).unwrap(), 11);
        assert_eq!(*cache.peek(&1).unwrap(), 11);
    }
}

#[test]
fn a_later_caller_gets_no_answer_of_an_earlier_load() {
    for by_key in BY_KEY {
        let clock = ManualClock::new();
        let (cache, tasks, gates) = by_hand(grouped(&clock, by_key));
        let earlier = waiting(&cache, &tasks);
        cache.invalidate_group(GROUP);
        let mut later = [waiting(&cache, &tasks), waiting(&cache, &tasks)];
        // If the groups are known, the second load does not wait for the first, which may hang.
        assert_eq!(gates.calls(), if by_key { 2 } else { 1 });
        end(&tasks, &gates, 0, 10);
        assert_eq!(*ready(earlier).unwrap(), 10);
        assert!(later.iter_mut().all(is_pending));
        tasks.poll_all();
        assert_eq!(gates.calls(), 2, "one load for both");
        end(&tasks, &gates, 1, 11);
        for read in later {
            assert_eq!(*ready(read).unwrap(), 11);
        }
        assert_eq!(*cache.peek(&1).unwrap(), 11);
        assert_eq!(cache.len(), 1);
    }
}

#[test]
fn a_caller_that_comes_later_starts_at_most_one_more_load() {
    let clock = ManualClock::new();
    let (cache, tasks, gates) = by_hand(grouped(&clock, false));
    let _earlier = waiting(&cache, &tasks);
    cache.invalidate_group(GROUP);
    let mut later = waiting(&cache, &tasks);
    end(&tasks, &gates, 0, 10);
    assert!(is_pending(&mut later));
    tasks.poll_all();
    // Invalidated again while it runs: this caller waited already.
    cache.invalidate_group(GROUP);
    end(&tasks, &gates, 1, 11);
    assert_eq!(*ready(later).unwrap(), 11);
    assert!(!cache.contains_key(&1));
    assert_eq!(gates.calls(), 2);
}

#[test]
fn a_load_that_begins_after_the_invalidation_counts() {
    for by_key in BY_KEY {
        let clock = ManualClock::new();
        let (cache, tasks, gates) = by_hand(grouped(&clock, by_key));
        let mut first = get(&cache, 1);
        assert!(is_pending(&mut first));
        // The load has not begun yet.
        cache.invalidate_group(GROUP);
        let second = waiting(&cache, &tasks);
        end(&tasks, &gates, 0, 10);
        for read in [first, second] {
            assert_eq!(*ready(read).unwrap(), 10);
        }
        assert_eq!(*cache.peek(&1).unwrap(), 10);
        assert_eq!(gates.calls(), 1);
    }
}

#[test]
fn a_refresh_is_discarded() {
    for by_key in BY_KEY {
        for read_meanwhile in [true, false] {
            let clock = ManualClock::new();
            let (cache, tasks, gates) = by_hand(grouped(&clock, by_key));
            cache.insert(1, everfresh::Loaded::new(5).group(GROUP));
            clock.advance(secs(12));
            assert_eq!(ready(get(&cache, 1)).unwrap().source(), Source::Stale);
            tasks.poll_all();
            cache.invalidate_group(GROUP);
            let meanwhile = read_meanwhile.then(|| waiting(&cache, &tasks));
            assert_eq!(gates.calls(), if read_meanwhile { 2 } else { 1 });
            end(&tasks, &gates, 0, 10);
            assert!(!cache.contains_key(&1));
            match meanwhile {
                Some(read) => {
                    assert_eq!(cache.stats().discarded_overtaken, 1);
                    end(&tasks, &gates, 1, 11);
                    assert_eq!(*ready(read).unwrap(), 11);
                }
                None => {
                    let next = waiting(&cache, &tasks);
                    end(&tasks, &gates, 1, 11);
                    assert_eq!(*ready(next).unwrap(), 11);
                }
            }
            assert_eq!(*cache.peek(&1).unwrap(), 11);
        }
    }
}

#[test]
fn a_refresh_that_is_asked_for_joins_no_earlier_load() {
    let clock = ManualClock::new();
    let (cache, tasks, gates) = by_hand(grouped(&clock, true));
    let _earlier = waiting(&cache, &tasks);
    cache.invalidate_group(GROUP);
    let mut refreshing = refresh(&cache, 1);
    assert!(is_pending(&mut refreshing));
    tasks.poll_all();
    assert_eq!(gates.calls(), 2);
    end(&tasks, &gates, 0, 10);
    assert!(is_pending(&mut refreshing));
    end(&tasks, &gates, 1, 11);
    assert_eq!(*ready(refreshing).unwrap(), 11);
}

#[test]
fn an_answer_without_a_value_of_an_earlier_load_is_not_remembered() {
    for how in [End::NotFound, End::Fail] {
        let clock = ManualClock::new();
        let (cache, tasks, gates) = by_hand(grouped(&clock, true));
        let earlier = waiting(&cache, &tasks);
        cache.invalidate_group(GROUP);
        gates.end(0, how);
        tasks.poll_all();
        assert!(ready(earlier).is_err());
        let next = waiting(&cache, &tasks);
        end(&tasks, &gates, 1, 11);
        assert_eq!(*ready(next).unwrap(), 11);
    }
}

#[test]
fn a_late_result_is_not_served_after_the_invalidation() {
    for by_key in BY_KEY {
        let clock = ManualClock::new();
        let settings = grouped(&clock, by_key)
            .load_timeout(secs(5))
            .keep_late_loads(true);
        let (cache, tasks, gates) = by_hand(settings);
        let late = waiting(&cache, &tasks);
        clock.advance(secs(5));
        assert!(ready(late).unwrap_err().is_timeout());
        clock.advance(millis(100));
        cache.invalidate_group(GROUP);
        // This caller takes over, or begins anew.
        let mut next = waiting(&cache, &tasks);
        assert_eq!(gates.calls(), 2);
        end(&tasks, &gates, 0, 10);
        assert!(
            is_pending(&mut next),
            "a late result from before the invalidation"
        );
        assert!(!cache.contains_key(&1));
        tasks.poll_all();
        (1..gates.calls()).for_each(|call| end(&tasks, &gates, call, 11));
        assert_eq!(*ready(next).unwrap(), 11);
        assert_eq!(*cache.peek(&1).unwrap(), 11);
    }
}

#[test]
fn a_stale_value_does_not_stand_in_for_a_failure_after_the_invalidation() {
    let clock = ManualClock::new();
    let (cache, tasks, gates) = by_hand(grouped(&clock, true).stale_if_error_for(secs(100)));
    cache.insert(1, 5);
    clock.advance(secs(40));
    // It waits, and the old value may be served if the refresh fails.
    let waits = waiting(&cache, &tasks);
    cache.invalidate_group(GROUP);
    gates.end(0, End::Fail);
    tasks.poll_all();
    let answer: Result<_, Error> = ready(waits);
    assert!(answer.unwrap_err().is_load_failure());
}

#[test]
fn a_group_function_that_panics_strands_no_caller() {
    let clock = ManualClock::new();
    let (cache, tasks, gates) = by_hand(builder(&clock).group_by(|key| match key {
        1 => panic!("no group"),
        _ => [GROUP],
    }));
    let first = waiting(&cache, &tasks);
    cache.invalidate_group(GROUP);
    let second = waiting(&cache, &tasks);
    end(&tasks, &gates, 0, 10);
    assert!(ready(first).unwrap_err().is_panic());
    assert!(ready(second).unwrap_err().is_panic());
}
