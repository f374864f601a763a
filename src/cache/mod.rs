//! The faces of the cache: threads and tasks share one core.

mod build;
pub mod builder;
pub mod cached;
mod everywhere;
pub mod fresh;
mod loaders;
mod read;
pub mod reader;
#[cfg(feature = "metrics")]
mod record_metrics;

use std::borrow::Borrow;
use std::fmt;
use std::hash::{BuildHasher, Hash};

use foldhash::quality::RandomState;

use crate::cache::cached::{Cached, Source};
use crate::cache::read::{Core, Missed, Unserved};
use crate::cache::reader::{Pinned, Reader};
use crate::error::Error;
use crate::fleet::PendingWrite;
use crate::load::loader::Loaded;
use crate::observe::stats::Stats;
use crate::protocol::entries::Claimed;
use crate::protocol::entry::{Entry, EvictionState};
use crate::protocol::fifo::generation;
use crate::rng::with_rng;
use crate::sync::Arc;

/// A cache that keeps computed values fresh without stampedes.
///
/// A cheap handle: clones share one cache, and it ends with the last of them, whether or not loads are still
/// running. Made by [`Cache::builder`](crate::Cache::builder).
///
/// Every method may be called from any thread or task at the same time. A read of a resident value
/// never waits, whether it is fresh, early or stale: it takes no lock, makes no system call, allocates nothing and writes no memory that other cores'
/// reads write.
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
    pub(crate) fn new(core: Core<K, V, S>) -> Self {
        Cache(Arc::new(core))
    }

    /// Reads a key from a task, loading it if it is absent.
    ///
    /// A fresh or stale value is there at the first poll. Concurrent callers of an absent key share one load, which
    /// runs on its own: a caller that stops waiting does not stop it. A caller that comes after an
    /// [`invalidate`](Self::invalidate) never gets a value whose load began before it.
    ///
    /// # Cost
    ///
    /// A hit: one hash, one look at two cache lines of the table, the entry, one reading of the clock.
    ///
    /// # Errors
    ///
    /// Only without a value that may be served: the loader failed or panicked, did not finish in time, was dropped by its
    /// runtime, there was no room to queue it, or this call is part of the load of the same key.
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
    #[inline]
    pub async fn get<Q>(&self, key: &Q) -> Result<Cached<K, V>, Error>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        let hash = self.0.hasher.hash_one(key);
        let miss = |missed| self.0.classify(missed).map(Cached::from);
        match self.0.lookup(key, hash, Ok, miss) {
            Ok(cached) => Ok(cached),
            Err(looked) => {
                let kept = self.0.finish_boxed(key, hash, looked).await;
                kept.map(Cached::from)
            }
        }
    }

    /// Reads a key from a thread, loading it if it is absent.
    ///
    /// The same as [`get`](Self::get), for threads. In a load that runs on the pool it helps: a load that
    /// is still queued is run by the waiting worker itself, so a pool of one is enough. Not for
    /// tasks: on a miss it blocks the runtime's thread.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
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
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        let hash = self.0.hasher.hash_one(key);
        let miss = |missed| self.0.finish_blocking(key, hash, missed).map(Cached::from);
        self.0.lookup(key, hash, Ok, miss)
    }

    /// Reads a key if it has a value that may be served; never loads, refreshes or waits.
    ///
    /// Counted, and seen by eviction, like any other read.
    ///
    /// # Example
    ///
    /// ```
    /// # use everfresh::Cache;
    /// let lengths: Cache<String, usize> = Cache::builder()
    ///     .compute(|text: &String| text.len())
    ///     .build()?;
    /// assert!(lengths.peek("hello").is_none());
    /// lengths.insert("hello".to_owned(), 5);
    /// assert_eq!(*lengths.peek("hello").unwrap(), 5);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn peek<Q>(&self, key: &Q) -> Option<Cached<K, V>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let core = &*self.0;
        let now = core.state.clock.now();
        let found = core.find(key, core.hasher.hash_one(key));
        let served = found.and_then(|(_, entry)| {
            let source = match now < entry.times.early_from() {
                true => {
                    core.state.counters.fresh(1);
                    Source::Fresh
                }
                false => core.peek_state(&entry, now)?.into(),
            };
            entry.touch();
            Some(Cached::new(entry, now, source))
        });
        if served.is_none() {
            core.state.counters.missed();
        }
        served
    }

    /// Puts a value in, with the cache's times, over whatever is there.
    ///
    /// It wins against every load and refresh that began before it: their results are discarded. Callers that were already
    /// waiting for one still get its result. The value counts as free to recompute until it was refreshed once.
    ///
    /// A store is flushed in the background, again and again until it knows; [`insert_everywhere`](Self::insert_everywhere) waits for
    /// that.
    ///
    /// # Example
    ///
    /// ```
    /// # use everfresh::Cache;
    /// let cache: Cache<u64, u64> = Cache::builder().compute(|n: &u64| n * n).build()?;
    /// cache.insert(3, 10);
    /// assert_eq!(*cache.get_blocking(&3)?, 10);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn insert(&self, key: K, value: impl Into<Loaded<V>>) {
        self.put(key, value.into());
    }

    fn put(&self, key: K, mut loaded: Loaded<V>) -> Option<PendingWrite<K, V>> {
        let core = &*self.0;
        let hash = core.hasher.hash_one(&key);
        let now = core.state.clock.now();
        let Some(value) = loaded.value.take() else {
            return self.remove(&key).1;
        };
        let policy = &core.state.policy;
        let eviction_state = EvictionState {
            uses: 0,
            promoted: false,
            generation: generation(hash, now),
            weight: core.state.weigh(&key, &value),
        };
        let times = with_rng(|rng| policy.times(&loaded, now, None, None, rng));
        let mut entry = Arc::new(Entry::ready(key, value, times, eviction_state));
        // Before the table: see `fleet::enqueue`.
        let set = core.entries.table.set_of(hash);
        let flushed = (core.fleet.as_ref()).and_then(|fleet| fleet.set(&entry, set));
        core.entries.insert(hash, &mut entry, now);
        // After the table: see `absent`.
        core.state.negative.forget(&entry.key);
        flushed
    }

    /// Removes a key; returns whether it had a value.
    ///
    /// It wins against every load and refresh that began before it: their results are discarded, whether the key was
    /// resident or absent. Callers that were already waiting get the old answer, callers that come later start a new load.
    ///
    /// A store is flushed in the background, as by [`insert`](Self::insert); [`invalidate_everywhere`](Self::invalidate_everywhere) waits
    /// for that.
    ///
    /// # Example
    ///
    /// ```
    /// # use everfresh::Cache;
    /// let cache: Cache<u64, u64> = Cache::builder().compute(|n: &u64| n * n).build()?;
    /// cache.insert(3, 10);
    /// assert!(cache.invalidate(&3));
    /// assert_eq!(*cache.get_blocking(&3)?, 9);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn invalidate<Q>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        self.remove(key).0
    }

    fn remove<Q>(&self, key: &Q) -> (bool, Option<PendingWrite<K, V>>)
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        let core = &*self.0;
        let hash = core.hasher.hash_one(key);
        // Before the table: see `fleet::enqueue`.
        let set = core.entries.table.set_of(hash);
        let flushed =
            (core.fleet.as_ref()).and_then(|fleet| fleet.invalidate(&key.to_owned(), set));
        let had_a_value = core.entries.invalidate(hash, |other| other.borrow() == key);
        // After the table: see `absent`.
        core.state.negative.forget(key);
        (had_a_value, flushed)
    }

    /// Removes every key; for each of them the same as [`invalidate`](Self::invalidate).
    ///
    /// Not one moment for all: a key that is inserted meanwhile may stay or be removed, also when the
    /// call has removed it once before. Cost: one look at every set. With a store, every key that this
    /// process knows is removed there too, in the background; for all others take a new namespace.
    pub fn invalidate_all(&self) {
        if let Some(fleet) = &self.0.fleet {
            fleet.invalidate_all();
        }
        self.0.entries.invalidate_all();
        self.0.state.negative.forget_all();
    }

    /// Replaces the value of a key now and returns the new one; loads an absent key.
    ///
    /// Joins the refresh that is running, if one is. Other callers keep reading the old value
    /// meanwhile. A failure is returned, and the old value stays. It starts at once, also when the
    /// last refresh failed and rests.
    ///
    /// A refresh that it joins may have begun before this call, and may have read the origin before
    /// a write that this caller has just made there. After a write use
    /// [`invalidate`](Self::invalidate), which no load from before it outlives.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get), also when there is an old value.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the refresh running.
    ///
    /// # Example
    ///
    /// ```
    /// # use everfresh::Cache;
    /// # futures_lite::future::block_on(async {
    /// let cache: Cache<u64, u64> = Cache::builder().compute(|n: &u64| n * n).build()?;
    /// cache.insert(3, 10);
    /// assert_eq!(*cache.refresh(&3).await?, 9);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    pub async fn refresh<Q>(&self, key: &Q) -> Result<Cached<K, V>, Error>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        let core = &*self.0;
        let hash = core.hasher.hash_one(key);
        loop {
            let now = core.state.clock.now();
            let looked = match core.find(key, hash) {
                // An expired value too: its refresh need not wait for the rest after a failure either.
                Some((place, entry)) if !entry.is_loading() => {
                    match core.entries.claim_now(place, &entry, now) {
                        Claimed::Ours(claim) => core.lead(claim, None),
                        Claimed::Theirs(flight) => Unserved::Wait(flight, None, Source::Coalesced),
                        Claimed::Changed => continue,
                    }
                }
                found @ Some(_) => match core.classify(Missed { found, now }) {
                    Ok(_) => continue,
                    Err(looked) => looked,
                },
                None => {
                    // Asked for by name, so what is remembered of it does not count.
                    core.state.negative.forget(key);
                    Unserved::Missing
                }
            };
            return core.load_or_wait(key, hash, looked).await.map(Cached::from);
        }
    }

    /// A reader for one thread that reads a lot. It holds some hundred kilobytes of memory.
    pub fn reader(&self) -> Reader<K, V, S> {
        Reader::new(self.0.clone())
    }

    /// A handle to one key, for a thread or task that reads it all the time. Nothing is loaded before its first read.
    pub fn pin(&self, key: K) -> Pinned<K, V, S> {
        Pinned::new(self.0.clone(), key)
    }

    /// Whether a key has a value that may be served. Not counted as a read, not even by eviction.
    ///
    /// # Example
    ///
    /// ```
    /// # use everfresh::Cache;
    /// let cache: Cache<u64, u64> = Cache::builder().compute(|n: &u64| n * n).build()?;
    /// cache.insert(3, 9);
    /// assert!(cache.contains(&3));
    /// cache.invalidate_all();
    /// assert!(!cache.contains(&3) && cache.is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn contains<Q>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let found = self.0.find(key, self.0.hasher.hash_one(key));
        found.is_some_and(|(_, entry)| entry.is_servable(self.0.state.clock.now()))
    }
}

