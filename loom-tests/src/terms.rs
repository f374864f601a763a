//! The terms of a call: loads that callers force, functions that they bring, and values that are
//! kept fresh.

use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Release};

use everfresh::model::{AtomicU64, ClaimGuard, Claimed, Forced, Once, Rearm};
use loom::thread::spawn;

use crate::Threads::{Two, TwoBusy};
use crate::fixture::*;
use crate::run_model;

/// The least time between two loads that callers force. A value made at `CREATED` may be replaced
/// at `STALE`.
const EVERY: u64 = 5_000_000_000;

/// A caller that forces a load of the key; true if it made an attempt.
fn force(cache: &Arc<Cache>, end: fn(&Cache, ClaimGuard<u8, u64>)) -> bool {
    loop {
        let (place, entry) = find(cache, KEY).expect("the key stays resident");
        match cache.claim_forced(place, &entry, STALE, EVERY) {
            Forced::Due(Claimed::Ours(claim)) => {
                drop(entry);
                end(cache, claim);
                return true;
            }
            Forced::Due(Claimed::Theirs(_)) | Forced::TooSoon(_) => return false,
            Forced::Due(Claimed::Changed) => {}
        }
    }
}

/// Of two callers that force a load one makes an attempt, however late the other goes on.
fn two_that_force(end: fn(&Cache, ClaimGuard<u8, u64>)) {
    run_model(TwoBusy, move || {
        let cache = filled();
        let other = spawn({
            let cache = cache.clone();
            move || force(&cache, end)
        });
        let mine = force(&cache, end);
        assert!(
            mine != other.join().unwrap(),
            "not exactly one forced load within the limit"
        );
    });
}

#[test]
fn two_that_force_a_load_that_fails() {
    two_that_force(|_, claim| fail(claim, STALE));
}

#[test]
fn two_that_force_a_load_with_a_result() {
    two_that_force(|_, claim| {
        publish(claim, 1, STALE);
    });
}

/// Two loads of one call run at once, because the first was overtaken. One gets the function.
#[test]
fn two_loads_of_one_call() {
    run_model(Two, || {
        let function = Arc::new(Once::new(7));
        let other = spawn({
            let function = function.clone();
            move || function.take()
        });
        let mine = function.take();
        let other = other.join().unwrap();
        assert!(
            mine.is_some() != other.is_some(),
            "not exactly one load runs the function"
        );
    });
}

/// A value is published that is due earlier than the one before, while an alarm rings. Afterwards
/// an alarm is set that is not later than the value is due.
#[test]
fn a_value_is_published_while_the_alarm_rings() {
    const RINGS: u64 = 5;
    const DUE: u64 = 8;
    run_model(Two, || {
        // The alarm is that of a value before, and the present one is due much later.
        let shared = Arc::new((AtomicU64::new(20), Rearm::default()));
        assert!(shared.1.arm(RINGS));
        let alarm = spawn({
            let shared = shared.clone();
            move || {
                let (due, rearm) = &*shared;
                let looks = rearm.rings(RINGS);
                assert!(looks, "the alarm counts");
                let at = due.load(Acquire);
                rearm.arm(at).then_some(at)
            }
        });
        let (due, rearm) = &*shared;
        due.store(DUE, Release);
        let mine = rearm.arm(DUE).then_some(DUE);
        let set = alarm.join().unwrap();
        let first = mine.into_iter().chain(set).min();
        assert!(
            first.is_some_and(|at| at <= DUE),
            "the value is refreshed too late"
        );
    });
}
