//! The cache under test, with a clock that moves by hand and a loader that is counted and timed.
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use dev_support::forecast::{Fixture, Forecast, MATCH, forecast};
use everfresh::SecondLevel;
use everfresh::{BuildError, Cache, Cause, ManualClock};

use crate::crowd::Compute;

pub const SOFT: Duration = Duration::from_secs(5);
pub const HARD: Duration = Duration::from_secs(120);
pub const AGE: Duration = Duration::from_secs(6);

/// A limit that no forecast reaches.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub struct Subject {
    pub cache: Cache<Fixture, Forecast>,
    pub clock: ManualClock,
    ledger: Arc<VersionIndex>,
}

/// Records of the loader, independent of the counters of the cache.
struct VersionIndex {
    begun: AtomicUsize,
    /// Begin and end of each finished call.
    ran: Mutex<Vec<(Instant, Instant)>>,
    /// When each refresh had replaced the value, recorded by the thread that did it.
    replaced: Mutex<Vec<Instant>>,
}

/// The number of computes that are recorded without an allocation.
const COMPUTES: usize = 2_000;

impl Subject {
    pub fn new(simulations: u32) -> Result<Subject, BuildError> {
        Subject::on(simulations, None)
    }

    /// A subject with this second level, if there is one.
    pub fn on(
        simulations: u32,
        level: Option<SecondLevel<Fixture, Forecast>>,
    ) -> Result<Subject, BuildError> {
        let clock = ManualClock::new();
        let ledger = Arc::new(VersionIndex {
            begun: AtomicUsize::new(0),
            ran: Mutex::new(Vec::with_capacity(COMPUTES)),
            replaced: Mutex::new(Vec::with_capacity(COMPUTES)),
        });
        let (book, publications) = (ledger.clone(), ledger.clone());
        let mut builder = Cache::builder();
        if let Some(level) = level {
            builder = builder.store(level);
        }
        let cache = builder
            .name("certify")
            .capacity(1_000)
            .fresh_for(SOFT)
            .stale_for(HARD - SOFT)
            .clock(clock.clone())
            .compute(move |fixture: &Fixture| {
                book.begun.fetch_add(1, Ordering::SeqCst);
                let began = Instant::now();
                let forecast = forecast(fixture, simulations);
                let ended = Instant::now();
                locked(&book.ran).push((began, ended));
                forecast
            })
            .on_removal(move |_, _, cause| {
                if cause == Cause::Replaced {
                    locked(&publications.replaced).push(Instant::now());
                }
            })
            .build()?;
        Ok(Subject {
            cache,
            clock,
            ledger,
        })
    }

    /// The number of calls of the loader.
    pub fn computes(&self) -> usize {
        self.ledger.begun.load(Ordering::SeqCst)
    }

    /// The time of each finished call of the loader.
    pub fn compute_times(&self) -> Vec<Duration> {
        let ran = locked(&self.ledger.ran);
        ran.iter().map(|(began, ended)| *ended - *began).collect()
    }

    /// The finished calls of the loader from the `first` on, counted from 0, which must be
    /// refreshes.
    pub fn refreshes(&self, first: usize) -> Vec<Compute> {
        let ran = locked(&self.ledger.ran);
        let replaced = locked(&self.ledger.replaced);
        let mut published = replaced.iter().copied();
        let refreshes = ran.iter().skip(first).map(|&(began, ended)| Compute {
            by: None,
            began,
            ended,
            published: published.by_ref().find(|published| *published >= ended),
        });
        refreshes.collect()
    }

    /// Loads the value and makes it stale.
    pub fn prepare(&self) {
        let _ = self.cache.get_blocking(&MATCH);
        // A caller gets its value a moment before the load ends.
        self.settles(1);
        self.clock.advance(AGE);
    }

    /// Waits until the loader has run this number of times in all and every run has ended. Returns
    /// false if that takes too long.
    pub fn settles(&self, runs: usize) -> bool {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            let stats = self.cache.stats();
            let ended = stats.published
                + stats.failed
                + stats.discarded_overtaken
                + stats.discarded_taken_over;
            // Wait for the store too, because the next crowd could otherwise find a value there.
            let stored = self.cache.store_stats().is_none_or(|store| {
                store.published + store.refused + store.not_stored + store.unleased >= ended
            });
            if ended >= runs as u64 && ended == stats.computes() && stored {
                return true;
            }
            thread::sleep(Duration::from_micros(200));
        }
        false
    }
}

fn locked<T>(ledger: &Mutex<T>) -> MutexGuard<'_, T> {
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}
