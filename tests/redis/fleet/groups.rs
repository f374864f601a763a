//! Groups of caches on a real server.
use std::sync::Arc;
use std::time::Duration;

use dev_support::until;
use everfresh::{Cache, SecondLevel};

use super::{NAMESPACE, Origin, Process};
use crate::server::Server;

/// A process whose keys are in the group of their tens.
fn process(origin: &Origin, server: &Server) -> Process {
    let builder = server.builder().timeout(Duration::from_secs(10));
    let store = Arc::new(builder.start().unwrap());
    let level = SecondLevel::new(store.clone(), NAMESPACE).unwrap();
    let origin = origin.clone();
    let cache = Cache::builder()
        .capacity(1_000)
        .clock(&origin.clock)
        .fresh_for(Duration::MAX)
        .beta(0.0)
        .threads(2)
        .store(level)
        .group_by(|key: &u64| [key / 10])
        .compute_with(move |request| Ok::<_, std::convert::Infallible>(origin.load(request)))
        .build()
        .unwrap();
    let process = Process { cache, store };
    process.wait_until_up();
    process
}

#[test]
fn a_group_leaves_every_process() {
    let (origin, server) = (Origin::default(), Server::start());
    let all = [(); 3].map(|()| process(&origin, &server));
    let [a, b, c] = &all;
    assert_eq!((a.get(1), a.get(11)), (0, 1));
    a.published(2);
    assert_eq!((b.get(1), b.get(11), c.get(1)), (0, 1, 0));
    b.cache.invalidate_group_everywhere_blocking(0).unwrap();
    assert_eq!(b.get(1), 2);
    for other in [a, c] {
        // It may have read the result of the other already.
        until("it is told", || other.cache.peek(&1).as_deref() != Some(&0));
        until("the result is shared", || other.get(1) == 2);
    }
    assert_eq!((a.get(11), b.get(11)), (1, 1));
    let late = process(&origin, &server);
    assert_eq!((late.get(1), late.get(11), origin.loads()), (2, 1, 3));
}

#[test]
fn a_server_that_comes_back_empty_has_lost_the_groups_too() {
    let (origin, mut server) = (Origin::default(), Server::start());
    let (a, b) = (process(&origin, &server), process(&origin, &server));
    assert_eq!(a.get(1), 0);
    a.published(1);
    assert_eq!(b.get(1), 0);
    server.restart();
    for process in [&a, &b] {
        until("the value is loaded anew", || {
            origin.clock.advance(Duration::from_millis(20));
            process.get(1) > 0
        });
    }
    a.cache.invalidate_group_everywhere_blocking(0).unwrap();
    let loads = origin.loads();
    until("it is told", || b.get(1) >= loads);
    assert!(a.get(1) >= loads);
}

#[test]
fn an_invalidation_while_the_server_is_away_is_told_later() {
    let (origin, server) = (Origin::default(), Server::start());
    let (a, b) = (process(&origin, &server), process(&origin, &server));
    assert_eq!(a.get(1), 0);
    a.published(1);
    assert_eq!(b.get(1), 0);
    server.signal("STOP");
    a.cache.invalidate_group(0);
    assert_eq!((a.cache.contains_key(&1), b.get(1)), (false, 0));
    server.signal("CONT");
    until("the store knows", || {
        origin.clock.advance(Duration::from_millis(20));
        a.stats().pending == 0
    });
    until("it is told", || b.get(1) > 0);
    assert!(a.get(1) > 0);
}
