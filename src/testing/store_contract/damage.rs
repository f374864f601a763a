//! Damaged, foreign and oversized bytes under a key.

use crate::store::lease::CLOCK_ERROR;
use crate::store::{Acquired, Birth, Epoch, ErrorClass, Stored, envelope};

use super::StoreUnderTest;
use super::harness::{caller, key, payload};

/// A payload with an epoch written into it, as it would be stored.
fn stored(name: &str, epoch: u64) -> Vec<u8> {
    let mut payload = payload(&key(name), b"planted");
    payload[4..12].copy_from_slice(&epoch.to_be_bytes());
    let inverse = ((1_u64 << 53) - 1).wrapping_sub(epoch);
    payload[12..20].copy_from_slice(&inverse.to_be_bytes());
    payload
}

/// Whether a load of the key goes on as if nothing were there.
fn is_replaced(subject: &dyn StoreUnderTest, bytes: Vec<u8>) {
    let (k, a) = (key("a"), caller(subject, 1));
    subject.plant(&k, bytes.clone());
    assert_eq!(a.try_read(&k), Ok(Some(bytes)));
    let base = a.granted_over_nothing(&k);
    let epoch = a.published(&k, base, b"loaded");
    assert_eq!(a.read(&k), Some((b"loaded".to_vec(), epoch)));
}

pub(super) fn foreign_bytes_are_replaced(subject: &dyn StoreUnderTest) {
    is_replaced(
        subject,
        b"a string of another program, at least as long as the header of a payload would be"
            .to_vec(),
    );
}

pub(super) fn a_truncated_payload_is_replaced(subject: &dyn StoreUnderTest) {
    is_replaced(subject, stored("a", 5_000)[..19].to_vec());
}

pub(super) fn a_future_version_is_seen_and_replaced(subject: &dyn StoreUnderTest) {
    let (k, a) = (key("a"), caller(subject, 1));
    let mut future = stored("a", 5_000);
    future[3] = 77;
    future.truncate(20);
    subject.plant(&k, future.clone());
    // A newer program can read it, and every program can read its epoch, ...
    assert_eq!(a.acquire(&k, None), Acquired::Stored(future.clone()));
    let epoch = envelope::epoch(&future);
    assert_eq!(epoch, Epoch::from_micros(5_000));
    // ... so an older program replaces it as it replaces any payload.
    let base = a.granted(&k, epoch);
    assert_eq!(Some(base), epoch);
    assert!(a.published(&k, base, b"loaded") > base);
}

pub(super) fn a_damaged_epoch_counts_as_nothing(subject: &dyn StoreUnderTest) {
    for at in 4..20 {
        let (k, a) = (key("a"), caller(subject, 1));
        let mut damaged = stored("a", 5_000);
        damaged[at] ^= 0x10;
        assert_eq!(envelope::epoch(&damaged), None);
        subject.plant(&k, damaged);
        let planted = Epoch::from_micros(5_000).unwrap();
        let base = a.granted(&k, Some(planted));
        assert!(base > planted, "{at}");
        // Its epoch is no base, and the holder of the lease replaces it.
        let b = caller(subject, 2);
        assert_eq!(b.publish(&k, planted, b"no"), Stored::Refused);
        a.published(&k, base, b"loaded");
        a.invalidate(&k);
    }
}

pub(super) fn an_impossible_epoch_is_ignored(subject: &dyn StoreUnderTest) {
    let (k, a) = (key("a"), caller(subject, 1));
    for epoch in [0, (1 << 53) - 1, 1 << 53, u64::MAX] {
        subject.plant(&k, stored("a", epoch));
        a.granted_over_nothing(&k);
        let set = a.set(&k, b"set");
        assert!(set.micros() < (1 << 52));
        assert!(a.set(&k, b"again") > set);
        a.invalidate(&k);
    }
}

