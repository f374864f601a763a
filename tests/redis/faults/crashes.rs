//! Servers that end, and their data after a restart.
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use dev_support::redis::Answer;
use dev_support::until;
use everfresh::store::{
    Acquired, Birth, ErrorClass, Origin, RedisStore, Store, StoreState, Stored,
};
use everfresh::testing::store_contract::{Recording, caller, key, namespace};
use futures_lite::future::block_on;

use super::{acquire, bounded, class, is_gone, read, set, works};
use crate::server::{OnServer, Server};

#[test]
fn a_crash_ends_the_operations_in_flight() {
    let mut world = OnServer::hurried();
    works(&world.store, &key("a"));
    world.server.signal("STOP");
    let keys: Vec<_> = (0..1_000).map(|at| key(&at.to_string())).collect();
    let mut replies: Vec<Pin<Box<dyn Future<Output = bool> + '_>>> = Vec::new();
    for (at, key) in keys.iter().enumerate() {
        let store = &world.store;
        replies.push(match at % 2 {
            0 => Box::pin(async move {
                let answers = store.read(std::slice::from_ref(key)).await;
                answers.into_iter().all(is_gone)
            }),
            _ => Box::pin(async move {
                let birth = Birth::latest(Origin(1));
                is_gone(store.invalidate(key, birth).await)
            }),
        });
    }
    // All requests are on their way before the server ends.
    block_on(poll_fn(|context| {
        for reply in &mut replies {
            assert!(reply.as_mut().poll(context).is_pending());
        }
        Poll::Ready(())
    }));
    world.server.kill();
    bounded(|| {
        for reply in replies {
            assert!(block_on(reply));
        }
    });
    world.wait_until_down();
    assert!(is_gone(read(&world.store, &key("a"))));
    let stats = world.store.stats();
    let gone = stats.errors(ErrorClass::Unavailable) + stats.errors(ErrorClass::TimedOut);
    assert_eq!(gone, 1_001);
    world.server.restart();
    world.wait_until_up();
    works(&world.store, &key("a"));
}

#[test]
fn a_restart_without_data_is_a_gap() {
    let mut world = OnServer::hurried();
    let recording = Recording::of(&world.store, &namespace());
    let k = key("a");
    let epoch = set(&world.store, &k, b"one").unwrap();
    let granted = acquire(&world.store, &k, Some(epoch));
    assert_eq!(granted, Ok(Acquired::Granted { base: epoch }));
    let gaps = world.store.gaps();
    world.server.restart();
    until("the listener is notified of the gap", || {
        !recording.gaps().is_empty()
    });
    assert!(world.store.gaps() > gaps);
    assert_eq!(recording.gaps().last(), Some(&world.store.gaps()));
    world.wait_until_up();
    assert_eq!(read(&world.store, &k), Ok(None));
    // The server knows neither the lease nor the scripts.
    assert_eq!(
        caller(&world, 1).publish(&k, epoch, b"two"),
        Stored::Refused
    );
    works(&world.store, &k);
    // Changes arrive again.
    until("changes are received", || recording.changes().len() >= 3);
}

#[test]
fn a_restart_with_old_data_is_seen_by_its_epoch() {
    let mut world = OnServer::hurried();
    let k = key("a");
    let old = set(&world.store, &k, b"old").unwrap();
    world.server.ask(&["SAVE"]);
    let new = set(&world.store, &k, b"new").unwrap();
    world.server.restart();
    world.wait_until_down_or_new();
    let a = caller(&world, 1);
    assert_eq!(a.read(&k), Some((b"old".to_vec(), old)));
    // A caller that has the newer payload gets the stored one, and sees that it is older.
    match acquire(&world.store, &k, Some(new)).unwrap() {
        Acquired::Stored(payload) => {
            assert_eq!(everfresh::store::envelope::epoch(&payload), Some(old));
        }
        other => panic!("{other:?}"),
    }
    let base = a.granted(&k, Some(old));
    assert!(a.published(&k, base, b"newest") > new);
}

