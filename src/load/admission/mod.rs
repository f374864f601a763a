//! Admission: when a load may start.
//!
//! A load passes the gate of its cache, then that of the budget, then the queue of the pool or the
//! spawner. It keeps the permits of the gates until it has ended.
//!
//! A load that another load waits for takes no permit: one that begins inside that load, or one
//! that it finds waiting. Otherwise loads that hold all permits could wait for loads that need one.
//! No load waits for the refresh of a stale value, so that takes a permit wherever it begins.

pub mod ask;
pub mod breaker;
pub mod budget;
pub mod gate;
mod pace;
pub mod queued;

use std::fmt::Debug;

use self::ask::{Queue, Refusal, has_room};
use self::breaker::Breaker;
use self::budget::Budget;
use self::gate::{Gate, GateLimits, Permit};
use crate::error::BuildError;
use crate::load::stack::on_worker;
use crate::observe::breaker_state::BreakerState;
use crate::observe::reason::LoadReason;
use crate::observe::stats::Gauges;
use crate::protocol::wait_graph::WaitNode;
use crate::sync::{Arc, AtomicU8, AtomicU64, Ordering};
use crate::time::clock::Clock;

/// The most loads at once that can be asked for, and the longest queue.
const MOST_LOADS: usize = 1 << 20;

const MOST_PER_SECOND: u32 = 1_000_000;

/// How many loads may wait if `queue` is not given.
const QUEUE: usize = 65_536;

/// How many loads on a runtime run at once if `max_loads` is not given.
const ON_A_RUNTIME: usize = 256;

/// Bits of the gauge for the loads of one class that wait.
const LANE_BITS: u32 = 21;

/// Whether this thread runs a load right now. On a worker of a pool it does, even in a part of the
/// load that `rayon` moved to another worker.
pub(crate) fn is_inside_a_load() -> bool {
    on_worker() || WaitNode::current().is_some()
}

/// The settings of a cache that say when its loads start.
#[derive(Default)]
pub(crate) struct AdmissionSettings {
    pub(crate) limits: GateLimits,
    pub(crate) queue: Option<usize>,
    pub(crate) budget: Option<Budget>,
}

/// Where the loads of a cache run.
#[derive(Clone, Copy)]
pub(crate) enum RunsOn {
    /// A pool with so many threads, which runs as many at once; or the threads of callers too,
    /// which no pool bounds.
    Pool {
        threads: usize,
        or_caller: bool,
    },
    Runtime,
}

pub(crate) fn check_limits(limits: &GateLimits) -> Result<(), BuildError> {
    if let Some(rate) = limits.per_second {
        let rule = "must be 1 to 1 000 000 loads a second";
        require(
            (1..=MOST_PER_SECOND).contains(&rate),
            "load_rate",
            &rate,
            rule,
        )?;
    }
    limits.breaker.as_ref().map_or(Ok(()), Breaker::check)
}

pub(crate) fn require_max_loads(loads: Option<usize>) -> Result<(), BuildError> {
    let fits = loads.is_none_or(|loads| (1..=MOST_LOADS).contains(&loads));
    let value = loads.unwrap_or_default();
    require(fits, "max_loads", &value, "must be 1 to 1 048 576 loads")
}

fn require(holds: bool, setting: &str, value: &dyn Debug, rule: &str) -> Result<(), BuildError> {
    match holds {
        true => Ok(()),
        false => Err(BuildError::value(setting, value, rule)),
    }
}

impl AdmissionSettings {
    pub(crate) fn check(&self) -> Result<(), BuildError> {
        require_max_loads(self.limits.loads)?;
        if let Some(loads) = self.queue {
            let rule = "must be 1 to 1 048 576 loads";
            require((1..=MOST_LOADS).contains(&loads), "queue", &loads, rule)?;
        }
        check_limits(&self.limits)
    }

    /// How many loads may run at once.
    pub(crate) fn max_loads(&self, runs_on: RunsOn) -> usize {
        let budget = self.budget.as_ref().and_then(|budget| budget.limits.loads);
        let default = match runs_on {
            RunsOn::Pool { threads, .. } => threads,
            RunsOn::Runtime => ON_A_RUNTIME,
        };
        self.limits.loads.or(budget).unwrap_or(default)
    }

