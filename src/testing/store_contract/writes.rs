//! The order of writes: the later of two writes wins, whenever each of them arrives.

use std::time::Duration;

use crate::store::{Acquired, Birth, Origin, StoreKey, Stored};
use crate::sync::future::block_on;

use super::StoreUnderTest;
use super::harness::{HOUR, caller, key, namespace, raw};

/// One minute in microseconds: more than a set may be late and still replace a loaded value.
const LONG: u64 = 60_000_000;

pub(super) fn a_write_older_than_a_stored_write_is_refused(subject: &dyn StoreUnderTest) {
    let (k, a, b) = (key("a"), caller(subject, 1), caller(subject, 2));
    let now = subject.store().now().expect("connected");
    assert!(b.set_born(&k, b"later", now, None).epoch().is_some());
    let stored = b.read(&k);
    assert_eq!(a.set_born(&k, b"earlier", now - 1, None), Stored::Refused);
    assert_eq!(a.invalidate_born(&k, now - 1, None), Stored::Refused);
    assert_eq!(b.read(&k), stored);
    // The lease is that of a later load, so it stays.
    let base = b.granted(&k, stored.map(|(_, epoch)| epoch));
    assert_eq!(
        a.set_born(&k, b"earlier", now - LONG, None),
        Stored::Refused
    );
    b.published(&k, base, b"loaded");
}

pub(super) fn a_later_write_wins_though_both_waited(subject: &dyn StoreUnderTest) {
    let (k, a, b) = (key("a"), caller(subject, 1), caller(subject, 2));
    let now = subject.store().now().expect("connected");
    assert!(
        a.set_born(&k, b"earlier", now - 2 * LONG, None)
            .epoch()
            .is_some()
    );
    // The later of the two by birth, although both births are before the stored epoch.
    assert!(b.set_born(&k, b"later", now - LONG, None).epoch().is_some());
    assert_eq!(b.read(&k).unwrap().0, b"later");
    assert!(a.invalidate_born(&k, now - LONG, None).epoch().is_some());
    assert_eq!(b.read(&k), None);
}

pub(super) fn a_repeated_write_is_accepted_again(subject: &dyn StoreUnderTest) {
    let (k, a) = (key("a"), caller(subject, 1));
    let now = subject.store().now().expect("connected");
    let first = a.set_born(&k, b"value", now - LONG, None).epoch();
    let again = a.set_born(&k, b"value", now - LONG, None).epoch();
    assert!(first.is_some() && again > first);
}

pub(super) fn a_write_replaces_what_its_writer_has_seen(subject: &dyn StoreUnderTest) {
    let (k, a, b) = (key("a"), caller(subject, 1), caller(subject, 2));
    let now = subject.store().now().expect("connected");
    // The clock of the writer is late, but it has read the value.
    let seen = b.set_born(&k, b"theirs", now, None).epoch();
    let set = a.set_born(&k, b"mine", now - LONG, seen).epoch();
    assert!(set > seen);
    // The birth that is stored is that of the last write.
    assert!(b.invalidate_born(&k, now - LONG, None).epoch() > set);
    let loaded = b.published(&k, b.granted(&k, None), b"loaded");
    assert!(a.set_born(&k, b"mine", now - LONG, Some(loaded)).epoch() > Some(loaded));
}

pub(super) fn a_set_that_waited_is_not_stored_over_a_loaded_value(subject: &dyn StoreUnderTest) {
    let (k, a, b) = (key("a"), caller(subject, 1), caller(subject, 2));
    let now = subject.store().now().expect("connected");
    b.published(&k, b.granted(&k, None), b"loaded");
    // Either may be the older one, so neither stays.
    assert_eq!(
        a.set_born(&k, b"written", now - LONG, None),
        Stored::Refused
    );
    assert_eq!(b.read(&k), None);
    // A set that arrives at once replaces a value that was stored while it was on its way.
    let loaded = b.published(&k, b.granted(&k, None), b"loaded");
    let now = subject.store().now().expect("connected");
    assert!(a.set_born(&k, b"written", now - 1_000, None).epoch() > Some(loaded));
}

pub(super) fn an_invalidation_that_waited_removes_a_loaded_value(subject: &dyn StoreUnderTest) {
    let (k, a, b) = (key("a"), caller(subject, 1), caller(subject, 2));
    let now = subject.store().now().expect("connected");
    let loaded = b.published(&k, b.granted(&k, None), b"loaded");
    let base = b.granted(&k, Some(loaded));
    assert!(a.invalidate_born(&k, now - LONG, None).epoch() > Some(loaded));
    assert!(matches!(b.acquire(&k, None), Acquired::Granted { base: next } if next > base));
}

pub(super) fn a_birth_in_the_future_blocks_no_write(subject: &dyn StoreUnderTest) {
    let (k, a, b) = (key("a"), caller(subject, 1), caller(subject, 2));
    let now = subject.store().now().expect("connected");
    let set = a
        .set_born(&k, b"from a wrong clock", now + LONG, None)
        .epoch()
        .unwrap();
    let later = b.set_born(&k, b"later", set.micros() + 1, None).epoch();
    assert!(later > Some(set));
}

/// A group has a record that lasts for ever. A process that finds none makes it, and only the first
/// of several makes it; an invalidation makes it anew.
pub(super) fn the_record_of_a_group_is_made_once_and_kept(subject: &dyn StoreUnderTest) {
    const YEAR: Duration = Duration::from_secs(365 * 24 * HOUR.as_secs());
    let store = subject.store();
    let k = StoreKey::of_cell(&namespace(), 7);
    let set = |micros| {
        let birth = Birth {
            origin: Origin(1),
            micros,
            seen: None,
        };
        let payload = raw().seal_cell(&k).expect("the codec is not asked");
        block_on(store.set(&k, payload, Duration::MAX, birth)).unwrap()
    };
    let head = || {
        let heads = block_on(store.heads(std::slice::from_ref(&k)));
        let head = heads.into_iter().next().expect("one answer for each key");
        head.unwrap().map(|head| head.epoch)
    };
    assert_eq!(head(), None);
    let made = set(1).epoch();
    assert!(made.is_some());
    assert_eq!((set(1), head()), (Stored::Refused, made));
    let latest = Birth::latest(Origin(1)).micros;
    let invalidated = set(latest).epoch();
    assert!(invalidated > made);
    assert!(set(latest).epoch() > invalidated);
    let last = head().expect("it is stored");
    assert_eq!(set(last.micros() - 1), Stored::Refused);
    assert!(subject.data_left(&k) > Some(10 * YEAR));
}
