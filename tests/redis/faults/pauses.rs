//! Servers that do not answer.
use dev_support::redis::Answer;
use dev_support::until;
use everfresh::store::{ErrorClass, Store, StoreState};
use everfresh::testing::store_contract::key;

use super::{class, is_gone, read, set, works};
use crate::server::OnServer;

#[test]
fn a_server_that_hangs() {
    let world = OnServer::hurried();
    works(&world.store, &key("a"));
    world.server.signal("STOP");
    let hangs = read(&world.store, &key("a"));
    assert!(is_gone(hangs));
    world.wait_until_down();
    assert_eq!(class(read(&world.store, &key("a"))), ErrorClass::TimedOut);
    until("a new connection hangs as well", || {
        match world.store.state() {
            StoreState::Down(error) => error.to_string().contains("does not answer"),
            _ => false,
        }
    });
    world.server.signal("CONT");
    world.wait_until_up();
    works(&world.store, &key("a"));
}

#[test]
fn a_slow_script() {
    let world = OnServer::hurried();
    world
        .server
        .ask(&["CONFIG", "SET", "busy-reply-threshold", "100"]);
    set(&world.store, &key("a"), b"one").unwrap();
    let mut slow = world.server.talk();
    slow.send(&["EVAL", "while true do end", "0"]).unwrap();
    until("it hangs", || read(&world.store, &key("a")).is_err());
    until("the error is Busy", || {
        read(&world.store, &key("a")).is_err_and(|error| error.class() == ErrorClass::Busy)
    });
    // A new connection gets the same answer.
    let fresh = world.server.builder().connect_blocking();
    assert_eq!(class(fresh), ErrorClass::Busy);
    assert_eq!(
        world.server.ask(&["SCRIPT", "KILL"]),
        Answer::Text("OK".to_owned())
    );
    until("it answers again", || read(&world.store, &key("a")).is_ok());
    world.wait_until_up();
    works(&world.store, &key("a"));
}

#[test]
fn paused_writes_do_not_hold_up_reads() {
    let world = OnServer::hurried();
    set(&world.store, &key("a"), b"one").unwrap();
    world.server.ask(&["CLIENT", "PAUSE", "1000000", "WRITE"]);
    assert!(is_gone(set(&world.store, &key("b"), b"later")));
    for _ in 0..100 {
        assert!(read(&world.store, &key("a")).unwrap().is_some());
    }
    world.server.ask(&["CLIENT", "UNPAUSE"]);
    world.wait_until_up();
    // The write that timed out may have taken effect. Later operations work.
    works(&world.store, &key("b"));
}

#[test]
fn a_paused_server() {
    let world = OnServer::hurried();
    set(&world.store, &key("a"), b"one").unwrap();
    // No command can end this pause, so the test waits until it has passed.
    world.server.ask(&["CLIENT", "PAUSE", "2000", "ALL"]);
    assert!(is_gone(read(&world.store, &key("a"))));
    assert!(is_gone(set(&world.store, &key("a"), b"two")));
    world.wait_until_up();
    works(&world.store, &key("a"));
}
