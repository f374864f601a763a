//! What others leave under a key, and what would do harm there.

use everfresh::store::{Acquired, Epoch, ErrorClass, Stored, envelope};
use futures_lite::future::block_on;

use super::world::{HOUR, LIMIT, World, caller, key, payload};

/// A payload with an epoch written into it, as it would be stored.
fn stored(name: &str, epoch: u64) -> Vec<u8> {
    let mut payload = payload(&key(name), b"planted");
    payload[4..12].copy_from_slice(&epoch.to_be_bytes());
    let inverse = ((1_u64 << 53) - 1).wrapping_sub(epoch);
    payload[12..20].copy_from_slice(&inverse.to_be_bytes());
    payload
}

/// Whether a load of the key goes on as if nothing were there.
fn is_replaced(world: &dyn World, bytes: Vec<u8>) {
    let (k, a) = (key("a"), caller(world, 1));
    world.plant(&k, bytes.clone());
    assert_eq!(a.try_read(&k), Ok(Some(bytes)));
    let base = a.granted_over_nothing(&k);
    let epoch = a.published(&k, base, b"loaded");
    assert_eq!(a.read(&k), Some((b"loaded".to_vec(), epoch)));
}

pub fn what_is_no_payload_is_replaced(world: &dyn World) {
    is_replaced(
        world,
        b"a string of somebody else, as long as a whole header and longer, for it must be".to_vec(),
    );
}

pub fn what_is_cut_off_is_replaced(world: &dyn World) {
    is_replaced(world, stored("a", 5_000)[..19].to_vec());
}

pub fn a_future_version_is_seen_and_replaced(world: &dyn World) {
    let (k, a) = (key("a"), caller(world, 1));
    let mut future = stored("a", 5_000);
    future[3] = 77;
    future.truncate(20);
    world.plant(&k, future.clone());
    // It may be read by who can, and its epoch by everybody, ...
    assert_eq!(a.acquire(&k, None), Acquired::Stored(future.clone()));
    let epoch = envelope::epoch(&future);
    assert_eq!(epoch, Epoch::from_micros(5_000));
    // ... so that who cannot read it replaces it by the ordinary way.
    let base = a.granted(&k, epoch);
    assert_eq!(Some(base), epoch);
    assert!(a.published(&k, base, b"loaded") > base);
}

pub fn a_damaged_epoch_counts_as_nothing(world: &dyn World) {
    for at in 4..20 {
        let (k, a) = (key("a"), caller(world, 1));
        let mut damaged = stored("a", 5_000);
        damaged[at] ^= 0x10;
        assert_eq!(envelope::epoch(&damaged), None);
        world.plant(&k, damaged);
        let planted = Epoch::from_micros(5_000).unwrap();
        let base = a.granted(&k, Some(planted));
        assert!(base > planted, "{at}");
        // No such epoch is a base, and under the lease it is replaced.
        let b = caller(world, 2);
        assert_eq!(b.publish(&k, planted, b"no"), Stored::Refused);
        a.published(&k, base, b"loaded");
        a.invalidate(&k);
    }
}

pub fn an_epoch_past_all_is_not_believed(world: &dyn World) {
    let (k, a) = (key("a"), caller(world, 1));
    for epoch in [0, (1 << 53) - 1, 1 << 53, u64::MAX] {
        world.plant(&k, stored("a", epoch));
        a.granted_over_nothing(&k);
        let set = a.set(&k, b"set");
        assert!(set.micros() < (1 << 52));
        assert!(a.set(&k, b"again") > set);
        a.invalidate(&k);
    }
    // One in the future is: it is only a clock that was set back.
    let future = 1 << 52;
    world.plant(&k, stored("a", future));
    assert!(matches!(a.acquire(&k, None), Acquired::Stored(_)));
    assert_eq!(a.set(&k, b"set").micros(), future + 1);
    assert_eq!(a.invalidate(&k).micros(), future + 2);
}

pub fn what_is_too_large_is_not_read_and_replaced(world: &dyn World) {
    let (k, a) = (key("a"), caller(world, 1));
    for (prefix, epoch) in [
        (stored("a", 5_000), Epoch::from_micros(5_000)),
        (vec![7; 30], None),
    ] {
        let mut large = prefix;
        large.resize(LIMIT + 1, 0);
        world.plant(&k, large);
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
    exact.resize(LIMIT, 0);
    world.plant(&k, exact.clone());
    assert_eq!(a.try_read(&k), Ok(Some(exact.clone())));
    assert_eq!(a.acquire(&k, None), Acquired::Stored(exact));
    assert_eq!(world.store().stats().errors(ErrorClass::TooLarge), 2);
}

pub fn what_is_too_large_is_not_stored(world: &dyn World) {
    let (k, a) = (key("a"), caller(world, 1));
    let set = a.set(&k, b"small");
    let mut large = payload(&k, b"large");
    large.resize(LIMIT + 1, 0);
    let base = a.granted(&k, Some(set));
    let published = a.try_publish(&k, base, large.clone());
    assert_eq!(published.unwrap_err().class(), ErrorClass::TooLarge);
    let set = block_on(world.store().set(&k, large, HOUR, a.token.origin));
    assert_eq!(set.unwrap_err().class(), ErrorClass::TooLarge);
    assert_eq!(a.read(&k).unwrap().0, b"small");
    assert_eq!(world.store().stats().errors(ErrorClass::TooLarge), 2);
}

pub fn what_is_no_envelope_is_not_stored(world: &dyn World) {
    let (k, a) = (key("a"), caller(world, 1));
    let base = a.granted(&k, None);
    for bytes in [vec![], vec![0; 200], payload(&k, b"")[..70].to_vec()] {
        let published = a.try_publish(&k, base, bytes.clone());
        assert_eq!(published.unwrap_err().class(), ErrorClass::Protocol);
        let set = block_on(world.store().set(&k, bytes, HOUR, a.token.origin));
        assert_eq!(set.unwrap_err().class(), ErrorClass::Protocol);
    }
    assert_eq!(a.read(&k), None);
}

pub fn an_invalidation_removes_what_is_no_payload(world: &dyn World) {
    let (k, a) = (key("a"), caller(world, 1));
    world.plant(&k, b"rubbish".to_vec());
    a.invalidate(&k);
    assert_eq!(a.try_read(&k), Ok(None));
}
