//! What is remembered of keys that have no value: that the loader said so, or that it failed.
//!
//! Kept in a bounded `moka` cache, apart from the values: a flood of bad keys competes with other bad keys, by an
//! admission policy that resists floods, and never with a value.
//!
//! # Races with `insert` and `invalidate` (P4)
//!
//! A note is written *before* the entry of its load leaves the table, and is believed only once that entry was removed by its own
//! load. `insert` and `invalidate` change the table first and forget the note after. So either they found the entry, and its
//! load then cannot confirm the note; or the entry had left already, and the note was there to be forgotten.

use std::borrow::Borrow;
use std::hash::Hash;
use std::time::{Duration, Instant};

use foldhash::quality::RandomState;
use moka::Expiry;

use crate::clock::Tick;
use crate::error::Error;
use crate::sync::{Arc, AtomicU8, NoteCache, Ordering, SetOnce};

/// How much longer than it says a note of a failure is kept, so that the next failure rests longer.
const REMEMBER: u32 = 2;

/// How long a note is kept at least and at most, by the real clock.
const AT_LEAST: Duration = Duration::from_secs(60);
const AT_MOST: Duration = Duration::from_secs(365 * 86_400);

pub(crate) struct Absent<K> {
    /// Made for the first note: a cache whose loader always succeeds has none, asks nothing, and pays no memory.
    notes: SetOnce<Notes<K>>,
    capacity: u64,
}

type Notes<K> = NoteCache<K, Arc<Note>, RandomState>;

/// Why a key has no value, and until when that is believed.
pub(crate) struct Note {
    error: Error,
    until: Tick,
    lasts: Duration,
    failures: u32,
    confirmed: AtomicU8,
}

/// What is known of a key.
pub(crate) enum Known {
    /// Do not load it now.
    Absent(Error),
    /// Load it; so many attempts in a row have failed before.
    Failures(u32),
}

impl<K: Hash + Eq + Clone + Send + Sync + 'static> Absent<K> {
    pub(crate) fn new(capacity: u64) -> Self {
        Absent {
            notes: SetOnce::new(),
            capacity,
        }
    }

    /// The notes, if there ever was one.
    ///
    /// Who comes too early misses a note that nobody believes yet; and a write whose entry somebody removed from the table is forgotten
    /// by its writer.
    fn notes(&self) -> Option<&Notes<K>> {
        self.notes.get()
    }

    fn make_notes(&self) -> Notes<K> {
        NoteCache::builder()
            .max_capacity(self.capacity)
            .expire_after(Lasting)
            .build_with_hasher(RandomState::default())
    }

    pub(crate) fn known<Q>(&self, key: &Q, now: Tick) -> Known
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        match self.notes().and_then(|notes| notes.get(key)) {
            // Acquire pairs with the confirmation: who believes the note also sees its entry gone.
            Some(note) if note.confirmed.load(Ordering::Acquire) == 0 => Known::Failures(0),
            Some(note) if now < note.until => Known::Absent(note.error.clone()),
            Some(note) => Known::Failures(note.failures),
            None => Known::Failures(0),
        }
    }

    /// Writes a note that nobody believes yet.
    pub(crate) fn write(
        &self,
        key: K,
        error: Error,
        until: Tick,
        now: Tick,
        failures: u32,
    ) -> Written<'_, K> {
        let note = Arc::new(Note {
            error,
            until,
            lasts: (Duration::from_nanos(until.saturating_sub(now)) * REMEMBER)
                .clamp(AT_LEAST, AT_MOST),
            failures,
            confirmed: AtomicU8::new(0),
        });
        let notes = self.notes.get_or_init(|| self.make_notes());
        notes.insert(key.clone(), note.clone());
        Written { notes, key, note }
    }

    pub(crate) fn forget<Q>(&self, key: &Q)
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        if let Some(notes) = self.notes() {
            notes.invalidate(key);
        }
    }

    pub(crate) fn forget_all(&self) {
        if let Some(notes) = self.notes() {
            notes.invalidate_all();
        }
    }
}

/// A note that waits for its entry to leave the table.
pub(crate) struct Written<'a, K> {
    notes: &'a Notes<K>,
    key: K,
    note: Arc<Note>,
}

impl<K: Hash + Eq + Clone + Send + Sync + 'static> Written<'_, K> {
    /// Confirms the note if its own load removed the entry; otherwise it is worth nothing, and goes.
    pub(crate) fn settle(self, removed: bool) {
        if removed {
            // Release: see `known`.
            self.note.confirmed.store(1, Ordering::Release);
        } else if self
            .notes
            .get(&self.key)
            .is_some_and(|now| Arc::ptr_eq(&now, &self.note))
        {
            self.notes.invalidate(&self.key);
        }
    }
}

/// Each note has its own time, by the real clock: only memory depends on it, what is believed goes by the cache's clock.
struct Lasting;

impl<K> Expiry<K, Arc<Note>> for Lasting {
    fn expire_after_create(&self, _: &K, note: &Arc<Note>, _: Instant) -> Option<Duration> {
        Some(note.lasts)
    }

    fn expire_after_update(
        &self,
        _: &K,
        note: &Arc<Note>,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(note.lasts)
    }
}
