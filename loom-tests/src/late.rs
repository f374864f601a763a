//! Loads past their deadline: their claims end, and the first result of an entry counts, in time or
//! late.

use std::cell::RefCell;
use std::sync::Arc;

use everfresh::model::{Answer, AtomicU8, ClaimGuard, ClaimState, Published, Read};
use loom::future::block_on;
use loom::thread::spawn;

use crate::Threads::{Two, TwoBusy};
use crate::fixture::*;
use crate::run_model;

/// Ends a claim as a load that failed after its deadline; returns whether the placeholder left.
fn fail_late(claim: ClaimGuard<u8, u64>) -> bool {
    let mut left = false;
    claim.remove(time_out(), Answer::Failed, |it| left = it);
    left
}

/// P1: a result at the moment of its deadline ends the epoch, whether or not the claim has ended. A
/// straggler starts nothing afterwards.
#[test]
fn result_against_its_deadline() {
    run_model(Two, || {
        let cache = filled();
        let kept = find(&cache, KEY).expect("the entry is resident");
        let claim = claim(&cache, STALE);
        let expiry = claim.expiry();
        let deadline = spawn(move || expiry.expire(time_out(), STALE_RESTED));
        assert_eq!(publish(claim, 1, STALE_LATE), Published::Yes);
        deadline.join().unwrap();
        assert_eq!(peek(&cache, KEY), Some(1));
        let state = kept.1.claim_word.state();
        assert_eq!(
            state,
            ClaimState::Spent,
            "an entry was given back after its end"
        );
        let straggler = won(classify(&cache, kept, STALE_LATE));
        assert!(straggler.is_none(), "an entry was refreshed after its end");
        assert_exact(&cache);
    });
}

/// P3: a reader that finds a claim ended at its deadline also finds the time-out.
#[test]
fn deadline_against_a_reader() {
    run_model(TwoBusy, || {
        let cache = filled();
        let claim = claim(&cache, EXPIRED);
        let expiry = claim.expiry();
        let deadline = spawn(move || expiry.expire(time_out(), EXPIRED_LATE));
        let (place, entry) = find(&cache, KEY).expect("the entry is resident");
        let cools = matches!(entry.claim_word.state(), ClaimState::Cooling { .. });
        match classify(&cache, (place, entry), EXPIRED) {
            Read::Wait(..) => assert!(!cools, "a time-out without its error"),
            Read::Failed(error) => assert!(error.is_timeout()),
            _ => panic!("a key that rests was loaded"),
        }
        deadline.join().unwrap();
    });
}

/// A caller that may take a late load over, and keeps its own load running.
fn against_a_caller(end: impl Fn(Arc<Cache>, ClaimGuard<u8, u64>) + Copy + Send + Sync + 'static) {
    run_model(Two, move || {
        let cache = empty();
        let late = begin(&cache, KEY, STALE);
        expire(&late, STALE_RESTED);
        let late = spawn({
            let cache = cache.clone();
            move || end(cache, late)
        });
        let runs = RefCell::new(None);
        let called = get(&cache, KEY, STALE_LATE, |claim| {
            *runs.borrow_mut() = Some(claim);
        });
        late.join().unwrap();
        match runs.into_inner() {
            // The load of the caller goes on. A placeholder of its own is another entry.
            Some(claim) if find(&cache, KEY).is_some_and(|(_, entry)| entry.is_loading()) => {
                assert_eq!(publish(claim, 2, STALE_LATE), Published::Yes);
                assert_eq!(called.ended_or_reads(&cache).ok(), Some(2));
            }
            Some(claim) => {
                let answer = called.ended_or_reads(&cache);
                assert_eq!(answer.ok(), peek(&cache, KEY), "the answer of another load");
                let published = publish(claim, 2, STALE_LATE);
                assert_eq!(published, Published::TakenOver, "two results of one entry");
            }
            None => assert_ne!(called.ended_or_reads(&cache).ok(), Some(2)),
        }
        assert_exact(&cache);
    });
}

/// P1, P3: callers that wait for the load which took over get the late result, if that is first.
#[test]
fn value_against_a_caller() {
    against_a_caller(|_, late| assert_eq!(publish(late, 1, STALE_LATE), Published::Yes));
}

/// P1, P3: the same for the late answer that the key has no value.
#[test]
fn not_found_against_a_caller() {
    against_a_caller(|_, late| assert!(end_without_value(late)));
}

/// Slow is not down: a late result counts although the load that took over fails at that moment.
#[test]
fn value_against_the_failure_of_a_takeover() {
    run_model(Two, || {
        let cache = filled();
        let late = claim(&cache, STALE);
        expire(&late, STALE_RESTED);
        let taker = spawn({
            let cache = cache.clone();
            move || won(read(&cache, KEY, STALE_LATE)).map(|claim| fail(claim, EXPIRED))
        });
        let published = publish(late, 1, STALE_LATE);
        assert_eq!(published, Published::Yes, "a late result was thrown away");
        taker.join().unwrap();
        assert_eq!(peek(&cache, KEY), Some(1));
        assert_exact(&cache);
    });
}

