//! Who may refresh an entry: one reader at a time, and no reader once the entry has its successor.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use everfresh::model::{AtomicU64, ClaimGuard, ClaimState, Claimed, Published, Read};
use loom::thread::spawn;

use crate::Threads::{Three, Two, TwoBusy};
use crate::fixture::*;
use crate::run_model;

/// A read that refreshes if it wins the claim; returns whether it did.
fn read_and_refresh(cache: &Arc<Cache>, value: u64) -> bool {
    match read(cache, KEY, STALE) {
        Read::Serve { claim, .. } => claim
            .map(|claim| {
                let published = publish(claim, value, STALE);
                assert_eq!(published, Published::Yes, "a second refresh of one entry");
            })
            .is_some(),
        _ => panic!("a hit waited"),
    }
}

/// P1: of two readers one refreshes, even if the first has published before the second reads.
#[test]
fn two_readers() {
    run_model(Two, || {
        let cache = filled();
        let other = spawn({
            let cache = cache.clone();
            move || read_and_refresh(&cache, 2)
        });
        let mine = read_and_refresh(&cache, 1);
        let other = other.join().unwrap();
        assert!(mine != other, "not exactly one refresh");
        let value = if mine { 1 } else { 2 };
        assert_eq!(peek(&cache, KEY), Some(value));
        assert_exact(&cache);
    });
}

/// P1: of three readers one wins.
#[test]
fn three_readers() {
    run_model(Three, || {
        let cache = filled();
        let others = [(); 2].map(|()| {
            let cache = cache.clone();
            spawn(move || won(read(&cache, KEY, STALE)))
        });
        let mine = won(read(&cache, KEY, STALE));
        let others = others.map(|other| other.join().unwrap());
        let winners = others.iter().chain([&mine]).flatten().count();
        assert_eq!(winners, 1, "not exactly one refresh");
    });
}

/// P1: a reader that kept the old entry through a whole refresh starts nothing, however late it is.
#[test]
fn straggler() {
    run_model(TwoBusy, || {
        let cache = filled();
        let kept = find(&cache, KEY).expect("the entry is resident");
        let published = Arc::new(AtomicU64::new(0));
        let refresher = spawn({
            let (cache, published) = (cache.clone(), published.clone());
            move || {
                let claim = won(read(&cache, KEY, STALE));
                if claim.map(|claim| publish(claim, 1, STALE)) == Some(Published::Yes) {
                    published.store(1, Release);
                }
            }
        });
        let was_published = published.load(Acquire) == 1;
        // The deadline of the other claim has passed, so only the end of the epoch stops this
        // reader.
        let started = won(classify(&cache, kept, STALE_LATE)).is_some();
        assert!(
            !(was_published && started),
            "a straggler started a second refresh"
        );
        refresher.join().unwrap();
    });
}

/// P1: a straggler that kept an entry which was overwritten without ever being claimed starts no
/// useless refresh.
#[test]
fn straggler_of_an_overwritten_entry() {
    run_model(Two, || {
        let cache = filled();
        let kept = find(&cache, KEY).expect("the entry is resident");
        let overwritten = Arc::new(AtomicU64::new(0));
        let writer = spawn({
            let (cache, overwritten) = (cache.clone(), overwritten.clone());
            move || {
                assert!(put(&cache, KEY, 1, STALE));
                overwritten.store(1, Release);
            }
        });
        let was_overwritten = overwritten.load(Acquire) == 1;
        let started = won(classify(&cache, kept, STALE)).is_some();
        assert!(
            !(was_overwritten && started),
            "a refresh of an entry that was gone"
        );
        writer.join().unwrap();
    });
}

/// P1, P5: the failure of a claim that was taken over leaves the later claim as it is.
#[test]
fn takeover_against_a_failure() {
    run_model(Two, || {
        let cache = filled();
        let old = claim(&cache, STALE);
        let old = spawn(move || fail(old, STALE_RESTED));
        let later = won(read(&cache, KEY, STALE_LATE));
        old.join().unwrap();
        if let Some(later) = later {
            let state = later.entry().claim_word.state();
            assert!(
                matches!(state, ClaimState::Claimed { .. }),
                "the end of a claim ended a later one"
            );
        }
    });
}

