//! When an entry is fresh, stale and expired.

use std::time::Duration;

use crate::protocol::compact::{Cost, RoughSpan, Span};
use crate::protocol::groups::Stamp;
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
///
/// The highest bit is set for a value with groups. As a signed number it is then before every time,
/// so that a hit of a value without groups makes one comparison, and one of a value with groups
/// needs more.
#[derive(Clone, Copy)]
pub struct EarlyFrom([u8; 6]);

/// The upper bytes of `early_from`, put together.
#[derive(Clone, Copy)]
pub struct Early(i64);

/// The bit of a value with groups in the highest byte of `early_from`. No time is so late: clocks
/// end before it.
const HAS_GROUPS: u8 = 0x80;

/// The latest `early_from`, without that bit.
const LATEST: Tick = Tick::MAX >> 1;

/// All other bytes of the times.
#[derive(Clone, Copy)]
pub struct OtherTimes {
    /// Four spans of four bytes. Of a value with groups, two of three bytes, two of two bytes, and
    /// the stamp.
    spans: [u8; 16],
    cost: Cost,
    early_from: [u8; 2],
}

impl EarlyFrom {
    /// Puts the bytes together, which a hit does once.
    #[inline(always)]
    pub fn joined(self) -> Early {
        let [a, b, c, d, e, f] = self.0;
        Early(i64::from_le_bytes([0, 0, a, b, c, d, e, f]))
    }
}

impl Early {
    /// Whether `now` is before `early_from`; false also if these bytes are too few to tell, and for
    /// a value with groups.
    #[inline(always)]
    pub fn is_after(self, now: Tick) -> bool {
        (now as i64) < self.0
    }

    /// The same for a value with groups, which are current.
    #[inline(always)]
    pub fn is_after_with_groups(self, now: Tick) -> bool {
        now << 1 < (self.0 as Tick) << 1
    }

    #[inline(always)]
    pub fn has_groups(self) -> bool {
        self.0 < 0
    }
}

impl OtherTimes {
    /// The stamp of a value with one group.
    #[inline(always)]
    pub fn stamp(&self) -> Stamp {
        let [.., a, b, c, d, e, f] = self.spans;
        Stamp::from_bytes([a, b, c, d, e, f])
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
    /// Whether the value was surely made no longer ago than this. False in the last 66 µs, and for
    /// a value with groups.
    ///
    /// No sum overflows: no clock comes to 2^61, no lead is unlimited, and no age is above
    /// [`OLDEST`].
    #[inline(always)]
    pub fn is_young(&self, early_from: Early, age: Tick, now: Tick) -> bool {
        let [a, b, c, d, ..] = self.spans;
        let since_created = Span::of_bytes([a, b, c, d]).limited_ticks();
        // Signed, as in `EarlyFrom`.
        (now + since_created) as i64 <= early_from.0 + age as i64
    }
}

/// A limit on the age of values that none of them reaches.
pub const OLDEST: Tick = 1 << 62;

impl Times {
    /// The two parts that an entry holds.
    pub fn split(self) -> (EarlyFrom, OtherTimes) {
        let [a, b, c, d] = self.since_created.bytes();
        let [e, f, g, h] = self.until_stale.bytes();
        let [i, j, k, l] = self.stale_for.bytes();
        let [m, n, o, p] = self.error_for.bytes();
        let spans = [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p];
        self.with_spans(self.early_from, spans)
    }

    /// The two parts of an entry with groups, which holds the spans in fewer bytes, rounded down.
    pub fn split_with_groups(self, stamp: Stamp) -> (EarlyFrom, OtherTimes) {
        // From the rounded distance, so that `created` stays exact.
        let since_created = RoughSpan::new(self.since_created.ticks());
        let early_from = self.created().saturating_add(since_created.ticks());
        let until_stale = match self.until_stale.ticks() {
            u64::MAX => u64::MAX,
            ticks => ticks.saturating_add(self.early_from - early_from),
        };
        let [a, b, c] = since_created.bytes();
        let [d, e, f] = RoughSpan::new(until_stale).bytes();
        let [g, h] = RoughSpan::new(self.stale_for.ticks()).bytes();
        let [i, j] = RoughSpan::new(self.error_for.ticks()).bytes();
        let [k, l, m, n, o, p] = stamp.to_bytes();
        let spans = [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p];
        let (mut early_from, others) = self.with_spans(early_from, spans);
        early_from.0[5] |= HAS_GROUPS;
        (early_from, others)
    }

