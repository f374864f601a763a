//! Data of other programs under the keys and on the channels of a cache.
use std::time::Duration;

use dev_support::redis::Answer;
use dev_support::until;
use everfresh::store::{Acquired, ChangeKind, ErrorClass, RedisStore, Store, StoreKey};
use everfresh::testing::store_contract::{Recording, caller, key, namespace};
use futures_lite::future::block_on;

use super::{acquire, class, invalidate, question, read, set, works};
use crate::server::{OnServer, Server, data, lease};

#[test]
fn another_type_is_left_alone() {
    let world = OnServer::hurried();
    let (k, other) = (key("a"), key("b"));
    world.server.ask(&["RPUSH", &data(&k), "theirs"]);
    let epoch = set(&world.store, &other, b"ours").unwrap();
    assert_eq!(class(read(&world.store, &k)), ErrorClass::Foreign);
    assert_eq!(class(acquire(&world.store, &k, None)), ErrorClass::Foreign);
    assert_eq!(class(set(&world.store, &k, b"no")), ErrorClass::Foreign);
    assert_eq!(class(invalidate(&world.store, &k)), ErrorClass::Foreign);
    let publish = caller(&world, 1).try_publish(
        &k,
        epoch,
        everfresh::testing::store_contract::payload(&k, b"no"),
    );
    assert_eq!(class(publish), ErrorClass::Foreign);
    assert_eq!(world.server.ask(&["LLEN", &data(&k)]), Answer::Number(1));
    assert_eq!(world.store.stats().errors(ErrorClass::Foreign), 5);
    // Read together with others, it counts as missing. A caller that asks for its lease gets the
    // error.
    let found = read_together(&world, &[&other, &k, &other]);
    assert_eq!(found, [Ok(true), Ok(false), Ok(true)]);
    assert!(world.store.state().is_up());
    // The same for a lease of another type.
    world.server.ask(&["DEL", &data(&k)]);
    world.server.ask(&["RPUSH", &lease(&k), "theirs"]);
    assert_eq!(class(acquire(&world.store, &k, None)), ErrorClass::Foreign);
    works(&world.store, &key("c"));
}

#[test]
fn a_lease_without_an_end_is_no_lease() {
    let world = OnServer::hurried();
    let k = key("a");
    world.server.ask(&["SET", &lease(&k), "another program"]);
    assert!(matches!(
        acquire(&world.store, &k, None),
        Ok(Acquired::Granted { .. })
    ));
}

#[test]
fn a_huge_value_is_not_fetched() {
    let world = OnServer::new();
    let k = key("a");
    world
        .server
        .ask(&["SETRANGE", &data(&k), &(64 << 20).to_string(), "x"]);
    for _ in 0..20 {
        assert_eq!(class(read(&world.store, &k)), ErrorClass::TooLarge);
    }
    assert!(matches!(
        acquire(&world.store, &k, None),
        Ok(Acquired::Granted { .. })
    ));
    set(&world.store, &k, b"ours").unwrap();
    works(&world.store, &k);
}

#[test]
fn a_huge_value_among_others_costs_one_connection_once() {
    // A long timeout, because a busy server takes long to begin its answer with the huge value.
    let world = OnServer::new();
    let (huge, small, missing) = (key("a"), key("b"), key("c"));
    let server = &world.server;
    server.ask(&["SETRANGE", &data(&huge), &(64 << 20).to_string(), "x"]);
    set(&world.store, &small, b"ours").unwrap();
    let keys = [&small, &huge, &missing, &small, &huge];
    let lost = read_together(&world, &keys);
    assert_eq!(lost, [Err(ErrorClass::Unavailable); 5]);
    // From now on the store limits the size of each answer.
    until("it reads again", || read(&world.store, &small).is_ok());
    let connections = world.store.stats().connections;
    let expected = [
        Ok(true),
        Err(ErrorClass::TooLarge),
        Ok(false),
        Ok(true),
        Err(ErrorClass::TooLarge),
    ];
    for _ in 0..5 {
        assert_eq!(read_together(&world, &keys), expected);
    }
    assert_eq!(world.store.stats().connections, connections);
    works(&world.store, &huge);
}

