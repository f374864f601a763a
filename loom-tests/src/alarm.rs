//! Alarms that are set while the list is being checked.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Waker};
use std::time::Duration;

use everfresh::model::{
    Alarms, AtomicU64, AtomicUsize, ClaimToken, ClaimWord, Event, Flight, Nap, Sleeper,
};
use everfresh::{Clock, ManualClock};
use loom::future::block_on;
use loom::thread::spawn;

use crate::Threads::{Three, Two};
use crate::run_model;

const DEADLINE: u64 = 5;

/// P3: a waiter returns if the clock moves over its deadline while it starts to wait.
#[test]
fn a_waiter_against_the_clock() {
    run_model(Two, || {
        let flight = Arc::new(Flight::<u8, u64>::new(ClaimToken::NEVER));
        let shared = Arc::new((AtomicU64::new(0), Alarms::default()));
        let waiter = spawn({
            // Main drops it last, because reference counts are not part of the model.
            let (flight, shared) = (flight.clone(), shared.clone());
            move || {
                let (now, alarms) = &*shared;
                let _ = alarms.set(DEADLINE, flight.sleeper());
                let is_over = || now.load(Ordering::Acquire) >= DEADLINE;
                assert!(block_on(flight.wait(is_over)).is_none());
            }
        });
        let (now, alarms) = &*shared;
        now.fetch_add(DEADLINE, Ordering::AcqRel);
        alarms.ring(DEADLINE);
        waiter.join().unwrap();
        drop(flight);
    });
}

/// P3: an alarm that is set while the thread checks the list is either seen by that check, or
/// requests another one.
#[test]
fn an_alarm_against_the_check_of_the_list() {
    run_model(Two, || {
        let flight = Arc::new(Flight::<u8, u64>::new(ClaimToken::NEVER));
        let alarms = Arc::new(Alarms::default());
        // An alarm that is due already: until the list is checked, no later alarm wakes the thread.
        let gone = Flight::<u8, u64>::new(ClaimToken::NEVER).sleeper();
        assert!(alarms.set(3, gone));
        let thread = spawn({
            let alarms = alarms.clone();
            move || alarms.ring(0)
        });
        let earlier = alarms.set(DEADLINE, flight.sleeper());
        let next = thread.join().unwrap();
        assert!(earlier || next <= DEADLINE, "the list is checked too late");
    });
}

/// P3: an alarm that is set while the alarms of dropped sleepers are removed is kept.
#[test]
fn an_alarm_against_the_removal_of_others() {
    run_model(Two, || {
        let flight = Arc::new(Flight::<u8, u64>::new(ClaimToken::NEVER));
        let alarms = Arc::new(Alarms::default());
        let gone = Flight::<u8, u64>::new(ClaimToken::NEVER).sleeper();
        assert!(alarms.set(3, gone));
        let remover = spawn({
            let alarms = alarms.clone();
            move || alarms.dropped()
        });
        let _ = alarms.set(DEADLINE, flight.sleeper());
        remover.join().unwrap();
        assert_eq!(alarms.ring(0), DEADLINE, "an alarm is lost");
        drop(flight);
    });
}

/// The time at which a manual clock begins.
const START: u64 = 1_000_000_000_000_000;

/// P3: a nap ends if the clock moves over its end while its alarm is being set.
#[test]
fn a_nap_against_the_clock() {
    run_model(Two, || {
        let nap = Arc::new(Nap(Event::new()));
        let shared = Arc::new((AtomicU64::new(0), Alarms::default()));
        let sleeper = spawn({
            // Main drops it last, like the flight above.
            let (nap, shared) = (nap.clone(), shared.clone());
            move || {
                let (now, alarms) = &*shared;
                let alarm: Arc<dyn Sleeper> = nap.clone();
                let _ = alarms.set(DEADLINE, Arc::downgrade(&alarm));
                block_on(nap.sleep(|| now.load(Ordering::Acquire) >= DEADLINE));
            }
        });
        let (now, alarms) = &*shared;
        now.fetch_add(DEADLINE, Ordering::AcqRel);
        alarms.ring(DEADLINE);
        sleeper.join().unwrap();
        drop(nap);
    });
}

/// P3: of two waiters for one load, one sets the alarm for both. The other one returns as well if
/// the clock moves before that alarm is set.
#[test]
fn two_waiters_against_the_clock() {
    run_model(Three, || {
        let (_, token) = ClaimWord::claimed(START, DEADLINE, 0);
        let flight = Arc::new(Flight::<u8, u64>::new(token));
        let hand = ManualClock::new();
        let waiters = [(); 2].map(|()| {
            let (flight, clock) = (flight.clone(), Clock::from(&hand));
            spawn(move || assert!(block_on(flight.land(&clock)).is_none()))
        });
        let left = token.deadline() - START;
        hand.advance(Duration::from_nanos(left));
        for waiter in waiters {
            waiter.join().unwrap();
        }
    });
}

/// Counts how often it is woken.
#[derive(Default)]
struct Load(AtomicUsize);

impl Sleeper for Load {
    fn wake(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// P5: a load starts and renews its claim while a waiter sets the alarm for both. The load is woken
/// at its new deadline.
#[test]
fn a_load_that_renews_its_claim_against_a_waiter() {
    run_model(Two, || {
        let (_, token) = ClaimWord::claimed(START, 1_000, 0);
        let flight = Arc::new(Flight::<u8, u64>::new(token));
        let hand = ManualClock::new();
        let clock = Clock::from(&hand);
        let waiter = spawn({
            let (flight, clock) = (flight.clone(), clock.clone());
            move || {
                let mut waits = Box::pin(flight.land(&clock));
                let mut noop = Context::from_waker(Waker::noop());
                assert!(waits.as_mut().poll(&mut noop).is_pending());
            }
        });
        let load = Arc::new(Load::default());
        let sleeper: Arc<dyn Sleeper> = load.clone();
        flight.renew(token.renewed(START + 500, 1_000).expect("it is in time"));
        flight.watch(&sleeper, &clock);
        waiter.join().unwrap();
        hand.advance(Duration::from_nanos(1_100));
        let before = load.0.fetch_add(0, Ordering::Relaxed);
        hand.advance(Duration::from_nanos(500));
        let after = load.0.fetch_add(0, Ordering::Relaxed);
        assert!(after > before, "no alarm rings at the new deadline");
        drop(flight);
    });
}
