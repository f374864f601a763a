//! What this process writes, on its way to the store.
//!
//! A write is put down in the versions before it changes the table, and stays there until the store knows it. From the first moment on the key is
//! not read from the store any more: a load that begins after the write cannot push back what was stored before it (P4).
//!
//! Writes of one key are flushed one after the other, a later one instead of an earlier one that waits. One that fails is repeated, with growing pauses,
//! until it is flushed. If too many wait, the one that came last is given up, and from then on nothing that was stored before is used by this
//! process.

use std::hash::Hash;

use super::terms::{terms, ttl};
use super::version_index::{Write, WriteState};
use super::{Fleet, PAUSES, PendingWrite};
use crate::observe::trace;
use crate::protocol::entry::Entry;
use crate::rng::with_rng;
use crate::store::{Epoch, ErrorClass, StoreError, StoreKey};
use crate::sync::{Arc, Ordering, lock};

/// Writes that may wait to be flushed.
const WAITING: usize = 65_536;

impl<K, V> Fleet<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// Puts down that a key is being set to this value; to be called before the value is resident.
    pub(super) fn set(self: &Arc<Self>, entry: &Entry<K, V>, set: usize) -> Option<PendingWrite> {
        let name = self.name(&entry.key)?;
        let terms = terms(&entry.times);
        let sealed = entry
            .value()
            .map(|value| self.format.seal(&name, value, &terms));
        let write = match sealed {
            Some(Ok(payload)) => Write::Set {
                payload,
                ttl: ttl(&terms),
            },
            // What the store cannot pause it must not pause an older value of.
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

    /// Puts down that a key is being invalidated; to be called before it leaves the table.
    pub(super) fn invalidate(self: &Arc<Self>, key: &K, set: usize) -> Option<PendingWrite> {
        let name = self.name(key)?;
        self.enqueue(name, key, set, Write::Invalidate)
    }

    /// Every key that this process knows.
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

    /// Tells the writes of one key until there are none.
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
                    // Nobody else's value stays there instead.
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
            // It holds something that no cache stores, and that is left alone; there is nothing of ours to replace.
            Err(error) if error.class() == ErrorClass::Foreign => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// One write will never be flushed: what the store holds may be older than what this process said.
    fn give_up(&self) {
        trace::given_up(&self.state.name);
        self.counters.given_up.add();
        // Without a connection so far nothing was read from it either.
        let now = self.store.now().unwrap_or(0);
        let mut distrusted = lock(&self.distrusted);
        *distrusted = now.max(*distrusted);
    }
}
