//! The second level as the cache sees it: a trait object, so that a program whose caches have no
//! store compiles nothing of the fleet.

use std::hash::Hash;

use super::store_handle::closed;
use super::{Fleet, FleetStats, SecondLevel};
use crate::load::engine::RunJob;
use crate::load::job::Job;
use crate::load::state::CacheState;
use crate::protocol::entries::Entries;
use crate::protocol::entry::Entry;
use crate::protocol::flight::Help;
use crate::protocol::groups::Cell;
use crate::store::{Reply, StoreError};
use crate::sync::future::{BoxFuture, or};
use crate::sync::{Arc, Ordering, StrongArc, Weak};
use crate::time::clock::Tick;

/// A write on its way to the store. Ready once the store knows it; an error says that the store
/// does not know it yet, and is tried again, or that the write was given up.
pub(crate) type PendingWrite = Reply<'static, Result<(), StoreError>>;

/// The second level of one cache.
pub(crate) trait Level<K, V>: Send + Sync {
    /// Enqueues that a key is set to this value; to be called before the value is resident.
    fn set(&self, entry: &StrongArc<Entry<K, V>>, set: usize) -> Option<PendingWrite>;

    /// Enqueues that a key is invalidated; to be called before it leaves the table.
    fn invalidate(&self, key: &K, set: usize) -> Option<PendingWrite>;

    /// Enqueues that the groups of a cell are invalidated, and has `here` invalidate them in this
    /// process, after the first step and before the store may learn of it.
    fn invalidate_cell(&self, cell: Cell, here: &mut dyn FnMut()) -> PendingWrite;

    /// Invalidates every key that this process knows.
    fn invalidate_all(&self);

    /// Whether no key is being read, so that a caller which reads one by itself is as fast as one
    /// whose key travels with others.
    fn is_idle(&self) -> bool;

    /// Reads the keys of jobs from the store together, in the task that polls this.
    fn read_together(&self, jobs: Vec<Job<K, V>>) -> BoxFuture;

    /// A caller at this address begins to read the keys of its jobs. Returns false if the cache is
    /// about to close, and the work must be handed over.
    fn reading_begins(&self, address: usize, caller: Weak<dyn Help>) -> bool;

    /// It has ended, or its work was handed over.
    fn reading_ends(&self, address: usize);

    /// Runs work that no caller polls.
    fn spawn(&self, work: BoxFuture);

    fn stats(&self) -> FleetStats;

    /// The cache is about to close: writes that wait are tried now, and callers that read hand
    /// their work over.
    fn closing(&self);

    /// The cache was closed: gives up what waits, gives the leases back and then the store. Waits
    /// at most until `limit`.
    fn end(&self, limit: Tick) -> Reply<'_, ()>;
}

/// Puts a second level between a cache and its loader: given the capacity, the parts and the loader
/// of the cache, returns what runs its jobs instead, and the level.
pub(crate) type Connect<K, V> = Box<
    dyn FnOnce(
        usize,
        &Arc<Entries<K, V>>,
        &Arc<CacheState<K, V>>,
        RunJob<K, V>,
    ) -> (RunJob<K, V>, Arc<dyn Level<K, V>>),
>;

impl<K, V> SecondLevel<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    pub(crate) fn connect(self) -> Connect<K, V> {
        Box::new(move |capacity, entries, state, load| {
            let fleet = Fleet::new(self, capacity, entries, state.clone(), load);
            let starts = fleet.clone();
            (Box::new(move |job| starts.start(job)), Arc::new(fleet))
        })
    }
}

impl<K, V> Level<K, V> for Arc<Fleet<K, V>>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    fn set(&self, entry: &StrongArc<Entry<K, V>>, set: usize) -> Option<PendingWrite> {
        Fleet::set(self, entry, set)
    }

    fn invalidate(&self, key: &K, set: usize) -> Option<PendingWrite> {
        Fleet::invalidate(self, key, set)
    }

    fn invalidate_cell(&self, cell: Cell, here: &mut dyn FnMut()) -> PendingWrite {
        Fleet::invalidate_cell(self, cell, here)
    }

    fn invalidate_all(&self) {
        Fleet::invalidate_all(self);
    }

    fn is_idle(&self) -> bool {
        // Relaxed: either answer is right, and one of them is faster.
        self.in_flight.load(Ordering::Relaxed) == 0
    }

    fn read_together(&self, jobs: Vec<Job<K, V>>) -> BoxFuture {
        Box::pin(self.clone().read_jobs(jobs))
    }

    fn reading_begins(&self, address: usize, caller: Weak<dyn Help>) -> bool {
        let is_open = || self.state.lifecycle.is_open();
        self.readings.begin(address, caller, is_open)
    }

    fn reading_ends(&self, address: usize) {
        self.readings.end(address);
    }

    fn spawn(&self, work: BoxFuture) {
        self.store.spawn(work);
    }

    fn stats(&self) -> FleetStats {
        Fleet::stats(self)
    }

    fn closing(&self) {
        self.wake_probe();
        self.readings.hand_over();
    }

    fn end(&self, limit: Tick) -> Reply<'_, ()> {
        Box::pin(async move {
            let (lifecycle, clock) = (&self.state.lifecycle, &self.state.clock);
            self.end_jobs();
            self.give_up_all();
            // It finds no write, and ends.
            self.wake_probe();
            let idle = lifecycle.until(|lifecycle| lifecycle.duties() == 0);
            or(idle, clock.sleep_until(limit)).await;
            self.store.end(clock, limit).await;
        })
    }
}

impl<K, V> Fleet<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// Gives up the writes that wait, because the cache was closed.
    pub(super) fn give_up_all(&self) {
        for queued in self.queue.take_all() {
            self.is_taken(&queued);
            if let Some(cell) = queued.cell {
                if let Some(call) = self.cells.attempt(cell) {
                    self.give_up_cell(cell, call, closed());
                }
                continue;
            }
            let hash = queued.name.hash();
            if let Some(attempt) = self.attempt(hash) {
                self.give_up(hash, &attempt, closed());
            }
        }
    }
}
