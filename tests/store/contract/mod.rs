//! What every store must do, run on each of them.

pub mod changes;
pub mod damage;
pub mod epochs;
pub mod leases;
pub mod world;

/// Makes a test of every contract, in the world that `$world` makes.
#[macro_export]
macro_rules! contracts {
    ($world:expr) => {
        $crate::contracts!($world, leases:
            nothing_is_stored_at_first
            one_lease_at_a_time
            a_lease_is_granted_again_to_its_holder
            what_is_published_is_read
            what_somebody_else_stored_is_returned
            one_successor_of_each_epoch
            a_set_fences_a_load
            an_invalidation_fences_a_refresh
            an_invalidation_fences_a_load
            nothing_is_no_base
            a_repeated_try_that_arrives_late_is_another_lease
            a_lease_keeps_its_base
            a_base_outlives_its_lease
            a_lost_lease_is_overtaken
            an_overtaken_lease_stays_until_its_holder_is_done
            an_overtaken_lease_publishes_nothing
            what_was_evicted_is_published_under_the_lease
            a_released_lease_is_free
            a_failed_load_cools_down
            a_set_ends_a_cool_down
            only_the_holder_renews
            times_to_live_are_kept
            one_of_many_is_granted);
        $crate::contracts!($world, epochs:
            epochs_only_grow
            a_removal_has_an_epoch
            epochs_are_the_time_of_the_store
            namespaces_are_apart
            many_keys_are_answered_in_order);
        $crate::contracts!($world, damage:
            what_is_no_payload_is_replaced
            what_is_cut_off_is_replaced
            a_future_version_is_seen_and_replaced
            a_damaged_epoch_counts_as_nothing
            an_epoch_past_all_is_not_believed
            what_is_too_large_is_not_read_and_replaced
            what_is_too_large_is_not_stored
            what_is_no_envelope_is_not_stored
            an_invalidation_removes_what_is_no_payload);
        $crate::contracts!($world, changes:
            every_change_is_told
            a_released_lease_is_told
            what_is_refused_is_not_told
            other_namespaces_are_not_told
            a_dropped_follower_is_not_told);
    };
    ($world:expr, $module:ident: $($name:ident)*) => {
        mod $module {
            #[allow(unused_imports)]
            use super::*;
            $(
                #[test]
                fn $name() {
                    let world = $world;
                    $crate::contract::$module::$name(&world);
                }
            )*
        }
    };
}
