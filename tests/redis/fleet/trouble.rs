//! A server with faults: resident values are served, and the caches recover by themselves (P7).
use std::time::Duration;

use dev_support::redis::Answer;
use dev_support::until;
use everfresh::Source;
use everfresh::store::{ErrorClass, Store};
use futures_lite::future::block_on;

use super::{Origin, Process, name};
use crate::faults::proxy::{Mood, Proxy};
use crate::server::{Server, data};

const KEYS: u64 = 8;

/// Waits until all resident values come from load number `after` or later.
fn refreshed(origin: &Origin, process: &Process, after: u64) {
    for key in 0..KEYS {
        until("refreshed", || {
            let (value, source) = process.resident(key);
            // A pause after a failed attempt ends by the test's clock.
            origin.clock.advance(Duration::from_millis(1));
            // An earlier refresh may have ended in between.
            if value < after && source == Source::Fresh {
                origin.grow_stale();
            }
            value >= after
        });
    }
}

/// The channel of the changes.
const CHANNEL: &str = "caches:v1:c0";

fn is_stored(server: &Server, key: u64) -> bool {
    server.ask(&["EXISTS", &data(&name(key))]) == Answer::Number(1)
}

/// Breaks the server while values are resident, and repairs it.
fn survives(
    breaks: impl FnOnce(&mut Server),
    mends: impl FnOnce(&mut Server),
    counted: &[ErrorClass],
) {
    let hurried = Origin {
        hurried: true,
        ..Origin::default()
    };
    let (origin, mut server) = (hurried, Server::start());
    let process = origin.connected(&server);
    for key in 0..KEYS {
        process.get(key);
    }
    process.published(KEYS);

    breaks(&mut server);
    // No refresh can end, so each read is served the resident value.
    origin.shut();
    origin.grow_stale();
    let loads = origin.loads();
    for _ in 0..100 {
        for key in 0..KEYS {
            let (value, source) = process.resident(key);
            assert!(
                value < loads && source == Source::Stale,
                "{value} {source:?}"
            );
        }
    }
    // The values are refreshed without the server.
    origin.open();
    refreshed(&origin, &process, loads);
    // A missing key is loaded.
    assert!(process.get(KEYS) >= loads);

    mends(&mut server);
    until("errors are counted", || {
        let stats = process.store.stats();
        counted.is_empty() || counted.iter().any(|class| stats.errors(*class) > 0)
    });
    process.wait_until_up();
    until("resident values are refreshed and stored again", || {
        let loads = origin.loads();
        origin.grow_stale();
        refreshed(&origin, &process, loads);
        (0..KEYS).all(|key| is_stored(&server, key))
    });
    let other = origin.connected(&server);
    let loads = origin.loads();
    for key in 0..KEYS {
        assert!(other.get(key) < loads);
    }
    assert_eq!(origin.loads(), loads);
}

const GONE: &[ErrorClass] = &[ErrorClass::Unavailable, ErrorClass::TimedOut];

#[test]
fn a_server_that_is_killed() {
    survives(|server| server.kill(), Server::restart, GONE);
}

#[test]
fn a_server_that_hangs() {
    survives(
        |server| server.signal("STOP"),
        |server| server.signal("CONT"),
        GONE,
    );
}

#[test]
fn a_server_that_restarts_without_data() {
    survives(Server::restart, |_| {}, &[]);
}

#[test]
fn a_server_that_restarts_without_data_gets_the_fresh_values_again() {
    let (origin, mut server) = (Origin::default(), Server::start());
    let (first, second) = (origin.connected(&server), origin.connected(&server));
    for key in 0..KEYS {
        first.get(key);
    }
    first.published(KEYS);
    for key in 0..KEYS {
        second.get(key);
    }
    server.restart();
    until("the values are stored again", || {
        // The pauses between attempts end by the test's clock.
        origin.clock.advance(Duration::from_micros(100));
        (0..KEYS).all(|key| is_stored(&server, key))
    });
    for key in 0..KEYS {
        assert_eq!((first.resident(key).0, second.resident(key).0), (key, key));
    }
    assert_eq!(origin.loads(), KEYS);
}

#[test]
fn a_server_that_loses_everything() {
    survives(|server| drop(server.ask(&["FLUSHALL"])), |_| {}, &[]);
}

#[test]
fn a_server_without_memory() {
    let limit = |bytes: &'static str| {
        move |server: &mut Server| drop(server.ask(&["CONFIG", "SET", "maxmemory", bytes]))
    };
    survives(limit("1"), limit("0"), &[ErrorClass::Refused]);
}

