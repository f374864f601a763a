//! The deadline of a running load: its claim ends there, whether or not the load does.
//!
//! A load registers itself with its flight when it starts, and is woken by the alarm that the
//! flight has for its waiters, or by a reader that finds the claim past its deadline. One exchange
//! of its [`Phase`] decides between the deadline and the end of the load:
//!
//! ```text
//!   RUNNING ──(deadline)──▶ OVERDUE ──▶ ENDED
//!      └────(the load ends in time)───────▲
//! ```
//!
//! The thread that makes a load overdue counts it, ends its claim with a time-out and a backoff,
//! gives its lease back, and lets the pool replace its worker. What the load still returns is a
//! late result (see `protocol::publish`).
//!
//! Races: the deadline against the end of the load (the exchange); the alarm against the start of
//! the load (the load registers, sets the alarm, and then reads the clock once more); the alarm of
//! a deadline that was renewed since (the clock has not reached the deadline, so nothing happens).

use crate::error::Error;
use crate::load::admission::{CountedOverdue, Pass};
use crate::load::job::GiveBack;
use crate::load::state::{CacheState, Common};
use crate::load::workers::{Overdue, Workers};
use crate::observe::reason::LoadReason;
use crate::observe::trace;
use crate::protocol::publish::Expiry;
use crate::sync::{Arc, AtomicU8, Mutex, Ordering, Weak, lock};
use crate::time::alarm::Sleeper;

const RUNNING: u8 = 0;
const OVERDUE: u8 = 1;
const ENDED: u8 = 2;

/// Decides between the deadline of a load and its end.
pub struct Phase(AtomicU8);

impl Phase {
    pub fn running() -> Self {
        Phase(AtomicU8::new(RUNNING))
    }

    pub fn is_overdue(&self) -> bool {
        // Acquire pairs with the exchange in `pass`.
        self.0.load(Ordering::Acquire) == OVERDUE
    }

    /// The deadline has passed. True for one caller, which makes the load overdue.
    pub fn pass(&self) -> bool {
        (self.0)
            .compare_exchange(RUNNING, OVERDUE, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    }

    /// The load is over; returns whether it was overdue.
    pub fn end(&self) -> bool {
        self.0.swap(ENDED, Ordering::AcqRel) == OVERDUE
    }
}

/// Held by the running load; its flight knows it weakly.
pub(super) struct Deadline<K, V> {
    expiry: Expiry<K, V>,
    state: Arc<CacheState<K, V>>,
    running: Running,
}

/// A load that runs, with what it gives back at its deadline.
pub(super) struct Running {
    phase: Phase,
    reason: LoadReason,
    lease: Option<Arc<dyn GiveBack>>,
    /// The pool on which the load runs, if it cannot be interrupted.
    workers: Option<Weak<Workers>>,
    /// The permits of the load. A computation gives them back at its deadline, because it has a
    /// spare worker then; an async load keeps them until its future is dropped. Of the keys of a
    /// batch, the one with the last deadline has them.
    pass: Mutex<Option<Pass>>,
    /// Kept until the load is over, if it goes on after its deadline.
    counted: Mutex<Option<CountedOverdue>>,
    /// Kept until the load is over.
    replacement: Mutex<Option<Overdue>>,
}

impl Running {
    pub(super) fn new(
        reason: LoadReason,
        lease: Option<Arc<dyn GiveBack>>,
        workers: Option<Weak<Workers>>,
        pass: Option<Pass>,
    ) -> Self {
        Running {
            phase: Phase::running(),
            reason,
            lease,
            workers,
            pass: Mutex::new(pass),
            counted: Mutex::new(None),
            replacement: Mutex::new(None),
        }
    }

    fn end(&self) -> (bool, Option<Pass>) {
        let late = self.phase.end();
        (late, lock(&self.pass).take())
    }

    /// The claim has ended at the deadline; the load goes on.
    fn goes_on(&self, common: &Common) {
        if let Some(lease) = &self.lease {
            lease.give_back();
        }
        let pass = lock(&self.pass).take();
        let pass = pass.map(|mut pass| {
            pass.ended(Some(true), |changed| trace::breaker(&common.name, changed));
            pass
        });
        if self.workers.is_none() {
            *lock(&self.pass) = pass;
            return;
        }
        if let Some(workers) = self.workers.as_ref().and_then(Weak::upgrade) {
            // If the load has ended meanwhile, this is the last reference to the deadline, and the
            // replacement ends with it.
            *lock(&self.replacement) = common.replace_worker(&workers);
        }
        // Only now, because the next load may start here and needs the spare worker.
        drop(pass);
    }
}

impl<K, V> Deadline<K, V> {
    pub(super) fn new(
        expiry: Expiry<K, V>,
        state: Arc<CacheState<K, V>>,
        running: Running,
    ) -> Self {
        Deadline {
            expiry,
            state,
            running,
        }
    }

    /// The load is over; returns whether it was overdue, and the permits that it has left.
    pub(super) fn end(&self) -> (bool, Option<Pass>) {
        self.running.end()
    }

    /// Completes when the load is overdue.
    pub(super) async fn passed(&self) {
        let is_overdue = || self.running.phase.is_overdue();
        self.expiry.flight().ended(is_overdue).await;
    }
}

impl<K: Send + Sync, V: Send + Sync> Sleeper for Deadline<K, V> {
    fn wake(&self) {
        let (state, running) = (&*self.state, &self.running);
        let now = state.clock.now();
        if now < self.expiry.deadline() || !running.phase.pass() {
            return;
        }
        let goes_on = running.workers.is_some() || state.policy.keep_late_loads;
        if goes_on && lock(&running.pass).is_some() {
            // If the load has ended meanwhile, this is the last reference to the deadline.
            let counted = CountedOverdue::new(state.admission.clone());
            *lock(&running.counted) = Some(counted);
        }
        // Before the waiting callers learn of it, because they may trace it as well.
        let rest = state.timed_out(running.reason, self.expiry.failures());
        let error = Error::timed_out(state.policy.load_timeout);
        self.expiry.expire(error, now.saturating_add(rest));
        running.goes_on(state);
    }
}
