//! The types that users hold: threads and tasks share one core.

mod begin;
mod build;
pub mod builder;
pub mod cached;
mod call;
pub mod close;
mod finish;
pub mod fresh;
mod get;
mod groups;
mod keeper;
mod load_settings;
mod loaders;
mod loaders_many;
pub mod lookup;
mod many;
mod read;
pub mod read_fn;
pub mod reader;
#[cfg(feature = "metrics")]
mod record_metrics;
mod refresh;
mod renew;
pub mod terms;
pub mod weak;
mod write;

use std::fmt;
use std::hash::{BuildHasher, Hash};

use foldhash::quality::RandomState;

use crate::cache::cached::Cached;
use crate::cache::lookup::Lookup;
use crate::cache::read::Core;
use crate::cache::reader::{Pinned, Reader};
use crate::error::Error;
use crate::fleet::FleetStats;
use crate::observe::stats::Stats;
use crate::sync::Arc;

/// A cache that keeps computed values fresh without stampedes.
///
/// A cheap handle: clones share one cache, and it ends with the last of them, even while loads are
/// still running. Made by [`Cache::builder`](crate::Cache::builder).
///
/// Every method may be called from any thread or task at the same time. A read of a resident value
/// never waits, whether it is fresh, early or stale: it takes no lock, makes no system call,
/// allocates nothing, and writes no memory that reads of other cores write.
///
/// Methods that wait have two forms: a plain name for tasks, and one that ends in `_blocking` for
/// threads. Keys are looked up by any form of them that [`Lookup`] allows: `&str` for `String`,
/// `Arc<str>` and `Box<str>`, for example.
///
/// # Example
///
/// ```
/// use std::time::Duration;
/// use everfresh::Cache;
///
/// let squares: Cache<u64, u64> = Cache::builder()
///     .name("squares")
///     .capacity(1_000)
///     .fresh_for(Duration::from_secs(5))
///     .stale_for(Duration::from_secs(115))
///     .compute(|n: &u64| n * n)
///     .build()?;
/// assert_eq!(*squares.get_blocking(&12)?, 144);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Cache<K, V, S = RandomState>(Arc<Core<K, V, S>>);

impl<K, V, S> Cache<K, V, S>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher,
{
    pub(crate) fn new(core: Core<K, V, S>) -> Self
    where
        S: Send + Sync + 'static,
    {
        let core = Arc::new(core);
        // The cell is empty, because the cache is new.
        let _ = core.state.cache.set(weak::without_hasher(&core));
        Cache(core)
    }

    /// Reads a key from a task, loading it if it is missing.
    ///
    /// A fresh or stale value is there at the first poll. Concurrent callers of a missing key share
    /// one load, which runs on its own: a caller that stops waiting does not stop it. A caller that
    /// comes after an [`invalidate`](Self::invalidate) never gets a value whose load began before
    /// it.
    ///
    /// # Cost
    ///
    /// A hit: one hash, one look at two cache lines of the table, the entry, one reading of the
    /// clock.
    ///
    /// # Errors
    ///
    /// Only without a value that may be served: the loader failed or panicked, found no value, did
    /// not finish in time, or was dropped by its runtime; there was no room to queue it, or no
    /// runtime to run it; or this call is part of the load of the same key.
    ///
    /// # Panics
    ///
    /// Only if the key's `Hash`, `Eq` or `Clone` does; the cache stays usable.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the load running and every other caller waiting for it.
    ///
    /// # Example
    ///
    /// ```
    /// # use everfresh::Cache;
    /// # futures_lite::future::block_on(async {
    /// let lengths: Cache<String, usize> = Cache::builder()
    ///     .compute(|text: &String| text.len())
    ///     .build()?;
    /// assert_eq!(*lengths.get("hello").await?, 5);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    #[inline(always)]
    pub fn get<'a, Q>(&'a self, key: &'a Q) -> impl Future<Output = Result<Cached<K, V>, Error>>
    where
        Q: Lookup<K> + ?Sized,
    {
        self.0.get(key, self.0.hasher.hash_one(key))
    }

