//! From checked settings to a cache.

use std::hash::{BuildHasher, Hash};
use std::num::NonZero;
use std::time::Duration;

use super::Builder;
use crate::absent::Absent;
use crate::cache::Cache;
use crate::clock::{Clock, Tick, ticks};
use crate::error::BuildError;
use crate::fleet::Fleet;
use crate::job::{Shared, Start};
use crate::loader::BoxFuture;
use crate::pool::Pool;
use crate::read::Core;
use crate::removal::Removals;
use crate::residents::{Limits, Residents, Timing};
use crate::schedule::Policy;
use crate::stats::Counters;
use crate::sync::Arc;

/// Ways of the table for each entry of capacity. At three, one key in eighteen thousand finds its set full.
const WAYS_PER_ENTRY: usize = 3;

/// From limits of this length on, a clock in steps of some milliseconds is good enough.
const COARSE_FROM: Duration = Duration::from_millis(400);

const MAX_CAPACITY: usize = 1 << 32;

/// "For ever" for a claim: 36 years. A claim word holds times up to 146 years, so a claim that is
/// made after such a one can still be later.
const LONGEST: Tick = Tick::MAX / 16;

pub(super) type Spawner = Box<dyn Fn(BoxFuture) + Send + Sync>;

/// What a loader runs on.
pub(super) struct Runner {
    pub(super) name: String,
    pub(super) threads: Option<usize>,
    pub(super) thread_name: Option<String>,
    pub(super) queue: usize,
    pub(super) spawner: Option<Spawner>,
}

impl<K, V, S> Builder<K, V, S>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// Checks the settings and builds the cache.
    ///
    /// # Errors
    ///
    /// [`BuildError`] says which setting is wrong and what it may be.
    ///
    /// # Example
    ///
    /// ```
    /// # use everfresh::Cache;
    /// let without_loader = Cache::<u64, u64>::builder().capacity(100).build();
    /// assert!(without_loader.unwrap_err().to_string().starts_with("there is no loader"));
    /// ```
    pub fn build(self) -> Result<Cache<K, V, S>, BuildError>
    where
        S: BuildHasher,
    {
        self.check()?;
        let policy = self.policy();
        let clock = self
            .clock
            .unwrap_or_else(|| match self.fresh_for < COARSE_FROM {
                true => Clock::precise(),
                false => Clock::coarse(),
            });
        let timing = Timing {
            // `now` of a claim may lag by a step, and a claim must not end before its time.
            claim_for: ticks(self.load_timeout)
                .saturating_add(clock.step())
                .min(LONGEST),
            timeout: self.load_timeout,
            rest_for: policy.backoff_from,
        };
        let name = self.runner.name.clone();
        let Some(make_start) = self.loader else {
            return Err(BuildError::setting(
                "there is no loader: give one with `compute`, `load` or their variants",
            ));
        };
        let start = make_start(self.runner)?;
        let (max_weight, weigher) = self.weigher.map_or((u64::MAX, None), |(w, f)| (w, Some(f)));
        let absent_capacity = self
            .absent_capacity
            .unwrap_or(self.capacity.max(1_000) as u64);
        let limits = Limits {
            entries: self.capacity,
            weight: max_weight,
            ways: self.capacity * WAYS_PER_ENTRY,
        };
        let removals = Removals::new(self.listener);
        let residents = Arc::new(Residents::new(limits, timing, removals));
        let shared = Arc::new(Shared {
            name: name.into(),
            policy,
            clock,
            counters: Counters::default(),
            weigher,
            absent: Absent::new(absent_capacity),
        });
        let (start, fleet) = match self.level {
            None => (start, None),
            Some(level) => {
                let fleet = Fleet::new(level, self.capacity, &residents, shared.clone(), start);
                let starts = fleet.clone();
                let start: Start<K, V> = Box::new(move |job| starts.start(job));
                (start, Some(fleet))
            }
        };
        Ok(Cache::new(Core {
            hasher: self.hasher,
            residents,
            shared,
            start,
            fleet,
        }))
    }

    fn check(&self) -> Result<(), BuildError> {
        let require = |holds: bool, message: &str| match holds {
            true => Ok(()),
            false => Err(BuildError::setting(message)),
        };
        let runner = &self.runner;
        require(
            (1..=MAX_CAPACITY).contains(&self.capacity),
            "`capacity` must be 1 to 2^32 entries",
        )?;
        require(
            !self.fresh_for.is_zero(),
            "`fresh_for` must be more than zero",
        )?;
        require(
            self.stale_if_error_for
                .is_none_or(|window| window >= self.stale_for),
            "`stale_if_error_for` must be at least `stale_for`",
        )?;
        require(
            !self.load_timeout.is_zero(),
            "`load_timeout` must be more than zero",
        )?;
        require(
            !self.backoff.0.is_zero() && self.backoff.0 <= self.backoff.1,
            "`backoff` must start above zero and not below its first step",
        )?;
        require(
            self.beta.is_finite() && self.beta >= 0.0,
            "`beta` must be a number and not below zero",
        )?;
        require(
            (0.0..=1.0).contains(&self.jitter),
            "`jitter` must be 0 to 1",
        )?;
        require(runner.threads != Some(0), "`threads` must be at least 1")?;
        require(runner.queue > 0, "`queue` must be at least 1")
    }

    fn policy(&self) -> Policy {
        Policy {
            fresh_for: ticks(self.fresh_for),
            stale_for: ticks(self.stale_for),
            error_for: ticks(self.stale_if_error_for.unwrap_or(self.stale_for)),
            beta: self.beta,
            jitter: self.jitter,
            backoff_from: ticks(self.backoff.0),
            backoff_to: ticks(self.backoff.1),
            absent_for: ticks(self.absent_for),
        }
    }
}

impl Runner {
    pub(super) fn pool(self) -> Result<Arc<Pool>, BuildError> {
        let cores = || std::thread::available_parallelism().map_or(1, NonZero::get);
        let threads = self.threads.unwrap_or_else(cores);
        let name = self.thread_name.unwrap_or(self.name);
        Pool::new(threads, self.queue, &name).map(Arc::new)
    }

    pub(super) fn spawner(self) -> Result<Spawner, BuildError> {
        match self.spawner {
            Some(spawner) => Ok(spawner),
            None => current_runtime(),
        }
    }
}

#[cfg(feature = "tokio")]
fn current_runtime() -> Result<Spawner, BuildError> {
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => Ok(Box::new(move |future| drop(runtime.spawn(future)))),
        Err(_) => Err(BuildError::setting(
            "an async loader needs a runtime: call `build` inside one, or give a `spawner`",
        )),
    }
}

#[cfg(not(feature = "tokio"))]
fn current_runtime() -> Result<Spawner, BuildError> {
    Err(BuildError::setting(
        "an async loader needs a runtime: give a `spawner`, or turn on the feature `tokio`",
    ))
}