#[test]
fn a_server_that_comes_up_later() {
    let (origin, mut server) = (Origin::default(), Server::start());
    server.kill();
    let (first, second) = (origin.process(&server), origin.process(&server));
    assert_eq!((first.get(1), second.get(1)), (0, 1));
    assert_eq!((first.stats().unleased, second.stats().unleased), (1, 1));

    server.restart();
    first.wait_until_up();
    second.wait_until_up();
    // A write that the processes have missed leaves no trace in an empty store. So what they loaded
    // without it is loaded again, once.
    until("both have one value", || {
        // The look at the store may have to pause.
        origin.clock.advance(Duration::from_millis(10));
        first.resident(1).0.min(second.resident(1).0) == 2
    });
    assert_eq!(first.get(2), 3);
    assert_eq!(second.get(2), 3);
    origin.grow_stale();
    first.resident(1);
    until("refreshed", || first.resident(1).0 > 3);
    until("the other has it too", || {
        second.resident(1);
        second.resident(1).0 == first.resident(1).0
    });
}

#[test]
fn a_missed_invalidation_takes_effect_after_the_gap() {
    let (origin, server) = (Origin::default(), Server::start());
    let proxy = Proxy::to(server.port);
    let near = origin.connected(&server);
    let url = format!("redis://127.0.0.1:{}/", proxy.port);
    let limits = Duration::from_millis(300);
    let far = everfresh::store::RedisStore::builder(url).timeout(limits);
    let far = origin.process_at(far);
    far.wait_until_up();
    assert_eq!(
        (near.get(1), near.get(2), far.get(1), far.get(2)),
        (0, 1, 0, 1)
    );

    proxy.mood(Mood::Cut);
    let subscribers = ["PUBSUB", "NUMSUB", CHANNEL];
    until("it is cut off, and the server knows", || {
        let Answer::Many(parts) = server.ask(&subscribers) else {
            return false;
        };
        parts.last() == Some(&Answer::Number(1)) && !far.store.state().is_up()
    });
    assert!(block_on(near.cache.invalidate_everywhere(&1)).unwrap());
    assert_eq!(near.get(1), 2);
    assert_eq!(far.resident(1), (0, Source::Fresh));
    proxy.mood(Mood::Pass);
    // The value is fresh here, and no further notification comes.
    until("it takes effect", || {
        // The pauses between attempts end by the test's clock.
        origin.clock.advance(Duration::from_micros(100));
        far.get(1) == 2
    });
    assert_eq!(far.resident(2), (1, Source::Fresh));
    assert_eq!(origin.loads(), 3);
}

/// A pending write is flushed when the server is back.
#[test]
fn an_invalidation_while_the_server_is_away() {
    let (origin, mut server) = (Origin::default(), Server::start());
    let (first, second) = (origin.connected(&server), origin.connected(&server));
    assert_eq!((first.get(1), second.get(1)), (0, 0));
    server.signal("STOP");
    let flushed = block_on(first.cache.invalidate_everywhere(&1));
    assert!(flushed.is_err());
    assert_eq!(first.cache.get_if_present(&1).map(|value| *value), None);
    assert_eq!(first.get(1), 1);
    server.signal("CONT");
    until("flushed", || {
        // The pauses between attempts end by the test's clock.
        origin.clock.advance(Duration::from_millis(1));
        first.stats().pending == 0
    });
    until("received", || {
        // So do those between comparisons, of which one may have failed while the server was away.
        origin.clock.advance(Duration::from_millis(1));
        second.get(1) != 0
    });
    server.kill();
}

/// The number of times that the server read a part of a value.
fn head_reads(server: &Server) -> u64 {
    let Answer::Bytes(info) = server.ask(&["INFO", "commandstats"]) else {
        panic!("no bytes");
    };
    let info = String::from_utf8(info).unwrap();
    let (_, calls) = info.split_once("cmdstat_getrange:calls=").unwrap();
    let (calls, _) = calls.split_once(',').unwrap();
    calls.parse().unwrap()
}

#[test]
fn after_a_gap_heads_are_compared_and_not_values() {
    let (origin, server) = (Origin::default(), Server::start());
    let process = origin.patient(&server);
    for key in 0..100 {
        process.get(key);
    }
    process.published(100);
    let (reads, gaps) = (process.store.stats().reads, process.store.gaps());
    let before = head_reads(&server);
    server.ask(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    until("the store noticed the gap", || process.store.gaps() > gaps);
    until("all keys were compared", || {
        head_reads(&server) >= before + 100
    });
    assert_eq!(process.store.stats().reads, reads, "no value was read");
}
