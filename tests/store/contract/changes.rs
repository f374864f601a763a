use everfresh::store::{Change, ChangeKind, Namespace, StoreKey, Stored};

use super::world::{Heard, MINUTE, World, caller, key, namespace};

fn change(
    kind: ChangeKind,
    epoch: Option<everfresh::store::Epoch>,
    key: &StoreKey,
    origin: u64,
) -> Change {
    Change {
        kind,
        epoch,
        hash: key.hash(),
        origin: everfresh::store::Origin(origin),
    }
}

pub fn every_change_is_told(world: &dyn World) {
    let heard = Heard::of(world.store(), &namespace());
    let (k, a, b) = (key("a"), caller(world, 1), caller(world, u64::MAX));
    let mut expected = Vec::new();
    for _ in 0..20 {
        let set = b.set(&k, b"set");
        expected.push(change(ChangeKind::Set, Some(set), &k, u64::MAX));
        let published = a.published(&k, a.granted(&k, Some(set)), b"refreshed");
        expected.push(change(ChangeKind::Refreshed, Some(published), &k, 1));
        let removed = a.invalidate(&k);
        expected.push(change(ChangeKind::Invalidated, Some(removed), &k, 1));
    }
    assert_eq!(heard.wait_for(60), expected);
    assert!(world.store().stats().changes >= 60);
}

pub fn a_released_lease_is_told(world: &dyn World) {
    let heard = Heard::of(world.store(), &namespace());
    let (k, a) = (key("a"), caller(world, 1));
    a.granted(&k, None);
    a.release(&k, None);
    a.granted(&k, None);
    a.release(&k, Some(MINUTE));
    let released = change(ChangeKind::Released, None, &k, 1);
    assert_eq!(heard.wait_for(2), [released, released]);
}

pub fn what_is_refused_is_not_told(world: &dyn World) {
    let heard = Heard::of(world.store(), &namespace());
    let (k, a, b) = (key("a"), caller(world, 1), caller(world, 2));
    let base = a.granted(&k, None);
    b.acquire(&k, None);
    b.renew(&k, MINUTE);
    b.release(&k, None);
    assert_eq!(b.publish(&k, base, b"no"), Stored::Refused);
    let removed = a.invalidate(&k);
    let expected = change(ChangeKind::Invalidated, Some(removed), &k, 1);
    assert_eq!(heard.wait_for(1), [expected]);
}

pub fn other_namespaces_are_not_told(world: &dyn World) {
    let other = Namespace::new("test:v2").unwrap();
    let heard = Heard::of(world.store(), &namespace());
    let elsewhere = Heard::of(world.store(), &other);
    let a = caller(world, 1);
    let theirs = StoreKey::new(&other, b"a");
    let first = a.set(&theirs, b"theirs");
    let second = a.set(&key("a"), b"mine");
    let (mine, theirs) = (
        change(ChangeKind::Set, Some(second), &key("a"), 1),
        change(ChangeKind::Set, Some(first), &theirs, 1),
    );
    assert_eq!(heard.wait_for(1), [mine]);
    assert_eq!(elsewhere.wait_for(1), [theirs]);
}

pub fn a_dropped_follower_is_not_told(world: &dyn World) {
    let heard = Heard::of(world.store(), &namespace());
    let stays = Heard::of(world.store(), &namespace());
    let a = caller(world, 1);
    a.invalidate(&key("a"));
    heard.wait_for(1);
    assert_eq!(
        std::sync::Arc::strong_count(&heard),
        1,
        "the store keeps none alive"
    );
    drop(heard);
    a.invalidate(&key("a"));
    assert_eq!(stays.wait_for(2).len(), 2);
}