/// P5: the same for a missing key. The failure either ends the entry or changes nothing.
#[test]
fn first_value_against_the_failure_of_a_takeover() {
    run_model(Two, || {
        let cache = empty();
        let late = begin(&cache, KEY, STALE);
        expire(&late, STALE_RESTED);
        let taker = spawn({
            let cache = cache.clone();
            move || won(read(&cache, KEY, STALE_LATE)).map(|claim| fail(claim, EXPIRED))
        });
        let published = publish(late, 1, STALE_LATE);
        taker.join().unwrap();
        let kept = (published == Published::Yes).then_some(1);
        assert_eq!(peek(&cache, KEY), kept, "a failure removed a value");
        assert_exact(&cache);
    });
}

/// P1: of two late results one is published.
#[test]
fn two_late_values() {
    run_model(Two, || {
        let cache = filled();
        let first = claim(&cache, STALE);
        expire(&first, STALE_RESTED);
        let second = claim(&cache, STALE_RESTED);
        expire(&second, STALE_LATE);
        let other = spawn(move || publish(first, 1, STALE_LATE));
        let mine = publish(second, 2, STALE_LATE);
        assert_first_counts(&cache, other.join().unwrap(), Some(mine));
        assert_exact(&cache);
    });
}

/// P4: a late result does not undo an invalidation.
#[test]
fn value_against_invalidate() {
    run_model(Two, || {
        let cache = empty();
        let late = begin(&cache, KEY, STALE);
        expire(&late, STALE_RESTED);
        let late = spawn(move || publish(late, 1, STALE_LATE));
        invalidate(&cache, KEY);
        assert_eq!(peek(&cache, KEY), None, "a result undid an invalidation");
        late.join().unwrap();
        assert_eq!(peek(&cache, KEY), None, "a result undid an invalidation");
        assert_exact(&cache);
    });
}

/// P4: a late result does not undo an insert.
#[test]
fn value_against_insert() {
    run_model(TwoBusy, || {
        let cache = empty();
        let late = begin(&cache, KEY, STALE);
        expire(&late, STALE_RESTED);
        let late = spawn(move || publish(late, 1, STALE_LATE));
        assert!(put(&cache, KEY, 9, STALE));
        assert_eq!(peek(&cache, KEY), Some(9), "a result undid an insert");
        late.join().unwrap();
        assert_eq!(peek(&cache, KEY), Some(9), "a result undid an insert");
        assert_exact(&cache);
    });
}

/// P5: a late failure removes the placeholder that rests, but never that of a later load.
#[test]
fn failure_against_a_takeover() {
    run_model(Two, || {
        let cache = empty();
        let late = begin(&cache, KEY, STALE);
        expire(&late, STALE_RESTED);
        let taker = spawn({
            let cache = cache.clone();
            move || {
                won(read(&cache, KEY, STALE_LATE)).map(|claim| {
                    // This load is slow as well.
                    expire(&claim, EXPIRED);
                    publish(claim, 2, EXPIRED)
                })
            }
        });
        let left = fail_late(late);
        match taker.join().unwrap() {
            Some(published) => {
                assert_eq!(
                    published,
                    Published::Yes,
                    "a late failure ended a later load"
                );
                assert!(!left && peek(&cache, KEY) == Some(2));
            }
            None => assert!(left && find(&cache, KEY).is_none()),
        }
        assert_exact(&cache);
    });
}

/// P3: a caller that comes while a load starts, and renews its claim, waits for that load.
#[test]
fn renewal_against_a_caller() {
    run_model(Two, || {
        let cache = empty();
        let mut claim = begin(&cache, KEY, STALE);
        let starts = spawn(move || {
            assert!(claim.start(STALE_RESTED));
            claim
        });
        let waits = match read(&cache, KEY, STALE_RESTED) {
            Read::Wait(flight, _) => flight,
            _ => panic!("a second load"),
        };
        let claim = starts.join().unwrap();
        assert!(
            Arc::ptr_eq(&waits, claim.flight()) && waits.outcome().is_none(),
            "a caller waits for the wrong flight"
        );
        assert!(
            won(read(&cache, KEY, STALE_LATE)).is_none(),
            "its time was not renewed"
        );
        drop(claim);
    });
}

/// P1, P5: a load starts at the moment at which another caller takes it over. One of the two runs.
#[test]
fn renewal_against_a_takeover() {
    run_model(Two, || {
        let cache = empty();
        let mut claim = begin(&cache, KEY, STALE);
        let starts = spawn(move || {
            let runs = claim.start(STALE_RESTED);
            (runs, claim)
        });
        let taker = won(read(&cache, KEY, STALE_LATE));
        let (runs, claim) = starts.join().unwrap();
        assert!(runs != taker.is_some(), "not exactly one load runs");
        if let Some(taker) = taker {
            drop(claim);
            let ended = taker.flight().outcome().is_some();
            assert!(!ended, "another claimant ended this flight");
        }
    });
}

/// The task of a load notices that it is overdue, whenever that happens.
#[test]
fn overdue_against_its_task() {
    run_model(Two, || {
        let cache = empty();
        let claim = begin(&cache, KEY, STALE);
        let overdue = Arc::new(AtomicU8::new(0));
        let deadline = spawn({
            let (expiry, overdue) = (claim.expiry(), overdue.clone());
            move || {
                overdue.store(1, std::sync::atomic::Ordering::Release);
                expiry.expire(time_out(), STALE_LATE);
            }
        });
        let is_over = || overdue.load(std::sync::atomic::Ordering::Acquire) == 1;
        block_on(claim.flight().ended(is_over));
        deadline.join().unwrap();
        assert!(fail_late(claim));
    });
}
