//! everfresh as a contender, with expiry, X-Fetch and counters on.

use std::sync::Barrier;
use std::time::Duration;

use everfresh::{Cache, Fresh, Source};

use crate::contender::{Config, Contender, Reads, Timed, Value, timed};

/// The feature names the cell of the table's slots, to compare it in a second build.
pub const NAME: &str = match cfg!(feature = "arc-swap-slots") {
    true => "everfresh (arc-swap slots)",
    false => "everfresh",
};
pub const BOUNDED: &str = "everfresh max_loads(8)";
pub const WEIGHED: &str = "everfresh by weight";

pub fn build<V: Value>(config: &Config) -> Cache<u64, V> {
    Cache::builder()
        .capacity(config.capacity)
        .fresh_for(config.ttl)
        .stale_for(config.ttl)
        .compute(|n: &u64| V::make(*n))
        .build()
        .expect("the settings are valid")
}

/// Limited by weight: as many values fit as in the others, though the capacity is ten times that.
pub fn build_weighed<V: Value>(config: &Config) -> Cache<u64, V> {
    Cache::builder()
        .capacity(config.capacity * 10)
        .max_weight(config.capacity as u64, |_, _| 1)
        .fresh_for(config.ttl)
        .stale_for(config.ttl)
        .compute(|n: &u64| V::make(*n))
        .build()
        .expect("the settings are valid")
}

/// The one value of a `Fresh`, for every key.
pub struct One<V>(pub Fresh<V>);

/// The same by a pin, one for each thread.
pub struct PinOfOne<V>(pub Fresh<V>);

pub fn build_one<V: Value>(config: &Config) -> Fresh<V> {
    Fresh::builder()
        .fresh_for(config.ttl)
        .stale_for(config.ttl)
        .compute(|&()| V::make(0))
        .build_fresh()
        .expect("the settings are valid")
}

/// The tier `cache.get`.
pub struct Get<V>(pub Cache<u64, V>);

/// The tier `cache.get_if_present`.
pub struct Present<V>(pub Cache<u64, V>);

/// The tier `cache.reader()`, one for each thread.
pub struct Reader<V>(pub Cache<u64, V>);

/// The tier `cache.pin(key)`: it reads the first key of the sequence, again and again.
pub struct Pin<V>(pub Cache<u64, V>);

impl<V: Value> Contender<V> for Get<V> {
    type Key = u64;

    fn key(n: u64) -> u64 {
        n
    }

    #[inline]
    fn get(&self, key: &u64) -> Option<u8> {
        Some(self.0.get_blocking(key).ok()?.first())
    }

    fn insert(&self, key: &u64, value: V) {
        self.0.insert(*key, value);
    }

    fn invalidate(&self, key: &u64) {
        self.0.invalidate(key);
    }

    fn through(&self, _: u64, key: &u64) -> bool {
        match self.0.get_blocking(key) {
            Ok(cached) => !matches!(cached.source(), Source::Loaded | Source::Coalesced),
            Err(_) => false,
        }
    }

    fn len(&self) -> usize {
        self.0.len()
    }
}

impl<V: Value> Contender<V> for Present<V> {
    type Key = u64;

    fn key(n: u64) -> u64 {
        n
    }

    #[inline]
    fn get(&self, key: &u64) -> Option<u8> {
        Some(self.0.get_if_present(key)?.first())
    }

    fn insert(&self, key: &u64, value: V) {
        self.0.insert(*key, value);
    }

    fn invalidate(&self, key: &u64) {
        self.0.invalidate(key);
    }

    fn len(&self) -> usize {
        self.0.len()
    }
}

impl<V: Value> Reads for Reader<V> {
    fn read(&self, keys: &[u64], window: Duration, gate: &Barrier) -> Timed {
        let mut reader = self.0.reader();
        timed(keys, window, gate, |key| {
            Some(reader.get_blocking(key).ok()?.first())
        })
    }
}

impl<V: Value> Reads for Pin<V> {
    fn read(&self, keys: &[u64], window: Duration, gate: &Barrier) -> Timed {
        let mut pin = self.0.pin(keys[0]);
        timed(keys, window, gate, |_| {
            Some(pin.get_blocking().ok()?.first())
        })
    }
}

impl<V: Value> Reads for One<V> {
    fn read(&self, keys: &[u64], window: Duration, gate: &Barrier) -> Timed {
        timed(keys, window, gate, |_| {
            Some(self.0.get_blocking().ok()?.first())
        })
    }
}

impl<V: Value> Reads for PinOfOne<V> {
    fn read(&self, keys: &[u64], window: Duration, gate: &Barrier) -> Timed {
        let mut pin = self.0.pin();
        timed(keys, window, gate, |_| {
            Some(pin.get_blocking().ok()?.first())
        })
    }
}
