//! The sources of time.
//!
//! The cache never asks the operating system for the time directly: it asks its [`Clock`]. Inside
//! the crate a time is a [`Tick`], nanoseconds since an origin that belongs to the clock.

use std::time::Duration;

#[cfg(any(test, feature = "test-util"))]
use super::manual::ManualClock;
use crate::sync::event::Event;
use crate::sync::{Arc, Weak};
use crate::time::alarm::{self, Nap, Sleeper};

/// Nanoseconds since the origin of a clock.
pub type Tick = u64;

/// The source of time for one cache.
///
/// Default: [`Clock::coarse`] if the soft limit is at least 400 ms, otherwise [`Clock::precise`].
/// No clock ever goes backwards, and all threads see the same time.
///
/// The first read in a process that waits starts one thread, `everfresh-clock`, which wakes waiters
/// at their deadlines. A child made by `fork` starts its own.
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
pub struct Clock(ClockSource);

#[derive(Clone, Debug)]
enum ClockSource {
    Coarse,
    Precise,
    Boottime,
    #[cfg(any(test, feature = "test-util"))]
    Manual(ManualClock),
}

impl Clock {
    /// The cheapest monotonic clock of the system: about 3 ns per reading on Linux, in steps of 1
    /// to 10 ms (the kernel's tick, 4 ms on most systems).
    ///
    /// An age, and the rest after a failure, may be wrong by one step. A load timeout never ends
    /// early, but up to two steps late. The clock stands still while the machine is suspended: see
    /// [`Clock::boottime`]. On systems other than Linux this is [`Clock::precise`].
    pub fn coarse() -> Self {
        Clock(ClockSource::Coarse)
    }

    /// The exact monotonic clock of the system: about 20 ns per reading on Linux.
    ///
    /// It stands still while the machine is suspended: see [`Clock::boottime`].
    pub fn precise() -> Self {
        Clock(ClockSource::Precise)
    }

    /// The exact clock that continues while the machine is suspended, for laptops, phones and
    /// virtual machines that are paused: a value that expired during the pause is stale or gone
    /// after it.
    ///
    /// About 20 ns per reading on Linux (`CLOCK_BOOTTIME`), a system call before Linux 5.3. On
    /// other systems this is [`Clock::precise`], which behaves like [`std::time::Instant`] in a
    /// suspension. If the machine is suspended during a wait, the wait ends at most one
    /// `load_timeout` after the machine resumes.
    ///
    /// # Example
    ///
    /// ```
    /// use std::time::Duration;
    /// use everfresh::{Cache, Clock};
    ///
    /// let squares: Cache<u64, u64> = Cache::builder()
    ///     .fresh_for(Duration::from_secs(60))
    ///     .clock(Clock::boottime())
    ///     .compute(|n: &u64| n * n)
    ///     .build()?;
    /// assert_eq!(*squares.get_blocking(&7)?, 49);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn boottime() -> Self {
        Clock(ClockSource::Boottime)
    }

    /// The time for hits, from the cheapest reading of this clock.
    #[inline]
    pub(crate) fn now(&self) -> Tick {
        match &self.0 {
            ClockSource::Coarse => system::coarse(),
            ClockSource::Precise => system::precise(),
            ClockSource::Boottime => system::boottime(),
            #[cfg(any(test, feature = "test-util"))]
            ClockSource::Manual(clock) => clock.now(),
        }
    }

    /// By how much `now` may lag behind the time.
    pub(crate) fn step(&self) -> Tick {
        match &self.0 {
            ClockSource::Coarse => system::coarse_step(),
            ClockSource::Precise | ClockSource::Boottime => 0,
            #[cfg(any(test, feature = "test-util"))]
            ClockSource::Manual(_) => 0,
        }
    }

    /// How late an alarm may ring.
    pub(crate) fn lateness(&self) -> Tick {
        match &self.0 {
            // The thread that rings goes by the coarse clock, and its sleeps are not shorter than
            // one millisecond.
            ClockSource::Coarse | ClockSource::Precise | ClockSource::Boottime => {
                2 * system::coarse_step() + 1_000_000
            }
            #[cfg(any(test, feature = "test-util"))]
            ClockSource::Manual(_) => 0,
        }
    }

    /// The time for measuring loads, from the most exact reading of this clock, on the same scale
    /// as `now`.
    pub(crate) fn exact(&self) -> Tick {
        match &self.0 {
            ClockSource::Coarse | ClockSource::Precise => system::precise(),
            ClockSource::Boottime => system::boottime(),
            #[cfg(any(test, feature = "test-util"))]
            ClockSource::Manual(clock) => clock.now(),
        }
    }

    /// Wakes a sleeper when `now` has reached a time, or soon after; `process` is this one.
    pub(crate) fn wake_at(&self, process: u32, at: Tick, sleeper: Weak<dyn Sleeper>) {
        match &self.0 {
            ClockSource::Coarse | ClockSource::Precise => alarm::set(process, at, sleeper),
            ClockSource::Boottime => {
                // Alarms use the monotonic clock. It is read after the boottime clock, so the alarm
                // is slightly late and never early.
                let left = at.saturating_sub(system::boottime());
                alarm::set(process, system::precise().saturating_add(left), sleeper);
            }
            #[cfg(any(test, feature = "test-util"))]
            ClockSource::Manual(clock) => clock.wake_at(at, sleeper),
        }
    }

    /// Counts a sleeper that was dropped after it had set an alarm by this clock.
    pub(crate) fn dropped(&self) {
        match &self.0 {
            ClockSource::Coarse | ClockSource::Precise | ClockSource::Boottime => alarm::dropped(),
            #[cfg(any(test, feature = "test-util"))]
            ClockSource::Manual(clock) => clock.dropped(),
        }
    }

    /// Completes when `now` has reached `deadline`.
    pub(crate) async fn sleep_until(&self, deadline: Tick) {
        let nap = Arc::new(Nap(Event::new()));
        let sleeper: Arc<dyn Sleeper> = nap.clone();
        self.wake_at(alarm::process(), deadline, Arc::downgrade(&sleeper));
        nap.sleep(|| self.now() >= deadline).await;
    }
}

#[cfg(any(test, feature = "test-util"))]
impl From<ManualClock> for Clock {
    fn from(clock: ManualClock) -> Self {
        Clock(ClockSource::Manual(clock))
    }
}

/// A duration as a difference of ticks. Durations above 584 years are unlimited, `Duration::MAX`
/// too.
pub(crate) fn ticks(duration: Duration) -> Tick {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(target_os = "linux")]
mod system {
    use rustix::time::{ClockId, Timespec, clock_getres, clock_gettime};

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
    pub(super) fn boottime() -> Tick {
        tick(clock_gettime(ClockId::Boottime))
    }

    pub(super) fn coarse_step() -> Tick {
        tick(clock_getres(ClockId::MonotonicCoarse))
    }

    #[inline]
    fn tick(time: Timespec) -> Tick {
        // A monotonic clock counts up from the start of the system, so neither part is negative.
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

    pub(super) fn boottime() -> Tick {
        precise()
    }

    pub(super) fn coarse_step() -> Tick {
        0
    }

    pub(super) fn precise() -> Tick {
        ticks(ORIGIN.get_or_init(Instant::now).elapsed())
    }
}
