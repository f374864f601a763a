//! Caches whose loaders read them.

use std::hash::BuildHasher;
use std::sync::{Arc, OnceLock};

use everfresh::{Builder, Cache, Error};

/// A cache whose loader may read it.
pub fn reading_itself<S: BuildHasher + Send + Sync + 'static>(
    builder: Builder<u64, u64, S>,
    load: impl Fn(&Cache<u64, u64, S>, u64) -> Result<u64, Error> + Send + Sync + 'static,
) -> Cache<u64, u64, S> {
    let handle: Arc<OnceLock<Cache<u64, u64, S>>> = Arc::default();
    let inside = handle.clone();
    let cache = builder
        .try_compute(move |key: &u64| load(inside.get().unwrap(), *key))
        .build()
        .unwrap();
    assert!(handle.set(cache.clone()).is_ok());
    cache
}
