//! Where the time comes from.
//!
//! The cache never asks the operating system for the time on its own: it asks its [`Clock`]. Inside
//! the crate a time is a [`Tick`], nanoseconds since an origin that belongs to the clock.

#[cfg(any(test, feature = "test-util"))]
mod manual;

use std::time::Duration;

#[cfg(any(test, feature = "test-util"))]
pub use manual::ManualClock;

use crate::alarm::{self, Nap, Sleeper};
use crate::sync::{Arc, Event, Weak};

/// Nanoseconds since the origin of a clock.
pub type Tick = u64;

/// The source of time for one cache.
///
/// A builder that is not told otherwise picks [`Clock::coarse`] when the soft limit is at least
/// 400 ms, and [`Clock::precise`] below. No clock ever goes backwards, and all threads see the same.
///
/// # Example
///
/// ```
/// use everfresh::{Cache, Clock};
///
/// let squares: Cache<u64, u64> = Cache::builder()
///     .clock(Clock::precise())
///     .compute(|n: &u64| n * n)
///     .build()?;
/// assert_eq!(*squares.get_blocking(&7)?, 49);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    Coarse,
    Precise,
    #[cfg(any(test, feature = "test-util"))]
    Manual(ManualClock),
}

impl Clock {
    /// The cheapest monotonic clock of the system: about 3 ns a reading on Linux, in steps of 1 to 10 ms
    /// (the kernel's tick, 4 ms on most).
    ///
    /// An age may be wrong by one step. Where there is no such clock this is [`Clock::precise`].
    pub fn coarse() -> Self {
        Clock(Source::Coarse)
    }

    /// The exact monotonic clock of the system: about 20 ns a reading on Linux.
    pub fn precise() -> Self {
        Clock(Source::Precise)
    }

    /// The time for hits: as cheap as this clock can be.
    #[inline]
    pub(crate) fn now(&self) -> Tick {
        match &self.0 {
            Source::Coarse => system::coarse(),
            Source::Precise => system::precise(),
            #[cfg(any(test, feature = "test-util"))]
            Source::Manual(clock) => clock.now(),
        }
    }

    /// The time for measuring loads: as exact as this clock can be, on the same scale as `now`.
    pub(crate) fn exact(&self) -> Tick {
        match &self.0 {
            Source::Coarse | Source::Precise => system::precise(),
            #[cfg(any(test, feature = "test-util"))]
            Source::Manual(clock) => clock.now(),
        }
    }

    /// Wakes a sleeper when `now` has reached a time, or soon after.
    pub(crate) fn wake_at(&self, at: Tick, sleeper: Weak<dyn Sleeper>) {
        match &self.0 {
            Source::Coarse | Source::Precise => alarm::set(at, sleeper),
            #[cfg(any(test, feature = "test-util"))]
            Source::Manual(clock) => clock.wake_at(at, sleeper),
        }
    }

    /// Completes when `now` has reached `deadline`.
    pub(crate) async fn sleep_until(&self, deadline: Tick) {
        let nap = Arc::new(Nap(Event::new()));
        let sleeper: Arc<dyn Sleeper> = nap.clone();
        self.wake_at(deadline, Arc::downgrade(&sleeper));
        nap.sleep(|| self.now() >= deadline).await;
    }
}

#[cfg(any(test, feature = "test-util"))]
impl From<ManualClock> for Clock {
    fn from(clock: ManualClock) -> Self {
        Clock(Source::Manual(clock))
    }
}

/// A duration as a difference of ticks; longer than 584 years is for ever.
pub(crate) fn ticks(duration: Duration) -> Tick {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(target_os = "linux")]
mod system {
    use rustix::time::{ClockId, Timespec, clock_gettime};

    use super::Tick;

    #[inline]
    pub(super) fn coarse() -> Tick {
        tick(clock_gettime(ClockId::MonotonicCoarse))
    }

    #[inline]
    pub(super) fn precise() -> Tick {
        tick(clock_gettime(ClockId::Monotonic))
    }

    #[inline]
    fn tick(time: Timespec) -> Tick {
        // A monotonic clock counts up from the start of the system: neither part is negative.
        (time.tv_sec as u64) * 1_000_000_000 + time.tv_nsec as u64
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use std::time::Instant;

    use super::{Tick, ticks};
    use crate::sync::OnceLock;

    static ORIGIN: OnceLock<Instant> = OnceLock::new();

    pub(super) fn coarse() -> Tick {
        precise()
    }

    pub(super) fn precise() -> Tick {
        ticks(ORIGIN.get_or_init(Instant::now).elapsed())
    }
}
