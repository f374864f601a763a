//! A gate: how many loads run at once, how many start in a second, and none while the origin is
//! down.
//!
//! A load that may not start yet waits in one of three lanes. A permit that is given back goes to
//! the most urgent waiting load, first come, first served.
//!
//! While no load waits, a permit is one compare-and-swap on a word that counts the loads inside.
//! The lock is taken only while a load waits, or by a gate with a rate or a breaker. A bit of the
//! word, `SLOW`, says so. It changes only under the lock.
//!
//! Invariants, and the race that each survives:
//!
//! 1. While `SLOW` is set, only the holder of the lock takes permits. So a new arrival never
//!    overtakes a load that waits (a permit handed on against an arrival).
//! 2. A load that waits sets `SLOW` before it looks for a free permit, and a load that ends gives
//!    its permit back before it looks for `SLOW`, both by one exchange of the same word. So either
//!    the arrival sees the free permit, or the load that ends sees that it must hand it on (the
//!    last permit against a load that starts to wait; P3).
//! 3. A permit belongs to a guard, whose drop gives it back. A load that was taken out of its lane
//!    by another thread leaves its place there; the permit that reaches the place is handed on (a
//!    helped load against its permit).
//! 4. The breaker is asked and becomes half-open under one lock, so of two callers one is the
//!    probe.
//! 5. No load starts, ends or is refused under the lock, because all of that runs user code.
//! 6. A load that starts here may also end here, on the same stack, and give its permit back. Then
//!    the loop below on this stack hands that permit on, so the stack does not grow with the lane.

use std::cell::RefCell;
use std::collections::VecDeque;

use crate::load::admission::ask::{Ask, Lane, Refusal};
use crate::load::admission::breaker::{Breaker, Circuit, Verdict};
use crate::load::admission::pace::Pace;
use crate::observe::breaker_state::BreakerState;
use crate::observe::reason::LoadReason;
use crate::panics::isolated;
use crate::sync::{Arc, AtomicUsize, Mutex, Ordering, Weak, lock, thread_local};
use crate::time::alarm::{self, Sleeper};
use crate::time::clock::{Clock, Tick};

/// Set while the lock has to be taken. The rest of the word counts the loads inside.
const SLOW: usize = 1 << (usize::BITS - 1);

const LANES: usize = 3;

/// The answer of a gate.
pub enum Entered {
    Yes(Permit),
    /// The load was put into a lane. The gate calls it.
    Waits,
    Refused(Refusal),
}

/// A load that waits. Another thread may start it meanwhile; then it ignores the call, and a permit
/// is dropped.
pub trait Waiter: Send + Sync {
    fn admit(&self, permit: Permit);
    fn refuse(&self, refusal: Refusal);
    /// A number of the cache to which the load belongs.
    fn owner(&self) -> usize;
}

pub struct Gate {
    /// The loads inside, and `SLOW`.
    word: AtomicUsize,
    limit: usize,
    /// Whether it has a rate or a breaker, and so always takes the lock.
    is_timed: bool,
    has_rate: bool,
    has_breaker: bool,
    state: Mutex<GateState>,
    clock: Clock,
    this: Weak<Gate>,
}

struct GateState {
    lanes: [VecDeque<Arc<dyn Waiter>>; LANES],
    /// Whether `SLOW` is set.
    is_slow: bool,
    pace: Option<Pace>,
    circuit: Option<Circuit>,
    /// The earliest alarm that is set and has not rung.
    alarm: Tick,
}

/// The settings of a gate.
#[derive(Clone, Default)]
pub struct GateLimits {
    pub loads: Option<usize>,
    pub per_second: Option<u32>,
    pub breaker: Option<Breaker>,
}

thread_local! {
    // The gates at which this thread hands on permits after the load that it is starting; `None`
    // while it hands nothing on.
    static HANDING_ON: RefCell<Option<Vec<Arc<Gate>>>> = const { RefCell::new(None) };
}

/// The next step of a thread that hands permits on.
enum Next {
    Admit(Arc<dyn Waiter>, Permit),
    Refuse(Arc<dyn Waiter>, Refusal),
    Done { alarm: Option<Tick> },
}

