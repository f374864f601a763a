//! Groups of keys, as users see them.

use std::hash::{BuildHasher, Hash};
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::cache::Cache;
use crate::cache::builder::Builder;
use crate::cache::read::Core;
use crate::fleet::PendingWrite;
use crate::panics::discard;
use crate::protocol::entry::Entry;
use crate::protocol::groups::Cell;
use crate::protocol::table::Place;
use crate::store::StoreError;
use crate::sync::Held;
use crate::sync::runtime::block_on;

impl<K, V, S> Builder<K, V, S> {
    /// The groups of a key, such as its tenant: [`Cache::invalidate_group`] outdates all of a group
    /// at once. Default: none.
    ///
    /// A group is any number; of a name, take a hash. A key may have several groups, or none. The
    /// loader may add further ones with [`Loaded::group`](crate::Loaded::group). See
    /// [`docs::groups`](crate::docs::groups).
    ///
    /// The function runs once for each load and each insert of its key, and for callers that find a
    /// load under way which began before the last invalidation. It returns the same groups each
    /// time. A panic in it fails the load.
    ///
    /// # Cost
    ///
    /// The first invalidation allocates 128 KiB. A value with one group takes no more room than one
    /// without; with several it takes one allocation and six bytes for each group. The time limits
    /// of a value with groups are rounded down, by at most 8e-6 of the fresh time and by at most
    /// 0.2 % of the stale windows.
    ///
    /// # Example
    ///
    /// ```
    /// use everfresh::Cache;
    ///
    /// let invoices: Cache<(u64, u64), String> = Cache::builder()
    ///     .group_by(|&(tenant, _)| [tenant])
    ///     .compute(|(tenant, number): &(u64, u64)| format!("invoice {number} of {tenant}"))
    ///     .build()?;
    /// invoices.get_blocking(&(7, 1))?;
    /// invoices.get_blocking(&(8, 1))?;
    /// invoices.invalidate_group(7);
    /// assert!(!invoices.contains_key(&(7, 1)));
    /// assert!(invoices.contains_key(&(8, 1)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn group_by<F, G>(mut self, group_by: F) -> Self
    where
        F: Fn(&K) -> G + Send + Sync + 'static,
        G: IntoIterator<Item = u64>,
    {
        self.group_by = Some(Box::new(move |key, groups| groups.extend(group_by(key))));
        self
    }
}