    /// Reads a key from a thread, loading it if it is missing.
    ///
    /// The same as [`get`](Self::get), for threads. Inside a load that runs on the pool it helps:
    /// the waiting worker itself runs the load it waits for, if that is still queued, so a pool of
    /// one thread is enough.
    ///
    /// # On the threads of a tokio runtime
    ///
    /// Not for tasks: on a miss it blocks the thread. A hit never waits. What a miss does there
    /// depends on the loader and on the runtime, if the feature `tokio` is on:
    ///
    /// | | a runtime with many threads | a runtime with one thread, a `LocalSet` on it |
    /// |---|---|---|
    /// | `compute` | blocks this thread | blocks this thread, and so the runtime |
    /// | `load` | blocks this thread; another one does its work meanwhile | an error at once |
    ///
    /// The error [`is_would_block`](Error::is_would_block): the load could not run while its thread
    /// waits. The load runs on without the caller. A thread for blocking work (`spawn_blocking`)
    /// may wait on every runtime. With a [`spawner`](crate::Builder::spawner) the cache cannot know
    /// on which thread a load runs; the wait then ends by the
    /// [`load_timeout`](crate::Builder::load_timeout).
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get), and the error above.
    ///
    /// # Panics
    ///
    /// As [`get`](Self::get).
    ///
    /// # Example
    ///
    /// ```
    /// # use everfresh::Cache;
    /// let lengths: Cache<String, usize> = Cache::builder()
    ///     .compute(|text: &String| text.len())
    ///     .build()?;
    /// assert_eq!(*lengths.get_blocking("hello")?, 5);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn get_blocking<Q>(&self, key: &Q) -> Result<Cached<K, V>, Error>
    where
        Q: Lookup<K> + ?Sized,
    {
        self.0.get_blocking(key, self.0.hasher.hash_one(key))
    }

    /// Reads a key if it has a value that may be served; never loads, refreshes or waits.
    ///
    /// A read like any other for the statistics and for eviction. `None` counts as a miss. To look
    /// without a trace use [`peek`](Self::peek).
    ///
    /// # Cost
    ///
    /// As a hit of [`get`](Self::get).
    ///
    /// # Panics
    ///
    /// Only if the key's `Hash` or `Eq` does; the cache stays usable.
    ///
    /// # Example
    ///
    /// ```
    /// # use everfresh::Cache;
    /// let lengths: Cache<String, usize> = Cache::builder()
    ///     .compute(|text: &String| text.len())
    ///     .build()?;
    /// assert!(lengths.get_if_present("hello").is_none());
    /// lengths.insert("hello".to_owned(), 5);
    /// assert_eq!(*lengths.get_if_present("hello").unwrap(), 5);
    /// assert_eq!((lengths.stats().misses, lengths.stats().fresh), (1, 1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn get_if_present<Q>(&self, key: &Q) -> Option<Cached<K, V>>
    where
        Q: Lookup<K> + ?Sized,
    {
        let core = &*self.0;
        let now = core.state.clock.now();
        let found = core.find(key, core.hasher.hash_one(key));
        // No closure returns the value: it is built in its place, which a copy would delay.
        if let Some((_, entry)) = found {
            if let Some(source) = core.take_present(&entry, now) {
                return Some(Cached::new(entry, now, source));
            }
        }
        core.state.counters.missed();
        None
    }

    /// Looks at a key if it has a value that may be served; changes nothing.
    ///
    /// Unlike [`get_if_present`](Self::get_if_present) it is not a read: the statistics do not
    /// count it, and eviction does not take it for a use of the value.
    ///
    /// # Panics
    ///
    /// As [`get_if_present`](Self::get_if_present).
    ///
    /// # Example
    ///
    /// ```
    /// # use everfresh::Cache;
    /// let cache: Cache<u64, u64> = Cache::builder().compute(|n: &u64| n * n).build()?;
    /// cache.insert(3, 10);
    /// assert_eq!(cache.peek(&3).as_deref(), Some(&10));
    /// assert_eq!(cache.stats().reads(), 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn peek<Q>(&self, key: &Q) -> Option<Cached<K, V>>
    where
        Q: Lookup<K> + ?Sized,
    {
        let core = &*self.0;
        let now = core.state.clock.now();
        let (_, entry) = core.find(key, core.hasher.hash_one(key))?;
        let condition = core.peek_state(&entry, now)?;
        Some(Cached::new(entry, now, condition.into()))
    }

    /// Whether a key has a value that may be served; changes nothing, like [`peek`](Self::peek).
    ///
    /// Under races the answer may be out of date when the caller gets it. To use the value, read
    /// it.
    ///
    /// # Panics
    ///
    /// As [`get_if_present`](Self::get_if_present).
    ///
    /// # Example
    ///
    /// ```
    /// # use everfresh::Cache;
    /// let cache: Cache<u64, u64> = Cache::builder().compute(|n: &u64| n * n).build()?;
    /// cache.insert(3, 9);
    /// assert!(cache.contains_key(&3));
    /// cache.invalidate_all();
    /// assert!(!cache.contains_key(&3) && cache.is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn contains_key<Q>(&self, key: &Q) -> bool
    where
        Q: Lookup<K> + ?Sized,
    {
        let found = self.0.find(key, self.0.hasher.hash_one(key));
        let now = self.0.state.clock.now();
        found.is_some_and(|(_, entry)| self.0.entries.is_servable(&entry, now))
    }

    /// A reader for one thread or task that reads many keys all the time.
    ///
    /// # Cost
    ///
    /// It allocates some hundred kilobytes.
    pub fn reader(&self) -> Reader<K, V, S> {
        Reader::new(self.0.clone())
    }

    /// A handle to one key, for a thread or task that reads it all the time. Its first read loads
    /// the key, if it is missing.
    pub fn pin(&self, key: K) -> Pinned<K, V, S> {
        Pinned::new(self.0.clone(), key)
    }

    /// The statistics of the second level; `None` without one.
    pub fn store_stats(&self) -> Option<FleetStats> {
        self.0.fleet.as_ref().map(|fleet| fleet.stats())
    }
}

