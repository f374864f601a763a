use std::sync::Barrier;
use std::thread;

use everfresh::store::{Acquired, Stored};

use super::world::{HOUR, MINUTE, World, caller, key, value};

pub fn nothing_is_stored_at_first(world: &dyn World) {
    let (k, a) = (key("a"), caller(world, 1));
    assert_eq!(a.read(&k), None);
    a.granted_over_nothing(&k);
}

pub fn one_lease_at_a_time(world: &dyn World) {
    let (k, a, b) = (key("a"), caller(world, 1), caller(world, 2));
    a.granted(&k, None);
    assert!(b.is_held(&k, None));
    assert!(b.is_held(&k, None));
    b.granted(&key("another"), None);
}

pub fn a_lease_is_granted_again_to_its_holder(world: &dyn World) {
    let (k, a) = (key("a"), caller(world, 1));
    let base = a.granted(&k, None);
    // A try that timed out may have succeeded.
    assert_eq!(a.granted(&k, None), base);
    // The same cache, another attempt.
    let mut next = a;
    next.token.serial += 1;
    assert!(next.is_held(&k, None));
}

pub fn what_is_published_is_read(world: &dyn World) {
    let (k, a, b) = (key("a"), caller(world, 1), caller(world, 2));
    let base = a.granted(&k, None);
    let epoch = a.published(&k, base, b"one");
    assert_eq!(b.read(&k), Some((b"one".to_vec(), epoch)));
    // The lease went with it.
    assert_eq!(b.granted(&k, Some(epoch)), epoch);
}

pub fn what_somebody_else_stored_is_returned(world: &dyn World) {
    let (k, a, b) = (key("a"), caller(world, 1), caller(world, 2));
    let first = a.published(&k, a.granted(&k, None), b"one");
    for seen in [None, first.micros().checked_sub(1)] {
        let seen = seen.and_then(everfresh::store::Epoch::from_micros);
        match b.acquire(&k, seen) {
            Acquired::Stored(payload) => assert_eq!(value(&k, &payload), b"one"),
            other => panic!("{other:?}"),
        }
    }
    // Also while somebody else refreshes it.
    a.granted(&k, Some(first));
    assert!(matches!(b.acquire(&k, None), Acquired::Stored(_)));
    assert!(b.is_held(&k, Some(first)));
}

pub fn one_successor_of_each_epoch(world: &dyn World) {
    let (k, a) = (key("a"), caller(world, 1));
    let first = a.published(&k, a.granted(&k, None), b"one");
    let base = a.granted(&k, Some(first));
    let second = a.published(&k, base, b"two");
    assert_eq!(a.publish(&k, base, b"three"), Stored::Refused);
    assert_eq!(a.read(&k), Some((b"two".to_vec(), second)));
}

pub fn a_set_fences_a_load(world: &dyn World) {
    let (k, a, b) = (key("a"), caller(world, 1), caller(world, 2));
    let base = a.granted(&k, None);
    let set = b.set(&k, b"set");
    assert_eq!(a.publish(&k, base, b"loaded"), Stored::Refused);
    assert_eq!(b.read(&k), Some((b"set".to_vec(), set)));
    // And nobody holds the lease.
    assert_eq!(b.granted(&k, Some(set)), set);
}

pub fn an_invalidation_fences_a_refresh(world: &dyn World) {
    let (k, a, b) = (key("a"), caller(world, 1), caller(world, 2));
    let first = b.set(&k, b"old");
    let base = a.granted(&k, Some(first));
    b.invalidate(&k);
    assert_eq!(b.read(&k), None);
    assert_eq!(a.publish(&k, base, b"loaded before"), Stored::Refused);
    assert_eq!(b.read(&k), None);
}

pub fn an_invalidation_fences_a_load(world: &dyn World) {
    let (k, a, b) = (key("a"), caller(world, 1), caller(world, 2));
    let base = a.granted(&k, None);
    b.invalidate(&k);
    // Nothing was there, nothing is there: yet not the same nothing.
    assert_eq!(a.publish(&k, base, b"loaded before"), Stored::Refused);
    // Not even under the lease of who loads after it.
    let after = b.granted(&k, None);
    assert_eq!(a.publish(&k, base, b"loaded before"), Stored::Refused);
    b.published(&k, after, b"loaded after");
}

