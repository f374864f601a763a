//! Leases: which caller may load, and which result is stored.

use std::thread;

use crate::store::{Acquired, Epoch, Origin, StoreKey, Stored};
use crate::sync::{AtomicUsize, Ordering};

use super::StoreUnderTest;
use super::harness::{Caller, HOUR, MINUTE, caller, key, value};

pub(super) fn nothing_is_stored_at_first(subject: &dyn StoreUnderTest) {
    let (k, a) = (key("a"), caller(subject, 1));
    assert_eq!(a.read(&k), None);
    a.granted_over_nothing(&k);
}

pub(super) fn one_lease_at_a_time(subject: &dyn StoreUnderTest) {
    let (k, a, b) = (key("a"), caller(subject, 1), caller(subject, 2));
    a.granted(&k, None);
    assert!(b.is_held(&k, None));
    assert!(b.is_held(&k, None));
    b.granted(&key("another"), None);
}

pub(super) fn many_leases_are_asked_for_together(subject: &dyn StoreUnderTest) {
    let (a, b) = (caller(subject, 1), caller(subject, 2));
    let names: Vec<String> = (0..20).map(|number| format!("{number}")).collect();
    let keys: Vec<StoreKey> = names.iter().map(|name| key(name)).collect();
    let stored = a.published(&keys[3], a.granted(&keys[3], None), b"stored");
    b.granted(&keys[5], None);
    // In the order of the questions: each is answered as if it were alone.
    for (place, answer) in a.acquire_many(&keys).into_iter().enumerate() {
        match (place, answer) {
            (3, Acquired::Stored(payload)) => assert_eq!(value(&keys[3], &payload), b"stored"),
            (5, Acquired::Held { .. }) | (_, Acquired::Granted { .. }) => {}
            (place, other) => panic!("{place}: {other:?}"),
        }
    }
    assert!(b.is_held(&keys[0], None) && b.is_held(&keys[19], None));
    assert_eq!(b.granted(&keys[3], Some(stored)), stored);
    assert!(a.acquire_many(&[]).is_empty());
}

pub(super) fn a_lease_is_granted_again_to_its_holder(subject: &dyn StoreUnderTest) {
    let (k, a) = (key("a"), caller(subject, 1));
    let base = a.granted(&k, None);
    // An attempt that timed out may have succeeded.
    assert_eq!(a.granted(&k, None), base);
    // The same cache, another attempt.
    let mut next = a;
    next.token.serial += 1;
    assert!(next.is_held(&k, None));
}

pub(super) fn a_published_payload_is_read(subject: &dyn StoreUnderTest) {
    let (k, a, b) = (key("a"), caller(subject, 1), caller(subject, 2));
    let base = a.granted(&k, None);
    let epoch = a.published(&k, base, b"one");
    assert_eq!(b.read(&k), Some((b"one".to_vec(), epoch)));
    // The publication ended the lease.
    assert_eq!(b.granted(&k, Some(epoch)), epoch);
}

pub(super) fn a_payload_of_another_caller_is_returned(subject: &dyn StoreUnderTest) {
    let (k, a, b) = (key("a"), caller(subject, 1), caller(subject, 2));
    let first = a.published(&k, a.granted(&k, None), b"one");
    for seen in [None, first.micros().checked_sub(1)] {
        let seen = seen.and_then(crate::store::Epoch::from_micros);
        match b.acquire(&k, seen) {
            Acquired::Stored(payload) => assert_eq!(value(&k, &payload), b"one"),
            other => panic!("{other:?}"),
        }
    }
    // Also while another caller refreshes it.
    a.granted(&k, Some(first));
    assert!(matches!(b.acquire(&k, None), Acquired::Stored(_)));
    assert!(b.is_held(&k, Some(first)));
}

pub(super) fn one_successor_of_each_epoch(subject: &dyn StoreUnderTest) {
    let (k, a) = (key("a"), caller(subject, 1));
    let first = a.published(&k, a.granted(&k, None), b"one");
    let base = a.granted(&k, Some(first));
    let second = a.published(&k, base, b"two");
    assert_eq!(a.publish(&k, base, b"three"), Stored::Refused);
    assert_eq!(a.read(&k), Some((b"two".to_vec(), second)));
}

