//! The second level of one cache: loads ask the store first, results go to it, and changes of other processes come from it.
//!
//! Nothing of this is on the path of a hit. A job that would run the loader passes through here on its way; what it does is in `fetch`, the
//! lease under which it runs in `lease`, what this process changes in `tell`, what others change in `follow`, and what is known
//! of keys in `ledger`.

mod fetch;
mod follow;
mod gather;
mod lease;
mod ledger;
mod stats;
mod tell;

use std::fmt;
use std::hash::Hash;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

#[cfg(all(loom, feature = "loom"))]
pub use self::gather::Gathering;
pub use self::stats::FleetStats;
pub(crate) use self::tell::Told;

#[cfg(not(all(loom, feature = "loom")))]
use self::gather::Gathering;
use self::ledger::Ledger;
use self::stats::Counters;
use crate::clock::Tick;
use crate::entry::Entry;
use crate::job::{Job, Shared, Start};
use crate::removal::Cause;
use crate::residents::Residents;
use crate::store::{self, Codec, Format, Namespace, Origin, Store, StoreKey, Terms};
use crate::sync::{Arc, AtomicU64, AtomicUsize, Mutex, Ordering, Weak};

/// How long a lease lasts unless it is renewed, if not given.
const LEASE: Duration = Duration::from_secs(3);

/// Distinct keys that ask the store at once, and results that are on their way to it; more are refused, or dropped.
const IN_FLIGHT: usize = 65_536;

/// Keys whose encoded bytes are no more than this are written without growing a buffer.
const SHORT: usize = 64;

/// The pauses between attempts to reach the store: from, to.
const PAUSES: (Tick, Tick) = (50_000_000, 5_000_000_000);

/// A second level for one cache: the store, the part of it that is the cache's, and how keys and values are written.
///
/// # Example
///
/// ```
/// # #[cfg(feature = "postcard")] {
/// use std::sync::Arc;
/// use everfresh::store::{MemoryStore, SecondLevel};
/// use everfresh::Cache;
///
/// let store = Arc::new(MemoryStore::new());
/// let squares: Cache<u64, u64> = Cache::builder()
///     .store(SecondLevel::new(store, "squares:v1").unwrap())
///     .compute(|n: &u64| n * n)
///     .build()
///     .unwrap();
/// assert_eq!(*squares.get_blocking(&12).unwrap(), 144);
/// # }
/// ```
pub struct SecondLevel<K, V> {
    store: Arc<dyn Store>,
    namespace: Namespace,
    format: Format<V>,
    keys: Box<dyn Codec<K>>,
    lease: Duration,
}

impl<K, V> SecondLevel<K, V> {
    /// Keys and values as [`Postcard`](crate::store::Postcard) writes them.
    ///
    /// # Errors
    ///
    /// If the namespace is not one: see [`Namespace::new`].
    #[cfg(feature = "postcard")]
    pub fn new(store: Arc<impl Store>, namespace: &str) -> Result<Self, crate::BuildError>
    where
        K: serde::Serialize + serde::de::DeserializeOwned,
        V: serde::Serialize + serde::de::DeserializeOwned + 'static,
    {
        use crate::store::Postcard;
        let namespace = Namespace::new(namespace)?;
        Ok(Self::with(
            store,
            namespace,
            Format::new(Postcard),
            Postcard,
        ))
    }

    /// Values in this format. Of keys only the encoded bytes count: two keys are the same if theirs are.
    pub fn with(
        store: Arc<impl Store>,
        namespace: Namespace,
        format: Format<V>,
        keys: impl Codec<K>,
    ) -> Self {
        SecondLevel {
            store,
            namespace,
            format,
            keys: Box::new(keys),
            lease: LEASE,
        }
    }

    /// How long the fleet waits for a process that died while it loaded a key. 3 s if not given; at least 100 ms.
    ///
    /// A process that lives renews its lease at a third of this, however long its loader takes.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease.max(Duration::from_millis(100));
        self
    }
}

impl<K, V> fmt::Debug for SecondLevel<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecondLevel")
            .field("namespace", &self.namespace)
            .field("lease", &self.lease)
            .finish_non_exhaustive()
    }
}

