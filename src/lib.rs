//! A lock-free in-process cache that keeps expensive values fresh without stampedes.
#![forbid(unsafe_code)]
#![cfg_attr(all(loom, feature = "loom"), allow(missing_docs))]

mod builder;
mod cache;
mod cached;
mod claim;
mod clock;
mod entry;
mod error;
mod eviction;
mod flight;
mod job;
mod loader;
mod nesting;
mod pool;
mod publish;
mod read;
mod residents;
mod schedule;
mod stats;
mod sync;
mod table;
#[cfg(any(test, feature = "test-util"))]
mod testing;

pub use builder::Builder;
pub use cache::Cache;
pub use cached::{Cached, Freshness, Source};
pub use clock::Clock;
#[cfg(any(test, feature = "test-util"))]
pub use clock::ManualClock;
pub use error::{BuildError, Error};
pub use loader::{BoxFuture, LoadFn, Loaded, Request};
pub use stats::{Histogram, Stats};
#[cfg(any(test, feature = "test-util"))]
pub use testing::{CountingLoader, ToldToFail};

/// The protocol without policy and loader, for the models in `loom-tests`.
#[cfg(all(loom, feature = "loom"))]
#[doc(hidden)]
pub mod protocol {
    pub use crate::claim::{Claims, Right, State};
    pub use crate::entry::{Entry, Lifetime, Times};
    pub use crate::flight::{Flight, Outcome};
    pub use crate::publish::{Claim, Published};
    pub use crate::residents::{Begun, Condition, Read, Residents, Timing};
    pub use crate::sync::{AtomicU8, AtomicU64, AtomicUsize, Held, Slot};
    pub use crate::table::{Inserted, Place, Table};
}