pub fn nothing_is_no_base(world: &dyn World) {
    let (k, a) = (key("a"), caller(world, 1));
    let base = a.granted(&k, None);
    world.lose_lease(&k);
    assert_eq!(a.publish(&k, base, b"one"), Stored::Refused);
    assert_eq!(a.read(&k), None);
}

pub fn a_repeated_try_that_arrives_late_is_another_lease(world: &dyn World) {
    let (k, a, b) = (key("a"), caller(world, 1), caller(world, 2));
    let base = a.granted(&k, None);
    b.invalidate(&k);
    // The network delivers the same try once more. What was loaded before the invalidation has to fail all the same.
    assert!(a.granted(&k, None) > base);
    assert_eq!(a.publish(&k, base, b"loaded before"), Stored::Refused);
    assert_eq!(a.read(&k), None);
    // Over something stored, too.
    let first = b.set(&k, b"one");
    let base = a.granted(&k, Some(first));
    b.invalidate(&k);
    a.granted(&k, Some(first));
    assert_eq!(a.publish(&k, base, b"loaded before"), Stored::Refused);
    assert_eq!(a.read(&k), None);
}

pub fn a_lease_keeps_its_base(world: &dyn World) {
    let (k, a) = (key("a"), caller(world, 1));
    let first = a.set(&k, b"one");
    let base = a.granted(&k, Some(first));
    world.lose_data(&k);
    // Asked again, it is the same lease.
    assert_eq!(a.granted(&k, Some(first)), base);
    assert!(a.renew(&k, HOUR));
    a.published(&k, base, b"two");
}

pub fn a_base_outlives_its_lease(world: &dyn World) {
    let (k, a) = (key("a"), caller(world, 1));
    let first = a.set(&k, b"one");
    let base = a.granted(&k, Some(first));
    world.lose_lease(&k);
    let second = a.published(&k, base, b"two");
    assert_eq!(a.read(&k), Some((b"two".to_vec(), second)));
}

pub fn a_lost_lease_is_overtaken(world: &dyn World) {
    let (k, a, b) = (key("a"), caller(world, 1), caller(world, 2));
    let first = a.set(&k, b"one");
    let slow = a.granted(&k, Some(first));
    world.lose_lease(&k);
    let quick = b.granted(&k, Some(first));
    let second = b.published(&k, quick, b"quick");
    assert_eq!(a.publish(&k, slow, b"slow"), Stored::Refused);
    assert_eq!(a.read(&k), Some((b"quick".to_vec(), second)));
}

pub fn an_overtaken_lease_stays_until_its_holder_is_done(world: &dyn World) {
    let (k, a, b, c) = (
        key("a"),
        caller(world, 1),
        caller(world, 2),
        caller(world, 3),
    );
    let first = a.set(&k, b"one");
    let slow = a.granted(&k, Some(first));
    world.lose_lease(&k);
    let other = b.granted(&k, Some(first));
    let second = a.published(&k, slow, b"slow");
    // The loader of B still runs: no third one.
    assert!(c.is_held(&k, Some(second)));
    assert_eq!(b.publish(&k, other, b"too late"), Stored::Refused);
    assert_eq!(c.granted(&k, Some(second)), second);
}

pub fn an_overtaken_lease_publishes_nothing(world: &dyn World) {
    let (k, a, b) = (key("a"), caller(world, 1), caller(world, 2));
    let first = a.set(&k, b"one");
    let slow = a.granted(&k, Some(first));
    world.lose_lease(&k);
    let other = b.granted(&k, Some(first));
    assert_eq!(slow, other);
    a.published(&k, slow, b"slow");
    // Not even when what overtook it is gone: there would be two successors of the first.
    world.lose_data(&k);
    assert!(b.renew(&k, MINUTE));
    assert_eq!(b.publish(&k, other, b"second"), Stored::Refused);
    assert_eq!(a.read(&k), None);
    assert_eq!(world.lease_left(&k), None);
}

pub fn what_was_evicted_is_published_under_the_lease(world: &dyn World) {
    let (k, a) = (key("a"), caller(world, 1));
    let first = a.set(&k, b"one");
    let base = a.granted(&k, Some(first));
    world.lose_data(&k);
    let second = a.published(&k, base, b"two");
    assert_eq!(a.read(&k), Some((b"two".to_vec(), second)));
}

