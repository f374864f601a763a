//! Negative entries: a key was not found, or its load failed.
//!
//! Kept in a bounded `moka` cache, apart from the values: a flood of bad keys competes with other
//! bad keys, by an admission policy that resists floods, and never with a value.
//!
//! That cache is one type for the keys of all caches, because `moka` compiled for each of them
//! would be a third of the program that a cache adds. It knows a key by its hash alone, so no `Eq`
//! of the user runs inside it. Of two keys with one hash it remembers the later one; an answer is
//! given only after the key itself was compared. Nor does a `Drop` of the user run inside it, where
//! it would run under the locks of `moka` or on a thread of another cache: an entry that is dropped
//! there leaves its key and its error in a queue, which callers empty when they hold nothing.
//!
//! Errors may be large, so entries are weighed: all of them together hold at most [`MAX_BYTES`] of
//! errors. The size of an error is that of its value and of its texts, because no error tells what
//! else it holds. The texts are written, which runs the user's `Display`, before the entry is made.
//!
//! # Races with `insert` and `invalidate` (P4)
//!
//! A negative entry is written *before* the entry of its load leaves the table, and counts only
//! once that load has removed its entry from the table. `insert` and `invalidate` change the table
//! first and forget the negative entry after. So either they found the entry in the table, and its
//! load cannot commit the negative entry; or the entry had left already, and they forget the
//! negative entry.
//!
//! # Races with `invalidate_group`
//!
//! That call knows no keys, so a negative entry has the stamps of the groups that follow from its
//! key, like a value (see `protocol::groups`), and counts as long as they are current.

use std::any::Any;
use std::hash::{BuildHasher, Hash};
use std::marker::PhantomData;
use std::time::{Duration, Instant};

use foldhash::quality::RandomState;
use moka::Expiry;

use crate::error::Error;
use crate::panics::isolated;
use crate::protocol::groups::{Groups, Stamp};
use crate::sync::plain::SegQueue;
use crate::sync::{Arc, AtomicU8, BoundedCache, Ordering, SetOnce};
use crate::time::clock::Tick;

/// How much longer than its rest a failure is remembered, so that the next failure rests longer.
const REMEMBER: u32 = 2;

/// The largest size of all errors of a cache together, in bytes.
const MAX_BYTES: u64 = 1 << 26;

/// An error that takes more than this part of [`MAX_BYTES`] is replaced by a short one, so that its
/// key rests all the same.
const LARGEST_PART: u64 = 16;

/// How long an entry is kept at least and at most, by the real clock.
const AT_LEAST: Duration = Duration::from_secs(60);
const AT_MOST: Duration = Duration::from_secs(365 * 86_400);

pub(crate) struct NegativeCache<K> {
    /// By the hash of the key. Made for the first entry: a cache whose loader always succeeds pays
    /// no memory and no look-up.
    entries: SetOnce<Box<dyn NegativeEntries>>,
    capacity: u64,
    /// Entries are kept no shorter than this.
    at_least: Duration,
    hasher: RandomState,
    /// The contents of entries that were dropped.
    dropped: Arc<SegQueue<Content>>,
    keys: PhantomData<fn(K)>,
}

/// The part of an entry whose drop may run code of the user.
type Content = (Box<dyn Any + Send + Sync>, Error);

/// Why a key has no value, and how long that counts.
struct NegativeEntry {
    /// Taken when the entry is dropped.
    content: Option<Content>,
    dropped: Arc<SegQueue<Content>>,
    since: Tick,
    until: Tick,
    lasts: Duration,
    failures: u32,
    /// Of the groups of the key. If one is outdated, the entry counts no more.
    stamps: Vec<Stamp>,
    /// The weight, in entries without an error.
    weight: u32,
    committed: AtomicU8,
}

/// Why a load ended without a value.
pub(crate) struct Because {
    pub(crate) error: Error,
    /// How many attempts in a row have failed.
    pub(crate) failures: u32,
    pub(crate) stamps: Vec<Stamp>,
    /// When the attempt began.
    pub(crate) since: Tick,
}

/// The content of the negative entry of a key.
pub(crate) enum Known {
    /// Do not load it now.
    NotFound(Error),
    /// Load it; so many attempts in a row have failed before.
    Failures(u32),
}

