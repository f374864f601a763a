//! Checks of the contracts of a [`Store`], for any implementation.
//!
//! Describe the store to the checks by a [`StoreUnderTest`], and let
//! [`store_contract_tests!`](crate::store_contract_tests) write one test for each contract. Or call
//! [`check`], which runs all of them and panics with the names of those that the store breaks.
//! The other items serve the checks. Use them in tests of your own.
//!
//! A [`RecordStore`] is such a subject by itself. No check waits for time to pass.
//!
//! # Example
//!
//! ```
//! use std::time::Duration;
//! use everfresh::store::{MemoryStore, Store, StoreKey};
//! use everfresh::testing::store_contract::{self, LIMIT, StoreUnderTest};
//!
//! struct InMemory(MemoryStore);
//!
//! impl StoreUnderTest for InMemory {
//!     fn store(&self) -> &dyn Store {
//!         &self.0
//!     }
//!     fn limit(&self) -> usize {
//!         LIMIT
//!     }
//!     fn lose_lease(&self, key: &StoreKey) {
//!         self.0.lose_lease(key);
//!     }
//!     fn lose_data(&self, key: &StoreKey) {
//!         self.0.lose_data(key);
//!     }
//!     fn plant(&self, key: &StoreKey, bytes: Vec<u8>) {
//!         self.0.plant(key, bytes);
//!     }
//!     fn lease_left(&self, key: &StoreKey) -> Option<Duration> {
//!         self.0.lease_left(key)
//!     }
//!     fn data_left(&self, key: &StoreKey) -> Option<Duration> {
//!         self.0.data_left(key)
//!     }
//! }
//!
//! store_contract::check(|| InMemory(MemoryStore::new().limit(LIMIT)));
//! ```
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "these are assertions: a panic is their result"
)]

mod changes;
mod damage;
mod epochs;
mod harness;
mod leases;
mod writes;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

pub use harness::{
    Caller, HOUR, LIMIT, MINUTE, Raw, Recording, caller, key, namespace, payload, raw, terms, value,
};

use crate::store::{RecordStore, Records, Store, StoreKey};

/// A new, empty store, and the losses and faults that the checks need.
///
/// The methods other than [`store`](Self::store) and [`limit`](Self::limit) bypass the store: they
/// act on its server or its files, and notify no listener.
pub trait StoreUnderTest: Sync {
    /// The store.
    fn store(&self) -> &dyn Store;

    /// The largest payload that the store takes, in bytes: at least 1024.
    fn limit(&self) -> usize;

    /// Removes the lease or the cool-down of a key, as if its time had passed.
    fn lose_lease(&self, key: &StoreKey);

    /// Removes the payload of a key, as if the store had evicted it.
    fn lose_data(&self, key: &StoreKey);

    /// Stores any bytes as the payload of a key, as another program or a fault may.
    fn plant(&self, key: &StoreKey, bytes: Vec<u8>);

    /// The remaining time of the lease or the cool-down of a key; `None` if it has neither.
    fn lease_left(&self, key: &StoreKey) -> Option<Duration>;

    /// The remaining time of the payload of a key; `None` if it has none.
    fn data_left(&self, key: &StoreKey) -> Option<Duration>;
}

// Each method calls the inherent one of the same name.
impl<R: Records> StoreUnderTest for RecordStore<R> {
    fn store(&self) -> &dyn Store {
        self
    }

    fn limit(&self) -> usize {
        self.longest()
    }

    fn lose_lease(&self, key: &StoreKey) {
        self.lose_lease(key);
    }

    fn lose_data(&self, key: &StoreKey) {
        self.lose_data(key);
    }

    fn plant(&self, key: &StoreKey, bytes: Vec<u8>) {
        self.plant(key, bytes);
    }

    fn lease_left(&self, key: &StoreKey) -> Option<Duration> {
        self.lease_left(key)
    }

    fn data_left(&self, key: &StoreKey) -> Option<Duration> {
        self.data_left(key)
    }
}

/// Runs the check of each contract on a store of its own.
///
/// # Panics
///
/// With the names of the contracts that the store breaks, if it breaks any.
pub fn check<S: StoreUnderTest>(new: impl Fn() -> S) {
    let broken = broken(new);
    assert!(broken.is_empty(), "the store breaks {}", broken.join(", "));
}

/// The names of the contracts that a store breaks, each on a store of its own.
pub fn broken<S: StoreUnderTest>(new: impl Fn() -> S) -> Vec<&'static str> {
    let breaks = |check: &Check| catch_unwind(AssertUnwindSafe(|| (check.1)(&new()))).is_err();
    let broken = CHECKS.iter().filter(|check| breaks(check));
    broken.map(|check| check.0).collect()
}

