//! A budget: the limits of one origin, shared by the caches that load from it.

use std::fmt;

use crate::error::BuildError;
use crate::load::admission::breaker::Breaker;
use crate::load::admission::gate::{Gate, GateLimits};
use crate::load::admission::{check_limits, require_max_loads};
use crate::sync::Arc;
use crate::time::clock::Clock;

/// The limits of one origin, shared by all caches that load from it.
///
/// A handle: clones are the same budget. Given to any number of caches by
/// [`Builder::budget`](crate::Builder::budget). Their loads share its permits, its rate and its
/// breaker. Loads that wait are started in the order of their urgency, whichever cache they belong
/// to: loads for which a caller waits before refreshes of stale values.
///
/// # Example
///
/// Two caches share the ten connections of one database:
///
/// ```
/// use everfresh::{Budget, Cache};
///
/// # #[cfg(feature = "tokio")]
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// let database = Budget::new(10)?;
/// let users: Cache<u64, String> = Cache::builder()
///     .budget(&database)
///     .load(async |id: &u64| format!("user {id}"))
///     .build()?;
/// let orders: Cache<u64, String> = Cache::builder()
///     .budget(&database)
///     .load(async |id: &u64| format!("order {id}"))
///     .build()?;
/// assert_eq!(*users.get(&7).await?, "user 7");
/// assert_eq!(*orders.get(&7).await?, "order 7");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Budget {
    pub(crate) gate: Arc<Gate>,
    pub(crate) limits: Arc<GateLimits>,
}

impl Budget {
    /// A budget of so many loads at once, without a rate and without a breaker.
    ///
    /// # Errors
    ///
    /// If `max_loads` is zero or above 1 048 576.
    pub fn new(max_loads: usize) -> Result<Self, BuildError> {
        Self::builder().max_loads(max_loads).build()
    }

    /// Starts to configure a budget, without limits at first.
    pub fn builder() -> BudgetBuilder {
        BudgetBuilder {
            limits: GateLimits::default(),
            clock: None,
        }
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Budget")
            .field("max_loads", &self.limits.loads)
            .field("load_rate", &self.limits.per_second)
            .field("breaker", &self.limits.breaker)
            .finish()
    }
}

/// Configures a [`Budget`]; made by [`Budget::builder`].
///
/// # Example
///
/// ```
/// use everfresh::{Breaker, Budget};
///
/// let api = Budget::builder()
///     .max_loads(20)
///     .load_rate(100)
///     .breaker(Breaker::new())
///     .build()?;
/// # let _ = api;
/// # Ok::<(), everfresh::BuildError>(())
/// ```
#[derive(Clone)]
pub struct BudgetBuilder {
    limits: GateLimits,
    clock: Option<Clock>,
}

impl BudgetBuilder {
    /// How many loads of all caches run at once, 1 to 1 048 576. Default: no limit.
    pub fn max_loads(mut self, loads: usize) -> Self {
        self.limits.loads = Some(loads);
        self
    }

    /// How many loads of all caches start in a second, 1 to 1 000 000. Default: no limit.
    ///
    /// See [`Builder::load_rate`](crate::Builder::load_rate).
    pub fn load_rate(mut self, loads_per_second: u32) -> Self {
        self.limits.per_second = Some(loads_per_second);
        self
    }

    /// When the origin counts as down. Default: never.
    pub fn breaker(mut self, breaker: Breaker) -> Self {
        self.limits.breaker = Some(breaker);
        self
    }

    /// The source of time of rate and breaker. Default: [`Clock::coarse`].
    ///
    /// In tests with a `ManualClock`, give it to the budget as well as to the caches.
    pub fn clock(mut self, clock: impl Into<Clock>) -> Self {
        self.clock = Some(clock.into());
        self
    }

    /// Checks the settings and makes the budget.
    ///
    /// # Errors
    ///
    /// [`BuildError`] names the setting, its value and the values that are allowed.
    pub fn build(self) -> Result<Budget, BuildError> {
        require_max_loads(self.limits.loads)?;
        check_limits(&self.limits)?;
        let clock = self.clock.unwrap_or_else(Clock::coarse);
        Ok(Budget {
            gate: Gate::new(&self.limits, clock),
            limits: Arc::new(self.limits),
        })
    }
}

impl fmt::Debug for BudgetBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BudgetBuilder")
            .field("max_loads", &self.limits.loads)
            .field("load_rate", &self.limits.per_second)
            .field("breaker", &self.limits.breaker)
            .finish_non_exhaustive()
    }
}
