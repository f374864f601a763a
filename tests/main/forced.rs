//! The least time between loads that callers force.

use everfresh::{Cache, Fresh, ManualClock, Source};

use crate::support::gates::{End, numbering};
use crate::support::*;

/// Loads that callers force come every 10 s at most; values are fresh for an hour.
fn limited(clock: &ManualClock) -> (Cache<u64, u64>, Tasks, Gates<u64>) {
    let builder = builder(clock)
        .fresh_for(secs(3_600))
        .backoff(millis(10), millis(10))
        .forced_at_most_every(secs(10));
    by_hand(builder)
}

fn end(tasks: &Tasks, gates: &Gates<u64>, call: usize, end: End<u64>) {
    tasks.poll_all();
    gates.end(call, end);
    tasks.poll_all();
}

/// A set of signing keys: the id is known if it is at most 2.
fn signing_keys(
    clock: &ManualClock,
    loader: &everfresh::CountingLoader<(), Vec<u64>>,
) -> Fresh<Vec<u64>> {
    let loader = loader.clone();
    Fresh::builder()
        .clock(clock)
        .fresh_for(secs(3_600))
        .stale_for(secs(86_400))
        .forced_at_most_every(secs(10))
        .try_compute(move |key: &()| loader.compute(key))
        .build_fresh()
        .unwrap()
}

fn is_known(keys: &Fresh<Vec<u64>>, id: u64) -> bool {
    let has = |keys: &Vec<u64>| keys.contains(&id);
    has(&keys.get_blocking().unwrap()) || keys.refresh_blocking().is_ok_and(|keys| has(&keys))
}

#[test]
fn a_thousand_made_up_key_ids_cause_one_load() {
    let clock = ManualClock::new();
    let loader = everfresh::CountingLoader::new(|_: &()| vec![1, 2]);
    let keys = signing_keys(&clock, &loader);
    assert!(is_known(&keys, 1));
    assert_eq!(loader.calls(), 1);
    clock.advance(secs(60));
    for request in 0..1_000 {
        assert!(!is_known(&keys, 1_000 + request));
        assert!(is_known(&keys, 2), "a known id fails");
        clock.advance(millis(1));
    }
    assert_eq!(loader.calls(), 2, "one load for all of them");
}

#[test]
fn a_thousand_made_up_key_ids_fail_no_known_one_while_the_origin_is_down() {
    let clock = ManualClock::new();
    let loader = everfresh::CountingLoader::new(|_: &()| vec![1, 2]);
    let keys = signing_keys(&clock, &loader);
    assert!(is_known(&keys, 1));
    clock.advance(secs(60));
    loader.fail_next(usize::MAX);
    for request in 0..1_000 {
        assert!(!is_known(&keys, 1_000 + request));
        assert!(is_known(&keys, 2), "a known id fails");
        clock.advance(millis(1));
    }
    assert_eq!(loader.calls(), 2, "one attempt for all of them");
}

#[test]
fn the_first_load_counts_too() {
    let clock = ManualClock::new();
    let loader = everfresh::CountingLoader::new(|_: &()| vec![1, 2]);
    let keys = signing_keys(&clock, &loader);
    for request in 0..1_000 {
        assert!(!is_known(&keys, 1_000 + request));
        clock.advance(millis(1));
    }
    assert_eq!(loader.calls(), 1);
}

#[test]
fn callers_at_once_force_one_load() {
    let clock = ManualClock::new();
    let loader = numbering();
    let cache = {
        let builder = builder(&clock).forced_at_most_every(secs(10));
        computing(builder, &loader)
    };
    assert_eq!(*cache.get_blocking(&1).unwrap(), 1);
    clock.advance(secs(10));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..125 {
                    assert_eq!(*cache.refresh_blocking(&1).unwrap(), 2);
                }
            });
        }
    });
    assert_eq!(loader.calls(), 2);
}

#[test]
fn callers_at_once_force_one_attempt_that_fails() {
    let clock = ManualClock::new();
    let loader = numbering();
    let cache = {
        let builder = builder(&clock).forced_at_most_every(secs(10));
        computing(builder, &loader)
    };
    loader.fail_next(usize::MAX);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..125 {
                    let error = cache.refresh_blocking(&1).unwrap_err();
                    assert!(error.is_load_failure(), "{error}");
                }
            });
        }
    });
    assert_eq!(loader.calls(), 1);
}

