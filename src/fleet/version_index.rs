//! The version index: for each key the latest version, the latest one that removed older values,
//! that of the resident value, and the pending write.
//!
//! No hit touches it. Each lock is held for a few instructions, and no other code runs under it,
//! not even that of a key. So keys are cloned and compared without it, and shared.
//!
//! Invariants:
//!
//! 1. `latest` and `removed` only grow. A payload with a version before `latest` is never
//!    installed. If `removed` grew while a payload was being installed, the installer removes it
//!    again (P4). So an invalidation and an installer meet in one of two orders, and the value is
//!    gone after both. If only `latest` grew, another process refreshed the key: the value may
//!    stay, and the installer asks for the newer one, because the notification may have found none
//!    to replace.
//! 2. A key with a pending write is not read from the store, and no load from before that write is
//!    published, because the payload in the store is older than the write.
//! 3. A key is forgotten only when it is not resident, not being loaded, and has no pending write.
//! 4. Of all callers that ask to look for a newer value of a key, one queues the key. The reader
//!    takes the key off before it looks, so a message that comes later queues it again.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use foldhash::quality::RandomState;

use super::pending_writes::UnflushedWrite;
use super::version::{Stamp, Version};
use crate::store::{Epoch, StoreError};
use crate::sync::event::Event;
use crate::sync::{Arc, AtomicU64, Mutex, MutexGuard, Ordering, lock};

/// The number of shards; each has its own lock.
const SHARDS: usize = 64;

/// One key.
pub(super) struct Tracked<K, V> {
    pub(super) key: Arc<K>,
    /// How often a job or a write asked for the key.
    tracked: u64,
    /// The set of the table in which it lives.
    pub(super) set: usize,
    /// The latest version that this process knows of.
    pub(super) latest: Option<Version>,
    /// The latest set or invalidation: every value from before it is out of date.
    pub(super) removed: Option<Version>,
    /// The latest version of a set or an invalidation of which another process has told.
    pub(super) removed_by_other: Option<Version>,
    /// The version of the resident value, if the store has it.
    pub(super) installed: Option<Version>,
    /// The checksum of its payload.
    pub(super) checksum: u64,
    /// The history of the store in which it was installed.
    pub(super) history: u64,
    /// The latest version whose payload this process could not read.
    unreadable: Option<Version>,
    /// Whether the key waits for a look at the newer value of another process.
    queued: bool,
    /// Boxed, like the next field, because few keys have one and both are large.
    pub(super) pending: Option<Box<UnflushedWrite<K, V>>>,
    /// The last write that the store will never take, and why.
    pub(super) ended: Option<Box<(u64, StoreError)>>,
    /// How many writes there were so far.
    pub(super) writes: u64,
    /// How many loads ended whose results could not be stored.
    not_stored: u64,
    /// Whether a task flushes a write of this key.
    pub(super) is_flushing: bool,
    /// Whether the key is in the queue of writes that are ready, or of those that failed. It may be
    /// in both, because a new write is tried before the probe comes to the key.
    pub(super) is_ready: bool,
    pub(super) has_failed: bool,
    /// Notified after every change of this key; made when a task first waits for one.
    event: Option<Arc<Event>>,
}

/// The answer to the caller that made a value resident.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Installed {
    /// It is the latest value.
    Latest,
    /// Another process refreshed the key. The value may stay until the newer one is here.
    Outdated,
    /// A later write is known, so the value must leave.
    Removed,
}

pub(super) struct VersionIndex<K, V> {
    shards: Box<[Mutex<Shard<K, V>>]>,
    /// How many keys a shard holds before it looks for keys to forget.
    prune_from: usize,
    /// The present history of the store.
    history: AtomicU64,
}

struct Shard<K, V> {
    known: HashMap<u128, Tracked<K, V>, RandomState>,
    prune_at: usize,
}

impl<K, V> Tracked<K, V> {
    /// Returns false if the key has a pending write.
    fn track(&mut self) -> bool {
        self.tracked += 1;
        self.pending.is_none()
    }

    /// Whether no write of the key is pending, and no task waits for its changes.
    fn is_idle(&self) -> bool {
        let event = self.event.as_ref();
        self.pending.is_none() && event.is_none_or(|event| Arc::strong_count(event) == 1)
    }
}

impl<K: Clone, V> VersionIndex<K, V> {
    pub(super) fn new(capacity: usize) -> Self {
        let prune_from = 2 * capacity.div_ceil(SHARDS) + 64;
        let shard = || {
            Mutex::new(Shard {
                known: HashMap::default(),
                prune_at: prune_from,
            })
        };
        VersionIndex {
            shards: (0..SHARDS).map(|_| shard()).collect(),
            prune_from,
            history: AtomicU64::new(0),
        }
    }

