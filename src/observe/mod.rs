//! What a cache counts and reports. It is handed numbers, and knows no cache.

#[cfg(feature = "metrics")]
pub mod facade;
pub mod metrics;
pub mod reason;
pub mod stats;
pub mod trace;
