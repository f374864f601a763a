//! Mistakes in the settings of a store or of its server, one by one: the error of `connect` says
//! what is wrong and what to do.
use std::time::Duration;

use dev_support::redis::free_port;
use everfresh::store::{ErrorClass, RedisBuilder, RedisStore, StoreError};
use everfresh::testing::store_contract::key;

use crate::faults::works;
use crate::server::Server;

/// The error of `connect`, which must be of a class and contain each of these texts.
#[track_caller]
fn says(builder: RedisBuilder, class: ErrorClass, texts: &[&str]) -> StoreError {
    let error = builder.connect_blocking().unwrap_err();
    let shown = error.to_string();
    assert_eq!(error.class(), class, "{shown}");
    for text in texts {
        assert!(shown.contains(text), "{shown}");
    }
    assert!(!shown.contains("secret"), "{shown}");
    assert!(
        !shown.contains("tried again"),
        "`connect` does not: {shown}"
    );
    error
}

fn at(login: &str, server: &Server, path: &str) -> RedisBuilder {
    RedisStore::builder(format!("redis://{login}127.0.0.1:{}/{path}", server.port))
}

#[test]
fn a_user_without_a_password_is_not_the_default_user() {
    let server = Server::start();
    says(
        at("nobody@", &server, ""),
        ErrorClass::Denied,
        &["user or password is wrong"],
    );
    server.ask(&[
        "ACL", "SETUSER", "open", "on", "nopass", "~*", "&*", "+@all",
    ]);
    let store = at("open@", &server, "").connect_blocking().unwrap();
    works(&store, &key("a"));
    let list = server.ask(&["CLIENT", "LIST"]);
    let dev_support::redis::Answer::Bytes(list) = list else {
        panic!("{list:?}");
    };
    let list = String::from_utf8(list).unwrap();
    assert_eq!(list.matches("user=open").count(), 2, "{list}");
}
