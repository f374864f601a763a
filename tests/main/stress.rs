//! No duplicate loads under oversubscription: sixteen threads or more race for every epoch, on any
//! number of cores.
//!
//! Values are numbered, so the value that a load replaces identifies the epoch. Two loads that saw
//! the same value are a duplicate. The clock never comes near a deadline, so no load may be taken
//! over. The assertions count loads and measure no time. `EVERFRESH_STRESS_EPOCHS` is the number of
//! epochs to race for, of which tests with slow loads take a tenth. Default: 600.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use everfresh::{Cache, Loaded, ManualClock, Request, Source};

use crate::support::random::{Rng, number};
use crate::support::*;

const KEYS: u64 = 3;
const READERS: u64 = 20;

/// An epoch counts once this many readers have seen its value stale, because each of them could
/// have refreshed it.
const RACING: u64 = 4;

fn epochs() -> u64 {
    number("EVERFRESH_STRESS_EPOCHS").unwrap_or(600)
}

/// The counts of one epoch, identified by the number of its value.
#[derive(Default)]
struct Epoch {
    /// Loads that replaced this value or tried to.
    loads: AtomicU64,
    /// Readers that were served this value stale.
    readers: AtomicU64,
}

struct Epochs {
    all: Vec<Epoch>,
    next: AtomicU64,
    raced: AtomicU64,
    duplicates: AtomicU64,
    cold: AtomicU64,
}

impl Epochs {
    fn new(most: u64) -> Arc<Self> {
        Arc::new(Epochs {
            all: (0..most).map(|_| Epoch::default()).collect(),
            next: AtomicU64::new(0),
            raced: AtomicU64::new(0),
            duplicates: AtomicU64::new(0),
            cold: AtomicU64::new(0),
        })
    }

    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    fn of(&self, number: u64) -> &Epoch {
        // There is room for far more epochs than wanted. The limit ends a run in which no reads
        // race.
        let all = &self.all;
        let epoch = all.get(number as usize);
        epoch.unwrap_or_else(|| panic!("{number} values without enough races"))
    }

    /// Counts a load that begins.
    fn loads(&self, previous: Option<u64>) {
        match previous {
            None => self.cold.fetch_add(1, Ordering::Relaxed),
            Some(number) => match self.of(number).loads.fetch_add(1, Ordering::Relaxed) {
                0 => 0,
                _ => self.duplicates.fetch_add(1, Ordering::Relaxed),
            },
        };
    }

