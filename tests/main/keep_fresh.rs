//! Values that are refreshed on time, whether or not they are read.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use everfresh::{Builder, CountingLoader, Fresh, Loaded, ManualClock};

use crate::support::*;

/// The values 1, 2, 3 and so on.
fn numbering() -> CountingLoader<(), u64> {
    let next = AtomicU64::new(1);
    CountingLoader::new(move |_| next.fetch_add(1, Ordering::Relaxed))
}

/// Fresh for 100 ms, stale for 900 ms.
fn builder(clock: &ManualClock) -> Builder<(), u64> {
    Fresh::builder()
        .clock(clock)
        .fresh_for(millis(100))
        .stale_for(millis(900))
        .backoff(millis(20), millis(20))
}

/// A value whose loads run when the test says so.
struct Rig {
    clock: ManualClock,
    loader: CountingLoader<(), u64>,
    tasks: Tasks,
    fresh: Fresh<u64>,
}

fn rig(set: impl FnOnce(Builder<(), u64>) -> Builder<(), u64>) -> Rig {
    let (clock, loader, tasks) = (ManualClock::new(), numbering(), Tasks::default());
    let fresh = set(builder(&clock))
        .spawner(tasks.spawner())
        .try_load_on(
            loader.clone(),
            async |loader: &CountingLoader<(), u64>, key: &()| loader.load(key).await,
        )
        .build_fresh()
        .unwrap();
    Rig {
        clock,
        loader,
        tasks,
        fresh,
    }
}

impl Rig {
    /// Calls `keep_fresh`, and lets the first load end.
    fn keeps(&self) {
        self.fresh.keep_fresh();
        self.tasks.poll_all();
    }

    /// Moves the clock, and lets the loads end that begin then.
    fn pass(&self, time: Duration) {
        self.clock.advance(time);
        self.tasks.poll_all();
    }

    /// Moves the clock step by step; after each step the value is fresh.
    fn idle(&self, steps: u64) {
        for _ in 0..steps {
            self.pass(millis(10));
            assert!(self.fresh.peek().unwrap().freshness().is_fresh());
        }
    }

    #[track_caller]
    fn shows(&self, value: u64, calls: usize) {
        assert_eq!(self.fresh.peek().as_deref(), Some(&value));
        assert_eq!(self.loader.calls(), calls);
    }
}

#[test]
fn after_an_idle_time_the_first_reader_gets_a_fresh_value() {
    let rig = rig(|builder| builder);
    rig.keeps();
    rig.idle(200);
    let first = rig.fresh.get_blocking().unwrap();
    assert!(first.freshness().is_fresh());
    assert_eq!(*first, 21, "one load each 100 ms");
    assert_eq!(rig.loader.calls(), 21);
}

#[test]
fn without_it_the_first_reader_gets_an_old_value() {
    let rig = rig(|builder| builder.stale_for(secs(10)));
    rig.fresh.set(1);
    rig.pass(secs(2));
    assert!(rig.fresh.get_blocking().unwrap().freshness().is_stale());
}

#[test]
fn called_often_it_loads_as_often_as_once() {
    let rig = rig(|builder| builder);
    for _ in 0..10 {
        rig.fresh.clone().keep_fresh();
    }
    rig.tasks.poll_all();
    for _ in 0..10 {
        rig.fresh.keep_fresh();
    }
    rig.idle(50);
    assert_eq!(rig.loader.calls(), 6);
}

#[test]
fn a_load_begins_so_early_that_it_ends_in_time() {
    let rig = rig(|builder| builder.fresh_for(secs(10)));
    rig.loader.hold();
    rig.keeps();
    // The load takes a second.
    rig.clock.advance(secs(1));
    rig.loader.release();
    rig.tasks.poll_all();
    rig.shows(1, 1);
    rig.pass(secs(7) - NANO);
    rig.shows(1, 1);
    rig.pass(NANO * 100_000_000);
    rig.shows(2, 2);
}

#[test]
fn after_a_failure_it_tries_again_when_the_backoff_is_over() {
    let rig = rig(|builder| builder);
    rig.keeps();
    rig.loader.fail_next(3);
    rig.pass(millis(100));
    rig.shows(1, 2);
    for calls in 3..=5 {
        rig.pass(millis(20));
        assert_eq!(rig.loader.calls(), calls);
    }
    rig.shows(2, 5);
    rig.idle(20);
    assert_eq!(rig.loader.calls(), 7);
}

#[test]
fn a_missing_value_that_fails_is_tried_again() {
    let rig = rig(|builder| builder);
    rig.loader.fail_next(1);
    rig.keeps();
    assert!(rig.fresh.peek().is_none());
    rig.pass(millis(20));
    rig.shows(1, 2);
}

#[test]
fn an_invalidated_value_is_loaded_at_once_and_a_set_one_is_kept_its_time() {
    let rig = rig(|builder| builder);
    rig.keeps();
    rig.pass(millis(50));
    rig.fresh.invalidate();
    rig.tasks.poll_all();
    rig.shows(2, 2);
    rig.pass(millis(50));
    rig.fresh.set(100);
    // The alarms of the values before are none of this one.
    rig.pass(millis(90));
    rig.shows(100, 2);
    rig.pass(millis(10));
    rig.shows(3, 3);
    // A value that is fresh for a shorter time.
    rig.fresh.set(Loaded::new(200).fresh_for(millis(10)));
    rig.pass(millis(10));
    rig.shows(4, 4);
    rig.idle(20);
    assert_eq!(rig.loader.calls(), 6);
}

