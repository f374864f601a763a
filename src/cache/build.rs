//! From checked settings to a cache.

use std::fmt;
use std::fmt::Debug;
use std::hash::{BuildHasher, Hash};
use std::hint::black_box;
use std::time::Duration;

use super::builder::{Builder, Made, Settings};
use crate::cache::Cache;
use crate::cache::read::Core;
use crate::error::{BuildError, grouped};
use crate::load::admission::AdmissionSettings;
use crate::load::batches::Collects;
use crate::load::lifecycle::Lifecycle;
use crate::load::negative::NegativeCache;
use crate::load::policy::Policy;
use crate::load::pool_builder::{check_threads, cores};
use crate::load::runner::Runner;
use crate::load::runtime::Home;
use crate::load::stack::STACK_PER_LOAD;
use crate::load::state::{CacheState, Common};
use crate::observe::stats::Counters;
use crate::protocol::entries::{Entries, Limits, Timing};
use crate::protocol::removal::Removals;
use crate::protocol::shards::shards_for;
use crate::sync::{Arc, OnceLock};
use crate::time::clock::{Clock, Tick, ticks};

/// Ways of the table for each entry of capacity, and for each load that may run. With three, one
/// key in eighteen thousand finds its set full.
const WAYS_PER_ENTRY: usize = 3;

/// The most loads for which the table has room beside the values.
const MOST_PLACES: usize = 1 << 16;

/// From this soft limit on, a clock in steps of some milliseconds is precise enough.
const COARSE_FROM: Duration = Duration::from_millis(400);

/// The entries of a cache with neither `capacity` nor `max_weight`.
const ENTRIES: usize = 10_000;

/// Without `capacity`, there is one entry for each so much of `max_weight`, ...
const WEIGHT_PER_ENTRY: u64 = 1_024;

/// ... but at least so many entries.
const LEAST_ENTRIES: u64 = 1 << 16;

/// Above this weight `capacity` is required, because the table is allocated at once.
const MAX_WEIGHT_ALONE: u64 = 1 << 34;

/// The number of a set of the table has 32 bits.
const MAX_CAPACITY: u64 = 1 << 32;

/// The bytes of a cache for each entry of capacity: three ways of the table and an eighth of a
/// token, which `build` allocates, and three ghosts, which the first eviction does. Rounded up; a
/// test counts the real allocations.
const BYTES_PER_ENTRY: usize = 42;

/// "For ever" for a claim: 36 years. A claim word holds times up to 146 years, so the deadline of a
/// later claim can still be later.
const LONGEST: Tick = Tick::MAX / 16;

impl<K, V, S> Builder<K, V, S>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// Checks the settings and builds the cache.
    ///
    /// # Errors
    ///
    /// [`BuildError`] names the setting, its value and the values that are allowed. Refused are: no
    /// loader; a `capacity`, `max_weight`, `fresh_for`, `load_timeout`, `backoff`,
    /// `negative_capacity`, `max_depth`, `threads`, `max_loads`, `queue`, `load_rate` or `batch` of
    /// zero or above its limit; a `beta`, `jitter` or `breaker` out of range; a
    /// `stale_if_error_for` shorter than `stale_for`; a `max_depth` for which the stacks of the
    /// pool are too small; a NUL character in a name; a setting that has no effect on the loader,
    /// or beside another one; a capacity for which there is not enough memory; and, without the
    /// feature `tokio`, an async loader without a `spawner`.
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
        S: BuildHasher + Send + Sync + 'static,
    {
        let (runner, checked) = self.settings.checked()?;
        let Some(make_start) = self.loader else {
            return Err(BuildError::setting(
                "there is no loader: give one with `compute`, `load` or their variants",
            ));
        };
        let Made {
            start,
            home,
            batches,
        } = make_start(runner)?;
        check_depth(checked.max_depth, &home)?;
        let Parts {
            limits,
            timing,
            negative_capacity,
            common,
        } = checked.parts(home, batches);
        let removals = Removals::new(self.listener);
        let entries = Arc::new(Entries::new(limits, timing, removals));
        let state = Arc::new(CacheState {
            common,
            weigher: self.weigher,
            negative: NegativeCache::new(negative_capacity),
        });
        let (start, fleet) = match self.level {
            None => (start, None),
            Some(connect) => {
                let (start, level) = connect(limits.entries, &entries, &state, start);
                (start, Some(level))
            }
        };
        Ok(Cache::new(Core {
            hasher: self.hasher,
            entries,
            state,
            start,
            fleet,
        }))
    }
}