pub(super) fn a_set_fences_a_load(subject: &dyn StoreUnderTest) {
    let (k, a, b) = (key("a"), caller(subject, 1), caller(subject, 2));
    let base = a.granted(&k, None);
    let set = b.set(&k, b"set");
    assert_eq!(a.publish(&k, base, b"loaded"), Stored::Refused);
    assert_eq!(b.read(&k), Some((b"set".to_vec(), set)));
    // The set also freed the lease.
    assert_eq!(b.granted(&k, Some(set)), set);
}

pub(super) fn an_invalidation_fences_a_refresh(subject: &dyn StoreUnderTest) {
    let (k, a, b) = (key("a"), caller(subject, 1), caller(subject, 2));
    let first = b.set(&k, b"old");
    let base = a.granted(&k, Some(first));
    b.invalidate(&k);
    assert_eq!(b.read(&k), None);
    assert_eq!(a.publish(&k, base, b"loaded before"), Stored::Refused);
    assert_eq!(b.read(&k), None);
}

pub(super) fn an_invalidation_fences_a_load(subject: &dyn StoreUnderTest) {
    let (k, a, b) = (key("a"), caller(subject, 1), caller(subject, 2));
    let base = a.granted(&k, None);
    b.invalidate(&k);
    // Nothing is stored, as before, but an invalidation came between.
    assert_eq!(a.publish(&k, base, b"loaded before"), Stored::Refused);
    // Nor may it use the lease of a caller that loads after the invalidation.
    let after = b.granted(&k, None);
    assert_eq!(a.publish(&k, base, b"loaded before"), Stored::Refused);
    b.published(&k, after, b"loaded after");
}

pub(super) fn an_empty_store_is_no_base(subject: &dyn StoreUnderTest) {
    let (k, a) = (key("a"), caller(subject, 1));
    let base = a.granted(&k, None);
    subject.lose_lease(&k);
    assert_eq!(a.publish(&k, base, b"one"), Stored::Refused);
    assert_eq!(a.read(&k), None);
}

pub(super) fn a_repeated_attempt_that_arrives_late_is_another_lease(subject: &dyn StoreUnderTest) {
    let (k, a, b) = (key("a"), caller(subject, 1), caller(subject, 2));
    let base = a.granted(&k, None);
    b.invalidate(&k);
    // The network delivers the same request once more. The result of a load that began before the
    // invalidation must still be refused.
    assert!(a.granted(&k, None) > base);
    assert_eq!(a.publish(&k, base, b"loaded before"), Stored::Refused);
    assert_eq!(a.read(&k), None);
    // The same over a stored payload.
    let first = b.set(&k, b"one");
    let base = a.granted(&k, Some(first));
    b.invalidate(&k);
    a.granted(&k, Some(first));
    assert_eq!(a.publish(&k, base, b"loaded before"), Stored::Refused);
    assert_eq!(a.read(&k), None);
}

pub(super) fn a_lease_keeps_its_base(subject: &dyn StoreUnderTest) {
    let (k, a) = (key("a"), caller(subject, 1));
    let first = a.set(&k, b"one");
    let base = a.granted(&k, Some(first));
    subject.lose_data(&k);
    // A repeated request gets the same lease.
    assert_eq!(a.granted(&k, Some(first)), base);
    assert!(a.renew(&k, HOUR));
    a.published(&k, base, b"two");
}

pub(super) fn a_base_outlives_its_lease(subject: &dyn StoreUnderTest) {
    let (k, a) = (key("a"), caller(subject, 1));
    let first = a.set(&k, b"one");
    let base = a.granted(&k, Some(first));
    subject.lose_lease(&k);
    let second = a.published(&k, base, b"two");
    assert_eq!(a.read(&k), Some((b"two".to_vec(), second)));
}

pub(super) fn a_lost_lease_is_overtaken(subject: &dyn StoreUnderTest) {
    let (k, a, b) = (key("a"), caller(subject, 1), caller(subject, 2));
    let first = a.set(&k, b"one");
    let slow = a.granted(&k, Some(first));
    subject.lose_lease(&k);
    let quick = b.granted(&k, Some(first));
    let second = b.published(&k, quick, b"quick");
    assert_eq!(a.publish(&k, slow, b"slow"), Stored::Refused);
    assert_eq!(a.read(&k), Some((b"quick".to_vec(), second)));
}

