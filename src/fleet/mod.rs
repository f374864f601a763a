//! The second level of one cache: loads ask the store first, results go to it, and changes of other
//! processes come from it.
//!
//! No hit comes here. A job that would run the loader passes through `fetch` first. `lease` is the
//! lease under which it loads, `outbox` holds the writes of this process, `changes` handles those
//! of other processes, and `version_index` knows the epochs of the keys. `groups` and `cells` do
//! for groups of keys what the others do for keys. The cache sees all this through the trait in
//! `level`.

mod asking;
mod batch;
mod batcher;
mod cells;
mod changes;
mod fetch;
mod flushing;
mod groups;
mod handover;
mod lease;
mod level;
mod outbox;
mod pending_writes;
mod reading;
mod readings;
mod restore;
mod second_level;
mod stats;
mod store_handle;
mod tasks;
mod terms;
mod version;
mod version_index;
mod write_queue;

use std::hash::Hash;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

pub(crate) use self::level::{Connect, Level, PendingWrite};
pub(crate) use self::reading::Reading;
pub use self::second_level::SecondLevel;
pub use self::stats::FleetStats;
#[cfg(all(loom, feature = "loom"))]
pub use self::{
    batcher::Batcher, handover::Handover, readings::Readings, tasks::Tasks, write_queue::WriteQueue,
};

#[cfg(not(all(loom, feature = "loom")))]
use self::batcher::Batcher;
use self::cells::Cells;
use self::outbox::Queued;
#[cfg(not(all(loom, feature = "loom")))]
use self::readings::Readings;
use self::stats::FleetCounters;
use self::store_handle::StoreHandle;
use self::version_index::VersionIndex;
#[cfg(not(all(loom, feature = "loom")))]
use self::write_queue::WriteQueue;
use crate::load::engine::RunJob;
use crate::load::job::Job;
use crate::load::state::CacheState;
use crate::protocol::entries::Entries;
use crate::protocol::entry::Entry;
use crate::protocol::removal::Cause;
use crate::store::{self, Codec, Format, Namespace, Origin, StoreKey};
use crate::sync::{Arc, ArcCell, AtomicU64, AtomicUsize, Ordering, StrongArc, Weak};
use crate::time::clock::Tick;

/// The limit on keys that ask the store and results that go to it at one time. More keys are
/// refused, more results are dropped.
const IN_FLIGHT: usize = 65_536;

/// A key of at most this many encoded bytes is written without growing a buffer.
const SHORT: usize = 64;

/// The pauses between attempts to reach the store: the first and the longest.
const PAUSES: (Tick, Tick) = (50_000_000, 5_000_000_000);

/// The second level, at work.
struct Fleet<K, V> {
    store: Arc<StoreHandle>,
    namespace: Namespace,
    format: Format<V>,
    keys: Box<dyn Codec<K>>,
    lease: Duration,
    origin: Origin,
    serial: AtomicU64,
    versions: VersionIndex<K, V>,
    cells: Cells,
    counters: FleetCounters,
    /// For work that outlives a call.
    this: Weak<Self>,
    /// Weak, because the cache ends with its last handle, whatever work is under way here.
    entries: Weak<Entries<K, V>>,
    state: Arc<CacheState<K, V>>,
    load: RunJob<K, V>,
    /// Jobs that go to the store together.
    asking: Batcher<Job<K, V>>,
    /// Keys that another process refreshed, to be read together.
    newer: Batcher<u128>,
    /// The callers that read their keys themselves.
    readings: Readings,
    in_flight: AtomicUsize,
    /// The keys of pending writes.
    queue: WriteQueue<Queued>,
    pending: AtomicUsize,
    /// When a write of this process was given up last. Payloads stored before that are not used.
    distrusted: ArcCell<GivenUp>,
}

/// The moment at which a write was given up.
struct GivenUp {
    /// By the clock of this process, because that of the store may not be known yet.
    at: Tick,
    /// By the clock of the store, which may be set back later.
    time: Option<u64>,
}

