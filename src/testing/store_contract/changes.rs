//! Changes: the notifications of the listeners of a namespace.

use std::time::Duration;

use crate::store::{Change, ChangeKind, Namespace, StoreKey, Stored};
use crate::sync::Arc;

use super::StoreUnderTest;
use super::harness::{MINUTE, Recording, caller, key, namespace, until};

fn change(
    kind: ChangeKind,
    epoch: Option<crate::store::Epoch>,
    key: &StoreKey,
    origin: u64,
) -> Change {
    Change {
        kind,
        epoch,
        hash: key.hash(),
        origin: crate::store::Origin(origin),
    }
}

pub(super) fn every_change_reaches_the_listeners(subject: &dyn StoreUnderTest) {
    let recording = Recording::of(subject.store(), &namespace());
    let (k, a, b) = (key("a"), caller(subject, 1), caller(subject, u64::MAX));
    let mut expected = Vec::new();
    for _ in 0..20 {
        let set = b.set(&k, b"set");
        expected.push(change(ChangeKind::Set, Some(set), &k, u64::MAX));
        let published = a.published(&k, a.granted(&k, Some(set)), b"refreshed");
        expected.push(change(ChangeKind::Refreshed, Some(published), &k, 1));
        let removed = a.invalidate(&k);
        expected.push(change(ChangeKind::Invalidated, Some(removed), &k, 1));
    }
    assert_eq!(recording.wait_for(60), expected);
    assert!(subject.store().stats().changes >= 60);
}

pub(super) fn a_released_lease_reaches_the_listeners(subject: &dyn StoreUnderTest) {
    let recording = Recording::of(subject.store(), &namespace());
    let (k, a) = (key("a"), caller(subject, 1));
    a.granted(&k, None);
    a.release(&k, None);
    a.granted(&k, None);
    a.release(&k, Some(MINUTE));
    let released = change(ChangeKind::Released, None, &k, 1);
    assert_eq!(recording.wait_for(2), [released, released]);
    // A load whose result cannot be stored leaves no cool-down.
    let b = caller(subject, 2);
    b.granted(&k, None);
    b.release(&k, Some(Duration::ZERO));
    let not_stored = change(ChangeKind::NotStored, None, &k, 2);
    assert_eq!(recording.wait_for(3)[2], not_stored);
    b.granted(&k, None);
}

pub(super) fn a_refused_operation_is_no_change(subject: &dyn StoreUnderTest) {
    let recording = Recording::of(subject.store(), &namespace());
    let (k, a, b) = (key("a"), caller(subject, 1), caller(subject, 2));
    let base = a.granted(&k, None);
    b.acquire(&k, None);
    b.renew(&k, MINUTE);
    b.release(&k, None);
    assert_eq!(b.publish(&k, base, b"no"), Stored::Refused);
    let removed = a.invalidate(&k);
    let expected = change(ChangeKind::Invalidated, Some(removed), &k, 1);
    assert_eq!(recording.wait_for(1), [expected]);
}

pub(super) fn other_namespaces_do_not_reach_the_listeners(subject: &dyn StoreUnderTest) {
    let other = Namespace::new("test:v2").unwrap();
    let recording = Recording::of(subject.store(), &namespace());
    let elsewhere = Recording::of(subject.store(), &other);
    let a = caller(subject, 1);
    let theirs = StoreKey::new(&other, b"a");
    let first = a.set(&theirs, b"theirs");
    let second = a.set(&key("a"), b"mine");
    let (mine, theirs) = (
        change(ChangeKind::Set, Some(second), &key("a"), 1),
        change(ChangeKind::Set, Some(first), &theirs, 1),
    );
    assert_eq!(recording.wait_for(1), [mine]);
    assert_eq!(elsewhere.wait_for(1), [theirs]);
}

pub(super) fn a_dropped_listener_receives_nothing(subject: &dyn StoreUnderTest) {
    let recording = Recording::of(subject.store(), &namespace());
    let stays = Recording::of(subject.store(), &namespace());
    let a = caller(subject, 1);
    a.invalidate(&key("a"));
    recording.wait_for(1);
    until("the store keeps no listener alive", || {
        Arc::strong_count(&recording) == 1
    });
    drop(recording);
    a.invalidate(&key("a"));
    assert_eq!(stays.wait_for(2).len(), 2);
}
