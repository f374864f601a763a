//! Reads on terms of their own: age, wait, refresh.

use everfresh::{Cache, Freshness, ManualClock, ReadTerms, Source};

use crate::support::gates::End;
use crate::support::*;

struct Rig {
    clock: ManualClock,
    cache: Cache<u64, u64>,
    tasks: Tasks,
    gates: Gates<u64>,
}

/// Key 1 has the value 10, made at 0 s: fresh until 10 s, stale until 30 s, stale-if-error until
/// 50 s.
fn rig() -> Rig {
    let clock = ManualClock::new();
    let builder = builder(&clock)
        .stale_if_error_for(secs(40))
        .load_timeout(secs(1_000))
        .backoff(secs(2), secs(2));
    let (cache, tasks, gates) = by_hand(builder);
    cache.insert(1, 10);
    Rig {
        clock,
        cache,
        tasks,
        gates,
    }
}

type Terms<'a> = ReadTerms<'a, u64, u64>;

impl Rig {
    fn read(&self, set: impl Fn(Terms<'_>) -> Terms<'_> + Send + 'static) -> Reading<u64> {
        let cache = self.cache.clone();
        Box::pin(async move { set(cache.read(&1)).await })
    }

    fn older_than(&self, seconds: u64) -> Reading<u64> {
        self.read(move |terms| terms.max_age(secs(seconds)))
    }

    fn within(&self, seconds: u64) -> Reading<u64> {
        self.read(move |terms| terms.wait_at_most(secs(seconds)))
    }

    fn end(&self, call: usize, end: End<u64>) {
        self.tasks.poll_all();
        self.gates.end(call, end);
        self.tasks.poll_all();
    }
}

#[test]
fn without_terms_it_is_a_get() {
    let rig = rig();
    let hit = ready(rig.read(|terms| terms)).unwrap();
    assert_eq!((*hit, hit.source()), (10, Source::Fresh));
    assert_eq!(*rig.cache.read(&1).blocking().unwrap(), 10);
    rig.clock.advance(secs(10));
    assert_eq!(*ready(rig.read(|terms| terms)).unwrap(), 10);
    assert_eq!(rig.tasks.spawned(), 1, "one refresh");
    let stats = rig.cache.stats();
    assert_eq!((stats.fresh, stats.stale, stats.misses), (2, 1, 0));
    drop(rig.cache.read(&7).max_age(secs(1)));
    assert_eq!(rig.tasks.spawned(), 1, "terms alone do nothing");
}

#[test]
fn a_value_young_enough_is_a_hit_and_an_older_one_is_waited_for() {
    let rig = rig();
    rig.clock.advance(secs(5));
    let hit = ready(rig.older_than(5)).unwrap();
    assert_eq!((*hit, hit.source()), (10, Source::Fresh));
    let mut reads = [rig.older_than(4), rig.older_than(0)];
    assert!(reads.iter_mut().all(is_pending));
    assert_eq!(rig.tasks.spawned(), 1, "both wait for one load");
    let other = ready(get(&rig.cache, 1)).unwrap();
    assert_eq!((*other, other.source()), (10, Source::Fresh));
    rig.end(0, End::Value(11));
    let [first, second] = reads.map(|read| ready(read).unwrap());
    assert_eq!((*first, first.source()), (11, Source::Loaded));
    assert_eq!((*second, second.source()), (11, Source::Coalesced));
    assert_eq!(rig.gates.previous(0), Some(10));
}

#[test]
fn a_refresh_under_way_is_joined() {
    let rig = rig();
    rig.clock.advance(secs(11));
    assert_eq!(*ready(get(&rig.cache, 1)).unwrap(), 10);
    let mut read = rig.older_than(1);
    assert!(is_pending(&mut read));
    assert_eq!(rig.tasks.spawned(), 1);
    rig.end(0, End::Value(11));
    assert_eq!(*ready(read).unwrap(), 11);
}

#[test]
fn a_failure_is_the_error_of_the_caller_and_others_keep_the_value() {
    let rig = rig();
    rig.clock.advance(secs(5));
    let mut read = rig.older_than(1);
    assert!(is_pending(&mut read));
    rig.end(0, End::Fail);
    assert!(ready(read).unwrap_err().is_load_failure());
    let other = ready(get(&rig.cache, 1)).unwrap();
    assert_eq!((*other, other.source()), (10, Source::Fresh));
    // The key rests: no load, and the same error.
    assert!(ready(rig.older_than(1)).unwrap_err().is_load_failure());
    assert_eq!(rig.tasks.spawned(), 1);
    // A caller that accepts the old value gets it.
    assert_eq!(*ready(rig.older_than(5)).unwrap(), 10);
    rig.clock.advance(secs(2));
    let mut read = rig.older_than(1);
    assert!(is_pending(&mut read));
    rig.end(1, End::Value(12));
    assert_eq!(*ready(read).unwrap(), 12);
}

#[test]
fn a_missing_key_is_loaded_whatever_the_age() {
    let rig = rig();
    rig.cache.invalidate(&1);
    let mut read = rig.older_than(0);
    assert!(is_pending(&mut read));
    rig.end(0, End::Value(11));
    assert_eq!(*ready(read).unwrap(), 11);
}

#[test]
fn an_old_value_of_a_closed_cache_is_an_error_only_for_callers_that_want_a_younger() {
    let rig = rig();
    rig.clock.advance(secs(5));
    assert!(rig.cache.close_blocking().is_ok());
    assert!(ready(rig.older_than(1)).unwrap_err().is_closed());
    assert_eq!(*ready(rig.older_than(5)).unwrap(), 10);
}

#[test]
fn a_wait_ends_with_the_value_that_may_still_be_served() {
    let rig = rig();
    // Past the first stale window, where `get` waits for the refresh.
    rig.clock.advance(secs(35));
    let mut read = rig.within(3);
    assert!(is_pending(&mut read));
    assert_eq!(rig.tasks.spawned(), 1);
    rig.clock.advance(secs(3) - NANO);
    assert!(is_pending(&mut read));
    rig.clock.advance(NANO);
    let old = ready(read).unwrap();
    assert_eq!(*old, 10);
    assert_eq!(old.freshness(), Freshness::Stale { by: secs(28) });
    // The load goes on, and its result is kept.
    rig.end(0, End::Value(11));
    assert_eq!(*ready(get(&rig.cache, 1)).unwrap(), 11);
    assert_eq!(rig.gates.calls(), 1);
}

#[test]
fn a_wait_without_a_value_ends_with_a_time_out() {
    let rig = rig();
    rig.cache.invalidate(&1);
    let mut reads = [rig.within(3), rig.within(3)];
    assert!(reads.iter_mut().all(is_pending));
    rig.clock.advance(secs(3));
    for read in reads {
        let error = ready(read).unwrap_err();
        assert!(error.is_timeout() && !error.is_load_failure(), "{error}");
        assert!(error.to_string().contains("within 3s"), "{error}");
    }
    assert_eq!(rig.cache.stats().misses, 2);
    rig.end(0, End::Value(11));
    assert_eq!(*ready(get(&rig.cache, 1)).unwrap(), 11);
    assert_eq!(rig.gates.calls(), 1);
    // No failure was counted for the key.
    assert_eq!(rig.cache.stats().failed, 0);
}

#[test]
fn a_wait_that_is_long_enough_gets_the_result() {
    let rig = rig();
    rig.cache.invalidate(&1);
    let mut read = rig.within(3);
    assert!(is_pending(&mut read));
    rig.clock.advance(secs(2));
    rig.end(0, End::Value(11));
    let loaded = ready(read).unwrap();
    assert_eq!((*loaded, loaded.source()), (11, Source::Loaded));
}

#[test]
fn a_wait_of_zero_never_waits() {
    let rig = rig();
    rig.cache.invalidate(&1);
    assert!(ready(rig.within(0)).unwrap_err().is_timeout());
    let blocking = rig.cache.read(&1).wait_at_most(secs(0)).blocking();
    assert!(blocking.unwrap_err().is_timeout());
    assert_eq!(rig.tasks.spawned(), 1, "the load has begun, once");
    rig.end(0, End::Value(11));
    assert_eq!(*ready(rig.within(0)).unwrap(), 11);
}

#[test]
fn a_wait_does_not_end_with_a_value_that_is_too_old() {
    let rig = rig();
    rig.clock.advance(secs(5));
    let mut read = rig.read(|terms| terms.max_age(secs(4)).wait_at_most(secs(1)));
    assert!(is_pending(&mut read));
    rig.clock.advance(secs(1));
    assert!(ready(read).unwrap_err().is_timeout());
    assert_eq!(*ready(get(&rig.cache, 1)).unwrap(), 10);
}

#[test]
fn an_endless_wait_is_no_limit() {
    let rig = rig();
    rig.cache.invalidate(&1);
    let mut read = rig.read(|terms| terms.wait_at_most(std::time::Duration::MAX));
    assert!(is_pending(&mut read));
    rig.clock.advance(secs(900));
    assert!(is_pending(&mut read));
    rig.end(0, End::Value(11));
    assert_eq!(*ready(read).unwrap(), 11);
}

#[test]
fn a_caller_that_stops_waiting_on_a_thread_leaves_the_load_to_others() {
    let clock = ManualClock::new();
    let loader = gates::numbering();
    let cache = computing(builder(&clock), &loader);
    loader.hold();
    let reader = std::thread::spawn({
        let cache = cache.clone();
        move || cache.read(&1).wait_at_most(secs(5)).blocking()
    });
    loader.wait_for_calls(1);
    until("the caller has waited", || {
        clock.advance(secs(1));
        reader.is_finished()
    });
    assert!(reader.join().unwrap().unwrap_err().is_timeout());
    loader.release();
    assert_eq!(*cache.get_blocking(&1).unwrap(), 1);
}

#[test]
fn without_a_refresh_what_is_there_is_served() {
    let rig = rig();
    let quiet = || rig.read(|terms| terms.no_refresh());
    assert_eq!(*ready(quiet()).unwrap(), 10);
    rig.clock.advance(secs(11));
    let stale = ready(quiet()).unwrap();
    assert_eq!((*stale, stale.source()), (10, Source::Stale));
    // In the second window as well, where `get` waits.
    rig.clock.advance(secs(20));
    assert_eq!(*ready(quiet()).unwrap(), 10);
    assert_eq!(*rig.cache.read(&1).no_refresh().blocking().unwrap(), 10);
    assert_eq!(rig.tasks.spawned(), 0);
    assert_eq!(rig.cache.stats().stale, 3);
    // Past the hard limit it is loaded.
    rig.clock.advance(secs(20));
    let mut read = quiet();
    assert!(is_pending(&mut read));
    rig.end(0, End::Value(11));
    assert_eq!(*ready(read).unwrap(), 11);
    // So is a value that is too old.
    rig.clock.advance(secs(2));
    let mut read = rig.read(|terms| terms.no_refresh().max_age(secs(1)));
    assert!(is_pending(&mut read));
    rig.end(1, End::Value(12));
    assert_eq!(*ready(read).unwrap(), 12);
}

#[test]
fn the_future_may_be_sent_and_keys_may_be_borrowed() {
    fn sent<T: Send>(value: T) -> T {
        value
    }
    let lengths: Cache<String, usize> = Cache::builder()
        .compute(|text: &String| text.len())
        .build()
        .unwrap();
    let read = sent(lengths.read("hello").max_age(secs(1)).into_future());
    assert_eq!(*futures_lite::future::block_on(read).unwrap(), 5);
    let text = format!("{:?}", lengths.read("hello").max_age(secs(1)));
    assert!(text.contains("max_age: Some(1s)"), "{text}");
}

#[test]
fn the_age_of_a_value_with_groups_counts() {
    let clock = ManualClock::new();
    let (cache, tasks, gates) = by_hand(builder(&clock).group_by(|_| [7]));
    cache.insert(1, 10);
    clock.advance(secs(6));
    let older_than = |seconds| -> Reading<u64> {
        let cache = cache.clone();
        Box::pin(async move { cache.read(&1).max_age(secs(seconds)).await })
    };
    assert_eq!(*ready(older_than(6)).unwrap(), 10);
    let mut read = older_than(5);
    assert!(is_pending(&mut read));
    tasks.poll_all();
    gates.end(0, End::Value(11));
    tasks.poll_all();
    assert_eq!(*ready(read).unwrap(), 11);
}
