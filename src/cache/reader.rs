//! Readers and pins: reads for threads that read a lot.

use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::ops::Deref;
use std::time::Duration;

use foldhash::quality::RandomState;

use crate::cache::cached::{Cached, Freshness, Source, Stamp, fresh_remaining};
use crate::cache::lookup::Lookup;
use crate::cache::read::Core;
use crate::error::Error;
use crate::protocol::cached_slot::CachedSlot;
use crate::protocol::entry::Entry;
use crate::protocol::table::Place;
use crate::sync::Arc;
use crate::time::clock::Tick;

/// Cells of a reader. With their slots they fit a core's second-level cache.
const CELLS: usize = 4_096;

/// Reads of one thread or task, with a small memory of where its hot keys live: made by
/// [`Cache::reader`](crate::Cache::reader).
///
/// A read of a remembered key compares the remembered entry with the table, without the guard that
/// other reads take. It sees what [`Cache::get`](crate::Cache::get) would see: no value that was
/// invalidated, overwritten or past its hard limit before the read.
///
/// # Cost
///
/// It holds the values of up to 4 096 keys, beyond the limits of the cache. It releases a value
/// when another key takes its place, or when the reader is dropped. For large values use
/// `Cache::get`. Its hits are counted 64 at a time, and the rest when it is dropped.
///
/// # Example
///
/// ```
/// # use everfresh::Cache;
/// let squares: Cache<u64, u64> = Cache::builder().compute(|n: &u64| n * n).build()?;
/// let mut reader = squares.reader();
/// assert_eq!(*reader.get_blocking(&12)?, 144);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Reader<K, V, S = RandomState> {
    core: Arc<Core<K, V, S>>,
    cells: Box<[Cell<K, V>]>,
    hits: u64,
    /// The value of the last read that no cell holds.
    last: Option<Cached<K, V>>,
}

struct Cell<K, V> {
    hash: u64,
    /// A key is remembered only when it comes twice in a row, so that a key that is read once costs
    /// no replacement.
    candidate: u64,
    cached_slot: Option<CachedSlot<K, V>>,
}

/// A value read in place by a [`Reader`] or a [`Pinned`], until its next read.
///
/// It derefs to the value. To keep the value longer, clone it, or read with
/// [`Cache::get`](crate::Cache::get).
pub struct ValueRef<'a, K, V> {
    entry: &'a Entry<K, V>,
    stamp: Stamp,
}

impl<K, V, S> Reader<K, V, S>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher,
{
    pub(crate) fn new(core: Arc<Core<K, V, S>>) -> Self {
        let empty = || Cell {
            hash: 0,
            candidate: 0,
            cached_slot: None,
        };
        Reader {
            core,
            cells: std::iter::repeat_with(empty).take(CELLS).collect(),
            hits: 0,
            last: None,
        }
    }

    /// Reads a key from a task, loading it if it is missing; the same as
    /// [`Cache::get`](crate::Cache::get).
    ///
    /// # Errors
    ///
    /// As [`Cache::get`](crate::Cache::get).
    ///
    /// # Panics
    ///
    /// As [`Cache::get`](crate::Cache::get).
    ///
    /// # Cancel safety
    ///
    /// As [`Cache::get`](crate::Cache::get).
    ///
    /// # Example
    ///
    /// ```
    /// # use everfresh::Cache;
    /// # futures_lite::future::block_on(async {
    /// let squares: Cache<u64, u64> = Cache::builder().compute(|n: &u64| n * n).build()?;
    /// let mut reader = squares.reader();
    /// assert_eq!(*reader.get(&12).await?, 144);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    #[inline]
    pub async fn get<Q>(&mut self, key: &Q) -> Result<ValueRef<'_, K, V>, Error>
    where
        Q: Lookup<K> + ?Sized,
    {
        let hash = self.core.hasher.hash_one(key);
        let now = self.core.state.clock.now();
        match self.look(key, hash, now) {
            Some(source) => Ok(ValueRef::cached_slot(self.slot(hash), now, source)),
            None => {
                // First, so that the old value's guard is free for this read.
                self.last = None;
                let cached = self.core.get(key, hash).await?;
                Ok(self.keep(key, hash, cached))
            }
        }
    }

    /// Reads a key from a thread, loading it if it is missing; the same as
    /// [`Cache::get_blocking`](crate::Cache::get_blocking).
    ///
    /// # Errors
    ///
    /// As [`Cache::get`](crate::Cache::get).
    ///
    /// # Panics
    ///
    /// As [`Cache::get`](crate::Cache::get).
    #[inline]
    pub fn get_blocking<Q>(&mut self, key: &Q) -> Result<ValueRef<'_, K, V>, Error>
    where
        Q: Lookup<K> + ?Sized,
    {
        let hash = self.core.hasher.hash_one(key);
        let now = self.core.state.clock.now();
        match self.look(key, hash, now) {
            Some(source) => Ok(ValueRef::cached_slot(self.slot(hash), now, source)),
            None => self.read_blocking(key, hash),
        }
    }

