//! The timelines of a store that sees its own clock.

use super::lease::CLOCK_ERROR;
use crate::sync::{Counter, Ordering};

/// Counts how often a clock was set back.
///
/// If several threads notice a step, one of them counts it. A thread that read the clock before the
/// step may record its time last. The next thread then counts the step again, which costs one
/// comparison with the store too many.
#[derive(Default)]
pub(super) struct Timelines {
    /// The latest time that was read in the present timeline.
    last: Counter,
    begun: Counter,
    told: Counter,
}

impl Timelines {
    /// Compares a reading of the clock with the one before.
    pub(super) fn observe(&self, now: u64) {
        let last = self.last.load(Ordering::Relaxed);
        if now <= last && now.saturating_add(CLOCK_ERROR) >= last {
            return;
        }
        let moved = self
            .last
            .compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed);
        if moved.is_ok() && now < last {
            // Release: pairs with the load in `current`.
            self.begun.fetch_add(1, Ordering::Release);
        }
    }

    /// The number of the present timeline.
    pub(super) fn current(&self) -> u64 {
        self.begun.load(Ordering::Acquire)
    }

    /// Whether this call is the first in the present timeline. Always false in the first timeline.
    pub(super) fn is_new(&self) -> bool {
        let current = self.current();
        self.told.load(Ordering::Relaxed) != current
            && self.told.swap(current, Ordering::Relaxed) != current
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_back_begins_a_timeline() {
        let timelines = Timelines::default();
        for now in [5_000_000, 9_000_000, 8_500_000, 8_000_000, 9_000_000] {
            timelines.observe(now);
            assert!(timelines.current() == 0 && !timelines.is_new(), "{now}");
        }
        timelines.observe(7_999_999);
        assert_eq!(timelines.current(), 1);
        assert!(timelines.is_new() && !timelines.is_new());
        timelines.observe(7_000_000);
        timelines.observe(90_000_000);
        assert_eq!(timelines.current(), 1);
    }
}