#[test]
fn a_refresh_that_an_invalidation_overtook_is_followed_by_another_load() {
    let rig = rig(|builder| builder);
    rig.keeps();
    rig.clock.advance(millis(100));
    assert_eq!(rig.tasks.spawned(), 2);
    rig.fresh.invalidate();
    assert_eq!(rig.tasks.spawned(), 3);
    rig.tasks.poll_all();
    assert!(rig.fresh.peek().unwrap().freshness().is_fresh());
    rig.idle(20);
}

#[test]
fn it_ends_with_the_last_handle() {
    let rig = rig(|builder| builder);
    rig.keeps();
    let weak = rig.fresh.cache().downgrade();
    drop(rig.fresh);
    assert!(weak.upgrade().is_none());
    rig.clock.advance(secs(1));
    assert_eq!(rig.tasks.spawned(), 1);
}

#[test]
fn it_ends_with_a_close() {
    let rig = rig(|builder| builder);
    rig.keeps();
    rig.fresh.close_blocking().unwrap();
    rig.pass(secs(1));
    rig.fresh.keep_fresh();
    rig.fresh.invalidate();
    assert_eq!(rig.tasks.spawned(), 1);
}

#[test]
fn values_that_live_for_ever_or_not_at_all_do_not_spin() {
    for (fresh_for, loads) in [(Duration::MAX, 1), (Duration::ZERO, 6)] {
        let (clock, tasks) = (ManualClock::new(), Tasks::default());
        let fresh = builder(&clock)
            .spawner(tasks.spawner())
            .load_on(fresh_for, async |fresh_for: &Duration, &()| {
                Loaded::new(1).fresh_for(*fresh_for)
            })
            .build_fresh()
            .unwrap();
        fresh.keep_fresh();
        tasks.poll_all();
        // The first time of the backoff is between two loads.
        for _ in 0..10 {
            clock.advance(millis(10));
            tasks.poll_all();
        }
        assert_eq!(tasks.spawned(), loads, "{fresh_for:?}");
    }
}

#[test]
fn a_value_that_is_not_found_is_asked_for_again_in_its_time() {
    let (clock, tasks) = (ManualClock::new(), Tasks::default());
    let fresh: Fresh<u64> = builder(&clock)
        .not_found_for(millis(50))
        .spawner(tasks.spawner())
        .load(async |&()| None::<u64>)
        .build_fresh()
        .unwrap();
    fresh.keep_fresh();
    tasks.poll_all();
    clock.advance(millis(49));
    assert_eq!(tasks.spawned(), 1);
    clock.advance(millis(1));
    assert_eq!(tasks.spawned(), 2);
}

#[test]
fn a_value_that_is_computed_is_kept_fresh_by_the_pool() {
    let (clock, loader) = (ManualClock::new(), numbering());
    let counted = loader.clone();
    let fresh = builder(&clock).try_compute(move |key: &()| counted.compute(key));
    let fresh = fresh.build_fresh().unwrap();
    fresh.keep_fresh();
    for value in 1..=5 {
        until("the value is published", || {
            clock.advance(millis(1));
            fresh.peek().is_some_and(|cached| *cached >= value)
        });
    }
}

#[test]
fn a_load_that_hangs_is_followed_by_another() {
    let clock = ManualClock::new();
    let loader = numbering();
    let counted = loader.clone();
    let fresh = builder(&clock).load_timeout(secs(1));
    let fresh = fresh.try_compute(move |key: &()| counted.compute(key));
    let fresh = fresh.build_fresh().unwrap();
    loader.hold();
    fresh.keep_fresh();
    loader.wait_for_calls(1);
    until("another attempt", || {
        clock.advance(millis(100));
        loader.calls() > 1
    });
    loader.release();
    loader.wait_until_idle();
}

#[test]
fn without_a_loader_it_does_nothing() {
    let clock = ManualClock::new();
    let fresh: Fresh<u64> = builder(&clock).without_loader().build_fresh().unwrap();
    fresh.keep_fresh();
    clock.advance(secs(1));
    assert!(fresh.get_blocking().unwrap_err().is_without_loader());
    assert_eq!(*fresh.read().or_compute(|| 7).blocking().unwrap(), 7);
    clock.advance(millis(100));
    assert!(fresh.get_blocking().unwrap().freshness().is_stale());
}

#[test]
fn a_value_whose_group_is_invalidated_is_loaded_at_once() {
    let rig = rig(|builder| builder.group_by(|()| [7]));
    rig.keeps();
    assert_eq!(*rig.fresh.peek().unwrap(), 1);
    rig.fresh.cache().invalidate_group(7);
    assert!(rig.fresh.peek().is_none());
    rig.tasks.poll_all();
    assert_eq!(*rig.fresh.peek().unwrap(), 2);
    assert_eq!(rig.loader.calls(), 2);
}
