//! Epochs and names.

use crate::store::{Birth, Namespace, Origin, StoreKey};
use crate::sync::future::block_on;

use super::StoreUnderTest;
use super::harness::{HOUR, caller, key, payload, value};

pub(super) fn epochs_only_grow(subject: &dyn StoreUnderTest) {
    let (k, a) = (key("a"), caller(subject, 1));
    let mut last = a.set(&k, b"first");
    for turn in 0..100 {
        let next = match turn % 3 {
            0 => a.set(&k, b"set"),
            _ => a.published(&k, a.granted(&k, Some(last)), b"published"),
        };
        assert!(next > last, "{next:?} after {last:?}");
        last = next;
    }
}

pub(super) fn a_removal_has_an_epoch(subject: &dyn StoreUnderTest) {
    let (k, a) = (key("a"), caller(subject, 1));
    for _ in 0..20 {
        let set = a.set(&k, b"set");
        let removed = a.invalidate(&k);
        assert!(removed > set);
        // The same where nothing is stored.
        assert!(a.invalidate(&k) >= removed);
    }
}

pub(super) fn epochs_are_the_time_of_the_store(subject: &dyn StoreUnderTest) {
    let (k, a) = (key("a"), caller(subject, 1));
    let second = 1_000_000;
    let before = subject.store().now().expect("connected");
    let epoch = a.set(&k, b"set").micros();
    let after = subject.store().now().expect("connected");
    assert!(before <= epoch + second && epoch <= after + second);
    assert!(after >= before);
}

pub(super) fn namespaces_are_apart(subject: &dyn StoreUnderTest) {
    let a = caller(subject, 1);
    let mine = key("a");
    let theirs = StoreKey::new(&Namespace::new("test:v2").unwrap(), b"a");
    a.set(&mine, b"mine");
    assert_eq!(a.read(&theirs), None);
    a.set(&theirs, b"theirs");
    assert_eq!(a.read(&mine).unwrap().0, b"mine");
    a.granted(&mine, Some(a.read(&mine).unwrap().1));
    let b = caller(subject, 2);
    b.granted(&theirs, Some(b.read(&theirs).unwrap().1));
    a.invalidate(&mine);
    assert_eq!(a.read(&theirs).unwrap().0, b"theirs");
}

pub(super) fn many_keys_are_answered_in_order(subject: &dyn StoreUnderTest) {
    let keys: Vec<StoreKey> = (0..200).map(|at| key(&at.to_string())).collect();
    let store = subject.store();
    for (at, key) in keys.iter().enumerate() {
        if at % 3 != 0 {
            let payload = payload(key, at.to_string().as_bytes());
            let birth = Birth::latest(Origin(1));
            block_on(store.set(key, payload, HOUR, birth)).unwrap();
        }
    }
    assert!(block_on(store.read(&[])).is_empty());
    let answers = block_on(store.read(&keys));
    assert_eq!(answers.len(), keys.len());
    for ((at, key), answer) in keys.iter().enumerate().zip(answers) {
        let stored = answer.unwrap().map(|payload| value(key, &payload));
        let expected = (at % 3 != 0).then(|| at.to_string().into_bytes());
        assert_eq!(stored, expected);
    }
    let stats = store.stats();
    assert_eq!((stats.reads, stats.found), (200, 133));
}