/// The second level, at work.
pub(crate) struct Fleet<K, V> {
    store: Arc<dyn Store>,
    namespace: Namespace,
    format: Format<V>,
    keys: Box<dyn Codec<K>>,
    lease: Duration,
    origin: Origin,
    serial: AtomicU64,
    ledger: Ledger<K>,
    counters: Counters,
    /// For work that outlives a call.
    this: Weak<Self>,
    /// Not the cache's life: it ends with its last handle, whatever is under way here.
    residents: Weak<Residents<K, V>>,
    shared: Arc<Shared<K, V>>,
    load: Start<K, V>,
    /// Jobs on their way to the store, where they travel together.
    asking: Gathering<Job<K, V>>,
    in_flight: AtomicUsize,
    untold: AtomicUsize,
    /// Payloads up to this epoch are not used: a write of this process could not be told.
    distrusted: Mutex<u64>,
}

impl<K, V> Fleet<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    pub(crate) fn new(
        level: SecondLevel<K, V>,
        capacity: usize,
        residents: &Arc<Residents<K, V>>,
        shared: Arc<Shared<K, V>>,
        load: Start<K, V>,
    ) -> Arc<Self> {
        let fleet = Arc::new_cyclic(|this| Fleet {
            this: this.clone(),
            store: store::watched(level.store, &shared.name, &shared.clock),
            namespace: level.namespace,
            format: level.format,
            keys: level.keys,
            lease: level.lease,
            origin: Origin::random(),
            serial: AtomicU64::new(0),
            ledger: Ledger::new(capacity),
            counters: Counters::default(),
            residents: Arc::downgrade(residents),
            shared,
            load,
            asking: Gathering::default(),
            in_flight: AtomicUsize::new(0),
            untold: AtomicUsize::new(0),
            distrusted: Mutex::new(0),
        });
        let follower: Weak<Self> = Arc::downgrade(&fleet);
        fleet.store.follow(&fleet.namespace, follower);
        fleet
    }

    /// The name of a key in the store; `None` if its codec cannot write it, then the key does without.
    fn name(&self, key: &K) -> Option<StoreKey> {
        let mut encoded = Vec::with_capacity(SHORT);
        let done = catch_unwind(AssertUnwindSafe(|| self.keys.encode(key, &mut encoded)));
        let written = matches!(done, Ok(Ok(())));
        written.then(|| StoreKey::new(&self.namespace, &encoded))
    }

    /// Makes sure that changes of a key are followed; false if the store does not know yet what this process wrote.
    fn track(&self, name: &StoreKey, key: &K, set: usize) -> bool {
        let in_use = || {
            let residents = self.residents.upgrade();
            move |set: usize, key: &K| {
                let residents = residents.as_ref();
                residents.is_some_and(|residents| residents.find_in(set, key).is_some())
            }
        };
        self.ledger.track(name.hash(), key, set, in_use)
    }

    /// Takes exactly this value out, if it is still resident.
    fn take_out(&self, hash: u128, entry: &Arc<Entry<K, V>>) {
        let (Some((key, set)), Some(residents)) = (self.ledger.key(hash), self.residents.upgrade())
        else {
            return;
        };
        if let Some((place, found)) = residents.find_in(set, &key) {
            if Arc::ptr_eq(found.arc(), entry) {
                residents.take_out(place, entry, Cause::Invalidated);
            }
        }
        residents.removals.deliver();
    }

    /// Runs what nobody waits for, unless too much of it is under way.
    fn in_background(self: &Arc<Self>, work: impl Future<Output = ()> + Send + 'static) {
        let Some(place) = self.enter() else {
            self.counters.not_stored.add();
            return;
        };
        self.store.spawn(Box::pin(async move {
            work.await;
            drop(place);
        }));
    }

    /// One of a bounded number of things under way.
    fn enter(self: &Arc<Self>) -> Option<Underway<K, V>> {
        // Relaxed: it bounds memory, it guards none.
        let underway = Underway(self.clone());
        (self.in_flight.fetch_add(1, Ordering::Relaxed) < IN_FLIGHT).then_some(underway)
    }
}

impl<K, V> Fleet<K, V> {
    pub(crate) fn stats(&self) -> FleetStats
    where
        K: Clone,
    {
        self.counters.snapshot(
            self.untold.load(Ordering::Relaxed),
            self.ledger.len(),
            self.store.state(),
            self.store.stats(),
        )
    }
}

struct Underway<K, V>(Arc<Fleet<K, V>>);

impl<K, V> Drop for Underway<K, V> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How long the store keeps a value: its hard limit.
fn ttl(terms: &Terms) -> Duration {
    terms.ttl().max(Duration::from_millis(1))
}
