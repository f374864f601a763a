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

use super::terms::{terms, ttl};
use super::version_index::{Write, WriteState};
use super::{Fleet, PAUSES, PendingWrite};
use crate::observe::trace;
use crate::protocol::entry::Entry;
use crate::rng::with_rng;
use crate::store::{Epoch, ErrorClass, StoreError, StoreKey};
use crate::sync::{Arc, Ordering, lock};

/// The limit on pending writes.
const WAITING: usize = 65_536;

impl<K, V> Fleet<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// Records that a key is being set to this value. Called before the value is resident.
    pub(super) fn set(self: &Arc<Self>, entry: &Entry<K, V>, set: usize) -> Option<PendingWrite> {
        let name = self.name(&entry.key)?;
        let terms = terms(&entry.times());
        let sealed = entry
            .value()
            .map(|value| self.format.seal(&name, value, &terms));
        let write = match sealed {
            Some(Ok(payload)) => Write::Set {
                payload,
                ttl: ttl(&terms),
            },
            // If the store cannot hold this value, it must not hold an older one either.
            Some(Err(reason)) => {
                trace::not_stored(&self.state.name, &reason);
                self.counters.payload_errors(reason);
                self.counters.not_stored.add();
                Write::Invalidate
            }
            None => Write::Invalidate,
        };
        self.enqueue(name, &entry.key, set, write)
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
        write: Write,
    ) -> Option<PendingWrite> {
        let hash = name.hash();
        self.track(&name, key, set);
        let (number, first) = self.versions.write(hash, write)?;
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
                    let given_up = self.versions.given_up(hash, number);
                    return given_up.map_or(Ok(()), Err);
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
        while let Some((number, write)) = self.versions.next_write(hash) {
            match self.flush_one(&name, write).await {
                Ok(epoch) => {
                    self.counters.flushed.add();
                    self.versions.flushed(hash, number, epoch);
                }
                Err(error) => {
                    self.counters.retried.add();
                    if self.pending.load(Ordering::Relaxed) > WAITING {
                        self.give_up();
                        self.versions.give_up(hash, number, error);
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

    async fn flush_one(&self, name: &StoreKey, write: Write) -> Result<Option<Epoch>, StoreError> {
        let flushed = match write {
            Write::Set { payload, ttl } => {
                match self.store.set(name, payload, ttl, self.origin).await {
                    // The value of another process must not stay there instead.
                    Err(error) if error.class() == ErrorClass::TooLarge => {
                        self.counters.not_stored.add();
                        self.store.invalidate(name, self.origin).await
                    }
                    result => result,
                }
            }
            Write::Invalidate => self.store.invalidate(name, self.origin).await,
        };
        match flushed {
            Ok(epoch) => Ok(Some(epoch)),
            // The store holds data not written by everfresh, and leaves it alone. There is no
            // payload to replace.
            Err(error) if error.class() == ErrorClass::Foreign => Ok(None),
            Err(error) => Err(error),
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