    pub(crate) fn admission(self, runs_on: RunsOn, clock: &Clock) -> Admission {
        let mut limits = self.limits;
        let budget = self.budget.as_ref().map(|budget| &*budget.limits);
        let shared = budget.and_then(|budget| budget.loads);
        let is_bounded = shared.is_some();
        let has_rate =
            limits.per_second.is_some() || budget.is_some_and(|it| it.per_second.is_some());
        limits.loads = match (runs_on, limits.loads) {
            (RunsOn::Runtime, None) => (!is_bounded).then_some(ON_A_RUNTIME),
            (RunsOn::Runtime, given) => given,
            // The pool itself bounds its loads. But a load that has its start must not wait there,
            // or more would start in a second than the rate allows. Nor may one that has a permit
            // of a budget larger than the pool, because another cache could use the permit.
            (RunsOn::Pool { threads, .. }, given)
                if has_rate || shared.is_some_and(|loads| loads > threads) =>
            {
                Some(given.map_or(threads, |loads| loads.min(threads)))
            }
            (RunsOn::Pool { threads, or_caller }, None) if or_caller => {
                (!is_bounded).then_some(threads)
            }
            (RunsOn::Pool { .. }, given) => given,
        };
        let queue = self.queue.unwrap_or(QUEUE) as u64;
        let has_gate =
            limits.loads.is_some() || limits.per_second.is_some() || limits.breaker.is_some();
        Admission {
            gates: [
                has_gate.then(|| Gate::new(&limits, clock.clone())),
                self.budget.map(|budget| budget.gate),
            ],
            queue: Queue::new(queue),
            before_the_pool: match runs_on {
                RunsOn::Pool { .. } => queue,
                RunsOn::Runtime => u64::MAX,
            },
            waiting: AtomicU64::new(0),
            running: AtomicU64::new(0),
            overdue: AtomicU64::new(0),
            closed: AtomicU8::new(0),
        }
    }
}

/// The gates of a cache, and its loads under way.
pub(crate) struct Admission {
    /// The cache's own, and that of its budget.
    gates: [Option<Arc<Gate>>; 2],
    pub(crate) queue: Queue,
    /// How many loads may wait at gates and for a thread of the pool together.
    before_the_pool: u64,
    /// The loads that have not begun: cold, stale and early ones, each in `LANE_BITS` bits.
    waiting: AtomicU64,
    running: AtomicU64,
    overdue: AtomicU64,
    /// 1 once the cache is gone.
    closed: AtomicU8,
}

impl Admission {
    pub(crate) fn gauges(&self) -> Gauges {
        // Relaxed, here and in `Pass`: these counts order nothing.
        let waiting = self.waiting.load(Ordering::Relaxed);
        let [cold, stale, early] = lanes(waiting);
        let gates = self.gates.iter().flatten();
        let breakers = gates.map(|gate| gate.breaker_state());
        Gauges {
            running: self.running.load(Ordering::Relaxed),
            overdue: self.overdue.load(Ordering::Relaxed),
            waiting_cold: cold,
            waiting_stale: stale,
            waiting_early: early,
            breaker: breakers.max().unwrap_or_default(),
        }
    }

    /// Ends the waiting of all loads of a cache that is gone.
    pub(crate) fn close(&self) {
        // Before the lanes are emptied. Their lock orders this store against a load that comes
        // later; see `is_closed`.
        self.closed.store(1, Ordering::Relaxed);
        for gate in self.gates.iter().flatten() {
            gate.close(self.owner());
        }
    }

    /// Whether a load that waits now would be missed by `close`; asked after it was put into its
    /// lane.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed) != 0
    }

    /// A number of this cache among those of a budget.
    pub(crate) fn owner(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }
}

/// The cold, stale and early loads that wait.
fn lanes(waiting: u64) -> [u64; 3] {
    [LoadReason::Cold, LoadReason::Stale, LoadReason::Early]
        .map(|reason| (waiting >> (reason as u32 * LANE_BITS)) & ((1 << LANE_BITS) - 1))
}

/// Counts a load as overdue until it is over, which drops this.
pub(crate) struct CountedOverdue(Arc<Admission>);

impl CountedOverdue {
    pub(crate) fn new(admission: Arc<Admission>) -> Self {
        admission.overdue.fetch_add(1, Ordering::Relaxed);
        CountedOverdue(admission)
    }
}

