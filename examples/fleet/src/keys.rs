//! The keys and values of the fleet, and their cost.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use everfresh::store::{Codec, Namespace, Postcard, StoreKey};
use rand::SeedableRng;
use rand::rngs::SmallRng;

/// The fresh time of values that are meant to go stale, and the time of a load.
pub const FRESH: Duration = Duration::from_millis(100);
pub const LOAD: Duration = Duration::from_millis(10);
pub const STALE: Duration = Duration::from_secs(600);

/// Keys from here on have values that stay fresh.
pub const LASTING: u64 = 1 << 32;
/// Loads of keys from here on are so slow that a process can be killed before its load ends.
pub const SLOW: u64 = 1 << 33;
pub const SLOW_LOAD: Duration = Duration::from_millis(300);

/// The name of a key in the store, as the cache makes it.
pub fn hash(namespace: &Namespace, key: u64) -> u128 {
    let mut encoded = Vec::new();
    // A number can always be encoded.
    let _ = Postcard.encode(&key, &mut encoded);
    StoreKey::new(namespace, &encoded).hash()
}

/// Microseconds by the clock that all processes of one machine have in common.
pub fn micros() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.as_micros() as u64)
}

/// A different key at each call.
pub fn random() -> SmallRng {
    SmallRng::seed_from_u64(RandomState::new().hash_one(micros()))
}
