//! Spans and events for `tracing`; no code at all without the feature.
//!
//! None of them is on the path of a hit. None contains a key, a value or the text of a loader's
//! error, which may contain a key.
//!
//! Spans and normal events have the level debug. An event that the program cannot learn otherwise
//! is a warning: a refresh that failed while a stale value is served, a lost connection to the
//! store, a write that was given up. A load that failed is reported to its waiters.
#![cfg_attr(not(feature = "tracing"), expect(unused_variables))]

use std::fmt::Display;
use std::time::Duration;

use crate::observe::breaker_state::BreakerState;
use crate::observe::reason::LoadReason;
use crate::protocol::publish::Published;
use crate::sync::Arc;

/// An event of the library, if the feature is on.
macro_rules! event {
    ($level:ident, $($rest:tt)*) => {{
        #[cfg(feature = "tracing")]
        ::tracing::$level!(target: "everfresh", $($rest)*);
    }};
}

/// A span that is entered while a function runs.
pub(crate) struct TraceSpan(#[cfg(feature = "tracing")] ::tracing::Span);

impl TraceSpan {
    /// The span of a caller that waits for a load. A caller that does not wait has none, because
    /// its span would stay open until the load ends.
    pub(crate) fn of_caller(reason: LoadReason) -> Self {
        TraceSpan(
            #[cfg(feature = "tracing")]
            match reason {
                LoadReason::Cold => ::tracing::Span::current(),
                LoadReason::Stale | LoadReason::Early => ::tracing::Span::none(),
            },
        )
    }

    /// The span of a load.
    pub(crate) fn load(&self, cache: &Arc<str>, reason: LoadReason) -> Self {
        TraceSpan(
            #[cfg(feature = "tracing")]
            ::tracing::debug_span!(
                target: "everfresh",
                parent: &self.0,
                "everfresh.load",
                cache = &**cache,
                reason = reason.name(),
            ),
        )
    }

    /// The span of one store operation.
    #[cfg(any(feature = "metrics", feature = "tracing"))]
    pub(crate) fn store(cache: &Arc<str>, operation: &'static str) -> Self {
        TraceSpan(
            #[cfg(feature = "tracing")]
            ::tracing::debug_span!(
                target: "everfresh",
                "everfresh.store",
                cache = &**cache,
                operation,
            ),
        )
    }

    /// Runs a function, or polls a future once, in the span.
    pub(crate) fn within<R>(&self, run: impl FnOnce() -> R) -> R {
        #[cfg(feature = "tracing")]
        return self.0.in_scope(run);
        #[cfg(not(feature = "tracing"))]
        run()
    }
}

/// A loader returned an error, or panicked.
pub(crate) fn load_failed(
    cache: &Arc<str>,
    reason: LoadReason,
    panicked: bool,
    failures: u32,
    rest: Duration,
) {
    let what = match panicked {
        true => "panicked",
        false => "failed",
    };
    match reason {
        LoadReason::Cold => event!(
            debug,
            cache = &**cache,
            reason = reason.name(),
            failures,
            ?rest,
            "the loader {what}"
        ),
        LoadReason::Stale | LoadReason::Early => event!(
            warn,
            cache = &**cache,
            reason = reason.name(),
            failures,
            ?rest,
            "the loader {what}, the old value is served until its hard limit"
        ),
    }
}

/// A load passed its deadline. It may go on.
pub(crate) fn load_timed_out(cache: &Arc<str>, reason: LoadReason, failures: u32, rest: Duration) {
    match reason {
        LoadReason::Cold => event!(
            debug,
            cache = &**cache,
            reason = reason.name(),
            failures,
            ?rest,
            "the loader timed out"
        ),
        LoadReason::Stale | LoadReason::Early => event!(
            warn,
            cache = &**cache,
            reason = reason.name(),
            failures,
            ?rest,
            "the loader timed out, the old value is served until its hard limit"
        ),
    }
}

/// A load was dropped before it ended, by its runtime or by a panic.
pub(crate) fn load_dropped(cache: &Arc<str>, reason: LoadReason, rest: Duration) {
    event!(
        warn,
        cache = &**cache,
        reason = reason.name(),
        ?rest,
        "a load was dropped before it ended, by its runtime or by a panic"
    );
}

/// A result was not published; a published result has no event.
pub(crate) fn published(cache: &Arc<str>, reason: LoadReason, published: Published) {
    let why = match published {
        Published::Yes => return,
        Published::Overtaken => "overtaken by a write, or evicted",
        Published::TakenOver => "too late, another result was first",
        Published::NotKept => "no room for it",
    };
    event!(
        debug,
        cache = &**cache,
        reason = reason.name(),
        "a result is discarded: {why}"
    );
}

/// A load was not tried because the loader is busy, or because there is no runtime for it.
pub(crate) fn not_tried(cache: &Arc<str>, reason: LoadReason) {
    event!(
        debug,
        cache = &**cache,
        reason = reason.name(),
        "not tried, the loader is busy or has no runtime"
    );
}

/// A load is past its deadline and keeps its worker.
pub(crate) fn overdue(cache: &Arc<str>, replaced: bool) {
    let what = match replaced {
        true => "a spare worker takes its place",
        false => "the pool has no spare worker left",
    };
    event!(
        warn,
        cache = &**cache,
        "a load is past its deadline and keeps its worker, {what}"
    );
}

/// A load was not tried because the breaker is open.
pub(crate) fn refused_by_breaker(cache: &Arc<str>, reason: LoadReason) {
    event!(
        debug,
        cache = &**cache,
        reason = reason.name(),
        "not tried, the breaker is open"
    );
}

/// A load changed the state of a breaker. Its opening is a warning.
pub(crate) fn breaker(cache: &Arc<str>, state: BreakerState) {
    match state {
        BreakerState::Open => event!(
            warn,
            cache = &**cache,
            state = state.name(),
            "the breaker is open, because too many loads failed"
        ),
        BreakerState::HalfOpen => event!(
            debug,
            cache = &**cache,
            state = state.name(),
            "the breaker lets one load through as a probe"
        ),
        BreakerState::Closed => event!(
            info,
            cache = &**cache,
            state = state.name(),
            "the breaker is closed, the probe succeeded"
        ),
    }
}

/// A store operation failed.
#[cfg(any(feature = "metrics", feature = "tracing"))]
pub(crate) fn store_failed(
    cache: &Arc<str>,
    operation: &'static str,
    class: &'static str,
    error: &dyn Display,
) {
    event!(
        debug,
        cache = &**cache,
        operation,
        class,
        "the store failed: {error}"
    );
}

/// The store refused a result.
pub(crate) fn refused(cache: &Arc<str>) {
    event!(
        debug,
        cache = &**cache,
        "a result is discarded: the store has a newer write"
    );
}

/// A result, or a value that was written, was not stored.
pub(crate) fn not_stored(cache: &Arc<str>, why: &dyn Display) {
    event!(debug, cache = &**cache, "not stored: {why}");
}

/// A lease ended before its load.
pub(crate) fn lease_lost(cache: &Arc<str>) {
    event!(
        debug,
        cache = &**cache,
        "a lease was lost: another process may load the same key"
    );
}

/// A write was given up and will never reach the store.
pub(crate) fn given_up(cache: &Arc<str>) {
    event!(
        warn,
        cache = &**cache,
        "a write is given up, too many wait for the store"
    );
}

/// A connection to the store was established.
#[cfg(feature = "redis")]
pub(crate) fn connected(store: &str) {
    event!(info, store, "connected to the store");
}

/// A connection to the store was lost, or could not be established.
#[cfg(feature = "redis")]
pub(crate) fn disconnected(store: &str, class: &'static str, error: &dyn Display) {
    event!(
        warn,
        store,
        class,
        "no connection to the store, trying again: {error}"
    );
}
