//! A load and its deadline: one of the two is first, and a load that starts late notices it.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use everfresh::model::{AtomicUsize, ClaimWord, Expiry, Flight, Phase, Published, Sleeper};
use everfresh::{Clock, ManualClock};
use loom::thread::spawn;

use crate::Threads::{Three, Two, TwoBusy};
use crate::fixture::*;
use crate::run_model;

/// A load that runs, without its loader.
struct Load {
    phase: Phase,
    expiry: Expiry<u8, u64>,
    timed_out: AtomicUsize,
}

impl Load {
    /// Wakes the load after its deadline, as its alarm does.
    fn wake(&self) {
        if self.phase.pass() {
            self.timed_out.fetch_add(1, Relaxed);
            self.expiry.expire(time_out(), EXPIRED_LATE);
        }
    }
}

/// P3, P5: a load either ends in time, and its waiters get its value, or it has timed out.
#[test]
fn the_end_of_a_load_against_its_deadline() {
    run_model(TwoBusy, || {
        let cache = filled();
        let claim = claim(&cache, EXPIRED);
        let flight = claim.flight().clone();
        let load = Arc::new(Load {
            phase: Phase::running(),
            expiry: claim.expiry(),
            timed_out: AtomicUsize::new(0),
        });
        let alarm = spawn({
            let load = load.clone();
            move || load.wake()
        });
        let late = load.phase.end();
        assert_eq!(publish(claim, 1, EXPIRED), Published::Yes);
        alarm.join().unwrap();
        let timed_out = load.timed_out.fetch_add(0, Relaxed);
        assert_eq!(
            timed_out,
            usize::from(late),
            "a load ended in time and timed out as well"
        );
        let answer = Called::Waits(flight).ended();
        assert!(late || answer.is_ok(), "a value in time was not delivered");
        assert_exact(&cache);
    });
}

/// A load is woken by its alarm and by a reader that finds its claim past the deadline. It times
/// out once.
#[test]
fn an_alarm_against_a_reader() {
    run_model(Two, || {
        let phase = Arc::new(Phase::running());
        let alarm = spawn({
            let phase = phase.clone();
            move || phase.pass()
        });
        let reader = phase.pass();
        assert!(alarm.join().unwrap() != reader, "not exactly one time-out");
        assert!(phase.end());
    });
}

/// The time at which a manual clock begins.
const START: u64 = 1_000_000_000_000_000;

struct Woken(AtomicUsize);

impl Sleeper for Woken {
    fn wake(&self) {
        self.0.fetch_add(1, Relaxed);
    }
}

/// P3: a load starts while the alarm of its waiter rings. It notices its deadline.
#[test]
fn the_start_of_a_load_against_the_alarm_of_a_waiter() {
    run_model(Three, || {
        let (_, token) = ClaimWord::claimed(START, 5, 0);
        let flight = Arc::new(Flight::<u8, u64>::new(token));
        let hand = ManualClock::new();
        let waiter = spawn({
            let (flight, clock) = (flight.clone(), Clock::from(&hand));
            move || assert!(loom::future::block_on(flight.land(&clock)).is_none())
        });
        let starts = spawn({
            let (flight, clock) = (flight.clone(), Clock::from(&hand));
            move || {
                let load = Arc::new(Woken(AtomicUsize::new(0)));
                let sleeper: Arc<dyn Sleeper> = load.clone();
                flight.watch(&sleeper, &clock);
                load
            }
        });
        let left = token.deadline() - START;
        hand.advance(Duration::from_nanos(left));
        waiter.join().unwrap();
        let load = starts.join().unwrap();
        let woken = load.0.fetch_add(0, Relaxed);
        assert!(woken > 0, "a load does not notice its deadline");
    });
}

/// A caller writes to the origin and then finds a load that has not begun. So that load reads what
/// the caller wrote.
#[test]
fn the_start_of_a_load_against_a_refresh_from_now() {
    run_model(Two, || {
        let (_, token) = ClaimWord::claimed(START, 5, 0);
        let flight = Arc::new(Flight::<u8, u64>::new(token));
        let origin = Arc::new(AtomicUsize::new(0));
        let starts = spawn({
            let (flight, origin) = (flight.clone(), origin.clone());
            move || {
                let load: Arc<dyn Sleeper> = Arc::new(Woken(AtomicUsize::new(0)));
                flight.watch(&load, &Clock::from(&ManualClock::new()));
                origin.load(Relaxed)
            }
        });
        origin.store(1, Relaxed);
        let has_begun = flight.has_begun();
        let read = starts.join().unwrap();
        assert!(
            has_begun || read == 1,
            "a load from before the call is enough"
        );
    });
}
