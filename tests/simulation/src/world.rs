//! What all parts of one run share: the time, the timers, the network, the log and the checker.
//!
//! All of it lies under one lock, which is never held while code of the cache runs.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::fmt;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};

use everfresh::BoxFuture;

use crate::claims::Claims;
use crate::log::{Log, What};
use crate::network::Network;
use crate::origin::Origin;
use crate::random::Random;

/// The number of a process. One that starts after a kill has a new number.
pub type Process = usize;
pub type Key = u64;
/// The number of a database of the server.
pub type Database = usize;
/// Nanoseconds since the beginning of the run.
pub type Nanos = u64;

pub const MS: Nanos = 1_000_000;
pub const SECOND: Nanos = 1_000 * MS;

pub struct World(Mutex<State>);

pub struct State {
    pub now: Nanos,
    pub log: Log,
    pub claims: Claims,
    pub network: Network,
    pub origin: Origin,
    /// Decides what happens on the network and at the origin.
    pub random: Random,
    pub lives: Vec<Life>,
    timers: BinaryHeap<Timer>,
    timers_set: u64,
    spawned: Vec<(Process, BoxFuture)>,
}

/// Whether a process runs.
#[derive(Clone, Copy, PartialEq)]
pub enum Life {
    Runs,
    Paused,
    Dead,
}

struct Timer {
    at: Nanos,
    /// Timers of one moment ring in the order in which they were set.
    number: u64,
    waker: Waker,
}

impl World {
    pub fn new(random: Random) -> Arc<Self> {
        Arc::new(World(Mutex::new(State {
            now: 0,
            log: Log::default(),
            claims: Claims::default(),
            network: Network::default(),
            origin: Origin::default(),
            random,
            lives: Vec::new(),
            timers: BinaryHeap::new(),
            timers_set: 0,
            spawned: Vec::new(),
        })))
    }

    pub fn with<R>(&self, look: impl FnOnce(&mut State) -> R) -> R {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn now(&self) -> Nanos {
        self.with(|state| state.now)
    }

    pub fn is_paused(&self, process: Process) -> bool {
        self.with(|state| state.lives[process] == Life::Paused)
    }

    /// Runs a future as a task of a process.
    pub fn spawn(&self, process: Process, future: BoxFuture) {
        self.with(|state| state.spawned.push((process, future)));
    }

    pub fn take_spawned(&self) -> Vec<(Process, BoxFuture)> {
        self.with(|state| std::mem::take(&mut state.spawned))
    }

    pub async fn sleep_until(&self, at: Nanos) {
        poll_fn(|cx| {
            self.with(|state| match state.now < at {
                true => {
                    state.set_timer(at, cx.waker());
                    Poll::Pending
                }
                false => Poll::Ready(()),
            })
        })
        .await;
    }

    /// The next moment at which a timer rings.
    pub fn next_timer(&self) -> Option<Nanos> {
        self.with(|state| state.timers.peek().map(|timer| timer.at))
    }

    /// Moves the time on.
    pub fn advance(&self, to: Nanos) {
        let due = self.with(|state| {
            state.now = to;
            let mut due = Vec::new();
            while state.timers.peek().is_some_and(|timer| timer.at <= to) {
                due.extend(state.timers.pop());
            }
            due
        });
        for timer in due {
            timer.waker.wake();
        }
    }
}

impl State {
    pub fn set_timer(&mut self, at: Nanos, waker: &Waker) {
        self.timers_set += 1;
        self.timers.push(Timer {
            at,
            number: self.timers_set,
            waker: waker.clone(),
        });
    }

    /// Writes an event into the log.
    pub fn log(&mut self, what: What) {
        self.log.add(self.now, what);
    }
}

impl PartialEq for Timer {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Timer {}

impl PartialOrd for Timer {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Timer {
    /// The earliest is the greatest, for the heap.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").finish_non_exhaustive()
    }
}
