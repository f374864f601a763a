//! What is remembered of keys that have no value: that the loader said so, or that it failed.
//!
//! Kept in a bounded `moka` cache, apart from the values: a flood of bad keys competes with other bad keys, by an
//! admission policy that resists floods, and never with a value.
//!
//! # Races with `insert` and `invalidate` (P4)
//!
//! A entry is written *before* the entry of its load leaves the table, and is believed only once that entry was removed by its own
//! load. `insert` and `invalidate` change the table first and forget the entry after. So either they found the entry, and its
//! load then cannot confirm the entry; or the entry had left already, and the entry was there to be forgotten.

use std::borrow::Borrow;
use std::hash::Hash;
use std::time::{Duration, Instant};

use foldhash::quality::RandomState;
use moka::Expiry;

use crate::error::Error;
use crate::sync::{Arc, AtomicU8, BoundedCache, Ordering, SetOnce};
use crate::time::clock::Tick;

/// How much longer than it says a entry of a failure is kept, so that the next failure rests longer.
const REMEMBER: u32 = 2;

/// How long a entry is kept at least and at most, by the real clock.
const AT_LEAST: Duration = Duration::from_secs(60);
const AT_MOST: Duration = Duration::from_secs(365 * 86_400);

pub(crate) struct NegativeCache<K> {
    /// Made for the first entry: a cache whose loader always succeeds has none, asks nothing, and pays no memory.
    entries: SetOnce<NegativeEntries<K>>,
    capacity: u64,
}

type NegativeEntries<K> = BoundedCache<K, Arc<NegativeEntry>, RandomState>;

/// Why a key has no value, and until when that is believed.
pub(crate) struct NegativeEntry {
    error: Error,
    until: Tick,
    lasts: Duration,
    failures: u32,
    committed: AtomicU8,
}

/// What is known of a key.
pub(crate) enum Known {
    /// Do not load it now.
    NotFound(Error),
    /// Load it; so many attempts in a row have failed before.
    Failures(u32),
}

impl<K: Hash + Eq + Clone + Send + Sync + 'static> NegativeCache<K> {
    pub(crate) fn new(capacity: u64) -> Self {
        NegativeCache {
            entries: SetOnce::new(),
            capacity,
        }
    }

    /// The entries, if there ever was one.
    ///
    /// Who comes too early misses a entry that nobody believes yet; and a write whose entry somebody removed from the table is forgotten
    /// by its writer.
    fn entries(&self) -> Option<&NegativeEntries<K>> {
        self.entries.get()
    }

    fn make_entries(&self) -> NegativeEntries<K> {
        BoundedCache::builder()
            .max_capacity(self.capacity)
            .expire_after(Lasting)
            .build_with_hasher(RandomState::default())
    }

    pub(crate) fn known<Q>(&self, key: &Q, now: Tick) -> Known
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        match self.entries().and_then(|entries| entries.get(key)) {
            // Acquire pairs with the confirmation: who believes the entry also sees its entry gone.
            Some(entry) if entry.committed.load(Ordering::Acquire) == 0 => Known::Failures(0),
            Some(entry) if now < entry.until => Known::NotFound(entry.error.clone()),
            Some(entry) => Known::Failures(entry.failures),
            None => Known::Failures(0),
        }
    }

    /// Writes a entry that nobody believes yet.
    pub(crate) fn write(
        &self,
        key: K,
        error: Error,
        until: Tick,
        now: Tick,
        failures: u32,
    ) -> Uncommitted<'_, K> {
        let entry = Arc::new(NegativeEntry {
            error,
            until,
            lasts: (Duration::from_nanos(until.saturating_sub(now)) * REMEMBER)
                .clamp(AT_LEAST, AT_MOST),
            failures,
            committed: AtomicU8::new(0),
        });
        let entries = self.entries.get_or_init(|| self.make_entries());
        entries.insert(key.clone(), entry.clone());
        Uncommitted {
            entries,
            key,
            entry,
        }
    }

    pub(crate) fn forget<Q>(&self, key: &Q)
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        if let Some(entries) = self.entries() {
            entries.invalidate(key);
        }
    }

    pub(crate) fn forget_all(&self) {
        if let Some(entries) = self.entries() {
            entries.invalidate_all();
        }
    }
}

/// A entry that waits for its entry to leave the table.
pub(crate) struct Uncommitted<'a, K> {
    entries: &'a NegativeEntries<K>,
    key: K,
    entry: Arc<NegativeEntry>,
}

impl<K: Hash + Eq + Clone + Send + Sync + 'static> Uncommitted<'_, K> {
    /// Confirms the entry if its own load removed the entry; otherwise it is worth nothing, and goes.
    pub(crate) fn commit(self, removed: bool) {
        if removed {
            // Release: see `known`.
            self.entry.committed.store(1, Ordering::Release);
        } else if self
            .entries
            .get(&self.key)
            .is_some_and(|now| Arc::ptr_eq(&now, &self.entry))
        {
            self.entries.invalidate(&self.key);
        }
    }
}

/// Each entry has its own time, by the real clock: only memory depends on it, what is believed goes by the cache's clock.
struct Lasting;

impl<K> Expiry<K, Arc<NegativeEntry>> for Lasting {
    fn expire_after_create(
        &self,
        _: &K,
        entry: &Arc<NegativeEntry>,
        _: Instant,
    ) -> Option<Duration> {
        Some(entry.lasts)
    }

    fn expire_after_update(
        &self,
        _: &K,
        entry: &Arc<NegativeEntry>,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(entry.lasts)
    }
}
