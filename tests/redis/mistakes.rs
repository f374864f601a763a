//! Mistakes in the settings of a store or of its server, one by one: the error of `connect` names
//! the mistake and its remedy.
use std::io::Write;
use std::net::TcpListener;
use std::time::Duration;

use dev_support::redis::{Answer, free_port};
use everfresh::store::{ErrorClass, RedisBuilder, RedisStore};
use everfresh::testing::store_contract::key;

use crate::faults::works;
use crate::sentinel::{Sentinel, replica_of};
use crate::server::Server;

/// The error of `connect`, which must be of a class and contain each of these texts.
#[track_caller]
pub fn says(builder: RedisBuilder, class: ErrorClass, texts: &[&str]) {
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
}

fn at(login: &str, server: &Server, path: &str) -> RedisBuilder {
    RedisStore::builder(format!("redis://{login}127.0.0.1:{}/{path}", server.port))
}

#[test]
fn a_user_without_a_password_is_not_the_default_user() {
    let server = Server::start();
    says(
        at("stranger@", &server, ""),
        ErrorClass::Denied,
        &["user or password is wrong"],
    );
    server.ask(&[
        "ACL", "SETUSER", "open", "on", "nopass", "~*", "&*", "+@all",
    ]);
    let store = at("open@", &server, "").connect_blocking().unwrap();
    works(&store, &key("a"));
    let list = server.ask(&["CLIENT", "LIST"]);
    let Answer::Bytes(list) = list else {
        panic!("{list:?}");
    };
    let list = String::from_utf8(list).unwrap();
    assert_eq!(list.matches("user=open").count(), 2, "{list}");
}

#[test]
fn no_such_host() {
    says(
        RedisStore::builder("redis://no-such-host.invalid/"),
        ErrorClass::Unavailable,
        &["the host has no address", "check its name"],
    );
}

#[test]
fn a_port_on_which_no_server_listens() {
    let port = free_port().unwrap();
    says(
        RedisStore::builder(format!("redis://127.0.0.1:{port}/")),
        ErrorClass::Unavailable,
        &["refused", "check that the server runs, and its port"],
    );
    says(
        RedisStore::builder("unix:///no/such/socket"),
        ErrorClass::Unavailable,
        &["no socket at this path"],
    );
}

#[test]
fn urls_without_a_scheme_or_with_unknown_words() {
    for (url, text) in [
        ("127.0.0.1:6379", "must begin with redis://"),
        ("redis://127.0.0.1/?db=3", "as in redis://host:6379/3"),
        ("redis://:secret#secret@127.0.0.1/", "as %23"),
        ("redis://:secret?secret@127.0.0.1/", "as %2F, %3F and %25"),
    ] {
        says(RedisStore::builder(url), ErrorClass::Setting, &[text]);
    }
    // Written as the errors say, each password is taken.
    let server = Server::with(&["--requirepass", "a#b?c/d%e"]);
    let store = at(":a%23b%3Fc%2Fd%25e@", &server, "3").connect_blocking();
    works(&store.unwrap(), &key("a"));
}

#[test]
fn a_wrong_password_an_unknown_user_and_none() {
    let server = Server::with(&["--requirepass", "secret"]);
    let wrong = &["user or password is wrong", "ACL LIST"];
    says(at(":secret2@", &server, ""), ErrorClass::Denied, wrong);
    says(
        at("stranger:secret@", &server, ""),
        ErrorClass::Denied,
        wrong,
    );
    says(
        at("", &server, ""),
        ErrorClass::Denied,
        &["asks for a password", "with `login`"],
    );
}

#[test]
fn databases_that_may_not_be_used_or_do_not_exist() {
    let server = Server::start();
    let rights = ["on", ">secret", "~*", "&*", "+@all", "-select"];
    server.ask(&[&["ACL", "SETUSER", "cache"], &rights[..]].concat());
    let chosen = at("cache:secret@", &server, "3");
    says(chosen, ErrorClass::Denied, &["+select", "database 0"]);
    let first = at("cache:secret@", &server, "0").connect_blocking();
    works(&first.unwrap(), &key("a"));
    says(
        at("", &server, "16"),
        ErrorClass::Setting,
        &["no database of this number", "`databases`"],
    );
}

