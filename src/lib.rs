//! A lock-free in-process cache that keeps expensive values fresh without stampedes.
//!
//! When a value goes stale, callers keep reading it at full speed while exactly one refresh runs in the background and replaces
//! it. Hot values are refreshed shortly *before* they go stale (X-Fetch). Callers wait only for a value that is not
//! there at all, and then share one load.
//!
//! ```
//! use std::time::Duration;
//! use everfresh::{Cache, Freshness};
//!
//! # #[derive(Clone, PartialEq, Eq, Hash)]
//! # struct Fixture(&'static str, &'static str);
//! # struct Prediction(f64);
//! # fn predict(_: &Fixture) -> Prediction { Prediction(0.5) }
//! # let fixture = Fixture("ManCity", "Liverpool");
//! # futures_lite::future::block_on(async {
//! let predictions: Cache<Fixture, Prediction> = Cache::builder()
//!     .name("predictions")
//!     .capacity(10_000)
//!     .fresh_for(Duration::from_secs(5))
//!     .stale_for(Duration::from_secs(115))
//!     .compute(|fixture: &Fixture| predict(fixture))
//!     .build()?;
//!
//! let prediction = predictions.get(&fixture).await?; // in threads: get_blocking
//! assert!(prediction.0 > 0.0); // reads the value in place, no clone
//! assert_eq!(prediction.freshness(), Freshness::Fresh);
//! predictions.invalidate(&fixture);
//! println!("{}", predictions.stats());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```
//!
//! # Promises
//!
//! | | |
//! |---|---|
//! | P1 | **One refresh per stale epoch.** At most one runs at a time, at most one result is published, and once it is, no caller can start another, however late it comes. |
//! | P2 | **Hits never wait.** Fresh or stale: no lock, no system call, no allocation, no write to memory that other cores' hits write. |
//! | P3 | **One load per missing key.** Each of its callers gets its result, its error, or its panic as an error. None hangs. |
//! | P4 | **A later write wins.** An `invalidate` or `insert` during a load or refresh is never overwritten by its result. |
//! | P5 | **No key is ever wedged.** Loaders may panic, fail, hang or be cancelled. |
//! | P6 | **Too old is never served.** Past the hard limit a value is gone, whatever failed. |
//!
//! Each of them is checked by models, properties and seeded faults; [`docs::protocol`] says how it holds.
//!
//! # Where to go on
//!
//! - [`Cache`] and [`Builder`]: what you call. [`Reader`], [`Pinned`] and [`Fresh`]: cheaper reads for threads that read a lot.
//! - [`docs::choosing`]: limits, X-Fetch, when not to use it.
//! - [`docs::protocol`]: how it works.
//! - [`docs::performance`]: what a hit costs.
//!
//! # Limits
//!
//! - In process only. Each process refreshes on its own.
//! - Keys are cloned when they are loaded and when they are refreshed.
//! - A set of the table has 13 ways: about one key in eighteen thousand finds its set full at full capacity, and evicts there although
//!   other sets have room.
//! - A loader that hangs keeps its thread or task; the cache cannot interrupt it, only go on without it.
#![forbid(unsafe_code)]
#![cfg_attr(all(loom, feature = "loom"), allow(missing_docs))]

mod absent;
mod builder;
mod cache;
mod cached;
mod claim;
mod clock;
mod compact;
mod entry;
mod error;
mod eviction;
mod fifo;
mod fleet;
mod flight;
mod fresh;
mod job;
mod loader;
mod metrics;
mod nesting;
mod pool;
mod publish;
mod read;
mod reader;
mod removal;
mod residents;
mod schedule;
mod stats;
pub mod store;
mod sync;
mod table;
#[cfg(any(test, feature = "test-util"))]
mod testing;
mod trace;
mod watch;

pub use builder::Builder;
pub use cache::Cache;
pub use cached::{Cached, Freshness, Source};
pub use clock::Clock;
#[cfg(any(test, feature = "test-util"))]
pub use clock::ManualClock;
pub use error::{BuildError, Error};
pub use fresh::Fresh;
pub use loader::{BoxFuture, LoadFn, Loaded, Request};
pub use reader::{Pinned, Reader, Seen};
pub use removal::Cause;
pub use stats::{Histogram, Stats};
#[cfg(any(test, feature = "test-util"))]
pub use testing::{CountingLoader, ToldToFail};

/// Longer texts, split by question.
pub mod docs {
    #[doc = include_str!("docs/protocol.md")]
    pub mod protocol {}
    #[doc = include_str!("docs/choosing.md")]
    pub mod choosing {}
    #[doc = include_str!("docs/performance.md")]
    pub mod performance {}
    #[doc = include_str!("docs/store.md")]
    pub mod store {}
    #[doc = include_str!("docs/watching.md")]
    pub mod watching {}
}

/// The protocol without policy and loader, for the models in `loom-tests`.
#[cfg(all(loom, feature = "loom"))]
#[doc(hidden)]
pub mod protocol {
    pub use crate::claim::{Claims, Right, State};
    pub use crate::compact::Weight;
    pub use crate::entry::{Entry, Lifetime, Standing, Times};
    pub use crate::fifo::residency;
    pub use crate::fleet::Gathering;
    pub use crate::flight::{Flight, Made, Outcome};
    pub use crate::publish::{Claim, Published};
    pub use crate::removal::Removals;
    pub use crate::residents::{Begun, Claimed, Condition, Limits, Read, Residents, Timing};
    pub use crate::sync::{
        ArrayQueue, AtomicU8, AtomicU64, AtomicUsize, Held, SegQueue, SetOnce, Slot, Watch,
    };
    pub use crate::table::{Inserted, Place, Table};
    pub use crate::watch::Watched;
}
