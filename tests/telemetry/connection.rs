//! The events of connections to Redis. Without a `redis-server` in the path this test fails; it is
//! never skipped.
use std::net::TcpListener;

use dev_support::caches::*;
use dev_support::redis::Server;
use dev_support::until;
use everfresh::store::{RedisStore, Store};
use tracing::Level;

use crate::subscriber::TRACED;

const LOST: &str = "no connection to the store, trying again";

/// The number of events with this text about the server at this port. They name it without its
/// login.
fn count(text: &str, level: Level, port: u16) -> usize {
    let mut events = TRACED.events_with(text);
    events.retain(|event| event.fields.contains(&format!("127.0.0.1:{port}/0")));
    for event in &events {
        assert_eq!(event.level, level, "{event:?}");
        assert!(!event.fields.contains("secret"), "{event:?}");
    }
    events.len()
}

#[test]
fn an_outage_is_one_event_and_its_end_another() {
    let _ = &*TRACED;
    let mut server = Server::with(&["--requirepass", "secret"]).unwrap();
    let port = server.port;
    let (lost, connected) = (
        || count(LOST, Level::WARN, port),
        || count("connected to the store", Level::INFO, port),
    );
    let url = format!("redis://:secret@127.0.0.1:{port}/");
    let store = RedisStore::builder(url).timeout(secs(10));
    let store = store.connect_blocking().unwrap();
    until("connected", || connected() == 1);
    assert_eq!(lost(), 0);
    server.kill();
    until("lost", || lost() == 1);
    server.restart().unwrap();
    until("connected again", || connected() == 2);
    assert!(store.state().is_up());
    assert_eq!(lost(), 1, "once for both connections");
}

#[test]
fn attempts_that_fail_are_not_logged_again() {
    let _ = &*TRACED;
    // A server that closes every connection.
    let closing = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = closing.local_addr().unwrap().port();
    let _store = RedisStore::builder(format!("redis://127.0.0.1:{port}/"))
        .start()
        .unwrap();
    for _ in 0..8 {
        drop(closing.accept().unwrap());
    }
    assert_eq!(count(LOST, Level::WARN, port), 1);
}
