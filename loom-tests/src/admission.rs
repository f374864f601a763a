//! Gates: permits that are handed on, loads that wait, and breakers.

use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::Duration;

use everfresh::model::{
    Ask, AtomicUsize, Entered, Gate, GateLimits, Help, LoadReason, Permit, Queue, Queued, Refusal,
    Waiter, Waiting, all_on_worker,
};
use everfresh::{Breaker, Clock, ManualClock};
use loom::thread::spawn;

use crate::Threads::{Three, Two};
use crate::run_model;

/// The loads of a model.
#[derive(Default)]
struct Loads {
    /// Those that hold a permit.
    inside: AtomicUsize,
    started: AtomicUsize,
    refused: AtomicUsize,
}

impl Loads {
    fn run(&self, mut permit: Permit) {
        let before = self.inside.fetch_add(1, Relaxed);
        assert_eq!(before, 0, "more loads run than there are permits");
        self.started.fetch_add(1, Relaxed);
        self.inside.fetch_sub(1, Relaxed);
        // Otherwise its start would belong to the next load.
        let _ = permit.begin();
        drop(permit);
    }

    fn assert_started(&self, number: usize) {
        let started = self.started.fetch_add(0, Relaxed);
        assert_eq!(started, number, "a load did not start, or started twice");
    }
}

/// A load that ends as soon as it has started.
struct Load(Arc<Loads>);

impl Waiting for Load {
    fn admitted(self, permit: Permit, _: &Queued<Self>) {
        self.0.run(permit);
    }

    fn helped(self, _: &Queued<Self>) {
        self.0.started.fetch_add(1, Relaxed);
    }

    fn refused(self, _: Refusal) {
        self.0.refused.fetch_add(1, Relaxed);
    }
}

fn gate(clock: &ManualClock) -> Arc<Gate> {
    let limits = GateLimits {
        loads: Some(1),
        ..GateLimits::default()
    };
    Gate::new(&limits, Clock::from(clock))
}

fn ask(reason: LoadReason, queue: &Queue) -> Ask<'_> {
    Ask {
        reason,
        free: false,
        time_left: 0,
        queue,
    }
}

/// A load asks for its permit as the engine does. Returns it if it waits.
fn arrive(gate: &Arc<Gate>, loads: &Arc<Loads>, reason: LoadReason) -> Option<Arc<Queued<Load>>> {
    if let Some(permit) = gate.try_enter() {
        loads.run(permit);
        return None;
    }
    let queue = Queue::new(9);
    let queued = Queued::new(Load(loads.clone()), gate, reason, false, 0);
    let waiter: Arc<dyn Waiter> = queued.clone();
    match gate.enter(ask(reason, &queue), &waiter) {
        Entered::Yes(permit) => {
            let load = queued.take().expect("no other thread has seen it");
            load.admitted(permit, &queued);
            None
        }
        Entered::Waits => Some(queued),
        Entered::Refused(_) => {
            loads.refused.fetch_add(1, Relaxed);
            None
        }
    }
}

/// The gate is as at the start: its permit is free, and a load takes it without the lock.
fn assert_free(gate: &Arc<Gate>) {
    let permit = gate.try_enter();
    assert!(permit.is_some(), "a permit is lost, or the gate stays slow");
}

/// P3: the last permit comes back while a load starts to wait for it.
#[test]
fn the_last_permit_against_a_load_that_starts_to_wait() {
    run_model(Two, || {
        let (gate, loads) = (gate(&ManualClock::new()), Arc::<Loads>::default());
        let permit = gate.try_enter().expect("it is free");
        let ends = spawn(move || drop(permit));
        arrive(&gate, &loads, LoadReason::Cold);
        ends.join().unwrap();
        loads.assert_started(1);
        assert_free(&gate);
    });
}

