//! Behaviour of the whole cache, one module for each topic.
//!
//! No test sleeps or depends on real time: clocks move by hand, loaders are paused and released,
//! and futures are polled one step at a time. Environment variables set the seeds and sizes of the
//! random tests: see `support::random`, `properties` and `stress`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

mod adaptive;
mod admission;
mod allocations;
mod backoff;
mod caller;
mod capacity;
mod churn;
mod clocks;
mod closing;
mod costs;
mod counting_loader;
mod depth;
mod drops;
mod early;
mod errors;
mod eviction;
mod first_poll;
mod freshness;
mod groups;
mod groups_in_flight;
mod groups_random;
mod handles;
mod hangs;
mod invalidation;
mod late_results;
mod lifetime;
mod listener;
mod loaders;
mod lookups;
mod not_found;
mod not_found_race;
mod payloads;
mod places;
mod pool;
mod properties;
mod readers;
mod readers_race;
mod recursion;
mod reentrant;
mod refreshes;
mod removal;
mod resilience;
mod runtimes;
mod settings;
mod source_rules;
mod stale_if_error;
mod stampede;
mod stats;
mod stress;
mod thread_end;
mod traits;
mod user_panics;
mod wakers;
mod workers;
mod writes;

/// Hangs on purpose: `tests/run.sh` checks that `tests/watched.sh` ends this test and prints its
/// name.
#[test]
#[ignore = "hangs"]
fn a_test_that_hangs() {
    loop {
        std::thread::park();
    }
}
