//! What eviction knows of the use of a value: its use count, how much of that the shadows have seen
//! (see `adapt`), and whether the value took its second chance (see `fifo`).

/// The largest use count.
pub const USES_MAX: u8 = 3;

/// The parts of the byte in an entry. A hit reads and raises the lowest two bits only.
#[derive(Clone, Copy)]
pub struct Uses {
    pub number: u8,
    /// How many of them the shadows have seen.
    seen: u8,
    /// Whether the value took the second chance that it has without a use.
    second_chance_taken: bool,
}

const SEEN: u8 = 2;
const SECOND_CHANCE_TAKEN: u8 = 1 << 4;

impl Uses {
    pub fn of(word: u8) -> Self {
        Uses {
            number: word & USES_MAX,
            seen: word >> SEEN & USES_MAX,
            second_chance_taken: word & SECOND_CHANCE_TAKEN != 0,
        }
    }

    /// So many uses, which the shadows have seen.
    pub fn seen(number: u8) -> Self {
        let number = number.min(USES_MAX);
        Uses {
            number,
            seen: number,
            second_chance_taken: false,
        }
    }

    pub fn word(self) -> u8 {
        let taken = u8::from(self.second_chance_taken) * SECOND_CHANCE_TAKEN;
        self.number | self.seen << SEEN | taken
    }

    /// The word after a hit; `None` if the hit changes nothing.
    #[inline(always)]
    pub fn raised(word: u8) -> Option<u8> {
        (word & USES_MAX < USES_MAX).then_some(word + 1)
    }

    /// How many uses the shadows have not seen. They have afterwards.
    pub fn take_new(&mut self) -> u8 {
        let new = self.number.saturating_sub(self.seen);
        self.seen = self.number;
        new
    }

    /// Takes off one use, of those that the shadows have seen if there is one; false if there is
    /// none. The value then has its second chance again.
    pub fn spend(&mut self) -> bool {
        let spent = self.number > 0;
        if spent {
            self.number -= 1;
            self.seen = self.seen.saturating_sub(1);
            self.second_chance_taken = false;
        }
        spent
    }

    /// Takes the second chance; false if it was taken since the last use was spent.
    pub fn take_second_chance(&mut self) -> bool {
        !std::mem::replace(&mut self.second_chance_taken, true)
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
        assert!(uses.spend());
        assert_eq!((uses.number, uses.take_new()), (0, 0));
        assert!(!uses.spend());
    }

    #[test]
    fn a_second_chance_is_taken_once_for_each_use_that_was_spent() {
        let mut uses = Uses::seen(0);
        for _ in 0..2 {
            assert!(uses.take_second_chance());
            uses = hit(Uses::of(uses.word()));
            assert_eq!((uses.number, uses.take_new()), (1, 1));
            assert!(!uses.take_second_chance());
            assert!(uses.spend());
        }
    }
}
