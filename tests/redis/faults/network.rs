//! Networks that lose, cut, stall and damage.
use std::time::Duration;

use dev_support::redis::Answer;
use dev_support::until;
use everfresh::store::{ErrorClass, RedisStore, Store, envelope};
use everfresh::testing::store_contract::{LIMIT, Recording, key, namespace};
use futures_lite::future::block_on;

use super::proxy::{Mood, Proxy};
use super::{is_gone, read, set, works};
use crate::server::{Server, data};

fn through(proxy: &Proxy) -> RedisStore {
    RedisStore::builder(format!("redis://127.0.0.1:{}/", proxy.port))
        .timeout(Duration::from_millis(300))
        .limit(LIMIT)
        .connect_blocking()
        .unwrap()
}

/// Waits until `connections` connections were made and the store is up.
fn is_up_again(store: &RedisStore, connections: u64) {
    until("the store is up", || {
        store.stats().connections >= connections && store.state().is_up()
    });
    works(store, &key("a"));
}

#[test]
fn a_cut_line() {
    let server = Server::start();
    let proxy = Proxy::to(server.port);
    let store = through(&proxy);
    let recording = Recording::of(&store, &namespace());
    set(&store, &key("a"), b"one").unwrap();
    proxy.mood(Mood::Cut);
    // On both connections.
    until("it is noticed", || {
        is_gone(read(&store, &key("a"))) && is_gone(set(&store, &key("a"), b"no"))
    });
    assert!(!store.state().is_up());
    proxy.mood(Mood::Pass);
    is_up_again(&store, 4);
    assert_eq!(recording.gaps().len() as u64, store.gaps() - 1);
}

#[test]
fn a_black_hole() {
    let server = Server::start();
    let proxy = Proxy::to(server.port);
    let store = through(&proxy);
    set(&store, &key("a"), b"one").unwrap();
    proxy.mood(Mood::Stall);
    assert!(is_gone(read(&store, &key("a"))));
    assert!(is_gone(set(&store, &key("a"), b"two")));
    assert!(store.stats().errors(ErrorClass::TimedOut) > 0);
    proxy.mood(Mood::Pass);
    is_up_again(&store, 4);
}

#[test]
fn one_of_two_connections_in_a_black_hole() {
    let server = Server::start();
    let proxy = Proxy::to(server.port);
    let store = through(&proxy);
    set(&store, &key("a"), b"one").unwrap();
    // The second of the two connections stalls, and so does its replacement.
    proxy.only_from(1, Mood::Stall);
    until("it is noticed", || !store.state().is_up());
    let (reads, writes) = (read(&store, &key("a")), set(&store, &key("a"), b"two"));
    assert!(
        reads.is_ok() != writes.is_ok(),
        "one of them works: {reads:?} {writes:?}"
    );
    proxy.mood(Mood::Pass);
    is_up_again(&store, 3);
}

#[test]
fn a_wrong_byte() {
    let server = Server::start();
    let proxy = Proxy::to(server.port);
    let store = through(&proxy);
    for turn in 1..=5 {
        set(&store, &key("a"), b"one").unwrap();
        let connections = store.stats().connections;
        proxy.mood(Mood::Corrupt);
        // The damaged answer may be that of a heartbeat or of one of these reads.
        until("an answer is damaged", || {
            let _ = read(&store, &key("a"));
            proxy.corrupted() == turn
        });
        is_up_again(&store, connections + 1);
    }
}

#[test]
fn a_slow_line_is_only_slow() {
    let server = Server::start();
    let proxy = Proxy::to(server.port);
    let url = format!("redis://127.0.0.1:{}/", proxy.port);
    let store = RedisStore::builder(url)
        .timeout(Duration::from_secs(10))
        .connect_blocking()
        .unwrap();
    proxy.mood(Mood::Delay(Duration::from_millis(50)));
    works(&store, &key("a"));
    assert_eq!(store.gaps(), 1);
    assert!(store.state().is_up());
}

#[test]
fn a_subscription_that_is_lost_is_a_gap() {
    let server = Server::start();
    let store = server.builder().connect_blocking().unwrap();
    let recording = Recording::of(&store, &namespace());
    let gaps = store.gaps();
    server.ask(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    until("the listener is notified of the gap", || {
        recording.gaps() == [gaps + 1]
    });
    set(&store, &key("a"), b"one").unwrap();
    recording.wait_for(1);
}

#[test]
fn a_round_trip_of_half_a_second_is_no_obstacle() {
    let server = Server::start();
    let proxy = Proxy::to(server.port);
    // In each direction.
    proxy.mood(Mood::Delay(Duration::from_millis(250)));
    let builder = || RedisStore::builder(format!("redis://127.0.0.1:{}/3", proxy.port));
    // With the default limits.
    builder().connect_blocking().unwrap();
    let patient = builder().timeout(Duration::from_secs(10));
    works(&patient.connect_blocking().unwrap(), &key("a"));
}

#[test]
fn large_values_on_a_slow_line_are_not_a_server_that_hangs() {
    let server = Server::start();
    let proxy = Proxy::to(server.port);
    let store = RedisStore::builder(format!("redis://127.0.0.1:{}/", proxy.port));
    let store = store.connect_blocking().unwrap();
    // Each of these reads takes longer than a heartbeat may.
    let keys: Vec<_> = (0..64)
        .map(|number: u32| key(&number.to_string()))
        .collect();
    for key in &keys {
        set(&store, key, &vec![7; 200_000]).unwrap();
    }
    set(&store, &key("large"), &vec![7; 8 << 20]).unwrap();
    proxy.mood(Mood::Rate(8_000));
    let answers = block_on(store.read(&keys));
    assert!(answers.iter().all(|answer| matches!(answer, Ok(Some(_)))));
    assert!(read(&store, &key("large")).unwrap().is_some());
    assert_eq!(store.stats().connections, 2, "no connection was lost");
    // A line on which nothing arrives is another matter.
    proxy.mood(Mood::Stall);
    assert!(is_gone(read(&store, &key("large"))));
}

#[test]
fn heads_are_read_without_their_values() {
    let server = Server::start();
    let store = RedisStore::builder(server.url()).timeout(Duration::from_secs(10));
    let store = store.connect_blocking().unwrap();
    let keys: Vec<_> = (0..100)
        .map(|number: u32| key(&number.to_string()))
        .collect();
    for key in &keys {
        set(&store, key, &vec![7; 50_000]).unwrap();
    }
    server.ask(&["SET", &data(&keys[1]), "foreign"]);
    server.ask(&["DEL", &data(&keys[2])]);
    let payloads = block_on(store.read(&keys)).into_iter();
    let head = |payload: Vec<u8>| envelope::head(&payload);
    let heads: Vec<_> = payloads
        .map(|payload| payload.map(|payload| payload.and_then(head)))
        .collect();
    assert!(heads[1..3].iter().all(|head| *head == Ok(None)));
    assert_eq!(heads.iter().filter(|head| **head != Ok(None)).count(), 98);
    let sent = || match server.ask(&["INFO", "stats"]) {
        Answer::Bytes(info) => {
            let info = String::from_utf8(info).unwrap();
            let line = info
                .lines()
                .find(|line| line.starts_with("total_net_output_bytes:"));
            let (_, bytes) = line.unwrap().split_once(':').unwrap();
            bytes.parse::<u64>().unwrap()
        }
        other => panic!("{other:?}"),
    };
    let before = sent();
    assert_eq!(block_on(store.heads(&keys)), heads);
    let bytes = sent() - before;
    assert!(bytes < 100_000, "100 values of 50 kB cost {bytes} bytes");
}
