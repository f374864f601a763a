//! Waiting: whoever waits is woken, and hears what became of the attempt.
//!
//! A lost wake-up is a deadlock here, which the checker reports.

use std::sync::Arc;

use everfresh::protocol::{Claims, Flight, Outcome, Published, Read};
use loom::thread::spawn;

use crate::Threads::{Three, Two};
use crate::fixture::*;
use crate::run_model;

fn flight() -> Arc<Flight<u8, u64>> {
    let (_, right) = Claims::claimed(0, 1);
    Arc::new(Flight::new(right))
}

/// P3: a delivery while a waiter registers wakes it.
#[test]
fn one_waiter() {
    run_model(Two, || {
        let flight = flight();
        let deliverer = spawn({
            let flight = flight.clone();
            move || flight.deliver(Outcome::Superseded)
        });
        assert!(matches!(wait(&flight), Outcome::Superseded));
        deliverer.join().unwrap();
    });
}

/// P3: a delivery wakes every waiter.
#[test]
fn two_waiters() {
    run_model(Three, || {
        let flight = flight();
        let others = [
            spawn({
                let flight = flight.clone();
                move || drop(wait(&flight))
            }),
            spawn({
                let flight = flight.clone();
                move || flight.deliver(Outcome::Superseded)
            }),
        ];
        assert!(matches!(wait(&flight), Outcome::Superseded));
        others.map(|other| other.join().unwrap());
    });
}

/// P3: of two callers of an expired entry one loads, and both get the new value.
#[test]
fn two_callers_of_an_expired_entry() {
    run_model(Two, || {
        let cache = filled();
        let refresher = spawn({
            let cache = cache.clone();
            move || won(read(&cache, KEY, EXPIRED)).map(|claim| publish(claim, 1, EXPIRED))
        });
        let mut loaded = false;
        match read(&cache, KEY, EXPIRED) {
            Read::Load(claim, _) => {
                loaded = true;
                assert_eq!(publish(claim, 2, EXPIRED), Published::Yes);
            }
            Read::Wait(flight, _) => match wait(&flight) {
                Outcome::Published(entry) => assert_eq!(entry.value(), Some(&1)),
                _ => panic!("a load that succeeded and a waiter that does not hear of it"),
            },
            Read::Serve { entry, .. } => assert_eq!(entry.value(), Some(&1), "served expired"),
            Read::Absent => assert_eq!(peek(&cache, KEY), Some(1), "told absent"),
            Read::Failed(_) => panic!("nothing failed"),
        }
        let other = refresher.join().unwrap();
        assert!(loaded != other.is_some(), "not exactly one load");
    });
}

/// P3: whoever joins a refresh of an expired entry that publishes gets its value.
#[test]
fn joined_and_published() {
    run_model(Two, || {
        let cache = filled();
        let claim = claim(&cache, EXPIRING);
        let refresher = spawn(move || publish(claim, 1, EXPIRED));
        let value = get(&cache, KEY, EXPIRED, |_| panic!("a second refresh"));
        assert_eq!(value.ok(), Some(1));
        assert_eq!(refresher.join().unwrap(), Published::Yes);
        assert_exact(&cache);
    });
}

/// P3, P5: whoever joins a load that fails hears the error, and is never sent round again.
#[test]
fn joined_and_failed() {
    run_model(Two, || {
        let cache = filled();
        let loader = spawn({
            let cache = cache.clone();
            move || won(read(&cache, KEY, EXPIRED)).map(|claim| fail(&cache, claim, EXPIRED_LATE))
        });
        match read(&cache, KEY, EXPIRED) {
            Read::Load(claim, _) => drop(claim),
            Read::Wait(flight, _) => {
                assert!(matches!(wait(&flight), Outcome::Failed(_)), "no error");
            }
            Read::Failed(_) => {}
            Read::Absent => panic!("told absent of an entry that is there"),
            Read::Serve { .. } => panic!("served expired"),
        }
        loader.join().unwrap();
    });
}

/// P3, P5: whoever waits for a load that is taken over hears of it, whichever comes first.
#[test]
fn joined_and_taken_over() {
    run_model(Two, || {
        let cache = filled();
        let slow = claim(&cache, EXPIRED);
        let taker = spawn({
            let cache = cache.clone();
            move || {
                let claim = won(read(&cache, KEY, EXPIRED_LATE)).expect("only this one takes over");
                assert!(claim.flight().outcome().is_none(), "ended before it began");
                publish(claim, 2, EXPIRED_LATE)
            }
        });
        match get(&cache, KEY, EXPIRED, |_| {
            panic!("claimed before the deadline")
        }) {
            Ok(value) => assert_eq!(value, 2),
            Err(error) => assert!(error.is_timeout()),
        }
        assert_eq!(taker.join().unwrap(), Published::Yes);
        drop(slow);
        assert_eq!(peek(&cache, KEY), Some(2));
    });
}

/// P5: a claimant that is taken over before it found its flight does not end the flight of the other.
#[test]
fn taken_over_before_its_flight() {
    run_model(Two, || {
        let cache = filled();
        let slow = spawn({
            let cache = cache.clone();
            move || drop(won(read(&cache, KEY, EXPIRED)))
        });
        if let Read::Load(claim, _) = read(&cache, KEY, EXPIRED_LATE) {
            let flight = claim.flight().clone();
            assert_eq!(publish(claim, 2, EXPIRED_LATE), Published::Yes);
            assert!(
                matches!(flight.outcome(), Some(Outcome::Published(_))),
                "another claimant ended this flight"
            );
        }
        slow.join().unwrap();
    });
}

/// P3: who waits for a claim that is given back hears so, also when the next claim is made at once,
/// at the same time of the clock; and that next claim has a flight of its own.
#[test]
fn given_back_and_claimed_again() {
    run_model(Two, || {
        let cache = restless();
        let claim = claim(&cache, EXPIRED);
        let joined = claim.flight().clone();
        let holder = spawn(move || drop(claim));
        if let Some(next) = won(read(&cache, KEY, EXPIRED)) {
            assert!(next.flight().outcome().is_none(), "ended before it began");
        }
        match wait(&joined) {
            Outcome::Failed(error) => assert!(!error.is_timeout(), "no deadline has passed"),
            _ => panic!("it was given back"),
        }
        holder.join().unwrap();
    });
}

/// P3: a waiter, the load it waits for, late, and the one that takes over: the waiter hears of one.
#[test]
fn waiter_late_load_and_takeover() {
    run_model(Three, || {
        let cache = filled();
        let slow = claim(&cache, EXPIRED);
        let slow = spawn(move || publish(slow, 1, EXPIRED_LATE));
        let taker = spawn({
            let cache = cache.clone();
            move || {
                won(read(&cache, KEY, EXPIRED_LATE)).map(|claim| publish(claim, 2, EXPIRED_LATE))
            }
        });
        let value = get(&cache, KEY, EXPIRED, |_| {
            panic!("claimed before the deadline")
        });
        let (slow, taker) = (slow.join().unwrap(), taker.join().unwrap());
        let resident = peek(&cache, KEY);
        match taker {
            Some(taker) => {
                assert_eq!((slow, taker), (Published::TakenOver, Published::Yes));
                assert_eq!(resident, Some(2));
            }
            None => assert_eq!((slow, resident), (Published::Yes, Some(1))),
        }
        match value {
            Ok(value) => assert_eq!(Some(value), resident),
            Err(error) => assert!(error.is_timeout()),
        }
        assert_exact(&cache);
    });
}
