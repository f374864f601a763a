//! What is told of the connections to a Redis. Without a `redis-server` in the path this fails; it is never skipped.
use std::net::TcpListener;

use dev_support::caches::*;
use dev_support::redis::Server;
use dev_support::until;
use everfresh::store::{RedisStore, Store};
use tracing::Level;

use crate::subscriber::TRACED;

/// A store has two: one for reads, one for everything else.
const CONNECTIONS: usize = 2;

const LOST: &str = "no connection to the store, trying again";

/// How often it was said, which only the stores of this test do.
fn said(text: &str, level: Level) -> usize {
    let events = TRACED.events_with(text);
    assert!(events.iter().all(|said| said.level == level), "{events:?}");
    assert!(!events.iter().any(|said| said.fields.contains("127.0.0.1")));
    events.len()
}

#[test]
fn a_connection_that_is_lost_is_told_once_and_again_when_it_is_back() {
    let (lost, connected) = (
        || said(LOST, Level::WARN),
        || said("connected to the store", Level::INFO),
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
    // Somebody who hangs up on every attempt.
    let deaf = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}/", deaf.local_addr().unwrap());
    let _store = RedisStore::builder(url).start().unwrap();
    for _ in 0..4 * CONNECTIONS {
        drop(deaf.accept().unwrap());
    }
    assert_eq!(lost(), before + CONNECTIONS, "not for each attempt");
}