impl<K, V, S> Cache<K, V, S> {
    /// How many values are resident, expired ones that nobody has touched since included; never more than the capacity.
    pub fn len(&self) -> usize {
        self.0.entries.limit.entries()
    }

    /// The weight of all resident values, by the cache's weigher; 0 without one.
    pub fn weight(&self) -> u64 {
        self.0.entries.limit.weight()
    }

    /// Removes every value past its hard limit; returns how many.
    ///
    /// Expired values are never served, and make room for others first, so only a cache whose keys are no longer
    /// used needs this to shrink. Cost: one look at every way of the table.
    pub fn sweep(&self) -> usize {
        self.0.entries.sweep(self.0.state.clock.now())
    }

    /// Whether no value is resident.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What the cache has done so far.
    ///
    /// Cost: a walk over one block of counters for each thread that ever read.
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
        self.0.state.counters.snapshot()
    }

    /// Starts the statistics from zero.
    pub fn reset_stats(&self) {
        self.0.state.counters.reset();
    }

    /// Hands everything the cache and its store have counted to the recorder of the `metrics` facade.
    ///
    /// Call it when somebody is about to read the recorder (in the handler of `/metrics`), or every few seconds; hits pay nothing. Only how
    /// long loads and the store's answers take is recorded as it happens. Counters start when the cache is built, and never
    /// fall: [`reset_stats`](Self::reset_stats) does not reach them. Each metric has the label `cache`, so give caches different
    /// [names](crate::Builder::name). All metrics, and what to watch: [`docs::watching`](crate::docs::watching).
    ///
    /// Without a recorder it does nothing; one that is installed later is used from then on. Cost: [`stats`](Self::stats), and a look-up
    /// in the recorder for each of about twenty numbers, or seventy with a store.
    ///
    /// # Example
    ///
    /// ```
    /// # use everfresh::Cache;
    /// let cache: Cache<u64, u64> = Cache::builder().name("squares").compute(|n: &u64| n * n).build()?;
    /// let metrics = move || {
    ///     cache.record_metrics();
    ///     // and then what the recorder prints
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

    /// The name it was given.
    pub fn name(&self) -> &str {
        &self.0.state.name
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
