//! The clean end of a cache, with its connections.

use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use dev_support::until;
use everfresh::store::{RedisStore, Store};
use everfresh::{Cache, SecondLevel, Source};
use tokio::runtime::Builder;

use crate::server::Server;

/// Longer than any test waits for a lease.
const LEASE: Duration = Duration::from_secs(3_600);

/// A loader stops here while it is shut.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<State>, Condvar)>);

#[derive(Default)]
struct State {
    is_shut: bool,
    loads: u64,
}

impl Gate {
    fn set(&self, is_shut: bool) {
        self.0.0.lock().unwrap().is_shut = is_shut;
        self.0.1.notify_all();
    }

    fn loads(&self) -> u64 {
        self.0.0.lock().unwrap().loads
    }

    fn pass(&self) {
        let mut state = self.0.0.lock().unwrap();
        state.loads += 1;
        drop(self.0.1.wait_while(state, |state| state.is_shut).unwrap());
    }
}

fn connect(server: &Server) -> Arc<RedisStore> {
    let connect = server.builder().timeout(Duration::from_secs(10));
    Arc::new(connect.connect_blocking().unwrap())
}

fn cache(store: Arc<RedisStore>, name: &str, gate: &Gate, limit: Duration) -> Cache<u64, u64> {
    let gate = gate.clone();
    Cache::builder()
        .close_timeout(limit)
        .store(SecondLevel::new(store, name).unwrap().lease(LEASE))
        .compute(move |n: &u64| {
            gate.pass();
            n * n
        })
        .build()
        .unwrap()
}

#[test]
fn the_next_process_finds_the_results_and_no_leases() {
    let (server, gate) = (Server::start(), Gate::default());
    let before = server.clients();
    let (one, two) = (
        cache(connect(&server), "closing:v1", &gate, LEASE),
        cache(connect(&server), "closing:v1", &gate, LEASE),
    );
    gate.set(true);
    let loads: Vec<_> = (0..4)
        .map(|key| {
            let one = one.clone();
            thread::spawn(move || *one.get_blocking(&key).unwrap())
        })
        .collect();
    until("all loads are under way", || {
        one.store_stats().unwrap().leases_granted == 4
    });
    let closing = thread::spawn({
        let one = one.clone();
        move || one.close_blocking()
    });
    gate.set(false);
    closing.join().unwrap().unwrap();
    let results: Vec<_> = loads.into_iter().map(|load| load.join().unwrap()).collect();
    assert_eq!(results, [0, 1, 4, 9]);
    for key in 0..4 {
        let read = two.get_blocking(&key).unwrap();
        assert_eq!((*read, read.source()), (key * key, Source::Store));
    }
    assert_eq!(gate.loads(), 4);
    // Its connections end, although a handle to the cache lives.
    until("two connections are left", || {
        server.clients() == before + 2
    });
    two.close_blocking().unwrap();
    until("no connection is left", || server.clients() == before);
    assert_eq!(*one.get_blocking(&3).unwrap(), 9);
}

#[test]
fn a_load_past_the_limit_does_not_keep_its_key_from_the_next_process() {
    let (server, gate) = (Server::start(), Gate::default());
    let one = cache(connect(&server), "closing:v1", &gate, Duration::ZERO);
    gate.set(true);
    let load = thread::spawn({
        let one = one.clone();
        move || *one.get_blocking(&3).unwrap()
    });
    until("the load runs", || gate.loads() == 1);
    let error = one.close_blocking().unwrap_err();
    assert_eq!((error.left().loads, error.left().leases), (1, 0));
    // The lease would last for an hour.
    let other = Gate::default();
    let two = cache(connect(&server), "closing:v1", &other, LEASE);
    assert_eq!(two.get_blocking(&3).unwrap().source(), Source::Loaded);
    gate.set(false);
    assert_eq!(load.join().unwrap(), 9);
}

#[test]
fn a_store_that_another_cache_uses_stays_connected() {
    let (server, gate) = (Server::start(), Gate::default());
    let store = connect(&server);
    let (one, two) = (
        cache(store.clone(), "one:v1", &gate, LEASE),
        cache(store.clone(), "two:v1", &gate, LEASE),
    );
    one.get_blocking(&3).unwrap();
    one.close_blocking().unwrap();
    assert!(store.state().is_up());
    two.get_blocking(&3).unwrap();
    two.close_blocking().unwrap();
    assert_eq!(two.store_stats().unwrap().published, 1);
    assert_eq!(store.stats().connections, 2);
    assert_eq!(Arc::strong_count(&store), 1);
}

/// The store lives on the runtime whose tasks close the cache.
#[test]
fn a_cache_is_closed_on_the_runtime_of_its_store() {
    let (server, gate) = (Server::start(), Gate::default());
    for threads in [1, 2] {
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads)
            .enable_all()
            .build()
            .unwrap();
        let key = threads as u64;
        runtime.block_on(async {
            let store = server.builder().timeout(Duration::from_secs(10));
            let store = Arc::new(store.connect().await.unwrap());
            let cache = cache(store, "closing:v1", &gate, LEASE);
            let task = tokio::spawn(async move {
                assert_eq!(*cache.get(&key).await.unwrap(), key * key);
                cache.close().await.unwrap();
                cache.close_blocking().unwrap();
            });
            task.await.unwrap();
        });
    }
    let two = cache(connect(&server), "closing:v1", &gate, LEASE);
    assert_eq!(two.get_blocking(&2).unwrap().source(), Source::Store);
}
