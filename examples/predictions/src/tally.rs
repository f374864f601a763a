//! Counters of the service itself, independent of the cache: the answers to requests, and the calls
//! of the loader.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use everfresh::{Error, Source};
use serde::Serialize;

/// A counter. Relaxed, because it orders nothing.
#[derive(Default)]
pub struct Count(AtomicU64);

impl Count {
    pub fn add(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn take_back(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The kinds of answers to a request.
pub const KINDS: [&str; 9] = [
    "fresh",
    "early",
    "stale",
    "after-failure",
    "loaded",
    "coalesced",
    "store",
    "not-found",
    "failed",
];

fn number(source: Source) -> usize {
    match source {
        Source::Fresh => 0,
        Source::Early => 1,
        Source::Stale => 2,
        Source::AfterFailure => 3,
        Source::Loaded => 4,
        Source::Coalesced => 5,
        // Kinds that a later version of the library adds: the value was not in this process.
        _ => 6,
    }
}

pub fn kind(source: Source) -> &'static str {
    KINDS[number(source)]
}

/// Bounds of the latency buckets, in nanoseconds; one more bucket lies above them.
const BOUNDS: [u64; 12] = [
    250,
    1_000,
    4_000,
    16_000,
    64_000,
    250_000,
    1_000_000,
    4_000_000,
    16_000_000,
    64_000_000,
    250_000_000,
    1_000_000_000,
];

/// The number of refreshes of the watched pairing that are remembered.
const SPANS: usize = 64;

/// One computation of the watched pairing, in milliseconds since the start of the service.
#[derive(Clone, Copy, Serialize)]
pub struct Span {
    /// Counted from one.
    number: u64,
    began: u64,
    ended: Option<u64>,
    failed: bool,
}

pub struct Tally {
    started: Instant,
    answers: [Count; KINDS.len()],
    latency: [Count; BOUNDS.len() + 1],
    pub due: Count,
    pub computes: Count,
    pub failures: Count,
    pub unknown: Count,
    pub computing: Count,
    spans: Mutex<VecDeque<Span>>,
}

impl Tally {
    pub fn new() -> Tally {
        Tally {
            started: Instant::now(),
            answers: Default::default(),
            latency: Default::default(),
            due: Count::default(),
            computes: Count::default(),
            failures: Count::default(),
            unknown: Count::default(),
            computing: Count::default(),
            spans: Mutex::default(),
        }
    }

    /// Milliseconds since the start of the service.
    pub fn now(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// Counts a request and how long it took to get its prediction.
    pub fn answered(&self, source: Result<Source, &Error>, took: Duration) {
        let kind = match source {
            Ok(source) => number(source),
            Err(error) if error.is_not_found() => KINDS.len() - 2,
            Err(_) => KINDS.len() - 1,
        };
        self.answers[kind].add();
        let took = took.as_nanos() as u64;
        self.latency[BOUNDS.partition_point(|bound| *bound <= took)].add();
    }

    pub fn answers(&self) -> [u64; KINDS.len()] {
        std::array::from_fn(|kind| self.answers[kind].get())
    }

    pub fn latency(&self) -> [u64; BOUNDS.len() + 1] {
        std::array::from_fn(|bucket| self.latency[bucket].get())
    }

    /// Counts a computation until the result is dropped.
    pub fn begin(&self, watched: bool) -> Computing<'_> {
        self.computing.add();
        let began = watched.then(|| self.now());
        if let Some(began) = began {
            let mut spans = self.spans();
            let number = spans.back().map_or(0, |span| span.number) + 1;
            if spans.len() == SPANS {
                spans.pop_front();
            }
            spans.push_back(Span {
                number,
                began,
                ended: None,
                failed: true,
            });
        }
        Computing {
            tally: self,
            watched,
            failed: true,
        }
    }

    /// The latest computations of the watched pairing, the earliest first.
    pub fn recent(&self) -> Vec<Span> {
        self.spans().iter().copied().collect()
    }

    /// The number of computations of the watched pairing that have begun.
    pub fn begun(&self) -> u64 {
        self.spans().back().map_or(0, |span| span.number)
    }

    /// Of the computations of the watched pairing that began after this and have ended: how many
    /// succeeded, and how many failed.
    pub fn since(&self, begun: u64) -> (usize, usize) {
        let spans = self.spans();
        let ended = |failed: bool| {
            let those =
                |span: &&Span| span.number > begun && span.ended.is_some() && span.failed == failed;
            spans.iter().filter(those).count()
        };
        (ended(false), ended(true))
    }

    fn spans(&self) -> std::sync::MutexGuard<'_, VecDeque<Span>> {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A computation under way.
pub struct Computing<'a> {
    tally: &'a Tally,
    watched: bool,
    failed: bool,
}

impl Computing<'_> {
    /// Its number.
    pub fn succeed(&mut self) -> u64 {
        self.failed = false;
        self.tally.computes.add()
    }
}

impl Drop for Computing<'_> {
    fn drop(&mut self) {
        if self.failed {
            self.tally.failures.add();
        }
        if self.watched {
            let now = self.tally.now();
            let mut spans = self.tally.spans();
            // One key has one computation at a time, so the latest span is the one of this
            // computation.
            if let Some(span) = spans.back_mut() {
                span.ended = Some(now);
                span.failed = self.failed;
            }
        }
        self.tally.computing.take_back();
    }
}
