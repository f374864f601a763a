//! Random programs, checked against models.
//!
//! - [`programs`]: one thread takes every step of many readers, loads and writers by hand, in any
//!   order, so that a program is exactly repeatable. Each step is compared with a sequential
//!   [`model`] that predicts it. Each step is also checked against the [`promises`], which know
//!   nothing about claims, so that a fault shared by model and cache still breaks a promise.
//! - [`found_once`]: such programs that found a fault.
//! - [`histories`]: real threads on one table, whose results must fit some order of their
//!   operations.
//! - [`accounting`]: one thread again, with eviction. Resident values are counted and weighed
//!   exactly, and each removal is notified once.
//! - [`loads`]: as [`histories`], with reads that load. Each load counts as two steps.
//!
//! `PROPTEST_CASES` is the number of programs (default: 400), and `EVERFRESH_SEED` chooses them
//! (default: random). A failure prints the seed and the smallest program that still fails. To
//! repeat it: `EVERFRESH_SEED=7 PROPTEST_CASES=10000 cargo test properties`. The seed does not
//! determine the order in which real threads run, so a failure of a history may need several runs.

mod accounting;
mod found_once;
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

/// Runs `check` on the requested number of programs. A panic in it is shrunk and reported with the
/// seed.
fn for_all<P: Debug>(strategy: impl Strategy<Value = P>, check: impl Fn(P)) {
    for_all_of(seed(), strategy, check);
}

/// As [`for_all`], with the programs of this seed.
fn for_all_of<P: Debug>(seed: u64, strategy: impl Strategy<Value = P>, check: impl Fn(P)) {
    let config = Config {
        cases: cases(),
        // The seed repeats a failure, so nothing is written into the source tree.
        failure_persistence: None,
        ..Config::default()
    };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let checked = runner.run(&strategy, |program| {
        check(program);
        Ok(())
    });
    if let Err(failure) = checked {
        panic!("{failure}\nrepeat with EVERFRESH_SEED={seed}");
    }
}
