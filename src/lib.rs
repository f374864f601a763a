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
//! # When to use it, and when not
//!
//! For values that are dear to make, are read by many at once, go out of date, and may be served a little out of date: forecasts, prices, pages of an
//! API, permissions, configurations, signing keys. A hit costs tens of nanoseconds, whoever else reads.
//!
//! Not for values that cost less than a microsecond, that never go out of date, or that must never be stale (though
//! `stale_for(Duration::ZERO)` still shares loads); not to iterate over. [`docs::migrating`] says which crates do that better, in a fair table, and what replaces
//! the calls of `moka`, `quick_cache` and `cached`.
//!
//! # Promises
//!
//! | | |
//! |---|---|
//! | P1 | **One refresh per stale epoch.** At most one runs at a time (within [`load_timeout`](Builder::load_timeout): a longer one may be taken over, and runs on beside the next), at most one result is published, and once it is, no caller can start another, however late it comes. |
//! | P2 | **Hits never wait.** Fresh or stale: no lock, no system call, no allocation, no write to memory that other cores' hits write. |
//! | P3 | **One load per missing key.** Each of its callers gets its result, its error, or its panic as an error. None hangs. |
//! | P4 | **A later write wins.** An `invalidate` or `insert` during a load or refresh is never overwritten by its result. |
//! | P5 | **No key is ever wedged.** Loaders may panic, fail, hang or be cancelled. |
//! | P6 | **Too old is never served.** Past the hard limit a value is gone, whatever failed. Callers that waited for a load get its value for 100 ms after it, however short its life. |
//! | P7 | **The cache survives its store.** Redis down, hung, restarted empty, out of memory or holding garbage costs freshness and extra loads, never a failed or blocked read of a resident key. |
//! | P8 | **One refresh in a fleet.** While Redis is up, one process refreshes a stale value and the others take it over. After a failover that loses writes it may be more. |
//!
//! Each of them is checked by models, properties and seeded faults; [`docs::protocol`] says how it holds.
//!
//! # Choosing the limits
//!
//! - [`fresh_for`](Builder::fresh_for): how old a value may be before you would rather have a new one. It sets the price: 1 000 keys in use,
//!   loads of 200 ms and 5 s are 200 loads a second on 40 cores; with 60 s it is 17 a second on 3.3 cores.
//! - [`stale_for`](Builder::stale_for): how much older it may become while it is refreshed, or cannot be. Longer than the slowest load and the longest outage to ride
//!   out.
//! - [`beta`](Builder::beta): leave it at 1. A value that takes 200 ms and is read 1 000 times a second is then refreshed 1.18 s before its soft limit on average;
//!   read 10 times a second, 0.25 s before; read seldom, when somebody finds it stale.
//! - [`capacity`](Builder::capacity): about 100 bytes a value beyond keys and values.
//!
//! [`docs::choosing`] has the formulas and examples.
//!
//! # Where to go on
//!
//! - [`Cache`] and [`Builder`]: what you call. [`Reader`], [`Pinned`] and [`Fresh`]: cheaper reads for threads that read a lot.
//! - [`Loaded`] and [`Request`]: loaders that set times, say that a key has no value, or see the previous one.
//! - [`store`]: a second level, in Redis or in memory, that a fleet shares; [`docs::store`] says what it promises and what not.
//! - [`docs::choosing`]: limits, X-Fetch, when not to use it.
//! - [`docs::migrating`]: from other caches, and a comparison.
//! - [`docs::protocol`]: how it works. [`docs::performance`]: what a hit costs. [`docs::watching`]: metrics, traces, and what to be woken for.
//! - With the feature `test-util`, for your tests: `ManualClock`, `CountingLoader`,
//!   `store::ChaosStore`, and `testing::store_contract` for a store of your own.
//! - The folder `examples` of the crate: seven programs to copy.
//!
//! # Features
//!
//! None is on by default: no runtime, no server.
//!
//! | feature | for |
//! |---|---|
//! | `tokio` | `load` finds the current tokio runtime by itself; without it, [`spawner`](Builder::spawner) |
//! | `redis` | `RedisStore`: one server, Sentinel or Cluster; brings `tokio` and `postcard`, needs Rust 1.88. `redis-tls`: encrypted connections |
//! | `postcard`, `json`, `msgpack`, `lz4` | how values become bytes in a store |
//! | `metrics`, `tracing` | what is counted and what happens, for the recorder and the subscriber that the program has |
//! | `test-util` | a clock that moves by hand, a loader that counts, a store that fails as it is told, the contracts of stores |
//!
//! # Limits
//!
//! - Without a store each process loads and refreshes on its own. With one, `invalidate_all` reaches the keys that this process knows.
//! - Keys are cloned when they are loaded and when they are refreshed.
//! - A set of the table has 13 ways: about one key in eighteen thousand finds its set full at full capacity, and evicts there although
//!   other sets have room.
//! - Of the keys that share one hash at most 13 are resident.
//! - Room for all entries is taken at [`build`](Builder::build): 35 to 40 bytes for each of the
//!   [`capacity`](Builder::capacity).
//! - Absent and failing keys are remembered in a bounded memory of their own; past its capacity one
//!   of them may be loaded again.
//! - A loader that hangs keeps its thread or task; the cache cannot interrupt it, only go on
//!   without it. When as many loads of `compute` hang as the pool has
//!   [`threads`](Builder::threads), that cache computes nothing any more: callers of absent keys
//!   get a time-out, stale values are served up to their hard limit.
//! - One refresh at a time holds within [`load_timeout`](Builder::load_timeout). A load that takes
//!   longer may run beside the next one of its key.
//! - A child process after `fork` has no threads of the pool, so a cache that was built before it
//!   cannot load there. A wait there ends by `load_timeout`. Build caches after the `fork`.
//! - The clocks stand still while the machine is suspended, so values seem younger after it by that
//!   time. [`Clock::boottime`] goes on.
//! - The listener of [`on_removal`](Builder::on_removal) is not told of the values of a cache that
//!   is dropped, so not at a clean end of the program either.
//! - With a soft limit of 400 ms or more, ages are exact to one step of the kernel's coarse clock, 1 to 10 ms ([`Clock`]).
#![forbid(unsafe_code)]
// On docs.rs, which has the compiler for it, items say which feature they need.
#![cfg_attr(docsrs, feature(doc_cfg), doc(auto_cfg(hide(test))))]
#![cfg_attr(all(loom, feature = "loom"), allow(missing_docs))]

