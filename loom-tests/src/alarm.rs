//! Alarms that are set while the list is looked at.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use std::time::Duration;

use everfresh::model::{Alarms, AtomicU64, ClaimToken, ClaimWord, Event, Flight, Nap, Sleeper};
use everfresh::{Clock, ManualClock};
use loom::future::block_on;
use loom::thread::spawn;

use crate::Threads::{Three, Two};
use crate::run_model;

const DEADLINE: u64 = 5;

fn sleeper(flight: &Arc<Flight<u8, u64>>) -> Weak<dyn Sleeper> {
    let sleeper: Arc<dyn Sleeper> = flight.clone();
    Arc::downgrade(&sleeper)
}

/// P3: whoever waits while the clock is moved over the deadline is let go.
#[test]
fn a_waiter_against_the_clock() {
    run_model(Two, || {
        let flight = Arc::new(Flight::<u8, u64>::new(ClaimToken::NEVER));
        let shared = Arc::new((AtomicU64::new(0), Alarms::default()));
        let waiter = spawn({
            // Dropped by main, after everybody: what counts references is not part of the model.
            let (flight, shared) = (flight.clone(), shared.clone());
            move || {
                let (now, alarms) = &*shared;
                let _ = alarms.set(DEADLINE, sleeper(&flight));
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

/// P3: an alarm that is set while the thread looks at the list is seen by it, or tells it to look again.
#[test]
fn an_alarm_against_the_look_at_the_list() {
    run_model(Two, || {
        let flight = Arc::new(Flight::<u8, u64>::new(ClaimToken::NEVER));
        let alarms = Arc::new(Alarms::default());
        // One that is over already: until it is looked for, no later alarm wakes the thread.
        let gone = sleeper(&Arc::new(Flight::new(ClaimToken::NEVER)));
        assert!(alarms.set(3, gone));
        let thread = spawn({
            let alarms = alarms.clone();
            move || alarms.ring(0)
        });
        let told = alarms.set(DEADLINE, sleeper(&flight));
        let next = thread.join().unwrap();
        assert!(told || next <= DEADLINE, "the list is looked at too late");
    });
}

/// Where a clock that is moved by hand begins.
const START: u64 = 1_000_000_000_000_000;

/// P3: a nap whose alarm is set while the clock is moved over its end is over.
#[test]
fn a_nap_against_the_clock() {
    run_model(Two, || {
        let nap = Arc::new(Nap(Event::new()));
        let shared = Arc::new((AtomicU64::new(0), Alarms::default()));
        let sleeper = spawn({
            // Dropped by main, like the flight above.
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

/// P3: of two who wait for a load, one sets the alarm for both; the other one is let go as well
/// when the clock is moved before that alarm is set.
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
