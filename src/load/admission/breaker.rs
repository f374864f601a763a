//! The breaker: after too many failures an origin is not called, except for one probe at a time.
//!
//! ```text
//!            too many failures             the probe interval is over
//!   Closed ───────────────────▶ Open ───────────────────────────────▶ HalfOpen
//!     ▲                          ▲ the probe fails, or ends unknown      │  │
//!     │                          └───────────────────────────────────────┘  │
//!     └──────────────────── a probe succeeds ───────────────────────────────┘
//! ```
//!
//! A gate changes it under its lock, so that of two callers one becomes the probe.

use std::collections::VecDeque;
use std::time::Duration;

use crate::error::BuildError;
use crate::observe::breaker_state::BreakerState;
use crate::time::clock::{Tick, ticks};

/// The most loads that a breaker remembers.
const MOST: usize = 10_000;

/// When an origin counts as down, and how often it is tried then.
///
/// Given to [`Builder::breaker`](crate::Builder::breaker) or
/// [`BudgetBuilder::breaker`](crate::BudgetBuilder::breaker). The breaker is closed at first. It
/// opens when enough of the last loads failed, timed out or panicked. While it is open no load
/// starts: a stale value is served without a refresh, and a caller of a missing key gets an error
/// that [`is_unavailable`](crate::Error::is_unavailable). After each probe interval one load is
/// started as a probe, whichever key asks first. While it runs, loads for which another load waits
/// may start too, because the probe may read other keys. A probe that succeeds closes the breaker.
///
/// "Not found" is a success, because the origin answered. The error of a read of a cache that the
/// loader passes on counts as what it says about an origin: nothing, if that read loaded nothing,
/// for example because it was recursive or overloaded. A probe that ends so leaves its turn to the
/// next load.
///
/// # Example
///
/// ```
/// use std::time::Duration;
/// use everfresh::{Breaker, Cache};
///
/// let prices: Cache<u64, u64> = Cache::builder()
///     .breaker(Breaker::new().opens_at(0.8).of_last(50).probe_every(Duration::from_secs(2)))
///     .try_compute(|_: &u64| Err::<u64, _>("the origin is down"))
///     .build()?;
/// for id in 0..50 {
///     assert!(prices.get_blocking(&id).unwrap_err().is_load_failure());
/// }
/// assert!(prices.get_blocking(&50).unwrap_err().is_unavailable());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Breaker {
    share: f64,
    last: usize,
    probe_every: Duration,
}

impl Breaker {
    /// Opens when half of the last 20 loads failed, and probes every 5 s.
    pub fn new() -> Self {
        Breaker {
            share: 0.5,
            last: 20,
            probe_every: Duration::from_secs(5),
        }
    }

    /// The share of failed loads, above 0 and up to 1, at which the breaker opens. Default: 0.5.
    pub fn opens_at(mut self, share: f64) -> Self {
        self.share = share;
        self
    }

    /// The number of loads of which the share is taken, 1 to 10 000. Default: 20.
    ///
    /// The breaker stays closed until so many loads have ended.
    pub fn of_last(mut self, loads: usize) -> Self {
        self.last = loads;
        self
    }

    /// The time from the opening, or from the end of a failed probe, to the next probe. Default:
    /// 5 s.
    pub fn probe_every(mut self, interval: Duration) -> Self {
        self.probe_every = interval;
        self
    }

    pub(crate) fn check(&self) -> Result<(), BuildError> {
        let Breaker {
            share,
            last,
            probe_every,
        } = self;
        let wrong = match () {
            () if !(*share > 0.0 && *share <= 1.0) => {
                BuildError::value("Breaker::opens_at", share, "must be above 0, up to 1")
            }
            () if !(1..=MOST).contains(last) => {
                BuildError::value("Breaker::of_last", last, "must be 1 to 10 000")
            }
            () if probe_every.is_zero() => {
                let rule = "must be more than zero";
                BuildError::value("Breaker::probe_every", probe_every, rule)
            }
            () => return Ok(()),
        };
        Err(wrong)
    }
}

impl Default for Breaker {
    fn default() -> Self {
        Breaker::new()
    }
}

/// A breaker at work.
pub(crate) struct Circuit {
    settings: Breaker,
    state: CircuitState,
    /// How the last loads ended, the oldest first; true for a failure.
    ended: VecDeque<bool>,
    failed: usize,
    probes: u64,
}

enum CircuitState {
    Closed,
    /// The next probe comes at `until`.
    Open {
        until: Tick,
    },
    /// The probe with this number runs. It counts as failed at `over_at`, if it has not ended then.
    HalfOpen {
        probe: u64,
        over_at: Tick,
    },
}

/// Whether a load may start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Yes,
    /// As the probe.
    Probe,
    /// Not before so much time is over.
    No(Tick),
}

impl Circuit {
    pub(crate) fn new(settings: &Breaker) -> Self {
        Circuit {
            settings: settings.clone(),
            state: CircuitState::Closed,
            ended: VecDeque::new(),
            failed: 0,
            probes: 0,
        }
    }

    /// Whether a load may start; `is_inner` says that another load waits for it.
    pub(crate) fn verdict(&self, is_inner: bool, now: Tick) -> Verdict {
        let at = match self.state {
            CircuitState::Closed => return Verdict::Yes,
            CircuitState::Open { until } => until,
            // The probe may need it, and would fail without it, each time.
            CircuitState::HalfOpen { over_at, .. } if is_inner && now < over_at => {
                return Verdict::Yes;
            }
            CircuitState::HalfOpen { over_at, .. } => over_at,
        };
        match at.saturating_sub(now) {
            0 => Verdict::Probe,
            left => Verdict::No(left),
        }
    }

