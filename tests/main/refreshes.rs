//! Refreshes that callers ask for: any, of one value, or from now on.

use everfresh::{Cache, Cached, ManualClock, Source};

use crate::support::gates::End;
use crate::support::*;

type Value = Cached<u64, u64>;

fn refresh_if(cache: &Cache<u64, u64>, seen: &Value) -> Reading<u64> {
    let (cache, seen) = (cache.clone(), seen.clone());
    Box::pin(async move { cache.refresh_if(&seen).await })
}

fn refresh_from_now(cache: &Cache<u64, u64>, key: u64) -> Reading<u64> {
    let cache = cache.clone();
    Box::pin(async move { cache.refresh_from_now(&key).await })
}

struct Rig {
    clock: ManualClock,
    cache: Cache<u64, u64>,
    tasks: Tasks,
    gates: Gates<u64>,
}

/// A cache in which key 1 has the value 10.
fn rig() -> Rig {
    let clock = ManualClock::new();
    let (cache, tasks, gates) = by_hand(builder(&clock).backoff(secs(1), secs(60)));
    cache.insert(1, 10);
    Rig {
        clock,
        cache,
        tasks,
        gates,
    }
}

impl Rig {
    fn seen(&self) -> Value {
        self.cache.peek(&1).unwrap()
    }

    fn end(&self, call: usize, end: End<u64>) {
        self.tasks.poll_all();
        self.gates.end(call, end);
        self.tasks.poll_all();
    }
}

#[test]
fn callers_that_saw_one_value_replace_it_once() {
    let rig = rig();
    let seen = rig.seen();
    let mut early = Vec::new();
    let mut late = 0;
    // The load takes 100 ms; the callers come 0 to 270 ms after the first.
    for caller in 0..10 {
        if caller == 4 {
            rig.end(0, End::Value(11));
        }
        let mut asked = refresh_if(&rig.cache, &seen);
        match caller < 4 {
            true => {
                assert!(is_pending(&mut asked));
                early.push(asked);
            }
            false => {
                assert_eq!(*ready(asked).unwrap(), 11);
                late += 1;
            }
        }
        rig.clock.advance(millis(30));
    }
    for asked in early {
        assert_eq!(*ready(asked).unwrap(), 11);
    }
    assert_eq!((late, rig.tasks.spawned(), *seen), (6, 1, 10));
    assert_eq!(*rig.cache.refresh_if_blocking(&seen).unwrap(), 11);
    // Of another value there is a refresh again.
    assert!(is_pending(&mut refresh_if(&rig.cache, &rig.seen())));
    assert_eq!(rig.tasks.spawned(), 2);
}

#[test]
fn a_newer_value_is_returned_at_once_and_not_as_a_read() {
    let rig = rig();
    let seen = rig.seen();
    rig.cache.insert(1, 20);
    let newer = ready(refresh_if(&rig.cache, &seen)).unwrap();
    assert_eq!((*newer, newer.source()), (20, Source::Fresh));
    // Stale, it is still newer.
    rig.clock.advance(secs(12));
    let newer = ready(refresh_if(&rig.cache, &seen)).unwrap();
    assert_eq!((*newer, newer.source()), (20, Source::Stale));
    assert_eq!((rig.cache.stats().reads(), rig.tasks.spawned()), (0, 0));
    // Past its hard limit it is loaded again.
    rig.clock.advance(secs(20));
    let mut asked = refresh_if(&rig.cache, &seen);
    assert!(is_pending(&mut asked));
    rig.end(0, End::Value(30));
    assert_eq!(*ready(asked).unwrap(), 30);
}

#[test]
fn a_refresh_of_a_value_joins_one_that_runs() {
    let rig = rig();
    rig.clock.advance(secs(12));
    assert_eq!(*rig.cache.get_blocking(&1).unwrap(), 10);
    let mut asked = refresh_if(&rig.cache, &rig.seen());
    assert!(is_pending(&mut asked));
    rig.end(0, End::Value(11));
    assert_eq!(*ready(asked).unwrap(), 11);
    assert_eq!(rig.tasks.spawned(), 1);
}