impl<K, V, S> Cache<K, V, S> {
    /// The name given to the builder, for metrics and threads. Default: "everfresh".
    pub fn name(&self) -> &str {
        &self.0.state.name
    }

    /// The number of resident values, at most the capacity. An expired value counts until a load
    /// replaces it, or an eviction or [`sweep`](Self::sweep) removes it.
    pub fn len(&self) -> usize {
        self.0.entries.limit.entries()
    }

    /// Whether no value is resident.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The weight of all resident values, by the cache's weigher; 0 without one.
    pub fn weight(&self) -> u64 {
        self.0.entries.limit.weight()
    }

    /// Removes every value past its hard limit; returns their number.
    ///
    /// Expired values are never served, and are the first to make room for others. A cache needs
    /// this only to become smaller when its keys are no longer used.
    ///
    /// # Cost
    ///
    /// One look at every way of the table.
    pub fn sweep(&self) -> usize {
        self.0.entries.sweep(self.0.state.clock.now())
    }

    /// The statistics of the reads and loads so far.
    ///
    /// # Cost
    ///
    /// A walk over one block of counters for each thread that ever read.
    ///
    /// # Example
    ///
    /// ```
    /// # use everfresh::Cache;
    /// let cache: Cache<u64, u64> = Cache::builder().compute(|n: &u64| n * n).build()?;
    /// cache.get_blocking(&3)?;
    /// cache.get_blocking(&3)?;
    /// let stats = cache.stats();
    /// assert_eq!((stats.misses, stats.fresh, stats.hit_ratio()), (1, 1, 0.5));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn stats(&self) -> Stats {
        self.0.state.stats()
    }

    /// Starts the statistics from zero.
    pub fn reset_stats(&self) {
        self.0.state.counters.reset();
    }

    /// Hands all numbers of the cache and its store to the recorder of the `metrics` facade.
    ///
    /// Call it before the recorder is read (in the handler of `/metrics`), or every few seconds;
    /// hits pay nothing. Only the times that loads and the store's answers take are recorded when
    /// they happen. Counters start when the cache is built, and never fall:
    /// [`reset_stats`](Self::reset_stats) does not affect them. Each metric has the label `cache`,
    /// so give caches different [names](crate::Builder::name). All metrics, and the ones to watch:
    /// [`docs::watching`](crate::docs::watching).
    ///
    /// Without a recorder it does nothing; one that is installed later is used from then on.
    ///
    /// # Cost
    ///
    /// That of [`stats`](Self::stats), and a look-up in the recorder for each of about twenty
    /// numbers, or seventy with a store.
    ///
    /// # Example
    ///
    /// ```
    /// # use everfresh::Cache;
    /// let cache: Cache<u64, u64> = Cache::builder()
    ///     .name("squares")
    ///     .compute(|n: &u64| n * n)
    ///     .build()?;
    /// let metrics = move || {
    ///     cache.record_metrics();
    ///     // and then return the text of the recorder
    /// };
    /// # metrics();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[cfg(feature = "metrics")]
    pub fn record_metrics(&self)
    where
        K: Clone,
    {
        self.0.record_metrics();
    }
}

impl<K, V, S> Clone for Cache<K, V, S> {
    fn clone(&self) -> Self {
        Cache(self.0.clone())
    }
}

impl<K, V, S> fmt::Debug for Cache<K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache")
            .field("name", &self.name())
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}
