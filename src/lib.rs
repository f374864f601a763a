//! A lock-free in-process cache that keeps expensive values fresh without stampedes.
//!
//! - It saves loads and waiting. A stale value is refreshed once, in the background, while all
//!   callers go on reading it. Hot values are refreshed shortly before they are stale (X-Fetch).
//!   Callers of a missing key share one load. With Redis, a whole fleet of processes shares loads
//!   and refreshes.
//! - It costs about 90 bytes for each entry beyond key and value, and a loader that is given to
//!   the cache once and sees only the key.
//! - It forbids iteration, a loader passed with each read, and serving a value past its hard limit.
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
//!     .fresh_for(Duration::from_secs(5)) // soft limit: refreshed after 5 s
//!     .stale_for(Duration::from_secs(115)) // hard limit: never served after 120 s
//!     .compute(|fixture: &Fixture| predict(fixture))
//!     .build()?;
//!
//! let prediction = predictions.get(&fixture).await?; // in a thread: get_blocking(&fixture)?
//! assert!(prediction.0 > 0.0); // reads the value in place: nothing is cloned
//! assert_eq!(prediction.freshness(), Freshness::Fresh);
//! predictions.invalidate(&fixture); // wins over every load that began before
//! println!("{}", predictions.stats());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```
//!
//! What a reader gets:
//!
//! ```text
//!   loaded           soft limit                   hard limit
//!     |     fresh        |         stale              |     expired
//!     |-- fresh_for -----|-- stale_for ---------------|----------------->
//!     the value          the old value, at once;      the caller waits for
//!                        one refresh runs             one load, shared by all
//! ```
//!
//! # When to use it, when not
//!
//! Use it for values that are expensive to make, read by many callers, and allowed to be a little
//! old: forecasts, prices, API pages, permissions, configurations, signing keys.
//!
//! Do not use it for values that cost less than a microsecond, never change, or must never be old
//! (with `stale_for(Duration::ZERO)` callers still share loads), or to iterate over.
//! [`docs::migrating`] names the crates that do that better, compares them with this one, and maps
//! the calls of `moka`, `quick_cache` and `cached`.
//!
//! # Guarantees
//!
//! - **P1. One refresh per stale entry.** At most one refresh runs at a time, and at most one
//!   result is published. After that no caller can start another refresh of the same entry, however
//!   late it comes. A refresh that takes longer than [`load_timeout`](Builder::load_timeout) may be
//!   taken over; it then runs beside the next one, and the first result of the
//!   two is published.
//! - **P2. Hits never wait.** A hit, fresh or stale, takes no lock, makes no system call, allocates
//!   nothing, and writes no memory that the hits of other cores write. (Among more threads than 1.5
//!   for each core, the later ones share such memory.)
//! - **P3. One load per missing key.** All its callers get its result, its error, or its panic as
//!   an error. No caller hangs.
//! - **P4. A later write wins.** The result of a load or refresh never replaces an `insert` or
//!   `invalidate` that came while it ran.
//! - **P5. No key is ever stuck.** A loader may panic, fail, hang or be cancelled.
//! - **P6. Too old is never served.** Past the hard limit a value is gone, whatever failed. Callers
//!   that waited for a load get its value for 100 ms after it, however short its life.
//! - **P7. The cache survives its store.** If Redis is down, hangs, restarts empty, is out of
//!   memory or returns garbage, values are less fresh and there are more loads. A read of a
//!   resident key never fails or waits because of it.
//! - **P8. One refresh in a fleet.** While Redis works, one process refreshes a stale value and the
//!   others take the result. After a failover that loses writes there may be more refreshes.
//!
//! Models, random programs and seeded faults check each of them; [`docs::protocol`] explains how
//! they hold. The crate has version 0.1 and is not yet used in production.
//!
//! # Choosing the limits
//!
//! - [`fresh_for`](Builder::fresh_for): the age from which a newer value would be better. It
//!   decides the cost: 1 000 keys in use with loads of 200 ms, fresh for 5 s, keep 40 cores busy;
//!   fresh for 60 s, 3.3 cores.
//! - [`stale_for`](Builder::stale_for): how much older a value may become while its refresh runs or
//!   fails. Set it longer than the slowest load plus the longest outage that you want to survive.
//! - [`capacity`](Builder::capacity): about 90 bytes for each value beyond keys and values.
//! - [`beta`](Builder::beta): leave it at 1.
//!
//! [`docs::choosing`] has the formulas and examples.
//!
//! # Where to go on
//!
//! - [`Cache`] and [`Builder`]: the calls and the settings. [`Reader`], [`Pinned`] and [`Fresh`]:
//!   cheaper reads for threads that read a lot.
//! - [`Loaded`] and [`Request`]: loaders that set times, answer "not found", or use the old value.
//! - [`store`]: a second level in Redis, in a file or in memory. [`docs::store`] says what it
//!   guarantees, and what happens when a clock is set, a type changes or the program ends.
//! - [`docs::loads`]: where, when and how loads run, and what happens if a loader hangs, fails or
//!   reads the cache.
//! - [`docs::protocol`]: how it works. [`docs::performance`]: all measurements.
//! - [`docs::groups`]: values that are invalidated together.
//! - [`docs::watching`]: metrics, traces and alerts.
//! - With the feature `test-util`, for tests: `ManualClock`, `CountingLoader`, `store::ChaosStore`,
//!   and `testing::store_contract` for a store of your own.
//! - The folder `examples` of the crate: eight programs to copy.
//!
//! # Features
//!
//! None is on by default: no runtime, no server.
//!
//! | feature | for |
//! |---|---|
//! | `tokio` | `load` finds the current runtime, and blocking reads know it; without it, set a [`spawner`](Builder::spawner) |
//! | `redis` | `RedisStore`: one server, Sentinel or Cluster; needs Rust 1.88 |
//! | `redis-tls` | `redis`, with encrypted connections |
//! | `file` | `FileStore`: a second level in a file, without a server; needs Rust 1.89 |
//! | `postcard`, `json`, `msgpack` | how values become bytes in a store |
//! | `lz4`, `zstd` | settings that compress values in a store; `zstd` needs a C compiler |
//! | `encryption` | a setting that encrypts values in a store |
//! | `serde` | `Cached` serializes as its value |
//! | `metrics`, `tracing` | counters and events for the recorder and subscriber of the program |
//! | `test-util` | a clock that moves by hand, a loader that counts, a store that fails |
//!
//! `redis` brings `tokio` and `postcard`; `file` brings `postcard`.
//!
//! # Limits
//!
//! - Without a store, each process loads and refreshes on its own. With one, `invalidate_all`
//!   reaches the keys that this process knows.
//! - Keys are cloned when they are loaded and when they are refreshed.
//! - A set of the table has 13 ways. At full capacity, about one key in eighteen thousand finds its
//!   set full, and evicts a value there although other sets have room.
//! - Of the keys that share one hash, at most 13 are resident.
//! - A read that finds its value never waits for another thread, unless its thread holds seven
//!   results, and two threads for each core stopped at once in the few instructions of counting
//!   such a reader's next one. An insert may wait, if the capacity is no larger than the number of
//!   inserting threads and one of them stops between two steps.
//! - [`build`](Builder::build) allocates about 34 bytes for each entry of the
//!   [`capacity`](Builder::capacity), and the first eviction 6 more.
//! - Keys that are not found or that fail are remembered in a bounded cache of their own. Beyond
//!   its capacity, such a key may be loaded again.
//! - A computation that hangs keeps its thread, because it cannot be interrupted. A spare thread
//!   takes its place. A pool has at most as many spares as [`threads`](Builder::threads). When
//!   twice that many loads hang, the pool computes nothing more. Callers of missing keys then get
//!   a time-out, and stale values are served up to their hard limit.
//! - One refresh at a time holds within [`load_timeout`](Builder::load_timeout). A load that takes
//!   longer may run beside the next load of its key.
//! - A child process made by `fork` has no thread of its parent. A cache whose pool or runtime
//!   started before the `fork` cannot load there, and its store does not work. A wait there ends
//!   after `load_timeout`. A cache that is built after the `fork` works.
//! - A [`Reader`] holds up to 4 096 values, also those that the cache has evicted.
//! - The clocks stop while the machine is suspended, so values seem younger by that time.
//!   [`Clock::boottime`] continues.
//! - The ages of values from a store are counted by the clock of its server. If that clock is set,
//!   they can be wrong by as much: see [`docs::store`](docs::store#clocks).
//! - The listener of [`on_removal`](Builder::on_removal) does not get the values that remain when a
//!   cache is dropped, for example at the end of the program.
//! - With a soft limit of 400 ms or more, ages are exact to one step of the kernel's coarse clock,
//!   1 to 10 ms ([`Clock`]).
#![deny(unsafe_code)]
// `sync/slot.rs` allows it
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
pub use cache::close::CloseError;
pub use cache::fresh::Fresh;
pub use cache::lookup::Lookup;
pub use cache::reader::{Pinned, Reader, ValueRef};
pub use cache::weak::WeakCache;
pub use error::{BuildError, Error};
pub use fleet::{FleetStats, SecondLevel};
pub use load::admission::breaker::Breaker;
pub use load::admission::budget::{Budget, BudgetBuilder};
pub use load::lifecycle::Left;
pub use load::loader::{LoadFn, LoadOnFn, Loaded, Loader, Request};
pub use load::pool_builder::{Pool, PoolBuilder};
pub use observe::breaker_state::BreakerState;
pub use observe::histogram::Histogram;
pub use observe::stats::Stats;
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
    #[doc = include_str!("docs/groups.md")]
    pub mod groups {}
    #[doc = include_str!("docs/loads.md")]
    pub mod loads {}
    #[doc = include_str!("docs/migrating.md")]
    pub mod migrating {}
    #[doc = include_str!("docs/performance.md")]
    pub mod performance {}
    #[doc = include_str!("docs/store.md")]
    pub mod store {}
    #[doc = include_str!("docs/watching.md")]
    pub mod watching {}
}

