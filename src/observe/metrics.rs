//! The counts of a cache, reported to the recorder of the `metrics` facade.
//!
//! Counters are read only when [`Cache::record_metrics`](crate::Cache::record_metrics) is called,
//! so hits pay nothing. Only durations, of loads and of store operations, are recorded as they end,
//! because that cost is small next to what they measure.
//!
//! The recorder is looked up each time, so a recorder that is installed after the cache was built
//! is used from then on.

use crate::observe::reason::LoadReason;
use crate::sync::Arc;
use crate::time::clock::Tick;

/// How a load ended.
#[derive(Clone, Copy)]
pub(crate) enum Ended {
    Ok,
    Failed,
    NotFound,
    TimedOut,
}

/// A load or refresh ended.
#[cfg_attr(not(feature = "metrics"), expect(unused_variables))]
pub(crate) fn loaded(cache: &Arc<str>, reason: LoadReason, ended: Ended, took: Tick) {
    #[cfg(feature = "metrics")]
    {
        let outcome = match ended {
            Ended::Ok => "ok",
            Ended::Failed => "failed",
            Ended::NotFound => "not_found",
            Ended::TimedOut => "timed_out",
        };
        let labels = [("reason", reason.name()), ("outcome", outcome)];
        super::facade::LOAD.record(cache, &labels, took);
    }
}

/// The store answered an operation of a cache.
#[cfg(any(feature = "metrics", feature = "tracing"))]
#[cfg_attr(not(feature = "metrics"), expect(unused_variables))]
pub(crate) fn answered(cache: &Arc<str>, operation: &'static str, failed: bool, took: Tick) {
    #[cfg(feature = "metrics")]
    {
        let outcome = if failed { "failed" } else { "ok" };
        let labels = [("operation", operation), ("outcome", outcome)];
        super::facade::STORE.record(cache, &labels, took);
    }
}