impl GateState {
    fn verdict(&self, lane: Lane, now: Tick) -> Verdict {
        let circuit = self.circuit.as_ref();
        let is_inner = lane == Lane::Free;
        circuit.map_or(Verdict::Yes, |circuit| circuit.verdict(is_inner, now))
    }

    fn ended(&mut self, probe: Option<u64>, failed: bool, now: Tick) -> Option<BreakerState> {
        let circuit = self.circuit.as_mut()?;
        circuit.ended(probe, failed, now)
    }

    fn is_empty(&self) -> bool {
        self.lanes.iter().all(VecDeque::is_empty)
    }

    /// The alarm that has to be set so that a load that waits for the rate is started.
    fn alarm_to_set(&mut self, now: Tick) -> Option<Tick> {
        let at = self.pace.as_ref()?.ready_at();
        let is_earlier = now < at && at < self.alarm;
        is_earlier.then(|| {
            self.alarm = at;
            at
        })
    }
}

impl Gate {
    pub fn new(limits: &GateLimits, clock: Clock) -> Arc<Self> {
        let is_timed = limits.per_second.is_some() || limits.breaker.is_some();
        Arc::new_cyclic(|this| Gate {
            word: AtomicUsize::new(if is_timed { SLOW } else { 0 }),
            limit: limits.loads.unwrap_or(SLOW - 1),
            is_timed,
            has_rate: limits.per_second.is_some(),
            has_breaker: limits.breaker.is_some(),
            state: Mutex::new(GateState {
                lanes: std::array::from_fn(|_| VecDeque::new()),
                is_slow: is_timed,
                pace: limits.per_second.map(Pace::new),
                circuit: limits.breaker.as_ref().map(Circuit::new),
                alarm: Tick::MAX,
            }),
            clock,
            this: this.clone(),
        })
    }

    /// Whether a load that takes no permit passes without asking.
    pub fn ignores_free_loads(&self) -> bool {
        !self.is_timed
    }

    pub fn breaker_state(&self) -> BreakerState {
        match self.has_breaker {
            true => lock(&self.state)
                .circuit
                .as_ref()
                .map_or_else(BreakerState::default, Circuit::state),
            false => BreakerState::Closed,
        }
    }

    /// Takes a permit if one is free and no load waits.
    pub fn try_enter(self: &Arc<Self>) -> Option<Permit> {
        // Relaxed: the word only counts. The limit holds because all changes of one word have one
        // order.
        let mut word = self.word.load(Ordering::Relaxed);
        // With `SLOW` the word is above every limit.
        while word < self.limit {
            let exchanged =
                self.word
                    .compare_exchange(word, word + 1, Ordering::Relaxed, Ordering::Relaxed);
            match exchanged {
                Ok(_) => return Some(self.permit(true, None)),
                Err(changed) => word = changed,
            }
        }
        None
    }

    /// Enters, is refused, or waits: then the gate calls `waiter` later.
    pub fn enter(self: &Arc<Self>, ask: Ask<'_>, waiter: &Arc<dyn Waiter>) -> Entered {
        let (entered, alarm) = self.decide(ask, waiter);
        // After the load was put into its lane, so that the alarm finds it. Without the lock,
        // because a clock may ring at once.
        self.set_alarm(alarm);
        entered
    }

    fn decide(self: &Arc<Self>, ask: Ask<'_>, waiter: &Arc<dyn Waiter>) -> (Entered, Option<Tick>) {
        let mut state = lock(&self.state);
        let (now, lane) = (self.now(), ask.lane());
        let verdict = state.verdict(lane, now);
        if let Verdict::No(left) = verdict {
            return (Entered::Refused(Refusal::Unavailable(left)), None);
        }
        self.slow_down(&mut state);
        let mut ahead = state.lanes[..=lane as usize].iter();
        let is_first = ahead.all(VecDeque::is_empty);
        let entered = if is_first && self.take(&mut state, lane, now) {
            let probe = (state.circuit.as_mut())
                .filter(|_| verdict == Verdict::Probe)
                .map(|circuit| circuit.probe(now, ask.time_left));
            Entered::Yes(self.permit(lane != Lane::Free, probe))
        } else if verdict == Verdict::Probe {
            // A later caller is the probe. Nothing waits while the breaker is open.
            Entered::Refused(Refusal::Unavailable(0))
        } else if ask.reason == LoadReason::Early || !(ask.free || ask.queue.take(ask.reason)) {
            Entered::Refused(Refusal::Busy)
        } else {
            state.lanes[lane as usize].push_back(waiter.clone());
            let alarm = state.alarm_to_set(now);
            return (Entered::Waits, alarm);
        };
        self.speed_up(&mut state);
        (entered, None)
    }

