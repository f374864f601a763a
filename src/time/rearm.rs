//! One alarm that is set again and again, each time at the time that a state calls for.
//!
//! The state changes in other threads, and each change sets the alarm. Invariants:
//!
//! 1. A thread changes the state first and then arms; an alarm that rings gives the word up first
//!    and then looks at the state. So of a change and an alarm, the later one sees the other: the
//!    alarm is set for the new state, by one of the two.
//! 2. An alarm that was set for a later time than another is left to ring, and finds that it does
//!    not count. So there is one alarm that counts, however often the state changes.

use crate::sync::{AtomicU64, Ordering};
use crate::time::clock::Tick;

/// When the alarm that counts rings; [`Tick::MAX`] while there is none.
pub struct Rearm(AtomicU64);

impl Default for Rearm {
    fn default() -> Self {
        Rearm(AtomicU64::new(Tick::MAX))
    }
}

impl Rearm {
    /// Asks for an alarm at this time or before. True if the caller has to set it, because none is
    /// set for as early.
    #[must_use]
    pub fn arm(&self, at: Tick) -> bool {
        // AcqRel, as below: the exchanges of the word have one order, and the later one sees what
        // the thread of the earlier one did before it.
        self.0.fetch_min(at, Ordering::AcqRel) > at
    }

    /// An alarm rings. True if it counts: the caller then looks at the state, and arms again.
    #[must_use]
    pub fn rings(&self, now: Tick) -> bool {
        // The thread that set the alarm wrote the word before, and the list of alarms orders the
        // two. So an alarm that counts finds its time here.
        if now < self.0.load(Ordering::Acquire) {
            return false;
        }
        self.0.swap(Tick::MAX, Ordering::AcqRel);
        true
    }

    /// Forgets an alarm that does not ring, because another process set it.
    pub fn forget(&self) {
        self.0.swap(Tick::MAX, Ordering::AcqRel);
    }
}
