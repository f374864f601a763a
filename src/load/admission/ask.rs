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
    /// The places of cold loads in the lower half, those of refreshes in the upper one.
    taken: AtomicU64,
}

const REFRESH: u64 = 1 << 32;

fn unit(reason: LoadReason) -> u64 {
    match reason {
        LoadReason::Cold => 1,
        LoadReason::Stale | LoadReason::Early => REFRESH,
    }
}

/// Whether one more load may wait beside so many others. Refreshes take no place from a load for
/// which a caller waits.
pub(super) fn has_room(places: u64, reason: LoadReason, cold: u64, refreshes: u64) -> bool {
    match reason {
        LoadReason::Cold => cold < places,
        LoadReason::Stale | LoadReason::Early => cold + refreshes < places,
    }
}

impl Queue {
    pub fn new(places: u64) -> Self {
        Queue {
            places,
            taken: AtomicU64::new(0),
        }
    }

    pub(super) fn take(&self, reason: LoadReason) -> bool {
        // Relaxed: the count bounds memory and orders nothing.
        let before = self.taken.fetch_add(unit(reason), Ordering::Relaxed);
        let (cold, refreshes) = (before % REFRESH, before / REFRESH);
        let is_free = has_room(self.places, reason, cold, refreshes);
        if !is_free {
            self.leave(reason);
        }
        is_free
    }

    /// Gives a place back. A load without a permit has none.
    pub fn leave(&self, reason: LoadReason) {
        self.taken.fetch_sub(unit(reason), Ordering::Relaxed);
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