    /// Takes a permit and a start, if both are free; the lock is held.
    fn take(&self, state: &mut GateState, lane: Lane, now: Tick) -> bool {
        let is_counted = lane != Lane::Free;
        // Relaxed, and in two steps: while `SLOW` is set only the holder of the lock adds.
        if is_counted && self.word.load(Ordering::Relaxed) & !SLOW >= self.limit {
            return false;
        }
        if let Some(pace) = &mut state.pace {
            if now < pace.ready_at() {
                return false;
            }
            pace.start(now);
        }
        if is_counted {
            self.word.fetch_add(1, Ordering::Relaxed);
        }
        true
    }

    fn permit(self: &Arc<Self>, is_counted: bool, probe: Option<u64>) -> Permit {
        Permit {
            gate: self.clone(),
            is_counted,
            has_start: self.has_rate,
            probe,
        }
    }

    /// From here on each load that ends takes the lock, and so does each arrival.
    fn slow_down(&self, state: &mut GateState) {
        if !state.is_slow {
            state.is_slow = true;
            self.word.fetch_add(SLOW, Ordering::Relaxed);
        }
    }

    fn speed_up(&self, state: &mut GateState) {
        if state.is_slow && !self.is_timed && state.is_empty() {
            state.is_slow = false;
            self.word.fetch_sub(SLOW, Ordering::Relaxed);
        }
    }

    /// The time, of a gate for which it matters.
    fn now(&self) -> Tick {
        match self.is_timed {
            true => self.clock.now(),
            false => 0,
        }
    }

    fn set_alarm(&self, at: Option<Tick>) {
        if let Some(at) = at {
            let sleeper: Weak<dyn Sleeper> = self.this.clone();
            self.clock.wake_at(alarm::process(), at, sleeper);
        }
    }

    /// Lets a load that waits as stale wait as cold, because a caller waits for it now.
    pub fn promote(self: &Arc<Self>, waiter: Arc<dyn Waiter>) {
        {
            let mut state = lock(&self.state);
            // If nothing waits, it has left its lane.
            if state.is_empty() {
                return;
            }
            state.lanes[Lane::Cold as usize].push_back(waiter);
        }
        // The load may have left its lane meanwhile, and then no permit need be on its way.
        self.hand_on();
    }

    /// Ends the waiting of all loads of a cache.
    pub fn close(&self, owner: usize) {
        let mut left = Vec::new();
        {
            let mut state = lock(&self.state);
            for lane in &mut state.lanes {
                let (ours, others) = std::mem::take(lane)
                    .into_iter()
                    .partition(|waiter| waiter.owner() == owner);
                *lane = others;
                let ours: VecDeque<_> = ours;
                left.extend(ours);
            }
            self.speed_up(&mut state);
        }
        for waiter in left {
            isolated(|| waiter.refuse(Refusal::Closed));
        }
    }

    /// Starts the loads that wait, as far as permits are free.
    fn hand_on(self: &Arc<Self>) {
        // Thread-locals may be gone in a destructor of another one. Then a permit that comes back
        // meanwhile is handed on one level deeper.
        let begun = HANDING_ON.try_with(|gates| match &mut *gates.borrow_mut() {
            Some(gates) => {
                if !gates.iter().any(|gate| Arc::ptr_eq(gate, self)) {
                    gates.push(self.clone());
                }
                false
            }
            none => {
                *none = Some(Vec::new());
                true
            }
        });
        if matches!(begun, Ok(false)) {
            return;
        }
        let mut next = Some(self.clone());
        while let Some(gate) = next {
            gate.start_waiting();
            let later = HANDING_ON.try_with(|gates| gates.borrow_mut().as_mut()?.pop());
            next = later.ok().flatten();
        }
        let _ = HANDING_ON.try_with(|gates| gates.borrow_mut().take());
    }

