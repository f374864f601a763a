//! How a cache starts its loads: through the gates, then on the pool or on a runtime.

use std::hash::Hash;
use std::task::{Context, Poll, Waker};

use crate::error::Error;
use crate::load::admission::ask::{Ask, Refusal};
use crate::load::admission::gate::{Entered, Gate, Permit, Waiter};
use crate::load::admission::queued::{Queued, Waiting};
use crate::load::call::{ByCall, CallFn};
use crate::load::job::Job;
use crate::load::loader::{Load, Request, Returned};
use crate::load::pool::Task;
use crate::load::pool_builder::Place;
use crate::load::runtime::Home;
use crate::load::stack::run_here;
use crate::observe::breaker_state::BreakerState;
use crate::observe::trace;
use crate::panics::isolated;
use crate::protocol::flight::{Flight, Help};
use crate::protocol::publish::Answer;
use crate::protocol::wait_graph::WaitNode;
use crate::sync::future::BoxFuture;
use crate::sync::{Arc, StrongArc, Weak};

/// How a loader runs jobs.
pub(crate) type RunJob<K, V> = Box<dyn Fn(Job<K, V>) + Send + Sync>;

/// A job that was started, if a worker that waits for it can run it.
type Started<K, V> = Option<(StrongArc<Flight<K, V>>, Arc<dyn Help>)>;

/// Starts a job that was admitted.
type Start<K, V> = dyn Fn(Job<K, V>) -> Started<K, V> + Send + Sync;

/// Where the loads of a cache run: those of its loader, and those of functions that callers bring.
pub(crate) struct Places {
    pub(crate) pool: Place,
    pub(crate) home: Arc<Home>,
}

impl Places {
    /// Starts a job that runs the function of its caller.
    fn start_by_call<K, V>(&self, job: Job<K, V>, call: Arc<CallFn<V>>) -> Started<K, V>
    where
        K: Hash + Eq + Clone + Send + Sync + 'static,
        V: Send + Sync + 'static,
    {
        match call.waits() {
            true => {
                on_runtime(&self.home, job, &Arc::new(ByCall(call)));
                None
            }
            false => on_pool(&self.pool, job, &Arc::new(move |_: &_| call.computed())),
        }
    }
}

/// No loader: every load runs the function of its caller.
pub(crate) fn by_calls<K, V>(places: Places) -> RunJob<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    through_the_gates(places, |_, job: Job<K, V>| {
        // The caller had no function. It joined a load that had one, and took it over.
        job.postpone(Error::without_loader());
        None
    })
}

/// A loader for CPU-bound work, on the pool.
pub(crate) fn computing<K, V>(
    places: Places,
    f: impl Fn(&Request<K, V>) -> Returned<V> + Send + Sync + 'static,
) -> RunJob<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    let f = Arc::new(f);
    through_the_gates(places, move |places, job: Job<K, V>| {
        on_pool(&places.pool, job, &f)
    })
}

/// Queues a job on the pool, or runs it on the thread of its caller.
fn on_pool<K, V, F>(place: &Place, job: Job<K, V>, f: &Arc<F>) -> Started<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
    F: Fn(&Request<K, V>) -> Returned<V> + Send + Sync + 'static,
{
    if job.begins_here {
        on_caller(job, &**f);
        return None;
    }
    let pool = match place.workers() {
        Ok(pool) => pool,
        Err(error) => {
            job.not_started(error);
            return None;
        }
    };
    let reason = job.reason;
    if !pool.admits(reason) {
        job.shed();
        return None;
    }
    let (f, flight) = (f.clone(), job.claim.flight().clone());
    // Weak, because the pool holds its queued tasks.
    let workers = Arc::downgrade(pool);
    let task = Arc::new(Task::new(move || {
        job.compute(|request| f(request), workers);
    }));
    let help = pool.help(reason, task.clone());
    pool.queue(reason, task);
    Some((flight, help))
}

/// Runs a job on the thread of the caller that waits for it.
fn on_caller<K, V>(job: Job<K, V>, f: &(impl Fn(&Request<K, V>) -> Returned<V> + Sync))
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    // The caller begins to wait only after the load has ended, so its edge is added here. It closes
    // no cycle, because the load has not waited for anything.
    let outer = WaitNode::current();
    let _edge = outer.map(|outer| outer.wait_for(job.claim.flight().wait_node()));
    // No worker is lost at the deadline.
    let workers = Weak::new();
    let mut job = Some(job);
    run_here(&mut || {
        if let Some(job) = job.take() {
            isolated(|| job.compute(f, workers.clone()));
        }
    });
}

/// A loader for I/O-bound work, on a runtime.
pub(crate) fn loading<K, V>(places: Places, loader: impl Load<K, V>) -> RunJob<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    let loader = Arc::new(loader);
    through_the_gates(places, move |places, job: Job<K, V>| {
        on_runtime(&places.home, job, &loader);
        None
    })
}

/// Spawns a job on its runtime; polls it first in the task of its caller, if it begins there.
fn on_runtime<K, V>(home: &Home, mut job: Job<K, V>, loader: &Arc<impl Load<K, V>>)
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    let runtime = job.runtime.take();
    if !home.can_spawn(runtime.as_ref()) {
        return job.postpone(Error::without_runtime());
    }
    let begins_here = job.begins_here;
    let mut load: BoxFuture = Box::pin(job.load(loader.clone()));
    if !(begins_here && has_ended_at_once(&mut load)) {
        home.spawn(runtime, load);
    }
}

