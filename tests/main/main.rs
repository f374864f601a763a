//! Behaviour of the whole cache, one module a topic.
//!
//! No test sleeps or depends on real time: clocks move by hand, loaders are held and released, and futures are polled
//! one step at a time. Environment variables choose the seeds and sizes of the random tests: see `support::random`, `properties`
//! and `stress`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

mod allocations;
mod capacity;
mod churn;
mod clocks;
mod costs;
mod counting_loader;
mod drops;
mod early;
mod errors;
mod eviction;
mod freshness;
mod hangs;
mod invalidation;
mod lifetime;
mod listener;
mod lookups;
mod not_found;
mod not_found_race;
mod pool;
mod properties;
mod readers;
mod readers_race;
mod recursion;
mod reentrant;
mod removal;
mod resilience;
mod rests;
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
mod writes;

/// Hangs on purpose: `tests/run.sh` demands that `tests/watched.sh` ends this test and names it.
#[test]
#[ignore = "hangs"]
fn a_test_that_hangs() {
    loop {
        std::thread::park();
    }
}