    fn start_waiting(self: &Arc<Self>) {
        loop {
            match self.next() {
                // A panic of one spawner must not keep the other loads from starting.
                Next::Admit(waiter, permit) => isolated(|| waiter.admit(permit)),
                Next::Refuse(waiter, refusal) => isolated(|| waiter.refuse(refusal)),
                Next::Done { alarm } => return self.set_alarm(alarm),
            }
        }
    }

    fn next(self: &Arc<Self>) -> Next {
        let mut state = lock(&self.state);
        let now = self.now();
        let lanes = [Lane::Free, Lane::Cold, Lane::Stale];
        let Some(lane) = (lanes.into_iter()).find(|lane| !state.lanes[*lane as usize].is_empty())
        else {
            self.speed_up(&mut state);
            return Next::Done { alarm: None };
        };
        let left = match state.verdict(lane, now) {
            Verdict::Yes => None,
            Verdict::Probe => Some(0),
            Verdict::No(left) => Some(left),
        };
        if left.is_none() && !self.take(&mut state, lane, now) {
            let alarm = state.alarm_to_set(now);
            return Next::Done { alarm };
        }
        let Some(waiter) = state.lanes[lane as usize].pop_front() else {
            unreachable!("the lane is not empty")
        };
        self.speed_up(&mut state);
        match left {
            Some(left) => Next::Refuse(waiter, Refusal::Unavailable(left)),
            None => Next::Admit(waiter, self.permit(lane != Lane::Free, None)),
        }
    }

    fn ended(&self, probe: Option<u64>, failed: bool) -> Option<BreakerState> {
        let mut state = lock(&self.state);
        let now = self.now();
        state.ended(probe, failed, now)
    }

    fn undecided(&self, probe: u64) -> Option<BreakerState> {
        let mut state = lock(&self.state);
        let now = self.now();
        state.circuit.as_mut()?.undecided(probe, now)
    }
}

impl Sleeper for Gate {
    /// The rate allows another start.
    fn wake(&self) {
        lock(&self.state).alarm = Tick::MAX;
        if let Some(gate) = self.this.upgrade() {
            gate.hand_on();
        }
    }
}

/// The right of one load to run, given back when it is dropped.
pub struct Permit {
    gate: Arc<Gate>,
    is_counted: bool,
    /// Whether a start of the rate belongs to it, which no load has used.
    has_start: bool,
    /// The number of this load as a probe, until it has ended.
    probe: Option<u64>,
}

impl Permit {
    pub fn is_probe(&self) -> bool {
        self.probe.is_some()
    }

    /// The load starts, unless the breaker has opened since the load got its permit.
    pub fn begin(&mut self) -> Result<(), Refusal> {
        if self.gate.has_breaker && !self.is_probe() {
            let lane = match self.is_counted {
                true => Lane::Cold,
                false => Lane::Free,
            };
            match lock(&self.gate.state).verdict(lane, self.gate.now()) {
                Verdict::Yes => {}
                Verdict::Probe => return Err(Refusal::Unavailable(0)),
                Verdict::No(left) => return Err(Refusal::Unavailable(left)),
            }
        }
        self.has_start = false;
        Ok(())
    }

    /// The load ended; the breaker counts it, unless its end says nothing about the origin, which
    /// is `None`. Returns the new state of the breaker if it changed.
    pub fn ended(&mut self, failed: Option<bool>) -> Option<BreakerState> {
        if !self.gate.has_breaker {
            return None;
        }
        let changed = match (failed, self.probe.take()) {
            (Some(failed), probe) => self.gate.ended(probe, failed),
            (None, Some(probe)) => self.gate.undecided(probe),
            (None, None) => None,
        };
        if changed == Some(BreakerState::Open) {
            // The loads that wait are refused now, not when a permit is free.
            self.gate.hand_on();
        }
        changed
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(probe) = self.probe.take() {
            // It was dropped without an answer of the origin.
            self.gate.ended(Some(probe), true);
        }
        if self.has_start {
            // For another load: this one was not wanted, or another thread had taken it.
            if let Some(pace) = &mut lock(&self.gate.state).pace {
                pace.give_back();
            }
        }
        // Given back before the bit is looked at, in one exchange; see the invariants.
        let is_slow = self.is_counted && self.gate.word.fetch_sub(1, Ordering::Relaxed) & SLOW != 0;
        if is_slow || self.has_start {
            self.gate.hand_on();
        }
    }
}
