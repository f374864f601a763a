//! The outbox: writes of this process that the store does not know yet.
//!
//! A write is recorded in the version index before it changes the table, and stays there until the
//! store knows it. Meanwhile the key is not read from the store, so that a load that begins after
//! the write cannot bring back an older payload (P4).
//!
//! The writes of one key are flushed one after the other; a later write replaces an earlier one
//! that waits. A write that fails is repeated with growing pauses. If too many writes wait, the
//! newest is given up, and from then on this process uses no payload that was stored before that
//! moment.

use std::hash::Hash;
use std::time::Duration;

use super::terms::{terms_from, ttl};
use super::version_index::{Attempt, Write, WriteState};
use super::{Fleet, PAUSES, PendingWrite};
use crate::observe::trace;
use crate::protocol::entry::Entry;
use crate::rng::with_rng;
use crate::store::{Birth, Epoch, ErrorClass, StoreError, StoreKey, Stored};
use crate::sync::{Arc, Ordering, lock};

/// The limit on pending writes.
const WAITING: usize = 65_536;

/// The end of a write.
enum Flushed {
    /// The store has made the change with this epoch, or needs none.
    Stored(Option<Epoch>),
    /// Another process wrote the key later.
    Superseded,
}

impl<K, V> Fleet<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// Records that a key is being set to this value. Called before the value is resident.
    pub(super) fn set(
        self: &Arc<Self>,
        entry: &Arc<Entry<K, V>>,
        set: usize,
    ) -> Option<PendingWrite> {
        let name = self.name(&entry.key)?;
        self.enqueue(name, &entry.key, set, Write::Set(entry.clone()))
    }

    /// Records that a key is being invalidated. Called before the key is removed from the table.
    pub(super) fn invalidate(self: &Arc<Self>, key: &K, set: usize) -> Option<PendingWrite> {
        let name = self.name(key)?;
        self.enqueue(name, key, set, Write::Invalidate)
    }

    /// Records that every key this process knows is being invalidated.
    pub(super) fn invalidate_all(self: &Arc<Self>) {
        for hash in self.versions.hashes() {
            if let Some((key, set)) = self.versions.key(hash) {
                self.invalidate(&key, set);
            }
        }
    }

    fn enqueue(
        self: &Arc<Self>,
        name: StoreKey,
        key: &K,
        set: usize,
        write: Write<K, V>,
    ) -> Option<PendingWrite> {
        let hash = name.hash();
        self.track(&name, key, set);
        let made = self.state.clock.exact();
        let (number, first) = self.versions.write(hash, write, made)?;
        if first {
            self.pending.fetch_add(1, Ordering::Relaxed);
            let fleet = self.clone();
            self.store
                .spawn(Box::pin(async move { fleet.write_state(name).await }));
        }
        Some(Box::pin(self.clone().wait(hash, number)))
    }

    /// Waits until the store knows a write of a key; see [`PendingWrite`].
    async fn wait(self: Arc<Self>, hash: u128, number: u64) -> Result<(), StoreError> {
        loop {
            let Some(event) = self.versions.event(hash) else {
                return Ok(());
            };
            let changed = event.listen();
            match self.versions.write_state(hash) {
                WriteState::Flushed => {
                    let ended = self.versions.ended(hash, number);
                    return ended.map_or(Ok(()), Err);
                }
                WriteState::Failed(error) => return Err(error),
                WriteState::InFlight => changed.await,
            }
        }
    }

    /// Flushes the writes of one key until none is left.
    async fn write_state(self: Arc<Self>, name: StoreKey) {
        let hash = name.hash();
        let mut pause = PAUSES.0;
        while let Some(attempt) = self.attempt(hash) {
            let number = attempt.number;
            match self.flush_one(&name, &attempt).await {
                Ok(Flushed::Stored(epoch)) => {
                    self.counters.flushed.add();
                    if !self.versions.flushed(hash, &attempt, epoch) {
                        // Another process changed the key after this write, and the notification
                        // came first.
                        if let Write::Set(entry) = &attempt.write {
                            self.remove_entry(hash, entry);
                        }
                    }
                }
                Ok(Flushed::Superseded) => self.superseded(hash, &attempt),
                Err(error) => {
                    self.counters.retried.add();
                    if self.pending.load(Ordering::Relaxed) > WAITING {
                        self.give_up();
                        self.versions.end(hash, number, error);
                        continue;
                    }
                    self.versions.pending(hash, number, error);
                    let clock = &self.state.clock;
                    let wait =
                        with_rng(|rng| pause - rand::RngExt::random_range(rng, 0..pause / 2));
                    clock.sleep_until(clock.now().saturating_add(wait)).await;
                    pause = (2 * pause).min(PAUSES.1);
                    if self.entries.strong_count() == 0 {
                        break;
                    }
                }
            }
        }
        self.pending.fetch_sub(1, Ordering::Relaxed);
    }

    /// The next attempt to flush a write of a key.
    fn attempt(&self, hash: u128) -> Option<Attempt<K, V>> {
        let (time, now) = (self.store.now(), self.state.clock.exact());
        self.versions.attempt(hash, |made| {
            let age = now.saturating_sub(made) / 1_000;
            time.map(|time| time.saturating_sub(age))
        })
    }

    async fn flush_one(
        &self,
        name: &StoreKey,
        attempt: &Attempt<K, V>,
    ) -> Result<Flushed, StoreError> {
        let Some(micros) = attempt.born else {
            return Err(StoreError::new(
                ErrorClass::Unavailable,
                "not connected yet",
            ));
        };
        let birth = Birth {
            origin: self.origin,
            micros,
            seen: attempt.seen,
        };
        let flushed = match self.seal(name, &attempt.write, micros) {
            Some((payload, ttl)) => match self.store.set(name, payload, ttl, birth).await {
                // The value of another process must not stay there instead.
                Err(error) if error.class() == ErrorClass::TooLarge => {
                    self.counters.not_stored.add();
                    self.store.invalidate(name, birth).await
                }
                result => result,
            },
            None => self.store.invalidate(name, birth).await,
        };
        match flushed {
            Ok(Stored::Yes { epoch }) => Ok(Flushed::Stored(Some(epoch))),
            Ok(Stored::Refused) => Ok(Flushed::Superseded),
            // The store holds data not written by everfresh, and leaves it alone. There is no
            // payload to replace.
            Err(error) if error.class() == ErrorClass::Foreign => Ok(Flushed::Stored(None)),
            Err(error) => Err(error),
        }
    }

    /// The payload of a set, with the time that is left to it. `None` if the write is an
    /// invalidation, or has become one: the value has expired, or cannot be stored. If the store
    /// cannot hold this value, it must not hold an older one either.
    fn seal(&self, name: &StoreKey, write: &Write<K, V>, born: u64) -> Option<(Vec<u8>, Duration)> {
        let Write::Set(entry) = write else {
            return None;
        };
        let now = self.state.clock.now();
        let value = entry.value().filter(|_| now < entry.times.expires())?;
        let terms = terms_from(&entry.times, now);
        match self.format.seal_written(name, value, &terms, born) {
            Ok(payload) => Some((payload, ttl(&terms))),
            Err(reason) => {
                trace::not_stored(&self.state.name, &reason);
                self.counters.payload_errors(reason);
                self.counters.not_stored.add();
                None
            }
        }
    }

    /// The store refused a write, because another process wrote the key later. The value that is
    /// resident here is older.
    fn superseded(&self, hash: u128, attempt: &Attempt<K, V>) {
        self.counters.superseded.add();
        // Looked up while the write is pending, because no payload of the store is installed then.
        let resident = self.resident(hash);
        let error = StoreError::new(ErrorClass::Superseded, "");
        if self.versions.end(hash, attempt.number, error) {
            if let Some(entry) = resident {
                self.remove_entry(hash, &entry);
            }
        }
    }

    /// One write will never be flushed, so the payloads in the store may be older than this
    /// process.
    fn give_up(&self) {
        trace::given_up(&self.state.name);
        self.counters.given_up.add();
        // Before the first connection nothing was read from the store either.
        let now = self.store.now().unwrap_or(0);
        let mut distrusted = lock(&self.distrusted);
        *distrusted = now.max(*distrusted);
    }
}
