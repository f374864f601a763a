//! One load or refresh, from the claim to the moment at which its loader starts.

use std::any::Any;
use std::hash::Hash;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use crate::error::Error;
use crate::load::admission::{Pass, is_inside_a_load};
use crate::load::call::CallFn;
use crate::load::lifecycle::Work;
use crate::load::runtime::Caller;
use crate::load::state::CacheState;
use crate::observe::reason::LoadReason;
use crate::observe::trace::{self, TraceSpan};
use crate::panics::discard;
use crate::protocol::compact::Weight;
use crate::protocol::entry::Entry;
use crate::protocol::flight::{Flight, Made};
use crate::protocol::groups::{Cell, Moment};
use crate::protocol::publish::{Answer, ClaimGuard, Interest, Published};
use crate::protocol::times::Times;
use crate::protocol::wait_graph::{Edge, WaitNode};
use crate::sync::runtime::Runtime;
use crate::sync::{Arc, StrongArc};
use crate::time::clock::Tick;

/// The payload of a panic in user code.
pub(super) type Panic = Box<dyn Any + Send>;

pub(super) fn panicked(panic: Panic) -> Error {
    let error = Error::panicked(&*panic);
    discard(panic);
    error
}

/// The lease of a job that loads for a fleet. It ends with the job; dropping it gives it back.
pub(crate) trait Leased<K, V>: Send + Sync {
    /// The loader began at `began` and made this entry; `published` says whether it is resident.
    fn publish(self: Box<Self>, entry: StrongArc<Entry<K, V>>, published: Published, began: Moment);
    /// The loader failed; the next attempt comes after `rest`.
    fn failed(self: Box<Self>, rest: Duration);
    /// The loader began at `began` and says that the key has no value, which counts for so long.
    fn not_found(self: Box<Self>, key: &K, lasts: Tick, began: Moment);
    /// Gives the lease back at the deadline, while the loader runs.
    fn at_deadline(&self) -> Arc<dyn GiveBack>;
}

/// A lease that can be given back before its job ends.
pub(crate) trait GiveBack: Send + Sync {
    fn give_back(&self);
}

/// The claim of a job.
///
/// An attempt is dropped unfinished when its runtime shuts down or its future panics. The key then
/// rests from that moment, as after a failure. The claim alone could not do that, because it has no
/// clock and would count from the moment at which it was made (P5).
///
/// It counts as a load under way until it is dropped.
pub(super) struct Attempt<K, V> {
    claim: Option<ClaimGuard<K, V>>,
    state: Arc<CacheState<K, V>>,
    reason: LoadReason,
    /// [`CacheState::remember`], which needs more of a key than a drop may ask for.
    remember: Remember<K, V>,
}

type Remember<K, V> =
    fn(&CacheState<K, V>, ClaimGuard<K, V>, Answer, Error, Tick, Tick, u32) -> bool;

impl<K, V> Attempt<K, V> {
    /// The claim, to be ended by the caller. Nothing asks for it afterwards.
    pub(super) fn take(&mut self) -> ClaimGuard<K, V> {
        match self.claim.take() {
            Some(claim) => claim,
            None => unreachable!("the claim of a job ends once"),
        }
    }

    /// See [`ClaimGuard::start`].
    pub(super) fn start(&mut self, now: Tick) -> bool {
        self.claim.as_mut().is_some_and(|claim| claim.start(now))
    }
}

impl<K, V> Deref for Attempt<K, V> {
    type Target = ClaimGuard<K, V>;

    fn deref(&self) -> &ClaimGuard<K, V> {
        match &self.claim {
            Some(claim) => claim,
            None => unreachable!("a job asks for its claim before it ends it"),
        }
    }
}

impl<K, V> Drop for Attempt<K, V> {
    fn drop(&mut self) {
        self.give_back();
        self.state.lifecycle.end(Work::Load);
        self.state.look(false);
    }
}

impl<K, V> Attempt<K, V> {
    /// Gives the claim back, if it has not ended.
    fn give_back(&mut self) {
        if let Some(claim) = self.claim.take() {
            if self.state.lifecycle.is_closed() {
                return claim.rest(Error::closed(), 0);
            }
            let failures = claim.failures();
            let state = &*self.state;
            let now = state.clock.now();
            if !claim.is_wanted() {
                // Its waiters read again, unless they have been answered.
                return claim.abandon();
            }
            let rest = state.dropped(self.reason, failures);
            match claim.entry().is_loading() {
                true => {
                    let error = Error::cancelled();
                    let failures = failures + 1;
                    (self.remember)(state, claim, Answer::Failed, error, now, rest, failures);
                }
                false => claim.cancel(now.saturating_add(rest)),
            }
        }
    }
}