/// Ends a claim while another reader wants it: the reader gets it only after the end, and then
/// always.
fn given_back(give_back: fn(ClaimGuard<u8, u64>)) {
    run_model(Two, move || {
        let cache = filled();
        let claim = claim(&cache, STALE);
        let runs = Arc::new(AtomicBool::new(true));
        let holder = spawn({
            let runs = runs.clone();
            move || {
                runs.store(false, Relaxed);
                give_back(claim);
            }
        });
        let won_early = won(read(&cache, KEY, STALE_RESTED));
        if won_early.is_some() {
            assert!(!runs.load(Relaxed), "two refreshes at a time");
        }
        holder.join().unwrap();
        let won_after = won(read(&cache, KEY, STALE_RESTED));
        assert!(
            won_early.is_some() != won_after.is_some(),
            "the key cannot be claimed any more"
        );
    });
}

/// P5: a dropped claim can be taken again.
#[test]
fn given_back_by_drop() {
    given_back(drop);
}

/// P5: a claim whose claimant panics can be taken again.
#[test]
fn given_back_by_panic() {
    given_back(|claim| {
        let unwound = catch_unwind(AssertUnwindSafe(|| {
            let _claim = claim;
            // Panics without printing, in every execution.
            resume_unwind(Box::new("the loader panics"));
        }));
        assert!(unwound.is_err());
    });
}

/// P1: an explicit refresh and one by a reader are one refresh.
#[test]
fn reader_against_explicit_refresh() {
    run_model(Two, || {
        let cache = filled();
        let reader = spawn({
            let cache = cache.clone();
            move || won(read(&cache, KEY, STALE))
        });
        let (place, entry) = find(&cache, KEY).expect("the entry is resident");
        let mine = cache.claim_now(place, &entry, STALE);
        let other = reader.join().unwrap();
        match (mine, other) {
            (Claimed::Ours(_), None) => {}
            (Claimed::Theirs(flight), Some(other)) => {
                assert!(
                    Arc::ptr_eq(&flight, other.flight()),
                    "waits for the wrong flight"
                );
            }
            _ => panic!("not exactly one refresh"),
        }
    });
}

/// A caller that saw `seen` and wants it replaced; the claim if it has to do so.
fn refresh_if(cache: &Arc<Cache>, seen: &Arc<Item>) -> Option<ClaimGuard<u8, u64>> {
    loop {
        let (place, entry) = find(cache, KEY).expect("the key stays resident");
        if !Arc::ptr_eq(entry.arc(), seen) {
            return None;
        }
        match cache.claim_if_due(place, &entry, STALE) {
            Ok(Claimed::Ours(claim)) => return Some(claim),
            Ok(Claimed::Theirs(_)) | Err(_) => return None,
            Ok(Claimed::Changed) => {}
        }
    }
}

/// P1: of two callers that want one value replaced, one loads, however late the other is and
/// however that load ends.
fn two_that_saw_one_value(end: fn(&Cache, ClaimGuard<u8, u64>)) {
    run_model(TwoBusy, move || {
        let cache = filled();
        let (_, entry) = find(&cache, KEY).expect("the entry is resident");
        let seen = entry.arc().clone();
        drop(entry);
        let replace = move |cache: Arc<Cache>, seen: Arc<Item>| {
            let claim = refresh_if(&cache, &seen);
            claim.map(|claim| end(&cache, claim)).is_some()
        };
        let other = spawn({
            let (cache, seen) = (cache.clone(), seen.clone());
            move || replace(cache, seen)
        });
        let mine = replace(cache, seen);
        assert!(
            mine != other.join().unwrap(),
            "not exactly one load of one value"
        );
    });
}

#[test]
fn two_that_saw_one_value_and_a_result() {
    two_that_saw_one_value(|_, claim| {
        publish(claim, 1, STALE);
    });
}

#[test]
fn two_that_saw_one_value_and_a_failure() {
    two_that_saw_one_value(|_, claim| fail(claim, EXPIRED));
}

/// P4: a caller that comes after an `invalidate` neither gets the value that it saw replaced, nor
/// joins the refresh that ran before.
#[test]
fn invalidate_against_the_refresh_of_one_value() {
    run_model(Two, || {
        let cache = filled();
        let (place, entry) = find(&cache, KEY).expect("the entry is resident");
        let refresher = spawn({
            let cache = cache.clone();
            move || match cache.claim_if_due(place, &entry, STALE) {
                Ok(Claimed::Ours(claim)) => Some(publish(claim, 1, STALE)),
                _ => None,
            }
        });
        invalidate(&cache, KEY);
        assert!(find(&cache, KEY).is_none(), "the invalidated key is back");
        refresher.join().unwrap();
        assert!(find(&cache, KEY).is_none(), "the invalidated key is back");
    });
}