impl<K, V> Fleet<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    fn new(
        level: SecondLevel<K, V>,
        capacity: usize,
        entries: &Arc<Entries<K, V>>,
        state: Arc<CacheState<K, V>>,
        load: RunJob<K, V>,
    ) -> Arc<Self> {
        let fleet = Arc::new_cyclic(|this| Fleet {
            this: this.clone(),
            store: StoreHandle::new(store::instrumented(level.store, &state.name, &state.clock)),
            namespace: level.namespace,
            format: level.format,
            keys: level.keys,
            lease: level.lease,
            origin: Origin::random(),
            serial: AtomicU64::new(0),
            versions: VersionIndex::new(capacity),
            cells: Cells::default(),
            counters: FleetCounters::default(),
            entries: Arc::downgrade(entries),
            state,
            load,
            asking: Batcher::default(),
            newer: Batcher::default(),
            readings: Readings::default(),
            in_flight: AtomicUsize::new(0),
            queue: WriteQueue::default(),
            pending: AtomicUsize::new(0),
            distrusted: ArcCell::empty(),
        });
        let listener: Weak<Self> = Arc::downgrade(&fleet);
        fleet.store.subscribe(&fleet.namespace, listener);
        fleet
    }

    /// The name of a key in the store. `None` if its codec cannot encode it; the key then has no
    /// second level.
    fn name(&self, key: &K) -> Option<StoreKey> {
        self.name_by(key, &mut Vec::with_capacity(SHORT))
    }

    /// [`name`](Self::name), with a buffer that is reused.
    fn name_by(&self, key: &K, encoded: &mut Vec<u8>) -> Option<StoreKey> {
        encoded.clear();
        let done = catch_unwind(AssertUnwindSafe(|| self.keys.encode(key, encoded)));
        let written = matches!(done, Ok(Ok(())));
        written.then(|| StoreKey::new(&self.namespace, encoded))
    }

    /// Makes sure that the changes of a key are followed. Returns false if the key has a pending
    /// write.
    fn track(&self, name: &StoreKey, key: &K, set: usize) -> bool {
        let in_use = || {
            let entries = self.entries.upgrade();
            move |set: usize, key: &K| {
                let entries = entries.as_ref();
                entries.is_some_and(|entries| entries.find_in(set, key).is_some())
            }
        };
        self.versions.track(name.hash(), key, set, in_use)
    }

    /// The value or placeholder of a key.
    fn resident(&self, hash: u128) -> Option<StrongArc<Entry<K, V>>> {
        let (key, set) = self.versions.key(hash)?;
        let found = self.entries.upgrade()?.find_in(set, &key)?;
        Some(found.1.into_arc())
    }

    /// Removes exactly this value, if it is still resident.
    fn remove_entry(&self, hash: u128, entry: &StrongArc<Entry<K, V>>) {
        let (Some((key, set)), Some(entries)) = (self.versions.key(hash), self.entries.upgrade())
        else {
            return;
        };
        if let Some((place, found)) = entries.find_in(set, &key) {
            if StrongArc::ptr_eq(found.arc(), entry) {
                entries.remove_entry(place, entry, Cause::Invalidated);
            }
        }
        entries.removals.deliver();
        self.state.look(true);
    }

    /// Runs work that no caller waits for, unless too much of it is under way.
    fn in_background(self: &Arc<Self>, work: impl Future<Output = ()> + Send + 'static) {
        let starts = self.enter().is_some_and(|place| {
            self.store.spawn(async move {
                work.await;
                drop(place);
            })
        });
        if !starts {
            self.counters.not_stored.add();
        }
    }

    fn stats(&self) -> FleetStats {
        self.counters.snapshot(
            self.pending.load(Ordering::Relaxed),
            self.versions.len(),
            self.store.state(),
            self.store.stats(),
        )
    }

    /// One of a bounded number of operations under way.
    fn enter(self: &Arc<Self>) -> Option<Underway<K, V>> {
        // Relaxed: the count bounds memory and guards none.
        let underway = Underway(self.clone());
        (self.in_flight.fetch_add(1, Ordering::Relaxed) < IN_FLIGHT).then_some(underway)
    }
}

struct Underway<K, V>(Arc<Fleet<K, V>>);

impl<K, V> Drop for Underway<K, V> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
