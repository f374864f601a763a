//! Machinery that the tests, benchmarks and programs of this repository share. Not published.
//!
//! Each module is used by at least two packages or test programs.

pub mod allocator;
pub mod args;
#[cfg(feature = "caches")]
pub mod caches;
pub mod forecast;
pub mod quantile;
pub mod redis;
pub mod report;
pub mod svg;

use std::thread;
use std::time::{Duration, Instant};

/// Lets other threads run until `condition` holds.
///
/// The limit only turns a hang into a failure; no outcome depends on it.
///
/// # Panics
///
/// If the condition does not hold after two minutes.
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    let mut looks = 0;
    while !condition() {
        let passed = started.elapsed();
        assert!(
            passed < Duration::from_secs(120),
            "not within 120 s: {what}"
        );
        looks += 1;
        match looks < 100 {
            true => thread::yield_now(),
            // A longer wait leaves the core to the threads and processes that make the condition
            // hold.
            false => thread::park_timeout(Duration::from_micros(200)),
        }
    }
}
