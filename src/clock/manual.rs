use std::time::Duration;

use super::{Clock, Tick, ticks};
use crate::sync::{Arc, AtomicU64, Event, Ordering};

/// A clock that moves only when it is told to, for tests.
///
/// Clones show the same time. Deadlines that the cache waits for (a load that hangs) pass when the
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
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    now: AtomicU64,
    moved: Event,
}

impl ManualClock {
    /// A clock at an arbitrary time.
    pub fn new() -> Self {
        ManualClock(Arc::new(Shared {
            now: AtomicU64::new(ticks(Duration::from_secs(1_000_000))),
            moved: Event::new(),
        }))
    }

    /// Moves the clock forward and wakes whoever waits for a time now reached.
    pub fn advance(&self, by: Duration) {
        // AcqRel orders the steps of several threads; a reader gets its value from the load below.
        self.0.now.fetch_add(ticks(by), Ordering::AcqRel);
        self.0.moved.notify(usize::MAX);
    }

    pub(super) fn now(&self) -> Tick {
        self.0.now.load(Ordering::Acquire)
    }

    pub(super) async fn sleep_until(&self, deadline: Tick) {
        while self.now() < deadline {
            let moved = self.0.moved.listen();
            if self.now() >= deadline {
                return;
            }
            moved.await;
        }
    }
}

impl Default for ManualClock {
    fn default() -> Self {
        Self::new()
    }
}

// So that `Builder::clock` takes either.
impl From<&ManualClock> for Clock {
    fn from(clock: &ManualClock) -> Self {
        clock.clone().into()
    }
}