    fn with_spans(&self, early_from: Tick, spans: [u8; 16]) -> (EarlyFrom, OtherTimes) {
        let [a, b, rest @ ..] = early_from.to_le_bytes();
        let others = OtherTimes {
            spans,
            cost: self.cost,
            early_from: [a, b],
        };
        (EarlyFrom(rest), others)
    }

    #[inline(always)]
    pub fn of_parts(early_from: EarlyFrom, others: OtherTimes) -> Self {
        if early_from.joined().has_groups() {
            return Self::of_parts_with_groups(early_from, others);
        }
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = others.spans;
        Times {
            early_from: join(others.early_from, early_from.0),
            since_created: Span::of_bytes([a, b, c, d]),
            until_stale: Span::of_bytes([e, f, g, h]),
            stale_for: Span::of_bytes([i, j, k, l]),
            error_for: Span::of_bytes([m, n, o, p]),
            cost: others.cost,
        }
    }

    fn of_parts_with_groups(early_from: EarlyFrom, others: OtherTimes) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, ..] = others.spans;
        // What two or three bytes hold, four hold exactly, up to nine years.
        Times {
            early_from: join(others.early_from, early_from.0) & LATEST,
            since_created: Span::new(RoughSpan::of_bytes([a, b, c]).ticks()),
            until_stale: Span::new(RoughSpan::of_bytes([d, e, f]).ticks()),
            stale_for: Span::new(RoughSpan::of_bytes([g, h]).ticks()),
            error_for: Span::new(RoughSpan::of_bytes([i, j]).ticks()),
            cost: others.cost,
        }
    }

    pub fn new(life: Lifetime) -> Self {
        let lead = life.fresh_for.saturating_sub(life.early_for);
        // Never unlimited, so that `created` can be computed from `early_from`.
        let since_created = Span::new(lead.min(Span::LONGEST));
        Times {
            // From the rounded distance, so that `created` is exact.
            early_from: (life.created.saturating_add(since_created.ticks())).min(LATEST),
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
    use crate::protocol::groups::{Cell, Groups};

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
    fn the_times_of_a_value_with_groups_are_hardly_shorter() {
        let stamp = Groups::default().stamp(Cell::of(7), 0);
        for created in [1, 5_000_000_000, 1 << 52] {
            for fresh_for in [1 << 30, 60_000_000_000, u64::MAX] {
                let whole = times(created, fresh_for, 1 << 20);
                let (upper, others) = whole.split_with_groups(stamp);
                let early_from = upper.joined();
                assert!(early_from.has_groups() && !early_from.is_after(0));
                assert!(!others.is_young(early_from, u64::MAX / 4, created));
                assert!(early_from.is_after_with_groups(created));
                assert_eq!(others.stamp(), stamp);
                let again = Times::of_parts(upper, others);
                assert_eq!(again.created(), whole.created());
                assert!(!early_from.is_after_with_groups(again.early_from()));
                for (ours, theirs) in [
                    (again.early_from(), whole.early_from()),
                    (again.fresh_until(), whole.fresh_until()),
                    (again.expires(), whole.expires()),
                ] {
                    let lost = theirs - ours;
                    assert!(lost as f64 <= (theirs - created) as f64 * 1e-5, "{lost}");
                }
                assert_eq!(again.fresh_until() == u64::MAX, fresh_for == u64::MAX);
            }
        }
        assert!(!times(0, 1 << 30, 0).split().0.joined().has_groups());
        assert!(!Times::placeholder().split().0.joined().has_groups());
    }

    #[test]
    fn a_hit_takes_no_value_at_or_after_its_early_from() {
        for created in [0, 5_000_000_000, 1 << 52] {
            let whole = times(created, 1 << 30, 1 << 20);
            let (hit, from) = (whole.split().0.joined(), whole.early_from());
            assert!(!hit.is_after(from));
            assert!(hit.is_after(from - (1 << 16)));
        }
        assert!(!Times::placeholder().split().0.joined().is_after(0));
    }
}