    /// Starts the probe, whose load ends at the latest after `time_left`. Returns its number.
    pub(crate) fn probe(&mut self, now: Tick, time_left: Tick) -> u64 {
        self.probes += 1;
        self.state = CircuitState::HalfOpen {
            probe: self.probes,
            // Two probes are never closer than the interval.
            over_at: now.saturating_add(time_left).max(self.next_probe(now)),
        };
        self.probes
    }

    fn next_probe(&self, now: Tick) -> Tick {
        now.saturating_add(ticks(self.settings.probe_every))
    }

    /// A load ended; `probe` is the number of a probe. Returns the new state if it changed.
    pub(crate) fn ended(
        &mut self,
        probe: Option<u64>,
        failed: bool,
        now: Tick,
    ) -> Option<BreakerState> {
        match (&self.state, probe) {
            (CircuitState::Closed, _) => self.count(failed, now),
            // Also a probe that took so long that it was given up.
            (_, Some(_)) if !failed => {
                self.state = CircuitState::Closed;
                self.ended.clear();
                self.failed = 0;
                Some(BreakerState::Closed)
            }
            (CircuitState::HalfOpen { probe: number, .. }, probe) if probe == Some(*number) => {
                self.open(now)
            }
            // The end of a load that started before the breaker opened.
            _ => None,
        }
    }

    /// The probe ended, and says nothing about the origin. The next load is the probe.
    pub(crate) fn undecided(&mut self, probe: u64, now: Tick) -> Option<BreakerState> {
        match self.state {
            CircuitState::HalfOpen { probe: number, .. } if probe == number => {
                self.state = CircuitState::Open { until: now };
                Some(BreakerState::Open)
            }
            _ => None,
        }
    }

    fn count(&mut self, failed: bool, now: Tick) -> Option<BreakerState> {
        self.ended.push_back(failed);
        self.failed += usize::from(failed);
        if self.ended.len() > self.settings.last {
            let oldest = self.ended.pop_front();
            self.failed -= usize::from(oldest == Some(true));
        }
        // Divided, so that 55 of 100 is 0.55 exactly as it is written.
        let share = self.failed as f64 / self.settings.last as f64;
        let is_full = self.ended.len() == self.settings.last;
        // Only a failure opens it, because an origin that has just answered is not down.
        match failed && is_full && share >= self.settings.share {
            true => self.open(now),
            false => None,
        }
    }

    fn open(&mut self, now: Tick) -> Option<BreakerState> {
        let until = self.next_probe(now);
        self.state = CircuitState::Open { until };
        Some(BreakerState::Open)
    }

    pub(crate) fn state(&self) -> BreakerState {
        match self.state {
            CircuitState::Closed => BreakerState::Closed,
            CircuitState::Open { .. } => BreakerState::Open,
            CircuitState::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Breaker, BreakerState, Circuit, Verdict};

    fn circuit() -> Circuit {
        let settings = Breaker::new().opens_at(0.5).of_last(4);
        Circuit::new(&settings.probe_every(Duration::from_nanos(10)))
    }

    fn opened() -> Circuit {
        let mut circuit = circuit();
        let states = [false, false, true, true].map(|failed| circuit.ended(None, failed, 100));
        assert_eq!(states, [None, None, None, Some(BreakerState::Open)]);
        circuit
    }

    #[test]
    fn it_opens_at_the_share_of_the_last_loads_and_not_before_there_are_as_many() {
        let mut circuit = circuit();
        for _ in 0..3 {
            assert_eq!(circuit.ended(None, true, 0), None);
        }
        assert_eq!(circuit.ended(None, true, 0), Some(BreakerState::Open));
        assert_eq!(opened().verdict(false, 109), Verdict::No(1));
    }

    #[test]
    fn one_probe_runs_at_a_time_and_its_end_decides() {
        let mut circuit = opened();
        assert_eq!(circuit.verdict(false, 110), Verdict::Probe);
        let probe = circuit.probe(110, 40);
        assert_eq!(circuit.verdict(false, 149), Verdict::No(1));
        // A load that started before is no probe.
        assert_eq!(circuit.ended(None, false, 120), None);
        assert_eq!(
            circuit.ended(Some(probe), true, 130),
            Some(BreakerState::Open)
        );
        assert_eq!(circuit.verdict(false, 139), Verdict::No(1));
        let probe = circuit.probe(140, 10);
        assert_eq!(
            circuit.ended(Some(probe), false, 141),
            Some(BreakerState::Closed)
        );
        assert_eq!(circuit.verdict(false, 141), Verdict::Yes);
        assert_eq!(circuit.ended(None, true, 141), None, "it forgot the past");
    }

    #[test]
    fn a_probe_that_hangs_is_followed_by_another_at_its_deadline() {
        let mut circuit = opened();
        let hung = circuit.probe(110, 40);
        assert_eq!(circuit.verdict(false, 150), Verdict::Probe);
        let next = circuit.probe(150, 2);
        assert_eq!(
            circuit.verdict(false, 159),
            Verdict::No(1),
            "the interval counts"
        );
        assert_eq!(circuit.ended(Some(hung), true, 151), None);
        assert_eq!(circuit.state(), BreakerState::HalfOpen);
        assert_eq!(
            circuit.ended(Some(hung), false, 152),
            Some(BreakerState::Closed)
        );
        assert_eq!(circuit.ended(Some(next), true, 153), None);
    }
}
