//! Readers and pins: reads for threads that read a lot.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::ops::Deref;
use std::time::Duration;

use foldhash::quality::RandomState;

use crate::cache::cached::{Cached, Freshness, Source, Stamp};
use crate::cache::read::Core;
use crate::error::Error;
use crate::protocol::cached_slot::CachedSlot;
use crate::protocol::entry::Entry;
use crate::sync::{Arc, Held};
use crate::time::clock::Tick;

/// Cells of a reader. With its watches it fits a core's second-level cache.
const CELLS: usize = 4_096;

/// Reads of one thread, with a small memory of where its hot keys live: made by [`Cache::reader`](crate::Cache::reader).
///
/// A read of a remembered key compares what it remembers with the table, and takes no guard. It sees what
/// [`Cache::get`](crate::Cache::get) would see: nothing that was invalidated, overwritten or past its hard limit before the read.
/// It holds the values of up to 4 096 keys, beyond the limits of the cache: a value is released when
/// another key takes its place, or when the reader is dropped. For large values use `Cache::get`. Its
/// hits are counted 64 at a time, and the rest when it is dropped.
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
    /// A key has to come twice in a row to be remembered, so that one-time keys cost no replacement.
    candidate: u64,
    cached_slot: Option<CachedSlot<K, V>>,
}

/// A value read in place by a [`Reader`] or a [`Pinned`], until its next read.
///
/// Derefs to the value. To keep it longer, clone the value, or read with [`Cache::get`](crate::Cache::get).
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

    /// Reads a key, loading it if it is absent; the same as [`Cache::get_blocking`](crate::Cache::get_blocking).
    ///
    /// # Errors
    ///
    /// As [`Cache::get`](crate::Cache::get).
    #[inline]
    pub fn get_blocking<Q>(&mut self, key: &Q) -> Result<ValueRef<'_, K, V>, Error>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        let hash = self.core.hasher.hash_one(key);
        let now = self.core.state.clock.now();
        let at = hash as usize % CELLS;
        let cell = &mut self.cells[at];
        let cached_slot = cell.cached_slot.as_mut().filter(|_| cell.hash == hash);
        let source = cached_slot.and_then(|cached_slot| {
            let entry = cached_slot.look(&self.core.entries, |other| other.borrow() == key)?;
            let count = || self.core.state.counters.hit_in_batch(&mut self.hits);
            self.core.take(entry, now, count)
        });
        match source {
            Some(source) => Ok(ValueRef::cached_slot(
                self.cells[at].cached_slot.as_ref(),
                now,
                source,
            )),
            None => self.read(key, hash, at),
        }
    }

    /// Reads by the table, and remembers where.
    #[inline(never)]
    fn read<Q>(&mut self, key: &Q, hash: u64, at: usize) -> Result<ValueRef<'_, K, V>, Error>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        // First, so that the old value's guard is free for this read.
        self.last = None;
        let miss = |missed| {
            self.core
                .finish_blocking(key, hash, missed)
                .map(Cached::from)
        };
        let cached = self.core.lookup(key, hash, Ok, miss)?;
        let cell = &mut self.cells[at];
        let known = cell.hash == hash;
        if known || std::mem::replace(&mut cell.candidate, hash) == hash {
            let found = self.core.find(key, hash);
            let place = found.map(|(place, _): (_, Held<Entry<K, V>>)| place);
            // A watch stays as long as its key lives where it did, whatever became of the value.
            if !known || place != cell.cached_slot.as_ref().map(CachedSlot::place) {
                cell.cached_slot = place.map(|place| CachedSlot::new(&self.core.entries, place));
                cell.hash = hash;
            }
        }
        Ok(ValueRef::of(self.last.insert(cached)))
    }
}

impl<K, V, S> Drop for Reader<K, V, S> {
    fn drop(&mut self) {
        self.core.state.counters.fresh(self.hits);
    }
}

/// One key, held by one thread or task: made by [`Cache::pin`](crate::Cache::pin).
///
/// The cheapest read of a key that is used all the time, such as a configuration. It stays right when the
/// key is invalidated, evicted or overwritten, and loads it again when it is read.
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

    /// Reads the key from a thread; the same as [`Cache::get_blocking`](crate::Cache::get_blocking).
    ///
    /// # Errors
    ///
    /// As [`Cache::get`](crate::Cache::get).
    #[inline]
    pub fn get_blocking(&mut self) -> Result<ValueRef<'_, K, V>, Error> {
        let now = self.core.state.clock.now();
        if let Some(source) = self.look(now) {
            return Ok(ValueRef::cached_slot(
                self.cached_slot.as_ref(),
                now,
                source,
            ));
        }
        let miss = |missed| {
            self.core
                .finish_blocking(&self.key, self.hash, missed)
                .map(Cached::from)
        };
        let cached = self.core.lookup(&self.key, self.hash, Ok, miss)?;
        Ok(self.keep(cached))
    }

    /// Reads the key from a task; the same as [`Cache::get`](crate::Cache::get).
    ///
    /// # Errors
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
        let miss = |missed| self.core.classify(missed).map(Cached::from);
        let cached = match self.core.lookup(&self.key, self.hash, Ok, miss) {
            Ok(cached) => cached,
            Err(looked) => (self.core)
                .finish_boxed(&self.key, self.hash, looked)
                .await?
                .into(),
        };
        Ok(self.keep(cached))
    }

    #[inline]
    fn look(&mut self, now: Tick) -> Option<Source> {
        let cached_slot = self.cached_slot.as_mut()?;
        let entry = cached_slot.look(&self.core.entries, |other| *other == self.key)?;
        let count = || self.core.state.counters.hit_in_batch(&mut self.hits);
        self.core.take(entry, now, count)
    }

    fn keep(&mut self, cached: Cached<K, V>) -> ValueRef<'_, K, V> {
        let found = self.core.find(&self.key, self.hash);
        let place = found.map(|(place, _): (_, Held<Entry<K, V>>)| place);
        if place != self.cached_slot.as_ref().map(CachedSlot::place) {
            self.cached_slot = place.map(|place| CachedSlot::new(&self.core.entries, place));
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
    /// The value that a watch just saw.
    #[inline]
    fn cached_slot(cached_slot: Option<&'a CachedSlot<K, V>>, now: Tick, source: Source) -> Self {
        match cached_slot.and_then(CachedSlot::seen) {
            Some(entry) => ValueRef {
                entry,
                stamp: Stamp::new(now, source),
            },
            None => unreachable!("a watch that saw a value holds it"),
        }
    }

    fn of(cached: &'a Cached<K, V>) -> Self {
        let (entry, stamp) = cached.parts();
        ValueRef { entry, stamp }
    }

    /// Whether it was fresh when it was read.
    pub fn freshness(&self) -> Freshness {
        Freshness::of(&self.entry.times, self.stamp.read_at())
    }

    /// How old it was when it was read, counted from the end of its load.
    pub fn age(&self) -> Duration {
        self.entry.times.age(self.stamp.read_at())
    }

    /// Where it came from.
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
