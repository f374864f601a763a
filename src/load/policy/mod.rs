//! When to refresh, how long to rest after a failure, and how long a new entry lives.
//!
//! Early refreshes follow X-Fetch (Vattani, Chierichetti, Lowenstein, "Optimal Probabilistic Cache
//! Stampede Prevention", PVLDB 8(8), 2015): a read at `now` refreshes if
//! `now - cost * beta * ln(U) >= fresh_until`, with `U` uniform in (0, 1].

use std::time::Duration;

use rand::{Rng, RngExt};

use crate::load::loader::Given;
use crate::protocol::times::{Lifetime, Times};
use crate::rng::with_rng;
use crate::time::clock::{Tick, ticks};

/// `ln(1e9)`: a draw has a chance above 1e-9 only in the last `WINDOW * beta * cost` before the
/// soft limit.
const WINDOW: f64 = 20.723_265_836_946_41;

/// The early window is at most this part of the fresh time. Otherwise a slow load would be repeated
/// without end.
const WINDOW_CAP: f64 = 0.5;

/// The share of the newest measurement in the moving average of the load time.
const NEWEST: f64 = 0.3;

/// The settings of one cache that concern time; durations in ticks.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    pub(crate) fresh_for: Tick,
    pub(crate) stale_for: Tick,
    pub(crate) error_for: Tick,
    pub(crate) beta: f64,
    pub(crate) jitter: f64,
    pub(crate) backoff_from: Tick,
    pub(crate) backoff_to: Tick,
    pub(crate) not_found_for: Tick,
    /// The least time between loads that callers force; 0 is no limit.
    pub(crate) forced_every: Tick,
    /// As the user configured it, for the error of a load that timed out.
    pub(crate) load_timeout: Duration,
    /// Whether an async load goes on after its deadline.
    pub(crate) keep_late_loads: bool,
}

impl Policy {
    /// The times of a new entry.
    ///
    /// `previous_cost` is the average so far, and `took` is the newest measurement. Either may be
    /// unknown. An average of zero also means unknown: it belongs to a value that was inserted.
    pub(crate) fn times(
        &self,
        given: Given,
        created: Tick,
        previous_cost: Option<Tick>,
        took: Option<Tick>,
        rng: &mut impl Rng,
    ) -> Times {
        let previous_cost = previous_cost.filter(|cost| *cost > 0);
        let cost = match (previous_cost, took) {
            (Some(before), Some(took)) => {
                (before as f64 * (1.0 - NEWEST) + took as f64 * NEWEST) as Tick
            }
            (before, took) => took.or(before).unwrap_or(0),
        };
        let fresh_for = given.fresh_for.map_or(self.fresh_for, ticks);
        // Jitter only shortens: no value is fresh for longer than configured.
        let fresh_for = match self.jitter > 0.0 && fresh_for != Tick::MAX {
            true => (fresh_for as f64 * (1.0 - self.jitter * rng.random::<f64>())) as Tick,
            false => fresh_for,
        };
        Times::new(Lifetime {
            created,
            fresh_for,
            stale_for: given.stale_for.map_or(self.stale_for, ticks),
            error_for: given.stale_if_error_for.map_or(self.error_for, ticks),
            early_for: self.early_for(fresh_for, cost),
            cost,
        })
    }

    /// [`times`](Self::times) with this thread's generator.
    pub(crate) fn draw_times(
        &self,
        given: Given,
        created: Tick,
        previous_cost: Option<Tick>,
        took: Option<Tick>,
    ) -> Times {
        with_rng(|rng| self.times(given, created, previous_cost, took, rng))
    }

    pub(crate) fn early_for(&self, fresh_for: Tick, cost: Tick) -> Tick {
        (WINDOW * self.beta * cost as f64).min(WINDOW_CAP * fresh_for as f64) as Tick
    }

    /// The X-Fetch draw: whether this read of a fresh entry should refresh it now.
    pub(crate) fn draws_early(&self, times: &Times, now: Tick, rng: &mut impl Rng) -> bool {
        let left = times.fresh_until().saturating_sub(now) as f64;
        let scale = self.beta * times.cost() as f64;
        scale > 0.0 && exceeds(rng.next_u64(), left / scale)
    }

    /// [`draws_early`](Self::draws_early) with this thread's generator.
    pub(crate) fn draw_early(&self, times: &Times, now: Tick) -> bool {
        with_rng(|rng| self.draws_early(times, now, rng))
    }

    /// How long to rest after the attempt that followed `failures` failures.
    ///
    /// The rest doubles up to a limit. A random part of it, at most half, is taken off, so that
    /// keys which failed together do not retry together.
    pub(crate) fn backoff(&self, failures: u32, rng: &mut impl Rng) -> Tick {
        let doubled = self.backoff_from.saturating_mul(1 << failures.min(63));
        let longest = doubled.min(self.backoff_to);
        longest - (longest as f64 * 0.5 * rng.random::<f64>()) as Tick
    }

    /// [`backoff`](Self::backoff) with this thread's generator.
    pub(crate) fn draw_backoff(&self, failures: u32) -> Tick {
        with_rng(|rng| self.backoff(failures, rng))
    }
}

/// Whether `-ln(U) >= x` for the uniform `U = (bits + 1) / 2^64`.
///
/// With `z` leading zeros `U >= 2^-(z+1)`, so `-ln(U) <= (z+1) ln 2`. Nearly every draw ends there,
/// without a logarithm.
fn exceeds(bits: u64, x: f64) -> bool {
    let most = f64::from(bits.leading_zeros() + 1) * std::f64::consts::LN_2;
    if most < x {
        return false;
    }
    let uniform = (bits as f64 + 1.0) / 2f64.powi(64);
    -uniform.ln() >= x
}

#[cfg(test)]
mod tests;
