//! Histograms of durations.

use std::fmt;
use std::time::Duration;

use crate::sync::{Counter, Ordering};
use crate::time::clock::Tick;

/// One bucket for each power of two of nanoseconds.
const BUCKETS: usize = 64;

/// The counters of a histogram.
pub(super) struct Buckets([Counter; BUCKETS]);

impl Default for Buckets {
    fn default() -> Self {
        Buckets(std::array::from_fn(|_| Counter::new(0)))
    }
}

impl Buckets {
    /// The counter of a duration.
    #[inline]
    pub(super) fn of(&self, ticks: Tick) -> &Counter {
        let bits = (u64::BITS - ticks.leading_zeros()) as usize;
        &self.0[bits.min(BUCKETS - 1)]
    }
}

/// Durations counted in powers of two of nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram([u64; BUCKETS]);

impl Default for Histogram {
    fn default() -> Self {
        Histogram([0; BUCKETS])
    }
}

impl Histogram {
    pub(super) fn of(buckets: &Buckets) -> Self {
        Histogram(std::array::from_fn(|at| {
            buckets.0[at].load(Ordering::Relaxed)
        }))
    }

    pub(super) fn add(&mut self, other: &Histogram) {
        for (count, more) in self.0.iter_mut().zip(&other.0) {
            *count += more;
        }
    }

    pub(super) fn subtract(&mut self, other: &Histogram) {
        for (count, less) in self.0.iter_mut().zip(&other.0) {
            *count = count.saturating_sub(*less);
        }
    }

    /// The number of durations.
    pub fn count(&self) -> u64 {
        self.0.iter().sum()
    }

    /// An upper bound of this part (0 to 1) of the durations, at most twice too high.
    ///
    /// `None` if there are no durations.
    pub fn quantile(&self, part: f64) -> Option<Duration> {
        let wanted = (self.count() as f64 * part.clamp(0.0, 1.0)).ceil() as u64;
        let mut seen = 0;
        self.buckets()
            .find(|(_, count)| {
                seen += count;
                seen >= wanted.max(1)
            })
            .map(|(bound, _)| bound)
    }

    /// Each bucket that is not empty: the upper bound of its durations, and their number.
    pub fn buckets(&self) -> impl Iterator<Item = (Duration, u64)> + '_ {
        let filled = self.0.iter().enumerate().filter(|(_, count)| **count > 0);
        filled.map(|(at, count)| (Duration::from_nanos(1 << at), *count))
    }
}

impl fmt::Display for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.quantile(0.5), self.quantile(0.99), self.quantile(1.0)) {
            (Some(half), Some(most), Some(all)) => write!(
                f,
                "{} counted, p50 < {half:.1?}, p99 < {most:.1?}, max < {all:.1?}",
                self.count()
            ),
            _ => f.write_str("none counted"),
        }
    }
}