    /// Counts a reader that is served this stale value for the first time.
    fn served(&self, number: u64) {
        if self.of(number).readers.fetch_add(1, Ordering::Relaxed) == RACING - 1 {
            self.raced.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Practically for ever, but a manual clock can still advance.
const NEVER: Duration = Duration::from_secs(1_000_000_000);

struct Scene {
    epochs: Arc<Epochs>,
    clock: ManualClock,
    cache: Cache<u64, u64>,
    fresh_for: Duration,
}

/// Stops all threads when its thread ends or panics.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Scene {
    /// Loads keep a core busy for `busy`. Their values are stale after `fresh_for`, which may be
    /// zero.
    fn new(wanted: u64, busy: Duration, fresh_for: Duration) -> Self {
        let (epochs, clock) = (Epochs::new(1_000 * wanted + 100_000), ManualClock::new());
        let seen = epochs.clone();
        let cache = Cache::builder()
            .clock(&clock)
            .capacity(20)
            .stale_for(NEVER)
            .load_timeout(NEVER)
            .beta(0.0)
            .threads(2)
            .compute_with(move |request: &Request<u64, u64>| {
                seen.loads(request.previous().copied());
                let started = Instant::now();
                while started.elapsed() < busy {
                    std::hint::spin_loop();
                }
                Ok::<_, Infallible>(Loaded::new(seen.number()).fresh_for(fresh_for))
            })
            .build()
            .unwrap();
        Scene {
            epochs,
            clock,
            cache,
            fresh_for,
        }
    }

    fn insert(&self, key: u64) {
        let loaded = Loaded::new(self.epochs.number()).fresh_for(self.fresh_for);
        self.cache.insert(key, loaded);
    }

    /// Reads until `wanted` epochs were raced for, while `write` is called again and again. Returns
    /// the number of loads that had no value to replace.
    fn race(&self, wanted: u64, mut write: impl FnMut(u64)) -> u64 {
        let raced = || self.epochs.raced.load(Ordering::Relaxed);
        let stopped = AtomicBool::new(false);
        let stop = &stopped;
        thread::scope(|scope| {
            for reader in 0..READERS {
                scope.spawn(move || {
                    let _stop = Stop(stop);
                    self.read(Rng::new(reader), stop);
                });
            }
            let _stop = Stop(stop);
            until("enough epochs were raced for", || {
                write(raced());
                raced() >= wanted || stop.load(Ordering::Relaxed)
            });
        });
        let (stats, raced) = (self.cache.stats(), raced());
        println!("{raced} epochs raced for\n{stats}");
        let duplicates = self.epochs.duplicates.load(Ordering::Relaxed);
        assert_eq!(duplicates, 0, "of {} loads", stats.computes());
        // The result is not vacuous: many readers tried to claim each of the epochs, and at most
        // one succeeded. The refresh of the last epoch of each key may still be queued.
        assert!(raced >= wanted && stats.refreshes_stale + KEYS >= wanted);
        assert!(stats.claims_denied >= wanted * (RACING - 1));
        assert_eq!(
            stats.discarded_taken_over + stats.failed + stats.shed_stale,
            0
        );
        self.epochs.cold.load(Ordering::Relaxed)
    }

    fn read(&self, mut rng: Rng, stop: &AtomicBool) {
        let mut last = [None; KEYS as usize];
        while !stop.load(Ordering::Relaxed) {
            let key = rng.below(KEYS);
            let read = self.cache.get_blocking(&key).unwrap();
            let last = &mut last[key as usize];
            if read.source() == Source::Stale && *last != Some(*read) {
                *last = Some(*read);
                self.epochs.served(*read);
            } else if rng.below(16) == 0 {
                // Yields before other readers have seen this value. Most switches of threads still
                // come inside an operation.
                thread::yield_now();
            }
        }
    }
}

#[test]
fn loads_that_take_no_time() {
    let wanted = epochs();
    let scene = Scene::new(wanted, Duration::ZERO, Duration::ZERO);
    let cold = scene.race(wanted, |_| ());
    assert_eq!(cold, KEYS, "one load for each missing key");
}

#[test]
fn loads_that_keep_a_core_busy() {
    let wanted = epochs().div_ceil(10);
    let scene = Scene::new(wanted, millis(2), Duration::ZERO);
    let cold = scene.race(wanted, |_| ());
    assert_eq!(cold, KEYS, "one load for each missing key");
}

#[test]
fn values_that_become_stale_for_all_readers_at_once() {
    let wanted = epochs();
    let scene = Scene::new(wanted, Duration::ZERO, secs(1));
    let cold = scene.race(wanted, |_| scene.clock.advance(secs(1)));
    assert_eq!(cold, KEYS, "one load for each missing key");
}

#[test]
fn loads_during_which_keys_are_written() {
    for busy in [Duration::ZERO, millis(2)] {
        let slow = u64::from(!busy.is_zero());
        let wanted = epochs().div_ceil(1 + 9 * slow);
        let scene = Scene::new(wanted, busy, Duration::ZERO);
        let (mut rng, mut written, mut removed) = (Rng::new(READERS), 0, 0);
        let mut inserted = 0;
        let cold = scene.race(wanted, |raced| {
            // A few writes for every ten epochs, so that there are epochs to race for between the
            // writes.
            if raced / 10 > written {
                written = raced / 10;
                let key = rng.below(KEYS);
                match rng.below(3) {
                    0 => {
                        scene.insert(key);
                        inserted += 1;
                    }
                    1 => {
                        scene.cache.invalidate(&key);
                        removed += 1;
                    }
                    _ => {
                        scene.insert(key);
                        scene.cache.invalidate(&key);
                        inserted += 1;
                        removed += 1;
                    }
                }
            }
        });
        assert!(
            written >= wanted / 20 && (written < 15 || removed > 0),
            "{written} writes"
        );
        // Each removal allows one more load, however many readers find the key missing. So does an
        // insert during a load, because it first removes the placeholder of that load.
        assert!(
            (KEYS..=KEYS + removed + inserted).contains(&cold),
            "{cold} loads for {removed} removals and {inserted} inserts"
        );
    }
}

#[test]
fn a_duplicate_load_would_be_counted() {
    let epochs = Epochs::new(2);
    for previous in [None, None, Some(0), Some(1)] {
        epochs.loads(previous);
        assert_eq!(epochs.duplicates.load(Ordering::Relaxed), 0);
    }
    epochs.loads(Some(1));
    assert_eq!(epochs.duplicates.load(Ordering::Relaxed), 1);
    for reader in 1..=READERS {
        epochs.served(0);
        let raced = epochs.raced.load(Ordering::Relaxed);
        assert_eq!(raced, u64::from(reader >= RACING));
    }
}