/// Compiles the examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}

/// The protocol without policy and loader, for the models in `loom-tests`.
#[cfg(all(loom, feature = "loom"))]
#[doc(hidden)]
pub mod model {
    pub use crate::fleet::{Batcher, Handover, Readings, Tasks, WriteQueue};
    pub use crate::load::admission::ask::{Ask, Queue, Refusal};
    pub use crate::load::admission::gate::{Entered, Gate, GateLimits, Permit, Waiter};
    pub use crate::load::admission::queued::{Queued, Waiting};
    pub use crate::load::deadline::Phase;
    pub use crate::load::lifecycle::{Lifecycle, Work};
    pub use crate::load::pool::{Jobs, Task};
    pub use crate::load::stack::all_on_worker;
    pub use crate::load::wakes::{Deferred, Wakes};
    pub use crate::observe::reason::LoadReason;
    pub use crate::protocol::cached_slot::CachedSlot;
    pub use crate::protocol::claim::{ClaimState, ClaimToken, ClaimWord};
    pub use crate::protocol::compact::Weight;
    pub use crate::protocol::drop_later::DropLater;
    pub use crate::protocol::entries::{Begun, Claimed, Condition, Entries, Limits, Read, Timing};
    pub use crate::protocol::entry::{Entry, EvictionState};
    pub use crate::protocol::fifo::generation;
    pub use crate::protocol::flight::{Flight, Help, Made, Outcome};
    pub use crate::protocol::groups::{Cell, Groups, Stamp};
    pub use crate::protocol::permits::{Limit, Need, Permit as CachePermit};
    pub use crate::protocol::publish::{Answer, ClaimGuard, Expiry, Published};
    pub use crate::protocol::removal::Removals;
    pub use crate::protocol::shards::Shards;
    pub use crate::protocol::table::{Inserted, Place, Table};
    pub use crate::protocol::times::{Lifetime, Times};
    pub use crate::protocol::wait_graph::WaitNode;
    pub use crate::store::change_queue::ChangeQueue;
    pub use crate::sync::event::Event;
    pub use crate::sync::{
        ArrayQueue, AtomicU8, AtomicU64, AtomicUsize, CountedSlot, Held, Lanes, SegQueue, SetOnce,
        Slot, explore_slots,
    };
    pub use crate::time::alarm::{Alarms, Nap, Sleeper};

    /// The error of a load that takes too long.
    pub fn time_out() -> crate::Error {
        crate::Error::timed_out(std::time::Duration::ZERO)
    }
}