#[test]
fn a_refresh_too_soon_gets_the_value_at_hand() {
    let clock = ManualClock::new();
    let (cache, tasks, gates) = limited(&clock);
    cache.insert(1, 10);
    clock.advance(secs(10) - NANO);
    let at_hand = ready(refresh(&cache, 1)).unwrap();
    assert_eq!((*at_hand, at_hand.source()), (10, Source::Fresh));
    clock.advance(NANO);
    let mut due = refresh(&cache, 1);
    assert!(is_pending(&mut due));
    // A load under way is joined.
    let mut joined = refresh(&cache, 1);
    assert!(is_pending(&mut joined));
    end(&tasks, &gates, 0, End::Value(11));
    assert_eq!((*ready(due).unwrap(), *ready(joined).unwrap()), (11, 11));
    assert_eq!(*ready(refresh(&cache, 1)).unwrap(), 11);
    assert_eq!(gates.calls(), 1);
}

#[test]
fn after_a_failure_the_old_value_is_at_hand() {
    let clock = ManualClock::new();
    let (cache, tasks, gates) = limited(&clock);
    cache.insert(1, 10);
    clock.advance(secs(20));
    let mut due = refresh(&cache, 1);
    assert!(is_pending(&mut due));
    end(&tasks, &gates, 0, End::Fail);
    assert!(ready(due).unwrap_err().is_load_failure());
    // The backoff is over long before the limit.
    clock.advance(secs(9));
    assert_eq!(*ready(refresh(&cache, 1)).unwrap(), 10);
    let seen = cache.peek(&1).unwrap();
    let refresh_if = cache.refresh_if(&seen);
    assert_eq!(*ready(Box::pin(refresh_if)).unwrap(), 10);
    assert_eq!(gates.calls(), 1);
    clock.advance(secs(1));
    assert!(is_pending(&mut refresh(&cache, 1)));
    tasks.poll_all();
    assert_eq!(gates.calls(), 2);
}

#[test]
fn without_a_value_the_error_is_remembered_beyond_its_backoff() {
    let clock = ManualClock::new();
    let (cache, tasks, gates) = limited(&clock);
    let mut first = refresh(&cache, 1);
    assert!(is_pending(&mut first));
    end(&tasks, &gates, 0, End::Fail);
    assert!(ready(first).unwrap_err().is_load_failure());
    clock.advance(secs(9));
    assert!(ready(refresh(&cache, 1)).unwrap_err().is_load_failure());
    assert_eq!(gates.calls(), 1);
    // A plain read goes by the backoff alone.
    let mut read = get(&cache, 1);
    assert!(is_pending(&mut read));
    end(&tasks, &gates, 1, End::NotFound);
    assert!(ready(read).unwrap_err().is_not_found());
    clock.advance(secs(9));
    assert!(ready(refresh(&cache, 1)).unwrap_err().is_not_found());
    clock.advance(secs(1));
    let mut due = refresh(&cache, 1);
    assert!(is_pending(&mut due));
    end(&tasks, &gates, 2, End::Value(11));
    assert_eq!(*ready(due).unwrap(), 11);
}

#[test]
fn keys_are_limited_one_by_one() {
    let clock = ManualClock::new();
    let (cache, tasks, _gates) = limited(&clock);
    for key in 0..5 {
        assert!(is_pending(&mut refresh(&cache, key)));
    }
    assert_eq!(tasks.spawned(), 5);
}