    /// Reads by what the key's cell remembers; `None` if it remembers another key, or if something
    /// has to be done first.
    #[inline(always)]
    fn look<Q>(&mut self, key: &Q, hash: u64, now: Tick) -> Option<Source>
    where
        Q: Lookup<K> + ?Sized,
    {
        let cell = &mut self.cells[cell_of(hash)];
        let cached_slot = cell.cached_slot.as_mut().filter(|_| cell.hash == hash)?;
        let entry = cached_slot.look(&self.core.entries, |other| key.is_key(other))?;
        let count = || self.core.state.counters.hit_in_batch(&mut self.hits);
        self.core.take(entry, entry.early_from(), now, count)
    }

    #[inline(always)]
    fn slot(&self, hash: u64) -> Option<&CachedSlot<K, V>> {
        self.cells[cell_of(hash)].cached_slot.as_ref()
    }

    /// Reads by the table, out of line.
    #[inline(never)]
    fn read_blocking<Q>(&mut self, key: &Q, hash: u64) -> Result<ValueRef<'_, K, V>, Error>
    where
        Q: Lookup<K> + ?Sized,
    {
        // First, so that the old value's guard is free for this read.
        self.last = None;
        let cached = self.core.get_blocking(key, hash)?;
        Ok(self.keep(key, hash, cached))
    }

    /// Holds a value until the next read, and remembers where its key lives.
    fn keep<Q>(&mut self, key: &Q, hash: u64, cached: Cached<K, V>) -> ValueRef<'_, K, V>
    where
        Q: Lookup<K> + ?Sized,
    {
        let cell = &mut self.cells[cell_of(hash)];
        let known = cell.hash == hash;
        if known || std::mem::replace(&mut cell.candidate, hash) == hash {
            let place = place(&self.core, key, hash);
            // A slot stays as long as its key lives there, whatever happened to the value.
            if !known || place != cell.cached_slot.as_ref().map(CachedSlot::place) {
                cell.cached_slot = place.map(|place| CachedSlot::new(place));
                cell.hash = hash;
            }
        }
        ValueRef::of(self.last.insert(cached))
    }
}

#[inline(always)]
fn cell_of(hash: u64) -> usize {
    hash as usize % CELLS
}

/// Where a key lives now.
fn place<K, V, S, Q>(core: &Core<K, V, S>, key: &Q, hash: u64) -> Option<Place>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher,
    Q: Lookup<K> + ?Sized,
{
    core.find(key, hash).map(|(place, _)| place)
}

impl<K, V, S> Drop for Reader<K, V, S> {
    fn drop(&mut self) {
        self.core.state.counters.fresh(self.hits);
    }
}

/// One key, held by one thread or task: made by [`Cache::pin`](crate::Cache::pin).
///
/// The cheapest read of a key that is used all the time, such as a configuration. It sees what
/// [`Cache::get`](crate::Cache::get) would see. After the key was invalidated or evicted, the next
/// read loads it again. It holds the value of its last read until the next one.
///
/// # Example
///
/// ```
/// # use everfresh::Cache;
/// let squares: Cache<u64, u64> = Cache::builder().compute(|n: &u64| n * n).build()?;
/// let mut twelve = squares.pin(12);
/// assert_eq!(*twelve.get_blocking()?, 144);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Pinned<K, V, S = RandomState> {
    core: Arc<Core<K, V, S>>,
    key: K,
    hash: u64,
    cached_slot: Option<CachedSlot<K, V>>,
    hits: u64,
    last: Option<Cached<K, V>>,
}

impl<K, V, S> Pinned<K, V, S>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher,
{
    pub(crate) fn new(core: Arc<Core<K, V, S>>, key: K) -> Self {
        Pinned {
            hash: core.hasher.hash_one(&key),
            core,
            key,
            cached_slot: None,
            hits: 0,
            last: None,
        }
    }

    /// The key.
    pub fn key(&self) -> &K {
        &self.key
    }

