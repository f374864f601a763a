//! The counts of the second level of one cache.

use crate::store::{PayloadError, StoreState, StoreStats};
use crate::sync::{Counter as Word, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// The counts of the second level of one cache since it was built, from
        /// [`Cache::store_stats`](crate::Cache::store_stats).
        #[derive(Clone, Debug)]
        #[non_exhaustive]
        pub struct FleetStats {
            $($(#[$doc])* pub $name: u64,)*
            /// Writes that the store does not know yet.
            pub pending: u64,
            /// Keys whose changes this process follows.
            pub followed: u64,
            /// Whether the store can be used now. While it cannot, nothing is sent to it.
            pub state: StoreState,
            /// The counts of the store itself, for all caches that use it.
            pub store: StoreStats,
            payload_errors: [u64; PayloadError::ALL.len()],
        }

        #[derive(Default)]
        pub(super) struct FleetCounters {
            $(pub(super) $name: Counter,)*
            payload_errors: [Counter; PayloadError::ALL.len()],
        }

        impl FleetCounters {
            pub(super) fn snapshot(
                &self,
                pending: usize,
                followed: usize,
                state: StoreState,
                store: StoreStats,
            ) -> FleetStats {
                FleetStats {
                    $($name: self.$name.get(),)*
                    pending: pending as u64,
                    followed: followed as u64,
                    state,
                    store,
                    payload_errors: std::array::from_fn(|at| self.payload_errors[at].get()),
                }
            }
        }
    };
}

counters! {
    /// Fresh values taken from the store.
    hits,
    /// Stale values taken from the store.
    stale,
    /// Reads for which the store had no payload.
    misses,
    /// Payloads that were not used, because this process knew of a later epoch.
    outdated,
    /// Leases granted to this process, which then loads for the fleet.
    leases_granted,
    /// Leases denied, because another process held them.
    leases_denied,
    /// Leases that were lost before their renewal.
    leases_lost,
    /// Renewals of leases.
    leases_renewed,
    /// Loads without a lease: the store could not be reached, or another process could not store
    /// its result of the key.
    unleased,
    /// Results that were stored.
    published,
    /// Results that the store refused and that may have been out of date. They were removed here
    /// too.
    refused,
    /// Results or values that could not be stored: the store or the codec failed, or the lease was
    /// lost before the end of the load.
    not_stored,
    /// Writes of this process that reached the store.
    flushed,
    /// Change messages received from other caches.
    notifications,
    /// Change messages about keys that this process follows.
    followed_changes,
    /// Attempts to write to the store that failed and are repeated.
    retried,
    /// Writes given up because too many waited. This process uses no payload that was stored
    /// before.
    given_up,
    /// Comparisons of the resident values with the store after an interrupted connection.
    rechecks,
}

impl FleetStats {
    /// How many payloads could not be read, or values not written, for this reason.
    pub fn payload_errors(&self, reason: PayloadError) -> u64 {
        self.payload_errors[reason as usize]
    }
}

impl FleetCounters {
    pub(super) fn payload_errors(&self, reason: PayloadError) {
        self.payload_errors[reason as usize].add();
    }
}

/// Relaxed: a counter orders nothing.
#[derive(Default)]
pub(super) struct Counter(Word);

impl Counter {
    pub(super) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
