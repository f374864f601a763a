//! Many callers released at the same moment, and the outcome of each call.
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use dev_support::forecast::Forecast;
use dev_support::quantile::quantile;
use everfresh::{Cached, Error, Source};
use tokio::runtime::Runtime;

/// The outcome for one caller.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Fresh,
    Stale,
    /// The caller got the value, but had to wait for its computation.
    Waited,
    Failed,
}

impl Answer {
    pub fn of<K>(read: &Result<Cached<K, Forecast>, Error>) -> Answer {
        match read {
            Ok(cached) if cached.is_sound() => match cached.source() {
                Source::Fresh | Source::Early => Answer::Fresh,
                Source::Stale | Source::AfterFailure => Answer::Stale,
                _ => Answer::Waited,
            },
            _ => Answer::Failed,
        }
    }
}

/// One call by one caller; its times enclose the call and nothing else.
pub struct Call {
    pub began: Instant,
    pub ended: Instant,
    pub answer: Answer,
}

/// One call of the loader.
pub struct Compute {
    /// The turn of the caller that computed; `None` for a computation in the background.
    pub by: Option<usize>,
    pub began: Instant,
    pub ended: Instant,
    /// When the value became visible to all callers.
    pub published: Option<Instant>,
}

/// The outcome of a crowd.
pub struct Seen {
    pub served: usize,
    pub stale: usize,
    pub waited: usize,
    pub p50: Duration,
    pub p99: Duration,
    /// The time from the first call to the last answer.
    pub total: Duration,
    /// How long each call took, the shortest first.
    pub took: Vec<Duration>,
    /// All calls; those of threads in the order of their turns.
    pub calls: Vec<Call>,
}

impl Seen {
    pub fn of(calls: Vec<Call>) -> Seen {
        let count = |wanted| calls.iter().filter(|call| call.answer == wanted).count();
        let mut took: Vec<Duration> = calls.iter().map(|call| call.ended - call.began).collect();
        took.sort_unstable();
        let first = calls.iter().map(|call| call.began).min();
        let last = calls.iter().map(|call| call.ended).max();
        Seen {
            served: calls.len() - count(Answer::Failed),
            stale: count(Answer::Stale),
            waited: count(Answer::Waited),
            p50: quantile(&took, 0.5),
            p99: quantile(&took, 0.99),
            total: last
                .zip(first)
                .map_or(Duration::ZERO, |(last, first)| last - first),
            took,
            calls,
        }
    }
}

/// Threads of the operating system, released by one gate. Each then waits `apart` longer than the
/// one before it, and calls with the number of its turn.
///
/// The gate is a lock held for writing, which releases all its readers at once. The barrier of
/// `std` wakes them one after the other: with fewer cores than callers, the last thread would not
/// start before the first computations end.
pub fn threads(callers: usize, apart: Duration, call: impl Fn(usize) -> Answer + Sync) -> Seen {
    let gate = RwLock::new(());
    let closed = gate.write().unwrap_or_else(PoisonError::into_inner);
    let ready = AtomicUsize::new(0);
    let one = |turn: u32| {
        ready.fetch_add(1, Ordering::SeqCst);
        drop(gate.read());
        if !apart.is_zero() {
            thread::sleep(apart * turn);
        }
        let began = Instant::now();
        let answer = call(turn as usize);
        let ended = Instant::now();
        Call {
            began,
            ended,
            answer,
        }
    };
    let (one, ready) = (&one, &ready);
    let calls: Vec<Call> = thread::scope(|scope| {
        let started: Vec<_> = (0..callers as u32)
            .map(|turn| {
                thread::Builder::new()
                    .stack_size(256 * 1024)
                    .spawn_scoped(scope, move || one(turn))
                    // The threads already started would wait at the gate for ever, so end the
                    // program.
                    .unwrap_or_else(|error| crate::give_up(&format!("a thread: {error}")))
            })
            .collect();
        while ready.load(Ordering::SeqCst) < callers {
            thread::sleep(Duration::from_millis(1));
        }
        // The last thread has counted itself and is about to wait at the gate.
        thread::sleep(Duration::from_millis(5));
        drop(closed);
        started
            .into_iter()
            .filter_map(|caller| caller.join().ok())
            .collect()
    });
    Seen::of(calls)
}

/// Tasks of the runtime, released by a barrier. Each calls its own clone of `call`, made before the
/// release.
pub fn tasks<F, A>(runtime: &Runtime, callers: usize, call: F) -> Seen
where
    F: FnOnce() -> A + Clone + Send + 'static,
    A: Future<Output = Answer> + Send,
{
    let barrier = Arc::new(tokio::sync::Barrier::new(callers));
    let calls = runtime.block_on(async {
        let started: Vec<_> = (0..callers)
            .map(|_| {
                let (barrier, call) = (barrier.clone(), call.clone());
                tokio::spawn(async move {
                    barrier.wait().await;
                    let began = Instant::now();
                    let answer = call().await;
                    let ended = Instant::now();
                    Call {
                        began,
                        ended,
                        answer,
                    }
                })
            })
            .collect();
        let mut calls = Vec::with_capacity(callers);
        for caller in started {
            calls.extend(caller.await);
        }
        calls
    });
    Seen::of(calls)
}
