//! The peers that have a plain read, each with the settings that its documentation recommends.

use std::collections::hash_map::RandomState;
use std::time::Duration;

use amalgam::{BlockingCache, EntryOptions};
use fibre_cache::CacheBuilder as FibreBuilder;
use foldhash::quality::RandomState as Foldhash;
use foyer_memory::{CacheBuilder as FoyerBuilder, S3FifoConfig};
use mini_moka::sync::ConcurrentCacheExt;
use quick_cache::sync::DefaultLifecycle;
use quick_cache::{DefaultHashBuilder, UnitWeighter};
use stretto::{CacheBuilder as StrettoBuilder, TransparentKeyBuilder};

use crate::contender::{Config, Contender, Hashing, Subject, Value, typed};

/// The peers that are left out of the benches of plain calls, and why.
pub const WITHOUT_CACHEFLIGHT: &str =
    "cacheflight is left out: it has async reads only; see async, stampede and duplicates";
pub const WITHOUT_HASHERS: &str =
    "amalgam-cache is left out of the rows with foldhash: its hasher cannot be chosen";

pub const WITHOUT_AMALGAM: &str =
    "amalgam-cache is left out: it sorts all its entries to evict, which takes milliseconds";

pub struct Peer {
    pub name: &'static str,
    pub build: fn(&Config) -> Box<dyn Subject>,
}

/// Every peer with its own default hasher.
pub fn peers<V: Value>() -> Vec<Peer> {
    let peer = |name, build| Peer { name, build };
    vec![
        peer("quick_cache", quick::<V, DefaultHashBuilder>),
        peer("moka", moka::<V, RandomState>),
        peer("mini-moka", mini_moka::<V, RandomState>),
        peer("foyer", |config| {
            typed::<V, _>(Foyer(foyer_builder(config).build()))
        }),
        peer("stretto", stretto::<V, RandomState>),
        peer("fibre_cache", |config| {
            fibre::<V, _>(config, FibreBuilder::default())
        }),
        peer("amalgam-cache", amalgam::<V>),
    ]
}

/// The peers whose evictions take no time that grows with the cache.
pub fn evicting<V: Value>() -> Vec<Peer> {
    let mut peers = peers::<V>();
    peers.retain(|peer| peer.name != "amalgam-cache");
    peers
}

/// Every peer whose hasher can be chosen, with the default hasher of everfresh.
pub fn peers_with_foldhash<V: Value>() -> Vec<Peer> {
    let peer = |name, build| Peer { name, build };
    vec![
        peer("quick_cache+foldhash", quick::<V, Foldhash>),
        peer("moka+foldhash", moka::<V, Foldhash>),
        peer("mini-moka+foldhash", mini_moka::<V, Foldhash>),
        peer("foyer+foldhash", |config| {
            let builder = foyer_builder(config).with_hash_builder(Foldhash::default());
            typed::<V, _>(Foyer(builder.build()))
        }),
        peer("stretto+foldhash", stretto::<V, Foldhash>),
        peer("fibre_cache+foldhash", |config| {
            fibre::<V, Foldhash>(config, FibreBuilder::new())
        }),
    ]
}

type QuickCache<V, S> = quick_cache::sync::Cache<u64, V, UnitWeighter, S, DefaultLifecycle<u64, V>>;

/// The cache has no expiry.
struct Quick<V, S>(QuickCache<V, S>);

fn quick<V: Value, S: Hashing>(config: &Config) -> Box<dyn Subject> {
    typed::<V, _>(Quick(QuickCache::<V, S>::with(
        config.capacity,
        config.capacity as u64,
        UnitWeighter,
        S::default(),
        DefaultLifecycle::default(),
    )))
}

impl<V: Value, S: Hashing> Contender<V> for Quick<V, S> {
    type Key = u64;

    fn key(n: u64) -> u64 {
        n
    }

    #[inline]
    fn get(&self, key: &u64) -> Option<u8> {
        Some(self.0.get(key)?.first())
    }

    fn insert(&self, key: &u64, value: V) {
        self.0.insert(*key, value);
    }

    fn invalidate(&self, key: &u64) {
        self.0.remove(key);
    }

    fn len(&self) -> usize {
        self.0.len()
    }
}

struct Moka<V: Value, S>(moka::sync::Cache<u64, V, S>);

fn moka<V: Value, S: Hashing>(config: &Config) -> Box<dyn Subject> {
    let builder = moka::sync::Cache::builder()
        .max_capacity(config.capacity as u64)
        .time_to_live(config.ttl);
    typed::<V, _>(Moka(builder.build_with_hasher(S::default())))
}

impl<V: Value, S: Hashing> Contender<V> for Moka<V, S> {
    type Key = u64;

    fn key(n: u64) -> u64 {
        n
    }

    #[inline]
    fn get(&self, key: &u64) -> Option<u8> {
        Some(self.0.get(key)?.first())
    }

    fn insert(&self, key: &u64, value: V) {
        self.0.insert(*key, value);
    }

    fn invalidate(&self, key: &u64) {
        self.0.invalidate(key);
    }

    fn settle(&self) {
        self.0.run_pending_tasks();
    }

    fn len(&self) -> usize {
        self.0.entry_count() as usize
    }
}

struct MiniMoka<V, S>(mini_moka::sync::Cache<u64, V, S>);

fn mini_moka<V: Value, S: Hashing>(config: &Config) -> Box<dyn Subject> {
    let builder = mini_moka::sync::Cache::builder()
        .max_capacity(config.capacity as u64)
        .time_to_live(config.ttl);
    typed::<V, _>(MiniMoka(builder.build_with_hasher(S::default())))
}

