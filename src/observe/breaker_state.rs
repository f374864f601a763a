//! The state of a breaker, as statistics show it.

use std::fmt;

/// The state of the breaker of a cache or of its budget.
///
/// [`Stats::breaker`](crate::Stats::breaker) shows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum BreakerState {
    /// Loads run. A cache without a breaker is in this state too.
    #[default]
    Closed,
    /// One load runs as a probe, and no other starts.
    HalfOpen,
    /// No load starts before the next probe.
    Open,
}

impl BreakerState {
    /// The state as a word, for events and tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            BreakerState::Closed => "closed",
            BreakerState::HalfOpen => "half-open",
            BreakerState::Open => "open",
        }
    }
}

impl fmt::Display for BreakerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
