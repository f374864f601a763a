//! Writes of callers: a value that is put in, a key that is removed.

use std::hash::{BuildHasher, Hash};

use crate::cache::Cache;
use crate::cache::cached::Cached;
use crate::cache::lookup::Lookup;
use crate::cache::read::Core;
use crate::fleet::PendingWrite;
use crate::load::loader::Loaded;
use crate::protocol::entry::{Entry, EvictionState};
use crate::protocol::fifo::generation;
use crate::store::StoreError;
use crate::sync::StrongArc;
use crate::sync::runtime::block_on;

/// One write.
enum WriteOp<'a, K, V, Q: ?Sized> {
    Insert(StrongArc<Entry<K, V>>),
    Remove(&'a Q),
    RemoveAll,
}

/// The effects of one write.
struct Written<K, V> {
    /// The value that [`WriteOp::Remove`] removed, which may have expired.
    removed: Option<StrongArc<Entry<K, V>>>,
    /// The write on its way to the store, if there is a store and one key was written.
    pending: Option<PendingWrite>,
}

impl<K, V> Written<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// Waits until the store knows the write.
    async fn flushed(self) -> Result<(), StoreError> {
        match self.pending {
            Some(pending) => pending.await,
            None => Ok(()),
        }
    }
}

impl<K, V, S> Core<K, V, S>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher,
{
    /// Makes one write, in the order on which P4 rests. `hash` is of no use to
    /// [`WriteOp::RemoveAll`].
    ///
    /// 1. The version index. From then on no load takes an older value from the store, and none
    ///    sends one there (see `fleet::outbox`). If the table came first, a load that begins
    ///    between the two steps could put the old value back.
    /// 2. The table. Loads and refreshes that are under way lose their entry, so their results are
    ///    discarded.
    /// 3. The negative entries. A load that ended before step 2 may have left one, and a load that
    ///    ends after it cannot commit one (see `negative`). If this came first, a load that ends
    ///    between the two steps would leave its entry.
    ///
    /// `fleet::changes` takes the same order for the writes of other processes.
    fn write<Q>(&self, hash: u64, mut change: WriteOp<'_, K, V, Q>) -> Written<K, V>
    where
        Q: Lookup<K> + ?Sized,
    {
        let set = self.entries.table.set_of(hash);
        let pending = self.fleet.as_ref().and_then(|fleet| match &change {
            WriteOp::Insert(entry) => fleet.set(entry, set),
            WriteOp::Remove(key) => fleet.invalidate(&key.to_key(), set),
            WriteOp::RemoveAll => {
                fleet.invalidate_all();
                None
            }
        });
        let mut removed = None;
        match &mut change {
            WriteOp::Insert(entry) => {
                self.entries.insert(hash, entry, self.state.clock.now());
            }
            WriteOp::Remove(key) => removed = self.entries.remove(hash, |other| key.is_key(other)),
            WriteOp::RemoveAll => self.entries.invalidate_all(),
        }
        match &change {
            WriteOp::Insert(entry) => self.forget(&entry.key),
            WriteOp::Remove(key) => self.forget(*key),
            WriteOp::RemoveAll => self.state.negative.forget_all(),
        }
        self.state.negative.drop_content();
        Written { removed, pending }
    }

    fn insert(&self, key: K, mut loaded: Loaded<V>) -> Written<K, V> {
        let Some(value) = loaded.value.take() else {
            return self.remove(&key);
        };
        let hash = self.hasher.hash_one(&key);
        let now = self.state.clock.now();
        let groups = std::mem::take(&mut loaded.groups);
        // Of this moment: the value came with the call.
        let stamps = self.state.stamps(&key, groups, self.state.groups.now());
        let eviction_state = EvictionState {
            uses: 0,
            generation: generation(hash, now),
            weight: self.state.weigh(&key, &value),
        };
        let policy = &self.state.policy;
        let times = policy.draw_times(loaded.given(), now, None, None);
        let entry = Entry::ready(key, value, times, stamps, eviction_state);
        let entry = StrongArc::new(entry);
        self.write(hash, WriteOp::<_, _, K>::Insert(entry))
    }

    fn remove<Q>(&self, key: &Q) -> Written<K, V>
    where
        Q: Lookup<K> + ?Sized,
    {
        self.write(self.hasher.hash_one(key), WriteOp::Remove(key))
    }
}

impl<K, V, S> Cache<K, V, S>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher,
{
    /// Puts a value in, with the cache's times, over the value that is there.
    ///
    /// It wins against every load and refresh that began before it: their results are discarded.
    /// Callers that already wait for such a load still get its result. Until the first refresh the
    /// value counts as free to recompute, so it is not refreshed early.
    ///
    /// An inserted [`Loaded::not_found`] removes the key, as [`invalidate`](Self::invalidate) does.
    /// A store learns of the write in the background, with repetitions until it knows;
    /// [`insert_everywhere`](Self::insert_everywhere) waits for that.
    ///
    /// Because of the conversion, give the value its type: `"text".to_string()`, not
    /// `"text".into()`.
    ///
    /// # Cost
    ///
    /// One allocation for the entry; with a full cache, one eviction.
    ///
    /// # Panics
    ///
    /// Only if `Hash` or `Eq` of the key, the weigher or the group function does; the cache stays
    /// usable.
    ///
    /// # Example
    ///
    /// ```
    /// # use everfresh::Cache;
    /// let cache: Cache<u64, u64> = Cache::builder().compute(|n: &u64| n * n).build()?;
    /// cache.insert(3, 10);
    /// assert_eq!(*cache.get_blocking(&3)?, 10);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn insert(&self, key: K, value: impl Into<Loaded<V>>) {
        self.0.insert(key, value.into());
    }