/// P3: two loads ask for one permit at once. Both run, one after the other.
#[test]
fn two_arrivals_for_one_permit() {
    run_model(Two, || {
        let (gate, loads) = (gate(&ManualClock::new()), Arc::<Loads>::default());
        let other = spawn({
            let (gate, loads) = (gate.clone(), loads.clone());
            move || drop(arrive(&gate, &loads, LoadReason::Cold))
        });
        arrive(&gate, &loads, LoadReason::Stale);
        other.join().unwrap();
        loads.assert_started(2);
        assert_free(&gate);
    });
}

/// P3: a permit is handed on to a load that waits while another load arrives. The limit holds, and
/// both run.
#[test]
fn a_permit_handed_on_against_an_arrival() {
    run_model(Three, || {
        let (gate, loads) = (gate(&ManualClock::new()), Arc::<Loads>::default());
        let permit = gate.try_enter().expect("it is free");
        let waits = arrive(&gate, &loads, LoadReason::Stale);
        assert!(waits.is_some(), "the permit is taken");
        let ends = spawn(move || drop(permit));
        let arrives = spawn({
            let (gate, loads) = (gate.clone(), loads.clone());
            move || drop(arrive(&gate, &loads, LoadReason::Stale))
        });
        ends.join().unwrap();
        arrives.join().unwrap();
        loads.assert_started(2);
        assert_free(&gate);
    });
}

/// A load that runs until the model ends it.
struct Running {
    loads: Arc<Loads>,
    permits: Arc<std::sync::Mutex<Vec<Permit>>>,
}

impl Waiting for Running {
    fn admitted(self, permit: Permit, _: &Queued<Self>) {
        self.loads.started.fetch_add(1, Relaxed);
        self.permits.lock().unwrap().push(permit);
    }

    fn helped(self, _: &Queued<Self>) {}

    fn refused(self, _: Refusal) {}
}

/// P3: of two loads that wait, one gets the permit while another load arrives. Each starts when the
/// one before it has ended.
#[test]
fn loads_that_wait_start_one_after_the_other() {
    run_model(Two, || {
        let (gate, loads) = (gate(&ManualClock::new()), Arc::<Loads>::default());
        let (permits, queue) = (Arc::default(), Queue::new(9));
        let permit = gate.try_enter().expect("it is free");
        for _ in 0..2 {
            let running = Running {
                loads: loads.clone(),
                permits: Arc::clone(&permits),
            };
            let waiter: Arc<dyn Waiter> = Queued::new(running, &gate, LoadReason::Cold, false, 0);
            let entered = gate.enter(ask(LoadReason::Cold, &queue), &waiter);
            assert!(matches!(entered, Entered::Waits));
        }
        let ends = spawn(move || drop(permit));
        arrive(&gate, &loads, LoadReason::Stale);
        ends.join().unwrap();
        for started in 1..3 {
            loads.assert_started(started);
            let ended = permits.lock().unwrap().pop();
            drop(ended.expect("a load did not start, or started twice"));
        }
        loads.assert_started(3);
        assert_free(&gate);
    });
}

/// A load that arrives never overtakes one of its class that waits.
#[test]
fn an_arrival_does_not_overtake_a_load_that_waits() {
    run_model(Two, || {
        let (gate, loads) = (gate(&ManualClock::new()), Arc::<Loads>::default());
        let permit = gate.try_enter().expect("it is free");
        let waits = arrive(&gate, &loads, LoadReason::Stale);
        assert!(waits.is_some(), "the permit is taken");
        let ends = spawn(move || drop(permit));
        if let Some(taken) = gate.try_enter() {
            // Then the load that waited has had the permit already.
            let started = loads.started.fetch_add(0, Relaxed);
            assert_eq!(started, 1, "an arrival overtook a load that waits");
            drop(taken);
        }
        ends.join().unwrap();
        loads.assert_started(1);
    });
}

/// P3: a load that waits for its permit is needed by another load, which starts it at once. It
/// starts once, and the permit is free in the end.
#[test]
fn a_helped_load_against_its_permit() {
    run_model(Two, || {
        all_on_worker();
        let (gate, loads) = (gate(&ManualClock::new()), Arc::<Loads>::default());
        let permit = gate.try_enter().expect("it is free");
        let waits = arrive(&gate, &loads, LoadReason::Cold).expect("the permit is taken");
        let ends = spawn(move || drop(permit));
        waits.help();
        ends.join().unwrap();
        loads.assert_started(1);
        assert_free(&gate);
    });
}