pub(super) fn an_overtaken_lease_stays_until_its_holder_is_done(subject: &dyn StoreUnderTest) {
    let (k, a, b, c) = (
        key("a"),
        caller(subject, 1),
        caller(subject, 2),
        caller(subject, 3),
    );
    let first = a.set(&k, b"one");
    let slow = a.granted(&k, Some(first));
    subject.lose_lease(&k);
    let other = b.granted(&k, Some(first));
    let second = a.published(&k, slow, b"slow");
    // The loader of B still runs, so no third one may start.
    assert!(c.is_held(&k, Some(second)));
    assert_eq!(b.publish(&k, other, b"too late"), Stored::Refused);
    assert_eq!(c.granted(&k, Some(second)), second);
}

pub(super) fn an_overtaken_lease_publishes_nothing(subject: &dyn StoreUnderTest) {
    let (k, a, b) = (key("a"), caller(subject, 1), caller(subject, 2));
    let first = a.set(&k, b"one");
    let slow = a.granted(&k, Some(first));
    subject.lose_lease(&k);
    let other = b.granted(&k, Some(first));
    assert_eq!(slow, other);
    a.published(&k, slow, b"slow");
    // Nor after the overtaking payload is lost, because the first would have two successors.
    subject.lose_data(&k);
    assert!(b.renew(&k, MINUTE));
    assert_eq!(b.publish(&k, other, b"second"), Stored::Refused);
    assert_eq!(a.read(&k), None);
    assert_eq!(subject.lease_left(&k), None);
}

pub(super) fn an_evicted_payload_is_replaced_under_the_lease(subject: &dyn StoreUnderTest) {
    let (k, a) = (key("a"), caller(subject, 1));
    let first = a.set(&k, b"one");
    let base = a.granted(&k, Some(first));
    subject.lose_data(&k);
    let second = a.published(&k, base, b"two");
    assert_eq!(a.read(&k), Some((b"two".to_vec(), second)));
}

pub(super) fn a_released_lease_is_free(subject: &dyn StoreUnderTest) {
    let (k, a, b) = (key("a"), caller(subject, 1), caller(subject, 2));
    let base = a.granted(&k, None);
    assert!(!b.release(&k, None));
    assert!(b.is_held(&k, None));
    assert!(a.release(&k, None));
    assert!(!a.release(&k, None));
    b.granted(&k, None);
    assert_eq!(a.publish(&k, base, b"given up"), Stored::Refused);
}

pub(super) fn a_failed_load_cools_down(subject: &dyn StoreUnderTest) {
    let (k, a, b) = (key("a"), caller(subject, 1), caller(subject, 2));
    let first = a.set(&k, b"one");
    let base = a.granted(&k, Some(first));
    assert!(a.release(&k, Some(MINUTE)));
    match a.acquire(&k, Some(first)) {
        Acquired::Cooling { left } => assert!(left <= MINUTE && left > MINUTE / 2),
        other => panic!("{other:?}"),
    }
    for caller in [a, b] {
        assert!(!caller.renew(&k, HOUR));
        assert!(!caller.release(&k, None));
    }
    // A caller that has not seen the payload still gets it.
    assert!(matches!(b.acquire(&k, None), Acquired::Stored(_)));
    // A cool-down ends like a lease.
    subject.lose_lease(&k);
    assert_eq!(a.granted(&k, Some(first)), base);
}

fn cools(caller: &Caller<'_>, key: &StoreKey, seen: Option<Epoch>) -> bool {
    matches!(caller.acquire(key, seen), Acquired::Cooling { .. })
}

pub(super) fn in_a_cool_down_each_origin_tries_once(subject: &dyn StoreUnderTest) {
    let k = key("a");
    let first = caller(subject, 1).set(&k, b"one");
    for number in 0..16 {
        let mut me = caller(subject, number);
        assert_eq!(me.granted(&k, Some(first)), first);
        assert!(caller(subject, number + 1).is_held(&k, Some(first)));
        // A repeated request, and a renewal, lose none of the names.
        assert_eq!(me.granted(&k, Some(first)), first);
        assert!(me.renew(&k, MINUTE));
        assert!(me.release(&k, Some(MINUTE)));
        me.token.serial += 1;
        for failed in 0..=number {
            me.token.origin = Origin(failed);
            assert!(cools(&me, &k, Some(first)));
        }
    }
    // So many have failed that the origin of the values is to blame.
    assert!(cools(&caller(subject, 16), &k, Some(first)));
}

