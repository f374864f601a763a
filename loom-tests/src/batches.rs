//! The end of batches: each key has its own claim, and gets its own answer.

use everfresh::model::{Answered, ClaimGuard, Loaded, Published, assign, end_each};
use loom::thread::spawn;

use crate::Threads::TwoBusy;
use crate::fixture::*;
use crate::run_model;

type Claim = ClaimGuard<u8, u64>;

/// Ends a batch whose loader answers each key with this number plus the key, in another order.
fn end(claims: Vec<Claim>, number: u64, now: u64) {
    let keys: Vec<u8> = claims.iter().map(|claim| claim.entry().key).collect();
    let answer = |key: &u8| {
        let value = Loaded::from(number + u64::from(*key));
        (*key, Ok(Box::new(value)))
    };
    let answers = keys.iter().rev().map(answer).collect();
    let answered = assign(&keys, answers).into_iter();
    end_each(claims.into_iter().zip(answered), |(claim, answered)| {
        let value = match answered {
            Answered::Loaded(loaded) => *loaded.value().expect("each key has a value"),
            _ => panic!("each key has an answer"),
        };
        let published = publish(claim, value, now);
        // Another batch may have been first, or a write.
        assert_ne!(published, Published::NotKept);
    });
}

/// P1, P5: a batch passes its deadline, and another one takes one of its keys over. One result of
/// the shared key is published, and each other key has its own.
#[test]
fn two_batches_that_share_a_key() {
    run_model(TwoBusy, || {
        // With room for the result that loses.
        let cache = with_capacity(3);
        let (shared, own) = (begin(&cache, KEY, STALE), begin(&cache, OTHER, STALE));
        expire(&shared, STALE_RESTED);
        let takes_over = won(read(&cache, KEY, STALE_LATE)).expect("the key has rested");
        let late = spawn(move || end(vec![shared, own], 100, STALE_LATE));
        end(vec![takes_over], 200, STALE_LATE);
        late.join().unwrap();
        let value = peek(&cache, KEY).expect("no result of the shared key");
        let ours = [100, 200].map(|number| number + u64::from(KEY));
        assert!(ours.contains(&value), "the answer of another key");
        assert_eq!(
            peek(&cache, OTHER),
            Some(100 + u64::from(OTHER)),
            "a key did not end"
        );
        assert_exact(&cache);
    });
}

/// P4: a key is invalidated while its batch ends. Its result is never served afterwards, and that
/// of the other key is.
#[test]
fn invalidate_against_the_end_of_a_batch() {
    run_model(TwoBusy, || {
        let cache = empty();
        let claims = vec![begin(&cache, KEY, STALE), begin(&cache, OTHER, STALE)];
        let batch = spawn(move || end(claims, 100, STALE));
        invalidate(&cache, KEY);
        assert_eq!(peek(&cache, KEY), None, "a result outlived an invalidation");
        batch.join().unwrap();
        assert_eq!(peek(&cache, KEY), None, "a result outlived an invalidation");
        assert_eq!(
            peek(&cache, OTHER),
            Some(100 + u64::from(OTHER)),
            "a key did not end"
        );
        assert_exact(&cache);
    });
}

/// P3: the callers of each key of a batch get the answer of their own key.
#[test]
fn callers_of_two_keys_against_the_end_of_their_batch() {
    run_model(TwoBusy, || {
        let cache = empty();
        let claims = vec![begin(&cache, KEY, STALE), begin(&cache, OTHER, STALE)];
        let batch = spawn(move || end(claims, 100, STALE));
        let called = get(&cache, OTHER, STALE, |_| panic!("a second load"));
        batch.join().unwrap();
        let answer = called.ended().ok();
        assert_eq!(
            answer,
            Some(100 + u64::from(OTHER)),
            "the answer of another key"
        );
    });
}
