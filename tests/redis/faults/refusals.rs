//! Servers that read and do not write.
use std::fs;

use dev_support::redis::Answer;
use dev_support::until;
use everfresh::store::{Acquired, Epoch, ErrorClass, Store, StoreState};
use everfresh::testing::store_contract::{caller, key};

use super::{acquire, class, invalidate, is_gone, read, set, works};
use crate::server::{OnServer, Server};

/// Asserts that reads work, and that writes fail as refused. Invalidations may still work.
fn reads_only(world: &OnServer, loading: Epoch, invalidations_work: bool) {
    let (stored, other) = (key("stored"), key("other"));
    assert!(read(&world.store, &stored).unwrap().is_some());
    assert!(matches!(
        acquire(&world.store, &stored, None),
        Ok(Acquired::Stored(_))
    ));
    assert_eq!(
        class(set(&world.store, &stored, b"no")),
        ErrorClass::Refused
    );
    assert_eq!(
        class(acquire(&world.store, &other, None)),
        ErrorClass::Refused
    );
    let lease = caller(world, 7).try_publish(
        &key("loading"),
        loading,
        everfresh::testing::store_contract::payload(&key("loading"), b"no"),
    );
    assert_eq!(class(lease), ErrorClass::Refused);
    match invalidations_work {
        true => {
            invalidate(&world.store, &stored).unwrap();
            assert_eq!(read(&world.store, &stored), Ok(None));
        }
        false => {
            assert_eq!(
                class(invalidate(&world.store, &stored)),
                ErrorClass::Refused
            );
            assert!(read(&world.store, &stored).unwrap().is_some());
        }
    }
    assert!(world.store.state().is_up(), "{:?}", world.store.state());
    assert!(world.store.stats().errors(ErrorClass::Refused) >= 3);
}

/// A store with a payload under the key `stored`, and a load of the key `loading` under way.
fn with_something(server: Server) -> (OnServer, Epoch) {
    let world = OnServer::of(server);
    set(&world.store, &key("stored"), b"stored").unwrap();
    let base = caller(&world, 7).granted(&key("loading"), None);
    (world, base)
}

#[test]
fn out_of_memory() {
    let (world, loading) = with_something(Server::start());
    world.server.ask(&["CONFIG", "SET", "maxmemory", "1"]);
    reads_only(&world, loading, true);
    // Operations that need no memory work as well.
    assert!(caller(&world, 7).renew(&key("loading"), everfresh::testing::store_contract::HOUR));
    assert!(caller(&world, 7).release(&key("loading"), None));
    world.server.ask(&["CONFIG", "SET", "maxmemory", "0"]);
    works(&world.store, &key("stored"));
}

#[test]
fn a_disk_that_cannot_be_written() {
    let (world, loading) = with_something(Server::start());
    world.server.block_disk();
    world.server.ask(&["CONFIG", "SET", "save", "3600 1"]);
    world.server.ask(&["BGSAVE"]);
    until("the save has failed", || {
        match world.server.ask(&["INFO", "persistence"]) {
            Answer::Bytes(info) => String::from_utf8(info)
                .unwrap()
                .contains("rdb_last_bgsave_status:err"),
            other => panic!("{other:?}"),
        }
    });
    // Such a server refuses pings too, but the store must not take it for dead.
    let ping = world.server.talk().ask(&["PING"]).unwrap();
    assert!(matches!(ping, Answer::Error(text) if text.starts_with("MISCONF")));
    let gaps = world.store.gaps();
    reads_only(&world, loading, false);
    // The same for a new connection.
    let other = world.server.builder().connect_blocking().unwrap();
    assert!(read(&other, &key("stored")).unwrap().is_some());
    assert_eq!(world.store.gaps(), gaps);
    world
        .server
        .ask(&["CONFIG", "SET", "stop-writes-on-bgsave-error", "no"]);
    works(&world.store, &key("stored"));
}

#[test]
fn too_few_replicas() {
    let (world, loading) = with_something(Server::start());
    world
        .server
        .ask(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
    reads_only(&world, loading, false);
    world
        .server
        .ask(&["CONFIG", "SET", "min-replicas-to-write", "0"]);
    works(&world.store, &key("stored"));
}

fn no_longer_the_master(serves_stale: &str) {
    let (world, _) = with_something(Server::start());
    let gaps = world.store.gaps();
    world
        .server
        .ask(&["CONFIG", "SET", "replica-serve-stale-data", serves_stale]);
    world.server.ask(&["REPLICAOF", "127.0.0.1", "1"]);
    let refused = class(set(&world.store, &key("a"), b"no"));
    assert_eq!(refused, ErrorClass::Refused);
    until("it is not used any more", || match world.store.state() {
        StoreState::Down(error) => error.class() == ErrorClass::Refused,
        _ => false,
    });
    world.server.ask(&["REPLICAOF", "NO", "ONE"]);
    world.wait_until_up();
    works(&world.store, &key("a"));
    assert!(world.store.gaps() > gaps);
}

#[test]
fn a_master_that_became_a_replica() {
    no_longer_the_master("yes");
}

#[test]
fn a_replica_without_its_master() {
    no_longer_the_master("no");
}

#[test]
fn a_server_full_of_clients() {
    let server = Server::start();
    let mut admin = server.talk();
    admin.ask(&["CONFIG", "SET", "maxclients", "1"]).unwrap();
    let store = server.builder().start().unwrap();
    until("it was turned away", || {
        matches!(store.state(), StoreState::Down(_))
    });
    assert!(is_gone(read(&store, &key("a"))));
    admin.ask(&["CONFIG", "SET", "maxclients", "100"]).unwrap();
    until("the store is up", || store.state().is_up());
    works(&store, &key("a"));
}

#[test]
fn the_disk_is_blocked_by_a_folder() {
    // Without the effect of `block_disk` the test above would test nothing.
    let server = Server::start();
    server.block_disk();
    let error = server.talk().ask(&["SAVE"]).unwrap();
    assert!(matches!(error, Answer::Error(_)), "{error:?}");
    assert!(fs::metadata(server.dump()).unwrap().is_dir());
}