    /// [`insert`](Self::insert), and waits until the store knows the value.
    ///
    /// The other processes of the fleet hear of it from the store. Without a store it is ready at
    /// once.
    ///
    /// # Errors
    ///
    /// The store does not know the value yet. In this process the value is in. The store gets it as
    /// soon as it can be reached; until then this process does not read the key from the store. If
    /// 65 536 other keys wait for the store already, this write is given up: see
    /// [`docs::store`](crate::docs::store).
    ///
    /// # Panics
    ///
    /// As [`insert`](Self::insert).
    ///
    /// # Cancel safety
    ///
    /// The first poll makes the write. Dropping the future after it undoes nothing: the store still
    /// gets the value.
    ///
    /// # Example
    ///
    /// ```
    /// # #[cfg(feature = "postcard")]
    /// # futures_lite::future::block_on(async {
    /// # use std::sync::Arc;
    /// # use everfresh::{Cache, SecondLevel, store::MemoryStore};
    /// let store = Arc::new(MemoryStore::new());
    /// let cache: Cache<u64, u64> = Cache::builder()
    ///     .store(SecondLevel::new(store, "squares:v1")?)
    ///     .compute(|n: &u64| n * n)
    ///     .build()?;
    /// cache.insert_everywhere(3, 10).await?;
    /// assert!(cache.invalidate_everywhere(&3).await?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    pub async fn insert_everywhere(
        &self,
        key: K,
        value: impl Into<Loaded<V>>,
    ) -> Result<(), StoreError> {
        self.0.insert(key, value.into()).flushed().await
    }

    /// [`insert_everywhere`](Self::insert_everywhere), for threads.
    ///
    /// Not for tasks: it blocks the runtime's thread.
    ///
    /// # Errors
    ///
    /// As [`insert_everywhere`](Self::insert_everywhere).
    ///
    /// # Panics
    ///
    /// As [`insert`](Self::insert).
    pub fn insert_everywhere_blocking(
        &self,
        key: K,
        value: impl Into<Loaded<V>>,
    ) -> Result<(), StoreError> {
        block_on(self.insert_everywhere(key, value))
    }

    /// Removes a key; returns whether a value was resident, expired or not.
    ///
    /// It wins against every load and refresh that began before it: their results are discarded,
    /// whether the key was resident or missing. Callers that already wait for such a load get its
    /// result; callers that come later start a new load.
    ///
    /// A store learns of the write in the background, as with [`insert`](Self::insert);
    /// [`invalidate_everywhere`](Self::invalidate_everywhere) waits for that.
    ///
    /// # Panics
    ///
    /// Only if `Hash`, `Eq` or `Clone` of the key does; the cache stays usable.
    ///
    /// # Example
    ///
    /// ```
    /// # use everfresh::Cache;
    /// let cache: Cache<u64, u64> = Cache::builder().compute(|n: &u64| n * n).build()?;
    /// cache.insert(3, 10);
    /// assert!(cache.invalidate(&3));
    /// assert_eq!(*cache.get_blocking(&3)?, 9);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn invalidate<Q>(&self, key: &Q) -> bool
    where
        Q: Lookup<K> + ?Sized,
    {
        self.0.remove(key).removed.is_some()
    }

    /// [`invalidate`](Self::invalidate), and waits until the store knows that the key is gone.
    ///
    /// Other processes stop serving the value when they hear of it: within milliseconds while they
    /// are connected.
    ///
    /// # Errors
    ///
    /// As [`insert_everywhere`](Self::insert_everywhere); in this process the key is gone.
    ///
    /// # Panics
    ///
    /// As [`invalidate`](Self::invalidate).
    ///
    /// # Cancel safety
    ///
    /// As [`insert_everywhere`](Self::insert_everywhere).
    pub async fn invalidate_everywhere<Q>(&self, key: &Q) -> Result<bool, StoreError>
    where
        Q: Lookup<K> + ?Sized,
    {
        let written = self.0.remove(key);
        let had_a_value = written.removed.is_some();
        written.flushed().await.map(|()| had_a_value)
    }

    /// [`invalidate_everywhere`](Self::invalidate_everywhere), for threads.
    ///
    /// Not for tasks: it blocks the runtime's thread.
    ///
    /// # Errors
    ///
    /// As [`insert_everywhere`](Self::insert_everywhere); in this process the key is gone.
    ///
    /// # Panics
    ///
    /// As [`invalidate`](Self::invalidate).
    pub fn invalidate_everywhere_blocking<Q>(&self, key: &Q) -> Result<bool, StoreError>
    where
        Q: Lookup<K> + ?Sized,
    {
        block_on(self.invalidate_everywhere(key))
    }

    /// Removes a key and returns the value that this call removed.
    ///
    /// The same write as [`invalidate`](Self::invalidate), with the same effect on loads and on a
    /// store. Of several calls at the same time one returns a value, and the others return `None`.
    /// The value is the one that was resident at the moment of the removal. The result of a load or
    /// refresh that was still running then is discarded.
    ///
    /// A stale value is returned too. `None` if the key was missing, was still being loaded, or had
    /// a value past its hard limit. Not counted as a read.
    ///
    /// # Panics
    ///
    /// As [`invalidate`](Self::invalidate).
    ///
    /// # Example
    ///
    /// ```
    /// # use everfresh::Cache;
    /// let cache: Cache<u64, u64> = Cache::builder().compute(|n: &u64| n * n).build()?;
    /// cache.insert(3, 10);
    /// assert_eq!(cache.remove(&3).as_deref(), Some(&10));
    /// assert!(cache.remove(&3).is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn remove<Q>(&self, key: &Q) -> Option<Cached<K, V>>
    where
        Q: Lookup<K> + ?Sized,
    {
        let removed = self.0.remove(key).removed?;
        // Read after the removal, so that no value past its hard limit is returned (P6).
        let now = self.0.state.clock.now();
        let condition = self.0.peek_state(&removed, now)?;
        Some(Cached::owned(removed, now, condition.into()))
    }

    /// Removes every key; for each of them the same as [`invalidate`](Self::invalidate).
    ///
    /// The keys are not removed at one moment: a key that is inserted meanwhile may stay or may be
    /// removed, even after this call has removed it once. With a store, every key that this process
    /// knows is removed there too, in the background; to remove all others take a new namespace.
    ///
    /// # Cost
    ///
    /// One look at every set of the table.
    pub fn invalidate_all(&self) {
        self.0.write(0, WriteOp::<_, _, K>::RemoveAll);
    }
}
