//! The runtime of a store: the one on which it was made, and its own thread after that ends.
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use dev_support::until;
use everfresh::SecondLevel;
use everfresh::store::{RedisStore, Store};
use everfresh::testing::store_contract::key;
use everfresh::{Cache, Source};
use futures_lite::future::block_on;
use tokio::runtime::{Builder, Runtime};

use crate::faults::works;
use crate::server::Server;

fn several_threads() -> Builder {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(2);
    builder
}

fn connect(server: &Server, runtime: &Runtime) -> Arc<RedisStore> {
    let connect = server.builder().timeout(Duration::from_secs(10)).connect();
    Arc::new(runtime.block_on(connect).unwrap())
}

fn cache(store: &Arc<RedisStore>) -> Cache<u64, u64> {
    Cache::builder()
        .store(SecondLevel::new(store.clone(), "runtimes:v1").unwrap())
        .compute(|n: &u64| n * n)
        .build()
        .unwrap()
}

fn published(cache: &Cache<u64, u64>, count: u64) {
    until("it is published", || {
        cache.store_stats().unwrap().published >= count
    });
}

#[test]
fn a_store_works_on_the_runtime_it_was_made_on() {
    let server = Server::start();
    let runtime = several_threads().enable_all().build().unwrap();
    let store = connect(&server, &runtime);
    works(&*store, &key("works"));
    let (first, second) = (cache(&store), cache(&store));
    let keys: Vec<u64> = (0..200).collect();
    for answer in runtime.block_on(first.get_many(&keys)) {
        assert_eq!(answer.unwrap().source(), Source::Loaded);
    }
    published(&first, 200);
    for answer in runtime.block_on(second.get_many(&keys)) {
        assert_eq!(answer.unwrap().source(), Source::Store);
    }
    // The same from a thread.
    let third = cache(&store);
    assert_eq!(third.get_blocking(&9).unwrap().source(), Source::Store);
    assert_eq!(store.stats().connections, 2);
}

#[test]
fn a_store_outlives_the_runtime_it_was_made_on() {
    let server = Server::start();
    let runtime = several_threads().enable_all().build().unwrap();
    let store = connect(&server, &runtime);
    let cache = cache(&store);
    cache.get_blocking(&1).unwrap();
    published(&cache, 1);
    drop(runtime);
    // A resident value is served all the same.
    assert_eq!(*cache.get_blocking(&1).unwrap(), 1);
    until("the store is back", || {
        store.state().is_up() && store.stats().connections >= 4
    });
    works(&*store, &key("works"));
    assert_eq!(*cache.get_blocking(&7).unwrap(), 49);
    published(&cache, 2);
    block_on(cache.invalidate_everywhere(&7)).unwrap();
}

#[test]
fn a_runtime_without_network_and_timers_is_left_at_once() {
    let server = Server::start();
    let runtime = several_threads().build().unwrap();
    let store = connect(&server, &runtime);
    works(&*store, &key("works"));
}

#[test]
fn a_caller_that_blocks_its_only_thread_does_not_wait_for_itself() {
    let server = Server::start();
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let store = connect(&server, &runtime);
    let cache = cache(&store);
    runtime.block_on(async {
        assert_eq!(*cache.get_blocking(&5).unwrap(), 25);
    });
}

#[test]
fn a_dropped_store_closes_its_connections_on_any_runtime() {
    let server = Server::start();
    let runtime = several_threads().enable_all().build().unwrap();
    let before = server.clients();
    let store = connect(&server, &runtime);
    assert_eq!(server.clients(), before + 2);
    drop(store);
    until("the connections are closed", || server.clients() == before);
    // The end of the runtime does not open them again.
    drop(runtime);
    assert_eq!(server.clients(), before);
}

/// P4 and P5: work that was under way on the runtime goes on.
#[test]
fn a_pending_write_is_flushed_after_its_runtime_ended() {
    let mut server = Server::start();
    let runtime = several_threads().enable_all().build().unwrap();
    let store = connect(&server, &runtime);
    let cache = cache(&store);
    cache.get_blocking(&1).unwrap();
    published(&cache, 1);
    server.kill();
    cache.invalidate(&1);
    until("it was tried", || cache.store_stats().unwrap().retried > 0);
    drop(runtime);
    server.restart();
    until("it is flushed", || {
        cache.store_stats().unwrap().pending == 0
    });
    block_on(cache.invalidate_everywhere(&1)).unwrap();
}

/// P3 and P5: loads during the end of the runtime end like all others.
#[test]
fn no_load_is_lost_when_the_runtime_ends() {
    let server = Server::start();
    for _ in 0..20 {
        let runtime = several_threads().enable_all().build().unwrap();
        let store = connect(&server, &runtime);
        let cache = cache(&store);
        let read = AtomicU64::new(0);
        let ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut after = 0;
                // Enough reads after the end that some of their loads begin on the new thread.
                while after < 20 {
                    let key = read.fetch_add(1, Ordering::SeqCst);
                    assert_eq!(*cache.get_blocking(&key).unwrap(), key * key);
                    after += u64::from(ended.load(Ordering::SeqCst));
                }
            });
            until("it reads", || read.load(Ordering::SeqCst) > 20);
            drop(runtime);
            ended.store(true, Ordering::SeqCst);
            reader.join().unwrap();
        });
    }
}
