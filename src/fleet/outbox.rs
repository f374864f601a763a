//! The outbox: writes of this process that the store does not know yet.
//!
//! A write is recorded in the version index before it changes the table, and stays there until the
//! store knows it. Meanwhile the key is not read from the store, so that a load that begins after
//! the write cannot bring back an older payload (P4).
//!
//! The writes of one key are flushed one after the other; a later write replaces an earlier one
//! that waits. A write that fails waits for the probe (see `write_queue`). A write that waits keeps
//! no value: that is in the table, or it has left the table, and the write has become an
//! invalidation. So the values in an outbox are bounded by the table. If too many keys wait, the
//! newest write is given up, and from then on this process uses no payload that was stored before
//! that moment.

use std::hash::Hash;
use std::time::Duration;

use super::flushing::Task;
use super::pending_writes::{Attempt, Ended, Made, Write, WriteState, address};
use super::store_handle::closed;
use super::terms::{terms_from, ttl};
use super::version::Stamp;
use super::{Fleet, GivenUp, PendingWrite};
use crate::load::admission::is_inside_a_load;
use crate::load::lifecycle::Work;
use crate::observe::trace;
use crate::protocol::entry::Entry;
use crate::protocol::groups::Cell;
use crate::store::format::Sealed;
use crate::store::head::checksum;
use crate::store::{Birth, ErrorClass, StoreError, StoreKey, Stored};
use crate::sync::{Arc, Ordering, StrongArc};

/// The limit on pending writes.
const WAITING: usize = 65_536;

/// A key, or a cell of groups, in the queue of writes.
#[derive(Clone)]
pub(super) struct Queued {
    pub(super) name: StoreKey,
    /// The cell, if this is one.
    pub(super) cell: Option<Cell>,
    /// Whether it waited for the probe; see `version_index`.
    pub(super) had_failed: bool,
}

