//! Waiting: every waiter is woken, and learns the outcome of the attempt.
//!
//! A lost wake-up is a deadlock here, which the checker reports.

use std::sync::Arc;
use std::task::{Context, Waker};

use everfresh::model::{
    ClaimGuard, ClaimState, ClaimWord, Claimed, Flight, Outcome, Published, Read,
};
use loom::future::block_on;
use loom::thread::spawn;

use crate::Threads::{Three, Two, TwoBusy};
use crate::fixture::*;
use crate::run_model;

fn flight() -> Arc<Flight<u8, u64>> {
    let (_, token) = ClaimWord::claimed(0, 1, 0);
    Arc::new(Flight::new(token))
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

/// P3: a delivery wakes a waiter that sleeps and one that is about to sleep.
#[test]
fn two_waiters() {
    run_model(Two, || {
        let flight = flight();
        let mut sleeper = Box::pin({
            let flight = flight.clone();
            async move { flight.wait(|| false).await }
        });
        let mut noop = Context::from_waker(Waker::noop());
        assert!(sleeper.as_mut().poll(&mut noop).is_pending());
        let waiter = spawn({
            let flight = flight.clone();
            move || matches!(wait(&flight), Outcome::Superseded)
        });
        flight.deliver(Outcome::Superseded);
        assert!(matches!(block_on(sleeper), Some(Outcome::Superseded)));
        assert!(waiter.join().unwrap());
    });
}

/// P3: of two callers of an expired entry one loads, and the other waits for that load.
#[test]
fn two_callers_of_an_expired_entry() {
    run_model(Two, || {
        let cache = filled();
        let other = spawn({
            let cache = cache.clone();
            move || read(&cache, KEY, EXPIRED)
        });
        match (read(&cache, KEY, EXPIRED), other.join().unwrap()) {
            (Read::Load(claim, _), Read::Wait(flight, _))
            | (Read::Wait(flight, _), Read::Load(claim, _)) => {
                assert!(
                    Arc::ptr_eq(claim.flight(), &flight),
                    "a caller waits for the wrong flight"
                );
            }
            _ => panic!("not exactly one load"),
        }
    });
}

/// P3: a caller that joins a refresh of an expired entry gets the published value.
#[test]
fn joined_and_published() {
    run_model(Two, || {
        let cache = filled();
        let claim = claim(&cache, EXPIRING);
        let refresher = spawn(move || publish(claim, 1, EXPIRED));
        let called = get(&cache, KEY, EXPIRED, |_| panic!("a second refresh"));
        assert_eq!(called.wait().ok(), Some(1));
        assert_eq!(refresher.join().unwrap(), Published::Yes);
        assert_exact(&cache);
    });
}

/// P3: a caller that joins a load that fails gets its error.
#[test]
fn joined_and_failed() {
    run_model(Two, || {
        let cache = filled();
        let claim = claim(&cache, EXPIRING);
        let refresher = spawn(move || fail(claim, EXPIRED_LATE));
        let called = get(&cache, KEY, EXPIRED, |_| panic!("a second refresh"));
        assert!(called.wait().is_err());
        refresher.join().unwrap();
    });
}

/// P3, P5: an expired entry is never reported missing, which would make its callers retry without
/// end. A reader that sees it cooling gets the error.
#[test]
fn failure_against_a_reader() {
    run_model(TwoBusy, || {
        let cache = filled();
        let loader = spawn({
            let cache = cache.clone();
            move || won(read(&cache, KEY, EXPIRED)).map(|claim| fail(claim, EXPIRED_LATE))
        });
        let (place, entry) = find(&cache, KEY).expect("the entry is resident");
        let cools = matches!(entry.claim_word.state(), ClaimState::Cooling { .. });
        match classify(&cache, (place, entry), EXPIRED) {
            Read::Wait(..) => assert!(!cools, "a failure without its error"),
            Read::Missing => panic!("a resident entry was reported missing"),
            Read::Serve { .. } => panic!("an expired value was served"),
            Read::Load(..) | Read::Failed(_) => {}
        }
        loader.join().unwrap();
    });
}

/// P3, P5: a caller that joins a load, before or after another reader takes it over, gets the
/// outcome of one of them.
#[test]
fn joined_and_taken_over() {
    run_model(TwoBusy, || {
        let cache = filled();
        let slow = claim(&cache, EXPIRED);
        let taker = spawn({
            let cache = cache.clone();
            move || {
                let claim = won(read(&cache, KEY, EXPIRED_LATE)).expect("only this one takes over");
                publish(claim, 2, EXPIRED_LATE)
            }
        });
        let early = || panic!("claimed before the deadline");
        let called = get(&cache, KEY, EXPIRED, |_| early());
        assert_eq!(taker.join().unwrap(), Published::Yes);
        match called.ended() {
            Ok(value) => assert_eq!(value, 2),
            Err(error) => assert!(error.is_timeout()),
        }
        drop(slow);
        assert_eq!(
            peek(&cache, KEY),
            Some(2),
            "a late claimant changed the entry"
        );
    });
}

/// P5: a claimant that is taken over before it has installed its flight does not end the other's.
#[test]
fn taken_over_before_its_flight() {
    run_model(TwoBusy, || {
        let cache = filled();
        let slow = spawn({
            let cache = cache.clone();
            move || drop(won(read(&cache, KEY, EXPIRED)))
        });
        let claim = won(read(&cache, KEY, EXPIRED_LATE));
        slow.join().unwrap();
        if let Some(claim) = claim {
            assert!(
                claim.flight().outcome().is_none(),
                "another claimant ended this flight"
            );
        }
    });
}

/// P3: a waiter for a claim that is dropped learns so, even if the next claim is made at once, at
/// the same time of the clock. That next claim has its own flight.
#[test]
fn given_back_and_claimed_again() {
    run_model(Two, || {
        let cache = without_rest();
        let claim = claim(&cache, EXPIRED);
        let joined = claim.flight().clone();
        let holder = spawn(move || drop(claim));
        let next = won(read(&cache, KEY, EXPIRED));
        holder.join().unwrap();
        if let Some(next) = next {
            assert_joins(&cache, &next);
        }
        match joined.outcome() {
            Some(Outcome::Failed(error)) => assert!(!error.is_timeout(), "no deadline has passed"),
            _ => panic!("a caller waits without end"),
        }
    });
}

/// P3: two claims one after the other, at the same time of the clock, have two flights. A caller
/// that comes during the second does not get the outcome of the first.
#[test]
fn claimed_twice_at_one_time() {
    run_model(Two, || {
        let cache = without_rest();
        let first = spawn({
            let cache = cache.clone();
            move || drop(won(read(&cache, KEY, EXPIRED)))
        });
        let second = won(read(&cache, KEY, EXPIRED));
        first.join().unwrap();
        if let Some(second) = second {
            assert_joins(&cache, &second);
        }
    });
}

/// P3: the same for an explicit refresh, which does not wait for the rest after the claim before.
#[test]
fn explicit_claim_while_it_rests() {
    run_model(Two, || {
        let cache = filled();
        let first = spawn({
            let cache = cache.clone();
            move || drop(won(read(&cache, KEY, EXPIRED)))
        });
        let second = claim_explicitly(&cache);
        first.join().unwrap();
        match second {
            Claimed::Ours(second) => assert_joins(&cache, &second),
            Claimed::Theirs(first) => {
                assert!(first.outcome().is_some(), "a caller waits without end")
            }
            Claimed::Changed => unreachable!("the entry is read again"),
        }
    });
}

/// Claims like `Cache::refresh`, as long as no other thread replaces or removes the entry.
fn claim_explicitly(cache: &Arc<Cache>) -> Claimed<u8, u64> {
    loop {
        let (place, entry) = find(cache, KEY).expect("the entry is resident");
        match cache.claim_now(place, &entry, EXPIRED) {
            Claimed::Changed => {}
            claimed => return claimed,
        }
    }
}

/// P5: a caller that got a failure and asks for a refresh at once gets a new attempt, even before
/// the old claimant has given its claim up. The failure counts.
#[test]
fn explicit_claim_after_a_failure() {
    run_model(Two, || {
        let cache = filled();
        let failing = claim(&cache, EXPIRED);
        let first = failing.flight().clone();
        let failing = spawn(move || fail(failing, EXPIRED_LATE));
        // The caller learns of the failure and asks again.
        let next = first.has_ended().then(|| claim_explicitly(&cache));
        match next {
            Some(Claimed::Ours(next)) => {
                assert_eq!(next.failures(), 1, "a failure was not counted");
                failing.join().unwrap();
                assert_joins(&cache, &next);
            }
            Some(_) => panic!("a caller joins an attempt that is over"),
            None => failing.join().unwrap(),
        }
    });
}

/// A caller that comes while a load runs waits for it.
fn assert_joins(cache: &Arc<Cache>, load: &ClaimGuard<u8, u64>) {
    match read(cache, KEY, EXPIRED) {
        Read::Wait(flight, _) => assert!(
            Arc::ptr_eq(&flight, load.flight()) && flight.outcome().is_none(),
            "a caller waits for the wrong flight"
        ),
        _ => panic!("a caller is answered by a load that is over"),
    }
}

/// P3, P5: a caller, the late load that it finds, and the reader that takes over. The load of that
/// reader ends later; `joined_and_taken_over` and the models in `late` have it end at once.
#[test]
fn caller_and_late_load_and_takeover() {
    run_model(Three, || {
        let cache = filled();
        let slow = claim(&cache, EXPIRED);
        // Both have found the entry before the late result.
        let [found, same] = [(); 2].map(|()| find(&cache, KEY).expect("it is resident"));
        let slow = spawn(move || publish(slow, 1, EXPIRED_LATE));
        let taker = spawn({
            let cache = cache.clone();
            move || won(classify(&cache, same, EXPIRED_LATE))
        });
        let called = match classify(&cache, found, EXPIRED) {
            Read::Missing => None,
            Read::Wait(flight, _) => Some(Called::Waits(flight)),
            Read::Failed(error) => Some(Called::Answered(Err(error))),
            Read::Load(..) | Read::Serve { .. } => panic!("claimed before the deadline"),
        };
        let slow = slow.join().unwrap();
        let took_over = (taker.join().unwrap()).map(|claim| publish(claim, 2, EXPIRED_LATE));
        assert_first_counts(&cache, slow, took_over);
        // Without an attempt to wait for it reads again, and finds the late result.
        match called.map_or(Ok(1), |called| called.ended_or_reads(&cache)) {
            // A caller that joined the late load gets its result, because it asked before the
            // takeover.
            Ok(value) => assert_eq!(value, 1),
            Err(error) => assert!(error.is_timeout()),
        }
        assert_exact(&cache);
    });
}
