//! The use count of a value, and how much of it the shadows of eviction have seen (see `adapt`).

/// The largest use count.
pub const USES_MAX: u8 = 3;

/// The parts of the byte in an entry. A hit reads and raises the lowest two bits only.
#[derive(Clone, Copy)]
pub struct Uses {
    pub number: u8,
    /// How many of them the shadows have seen.
    seen: u8,
}

const SEEN: u8 = 2;

impl Uses {
    pub fn of(word: u8) -> Self {
        Uses {
            number: word & USES_MAX,
            seen: word >> SEEN,
        }
    }

    /// So many uses, which the shadows have seen.
    pub fn seen(number: u8) -> Self {
        let number = number.min(USES_MAX);
        Uses {
            number,
            seen: number,
        }
    }

    pub fn word(self) -> u8 {
        self.number | self.seen << SEEN
    }

    /// The word after a hit; `None` if the hit changes nothing.
    #[inline(always)]
    pub fn raised(word: u8) -> Option<u8> {
        (word & USES_MAX < USES_MAX).then_some(word + 1)
    }

    /// How many uses the shadows have not seen. They have afterwards.
    pub fn take_new(&mut self) -> u8 {
        let new = self.number.saturating_sub(self.seen);
        *self = Uses::seen(self.number);
        new
    }

    /// Takes off one use, of those that the shadows have seen if there is one.
    pub fn spend(&mut self) {
        self.number = self.number.saturating_sub(1);
        self.seen = self.seen.saturating_sub(1);
    }
}

#[cfg(all(test, not(all(loom, feature = "loom"))))]
mod tests {
    use super::{USES_MAX, Uses};

    fn hit(uses: Uses) -> Uses {
        Uses::raised(uses.word()).map_or(uses, Uses::of)
    }

    #[test]
    fn the_shadows_see_each_use_once_up_to_the_largest_number() {
        let mut uses = Uses::seen(0);
        for number in 1..=USES_MAX {
            uses = hit(uses);
            assert_eq!(
                (uses.number, uses.take_new(), uses.take_new()),
                (number, 1, 0)
            );
        }
        uses = hit(uses);
        assert_eq!((uses.number, uses.take_new()), (USES_MAX, 0));
    }

    #[test]
    fn eviction_takes_off_uses_that_are_seen_first() {
        let mut uses = hit(hit(Uses::seen(1)));
        uses.spend();
        assert_eq!((uses.number, uses.take_new()), (2, 2));
        let mut uses = hit(Uses::seen(0));
        uses.spend();
        assert_eq!((uses.number, uses.take_new()), (0, 0));
    }
}
