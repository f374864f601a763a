//! What the second level has done for one cache.

use crate::store::{PayloadError, StoreState, StoreStats};
use crate::sync::{Counter as Word, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What the second level has done for one cache: [`Cache::store_stats`](crate::Cache::store_stats).
        #[derive(Clone, Debug)]
        #[non_exhaustive]
        pub struct FleetStats {
            $($(#[$doc])* pub $name: u64,)*
            /// Writes that the store has not been flushed of yet.
            pub pending: u64,
            /// Keys of which this process follows the changes.
            pub followed: u64,
            /// Whether the store can be used now; while it cannot, nothing is sent to it.
            pub state: StoreState,
            /// What the store itself counted, for all caches that use it.
            pub store: StoreStats,
            payload_errors: [u64; PayloadError::ALL.len()],
        }

        #[derive(Default)]
        pub(super) struct Counters {
            $(pub(super) $name: Counter,)*
            payload_errors: [Counter; PayloadError::ALL.len()],
        }

        impl Counters {
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
    /// Values taken from the store, fresh.
    hits,
    /// Values taken from the store, stale.
    stale,
    /// Times the store had nothing for a key.
    misses,
    /// Payloads of the store that were not used because something later was known.
    outdated,
    /// Leases granted: how often this process loads for the fleet.
    leases_granted,
    /// Leases that another process had.
    leases_denied,
    /// Leases found lost when they were to be renewed.
    leases_lost,
    /// Leases renewed.
    leases_renewed,
    /// Loads without a lease, because the store could not be asked.
    unleased,
    /// Results stored.
    published,
    /// Results that were out of date when they were to be stored, and left this process too.
    refused,
    /// Results or values that could not be stored: an error of the store, or one of the codec.
    not_stored,
    /// Changes made by this process and flushed to the store.
    flushed,
    /// Changes of other processes.
    notifications,
    /// Changes of other processes that concerned a key of this one.
    followed_changes,
    /// Attempts to enqueue the store of a write that failed, and were or are repeated.
    retried,
    /// Writes given up because too many waited. Nothing stored before that moment is used by this process any more.
    given_up,
    /// Times the connection for changes was new and what is resident was compared with the store.
    rechecks,
}

impl FleetStats {
    /// How many payloads could not be read, or values not written, for this reason.
    pub fn payload_errors(&self, reason: PayloadError) -> u64 {
        self.payload_errors[reason as usize]
    }
}

impl Counters {
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