/// Settings that are in order, before the loader has said where it runs.
struct Checked {
    name: Arc<str>,
    policy: Policy,
    clock: Clock,
    admission: AdmissionSettings,
    max_entries: usize,
    max_weight: u64,
    negative_capacity: u64,
    max_depth: usize,
    close_for: Tick,
}

/// What the parts of a cache are made from.
struct Parts {
    limits: Limits,
    timing: Timing,
    negative_capacity: u64,
    common: Common,
}

impl Checked {
    fn parts(self, home: Arc<Home>, batches: Option<Arc<dyn Collects>>) -> Parts {
        let Checked { policy, clock, .. } = self;
        let runs_on = home.runs_on();
        let places = self.admission.max_loads(runs_on).min(MOST_PLACES);
        Parts {
            limits: Limits {
                entries: self.max_entries,
                weight: self.max_weight,
                ways: (self.max_entries + places) * WAYS_PER_ENTRY,
                shards: shards_for(self.max_entries, cores()),
            },
            timing: Timing {
                // The `now` of a claim may lag by one step, and a claim must not end early.
                claim_for: ticks(policy.load_timeout)
                    .saturating_add(clock.step())
                    .min(LONGEST),
                timeout: policy.load_timeout,
                rest_for: policy.backoff_from,
            },
            negative_capacity: self.negative_capacity,
            common: Common {
                name: self.name,
                policy,
                counters: Counters::default(),
                admission: Arc::new(self.admission.admission(runs_on, &clock)),
                lifecycle: Arc::new(Lifecycle::default()),
                close_for: self.close_for,
                clock,
                home,
                batches,
                cache: OnceLock::new(),
                max_depth: self.max_depth,
            },
        }
    }
}

impl Settings {
    fn checked(self) -> Result<(Runner, Checked), BuildError> {
        self.check()?;
        let max_entries = self.max_entries()?;
        let policy = self.policy();
        let clock = self
            .clock
            .unwrap_or_else(|| match self.fresh_for < COARSE_FROM {
                true => Clock::precise(),
                false => Clock::coarse(),
            });
        let checked = Checked {
            name: self.runner.name.as_str().into(),
            policy,
            clock,
            admission: self.admission,
            max_entries,
            max_weight: self.max_weight.unwrap_or(u64::MAX),
            negative_capacity: self
                .negative_capacity
                .unwrap_or(max_entries.max(1_000) as u64),
            max_depth: self.max_depth,
            close_for: ticks(self.close_timeout),
        };
        Ok((self.runner, checked))
    }

    fn check(&self) -> Result<(), BuildError> {
        let runner = &self.runner;
        let may_name_a_thread = |name: &str| !name.contains('\0');
        let no_nul = "must not contain NUL, because threads are named after it";
        require(
            may_name_a_thread(&runner.name),
            "name",
            &runner.name,
            no_nul,
        )?;
        if let Some(name) = &runner.thread_name {
            require(may_name_a_thread(name), "thread_name", name, no_nul)?;
        }
        if let Some(capacity) = self.capacity {
            let fits = (1..=MAX_CAPACITY).contains(&(capacity as u64));
            require(
                fits,
                "capacity",
                &capacity,
                "must be 1 to 4 294 967 296 entries",
            )?;
        }
        if let Some(weight) = self.max_weight {
            require(weight > 0, "max_weight", &weight, "must be at least 1")?;
            require(
                self.capacity.is_some() || weight <= MAX_WEIGHT_ALONE,
                "max_weight",
                &weight,
                "must be at most 2^34 without `capacity`: room for entries is taken at once",
            )?;
        }
        require(
            !self.fresh_for.is_zero(),
            "fresh_for",
            &self.fresh_for,
            "must be more than zero",
        )?;
        if let Some(window) = self.stale_if_error_for {
            require(
                window >= self.stale_for,
                "stale_if_error_for",
                &window,
                &format!("must be at least `stale_for`, {:?}", self.stale_for),
            )?;
        }
        require(
            !self.load_timeout.is_zero(),
            "load_timeout",
            &self.load_timeout,
            "must be more than zero",
        )?;
        let (first, longest) = self.backoff;
        require(
            !first.is_zero() && first <= longest,
            "backoff",
            &format_args!("{first:?} to {longest:?}"),
            "must have a first time above zero, and a longest that is no shorter",
        )?;
        require(
            self.beta.is_finite() && self.beta >= 0.0,
            "beta",
            &self.beta,
            "must be a number and not below zero",
        )?;
        require(
            (0.0..=1.0).contains(&self.jitter),
            "jitter",
            &self.jitter,
            "must be 0 to 1",
        )?;
        if let Some(keys) = self.negative_capacity {
            let rule = "must be at least 1, because a key that is not remembered has no backoff";
            require(keys > 0, "negative_capacity", &keys, rule)?;
        }
        let rule = "must be at least 1";
        require(self.max_depth > 0, "max_depth", &self.max_depth, rule)?;
        if let Some(threads) = runner.threads {
            check_threads(threads)?;
        }
        runner
            .batch
            .map_or(Ok(()), |batch| batch.check(self.load_timeout))?;
        self.admission.check()
    }