#[test]
fn a_key_that_is_gone_is_loaded_once() {
    let rig = rig();
    let seen = rig.seen();
    rig.cache.invalidate(&1);
    let mut asked = [refresh_if(&rig.cache, &seen), refresh_if(&rig.cache, &seen)];
    assert!(asked.iter_mut().all(is_pending));
    rig.end(0, End::NotFound);
    for asked in asked {
        assert!(ready(asked).unwrap_err().is_not_found());
    }
    // The answer is remembered.
    assert!(
        rig.cache
            .refresh_if_blocking(&seen)
            .unwrap_err()
            .is_not_found()
    );
    assert_eq!(rig.tasks.spawned(), 1);
}

#[test]
fn a_write_during_the_refresh_of_a_value_wins() {
    let rig = rig();
    let seen = rig.seen();
    let mut asked = refresh_if(&rig.cache, &seen);
    assert!(is_pending(&mut asked));
    rig.cache.invalidate(&1);
    // A caller that comes after the write starts a new load.
    let mut after = refresh_if(&rig.cache, &seen);
    assert!(is_pending(&mut after));
    assert_eq!(rig.tasks.spawned(), 2);
    rig.end(0, End::Value(11));
    assert_eq!(*ready(asked).unwrap(), 11);
    assert!(is_pending(&mut after));
    rig.end(1, End::Value(12));
    assert_eq!(*ready(after).unwrap(), 12);
    assert_eq!(*rig.seen(), 12);
}

#[test]
fn after_a_failure_callers_that_saw_the_value_get_its_error_until_the_backoff_is_over() {
    let rig = rig();
    let seen = rig.seen();
    let mut asked = refresh_if(&rig.cache, &seen);
    assert!(is_pending(&mut asked));
    rig.end(0, End::Fail);
    assert!(ready(asked).unwrap_err().is_load_failure());
    rig.clock.advance(millis(400));
    for _ in 0..3 {
        let error = rig.cache.refresh_if_blocking(&seen).unwrap_err();
        assert!(error.is_load_failure());
    }
    assert_eq!(*rig.cache.get_blocking(&1).unwrap(), 10);
    assert_eq!(rig.tasks.spawned(), 1);
    rig.clock.advance(millis(600));
    let mut asked = refresh_if(&rig.cache, &seen);
    assert!(is_pending(&mut asked));
    rig.end(1, End::Value(11));
    assert_eq!(*ready(asked).unwrap(), 11);
}

#[test]
fn a_refresh_that_was_not_tried_is_tried_for_a_caller_that_asks() {
    let clock = ManualClock::new();
    let cache = builder(&clock)
        .load(async |key: &u64| key * 2)
        .build()
        .unwrap();
    cache.insert(1, 10);
    clock.advance(secs(12));
    // There is no runtime for the refresh of this read.
    let seen = cache.get_blocking(&1).unwrap();
    let asked = |cache: &Cache<u64, u64>| futures_lite::future::block_on(cache.refresh_if(&seen));
    assert!(asked(&cache).unwrap_err().is_without_runtime());
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let newer = runtime.unwrap().block_on(cache.refresh_if(&seen)).unwrap();
    assert_eq!(*newer, 2);
}

#[test]
fn a_refresh_from_now_joins_no_earlier_load() {
    let rig = rig();
    let mut earlier = refresh(&rig.cache, 1);
    assert!(is_pending(&mut earlier));
    rig.tasks.poll_all();
    // These ask while that one runs, so they share the next one.
    let mut asked = [1; 3].map(|key| refresh_from_now(&rig.cache, key));
    assert!(asked.iter_mut().all(is_pending));
    assert_eq!(rig.tasks.spawned(), 1);
    rig.end(0, End::Value(11));
    assert_eq!(*ready(earlier).unwrap(), 11);
    assert!(asked.iter_mut().all(is_pending));
    assert_eq!((rig.tasks.spawned(), *rig.seen()), (2, 11));
    rig.tasks.poll_all();
    // This one asks after that began, so it is not enough for it.
    let mut later = refresh_from_now(&rig.cache, 1);
    assert!(is_pending(&mut later));
    rig.end(1, End::Value(12));
    let values = asked.map(|asked| ready(asked).unwrap());
    assert!(values.iter().all(|value| **value == 12));
    assert_eq!(values[0].source(), Source::Loaded);
    assert_eq!(values[1].source(), Source::Coalesced);
    assert!(is_pending(&mut later));
    rig.end(2, End::Value(13));
    assert_eq!(*ready(later).unwrap(), 13);
    assert_eq!(rig.tasks.spawned(), 3);
}