pub(super) fn an_epoch_from_the_future_is_replaced_by_the_time(subject: &dyn StoreUnderTest) {
    let (k, a, b) = (key("a"), caller(subject, 1), caller(subject, 2));
    let from_now = |micros: u64| {
        let now = subject.store().now().expect("connected");
        micros.abs_diff(now) <= CLOCK_ERROR
    };
    // The clock was set back after it had been wrong for a while.
    let future = Epoch::from_micros(1 << 52);
    let plant = || subject.plant(&k, stored("a", 1 << 52));
    plant();
    assert!(matches!(a.acquire(&k, None), Acquired::Stored(_)));
    let base = a.granted(&k, future);
    assert_eq!(Some(base), future);
    // A load over it is published once.
    let published = a.published(&k, base, b"loaded");
    assert!(from_now(published.micros()));
    assert_eq!(b.publish(&k, base, b"late"), Stored::Refused);
    assert!(a.published(&k, a.granted(&k, Some(published)), b"next") > published);
    for written in 0..2 {
        plant();
        let base = b.granted(&k, future);
        let epoch = match written {
            0 => a.set(&k, b"set"),
            _ => a.invalidate(&k),
        };
        assert!(from_now(epoch.micros()));
        assert_eq!(b.publish(&k, base, b"loaded before"), Stored::Refused);
        a.invalidate(&k);
    }
}

pub(super) fn a_payload_that_is_too_large_is_not_read_but_replaced(subject: &dyn StoreUnderTest) {
    let (k, a) = (key("a"), caller(subject, 1));
    for (prefix, epoch) in [
        (stored("a", 5_000), Epoch::from_micros(5_000)),
        (vec![7; 30], None),
    ] {
        let mut large = prefix;
        large.resize(subject.limit() + 1, 0);
        subject.plant(&k, large);
        assert_eq!(a.try_read(&k).unwrap_err().class(), ErrorClass::TooLarge);
        let base = match epoch {
            Some(_) => a.granted(&k, None),
            None => a.granted_over_nothing(&k),
        };
        assert!(epoch.is_none_or(|epoch| epoch == base));
        a.published(&k, base, b"loaded");
        assert_eq!(a.read(&k).unwrap().0, b"loaded");
        a.invalidate(&k);
    }
    let mut exact = stored("a", 5_000);
    exact.resize(subject.limit(), 0);
    subject.plant(&k, exact.clone());
    assert_eq!(a.try_read(&k), Ok(Some(exact.clone())));
    assert_eq!(a.acquire(&k, None), Acquired::Stored(exact));
    assert_eq!(subject.store().stats().errors(ErrorClass::TooLarge), 2);
}

pub(super) fn a_payload_that_is_too_large_is_not_stored(subject: &dyn StoreUnderTest) {
    let (k, a) = (key("a"), caller(subject, 1));
    let set = a.set(&k, b"small");
    let mut large = payload(&k, b"large");
    large.resize(subject.limit() + 1, 0);
    let base = a.granted(&k, Some(set));
    let published = a.try_publish(&k, base, large.clone());
    assert_eq!(published.unwrap_err().class(), ErrorClass::TooLarge);
    let set = a.try_set(&k, large, Birth::latest(a.token.origin));
    assert_eq!(set.unwrap_err().class(), ErrorClass::TooLarge);
    assert_eq!(a.read(&k).unwrap().0, b"small");
    assert_eq!(subject.store().stats().errors(ErrorClass::TooLarge), 2);
}

pub(super) fn bytes_that_are_no_envelope_are_not_stored(subject: &dyn StoreUnderTest) {
    let (k, a) = (key("a"), caller(subject, 1));
    let base = a.granted(&k, None);
    for bytes in [vec![], vec![0; 200], payload(&k, b"")[..70].to_vec()] {
        let published = a.try_publish(&k, base, bytes.clone());
        assert_eq!(published.unwrap_err().class(), ErrorClass::Protocol);
        let set = a.try_set(&k, bytes, Birth::latest(a.token.origin));
        assert_eq!(set.unwrap_err().class(), ErrorClass::Protocol);
    }
    assert_eq!(a.read(&k), None);
}

pub(super) fn an_invalidation_removes_foreign_bytes(subject: &dyn StoreUnderTest) {
    let (k, a) = (key("a"), caller(subject, 1));
    subject.plant(&k, b"rubbish".to_vec());
    a.invalidate(&k);
    assert_eq!(a.try_read(&k), Ok(None));
}