#[test]
fn a_read_that_wants_a_young_value_is_limited_too() {
    let clock = ManualClock::new();
    let (cache, tasks, gates) = limited(&clock);
    let read = || -> Reading<u64> {
        let cache = cache.clone();
        Box::pin(async move { cache.read(&1).max_age(secs(1)).await })
    };
    cache.insert(1, 10);
    clock.advance(secs(9));
    assert_eq!(*ready(read()).unwrap(), 10, "younger than the limit");
    clock.advance(secs(1));
    let mut due = read();
    assert!(is_pending(&mut due));
    end(&tasks, &gates, 0, End::Fail);
    assert!(ready(due).unwrap_err().is_load_failure());
    // Its value is older than both limits, so it gets the error of the attempt.
    clock.advance(secs(9));
    assert!(ready(read()).unwrap_err().is_load_failure());
    assert_eq!(gates.calls(), 1);
    assert_eq!(*ready(refresh(&cache, 1)).unwrap(), 10);
    clock.advance(secs(1));
    assert!(is_pending(&mut read()));
}

#[test]
fn a_load_that_must_begin_after_the_call_is_not_limited() {
    let clock = ManualClock::new();
    let (cache, tasks, _gates) = limited(&clock);
    cache.insert(1, 10);
    let mut now: Reading<u64> = {
        let cache = cache.clone();
        Box::pin(async move { cache.refresh_from_now(&1).await })
    };
    assert!(is_pending(&mut now));
    assert_eq!(tasks.spawned(), 1);
}

#[test]
fn refreshes_of_readers_are_not_limited() {
    let clock = ManualClock::new();
    let builder = builder(&clock).forced_at_most_every(secs(100));
    let (cache, tasks, gates) = by_hand(builder);
    cache.insert(1, 10);
    clock.advance(secs(11));
    assert_eq!(*ready(get(&cache, 1)).unwrap(), 10);
    end(&tasks, &gates, 0, End::Value(11));
    assert_eq!(*ready(get(&cache, 1)).unwrap(), 11);
}

#[test]
fn an_expired_value_is_none_at_hand() {
    let clock = ManualClock::new();
    let builder = builder(&clock)
        .backoff(millis(10), millis(10))
        .forced_at_most_every(secs(100));
    let (cache, tasks, gates) = by_hand(builder);
    let read = || -> Reading<u64> {
        let cache = cache.clone();
        Box::pin(async move { cache.read(&1).max_age(secs(1)).await })
    };
    cache.insert(1, 10);
    // Past its hard limit, and younger than the limit on forced loads.
    clock.advance(secs(31));
    let mut first = read();
    assert!(is_pending(&mut first));
    end(&tasks, &gates, 0, End::Fail);
    assert!(ready(first).unwrap_err().is_load_failure());
    clock.advance(secs(1));
    assert!(ready(read()).unwrap_err().is_load_failure());
    assert!(ready(refresh(&cache, 1)).unwrap_err().is_load_failure());
    assert_eq!(gates.calls(), 1);
}

#[test]
fn a_value_that_was_forced_ends_the_earlier_answer_not_found() {
    let clock = ManualClock::new();
    let builder = builder(&clock)
        .not_found_for(secs(100))
        .forced_at_most_every(secs(10));
    let (cache, tasks, gates) = by_hand(builder);
    let mut first = get(&cache, 1);
    assert!(is_pending(&mut first));
    end(&tasks, &gates, 0, End::NotFound);
    assert!(ready(first).unwrap_err().is_not_found());
    clock.advance(secs(10));
    let mut forced = refresh(&cache, 1);
    assert!(is_pending(&mut forced));
    end(&tasks, &gates, 1, End::Grouped(10, 7));
    assert_eq!(*ready(forced).unwrap(), 10);
    cache.invalidate_group(7);
    let mut next = get(&cache, 1);
    assert!(is_pending(&mut next));
    end(&tasks, &gates, 2, End::Value(11));
    assert_eq!(*ready(next).unwrap(), 11);
}

#[test]
fn the_limit_counts_from_the_beginning_of_an_attempt_without_a_value() {
    let clock = ManualClock::new();
    let (cache, tasks, gates) = limited(&clock);
    let mut first = get(&cache, 1);
    assert!(is_pending(&mut first));
    tasks.poll_all();
    clock.advance(secs(4));
    end(&tasks, &gates, 0, End::Fail);
    assert!(ready(first).unwrap_err().is_load_failure());
    clock.advance(secs(5));
    assert!(ready(refresh(&cache, 1)).unwrap_err().is_load_failure());
    clock.advance(secs(1));
    assert!(is_pending(&mut refresh(&cache, 1)));
}
