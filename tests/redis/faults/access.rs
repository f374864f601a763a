//! Users, passwords and rights.
use dev_support::until;
use everfresh::store::{ErrorClass, RedisStore, Store, StoreState};
use everfresh::testing::store_contract::{Recording, caller, key, namespace};

use super::{acquire, class, read, set, works};
use crate::mistakes::says;
use crate::server::{OnServer, Server};

/// The rights that the store needs, as documented.
const RIGHTS: &str = "-@all +ping +select +get +getrange +mget +set +setrange +del +pttl +pexpire \
     +strlen +time +eval +evalsha +publish +subscribe";

fn rights(server: &Server, user: &str, rights: &str) {
    let mut command = vec!["ACL", "SETUSER", user];
    command.extend(rights.split(' '));
    server.ask(&command);
}

fn says_why(store: &RedisStore, text: &str) {
    until("the store says why", || match store.state() {
        StoreState::Down(error) => error.to_string().contains(text),
        _ => false,
    });
}

fn is_denied(store: &RedisStore) {
    until("it is turned away", || match store.state() {
        StoreState::Down(error) => error.class() == ErrorClass::Denied,
        _ => false,
    });
    let error = read(store, &key("a")).unwrap_err();
    assert_eq!(error.class(), ErrorClass::Denied);
    let shown = format!("{store:?} {error} {error:?}");
    assert!(!shown.contains("secret"), "{shown}");
}

#[test]
fn a_wrong_password_at_the_start() {
    let server = Server::start();
    let mut admin = server.talk();
    admin
        .ask(&["CONFIG", "SET", "requirepass", "right-secret"])
        .unwrap();
    let builder = || server.builder().login("", "wrong-secret");
    assert!(!format!("{:?}", builder()).contains("secret"));
    assert_eq!(class(builder().connect_blocking()), ErrorClass::Denied);
    assert_eq!(
        class(server.builder().connect_blocking()),
        ErrorClass::Denied
    );
    let store = builder().start().unwrap();
    is_denied(&store);
    admin
        .ask(&["CONFIG", "SET", "requirepass", "wrong-secret"])
        .unwrap();
    until("the store is up", || store.state().is_up());
    works(&store, &key("a"));
}

#[test]
fn a_password_that_is_changed_and_changed_back() {
    let server = Server::start();
    let mut admin = server.talk();
    admin
        .ask(&["CONFIG", "SET", "requirepass", "first-secret"])
        .unwrap();
    let url = format!("redis://:first-secret@127.0.0.1:{}/", server.port);
    let limit = std::time::Duration::from_millis(300);
    let store = RedisStore::builder(url)
        .timeout(limit)
        .connect_blocking()
        .unwrap();
    works(&store, &key("a"));
    admin
        .ask(&["CONFIG", "SET", "requirepass", "second-secret"])
        .unwrap();
    admin.ask(&["CLIENT", "KILL", "TYPE", "normal"]).unwrap();
    admin.ask(&["CLIENT", "KILL", "TYPE", "pubsub"]).unwrap();
    is_denied(&store);
    admin
        .ask(&["CONFIG", "SET", "requirepass", "first-secret"])
        .unwrap();
    until("the store is up", || store.state().is_up());
    works(&store, &key("a"));
}

#[test]
fn the_rights_that_are_documented_are_enough() {
    let server = Server::start();
    rights(
        &server,
        "cache",
        &format!("on >pass {RIGHTS} resetkeys ~test:v1:* resetchannels &test:v1:*"),
    );
    let store = server
        .builder()
        .login("cache", "pass")
        .database(3)
        .connect_blocking()
        .unwrap();
    let world = OnServer { server, store };
    let recording = Recording::of(&world.store, &namespace());
    let (k, a) = (key("a"), caller(&world, 1));
    let epoch = a.published(&k, a.granted(&k, None), b"one");
    a.granted(&k, Some(epoch));
    assert!(a.renew(&k, everfresh::testing::store_contract::HOUR));
    assert!(a.release(&k, Some(everfresh::testing::store_contract::HOUR)));
    works(&world.store, &k);
    recording.wait_for(4);
    assert!(world.store.state().is_up());
    // Other keys are denied.
    let other = everfresh::store::Namespace::new("other").unwrap();
    let theirs = everfresh::store::StoreKey::new(&other, b"a");
    assert_eq!(class(read(&world.store, &theirs)), ErrorClass::Denied);
    assert_eq!(class(set(&world.store, &theirs, b"no")), ErrorClass::Denied);
    assert!(world.store.state().is_up());
}

#[test]
fn missing_rights_have_their_class_and_may_come_later() {
    let server = Server::start();
    rights(&server, "cache", "on >pass ~* &* +@all -eval -evalsha");
    let builder = || server.builder().login("cache", "pass");
    says(
        builder(),
        ErrorClass::Denied,
        &["may not run scripts", "+eval and +evalsha"],
    );
    let store = builder().start().unwrap();
    says_why(&store, "may not run scripts");
    // Reads have a connection of their own.
    until("reads work", || read(&store, &key("a")) == Ok(None));
    assert_eq!(class(acquire(&store, &key("a"), None)), ErrorClass::Denied);
    rights(&server, "cache", "+eval +evalsha");
    until("the store is up", || store.state().is_up());
    works(&store, &key("a"));
}

#[test]
fn a_user_that_is_deleted_and_made_again() {
    let server = Server::start();
    rights(&server, "cache", "on >pass ~* &* +@all");
    let store = server
        .builder()
        .login("cache", "pass")
        .connect_blocking()
        .unwrap();
    works(&store, &key("a"));
    server.ask(&["ACL", "DELUSER", "cache"]);
    is_denied(&store);
    rights(&server, "cache", "on >pass ~* &* +@all");
    until("the store is up", || store.state().is_up());
    works(&store, &key("a"));
}
