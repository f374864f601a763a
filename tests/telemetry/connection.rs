//! The events of connections to Redis. Without a `redis-server` in the path this test fails; it is
//! never skipped.
use std::net::TcpListener;

use dev_support::caches::*;
use dev_support::redis::Server;
use dev_support::until;
use everfresh::store::{RedisStore, Store};
use tracing::Level;

use crate::subscriber::TRACED;

/// The connections of a store: one for reads, and one for all other operations.
const CONNECTIONS: usize = 2;

const LOST: &str = "no connection to the store, trying again";

/// The number of events with this text, which only the stores of this test emit.
fn count(text: &str, level: Level) -> usize {
    let events = TRACED.events_with(text);
    assert!(
        events.iter().all(|event| event.level == level),
        "{events:?}"
    );
    assert!(
        !events
            .iter()
            .any(|event| event.fields.contains("127.0.0.1"))
    );
    events.len()
}

#[test]
fn a_lost_connection_is_one_event_and_its_return_another() {
    let (lost, connected) = (
        || count(LOST, Level::WARN),
        || count("connected to the store", Level::INFO),
    );
    let _ = &*TRACED;
    let mut server = Server::start().unwrap();
    let store = RedisStore::builder(server.url()).timeout(secs(10));
    let store = store.connect_blocking().unwrap();
    until("connected", || connected() == CONNECTIONS);
    assert_eq!(lost(), 0);
    server.kill();
    until("lost", || lost() == CONNECTIONS);
    server.restart().unwrap();
    until("connected again", || connected() == 2 * CONNECTIONS);
    assert!(store.state().is_up());
    drop(store);
    server.kill();
    let before = lost();
    // A server that closes every connection.
    let closing = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}/", closing.local_addr().unwrap());
    let _store = RedisStore::builder(url).start().unwrap();
    for _ in 0..4 * CONNECTIONS {
        drop(closing.accept().unwrap());
    }
    assert_eq!(lost(), before + CONNECTIONS, "not for each attempt");
}
