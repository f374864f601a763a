//! What a load asks of a gate, and why it may be refused.

use crate::observe::reason::LoadReason;
use crate::sync::{AtomicU64, Ordering};
use crate::time::clock::Tick;

/// Where a load waits. The order is that of urgency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// It needs no permit, only a start.
    Free = 0,
    Cold = 1,
    Stale = 2,
}

/// What a load asks for.
#[derive(Clone, Copy)]
pub struct Ask<'a> {
    pub reason: LoadReason,
    /// Whether it takes no permit, because it runs inside another load or that load waits for it.
    pub free: bool,
    /// The time until it counts as failed. Not a point in time, because a budget may have another
    /// clock than the cache.
    pub time_left: Tick,
    /// The queue of its cache, in which it needs a place if it waits for a permit.
    pub queue: &'a Queue,
}

/// How many loads of one cache may wait at gates.
pub struct Queue {
    places: u64,
    taken: AtomicU64,
}

impl Queue {
    pub fn new(places: u64) -> Self {
        Queue {
            places,
            taken: AtomicU64::new(0),
        }
    }

    pub(super) fn take(&self) -> bool {
        // Relaxed: the count bounds memory and orders nothing.
        let is_free = self.taken.fetch_add(1, Ordering::Relaxed) < self.places;
        if !is_free {
            self.leave();
        }
        is_free
    }

    /// Gives a place back. A load without a permit has none.
    pub fn leave(&self) {
        self.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Ask<'_> {
    pub(super) fn lane(&self) -> Lane {
        match (self.free, self.reason) {
            (true, _) => Lane::Free,
            (false, LoadReason::Cold) => Lane::Cold,
            (false, LoadReason::Stale | LoadReason::Early) => Lane::Stale,
        }
    }
}

/// Why a load does not start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Nothing is free.
    Busy,
    /// The breaker is open. The next probe may start when so much time is over.
    Unavailable(Tick),
    /// The cache is gone.
    Closed,
}