impl<K, V, S> Cache<K, V, S>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher,
{
    /// Invalidates every value of a group, resident or being loaded.
    ///
    /// No value whose load began before this call is served after it. It wins against every load
    /// and refresh that began before it, as [`invalidate`](Self::invalidate) of each key would:
    /// their results are discarded, callers that already wait for them get them, and callers that
    /// come later start a new load. An answer "not found" is forgotten for the keys that
    /// [`group_by`](Builder::group_by) puts in the group.
    ///
    /// Values do not leave at once: the next read of its key removes a value, or eviction when it
    /// needs the room, or [`sweep`](Self::sweep). Until then they count in [`len`](Self::len). The
    /// listener is told then, with [`Cause::Invalidated`](crate::Cause::Invalidated).
    ///
    /// A store learns of it in the background, with repetitions until it knows;
    /// [`invalidate_group_everywhere`](Self::invalidate_group_everywhere) waits for that. See
    /// [groups in a fleet](crate::docs::store#groups).
    ///
    /// Groups share 16 384 cells by a hash. Two groups in one cell are invalidated together, which
    /// costs a load and is never wrong.
    ///
    /// # Cost
    ///
    /// Two writes to memory, whatever the size of the group. The first call allocates 128 KiB.
    ///
    /// # Example
    ///
    /// ```
    /// # use everfresh::Cache;
    /// let cache: Cache<u64, u64> = Cache::builder()
    ///     .group_by(|n| [n % 10])
    ///     .compute(|n: &u64| n * n)
    ///     .build()?;
    /// cache.insert(13, 1);
    /// cache.invalidate_group(3);
    /// assert_eq!(*cache.get_blocking(&13)?, 169);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn invalidate_group(&self, group: u64) {
        self.0.invalidate_group(group);
    }

    /// [`invalidate_group`](Self::invalidate_group), and waits until the store knows it.
    ///
    /// Other processes stop serving the values of the group when they are told: within milliseconds
    /// while they are connected. They take no value from the store that was loaded before either.
    /// Without a store it is ready at once.
    ///
    /// # Errors
    ///
    /// The store does not know of the invalidation yet. In this process the values are outdated.
    /// The store is told as soon as it can be reached; until then this process takes no value of
    /// the group from it.
    ///
    /// # Cancel safety
    ///
    /// The first poll makes the invalidation. Dropping the future after it undoes nothing: the
    /// store is still told.
    ///
    /// # Example
    ///
    /// ```
    /// # #[cfg(feature = "postcard")]
    /// # futures_lite::future::block_on(async {
    /// # use std::sync::Arc;
    /// # use everfresh::{Cache, SecondLevel, store::MemoryStore};
    /// let store = Arc::new(MemoryStore::new());
    /// let invoices: Cache<(u64, u64), String> = Cache::builder()
    ///     .group_by(|&(tenant, _)| [tenant])
    ///     .store(SecondLevel::new(store, "invoices:v1")?)
    ///     .compute(|(tenant, number): &(u64, u64)| format!("invoice {number} of {tenant}"))
    ///     .build()?;
    /// invoices.get(&(7, 1)).await?;
    /// invoices.invalidate_group_everywhere(7).await?;
    /// assert!(!invoices.contains_key(&(7, 1)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    pub async fn invalidate_group_everywhere(&self, group: u64) -> Result<(), StoreError> {
        match self.0.invalidate_group(group) {
            Some(pending) => pending.await,
            None => Ok(()),
        }
    }

    /// [`invalidate_group_everywhere`](Self::invalidate_group_everywhere), for threads.
    ///
    /// Not for tasks: it blocks the runtime's thread.
    ///
    /// # Errors
    ///
    /// As [`invalidate_group_everywhere`](Self::invalidate_group_everywhere).
    pub fn invalidate_group_everywhere_blocking(&self, group: u64) -> Result<(), StoreError> {
        block_on(self.invalidate_group_everywhere(group))
    }
}

impl<K, V, S> Core<K, V, S>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher,
{
    /// Invalidates a group. The fleet first: from then on no load takes an older value from the
    /// store, and none sends one there (see `fleet::cells`).
    fn invalidate_group(&self, group: u64) -> Option<PendingWrite> {
        let cell = Cell::of(group);
        let mut here = || self.state.groups.invalidate(cell);
        let pending = match &self.fleet {
            Some(fleet) => Some(fleet.invalidate_cell(cell, &mut here)),
            None => {
                here();
                None
            }
        };
        self.state.look(true);
        pending
    }

    /// Removes an entry that is [outdated](crate::protocol::entries::Entries::is_outdated) for a
    /// caller that comes now; true if it was, and the key is missing then.
    #[inline(never)]
    pub(crate) fn remove_if_outdated(&self, place: Place, entry: &Held<Entry<K, V>>) -> bool {
        let state = &*self.state;
        // If the function panics, this caller knows no groups: it waits, and looks again when the
        // value and its groups are there.
        let groups_of = |key: &K| {
            let groups = catch_unwind(AssertUnwindSafe(|| state.groups_of(key, Vec::new())));
            groups.unwrap_or_else(|panic| {
                discard(panic);
                Vec::new()
            })
        };
        let groups_of = state.group_by.is_some().then_some(groups_of);
        let is_outdated = self.entries.is_outdated(entry, groups_of);
        if is_outdated {
            self.entries.remove_outdated(place, entry.arc());
        }
        is_outdated
    }
}