impl<K: Hash + Eq + Clone + Send + Sync + 'static> NegativeCache<K> {
    pub(crate) fn new(capacity: u64, at_least: Duration) -> Self {
        NegativeCache {
            entries: SetOnce::new(),
            capacity,
            at_least,
            hasher: RandomState::default(),
            dropped: Arc::new(SegQueue::new()),
            keys: PhantomData,
        }
    }

    /// The key is given in any form that hashes like it; `is_key` compares that with a key.
    pub(crate) fn known(
        &self,
        key: &(impl Hash + ?Sized),
        is_key: impl FnOnce(&K) -> bool,
        groups: &Groups,
        now: Tick,
    ) -> Known {
        self.find(key, is_key, groups)
            .map_or(Known::Failures(0), |entry| entry.known(now))
    }

    /// The same for a caller that does not accept an answer of an attempt that ended longer ago
    /// than `age`.
    pub(crate) fn known_within(
        &self,
        age: Tick,
        key: &(impl Hash + ?Sized),
        is_key: impl FnOnce(&K) -> bool,
        groups: &Groups,
        now: Tick,
    ) -> Known {
        self.find(key, is_key, groups)
            .map_or(Known::Failures(0), |entry| entry.known_within(age, now))
    }

    /// When the key may be loaded again, if it has a negative entry that counts.
    pub(crate) fn rests_until(
        &self,
        key: &(impl Hash + ?Sized),
        is_key: impl FnOnce(&K) -> bool,
        groups: &Groups,
    ) -> Option<Tick> {
        let entry = self.find(key, is_key, groups)?;
        entry.is_committed().then_some(entry.until)
    }

    fn find(
        &self,
        key: &(impl Hash + ?Sized),
        is_key: impl FnOnce(&K) -> bool,
        groups: &Groups,
    ) -> Option<Arc<NegativeEntry>> {
        // A reader that runs before the first entry is written sees none. That is safe: it is not
        // committed yet.
        let entry = self.entries.get()?.find(self.hasher.hash_one(key))?;
        (entry.is_of(is_key) && groups.are_current(&entry.stamps)).then_some(entry)
    }

    /// Writes an entry that does not count yet.
    pub(crate) fn write(
        &self,
        key: K,
        because: Because,
        until: Tick,
        now: Tick,
    ) -> Uncommitted<'_> {
        let Because {
            error,
            failures,
            stamps,
            since,
        } = because;
        let hash = self.hasher.hash_one(&key);
        let (error, weight) = weighed(error, self.capacity);
        let rest = Duration::from_nanos(until.saturating_sub(now));
        let entry = Arc::new(NegativeEntry {
            content: Some((Box::new(key), error)),
            dropped: self.dropped.clone(),
            since,
            until,
            lasts: (rest * REMEMBER)
                .max(self.at_least)
                .clamp(AT_LEAST, AT_MOST),
            failures,
            stamps,
            weight,
            committed: AtomicU8::new(0),
        });
        let entries = &**(self.entries).get_or_init(|| make_entries(self.capacity));
        entries.write(hash, entry.clone());
        Uncommitted {
            entries,
            hash,
            entry,
        }
    }

    /// Forgets the key, given in any form that hashes like it, and with it a key that has the same
    /// hash.
    pub(crate) fn forget(&self, key: &(impl Hash + ?Sized)) {
        // A load whose entry the caller has removed from the table forgets its own negative entry.
        if let Some(entries) = self.entries.get() {
            entries.forget(self.hasher.hash_one(key));
        }
    }
}

impl<K> NegativeCache<K> {
    pub(crate) fn forget_all(&self) {
        if let Some(entries) = self.entries.get() {
            entries.forget_all();
        }
    }

    /// Drops the keys and errors of entries that are gone, for a caller that holds nothing.
    pub(crate) fn drop_content(&self) {
        // A cache whose loads always find a value pays no look at the queue.
        if self.entries.get().is_none() {
            return;
        }
        while let Some(content) = self.dropped.pop() {
            isolated(|| drop(content));
        }
    }
}