/// P3: a refresh is made urgent while it gets its permit. Its old place keeps no permit.
#[test]
fn a_promoted_load_against_its_permit() {
    run_model(Two, || {
        let (gate, loads) = (gate(&ManualClock::new()), Arc::<Loads>::default());
        let permit = gate.try_enter().expect("it is free");
        let waits = arrive(&gate, &loads, LoadReason::Stale).expect("the permit is taken");
        let ends = spawn(move || drop(permit));
        waits.promote();
        ends.join().unwrap();
        loads.assert_started(1);
        assert_free(&gate);
    });
}

/// A load that notes when it starts, and ends at once.
struct Noted {
    number: usize,
    order: Arc<std::sync::Mutex<Vec<usize>>>,
}

impl Waiting for Noted {
    fn admitted(self, permit: Permit, _: &Queued<Self>) {
        self.order.lock().unwrap().push(self.number);
        drop(permit);
    }

    fn helped(self, _: &Queued<Self>) {}

    fn refused(self, _: Refusal) {}
}

/// Of two refreshes that wait, the later one is made urgent while a permit comes back. It goes
/// first unless the permit was there before.
#[test]
fn a_promotion_against_a_permit_for_an_earlier_load() {
    run_model(Two, || {
        let gate = gate(&ManualClock::new());
        let (order, queue) = (Arc::<std::sync::Mutex<Vec<_>>>::default(), Queue::new(9));
        let permit = gate.try_enter().expect("it is free");
        let [_, later] = [1, 2].map(|number| {
            let order = order.clone();
            let noted = Noted { number, order };
            let queued = Queued::new(noted, &gate, LoadReason::Stale, false, 0);
            let waiter: Arc<dyn Waiter> = queued.clone();
            let entered = gate.enter(ask(LoadReason::Stale, &queue), &waiter);
            assert!(matches!(entered, Entered::Waits));
            queued
        });
        let promoted = Arc::new(AtomicUsize::new(0));
        let ends = spawn({
            let promoted = promoted.clone();
            move || {
                let was_promoted = promoted.load(Acquire) == 1;
                drop(permit);
                was_promoted
            }
        });
        later.promote();
        promoted.store(1, Release);
        let was_promoted = ends.join().unwrap();
        let order = order.lock().unwrap().clone();
        match was_promoted {
            true => assert_eq!(order, [2, 1], "a stale load goes before a cold one"),
            false => assert_eq!(order.len(), 2, "a load did not start, or started twice"),
        }
        assert_free(&gate);
    });
}

/// A cache is dropped while a load of it gets its permit. The load ends once, and the permit is
/// free.
#[test]
fn a_closed_cache_against_a_permit() {
    run_model(Two, || {
        let (gate, loads) = (gate(&ManualClock::new()), Arc::<Loads>::default());
        let permit = gate.try_enter().expect("it is free");
        let waits = arrive(&gate, &loads, LoadReason::Cold);
        assert!(waits.is_some(), "the permit is taken");
        let ends = spawn(move || drop(permit));
        gate.close(0);
        ends.join().unwrap();
        let ended = loads.started.fetch_add(0, Relaxed) + loads.refused.fetch_add(0, Relaxed);
        assert_eq!(ended, 1, "a load has no end, or two");
        assert_free(&gate);
    });
}

const PROBE_EVERY: Duration = Duration::from_secs(5);

/// A gate whose breaker is open, and the next probe due.
fn broken(clock: &ManualClock) -> Arc<Gate> {
    let limits = GateLimits {
        breaker: Some(Breaker::new().of_last(1).probe_every(PROBE_EVERY)),
        ..GateLimits::default()
    };
    let gate = Gate::new(&limits, Clock::from(clock));
    let queue = Queue::new(9);
    let mut permit = admitted(&gate, &queue).expect("the breaker is closed");
    permit.ended(Some(true));
    drop(permit);
    assert!(admitted(&gate, &queue).is_none(), "the breaker is open");
    clock.advance(PROBE_EVERY);
    gate
}

