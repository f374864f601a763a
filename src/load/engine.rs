//! How a cache starts its loads: through the gates, then on the pool or on a runtime.

use std::hash::Hash;
use std::task::{Context, Poll, Waker};

use crate::error::Error;
use crate::load::admission::ask::{Ask, Refusal};
use crate::load::admission::gate::{Entered, Gate, Permit, Waiter};
use crate::load::admission::queued::{Queued, Waiting};
use crate::load::call::{ByCall, CallFn};
use crate::load::job::Job;
use crate::load::load_many::{LoadMany, ReturnedMany};
use crate::load::loader::{Load, Request, Returned};
use crate::load::party::{Flights, Party};
use crate::load::pool::Task;
use crate::load::pool_builder::Place;
use crate::load::runtime::Home;
use crate::load::stack::run_here;
use crate::load::workers::Workers;
use crate::observe::breaker_state::BreakerState;
use crate::observe::trace;
use crate::panics::isolated;
use crate::protocol::flight::Help;
use crate::protocol::wait_graph::WaitNode;
use crate::sync::future::BoxFuture;
use crate::sync::{Arc, Weak};

/// How a loader runs jobs.
pub(crate) type RunJob<K, V> = Box<dyn Fn(Job<K, V>) + Send + Sync>;

/// A party that was started, if a worker that waits for it can run it.
type Started<K, V> = Option<(Flights<K, V>, Arc<dyn Help>)>;

/// Starts a party that was admitted.
type Start<K, V> = dyn Fn(Party<K, V>) -> Started<K, V> + Send + Sync;

/// Where the loads of a cache run: those of its loader, and those of functions that callers bring.
pub(crate) struct Places {
    pub(crate) pool: Place,
    pub(crate) home: Arc<Home>,
}

impl Places {
    /// Starts a job, which is alone, that runs the function of its caller.
    fn start_by_call<K, V>(&self, party: Party<K, V>, call: Arc<CallFn<V>>) -> Started<K, V>
    where
        K: Hash + Eq + Clone + Send + Sync + 'static,
        V: Send + Sync + 'static,
    {
        let begins_here = party.lead.begins_here;
        if call.waits() {
            let load = |party: Party<K, V>| party.lead.load(Arc::new(ByCall(call)));
            return on_runtime(&self.home, party, begins_here, load);
        }
        let f = move |_: &Request<K, V>| call.computed();
        if begins_here {
            on_caller(party.lead, &f);
            return None;
        }
        on_pool(&self.pool, party, |party, workers| {
            party.lead.compute(f, workers);
        })
    }
}

/// No loader: every load runs the function of its caller.
pub(crate) fn by_calls<K, V>(places: Places) -> RunJob<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    let start = through_the_gates(places, |_, party: Party<K, V>| {
        // The caller had no function. It joined a load that had one, and took it over.
        party.end(|job| job.postpone(Error::without_loader()));
        None
    });
    Box::new(move |job| start(Party::alone(job)))
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
    let start = through_the_gates(places, move |places, party: Party<K, V>| {
        let f = f.clone();
        if party.lead.begins_here {
            on_caller(party.lead, &*f);
            return None;
        }
        on_pool(&places.pool, party, move |party, workers| {
            party.lead.compute(|request| f(request), workers);
        })
    });
    Box::new(move |job| start(Party::alone(job)))
}

/// The same for a loader that takes the keys of a batch.
pub(crate) fn computing_many<K, V>(
    places: Places,
    f: impl Fn(&[K]) -> ReturnedMany<K, V> + Send + Sync + 'static,
) -> impl Fn(Party<K, V>) + Send + Sync + 'static
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    let f = Arc::new(f);
    through_the_gates(places, move |places, party: Party<K, V>| {
        let f = f.clone();
        on_pool(&places.pool, party, move |party, workers| {
            party.compute(|keys| f(keys), workers);
        })
    })
}

/// Queues a party on the pool.
fn on_pool<K, V>(
    place: &Place,
    party: Party<K, V>,
    run: impl FnOnce(Party<K, V>, Weak<Workers>) + Send + 'static,
) -> Started<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    let pool = match place.workers() {
        Ok(pool) => pool,
        Err(error) => {
            let error = Error::failed(error);
            party.end(|job| job.not_started(error.clone()));
            return None;
        }
    };
    let reason = party.lead.reason;
    if !pool.admits(reason) {
        party.end(Job::shed);
        return None;
    }
    let flights = party.flights();
    // Weak, because the pool holds its queued tasks.
    let workers = Arc::downgrade(pool);
    let task = Arc::new(Task::new(move || run(party, workers)));
    let help = pool.help(reason, task.clone());
    pool.queue(reason, task);
    Some((flights, help))
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
    let start = through_the_gates(places, move |places, party: Party<K, V>| {
        let begins_here = party.lead.begins_here;
        let load = |party: Party<K, V>| party.lead.load(loader.clone());
        on_runtime(&places.home, party, begins_here, load)
    });
    Box::new(move |job| start(Party::alone(job)))
}

