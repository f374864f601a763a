//! At most so many starts a second: a token bucket, kept as the time of the next start.

use crate::time::clock::Tick;

const SECOND: Tick = 1_000_000_000;

/// How long unused starts are kept. Alarms ring some milliseconds late, and the starts of that time
/// must not be lost.
const KEPT: Tick = SECOND / 10;

pub(crate) struct Pace {
    /// The time between two starts.
    interval: Tick,
    /// How much earlier than `next` a start may come.
    slack: Tick,
    /// When the next start is due if all starts come evenly.
    next: Tick,
}

impl Pace {
    /// `per_second` is at least 1.
    pub(crate) fn new(per_second: u32) -> Self {
        let interval = SECOND.div_ceil(Tick::from(per_second.max(1)));
        Pace {
            interval,
            slack: KEPT.saturating_sub(interval),
            next: 0,
        }
    }

    /// When the next load may start.
    pub(crate) fn ready_at(&self) -> Tick {
        self.next.saturating_sub(self.slack)
    }

    pub(crate) fn start(&mut self, now: Tick) {
        self.next = self.next.max(now).saturating_add(self.interval);
    }

    /// Gives a start back that no load used.
    pub(crate) fn give_back(&mut self) {
        self.next = self.next.saturating_sub(self.interval);
    }
}

#[cfg(test)]
mod tests {
    use super::{Pace, SECOND};

    #[test]
    fn starts_are_even_and_a_tenth_of_them_come_at_once_after_a_pause() {
        for (per_second, at_once) in [(1, 1), (10, 1), (50, 5), (1_000, 100)] {
            let mut pace = Pace::new(per_second);
            let mut started = 0;
            let begin = 5 * SECOND;
            for now in (begin..begin + SECOND).step_by(1_000_000) {
                while pace.ready_at() <= now {
                    pace.start(now);
                    started += 1;
                }
                if now == begin {
                    assert_eq!(started, at_once, "{per_second} a second");
                }
            }
            let most = per_second + at_once - 1;
            assert!((per_second..=most).contains(&started), "{started} starts");
        }
    }
}