pub fn a_released_lease_is_free(world: &dyn World) {
    let (k, a, b) = (key("a"), caller(world, 1), caller(world, 2));
    let base = a.granted(&k, None);
    assert!(!b.release(&k, None));
    assert!(b.is_held(&k, None));
    assert!(a.release(&k, None));
    assert!(!a.release(&k, None));
    b.granted(&k, None);
    assert_eq!(a.publish(&k, base, b"given up"), Stored::Refused);
}

pub fn a_failed_load_cools_down(world: &dyn World) {
    let (k, a, b) = (key("a"), caller(world, 1), caller(world, 2));
    let first = a.set(&k, b"one");
    let base = a.granted(&k, Some(first));
    assert!(a.release(&k, Some(MINUTE)));
    for caller in [a, b] {
        match caller.acquire(&k, Some(first)) {
            Acquired::Cooling { left } => assert!(left <= MINUTE && left > MINUTE / 2),
            other => panic!("{other:?}"),
        }
        assert!(!caller.renew(&k, HOUR));
        assert!(!caller.release(&k, None));
    }
    // What is stored is given to who has not seen it.
    assert!(matches!(b.acquire(&k, None), Acquired::Stored(_)));
    // The cool-down passes like a lease.
    world.lose_lease(&k);
    assert_eq!(b.granted(&k, Some(first)), base);
}

pub fn a_set_ends_a_cool_down(world: &dyn World) {
    let (k, a, b) = (key("a"), caller(world, 1), caller(world, 2));
    a.granted(&k, None);
    a.release(&k, Some(MINUTE));
    let set = b.set(&k, b"set");
    b.granted(&k, Some(set));
    a.release(&k, None);
    b.release(&k, Some(MINUTE));
    b.invalidate(&k);
    a.granted(&k, None);
}

pub fn only_the_holder_renews(world: &dyn World) {
    let (k, a, b) = (key("a"), caller(world, 1), caller(world, 2));
    assert!(!a.renew(&k, HOUR));
    a.granted(&k, None);
    assert!(!b.renew(&k, HOUR));
    assert!(world.lease_left(&k).unwrap() <= MINUTE);
    assert!(a.renew(&k, HOUR));
    assert!(world.lease_left(&k).unwrap() > HOUR / 2);
    world.lose_lease(&k);
    assert!(!a.renew(&k, HOUR));
    assert_eq!(world.lease_left(&k), None);
}

pub fn times_to_live_are_kept(world: &dyn World) {
    let (k, a) = (key("a"), caller(world, 1));
    let near = |left: Option<std::time::Duration>, whole| {
        let left = left.expect("it lives");
        assert!(left <= whole && left > whole / 2, "{left:?} of {whole:?}");
    };
    let base = a.granted(&k, None);
    near(world.lease_left(&k), MINUTE);
    let epoch = a.published(&k, base, b"one");
    assert_eq!(world.lease_left(&k), None);
    near(world.data_left(&k), HOUR);
    a.granted(&k, Some(epoch));
    a.set(&k, b"two");
    assert_eq!(world.lease_left(&k), None);
    near(world.data_left(&k), HOUR);
    a.invalidate(&k);
    assert_eq!(world.data_left(&k), None);
}

pub fn one_of_many_is_granted(world: &dyn World) {
    let (keys, callers) = (20, 6);
    let barrier = Barrier::new(callers);
    let granted = thread::scope(|scope| {
        let callers: Vec<_> = (0..callers)
            .map(|number| {
                let barrier = &barrier;
                scope.spawn(move || {
                    let me = caller(world, number as u64);
                    let mut granted = 0;
                    for at in 0..keys {
                        barrier.wait();
                        let acquired = me.acquire(&key(&at.to_string()), None);
                        granted += usize::from(matches!(acquired, Acquired::Granted { .. }));
                    }
                    granted
                })
            })
            .collect();
        let granted = callers.into_iter().map(|caller| caller.join().unwrap());
        granted.sum::<usize>()
    });
    assert_eq!(granted, keys);
}