/// The same for a loader that takes the keys of a batch.
pub(crate) fn loading_many<K, V>(
    places: Places,
    loader: impl LoadMany<K, V>,
) -> impl Fn(Party<K, V>) + Send + Sync + 'static
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    let loader = Arc::new(loader);
    through_the_gates(places, move |places, party: Party<K, V>| {
        let load = |party: Party<K, V>| party.load(loader.clone());
        on_runtime(&places.home, party, false, load)
    })
}

/// Spawns the load of a party, unless it ends here at once.
fn on_runtime<K, V, F>(
    home: &Home,
    mut party: Party<K, V>,
    begins_here: bool,
    load: impl FnOnce(Party<K, V>) -> F,
) -> Started<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let runtime = party.take_runtime();
    if !home.can_spawn(runtime.as_ref()) {
        party.end(|job| job.postpone(Error::without_runtime()));
        return None;
    }
    let mut load: BoxFuture = Box::pin(load(party));
    if !(begins_here && has_ended_at_once(&mut load)) {
        home.spawn(runtime, load);
    }
    None
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
    by_loader: impl Fn(&Places, Party<K, V>) -> Started<K, V> + Send + Sync + 'static,
) -> impl Fn(Party<K, V>) + Send + Sync + 'static
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    let start = move |mut party: Party<K, V>| match party.lead.call.take() {
        Some(call) => places.start_by_call(party, call),
        None => by_loader(&places, party),
    };
    let start: Arc<Start<K, V>> = Arc::new(start);
    move |mut party| match party.lead.pass.arrive() {
        true => go_on(&start, party, None),
        false => party.end(Job::shed),
    }
}

/// Takes a party through the gates that are left, and starts it. `queued` is its place at the last
/// gate, if it waited there.
fn go_on<K, V>(
    start: &Arc<Start<K, V>>,
    mut party: Party<K, V>,
    queued: Option<&Queued<AtGate<K, V>>>,
) where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    while let Some(gate) = party.lead.pass.next_gate() {
        match enter(start, &gate, party, queued) {
            Some(entered) => party = entered,
            None => return,
        }
    }
    if let Some((flights, help)) = start(party) {
        helped_by(&flights, help, queued);
    }
}

/// Passes a gate that takes its lock. `None` if the party waits there or has ended.
fn enter<K, V>(
    start: &Arc<Start<K, V>>,
    gate: &Arc<Gate>,
    party: Party<K, V>,
    queued: Option<&Queued<AtGate<K, V>>>,
) -> Option<Party<K, V>>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    let flights = party.flights();
    let lead = &party.lead;
    let admission = lead.pass.admission().clone();
    let (reason, is_free) = (lead.reason, lead.pass.is_free());
    let ask = Ask {
        reason,
        free: is_free,
        time_left: (flights.lead().token().deadline()).saturating_sub(lead.state.clock.now()),
        queue: &admission.queue,
    };
    let at_gate = AtGate {
        party,
        start: start.clone(),
    };
    let waits = Queued::new(at_gate, gate, reason, is_free, admission.owner());
    let waiter: Arc<dyn Waiter> = waits.clone();
    match gate.enter(ask, &waiter) {
        Entered::Yes(permit) => {
            let AtGate { mut party, .. } = waits.take()?;
            party.lead.hold(permit);
            Some(party)
        }
        Entered::Refused(refusal) => {
            let AtGate { party, .. } = waits.take()?;
            party.end(|job| job.refuse(refusal));
            None
        }
        Entered::Waits => {
            if admission.is_closed() {
                waits.refuse(Refusal::Closed);
            }
            helped_by(&flights, waits, queued);
            None
        }
    }
}

/// Sets what helps a party from here on, for loads that wait for it.
#[inline(never)]
fn helped_by<K, V>(
    flights: &Flights<K, V>,
    help: Arc<dyn Help>,
    queued: Option<&Queued<AtGate<K, V>>>,
) where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    if let Some(queued) = queued {
        queued.goes_on_as(help.clone());
    }
    flights.wait_for(help);
}

/// A party that waits at a gate.
struct AtGate<K, V> {
    party: Party<K, V>,
    start: Arc<Start<K, V>>,
}

impl<K, V> Waiting for AtGate<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    fn admitted(self, permit: Permit, queued: &Queued<Self>) {
        let AtGate { mut party, start } = self;
        party.begins_elsewhere();
        party.lead.pass.leave_queue();
        // A load without a permit was asked for by another load, which waits for this very result.
        if !party.lead.pass.is_free() && !party.is_effective() {
            // All were invalidated, overwritten, evicted or taken over while they waited.
            return party.end(Job::abandon);
        }
        party.lead.hold(permit);
        go_on(&start, party, Some(queued));
    }

    fn helped(self, queued: &Queued<Self>) {
        let AtGate { mut party, start } = self;
        party.begins_elsewhere();
        party.lead.pass.leave_queue();
        party.lead.pass.free();
        go_on(&start, party, Some(queued));
    }

    fn refused(self, refusal: Refusal) {
        self.party.lead.pass.leave_queue();
        self.party.end(|job| job.refuse(refusal));
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