/// A load that waits for its turn reads the origin after the call, so one load is enough.
#[test]
fn a_refresh_from_now_joins_a_load_that_has_not_begun() {
    let clock = ManualClock::new();
    let (cache, tasks, gates) = by_hand(builder(&clock).max_loads(1));
    cache.insert(1, 10);
    assert!(is_pending(&mut get(&cache, 2)));
    tasks.poll_all();
    let mut waiting = refresh(&cache, 1);
    assert!(is_pending(&mut waiting));
    let mut asked = refresh_from_now(&cache, 1);
    assert!(is_pending(&mut asked));
    gates.end(0, End::Value(2));
    tasks.poll_all();
    assert_eq!((gates.calls(), gates.key(1)), (2, 1));
    // It has begun, so this call waits for the next load.
    let mut later = refresh_from_now(&cache, 1);
    assert!(is_pending(&mut later));
    gates.end(1, End::Value(11));
    tasks.poll_all();
    assert_eq!(*ready(waiting).unwrap(), 11);
    assert_eq!(*ready(asked).unwrap(), 11);
    assert!(is_pending(&mut later));
    tasks.poll_all();
    gates.end(2, End::Value(12));
    tasks.poll_all();
    assert_eq!(*ready(later).unwrap(), 12);
    assert_eq!(gates.calls(), 3);
}

/// The load that it joined was put off, or its turn never came. So the call tries for itself.
#[test]
fn a_refresh_from_now_loads_if_the_load_that_it_joined_never_began() {
    let clock = ManualClock::new();
    let (cache, tasks, gates) = by_hand(builder(&clock).max_loads(1).keep_late_loads(true));
    cache.insert(1, 10);
    assert!(is_pending(&mut get(&cache, 2)));
    tasks.poll_all();
    let mut waiting = refresh(&cache, 1);
    assert!(is_pending(&mut waiting));
    clock.advance(secs(29));
    let mut asked = refresh_from_now(&cache, 1);
    assert!(is_pending(&mut asked));
    clock.advance(secs(1));
    assert!(ready(waiting).unwrap_err().is_timeout());
    assert!(is_pending(&mut asked));
    gates.end(0, End::Value(2));
    tasks.poll_all();
    assert_eq!((gates.calls(), gates.key(1)), (2, 1));
    gates.end(1, End::Value(11));
    tasks.poll_all();
    assert_eq!(*ready(asked).unwrap(), 11);
}

#[test]
fn a_refresh_from_now_starts_at_once_if_no_load_runs() {
    let rig = rig();
    let mut asked = refresh_from_now(&rig.cache, 1);
    assert!(is_pending(&mut asked));
    rig.end(0, End::Fail);
    assert!(ready(asked).unwrap_err().is_load_failure());
    // It does not wait for the backoff either, nor for that of a missing key.
    for (call, key) in [(1, 1), (2, 2), (3, 2)] {
        let mut asked = refresh_from_now(&rig.cache, key);
        assert!(is_pending(&mut asked));
        rig.end(call, End::Fail);
        assert!(ready(asked).unwrap_err().is_load_failure());
    }
    assert_eq!(*rig.seen(), 10);
}

#[test]
fn a_refresh_from_now_of_a_key_that_is_being_loaded_loads_again() {
    for end in [End::Value(1), End::NotFound, End::Fail, End::Panic] {
        let rig = rig();
        let mut first = get(&rig.cache, 5);
        assert!(is_pending(&mut first));
        rig.tasks.poll_all();
        let mut asked = refresh_from_now(&rig.cache, 5);
        assert!(is_pending(&mut asked));
        rig.end(0, end);
        assert_eq!(ready(first).is_ok(), end == End::Value(1));
        assert!(is_pending(&mut asked));
        rig.end(1, End::Value(2));
        assert_eq!(*ready(asked).unwrap(), 2);
    }
}