impl<V: Value, S: Hashing> Contender<V> for MiniMoka<V, S> {
    type Key = u64;

    fn key(n: u64) -> u64 {
        n
    }

    #[inline]
    fn get(&self, key: &u64) -> Option<u8> {
        Some(self.0.get(key)?.first())
    }

    fn insert(&self, key: &u64, value: V) {
        self.0.insert(*key, value);
    }

    fn invalidate(&self, key: &u64) {
        self.0.invalidate(key);
    }

    fn settle(&self) {
        self.0.sync();
    }

    fn len(&self) -> usize {
        self.0.entry_count() as usize
    }
}

/// The cache has no expiry.
struct Foyer<V: Value, S: Hashing>(foyer_memory::Cache<u64, V, S>);

/// With S3-FIFO, because its reads take the lock of a shard for reading. Reads under the default
/// LRU take it for writing.
fn foyer_builder<V: Value>(config: &Config) -> FoyerBuilder<u64, V, FoyerHasher> {
    FoyerBuilder::new(config.capacity).with_eviction_config(S3FifoConfig::default())
}

type FoyerHasher = foyer_common::code::DefaultHasher;

impl<V: Value, S: Hashing> Contender<V> for Foyer<V, S> {
    type Key = u64;

    fn key(n: u64) -> u64 {
        n
    }

    #[inline]
    fn get(&self, key: &u64) -> Option<u8> {
        Some(self.0.get(key)?.value().first())
    }

    fn insert(&self, key: &u64, value: V) {
        self.0.insert(*key, value);
    }

    fn invalidate(&self, key: &u64) {
        self.0.remove(key);
    }

    fn len(&self) -> usize {
        self.0.entries()
    }
}

type StrettoCache<V, S> = stretto::Cache<
    u64,
    V,
    TransparentKeyBuilder<u64>,
    stretto::DefaultCoster<V>,
    stretto::DefaultUpdateValidator<V>,
    stretto::DefaultCacheCallback<V>,
    S,
>;

struct Stretto<V: Value, S: Hashing>(StrettoCache<V, S>, Duration);

/// With ten counters per entry and the builder for integer keys, as its documentation advises.
fn stretto<V: Value, S: Hashing>(config: &Config) -> Box<dyn Subject> {
    let builder = StrettoBuilder::new(config.capacity * 10, config.capacity as i64)
        .set_key_builder(TransparentKeyBuilder::<u64>::default())
        .set_hasher(S::default());
    let cache = builder.finalize().expect("the settings are valid");
    typed::<V, _>(Stretto(cache, config.ttl))
}

impl<V: Value, S: Hashing> Contender<V> for Stretto<V, S> {
    type Key = u64;

    fn key(n: u64) -> u64 {
        n
    }

    #[inline]
    fn get(&self, key: &u64) -> Option<u8> {
        Some(self.0.get(key)?.value().first())
    }

    fn insert(&self, key: &u64, value: V) {
        self.0.insert_with_ttl(*key, value, 1, self.1);
    }

    fn invalidate(&self, key: &u64) {
        self.0.remove(key);
    }

    fn settle(&self) {
        self.0.wait().expect("its worker runs");
    }

    fn len(&self) -> usize {
        self.0.len()
    }
}

struct Fibre<V: Value, S>(fibre_cache::Cache<u64, V, S>);

fn fibre<V: Value, S: Hashing>(
    config: &Config,
    builder: FibreBuilder<u64, V, S>,
) -> Box<dyn Subject> {
    let builder = builder
        .capacity(config.capacity as u64)
        .time_to_live(config.ttl);
    typed::<V, _>(Fibre(builder.build().expect("the settings are valid")))
}

impl<V: Value, S: Hashing> Contender<V> for Fibre<V, S> {
    type Key = u64;

    fn key(n: u64) -> u64 {
        n
    }

    #[inline]
    fn get(&self, key: &u64) -> Option<u8> {
        self.0.get(key, V::first)
    }

    fn insert(&self, key: &u64, value: V) {
        self.0.insert(*key, value, 1);
    }

    fn invalidate(&self, key: &u64) {
        self.0.invalidate(key);
    }

    fn len(&self) -> usize {
        self.0.metrics().current_cost as usize
    }
}

/// Its keys are strings; the bench makes them before the clock runs.
struct Amalgam<V: Value>(BlockingCache<V>);

fn amalgam<V: Value>(config: &Config) -> Box<dyn Subject> {
    let builder = amalgam::Cache::builder()
        .default_options(EntryOptions::new(config.ttl))
        .max_capacity(config.capacity as u64);
    let cache = BlockingCache::from_builder(builder).expect("the settings are valid");
    typed::<V, _>(Amalgam(cache))
}

impl<V: Value> Contender<V> for Amalgam<V> {
    type Key = String;

    fn key(n: u64) -> String {
        n.to_string()
    }

    #[inline]
    fn get(&self, key: &String) -> Option<u8> {
        Some(self.0.try_get(key).execute().ok()??.first())
    }

    fn insert(&self, key: &String, value: V) {
        self.0.set(key, value).execute().expect("it is open");
    }

    fn invalidate(&self, key: &String) {
        self.0.remove(key).execute().expect("it is open");
    }

    fn settle(&self) {
        self.0.run_pending_tasks().expect("it is open");
    }

    fn len(&self) -> usize {
        self.0
            .memory_usage()
            .map_or(0, |usage| usage.entries as usize)
    }
}