    /// Reads the key from a task; the same as [`Cache::get`](crate::Cache::get).
    ///
    /// # Errors
    ///
    /// As [`Cache::get`](crate::Cache::get).
    ///
    /// # Panics
    ///
    /// As [`Cache::get`](crate::Cache::get).
    ///
    /// # Cancel safety
    ///
    /// As [`Cache::get`](crate::Cache::get).
    #[inline]
    pub async fn get(&mut self) -> Result<ValueRef<'_, K, V>, Error> {
        let now = self.core.state.clock.now();
        if let Some(source) = self.look(now) {
            return Ok(ValueRef::cached_slot(
                self.cached_slot.as_ref(),
                now,
                source,
            ));
        }
        let cached = self.core.get(&self.key, self.hash).await?;
        Ok(self.keep(cached))
    }

    /// Reads the key from a thread; the same as
    /// [`Cache::get_blocking`](crate::Cache::get_blocking).
    ///
    /// # Errors
    ///
    /// As [`Cache::get`](crate::Cache::get).
    ///
    /// # Panics
    ///
    /// As [`Cache::get`](crate::Cache::get).
    #[inline(always)]
    pub fn get_blocking(&mut self) -> Result<ValueRef<'_, K, V>, Error> {
        let now = self.core.state.clock.now();
        if let Some(source) = self.look(now) {
            return Ok(ValueRef::cached_slot(
                self.cached_slot.as_ref(),
                now,
                source,
            ));
        }
        self.read_blocking()
    }

    /// Reads by the table, out of line.
    #[inline(never)]
    fn read_blocking(&mut self) -> Result<ValueRef<'_, K, V>, Error> {
        let cached = self.core.get_blocking(&self.key, self.hash)?;
        Ok(self.keep(cached))
    }

    #[inline(always)]
    fn look(&mut self, now: Tick) -> Option<Source> {
        let cached_slot = self.cached_slot.as_mut()?;
        let entry = cached_slot.look(&self.core.entries, |other| *other == self.key)?;
        let count = || self.core.state.counters.hit_in_batch(&mut self.hits);
        self.core.take(entry, entry.early_from(), now, count)
    }

    fn keep(&mut self, cached: Cached<K, V>) -> ValueRef<'_, K, V> {
        let place = place(&self.core, &self.key, self.hash);
        if place != self.cached_slot.as_ref().map(CachedSlot::place) {
            self.cached_slot = place.map(|place| CachedSlot::new(place));
        }
        ValueRef::of(self.last.insert(cached))
    }
}

impl<K, V, S> Drop for Pinned<K, V, S> {
    fn drop(&mut self) {
        self.core.state.counters.fresh(self.hits);
    }
}

impl<'a, K, V> ValueRef<'a, K, V> {
    /// The value that a slot just saw.
    #[inline]
    fn cached_slot(cached_slot: Option<&'a CachedSlot<K, V>>, now: Tick, source: Source) -> Self {
        match cached_slot.and_then(CachedSlot::seen) {
            Some(entry) => ValueRef {
                entry,
                stamp: Stamp::new(now, source),
            },
            None => unreachable!("a slot that saw a value holds it"),
        }
    }

    fn of(cached: &'a Cached<K, V>) -> Self {
        let (entry, stamp) = cached.parts();
        ValueRef { entry, stamp }
    }

    /// The key, as it was when the value was loaded or inserted.
    pub fn key(&self) -> &'a K {
        &self.entry.key
    }

    /// Whether the value was fresh when it was read.
    pub fn freshness(&self) -> Freshness {
        Freshness::of(&self.entry.times(), self.stamp.read_at())
    }

    /// How much longer the value stays fresh, counted from the read; zero for a stale value.
    pub fn fresh_remaining(&self) -> Duration {
        fresh_remaining(&self.entry.times(), self.stamp.read_at())
    }

    /// The age of the value when it was read, counted from the end of its load.
    pub fn age(&self) -> Duration {
        self.entry.times().age(self.stamp.read_at())
    }

    /// The time that a load of the value takes; as [`Cached::cost`].
    pub fn cost(&self) -> Duration {
        Duration::from_nanos(self.entry.times().cost())
    }

    /// The way by which the read got the value.
    pub fn source(&self) -> Source {
        self.stamp.source()
    }
}

impl<K, V> Deref for ValueRef<'_, K, V> {
    type Target = V;

    #[inline]
    fn deref(&self) -> &V {
        match self.entry.value() {
            Some(value) => value,
            None => unreachable!("a ValueRef is only made from an entry with a value"),
        }
    }
}

impl<K, V: fmt::Debug> fmt::Debug for ValueRef<'_, K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ValueRef")
            .field("value", &**self)
            .field("freshness", &self.freshness())
            .field("source", &self.source())
            .finish()
    }
}

impl<K, V, S> fmt::Debug for Reader<K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("cache", &self.core.state.name)
            .finish_non_exhaustive()
    }
}

impl<K: fmt::Debug, V, S> fmt::Debug for Pinned<K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pinned")
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}
