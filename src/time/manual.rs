use std::fmt;
use std::time::Duration;

use super::clock::{Clock, Tick, ticks};
use crate::sync::{Arc, AtomicU64, Ordering, Weak};
use crate::time::alarm::{Alarms, Sleeper};

/// The latest time of this clock. It is later than every limit that is not unlimited, and a claim
/// made then still has a later deadline.
const LATEST: Tick = Tick::MAX / 8;

/// A clock for tests that moves only when the test moves it.
///
/// Clones show the same time. Deadlines for which the cache waits (a load that hangs) pass when the
/// clock is advanced over them, whatever the real time.
///
/// # Example
///
/// ```
/// use std::time::Duration;
/// use everfresh::{Cache, ManualClock};
///
/// let clock = ManualClock::new();
/// let cache: Cache<u64, u64> = Cache::builder()
///     .fresh_for(Duration::from_secs(5))
///     .clock(clock.clone())
///     .compute(|n: &u64| n * n)
///     .build()?;
/// assert!(cache.get_blocking(&7)?.freshness().is_fresh());
/// clock.advance(Duration::from_secs(6));
/// assert!(cache.get_blocking(&7)?.freshness().is_stale());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct ManualClock(Arc<SharedTime>);

struct SharedTime {
    now: AtomicU64,
    alarms: Alarms,
}

impl ManualClock {
    /// Creates a clock at an arbitrary time.
    pub fn new() -> Self {
        ManualClock(Arc::new(SharedTime {
            now: AtomicU64::new(ticks(Duration::from_secs(1_000_000))),
            alarms: Alarms::default(),
        }))
    }

    /// Moves the clock forward and wakes all waiters whose time has been reached.
    ///
    /// The clock stops after 73 years, which is past every time limit that is not unlimited.
    pub fn advance(&self, by: Duration) {
        let now = &self.0.now;
        let mut before = now.load(Ordering::Relaxed);
        loop {
            let after = before.saturating_add(ticks(by)).min(LATEST);
            // AcqRel orders the steps of several threads. A reader gets its value from the load
            // below. A failed exchange needs no edge, because the loop only starts from its value.
            match now.compare_exchange(before, after, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => break,
                Err(other) => before = other,
            }
        }
        self.0.alarms.ring(self.now());
    }

    pub(super) fn now(&self) -> Tick {
        self.0.now.load(Ordering::Acquire)
    }

    pub(super) fn dropped(&self) {
        self.0.alarms.dropped();
    }

    pub(super) fn wake_at(&self, at: Tick, sleeper: Weak<dyn Sleeper>) {
        // The caller that moves the clock checks the whole list, whatever `next` says. A sleeper
        // checks the clock after it has set its alarm.
        let _ = self.0.alarms.set(at, sleeper);
        // A waiter that relies on another waiter's alarm may have checked the clock before a move
        // that found no alarm in the list yet.
        let now = self.now();
        if at <= now {
            self.0.alarms.ring(now);
        }
    }
}

impl fmt::Debug for ManualClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ManualClock").field(&self.now()).finish()
    }
}

impl Default for ManualClock {
    fn default() -> Self {
        Self::new()
    }
}

// So that `Builder::clock` accepts both.
impl From<&ManualClock> for Clock {
    fn from(clock: &ManualClock) -> Self {
        clock.clone().into()
    }
}