impl Drop for CountedOverdue {
    fn drop(&mut self) {
        self.0.overdue.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How far a load has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// It has not asked for its start.
    Before,
    Waiting,
    Running,
}

/// The permits of one load, and its part of the counts. Dropped when the load has ended.
pub(crate) struct Pass {
    admission: Arc<Admission>,
    reason: LoadReason,
    phase: Phase,
    is_free: bool,
    /// The number of gates that it has passed.
    passed: usize,
    permits: [Option<Permit>; 2],
}

impl Pass {
    /// The pass of a load that begins on this thread.
    pub(crate) fn new(admission: Arc<Admission>, reason: LoadReason) -> Self {
        Pass {
            admission,
            reason,
            phase: Phase::Before,
            is_free: reason == LoadReason::Cold && is_inside_a_load(),
            passed: 0,
            permits: [None, None],
        }
    }

    /// Takes the permits and the counts of a load, and leaves a pass without any.
    pub(crate) fn take(&mut self) -> Pass {
        let empty = Pass {
            admission: self.admission.clone(),
            reason: self.reason,
            phase: Phase::Before,
            is_free: self.is_free,
            passed: self.passed,
            permits: [None, None],
        };
        std::mem::replace(self, empty)
    }

    fn unit(&self) -> u64 {
        1 << (self.reason as u32 * LANE_BITS)
    }

    /// Counts the load as waiting; false if too many wait.
    pub(crate) fn arrive(&mut self) -> bool {
        self.phase = Phase::Waiting;
        let admission = &self.admission;
        let before = admission.waiting.fetch_add(self.unit(), Ordering::Relaxed);
        let [cold, stale, early] = lanes(before);
        let places = admission.before_the_pool;
        self.is_free || has_room(places, self.reason, cold, stale + early)
    }

    /// Counts the load as running, unless the breaker has opened since it got its permit.
    pub(crate) fn begin(&mut self) -> Result<(), Refusal> {
        for permit in self.permits.iter_mut().flatten() {
            permit.begin()?;
        }
        self.leave();
        self.phase = Phase::Running;
        self.admission.running.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn leave(&mut self) {
        let admission = &self.admission;
        match self.phase {
            Phase::Before => {}
            Phase::Waiting => {
                admission.waiting.fetch_sub(self.unit(), Ordering::Relaxed);
            }
            Phase::Running => {
                admission.running.fetch_sub(1, Ordering::Relaxed);
            }
        }
        self.phase = Phase::Before;
    }

    /// Passes the gates that have a free permit. Returns the next one, at which the load has to
    /// ask; `None` after the last one.
    pub(crate) fn next_gate(&mut self) -> Option<Arc<Gate>> {
        while let Some(gate) = self.admission.gates.get(self.passed) {
            match gate {
                Some(gate) if self.is_free && !gate.ignores_free_loads() => {
                    return Some(gate.clone());
                }
                Some(gate) if !self.is_free => match gate.try_enter() {
                    Some(permit) => self.hold(permit),
                    None => return Some(gate.clone()),
                },
                _ => self.passed += 1,
            }
        }
        None
    }

    /// Passes the gate with this permit.
    pub(crate) fn hold(&mut self, permit: Permit) {
        if let Some(place) = self.permits.get_mut(self.passed) {
            *place = Some(permit);
        }
        self.passed += 1;
    }

    /// The load needs no further permit.
    pub(crate) fn free(&mut self) {
        self.is_free = true;
    }

    pub(crate) fn is_free(&self) -> bool {
        self.is_free
    }

    pub(crate) fn admission(&self) -> &Arc<Admission> {
        &self.admission
    }

    /// Gives back the place in the queue that the load had while it waited for a permit.
    pub(crate) fn leave_queue(&self) {
        if !self.is_free {
            self.admission.queue.leave(self.reason);
        }
    }

    /// The load ended with an answer of the origin, or failed. It no longer counts as running.
    /// For `failed` see [`Permit::ended`]; `changed` gets each new state of a breaker.
    pub(crate) fn ended(&mut self, failed: Option<bool>, changed: impl Fn(BreakerState)) {
        self.leave();
        for permit in self.permits.iter_mut().flatten() {
            if let Some(state) = permit.ended(failed) {
                changed(state);
            }
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.leave();
    }
}