/// One load or refresh on its way through the loader.
pub(crate) struct Job<K, V> {
    pub(super) claim: Attempt<K, V>,
    pub(super) reason: LoadReason,
    pub(super) state: Arc<CacheState<K, V>>,
    pub(super) lease: Option<Box<dyn Leased<K, V>>>,
    pub(super) caller: TraceSpan,
    pub(super) pass: Pass,
    /// Where an async load runs: found where the load began, because a store or a queue may start
    /// it on another thread.
    pub(super) runtime: Option<Runtime>,
    /// Whether it begins on this thread, where its caller waits for it. False once it has waited
    /// for its turn, because another thread may go on with it then.
    pub(super) begins_here: bool,
    /// The edge to the node in which the batch of the job runs.
    pub(super) runs_in: Option<Edge>,
    /// The function that the caller brought, in the place of the cache's loader.
    pub(super) call: Option<Arc<CallFn<V>>>,
}

impl<K: Hash + Eq + Clone + Send + Sync + 'static, V> Job<K, V> {
    /// The load of a claim. `None` if the cache is closed; the claim has ended then.
    pub(crate) fn new(
        claim: ClaimGuard<K, V>,
        reason: LoadReason,
        state: Arc<CacheState<K, V>>,
        caller: Caller,
    ) -> Option<Self> {
        if !state.lifecycle.start(Work::Load, is_inside_a_load) {
            claim.rest(Error::closed(), 0);
            return None;
        }
        let (runtime, begins_here) = state.home.of_load(caller);
        let claim = Attempt {
            claim: Some(claim),
            state: state.clone(),
            reason,
            remember: CacheState::remember,
        };
        Some(Job {
            claim,
            reason,
            pass: Pass::new(state.admission.clone(), reason),
            runtime,
            state,
            lease: None,
            caller: TraceSpan::of_caller(reason),
            begins_here,
            runs_in: None,
            call: None,
        })
    }

    /// The node as a part of which user code of the job runs.
    pub(super) fn node(&self) -> &Arc<WaitNode> {
        let own = || self.claim.flight().wait_node();
        self.runs_in.as_ref().map_or_else(own, Edge::to)
    }

    /// Lets the job run the function that its caller brought.
    pub(crate) fn by_call(mut self, call: Arc<CallFn<V>>, caller: Caller) -> Self {
        (self.runtime, self.begins_here) = self.state.home.of_call(call.waits(), caller);
        self.call = Some(call);
        self
    }

    /// An async load runs on this runtime.
    pub(crate) fn on(mut self, runtime: Runtime) -> Self {
        self.runtime = Some(runtime);
        self
    }

    /// Another thread goes on with the job.
    pub(crate) fn begins_elsewhere(mut self) -> Self {
        self.begins_here = false;
        self
    }

    /// Puts the job under a lease, which ends with it.
    pub(crate) fn under(mut self, lease: Box<dyn Leased<K, V>>) -> Self {
        self.lease = Some(lease);
        self
    }

    pub(crate) fn key(&self) -> &K {
        &self.claim.entry().key
    }

    /// The set of the table in which the key lives.
    pub(crate) fn set(&self) -> usize {
        self.claim.place().set()
    }

    /// Whether the key has no value here.
    pub(crate) fn is_cold(&self) -> bool {
        self.claim.entry().is_loading()
    }

    pub(crate) fn is_wanted(&self) -> bool {
        self.claim.is_wanted()
    }

    pub(crate) fn flight(&self) -> &StrongArc<Flight<K, V>> {
        self.claim.flight()
    }

    pub(crate) fn interest(&self) -> Interest<K, V> {
        self.claim.interest()
    }

    /// Ends the job with a value that another process made. `None` if user code panicked.
    pub(crate) fn found(
        mut self,
        value: V,
        times: Times,
        cells: Vec<Cell>,
        now: Tick,
    ) -> Option<(StrongArc<Entry<K, V>>, Published)> {
        match self.entry(&mut Some(value), times, cells) {
            Ok(new) => {
                let published = self.publish(new.clone(), Made::Elsewhere, now);
                Some((new, published))
            }
            Err(panic) => {
                self.fail(panicked(panic), true, now);
                None
            }
        }
    }

    /// Ends the job because another process found no value `now`, which counts for so long.
    /// Returns the entry that it removed.
    pub(crate) fn found_nothing(mut self, lasts: Tick, now: Tick) -> StrongArc<Entry<K, V>> {
        let (answer, error) = (Answer::NotFound, Error::not_found());
        let claim = self.claim.take();
        let entry = claim.entry().clone();
        self.state.remember(claim, answer, error, now, lasts, 0);
        entry
    }

    /// The next step may read an old value, from the origin or from a store.
    pub(crate) fn begins(&self) {
        self.flight().begins(self.state.groups.now());
    }

    /// Makes the entry of a new value in these cells and those of its key. The weigher, the group
    /// function and the key's `Clone` run here, because the load can still fail here. They run as a
    /// part of the load, so a read of the same key in them is recursive.
    pub(super) fn entry(
        &self,
        value: &mut Option<V>,
        times: Times,
        mut cells: Vec<Cell>,
    ) -> Result<StrongArc<Entry<K, V>>, Panic> {
        let old = self.claim.entry();
        let flight = self.claim.flight();
        let _entered = self.node().enter();
        let weigh = |value| self.state.weigh(&old.key, value);
        let ask = || {
            let weight = value.as_ref().map_or(Weight::ZERO, weigh);
            let groups = self.state.groups_of(&old.key, Vec::new());
            cells.extend(groups.into_iter().map(Cell::of));
            let stamps = self
                .state
                .groups
                .stamps_in(cells.into_iter(), flight.began());
            (old.key.clone(), weight, stamps)
        };
        let (key, weight, stamps) = catch_unwind(AssertUnwindSafe(ask))?;
        Ok(StrongArc::new(Entry::made(
            key,
            value,
            times,
            stamps,
            old.eviction_state(weight),
        )))
    }

    pub(super) fn publish(
        &mut self,
        new: StrongArc<Entry<K, V>>,
        made: Made,
        now: Tick,
    ) -> Published {
        let state = &*self.state;
        // A forced load may run while an earlier answer "not found" still counts.
        let was_known = self.claim.failures() > 0
            || state.policy.forced_every > 0 && self.claim.entry().is_loading();
        let began = self.claim.flight().began();
        let published = self.claim.take().publish(new.clone(), made, now);
        state.counters.published(published);
        trace::published(&state.name, self.reason, published);
        if was_known && published == Published::Yes {
            // The next failure of this key counts as the first, and no answer outlives the value.
            state.negative.forget(&new.key);
        }
        if let Some(lease) = self.lease.take() {
            lease.publish(new, published, began);
        }
        published
    }

    /// Ends the job untried, because loads of its key failed a moment ago. The backoff is that of a
    /// failure, but no failure is counted.
    pub(crate) fn cool(mut self, error: Error, rest: Tick) {
        let state = &*self.state;
        let (claim, now) = (self.claim.take(), state.clock.now());
        match claim.entry().is_loading() {
            true => {
                state.remember(claim, Answer::Failed, error, now, rest, 0);
            }
            false => claim.rest(error, now.saturating_add(rest)),
        }
    }

    /// Ends the job untried, because its turn did not come before its deadline. The key does not
    /// rest, because the loader is not to blame.
    pub(super) fn too_late(mut self, now: Tick) {
        self.state.counters.never_started();
        let error = Error::not_started(self.state.policy.load_timeout);
        self.claim.take().rest(error, now);
    }

    /// Gives the claim back untried, because the loader has no room.
    pub(crate) fn shed(self) {
        self.postpone(Error::overloaded());
    }

    /// Gives the claim back untried, with the reason for a caller that waits.
    ///
    /// A postponed refresh never costs a caller its value, because the backoff ends when the value
    /// would no longer be served without a load. The next caller then tries again. A load that was
    /// refused leaves no negative entry, because there may be room for the next load.
    pub(super) fn postpone(self, error: Error) {
        let rest = self.state.postponed(self.reason);
        self.put_off(error, rest);
    }

    /// Gives the claim back untried, for so long. Its lease ends with it.
    pub(super) fn put_off(mut self, error: Error, rest: Tick) {
        let times = self.claim.entry().times();
        let limit = match self.reason {
            LoadReason::Early => times.fresh_until(),
            LoadReason::Stale => times.stale_until(),
            LoadReason::Cold => 0,
        };
        let until = self.state.clock.now().saturating_add(rest).min(limit);
        self.claim.take().rest(error, until);
    }

    /// Ends the job untried, because the cache was closed.
    pub(crate) fn closed(mut self) {
        self.claim.take().rest(Error::closed(), 0);
    }

    /// Gives up a claim whose entry is no longer resident, untried. Its waiters read again.
    pub(super) fn abandon(mut self) {
        if self.claim.flight().token().deadline() <= self.state.clock.now() {
            self.state.counters.never_started();
        }
        self.claim.take().abandon();
    }

    /// The origin answered, or failed, or was not asked; told to the breakers.
    pub(super) fn answered(&mut self, failed: Option<bool>) {
        let name = &self.state.name;
        (self.pass).ended(failed, |changed| trace::breaker(name, changed));
    }
}