#[test]
fn a_refresh_from_now_outlives_a_load_that_hangs() {
    let rig = rig();
    let mut hung = refresh(&rig.cache, 1);
    assert!(is_pending(&mut hung));
    rig.tasks.poll_all();
    let mut asked = refresh_from_now(&rig.cache, 1);
    assert!(is_pending(&mut asked));
    rig.clock.advance(secs(31));
    assert!(ready(hung).unwrap_err().is_timeout());
    assert!(is_pending(&mut asked));
    rig.tasks.poll_all();
    let last = rig.gates.calls() - 1;
    rig.end(last, End::Value(12));
    assert_eq!(*ready(asked).unwrap(), 12);
}

/// A load that began before a refresh from now ends after its deadline, while the load of that
/// refresh runs. The first result counts, but it is not enough for the refresh.
#[test]
fn a_late_result_of_an_earlier_load_is_not_enough_for_a_refresh_from_now() {
    for (late, answer) in [(End::Value(11), Some(11)), (End::NotFound, None)] {
        let clock = ManualClock::new();
        let settings = builder(&clock)
            .backoff(secs(1), secs(60))
            .keep_late_loads(true);
        let (cache, tasks, gates) = by_hand(settings);
        let end = |call, end| {
            gates.end(call, end);
            tasks.poll_all();
        };
        cache.insert(1, 10);
        let mut slow = refresh(&cache, 1);
        assert!(is_pending(&mut slow));
        tasks.poll_all();
        clock.advance(secs(31));
        assert!(ready(slow).unwrap_err().is_timeout());
        let mut asked = refresh_from_now(&cache, 1);
        let mut other = refresh(&cache, 1);
        assert!(is_pending(&mut asked) && is_pending(&mut other));
        tasks.poll_all();
        assert_eq!(gates.calls(), 2);
        end(0, late);
        let other = ready(other);
        assert_eq!(other.as_ref().ok().map(|value| **value), answer);
        assert!(other.map_or_else(|error| error.is_not_found(), |_| true));
        assert!(is_pending(&mut asked));
        tasks.poll_all();
        end(2, End::Value(12));
        assert_eq!(*ready(asked).unwrap(), 12);
        assert_eq!(*cache.peek(&1).unwrap(), 12);
    }
}

#[test]
fn a_write_during_a_refresh_from_now_wins_and_its_caller_gets_its_own_load() {
    let rig = rig();
    let mut asked = refresh_from_now(&rig.cache, 1);
    assert!(is_pending(&mut asked));
    rig.cache.insert(1, 20);
    rig.end(0, End::Value(11));
    assert_eq!((*ready(asked).unwrap(), *rig.seen()), (11, 20));
}

#[test]
fn every_form_of_a_refresh_may_run_in_a_task() {
    fn is_send<T: Send>(_: &T) {}
    let Rig { cache, .. } = rig();
    let seen = cache.peek(&1).unwrap();
    is_send(&cache.refresh(&1));
    is_send(&cache.refresh_if(&seen));
    is_send(&cache.refresh_from_now(&1));
}

#[test]
fn negative_answers_are_no_misses() {
    let clock = ManualClock::new();
    let cache: Cache<u64, u64> = builder(&clock)
        .not_found_for(secs(60))
        .try_compute(|key: &u64| match key {
            1 => Ok(None),
            2 => Err("the origin is down"),
            _ => Ok(Some(*key)),
        })
        .build()
        .unwrap();
    cache.get_blocking(&3).unwrap();
    for _ in 0..1_000 {
        assert!(cache.get_blocking(&1).unwrap_err().is_not_found());
        assert!(cache.get_blocking(&2).unwrap_err().is_load_failure());
        cache.get_blocking(&3).unwrap();
    }
    let stats = cache.stats();
    assert_eq!((stats.misses, stats.negative), (3, 2 * 999));
    assert_eq!((stats.fresh, stats.reads()), (1_000, 3_001));
    assert_eq!(stats.hit_ratio(), 1_000.0 / 1_003.0);
    assert!(stats.to_string().contains("1998 negative answers"));
}