/// The entries by hash, behind a vtable of this crate: not only the calls but also the drop of a
/// `moka` cache would be compiled again in every program that names its type.
trait NegativeEntries: Send + Sync {
    fn find(&self, hash: u64) -> Option<Arc<NegativeEntry>>;
    fn write(&self, hash: u64, entry: Arc<NegativeEntry>);
    fn forget(&self, hash: u64);
    fn forget_all(&self);
}

impl NegativeEntries for BoundedCache<u64, Arc<NegativeEntry>, RandomState> {
    fn find(&self, hash: u64) -> Option<Arc<NegativeEntry>> {
        self.get(&hash)
    }

    fn write(&self, hash: u64, entry: Arc<NegativeEntry>) {
        self.insert(hash, entry);
    }

    fn forget(&self, hash: u64) {
        self.invalidate(&hash);
    }

    fn forget_all(&self) {
        self.invalidate_all();
    }
}

/// The error to remember, and its weight in a memory of so many keys.
///
/// An entry counts as one key for each share that its error takes of [`MAX_BYTES`]. So both limits,
/// of keys and of bytes, are one.
fn weighed(error: Error, capacity: u64) -> (Error, u32) {
    let bytes = error.size();
    if bytes > MAX_BYTES / LARGEST_PART {
        return (
            Error::failed("the error of the loader is too large to be kept"),
            1,
        );
    }
    let share = (MAX_BYTES / capacity.max(1)).max(1);
    let weight = bytes
        .div_ceil(share)
        .clamp(1, (capacity / LARGEST_PART).max(1));
    (error, u32::try_from(weight).unwrap_or(u32::MAX))
}

fn make_entries(capacity: u64) -> Box<dyn NegativeEntries> {
    let entries = BoundedCache::builder()
        .max_capacity(capacity)
        .weigher(|_: &u64, entry: &Arc<NegativeEntry>| entry.weight)
        .expire_after(Lasting)
        .build_with_hasher(RandomState::default());
    Box::new(entries)
}

impl NegativeEntry {
    fn is_of<K: 'static>(&self, is_key: impl FnOnce(&K) -> bool) -> bool {
        let known = self.content.as_ref();
        let known = known.and_then(|(known, _)| known.downcast_ref::<K>());
        known.is_some_and(is_key)
    }

    fn is_committed(&self) -> bool {
        // Acquire pairs with `commit`: a reader that sees the entry committed also sees that its
        // load has left the table.
        self.committed.load(Ordering::Acquire) != 0
    }

    fn known(&self, now: Tick) -> Known {
        self.known_if(now < self.until)
    }

    fn known_within(&self, age: Tick, now: Tick) -> Known {
        self.known_if(now < self.since.saturating_add(age))
    }

    fn known_if(&self, counts: bool) -> Known {
        if !self.is_committed() {
            return Known::Failures(0);
        }
        match &self.content {
            Some((_, error)) if counts => Known::NotFound(error.clone()),
            _ => Known::Failures(self.failures),
        }
    }
}

impl Drop for NegativeEntry {
    fn drop(&mut self) {
        if let Some(content) = self.content.take() {
            self.dropped.push(content);
        }
    }
}

/// A negative entry whose load has not left the table yet.
pub(crate) struct Uncommitted<'a> {
    entries: &'a dyn NegativeEntries,
    hash: u64,
    entry: Arc<NegativeEntry>,
}

impl Uncommitted<'_> {
    /// Makes the entry count if its own load removed its entry from the table; else forgets it.
    pub(crate) fn commit(self, removed: bool) {
        if removed {
            // Release: see `known`.
            self.entry.committed.store(1, Ordering::Release);
            return;
        }
        let present = self.entries.find(self.hash);
        if present.is_some_and(|present| Arc::ptr_eq(&present, &self.entry)) {
            self.entries.forget(self.hash);
        }
    }
}

/// Each entry has its own time, by the real clock. Only memory depends on it; how long an answer
/// counts goes by the clock of the cache.
struct Lasting;

impl Expiry<u64, Arc<NegativeEntry>> for Lasting {
    fn expire_after_create(
        &self,
        _: &u64,
        entry: &Arc<NegativeEntry>,
        _: Instant,
    ) -> Option<Duration> {
        Some(entry.lasts)
    }

    fn expire_after_update(
        &self,
        _: &u64,
        entry: &Arc<NegativeEntry>,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(entry.lasts)
    }
}
