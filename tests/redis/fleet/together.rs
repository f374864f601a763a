//! Processes that share a server without faults.
use std::thread;
use std::time::Duration;

use dev_support::until;
use everfresh::Source;
use futures_lite::future::block_on;

use super::{Origin, Process, STALE, name};
use crate::server::{Server, data, lease};

fn fleet(origin: &Origin, server: &Server, count: usize) -> Vec<Process> {
    (0..count).map(|_| origin.patient(server)).collect()
}

#[test]
fn a_warm_restart_loads_nothing() {
    let (origin, server) = (Origin::default(), Server::start());
    let keys: Vec<u64> = (0..10).chain(STALE..STALE + 10).collect();
    let first = origin.patient(&server);
    let values: Vec<u64> = keys.iter().map(|key| first.get(*key)).collect();
    first.published(20);
    drop(first);
    let loads = origin.loads();

    let second = origin.patient(&server);
    for (key, value) in keys.iter().zip(values) {
        let read = second.cache.get_blocking(key).unwrap();
        assert_eq!((*read, read.source()), (value, Source::Store));
        assert_eq!(read.freshness().is_stale(), *key >= STALE);
    }
    assert_eq!(origin.loads(), loads);
    let stats = second.stats();
    assert_eq!((stats.hits, stats.stale, stats.misses), (10, 10, 0));
}

#[test]
fn many_keys_come_back_together() {
    let (origin, server) = (Origin::default(), Server::start());
    let keys: Vec<u64> = (0..100).collect();
    let first = origin.patient(&server);
    let values: Vec<u64> = keys.iter().map(|key| first.get(*key)).collect();
    first.published(100);
    let second = origin.patient(&server);
    let read = block_on(second.cache.get_many(&keys));
    let read: Vec<u64> = read.into_iter().map(|value| *value.unwrap()).collect();
    assert_eq!(read, values);
    assert_eq!(origin.loads(), 100);
}

/// The number of answers to the refreshes of a process.
///
/// The store denies the lease while another process loads. It returns the payload instead if the
/// process does not know yet that this payload is the one it has, because the reply to its own
/// publication is late.
fn answers(process: &Process) -> u64 {
    let stats = process.stats();
    stats.leases_granted + stats.leases_denied + stats.hits
}

#[test]
fn a_fleet_loads_once_for_each_stale_epoch() {
    let (origin, server) = (Origin::default(), Server::start());
    let fleet = fleet(&origin, &server, 4);
    for process in &fleet {
        assert_eq!(process.get(1), 0);
    }
    for epoch in 1..=20 {
        origin.shut();
        origin.grow_stale();
        let before: Vec<u64> = fleet.iter().map(answers).collect();
        thread::scope(|scope| {
            for process in &fleet {
                for _ in 0..2 {
                    scope.spawn(|| assert_eq!(process.resident(1).0, epoch - 1));
                }
            }
        });
        until("one process loads", || origin.loads() > epoch);
        until("the store has answered the others", || {
            let mut pairs = fleet.iter().zip(&before);
            pairs.all(|(process, before)| answers(process) > *before)
        });
        origin.open();
        for process in &fleet {
            until("all have the result", || process.resident(1).0 == epoch);
        }
    }
    assert_eq!(origin.loads(), 21);
}

#[test]
fn a_missing_key_is_loaded_once_for_all() {
    let (origin, server) = (Origin::default(), Server::start());
    let fleet = fleet(&origin, &server, 4);
    for key in 0..20 {
        thread::scope(|scope| {
            for process in &fleet {
                scope.spawn(|| assert_eq!(process.get(key), key));
            }
        });
    }
    assert_eq!(origin.loads(), 20);
}

#[test]
fn an_invalidation_reaches_the_others() {
    let (origin, server) = (Origin::default(), Server::start());
    let fleet = fleet(&origin, &server, 3);
    for process in &fleet {
        assert_eq!(process.get(1), 0);
    }
    assert!(block_on(fleet[0].cache.invalidate_everywhere(&1)).unwrap());
    for process in &fleet {
        until("no process serves it", || {
            process.cache.get_if_present(&1).is_none()
        });
    }
    for process in &fleet {
        assert_eq!(process.get(1), 1);
    }
}

#[test]
fn the_others_serve_an_inserted_value() {
    let (origin, server) = (Origin::default(), Server::start());
    let fleet = fleet(&origin, &server, 3);
    for process in &fleet {
        assert_eq!(process.get(1), 0);
    }
    block_on(fleet[0].cache.insert_everywhere(1, 77)).unwrap();
    for process in &fleet {
        until("all serve it", || process.get(1) == 77);
    }
    assert_eq!(origin.loads(), 1);
}

/// The server loses the lease and the payload without a notification. The store refuses the result
/// of the load. It stays in its process, because nothing has made it wrong.
#[test]
fn a_result_whose_lease_was_evicted_stays_in_its_process() {
    let (origin, server) = (Origin::default(), Server::start());
    let process = origin.patient(&server);
    assert_eq!(process.get(1), 0);
    process.published(1);
    origin.shut();
    origin.grow_stale();
    assert_eq!(process.resident(1).0, 0);
    until("the load began", || origin.loads() == 2);
    server.ask(&["DEL", &lease(&name(1)), &data(&name(1))]);
    origin.open();
    until("refused", || process.stats().not_stored == 1);
    assert_eq!(process.resident(1), (1, Source::Fresh));
    assert_eq!(process.stats().refused, 0);
}

/// The message of an invalidation comes before the reply that refuses the result of an older load.
#[test]
fn a_result_from_before_an_invalidation_leaves_its_process() {
    const ROUNDS: u64 = 50;
    let (origin, server) = (Origin::default(), Server::start());
    let (process, other) = (origin.patient(&server), origin.patient(&server));
    for round in 0..ROUNDS {
        origin.shut();
        thread::scope(|scope| {
            let load = scope.spawn(|| process.get(round));
            until("the load began", || origin.loads() == round + 1);
            block_on(other.cache.invalidate_everywhere(&round)).unwrap();
            origin.open();
            assert_eq!(load.join().unwrap(), round);
        });
        until("refused", || process.stats().refused == round + 1);
        until("removed", || process.cache.get_if_present(&round).is_none());
    }
    assert_eq!(process.stats().not_stored, 0);
}

/// A server delivers messages of all its databases.
#[test]
fn databases_of_one_server_are_apart() {
    let (origin, server) = (Origin::default(), Server::start());
    let processes = [0, 1].map(|database| {
        let patient = server.builder().timeout(Duration::from_secs(10));
        let process = origin.process_at(patient.database(database));
        process.wait_until_up();
        process
    });
    let [first, second] = &processes;
    assert_eq!((first.get(1), second.get(1)), (0, 1));
    first.published(1);
    second.published(1);
    block_on(first.cache.refresh(&1)).unwrap();
    first.published(2);
    block_on(second.cache.invalidate_everywhere(&1)).unwrap();
    // The store has got all messages before the reply to a command that it sends later.
    assert_eq!(second.get(2), 3);
    assert_eq!(first.get(2), 4);
    assert_eq!(first.resident(1), (2, Source::Fresh));
    for process in &processes {
        let stats = process.stats();
        assert_eq!((stats.notifications, stats.store.changes_foreign), (0, 0));
    }
    assert_eq!(origin.loads(), 5);
}