    /// The number of entries, if there is memory for them.
    fn max_entries(&self) -> Result<usize, BuildError> {
        let (entries, of) = match (self.capacity, self.max_weight) {
            (Some(capacity), _) => (capacity, format!("`capacity` is {}", grouped(capacity))),
            (None, Some(weight)) => (
                entries_for(weight),
                format!(
                    "`max_weight` is {}, `capacity` is not given",
                    grouped(weight)
                ),
            ),
            (None, None) => (ENTRIES, format!("`capacity` is {}", grouped(ENTRIES))),
        };
        match has_memory_for(entries.saturating_add(MOST_PLACES)) {
            true => Ok(entries),
            false => Err(BuildError::setting(format!(
                "{of}; there is no memory for {} entries, about {BYTES_PER_ENTRY} bytes each; give \
                 a smaller `capacity`",
                grouped(entries)
            ))),
        }
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
            not_found_for: ticks(self.not_found_for),
            load_timeout: self.load_timeout,
            keep_late_loads: self.runner.keep_late_loads.unwrap_or(false),
        }
    }
}

impl<K, V, S> fmt::Debug for Builder<K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("name", &self.settings.runner.name)
            .field("capacity", &self.settings.capacity)
            .field("fresh_for", &self.settings.fresh_for)
            .field("stale_for", &self.settings.stale_for)
            .field("has_loader", &self.loader.is_some())
            .finish_non_exhaustive()
    }
}

impl<K, V, S> Drop for Core<K, V, S> {
    fn drop(&mut self) {
        // Loads that run give their leases back now, and not when their renewal is due.
        self.state.lifecycle.close();
        // Loads that wait keep the state of the cache alive, which keeps them.
        self.state.admission.close();
        self.state.start_batches();
    }
}

/// A chain of loads must not overflow the stack of a worker, which would end the process.
fn check_depth(max_depth: usize, home: &Home) -> Result<(), BuildError> {
    let Home::Pool { stack_size, .. } = home else {
        return Ok(());
    };
    let most = stack_size / STACK_PER_LOAD;
    match max_depth <= most {
        true => Ok(()),
        false => Err(BuildError::setting(format!(
            "`max_depth` is {}; the `stack_size` of the pool, {} bytes, has room for {}, 64 KiB \
             for each load; give a smaller `max_depth`, or a pool with a larger `stack_size`",
            grouped(max_depth),
            grouped(stack_size),
            grouped(most),
        ))),
    }
}

fn require(holds: bool, setting: &str, value: &dyn Debug, rule: &str) -> Result<(), BuildError> {
    match holds {
        true => Ok(()),
        false => Err(BuildError::value(setting, value, rule)),
    }
}

/// The limit on entries if only the weight is limited. It does not bind while values weigh 1 024 on
/// average. Its table takes about a thirtieth of a weight in bytes.
fn entries_for(weight: u64) -> usize {
    let entries = (weight / WEIGHT_PER_ENTRY).max(LEAST_ENTRIES);
    usize::try_from(entries).unwrap_or(usize::MAX)
}

/// Allocates the memory of table and queues in one piece and frees it, because a failure of their
/// own allocations would end the process.
fn has_memory_for(entries: usize) -> bool {
    let Some(bytes) = entries.checked_mul(BYTES_PER_ENTRY) else {
        return false;
    };
    let mut probe = Vec::<u8>::new();
    let reserved = probe.try_reserve_exact(bytes).is_ok();
    // Without this the compiler removes the allocation and assumes that it succeeded.
    black_box(&mut probe);
    reserved
}
