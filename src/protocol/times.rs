//! When an entry is fresh, stale and expired.

use std::time::Duration;

use crate::protocol::compact::{Cost, Span};
use crate::time::clock::Tick;

/// When an entry is fresh, stale and expired.
///
/// One absolute time and four distances from it.
#[derive(Clone, Copy)]
pub struct Times {
    since_created: Span,
    until_stale: Span,
    stale_for: Span,
    error_for: Span,
    cost: Cost,
    early_from: Tick,
}

/// The upper bytes of `early_from`: what a hit compares with the clock.
///
/// A hit in the last 66 µs (2^16 ns) before `early_from` cannot tell by them, and reads the rest.
#[derive(Clone, Copy)]
pub struct EarlyFrom([u8; 6]);

/// All other bytes of the times.
#[derive(Clone, Copy)]
pub struct OtherTimes {
    since_created: Span,
    until_stale: Span,
    stale_for: Span,
    error_for: Span,
    cost: Cost,
    early_from: [u8; 2],
}

impl EarlyFrom {
    /// Whether `now` is before `early_from`; false also if these bytes are too few to tell.
    #[inline(always)]
    pub fn is_after(self, now: Tick) -> bool {
        now < join([0; 2], self.0)
    }
}

#[inline(always)]
fn join([a, b]: [u8; 2], [c, d, e, f, g, h]: [u8; 6]) -> Tick {
    Tick::from_le_bytes([a, b, c, d, e, f, g, h])
}

/// The input for the times of a new entry; durations in ticks.
#[derive(Clone, Copy)]
pub struct Lifetime {
    pub created: Tick,
    pub fresh_for: Tick,
    /// After `fresh_for`: served while a refresh runs (stale-while-revalidate).
    pub stale_for: Tick,
    /// After `fresh_for`: served when refreshing fails (stale-if-error).
    pub error_for: Tick,
    /// How long before the soft limit an X-Fetch draw can matter.
    pub early_for: Tick,
    /// The moving average of the load time.
    pub cost: Tick,
}

impl OtherTimes {
    /// Whether the value was surely made no longer ago than this. False in the last 66 µs.
    ///
    /// No sum overflows: no clock comes to 2^61, no lead is unlimited, and no age is above
    /// [`OLDEST`].
    #[inline(always)]
    pub fn is_young(&self, early_from: EarlyFrom, age: Tick, now: Tick) -> bool {
        now + self.since_created.limited_ticks() <= join([0; 2], early_from.0) + age
    }
}

/// A limit on the age of values that none of them reaches.
pub const OLDEST: Tick = 1 << 62;

impl Times {
    /// The two parts that an entry holds.
    pub fn split(self) -> (EarlyFrom, OtherTimes) {
        let [a, b, rest @ ..] = self.early_from.to_le_bytes();
        let others = OtherTimes {
            since_created: self.since_created,
            until_stale: self.until_stale,
            stale_for: self.stale_for,
            error_for: self.error_for,
            cost: self.cost,
            early_from: [a, b],
        };
        (EarlyFrom(rest), others)
    }

    #[inline(always)]
    pub fn of_parts(early_from: EarlyFrom, others: OtherTimes) -> Self {
        Times {
            early_from: join(others.early_from, early_from.0),
            since_created: others.since_created,
            until_stale: others.until_stale,
            stale_for: others.stale_for,
            error_for: others.error_for,
            cost: others.cost,
        }
    }

    pub fn new(life: Lifetime) -> Self {
        let lead = life.fresh_for.saturating_sub(life.early_for);
        // Never unlimited, so that `created` can be computed from `early_from`.
        let since_created = Span::new(lead.min(Span::LONGEST));
        Times {
            // From the rounded distance, so that `created` is exact.
            early_from: life.created.saturating_add(since_created.ticks()),
            since_created,
            until_stale: Span::new(life.fresh_for - since_created.ticks()),
            stale_for: Span::new(life.stale_for),
            error_for: Span::new(life.error_for),
            cost: Cost::new(life.cost),
        }
    }

    /// A placeholder has no value that could be fresh, so every reader takes the slow path.
    pub fn placeholder() -> Self {
        let zero = Span::ZERO;
        Times {
            early_from: 0,
            since_created: zero,
            until_stale: zero,
            stale_for: zero,
            error_for: zero,
            cost: Cost::ZERO,
        }
    }

    /// From here on an X-Fetch draw can say "refresh now", or the entry is stale. A hit compares
    /// this with the clock and, nearly always, nothing else.
    #[inline]
    pub fn early_from(&self) -> Tick {
        self.early_from
    }

    pub fn created(&self) -> Tick {
        self.early_from().saturating_sub(self.since_created.ticks())
    }

    /// The soft limit.
    #[inline]
    pub fn fresh_until(&self) -> Tick {
        self.early_from().saturating_add(self.until_stale.ticks())
    }

    /// How long stale-while-revalidate lasts.
    pub fn stale_for(&self) -> Tick {
        self.stale_for.ticks()
    }

    /// The end of stale-while-revalidate.
    pub fn stale_until(&self) -> Tick {
        self.fresh_until().saturating_add(self.stale_for())
    }

    /// The hard limit: the later of both stale windows.
    pub fn expires(&self) -> Tick {
        let longest = self.stale_for.ticks().max(self.error_for.ticks());
        self.fresh_until().saturating_add(longest)
    }

    /// How long stale-if-error lasts.
    pub fn error_for(&self) -> Tick {
        self.error_for.ticks()
    }

    pub fn age(&self, now: Tick) -> Duration {
        Duration::from_nanos(now.saturating_sub(self.created()))
    }

    pub fn cost(&self) -> Tick {
        self.cost.ticks()
    }
}

#[cfg(test)]
mod tests {
    use super::{Lifetime, Times};

    fn times(created: u64, fresh_for: u64, early_for: u64) -> Times {
        Times::new(Lifetime {
            created,
            fresh_for,
            stale_for: 7,
            error_for: 9,
            early_for,
            cost: 1,
        })
    }

    #[test]
    fn the_two_parts_of_an_entry_are_the_times() {
        for created in [0, 1, 5_000_000_000, u64::MAX / 3, u64::MAX] {
            let whole = times(created, 1 << 30, 1 << 20);
            let (early_from, others) = whole.split();
            let again = Times::of_parts(early_from, others);
            assert_eq!(again.early_from(), whole.early_from());
            assert_eq!(again.created(), whole.created());
            assert_eq!(again.expires(), whole.expires());
        }
    }

    #[test]
    fn a_hit_takes_no_value_at_or_after_its_early_from() {
        for created in [0, 5_000_000_000, 1 << 52] {
            let whole = times(created, 1 << 30, 1 << 20);
            let (hit, from) = (whole.split().0, whole.early_from());
            assert!(!hit.is_after(from));
            assert!(hit.is_after(from - (1 << 16)));
        }
        assert!(!Times::placeholder().split().0.is_after(0));
    }
}