/// Polls a load in the task of its caller; true if it has ended.
fn has_ended_at_once(load: &mut BoxFuture) -> bool {
    // Needs no waker, because a load that has to wait is spawned, and so polled again at once.
    let mut context = Context::from_waker(Waker::noop());
    let mut polled = Poll::Ready(());
    // After a panic of a user's `Drop` the load has ended too.
    isolated(|| polled = load.as_mut().poll(&mut context));
    polled.is_ready()
}

/// The function of a job's caller comes before the loader of the cache.
fn through_the_gates<K, V>(
    places: Places,
    by_loader: impl Fn(&Places, Job<K, V>) -> Started<K, V> + Send + Sync + 'static,
) -> RunJob<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    let start = move |mut job: Job<K, V>| match job.call.take() {
        Some(call) => places.start_by_call(job, call),
        None => by_loader(&places, job),
    };
    let start: Arc<Start<K, V>> = Arc::new(start);
    Box::new(move |mut job| match job.pass.arrive() {
        true => go_on(&start, job, None),
        false => job.shed(),
    })
}

/// Takes a job through the gates that are left, and starts it. `queued` is its place at the last
/// gate, if it waited there.
fn go_on<K, V>(start: &Arc<Start<K, V>>, mut job: Job<K, V>, queued: Option<&Queued<AtGate<K, V>>>)
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    while let Some(gate) = job.pass.next_gate() {
        match enter(start, &gate, job, queued) {
            Some(entered) => job = entered,
            None => return,
        }
    }
    if let Some((flight, help)) = start(job) {
        helped_by(&flight, help, queued);
    }
}

/// Passes a gate that takes its lock. `None` if the job waits there or has ended.
fn enter<K, V>(
    start: &Arc<Start<K, V>>,
    gate: &Arc<Gate>,
    job: Job<K, V>,
    queued: Option<&Queued<AtGate<K, V>>>,
) -> Option<Job<K, V>>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    let flight = job.claim.flight().clone();
    let admission = job.pass.admission().clone();
    let (reason, is_free) = (job.reason, job.pass.is_free());
    let ask = Ask {
        reason,
        free: is_free,
        time_left: (flight.token().deadline()).saturating_sub(job.state.clock.now()),
        queue: &admission.queue,
    };
    let at_gate = AtGate {
        job,
        start: start.clone(),
    };
    let waits = Queued::new(at_gate, gate, reason, is_free, admission.owner());
    let waiter: Arc<dyn Waiter> = waits.clone();
    match gate.enter(ask, &waiter) {
        Entered::Yes(permit) => {
            let AtGate { mut job, .. } = waits.take()?;
            job.hold(permit);
            Some(job)
        }
        Entered::Refused(refusal) => {
            let AtGate { job, .. } = waits.take()?;
            job.refuse(refusal);
            None
        }
        Entered::Waits => {
            if admission.is_closed() {
                waits.refuse(Refusal::Closed);
            }
            helped_by(&flight, waits, queued);
            None
        }
    }
}

/// Sets what helps a job from here on, for loads that wait for it.
#[inline(never)]
fn helped_by<K, V>(
    flight: &Flight<K, V>,
    help: Arc<dyn Help>,
    queued: Option<&Queued<AtGate<K, V>>>,
) where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    if let Some(queued) = queued {
        queued.goes_on_as(help.clone());
    }
    // The flight keeps the first of them. In any case it wakes the loads that wait.
    flight.waits_for(help);
}

/// A job that waits at a gate.
struct AtGate<K, V> {
    job: Job<K, V>,
    start: Arc<Start<K, V>>,
}

impl<K, V> Waiting for AtGate<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    fn admitted(self, permit: Permit, queued: &Queued<Self>) {
        let AtGate { mut job, start } = self;
        job.begins_here = false;
        job.pass.leave_queue();
        // A load without a permit was asked for by another load, which waits for this very result.
        if !job.pass.is_free() && !job.claim.is_effective(Answer::Failed) {
            // It was invalidated, overwritten, evicted or taken over while it waited.
            return job.abandon();
        }
        job.hold(permit);
        go_on(&start, job, Some(queued));
    }

    fn helped(self, queued: &Queued<Self>) {
        let AtGate { mut job, start } = self;
        job.begins_here = false;
        job.pass.leave_queue();
        job.pass.free();
        go_on(&start, job, Some(queued));
    }

    fn refused(self, refusal: Refusal) {
        self.job.pass.leave_queue();
        self.job.refuse(refusal);
    }
}

impl<K: Hash + Eq + Clone + Send + Sync + 'static, V> Job<K, V> {
    fn hold(&mut self, permit: Permit) {
        if permit.is_probe() {
            trace::breaker(&self.state.name, BreakerState::HalfOpen);
        }
        self.pass.hold(permit);
    }

    /// Ends a job that a gate refused.
    #[inline(never)]
    pub(super) fn refuse(self, refusal: Refusal) {
        match refusal {
            Refusal::Busy => self.shed(),
            Refusal::Unavailable(left) => {
                self.state.counters.breaker_rejected();
                trace::refused_by_breaker(&self.state.name, self.reason);
                self.put_off(Error::unavailable(left), left);
            }
            Refusal::Closed => self.closed(),
        }
    }
}
