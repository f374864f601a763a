//! The second level as the cache sees it: a trait object, so that a program whose caches have no
//! store compiles nothing of the fleet.

use std::hash::Hash;

use super::{Fleet, FleetStats, SecondLevel};
use crate::load::engine::RunJob;
use crate::load::job::Job;
use crate::load::state::CacheState;
use crate::protocol::entries::Entries;
use crate::protocol::entry::Entry;
use crate::store::{Reply, StoreError};
use crate::sync::future::BoxFuture;
use crate::sync::{Arc, Ordering, StrongArc};

/// A write on its way to the store. Ready once the store knows it; an error says that the store
/// does not know it yet, and is tried again, or that the write was given up.
pub(crate) type PendingWrite = Reply<'static, Result<(), StoreError>>;

/// The second level of one cache.
pub(crate) trait Level<K, V>: Send + Sync {
    /// Enqueues that a key is set to this value; to be called before the value is resident.
    fn set(&self, entry: &StrongArc<Entry<K, V>>, set: usize) -> Option<PendingWrite>;

    /// Enqueues that a key is invalidated; to be called before it leaves the table.
    fn invalidate(&self, key: &K, set: usize) -> Option<PendingWrite>;

    /// Invalidates every key that this process knows.
    fn invalidate_all(&self);

    /// Whether no key is being read, so that a caller which reads one by itself is as fast as one
    /// whose key travels with others.
    fn is_idle(&self) -> bool;

    /// Reads the keys of jobs from the store together, in the task that polls this.
    fn read_together(&self, jobs: Vec<Job<K, V>>) -> BoxFuture;

    /// Runs work that no caller polls.
    fn spawn(&self, work: BoxFuture);

    fn stats(&self) -> FleetStats;
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

    fn spawn(&self, work: BoxFuture) {
        self.store.spawn(work);
    }

    fn stats(&self) -> FleetStats {
        Fleet::stats(self)
    }
}