/// Whether a payload is stored, for each key.
fn read_together(world: &OnServer, keys: &[&StoreKey]) -> Vec<Result<bool, ErrorClass>> {
    let keys: Vec<_> = keys.iter().map(|key| (*key).clone()).collect();
    let answers = futures_lite::future::block_on(world.store.read(&keys));
    let found = answers.into_iter().map(|answer| match answer {
        Ok(payload) => Ok(payload.is_some()),
        Err(error) => Err(error.class()),
    });
    found.collect()
}

#[test]
fn noise_on_the_channel_is_counted_and_ignored() {
    let world = OnServer::hurried();
    let recording = Recording::of(&world.store, &namespace());
    let channel = format!("{}:c0", namespace().as_str());
    let mut talk = world.server.talk();
    let short = [3_u8; 32];
    let kind = [9_u8; 33];
    let mut epoch = [1_u8; 33];
    epoch[25..].fill(0xff);
    for noise in [&b""[..], b"hello", &short, &kind, &epoch] {
        talk.ask(&[b"PUBLISH".as_slice(), channel.as_bytes(), noise])
            .unwrap();
    }
    invalidate(&world.store, &key("a")).unwrap();
    let changes = recording.wait_for(1);
    assert_eq!(changes.len(), 1);
    assert_eq!(changes[0].kind, ChangeKind::Invalidated);
    assert_eq!(world.store.stats().changes_foreign, 5);
}

#[test]
fn scripts_that_the_server_forgot_are_sent_again() {
    let world = OnServer::hurried();
    for _ in 0..3 {
        world.server.ask(&["SCRIPT", "FLUSH"]);
        works(&world.store, &key("a"));
    }
}

#[test]
fn many_leases_are_granted_by_a_server_that_forgot_the_script() {
    let world = OnServer::new();
    works(&world.store, &key("a"));
    world.server.ask(&["SCRIPT", "FLUSH"]);
    let asks: Vec<_> = ["b", "c", "d"]
        .map(|name| (key(name), question(None)))
        .into();
    let answers = block_on(world.store.acquire_many(&asks));
    assert_eq!(answers.len(), 3);
    for answer in answers {
        assert!(matches!(answer, Ok(Acquired::Granted { .. })), "{answer:?}");
    }
}

#[test]
fn a_flush_loses_payloads_and_leases() {
    let world = OnServer::hurried();
    let (k, a) = (key("a"), caller(&world, 1));
    let epoch = a.set(&k, b"one");
    a.granted(&k, Some(epoch));
    world.server.ask(&["FLUSHALL"]);
    assert_eq!(
        a.publish(&k, epoch, b"two"),
        everfresh::store::Stored::Refused
    );
    let base = a.granted_over_nothing(&k);
    assert!(a.published(&k, base, b"three") > epoch);
}

#[test]
fn large_values_do_not_end_the_connection_with_subscriptions() {
    let limit = ["--client-output-buffer-limit", "pubsub", "100kb", "0", "0"];
    let server = Server::with(&limit);
    let store = RedisStore::builder(server.url()).timeout(Duration::from_secs(10));
    let store = store.connect_blocking().unwrap();
    let _recording = Recording::of(&store, &namespace());
    until("it is subscribed", || {
        server.ask(&["PUBSUB", "CHANNELS"]) != Answer::Many(Vec::new())
    });
    // Larger than the buffers of a connection.
    let value = vec![7; 8 << 20];
    set(&store, &key("a"), &value).unwrap();
    for _ in 0..4 {
        match acquire(&store, &key("a"), None) {
            Ok(Acquired::Stored(payload)) => assert!(payload.len() > value.len()),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(store.stats().connections, 2, "no connection was lost");
}
