//! The division of a table into shards.
//!
//! A shard is a range of sets with permits and, once there are enough values, queues of its own.
//! Threads that insert different keys then mostly write different cache lines. The shard of a key
//! follows from its set, so its value never changes shards.

use std::ops::Range;

/// A queue has at least so many values before more queues are used, because the queues of few
/// values choose worse.
pub const LEAST_VALUES: usize = if cfg!(all(loom, feature = "loom")) {
    1
} else {
    1_024
};

/// With so many shards for each core, two threads seldom meet in one.
const PER_CORE: usize = 4;

/// Each shard has a bit in a word.
pub const MOST_SHARDS: usize = 64;

/// How many shards suit a cache of so many entries: a power of two.
pub fn shards_for(entries: usize, cores: usize) -> usize {
    let by_cores = cores.saturating_mul(PER_CORE).min(MOST_SHARDS);
    let by_values = (entries / LEAST_VALUES).max(1);
    by_cores.next_power_of_two().min(1 << by_values.ilog2())
}

/// Ranges of sets of nearly the same length.
#[derive(Clone, Copy)]
pub struct Shards {
    sets: usize,
    number: usize,
    /// The shards for each set, in units of 2^-56, rounded down. A multiplication is
    /// cheaper than a division, and each insert asks several times.
    per_set: u64,
}

/// A shard has six bits, so a shard in these units has 62.
const FRACTION: u32 = 56;

impl Shards {
    /// `number` shards, or fewer if there are fewer sets; a power of two.
    pub fn new(sets: usize, number: usize) -> Self {
        let number = 1 << number.clamp(1, sets.min(MOST_SHARDS)).ilog2();
        Shards {
            sets,
            number,
            per_set: ((number as u64) << FRACTION) / sets as u64,
        }
    }

    pub fn number(self) -> usize {
        self.number
    }

    /// The shard of a set.
    pub fn of(self, set: usize) -> usize {
        ((set as u64 * self.per_set) >> FRACTION) as usize
    }

    /// The sets of some shards; at least one for each.
    pub fn sets(self, shards: Range<usize>) -> Range<usize> {
        let first = |shard: usize| ((shard as u64) << FRACTION).div_ceil(self.per_set) as usize;
        // Rounding moves each border up, and the last one beyond the last set.
        first(shards.start)..first(shards.end).min(self.sets)
    }
}

#[cfg(all(test, not(all(loom, feature = "loom"))))]
mod tests {
    use super::{Shards, shards_for};

    #[test]
    fn the_number_follows_from_cores_and_capacity() {
        let numbers = [
            (0, 16, 1),
            (2_047, 16, 1),
            (2_048, 16, 2),
            (100_000, 1, 4),
            (100_000, 2, 8),
            (100_000, 3, 16),
            (100_000, 16, 64),
            (10_000, 16, 8),
            (usize::MAX, usize::MAX, 64),
        ];
        for (entries, cores, number) in numbers {
            assert_eq!(
                shards_for(entries, cores),
                number,
                "{entries} entries, {cores} cores"
            );
        }
    }

    #[test]
    fn each_set_is_in_exactly_one_shard() {
        for sets in [1, 2, 7, 63, 64, 65, 100, 1_009, 3 << 20, u32::MAX as usize] {
            for number in [1, 2, 8, 64] {
                let shards = Shards::new(sets, number);
                let mut next = 0;
                for shard in 0..shards.number() {
                    let range = shards.sets(shard..shard + 1);
                    assert_eq!(range.start, next);
                    assert_eq!(shards.of(range.start), shard);
                    assert_eq!(shards.of(range.end - 1), shard);
                    next = range.end;
                }
                assert_eq!(next, sets);
            }
        }
    }
}
