//! When an entry is fresh, stale and expired.

use std::time::Duration;

use crate::protocol::compact::{Cost, Span};
use crate::time::clock::Tick;

/// When an entry is fresh, stale and expired.
///
/// One absolute time and four distances from it, in 26 bytes.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Times {
    since_created: Span,
    until_stale: Span,
    stale_for: Span,
    error_for: Span,
    cost: Cost,
    /// A `Tick` as bytes, so that it needs no alignment and no padding behind it.
    early_from: [u8; 8],
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

impl Times {
    pub fn new(life: Lifetime) -> Self {
        let lead = life.fresh_for.saturating_sub(life.early_for);
        // Never unlimited, so that `created` can be computed from `early_from`.
        let since_created = Span::new(lead.min(Span::LONGEST));
        Times {
            // From the rounded distance, so that `created` is exact.
            early_from: life
                .created
                .saturating_add(since_created.ticks())
                .to_ne_bytes(),
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
            early_from: [0; 8],
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
        Tick::from_ne_bytes(self.early_from)
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