// The map. Arrows run down only; a test holds them to it.
//
//   testing    a loader that counts, the contracts of stores: for tests
//   cache      what users hold: `Cache`, `Builder`, `Cached`, `Reader`, `Fresh`
//   fleet      the second level of one cache: leases, outbox, changes of other processes
//   load       how a value is made: loader, job, pool, policy, negative entries
//   store      the stores: the trait, memory, Redis
//   observe    counters, metrics, traces: handed numbers
//   protocol   entries, claims, flights, the slot table, eviction: what the models explore
//   time       clocks and alarms
//   sync       the one place that names atomics, slots and the model checker
//   error, panics, rng   leaves
mod cache;
mod error;
mod fleet;
mod load;
mod observe;
mod panics;
mod protocol;
mod rng;
pub mod store;
mod sync;
#[cfg(any(test, feature = "test-util"))]
pub mod testing;
mod time;

pub use cache::Cache;
pub use cache::builder::Builder;
pub use cache::cached::{Cached, Freshness, Source};
pub use cache::fresh::Fresh;
pub use cache::reader::{Pinned, Reader, ValueRef};
pub use error::{BuildError, Error};
pub use fleet::{FleetStats, SecondLevel};
pub use load::loader::{LoadFn, Loaded, Request};
pub use observe::stats::{Histogram, Stats};
pub use protocol::removal::Cause;
pub use sync::future::BoxFuture;
#[cfg(any(test, feature = "test-util"))]
pub use testing::counting_loader::{CountingLoader, InjectedFailure};
pub use time::clock::Clock;
#[cfg(any(test, feature = "test-util"))]
pub use time::manual::ManualClock;

/// Longer texts, split by question.
pub mod docs {
    #[doc = include_str!("docs/protocol.md")]
    pub mod protocol {}
    #[doc = include_str!("docs/choosing.md")]
    pub mod choosing {}
    #[doc = include_str!("docs/migrating.md")]
    pub mod migrating {}
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
pub mod model {
    pub use crate::fleet::Batcher;
    pub use crate::load::pool::{Jobs, Task, all_on_worker};
    pub use crate::observe::reason::LoadReason;
    pub use crate::protocol::cached_slot::CachedSlot;
    pub use crate::protocol::claim::{ClaimToken, ClaimWord, State};
    pub use crate::protocol::compact::Weight;
    pub use crate::protocol::drop_later::DropLater;
    pub use crate::protocol::entries::{Begun, Claimed, Condition, Entries, Limits, Read, Timing};
    pub use crate::protocol::entry::{Entry, EvictionState};
    pub use crate::protocol::fifo::generation;
    pub use crate::protocol::flight::{Flight, Made, Outcome};
    pub use crate::protocol::publish::{ClaimGuard, Published};
    pub use crate::protocol::removal::Removals;
    pub use crate::protocol::table::{Inserted, Place, Table};
    pub use crate::protocol::times::{Lifetime, Times};
    pub use crate::protocol::wait_graph::WaitNode;
    pub use crate::sync::event::Event;
    pub use crate::sync::{
        ArrayQueue, AtomicU8, AtomicU64, AtomicUsize, Held, SegQueue, SetOnce, Slot, Watch,
    };
    pub use crate::time::alarm::{Alarms, Nap, Sleeper};
}
