//! Counters, metrics and traces. They receive numbers, and know no cache.

pub mod breaker_state;
#[cfg(feature = "metrics")]
pub mod facade;
pub mod histogram;
pub mod metrics;
pub mod reason;
pub mod stats;
mod table;
pub mod trace;
