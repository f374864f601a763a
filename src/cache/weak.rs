//! Handles that do not keep a cache alive, and the cache of a load.

use std::any::Any;
use std::fmt;
use std::hash::{BuildHasher, Hash};

use foldhash::quality::RandomState;

use crate::cache::Cache;
use crate::cache::read::Core;
use crate::error::Error;
use crate::load::loader::Request;
use crate::sync::{Arc, Weak};

/// A handle that does not keep its cache alive; made by [`Cache::downgrade`].
///
/// For what the cache itself owns, directly or not, and would otherwise keep alive for ever: a
/// listener, a background task, the state of another loader. A loader finds its own cache by
/// [`Request::cache`].
///
/// # Example
///
/// ```
/// # use everfresh::Cache;
/// let cache: Cache<u64, u64> = Cache::builder().compute(|n: &u64| n * n).build()?;
/// let weak = cache.downgrade();
/// assert_eq!(*weak.upgrade().unwrap().get_blocking(&3)?, 9);
/// drop(cache);
/// assert!(weak.upgrade().is_none());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct WeakCache<K, V, S = RandomState>(Weak<Core<K, V, S>>);

impl<K, V, S> Cache<K, V, S> {
    /// A handle that does not keep the cache alive.
    pub fn downgrade(&self) -> WeakCache<K, V, S> {
        WeakCache(Arc::downgrade(&self.0))
    }
}

impl<K, V, S> WeakCache<K, V, S> {
    /// The cache; `None` once its last handle has been dropped.
    ///
    /// The cache ends with the last handle, so this one keeps it alive until it is dropped.
    pub fn upgrade(&self) -> Option<Cache<K, V, S>> {
        self.0.upgrade().map(Cache)
    }
}

impl<K, V> Request<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// The cache for which this load runs, to read or write other keys of it.
    ///
    /// The loader owns no handle, so the cache and its loader form no cycle, and the cache ends
    /// with the last handle of its users. A read of the key that this load computes is an error
    /// that [`is_recursive`](Error::is_recursive), and so is one that waits for this load in any
    /// other way. A handle that is kept after the load keeps the cache alive.
    ///
    /// # Errors
    ///
    /// [`is_cache_dropped`](Error::is_cache_dropped): the last handle of the cache was dropped
    /// while this load ran. Also an error if the cache has a [`hasher`](crate::Builder::hasher) of
    /// its own: see [`cache_with_hasher`](Self::cache_with_hasher).
    ///
    /// # Example
    ///
    /// ```
    /// use everfresh::{Cache, Error, Request};
    ///
    /// // Each sum is made from the one before it.
    /// fn sum(request: &Request<u64, u64>) -> Result<u64, Error> {
    ///     Ok(match *request.key() {
    ///         0 => 0,
    ///         n => n + *request.cache()?.get_blocking(&(n - 1))?,
    ///     })
    /// }
    ///
    /// let sums: Cache<u64, u64> = Cache::builder().compute_with(sum).build()?;
    /// assert_eq!(*sums.get_blocking(&10)?, 55);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// An async loader does the same by the trait [`Loader`](crate::Loader):
    ///
    /// ```
    /// use everfresh::{Cache, Error, Loader, Request};
    ///
    /// struct Sums;
    ///
    /// impl Loader<u64, u64> for Sums {
    ///     type Value = u64;
    ///     type Error = Error;
    ///
    ///     async fn load(&self, request: &Request<u64, u64>) -> Result<u64, Error> {
    ///         Ok(match *request.key() {
    ///             0 => 0,
    ///             n => n + *request.cache()?.get(&(n - 1)).await?,
    ///         })
    ///     }
    /// }
    ///
    /// # #[cfg(feature = "tokio")]
    /// # tokio::runtime::Runtime::new()?.block_on(async {
    /// let sums: Cache<u64, u64> = Cache::builder().loader(Sums).build()?;
    /// assert_eq!(*sums.get(&10).await?, 55);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn cache(&self) -> Result<Cache<K, V>, Error> {
        self.cache_with_hasher()
    }

    /// The cache for which this load runs, if its hasher is an `S`; as [`cache`](Self::cache).
    ///
    /// # Errors
    ///
    /// As [`cache`](Self::cache), and if the hasher has another type.
    pub fn cache_with_hasher<S>(&self) -> Result<Cache<K, V, S>, Error>
    where
        S: BuildHasher + Send + Sync + 'static,
    {
        let cache = self.state.cache.get().and_then(Weak::upgrade);
        match cache.ok_or_else(Error::cache_dropped)?.downcast() {
            Ok(core) => Ok(Cache(core)),
            Err(_) => Err(Error::other_hasher()),
        }
    }
}

/// A cache without the type of its hasher.
pub(super) fn without_hasher<K, V, S>(core: &Arc<Core<K, V, S>>) -> Weak<dyn Any + Send + Sync>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: Send + Sync + 'static,
{
    let weak: Weak<Core<K, V, S>> = Arc::downgrade(core);
    weak
}

impl<K, V, S> Clone for WeakCache<K, V, S> {
    fn clone(&self) -> Self {
        WeakCache(self.0.clone())
    }
}

impl<K, V, S> fmt::Debug for WeakCache<K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WeakCache").finish_non_exhaustive()
    }
}
