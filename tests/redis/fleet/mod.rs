//! Caches on a real server. Each cache has its own store, so it stands for a process of a fleet.

mod clocks;
mod groups;
mod together;
mod trouble;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use dev_support::until;
use everfresh::store::{Codec, Namespace, Postcard, RedisBuilder, RedisStore, Store, StoreKey};
use everfresh::testing::store_contract::{HOUR, MINUTE};
use everfresh::{Cache, Loaded, ManualClock, Request, Source};
use everfresh::{FleetStats, SecondLevel};

use crate::server::Server;

const NAMESPACE: &str = "caches:v1";

/// The soft limit. Caches take it from the test's clock, and the ages of stored values from the
/// server's clock, so it is longer than a slow machine needs for a step.
const FRESH: Duration = MINUTE;

/// Values of keys from this one on are stale at once.
const STALE: u64 = 1_000;

/// The origin and the clock that all processes share.
#[derive(Clone, Default)]
struct Origin {
    clock: ManualClock,
    loads: Arc<AtomicU64>,
    gate: Arc<(Mutex<bool>, Condvar)>,
    /// Whether leases are short, for tests that lose some. Other leases outlast the test.
    hurried: bool,
}

struct Process {
    cache: Cache<u64, u64>,
    store: Arc<RedisStore>,
}

impl Origin {
    fn loads(&self) -> u64 {
        self.loads.load(Ordering::SeqCst)
    }

    /// Makes loads wait.
    fn shut(&self) {
        *self.gate.0.lock().unwrap() = true;
    }

    fn open(&self) {
        *self.gate.0.lock().unwrap() = false;
        self.gate.1.notify_all();
    }

    /// Makes all fresh entries stale.
    fn grow_stale(&self) {
        self.clock.advance(FRESH);
    }

    fn load(&self, request: &Request<u64, u64>) -> Loaded<u64> {
        let number = self.loads.fetch_add(1, Ordering::SeqCst);
        let shut = self.gate.0.lock().unwrap();
        drop(self.gate.1.wait_while(shut, |shut| *shut).unwrap());
        match *request.key() < STALE {
            true => Loaded::new(number),
            false => Loaded::new(number).fresh_for(Duration::ZERO),
        }
    }

    fn process(&self, server: &Server) -> Process {
        self.process_at(server.builder())
    }

    fn process_at(&self, builder: RedisBuilder) -> Process {
        let store = Arc::new(builder.start().unwrap());
        let origin = self.clone();
        let lease = match self.hurried {
            true => Duration::from_millis(500),
            false => HOUR,
        };
        let level = SecondLevel::new(store.clone(), NAMESPACE).unwrap();
        let cache = Cache::builder()
            .capacity(1_000)
            .clock(&self.clock)
            .fresh_for(FRESH)
            .stale_for(100 * HOUR)
            .beta(0.0)
            .threads(2)
            .store(level.lease(lease))
            .compute_with(move |request: &Request<u64, u64>| {
                Ok::<_, std::convert::Infallible>(origin.load(request))
            })
            .build()
            .unwrap();
        Process { cache, store }
    }

    /// A process that is connected and receives changes.
    fn connected(&self, server: &Server) -> Process {
        let process = self.process(server);
        process.wait_until_up();
        process
    }

    /// A connected process with a long timeout, for tests in which no answer of the server is late.
    fn patient(&self, server: &Server) -> Process {
        let process = self.process_at(server.builder().timeout(Duration::from_secs(10)));
        process.wait_until_up();
        process
    }
}

impl Process {
    fn wait_until_up(&self) {
        until("the store is up", || self.store.state().is_up());
        until("changes arrive", || self.store.gaps() > 0);
    }

    fn get(&self, key: u64) -> u64 {
        *self.cache.get_blocking(&key).unwrap()
    }

    /// A read that must be served at once, from the cache.
    fn resident(&self, key: u64) -> (u64, Source) {
        let value = self.cache.get_blocking(&key).unwrap();
        let at_once = [Source::Fresh, Source::Stale, Source::AfterFailure];
        assert!(
            at_once.contains(&value.source()),
            "key {key} had to wait: {:?}",
            value.source()
        );
        (*value, value.source())
    }

    fn stats(&self) -> FleetStats {
        self.cache.store_stats().unwrap()
    }

    /// Waits until this process has stored `count` results.
    fn published(&self, count: u64) {
        until("published", || self.stats().published >= count);
    }
}

/// The store's name of a key.
fn name(key: u64) -> StoreKey {
    let mut encoded = Vec::new();
    Postcard.encode(&key, &mut encoded).unwrap();
    StoreKey::new(&Namespace::new(NAMESPACE).unwrap(), &encoded)
}