    fn shard(&self, hash: u128) -> MutexGuard<'_, Shard<K, V>> {
        lock(&self.shards[hash as usize % SHARDS])
    }

    pub(super) fn with<R>(
        &self,
        hash: u128,
        look: impl FnOnce(&mut Tracked<K, V>) -> R,
    ) -> Option<R> {
        self.shard(hash).known.get_mut(&hash).map(look)
    }

    /// Makes sure that the index has a key. Returns false if the key has a pending write.
    ///
    /// `in_use` makes the function that says whether a key of the index, in its set, is still
    /// needed.
    pub(super) fn track<U: Fn(usize, &K) -> bool>(
        &self,
        hash: u128,
        key: &K,
        set: usize,
        in_use: impl FnOnce() -> U,
    ) -> bool {
        let flushed = self.with(hash, Tracked::track);
        if let Some(flushed) = flushed {
            return flushed;
        }
        let key = Arc::new(key.clone());
        self.prune(hash, in_use);
        match self.shard(hash).known.entry(hash) {
            Entry::Occupied(mut known) => known.get_mut().track(),
            Entry::Vacant(tombstone) => {
                tombstone.insert(Tracked {
                    key,
                    tracked: 0,
                    set,
                    latest: None,
                    removed: None,
                    removed_by_other: None,
                    installed: None,
                    checksum: 0,
                    history: 0,
                    unreadable: None,
                    queued: false,
                    pending: None,
                    ended: None,
                    writes: 0,
                    not_stored: 0,
                    is_flushing: false,
                    is_ready: false,
                    has_failed: false,
                    event: None,
                });
                true
            }
        }
    }

    /// Forgets the keys of a full shard that are not needed.
    ///
    /// A key that is asked for meanwhile stays.
    fn prune<U: Fn(usize, &K) -> bool>(&self, hash: u128, in_use: impl FnOnce() -> U) {
        let idle: Vec<_> = {
            let mut shard = self.shard(hash);
            if shard.known.len() < shard.prune_at {
                return;
            }
            shard.prune_at = self.prune_from.max(2 * shard.known.len());
            let idle = shard.known.iter().filter(|(_, known)| known.is_idle());
            idle.map(|(hash, known)| (*hash, known.tracked, known.set, known.key.clone()))
                .collect()
        };
        let in_use = in_use();
        let unused = idle.iter().filter(|(_, _, set, key)| !in_use(*set, key));
        let unused: Vec<_> = unused.collect();
        let mut shard = self.shard(hash);
        for (hash, tracked, _, key) in unused {
            let is_same = |known: &Tracked<K, V>| {
                Arc::ptr_eq(&known.key, key) && known.tracked == *tracked && known.is_idle()
            };
            if shard.known.get(hash).is_some_and(is_same) {
                // `idle` keeps its key until the lock is free.
                shard.known.remove(hash);
            }
        }
        shard.prune_at = self.prune_from.max(2 * shard.known.len());
        drop(shard);
        drop(idle);
    }

    /// The store has this history from now on. Returns whether it is a new one.
    pub(super) fn begin_history(&self, history: u64) -> bool {
        // Relaxed: a value whose history is taken for an older or a newer one is compared with the
        // store once more.
        self.history.swap(history, Ordering::Relaxed) != history
    }

    pub(super) fn history(&self) -> u64 {
        self.history.load(Ordering::Relaxed)
    }

    /// Whether the resident value of a key was installed in an older history of the store.
    pub(super) fn is_of_older_history(&self, hash: u128) -> bool {
        let history = self.history();
        self.with(hash, |known| known.history != history)
            .unwrap_or(false)
    }

    /// The key with this hash, and its set.
    pub(super) fn key(&self, hash: u128) -> Option<(Arc<K>, usize)> {
        self.with(hash, |known| (known.key.clone(), known.set))
    }

    /// The hashes of all keys.
    pub(super) fn hashes(&self) -> Vec<u128> {
        let hashes = |shard: &Mutex<Shard<K, V>>| lock(shard).known.keys().copied().collect();
        self.shards.iter().flat_map::<Vec<_>, _>(hashes).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.shards
            .iter()
            .map(|shard| lock(shard).known.len())
            .sum()
    }

    /// The event that is notified after every change of the key.
    pub(super) fn event(&self, hash: u128) -> Option<Arc<Event>> {
        self.with(hash, |known| known.event.get_or_insert_default().clone())
    }

    pub(super) fn notify(&self, hash: u128) {
        if let Some(event) = self.with(hash, |known| known.event.clone()).flatten() {
            event.notify_all();
        }
    }

    pub(super) fn installed(&self, hash: u128) -> Option<Version> {
        self.with(hash, |known| known.installed).flatten()
    }

    /// Records the version of a change; `removes` says that it makes every earlier value out of
    /// date. Returns true if the index has the key and the change is news for it.
    pub(super) fn raise(&self, hash: u128, version: Version, removes: bool) -> bool {
        let raised = self.with(hash, |known| {
            // A comparison with the store may have found the version of a set before its message
            // came. Until its value is here, the message still removes the older one.
            let removes_older = removes && known.removed.max(known.installed) < Some(version);
            let later = known.latest < Some(version) || removes_older;
            known.latest = known.latest.max(Some(version));
            if removes {
                known.removed = known.removed.max(Some(version));
            }
            later
        });
        raised.unwrap_or(false)
    }

    /// Records a set or an invalidation of which another process has told.
    pub(super) fn removed_by_other(&self, hash: u128, version: Version) {
        self.with(hash, |known| {
            known.removed_by_other = known.removed_by_other.max(Some(version));
        });
    }

    /// Records the stamp of the payload that the store has, after a gap. Returns true if this
    /// process must see the payload.
    ///
    /// A value of another timeline is the same if its payload has the same checksum.
    pub(super) fn compare(&self, hash: u128, stamp: Stamp) -> bool {
        let history = self.history();
        let Stamp { version, checksum } = stamp;
        self.with(hash, |known| {
            let is_other = |installed: Version| installed.timeline != version.timeline;
            if known.installed.is_some_and(is_other) && known.checksum == checksum {
                known.installed = known.installed.max(Some(version));
                known.history = history;
            }
        });
        self.raise(hash, version, false);
        self.is_outdated(hash)
    }

    /// Records a version whose payload this process cannot read.
    pub(super) fn cannot_read(&self, hash: u128, version: Version) {
        self.with(hash, |known| {
            known.unreadable = known.unreadable.max(Some(version));
        });
    }

    /// The epoch of the latest payload that this process has or could not read, and so need not see
    /// again.
    pub(super) fn seen(&self, hash: u128) -> Option<Epoch> {
        self.with(hash, |known| known.installed.max(known.unreadable))
            .flatten()
            .map(|seen| seen.epoch)
    }

    /// Counts a load of another process whose result could not be stored.
    pub(super) fn add_not_stored(&self, hash: u128) {
        self.with(hash, |known| known.not_stored += 1);
    }

    /// How many loads ended whose results could not be stored.
    pub(super) fn not_stored(&self, hash: u128) -> u64 {
        self.with(hash, |known| known.not_stored).unwrap_or(0)
    }

    /// Whether another process made a later value, which this process has not seen.
    pub(super) fn is_outdated(&self, hash: u128) -> bool {
        let outdated = self.with(hash, |known| {
            known.pending.is_none() && known.latest > known.installed.max(known.unreadable)
        });
        outdated.unwrap_or(false)
    }

    /// Queues a key; returns true if the caller must put it into the queue.
    pub(super) fn queue(&self, hash: u128) -> bool {
        let first = self.with(hash, |known| !std::mem::replace(&mut known.queued, true));
        first.unwrap_or(false)
    }

    /// Takes a key off the queue; see [`queue`](Self::queue).
    pub(super) fn unqueue(&self, hash: u128) {
        self.with(hash, |known| known.queued = false);
    }

    /// Whether a payload of this version may be served: no later one is known and no write is
    /// pending.
    pub(super) fn accepts(&self, hash: u128, version: Version) -> bool {
        self.with(hash, |known| {
            known.pending.is_none() && known.latest.is_none_or(|latest| latest <= version)
        })
        .unwrap_or(true)
    }

    /// Records that the value of this version is resident.
    pub(super) fn install(&self, hash: u128, stamp: Stamp) -> Installed {
        let history = self.history();
        let Stamp { version, checksum } = stamp;
        let installed = self.with(hash, |known| {
            if known.pending.is_some() || known.removed > Some(version) {
                return Installed::Removed;
            }
            known.installed = Some(version);
            known.checksum = checksum;
            known.history = history;
            match known.latest > Some(version) {
                true => Installed::Outdated,
                false => {
                    known.latest = Some(version);
                    Installed::Latest
                }
            }
        });
        installed.unwrap_or(Installed::Latest)
    }

    /// Records that a value which was loaded over this base, and is not in the store, stays
    /// resident. Returns false if a set or an invalidation came later, or a write is pending.
    pub(super) fn keep(&self, hash: u128, base: Version) -> bool {
        let history = self.history();
        let kept = self.with(hash, |known| {
            let good = known.pending.is_none() && known.removed <= Some(base);
            if good {
                // After a gap the value is compared with the store by this version.
                known.installed = known.installed.max(Some(base));
                known.checksum = 0;
                known.history = history;
            }
            good
        });
        kept.unwrap_or(true)
    }
}