pub(super) fn a_publication_ends_a_cool_down(subject: &dyn StoreUnderTest) {
    let (k, a, b) = (key("a"), caller(subject, 1), caller(subject, 2));
    let first = a.set(&k, b"one");
    a.granted(&k, Some(first));
    a.release(&k, Some(MINUTE));
    let base = b.granted(&k, Some(first));
    let second = b.published(&k, base, b"two");
    assert_eq!(a.granted(&k, Some(second)), second);
    // Also a publication whose lease was lost.
    subject.lose_lease(&k);
    let base = b.granted(&k, Some(second));
    subject.lose_lease(&k);
    a.granted(&k, Some(second));
    a.release(&k, Some(MINUTE));
    let third = b.published(&k, base, b"three");
    assert_eq!(subject.lease_left(&k), None);
    assert_eq!(a.granted(&k, Some(third)), third);
}

pub(super) fn a_set_ends_a_cool_down(subject: &dyn StoreUnderTest) {
    let (k, a, b) = (key("a"), caller(subject, 1), caller(subject, 2));
    a.granted(&k, None);
    a.release(&k, Some(MINUTE));
    let set = b.set(&k, b"set");
    b.granted(&k, Some(set));
    a.release(&k, None);
    b.release(&k, Some(MINUTE));
    b.invalidate(&k);
    a.granted(&k, None);
}

pub(super) fn only_the_holder_renews(subject: &dyn StoreUnderTest) {
    let (k, a, b) = (key("a"), caller(subject, 1), caller(subject, 2));
    assert!(!a.renew(&k, HOUR));
    a.granted(&k, None);
    assert!(!b.renew(&k, HOUR));
    assert!(subject.lease_left(&k).unwrap() <= MINUTE);
    assert!(a.renew(&k, HOUR));
    assert!(subject.lease_left(&k).unwrap() > HOUR / 2);
    subject.lose_lease(&k);
    assert!(!a.renew(&k, HOUR));
    assert_eq!(subject.lease_left(&k), None);
}

pub(super) fn times_to_live_are_kept(subject: &dyn StoreUnderTest) {
    let (k, a) = (key("a"), caller(subject, 1));
    let near = |left: Option<std::time::Duration>, whole| {
        let left = left.expect("it lives");
        assert!(left <= whole && left > whole / 2, "{left:?} of {whole:?}");
    };
    let base = a.granted(&k, None);
    near(subject.lease_left(&k), MINUTE);
    let epoch = a.published(&k, base, b"one");
    assert_eq!(subject.lease_left(&k), None);
    near(subject.data_left(&k), HOUR);
    a.granted(&k, Some(epoch));
    a.set(&k, b"two");
    assert_eq!(subject.lease_left(&k), None);
    near(subject.data_left(&k), HOUR);
    a.invalidate(&k);
    assert_eq!(subject.data_left(&k), None);
}

pub(super) fn one_of_many_callers_is_granted_the_lease(subject: &dyn StoreUnderTest) {
    let callers = 6;
    for at in 0..20 {
        let (k, arrived) = (key(&at.to_string()), AtomicUsize::new(0));
        let ask = |number| {
            let me = caller(subject, number);
            // All of them ask at the same moment.
            arrived.fetch_add(1, Ordering::AcqRel);
            while arrived.load(Ordering::Acquire) < callers {
                thread::yield_now();
            }
            matches!(me.acquire(&k, None), Acquired::Granted { .. })
        };
        let granted = thread::scope(|scope| {
            let callers = (0..callers).map(|number| scope.spawn(move || ask(number as u64)));
            let callers: Vec<_> = callers.collect();
            let granted = callers.into_iter().map(|caller| caller.join().unwrap());
            granted.filter(|granted| *granted).count()
        });
        assert_eq!(granted, 1);
    }
}