/// The end of a write.
pub(super) enum Flushed {
    /// The store has made the change of this version, or needs none.
    Stored {
        stamp: Option<Stamp>,
        /// Whether it has the value of a set now.
        has_value: bool,
    },
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
        entry: &StrongArc<Entry<K, V>>,
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
        let lifecycle = &self.state.lifecycle;
        // First, because the code of a key runs here and may panic.
        self.track(&name, key, set);
        if !lifecycle.start(Work::Duty, is_inside_a_load) {
            return Some(Box::pin(async { Err(closed()) }));
        }
        let made = Made {
            at: self.state.clock.exact(),
            began: self.state.groups.now(),
        };
        // Counted first, because a task may flush the write at once.
        self.pending.fetch_add(1, Ordering::Relaxed);
        let recorded = loop {
            if let Some(recorded) = self.versions.write(hash, write.clone(), made) {
                break recorded;
            }
            // Another thread has forgotten the key, because nothing of it was resident.
            self.track(&name, key, set);
        };
        if !recorded.is_first {
            self.pending.fetch_sub(1, Ordering::Relaxed);
            lifecycle.end(Work::Duty);
        }
        let queued = Queued {
            name,
            cell: None,
            had_failed: false,
        };
        if recorded.is_ready && self.queue.push(queued) {
            self.start_task();
        }
        if lifecycle.is_closed() {
            // The close may have looked at the queue before.
            self.give_up_all();
        }
        let number = recorded.number;
        let fleet = self.clone();
        // The future is polled, or dropped, once the value is in the table.
        let in_table = InTable(move || fleet.in_table(hash, number));
        let fleet = self.clone();
        Some(Box::pin(async move {
            drop(in_table);
            fleet.wait(hash, number).await
        }))
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
                    return self.versions.ended(hash, number).map_or(Ok(()), Err);
                }
                WriteState::Failed(error) => return Err(error),
                WriteState::InFlight => changed.await,
            }
        }
    }

    pub(super) fn start_task(self: &Arc<Self>) {
        let task = Task::new(self, false);
        self.store.spawn(task.run());
    }

    pub(super) fn start_probe(self: &Arc<Self>) {
        let task = Task::new(self, true);
        self.store.spawn(task.probe());
    }

    /// Ends the pause of the probe, because the store may be back.
    pub(super) fn wake_probe(self: &Arc<Self>) {
        if self.queue.wake() {
            self.start_probe();
        }
    }

    /// The value of a write is in the table. The write no longer keeps it too, unless it is about
    /// to be flushed: the table bounds the memory, and the writes must not add to it.
    fn in_table(&self, hash: u128, number: u64) {
        if self.queue.is_crowded() {
            self.versions.let_go(hash, number);
        }
    }

    /// The attempt of a task failed, so its write waits for the probe.
    pub(super) fn wait_for_probe(self: &Arc<Self>, queued: Queued, error: &StoreError) {
        let is_down = matches!(
            error.class(),
            ErrorClass::Unavailable | ErrorClass::TimedOut | ErrorClass::Busy | ErrorClass::Denied
        );
        let queued = self.put_off(queued, error, true);
        let after = self.queue.failed(queued, is_down);
        let mut start_probe = after.start_probe;
        for queued in after.put_off {
            self.is_taken(&queued);
            if self.is_full() && queued.cell.is_none() {
                let hash = queued.name.hash();
                if let Some(attempt) = self.attempt(hash) {
                    if self.give_up(hash, &attempt, error.clone()) {
                        continue;
                    }
                }
            }
            let queued = self.put_off(queued, error, false);
            start_probe |= self.queue.failed(queued, false).start_probe;
        }
        if start_probe {
            self.start_probe();
        }
    }

    /// Whether too many writes wait.
    pub(super) fn is_full(&self) -> bool {
        self.pending.load(Ordering::Relaxed) > WAITING
    }

    /// A task takes this from the queue.
    pub(super) fn is_taken(&self, queued: &Queued) {
        match queued.cell {
            Some(cell) => self.cells.is_taken(cell, queued.had_failed),
            None => (self.versions).is_taken(queued.name.hash(), queued.had_failed),
        }
    }

    fn put_off(&self, queued: Queued, error: &StoreError, was_flushing: bool) -> Option<Queued> {
        let must_queue = match queued.cell {
            Some(cell) => self.cells.put_off(cell, error, was_flushing),
            None => (self.versions).put_off(queued.name.hash(), error, was_flushing),
        };
        let had_failed = true;
        must_queue.then_some(Queued {
            had_failed,
            ..queued
        })
    }

    /// The next attempt to flush a write of a key.
    pub(super) fn attempt(&self, hash: u128) -> Option<Attempt<K, V>> {
        let (time, now) = (self.store.now(), self.state.clock.exact());
        self.versions.attempt(hash, |made| {
            let age = now.saturating_sub(made) / 1_000;
            time.map(|time| time.saturating_sub(age))
        })
    }

    /// Finds the value of a set in the table. If it has left, the write has become an invalidation.
    pub(super) fn find_value(&self, hash: u128, attempt: &mut Attempt<K, V>) {
        if let Write::SetResident(at) = attempt.write {
            let is_it = |entry: &StrongArc<Entry<K, V>>| {
                address(entry) == at && entry.times().created() <= attempt.made.at
            };
            let resident = self.resident(hash).filter(is_it);
            attempt.write = resident.map_or(Write::Invalidate, Write::Set);
        }
    }

    pub(super) async fn flush_one(
        self: &Arc<Self>,
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
            seen: attempt.seen.map(|seen| seen.epoch),
        };
        let sealed = self.seal(name, attempt, micros);
        let checksum = sealed.as_ref().map_or(0, |sealed| checksum(&sealed.0));
        let mut has_value = sealed.is_some();
        let flushed = match sealed {
            Some((payload, ttl)) => match self.store.set(name, payload, ttl, birth).await {
                // The value of another process must not stay there instead.
                Err(error) if error.class() == ErrorClass::TooLarge => {
                    self.counters.not_stored.add();
                    has_value = false;
                    self.store.invalidate(name, birth).await
                }
                result => result,
            },
            None => self.store.invalidate(name, birth).await,
        };
        match flushed {
            Ok(Stored::Yes { epoch }) => {
                let version = self.version(epoch);
                let stamp = Some(Stamp { version, checksum });
                Ok(Flushed::Stored { stamp, has_value })
            }
            Ok(Stored::Refused) => Ok(Flushed::Superseded),
            // The store holds data not written by everfresh, and leaves it alone. There is no
            // payload to replace.
            Err(error) if error.class() == ErrorClass::Foreign => {
                let (stamp, has_value) = (None, false);
                Ok(Flushed::Stored { stamp, has_value })
            }
            Err(error) => Err(error),
        }
    }

    /// The payload of a set, with the time that is left to it. `None` if the write is an
    /// invalidation, or has become one: the value has expired, or cannot be stored. If the store
    /// cannot hold this value, it must not hold an older one either.
    fn seal(
        self: &Arc<Self>,
        name: &StoreKey,
        attempt: &Attempt<K, V>,
        born: u64,
    ) -> Option<(Vec<u8>, Duration)> {
        let Write::Set(entry) = &attempt.write else {
            return None;
        };
        let now = self.state.clock.now();
        let value = entry.value().filter(|_| now < entry.times().expires())?;
        let terms = terms_from(&entry.times(), now);
        let Some(cells) = self.epochs(entry, attempt.made.began) else {
            self.counters.not_stored.add();
            self.prepare_cells_soon(entry.cells().collect());
            return None;
        };
        let sealed = Sealed {
            born: Some(born),
            cells: &cells,
            ..Sealed::loaded(value, &terms)
        };
        match self.format.seal_answer(name, sealed) {
            Ok(payload) => Some((payload, ttl(&terms))),
            Err(reason) => {
                trace::not_stored(&self.state.name, &reason);
                self.counters.payload_errors(reason);
                self.counters.not_stored.add();
                None
            }
        }
    }

    /// The store has made the change of an attempt, or needs none.
    pub(super) fn stored(
        &self,
        hash: u128,
        attempt: &Attempt<K, V>,
        stamp: Option<Stamp>,
        has_value: bool,
    ) {
        self.counters.flushed.add();
        let ended = self.versions.flushed(hash, attempt, stamp, has_value);
        self.ended(&ended);
        if let (false, Write::Set(entry)) = (ended.is_latest, &attempt.write) {
            // Another process changed the key after this write, and the notification came first.
            self.remove_entry(hash, entry);
        }
    }

    /// The store refused a write, because another process wrote the key later. The value that is
    /// resident here is older.
    pub(super) fn superseded(&self, hash: u128, attempt: &Attempt<K, V>) {
        self.counters.superseded.add();
        // Looked up and removed while the write is pending, because no payload of the store is
        // installed then, and a caller that learns of it must not read the value any more. A later
        // write of this process is recorded before its value is resident, so it is not this one.
        let resident = self.resident(hash);
        if let (true, Some(entry)) = (self.versions.is_last(hash, attempt), resident) {
            self.remove_entry(hash, &entry);
        }
        let error = StoreError::new(ErrorClass::Superseded, "");
        let ended = self.versions.end(hash, attempt, error);
        self.ended(&ended);
    }

    /// One write will never be flushed, so the payloads in the store may be older than this
    /// process. Returns whether the key has no later write.
    pub(super) fn give_up(&self, hash: u128, attempt: &Attempt<K, V>, error: StoreError) -> bool {
        trace::given_up(&self.state.name);
        self.counters.given_up.add();
        self.state.lifecycle.lose(|lost| &lost.writes);
        // Before the key can be read from the store again.
        self.distrust();
        let resident = self.resident(hash);
        let ended = self.versions.end(hash, attempt, error);
        self.ended(&ended);
        if let (false, Some(entry)) = (ended.is_latest, resident) {
            // Another process changed the key after this write.
            self.remove_entry(hash, &entry);
        }
        ended.is_last
    }

    fn ended(&self, ended: &Ended) {
        if ended.is_last {
            self.pending.fetch_sub(1, Ordering::Relaxed);
            self.state.lifecycle.end(Work::Duty);
        }
    }

    /// From now on this process uses no payload that was stored before this moment.
    pub(super) fn distrust(&self) {
        let (at, time) = (self.state.clock.exact(), self.store.now());
        loop {
            let before = self.distrusted.load();
            let before = (*before).as_ref();
            let given_up = GivenUp {
                at: at.max(before.map_or(0, |before| before.at)),
                time: time.max(before.and_then(|before| before.time)),
            };
            let given_up = Some(Arc::new(given_up));
            if self.distrusted.compare_exchange(before, given_up) {
                return;
            }
        }
    }
}

/// Runs its function when it is dropped: once the value of a write is in the table.
struct InTable<F: FnMut()>(F);

impl<F: FnMut()> Drop for InTable<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