/// Runs the check of one contract, as named by [`names`].
///
/// # Panics
///
/// If the store breaks the contract, or the name is that of no contract.
pub fn check_one(name: &str, subject: &dyn StoreUnderTest) {
    let found = CHECKS.iter().find(|check| check.0 == name);
    let (_, check) = found.unwrap_or_else(|| panic!("no contract has the name {name}"));
    check(subject);
}

/// The names of all contracts, for example `leases::one_lease_at_a_time`.
pub fn names() -> impl Iterator<Item = &'static str> {
    CHECKS.iter().map(|check| check.0)
}

type Check = (&'static str, fn(&dyn StoreUnderTest));

/// Writes one test for each contract of a store, in the modules `leases`, `epochs`, `damage`,
/// `writes` and `changes`.
///
/// The expression makes a [`StoreUnderTest`](crate::testing::store_contract::StoreUnderTest): a new
/// one for each test.
///
/// # Example
///
/// ```
/// // In the tests of your store, with the feature `test-util`:
/// everfresh::store_contract_tests!(MyStoreUnderTest::new());
/// ```
#[macro_export]
macro_rules! store_contract_tests {
    ($subject:expr) => {
        $crate::store_contract_tests!(@each tests ($subject));
    };
    // The one list, handed to the arm that is named.
    (@each $arm:ident $subject:tt) => {
        $crate::store_contract_tests! { @$arm $subject
            leases [
                nothing_is_stored_at_first
                one_lease_at_a_time
                many_leases_are_asked_for_together
                a_lease_is_granted_again_to_its_holder
                a_published_payload_is_read
                a_payload_of_another_caller_is_returned
                one_successor_of_each_epoch
                a_set_fences_a_load
                an_invalidation_fences_a_refresh
                an_invalidation_fences_a_load
                an_empty_store_is_no_base
                a_repeated_attempt_that_arrives_late_is_another_lease
                a_lease_keeps_its_base
                a_base_outlives_its_lease
                a_lost_lease_is_overtaken
                an_overtaken_lease_stays_until_its_holder_is_done
                an_overtaken_lease_publishes_nothing
                an_evicted_payload_is_replaced_under_the_lease
                a_released_lease_is_free
                a_failed_load_cools_down
                in_a_cool_down_each_origin_tries_once
                a_publication_ends_a_cool_down
                a_set_ends_a_cool_down
                only_the_holder_renews
                times_to_live_are_kept
                one_of_many_callers_is_granted_the_lease
            ]
            epochs [
                epochs_only_grow
                a_removal_has_an_epoch
                epochs_are_the_time_of_the_store
                namespaces_are_apart
                many_keys_are_answered_in_order
            ]
            damage [
                foreign_bytes_are_replaced
                a_truncated_payload_is_replaced
                a_future_version_is_seen_and_replaced
                a_damaged_epoch_counts_as_nothing
                an_impossible_epoch_is_ignored
                an_epoch_from_the_future_is_replaced_by_the_time
                a_payload_that_is_too_large_is_not_read_but_replaced
                a_payload_that_is_too_large_is_not_stored
                bytes_that_are_no_envelope_are_not_stored
                an_invalidation_removes_foreign_bytes
            ]
            writes [
                a_write_older_than_a_stored_write_is_refused
                a_later_write_wins_though_both_waited
                a_repeated_write_is_accepted_again
                a_write_replaces_what_its_writer_has_seen
                a_set_that_waited_is_not_stored_over_a_loaded_value
                an_invalidation_that_waited_removes_a_loaded_value
                a_birth_in_the_future_blocks_no_write
                the_record_of_a_group_is_made_once_and_kept
            ]
            changes [
                every_change_reaches_the_listeners
                a_released_lease_reaches_the_listeners
                a_refused_operation_is_no_change
                other_namespaces_do_not_reach_the_listeners
                a_dropped_listener_receives_nothing
            ]
        }
    };
    (@tests ($subject:expr) $($module:ident [$($name:ident)*])*) => {
        $(
            mod $module {
                #[allow(unused_imports)]
                use super::*;
                $(
                    #[test]
                    fn $name() {
                        let name = concat!(stringify!($module), "::", stringify!($name));
                        $crate::testing::store_contract::check_one(name, &$subject);
                    }
                )*
            }
        )*
    };
    (@checks () $($module:ident [$($name:ident)*])*) => {
        &[$($(
            (concat!(stringify!($module), "::", stringify!($name)), $module::$name),
        )*)*]
    };
}

const CHECKS: &[Check] = store_contract_tests!(@each checks ());