#[test]
fn it_starts_before_the_server_and_joins_it() {
    let mut server = Server::start();
    server.kill();
    let refused = bounded(|| server.builder().connect_blocking());
    assert_eq!(class(refused), ErrorClass::Unavailable);
    let store = server.builder().start().unwrap();
    let recording = std::sync::Arc::new(Recording::default());
    let listener: std::sync::Arc<dyn everfresh::store::ChangeListener> = recording.clone();
    store.subscribe(&namespace(), std::sync::Arc::downgrade(&listener));
    until("an attempt was made", || {
        matches!(store.state(), StoreState::Down(_))
    });
    assert_eq!(store.now(), None);
    assert_eq!(store.gaps(), 0);
    assert!(is_gone(set(&store, &key("a"), b"one")));
    assert!(recording.gaps().is_empty());
    server.restart();
    until("the store is up", || store.state().is_up());
    assert!(store.now().is_some());
    until("the listener is notified", || recording.gaps() == [1]);
    works(&store, &key("a"));
    until("changes arrive", || recording.changes().len() >= 2);
}

#[test]
fn a_server_that_loads_its_data_is_waited_for() {
    let mut world = OnServer::of(Server::with(&[
        "--key-load-delay",
        "10000",
        "--rdbcompression",
        "no",
        "--loading-process-events-interval-bytes",
        "1024",
    ]));
    for at in 0..300 {
        world
            .server
            .ask(&["SET", &at.to_string(), &"x".repeat(200)]);
    }
    set(&world.store, &key("a"), b"one").unwrap();
    world.server.ask(&["SAVE"]);
    world.server.begin_restart();
    until("it says that it loads", || match world.store.state() {
        StoreState::Down(error) => error.class() == ErrorClass::Busy,
        _ => false,
    });
    assert_eq!(class(read(&world.store, &key("a"))), ErrorClass::Busy);
    world.wait_until_up();
    assert!(read(&world.store, &key("a")).unwrap().is_some());
}

#[test]
fn its_thread_and_connections_end_with_it() {
    let world = OnServer::hurried();
    let OnServer { server, store } = world;
    let clients = |server: &Server| match server.ask(&["CLIENT", "LIST"]) {
        Answer::Bytes(list) => list
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .count(),
        other => panic!("{other:?}"),
    };
    // Two of the store, and the one that asks.
    assert!(clients(&server) >= 3);
    struct Signal(std::sync::mpsc::Sender<()>);
    impl Drop for Signal {
        fn drop(&mut self) {
            let _ = self.0.send(());
        }
    }
    let (sender, receiver) = std::sync::mpsc::channel();
    let signal = Signal(sender);
    store.spawn(Box::pin(async move {
        let _signal = signal;
        std::future::pending::<()>().await;
    }));
    drop(store);
    receiver
        .recv_timeout(super::BOUND)
        .expect("background work is dropped");
    until("the connections are closed", || clients(&server) == 1);
}

#[test]
fn background_work_runs_on_its_thread() {
    let world = OnServer::hurried();
    let (sender, receiver) = std::sync::mpsc::channel();
    world.store.spawn(Box::pin(async move {
        sender
            .send(std::thread::current().name().map(str::to_owned))
            .unwrap();
    }));
    let name = receiver.recv_timeout(super::BOUND).unwrap();
    assert_eq!(name.as_deref(), Some("everfresh-redis"));
}

#[test]
fn wrong_settings_are_errors() {
    for url in [
        "",
        "localhost",
        "http://localhost/",
        "redis://127.0.0.1:1/#insecure",
        "redis://:secret@[/",
    ] {
        let error = RedisStore::builder(url).start().unwrap_err();
        assert_eq!(error.class(), ErrorClass::Setting, "{url}");
        assert!(!format!("{error} {error:?}").contains("secret"));
    }
    let short = RedisStore::builder("redis://127.0.0.1/").timeout(Duration::from_millis(9));
    assert_eq!(class(short.start()), ErrorClass::Setting);
    let none: [&str; 0] = [];
    assert_eq!(
        class(RedisStore::behind_sentinels(none, "main").start()),
        ErrorClass::Setting
    );
}