fn admitted(gate: &Arc<Gate>, queue: &Queue) -> Option<Permit> {
    let load = Load(Arc::default());
    let waiter: Arc<dyn Waiter> = Queued::new(load, gate, LoadReason::Cold, false, 0);
    match gate.enter(ask(LoadReason::Cold, queue), &waiter) {
        Entered::Yes(permit) => Some(permit),
        Entered::Waits => unreachable!("no limit on loads"),
        Entered::Refused(_) => None,
    }
}

/// Of two callers that come when the probe is due, one is the probe and the other is refused.
#[test]
fn a_probe_against_two_callers() {
    run_model(Two, || {
        let gate = broken(&ManualClock::new());
        let other = spawn({
            let gate = gate.clone();
            move || admitted(&gate, &Queue::new(9))
        });
        let ours = admitted(&gate, &Queue::new(9));
        let other = other.join().unwrap();
        let probes = [&ours, &other];
        let probes = probes.iter().filter(|probe| probe.is_some()).count();
        assert_eq!(probes, 1, "two loads probe at once, or none");
    });
}

/// A probe succeeds while another caller asks: it is refused, or finds the breaker closed.
#[test]
fn the_end_of_a_probe_against_a_caller() {
    run_model(Two, || {
        let gate = broken(&ManualClock::new());
        let mut probe = admitted(&gate, &Queue::new(9)).expect("it is due");
        assert!(probe.is_probe());
        let ends = spawn(move || {
            probe.ended(Some(false));
        });
        if let Some(mut permit) = admitted(&gate, &Queue::new(9)) {
            assert!(!permit.is_probe(), "a second probe beside the first");
            assert!(permit.begin().is_ok(), "the breaker opened again");
        }
        ends.join().unwrap();
        assert!(admitted(&gate, &Queue::new(9)).is_some());
    });
}

/// Two loads come at once, and the rate allows one start. The other load waits for the next one.
#[test]
fn two_arrivals_for_one_start() {
    run_model(Two, || {
        let clock = ManualClock::new();
        let limits = GateLimits {
            per_second: Some(1),
            ..GateLimits::default()
        };
        let gate = Gate::new(&limits, Clock::from(&clock));
        let loads = Arc::<Loads>::default();
        let starts = {
            let (gate, loads) = (gate.clone(), loads.clone());
            move || {
                let load = Load(loads.clone());
                let waiter: Arc<dyn Waiter> = Queued::new(load, &gate, LoadReason::Cold, false, 0);
                let entered = gate.enter(ask(LoadReason::Cold, &Queue::new(9)), &waiter);
                // Otherwise its start would belong to the next load.
                match entered {
                    Entered::Yes(mut permit) => permit.begin().is_ok(),
                    _ => false,
                }
            }
        };
        let other = spawn(starts.clone());
        let ours = starts();
        let other = other.join().unwrap();
        assert!(ours != other, "more loads start than the rate allows");
        clock.advance(Duration::from_secs(1));
        loads.assert_started(1);
    });
}

/// P3: a load waits for the rate while the clock moves over its start.
#[test]
fn a_load_that_waits_for_its_start_against_the_clock() {
    run_model(Two, || {
        let clock = ManualClock::new();
        let limits = GateLimits {
            per_second: Some(1),
            ..GateLimits::default()
        };
        let (gate, loads) = (
            Gate::new(&limits, Clock::from(&clock)),
            Arc::<Loads>::default(),
        );
        assert!(arrive(&gate, &loads, LoadReason::Cold).is_none());
        let moves = spawn({
            let clock = clock.clone();
            move || clock.advance(Duration::from_secs(1))
        });
        arrive(&gate, &loads, LoadReason::Cold);
        moves.join().unwrap();
        loads.assert_started(2);
    });
}