#[test]
fn protected_mode() {
    // Clients of this machine are local by their address, so the server is asked at another one.
    let outside = std::net::UdpSocket::bind("0.0.0.0:0").and_then(|socket| {
        socket
            .connect("192.0.2.1:9")
            .and_then(|()| socket.local_addr())
    });
    let outside = outside
        .expect("a network with an address of this machine")
        .ip();
    let server = Server::with(&["--bind", "0.0.0.0", "--protected-mode", "yes"]);
    says(
        RedisStore::builder(format!("redis://{outside}:{}/", server.port)),
        ErrorClass::Denied,
        &["protected mode", "set a password"],
    );
}

#[test]
fn a_server_or_a_proxy_that_does_not_know_hello() {
    let server = Server::with(&["--rename-command", "HELLO", ""]);
    says(
        at("", &server, ""),
        ErrorClass::Protocol,
        &["does not know HELLO 3", "Redis 6 or later"],
    );
}

#[test]
fn servers_of_another_kind() {
    let master = Server::start();
    let sentinel = Sentinel::of(&master);
    says(
        RedisStore::builder(sentinel.url()),
        ErrorClass::Setting,
        &["port is that of a sentinel", "behind_sentinels"],
    );
    says(
        RedisStore::behind_sentinels([master.url()], "main"),
        ErrorClass::Setting,
        &["given as a sentinel is none", "26379"],
    );
    let replica = replica_of(&master);
    says(
        at("", &replica, ""),
        ErrorClass::Refused,
        &["is a replica", "address of its master"],
    );
    let node = Server::with(&["--cluster-enabled", "yes"]);
    for path in ["", "3"] {
        says(
            at("", &node, path),
            ErrorClass::Setting,
            &["a node of a cluster", "RedisStore::cluster"],
        );
    }
    says(
        RedisStore::cluster([master.url()]),
        ErrorClass::Setting,
        &["not part of a cluster", "RedisStore::builder"],
    );
}

/// A listener whose connections get this answer to whatever they say, and stay open.
fn answering(answer: &'static [u8]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let mut open = Vec::new();
        for client in listener.incoming() {
            let mut client = client.unwrap();
            client.write_all(answer).unwrap();
            open.push(client);
        }
    });
    port
}

#[test]
fn servers_that_are_not_redis() {
    let hurried = |port: u16| {
        let builder = RedisStore::builder(format!("redis://127.0.0.1:{port}/"));
        builder.connect_timeout(Duration::from_millis(300))
    };
    says(
        hurried(answering(b"HTTP/1.1 400 Bad Request\r\n\r\n")),
        ErrorClass::Protocol,
        &["not that of Redis", "check host and port", "rediss://"],
    );
    // A greeting without an end.
    for part in [b"".as_slice(), b"%7\r\n+server\r\n+re", b"$1000\r\nabc"] {
        says(
            hurried(answering(part)),
            ErrorClass::TimedOut,
            &["does not answer", "check that it is Redis"],
        );
    }
}

#[test]
fn a_server_whose_scripts_are_off() {
    for command in ["EVAL", "EVALSHA"] {
        let off = Server::with(&["--rename-command", command, ""]);
        let texts = &["runs no scripts", "EVAL and EVALSHA"];
        says(at("", &off, ""), ErrorClass::Protocol, texts);
    }
    let off = Server::with(&["--rename-command", "TIME", ""]);
    says(
        at("", &off, ""),
        ErrorClass::Protocol,
        &["does not know PING or TIME"],
    );
}

#[test]
fn a_user_that_may_not_run_what_the_store_needs() {
    let server = Server::start();
    let rights = ["on", ">secret", "~*", "&*", "+@all"];
    for (missing, text) in [
        ("-eval", "+eval and +evalsha"),
        ("-evalsha", "+eval and +evalsha"),
        ("-time", "may not run PING or TIME"),
        ("-ping", "may not run PING or TIME"),
    ] {
        server.ask(
            &[
                &["ACL", "SETUSER", "cache", "reset"],
                &rights[..],
                &[missing],
            ]
            .concat(),
        );
        let store = at("cache:secret@", &server, "");
        says(store, ErrorClass::Denied, &[text]);
    }
}
