//! Random programs, checked against models.
//!
//! - [`programs`]: one thread takes every step of many readers, loads and writers by hand, in any order, so that a program
//!   is exactly repeatable. Each step is compared with a sequential [`model`] that predicts it, and judged by the
//!   [`promises`] alone, which know nothing about claims: a fault that model and cache share is still a broken promise.
//! - [`histories`]: real threads on one table; what they saw must fit some order of their operations.
//! - [`accounting`]: one thread again, with eviction: what is resident is counted and weighed exactly, and told of once when it leaves.
//! - [`loads`]: the same with reads that load, each load taken as two steps.
//!
//! `PROPTEST_CASES` says how many programs (400 if not given) and `EVERFRESH_SEED` which ones (random if not given; a failure
//! prints it with the smallest program that still fails). To repeat: `EVERFRESH_SEED=7 PROPTEST_CASES=10000 cargo test properties`.
//! The order in which real threads run is not in the seed, so a failure of a history may need several runs.

mod accounting;
mod histories;
mod loads;
mod model;
mod programs;
mod promises;
mod steps;

use std::fmt::Debug;

use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::support::random::{number, seed};

fn cases() -> u32 {
    u32::try_from(number("PROPTEST_CASES").unwrap_or(400)).unwrap_or(u32::MAX)
}

/// Runs `check` on as many programs as asked for; a panic in it is shrunk and reported with the seed.
fn for_all<P: Debug>(strategy: impl Strategy<Value = P>, check: impl Fn(P)) {
    let config = Config {
        cases: cases(),
        // A failure is repeated by its seed; nothing is written into the source tree.
        failure_persistence: None,
        ..Config::default()
    };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed().to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let checked = runner.run(&strategy, |program| {
        check(program);
        Ok(())
    });
    if let Err(failure) = checked {
        panic!("{failure}\nrepeat with EVERFRESH_SEED={}", seed());
    }
}
