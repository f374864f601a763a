//! One load or refresh on its way through the loader, from the claim to its end.

use std::any::Any;
use std::future::poll_fn;
use std::hash::Hash;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use crate::error::Error;
use crate::load::loader::{Loaded, Loader, Request, Returned, fallible};
use crate::load::negative::NegativeCache;
use crate::load::policy::Policy;
use crate::load::pool::{Pool, Task};
use crate::observe::metrics::{self, Ended};
use crate::observe::reason::LoadReason;
use crate::observe::stats::Counters;
use crate::observe::trace::{self, TraceSpan};
use crate::panics::discard;
use crate::protocol::compact::Weight;
use crate::protocol::entry::Entry;
use crate::protocol::flight::Made;
use crate::protocol::publish::{ClaimGuard, Interest, Published};
use crate::protocol::times::Times;
use crate::rng::with_rng;
use crate::sync::Arc;
use crate::sync::future::BoxFuture;
use crate::time::clock::{Clock, Tick, ticks};

/// The payload of a panic in user code.
type Panic = Box<dyn Any + Send>;

fn panicked(panic: Panic) -> Error {
    let error = Error::panicked(&*panic);
    discard(panic);
    error
}

/// How a loader runs jobs.
pub(crate) type RunJob<K, V> = Box<dyn Fn(Job<K, V>) + Send + Sync>;

/// The part of a cache that its jobs share. It is not the cache itself, because that may be dropped
/// while jobs run.
pub(crate) struct CacheState<K, V> {
    pub(crate) name: Arc<str>,
    pub(crate) policy: Policy,
    pub(crate) clock: Clock,
    pub(crate) counters: Counters,
    pub(crate) weigher: Option<Weigher<K, V>>,
    pub(crate) negative: NegativeCache<K>,
}

pub(crate) type Weigher<K, V> = Box<dyn Fn(&K, &V) -> u32 + Send + Sync>;

impl<K: Hash + Eq + Clone + Send + Sync + 'static, V> CacheState<K, V> {
    /// Ends a claim without a value, and writes a negative entry with the cause.
    fn remember(
        &self,
        claim: ClaimGuard<K, V>,
        error: Error,
        now: Tick,
        rest: Tick,
        failures: u32,
    ) {
        let until = now.saturating_add(rest);
        // The late answer of an overtaken load must not replace the negative entry of a later load.
        let effective = claim.is_effective();
        // A key that panics is not remembered, but its callers still learn that the load ended.
        let key = || claim.entry().key.clone();
        let write = || {
            effective.then(|| {
                self.negative
                    .write(key(), error.clone(), until, now, failures)
            })
        };
        let entry = catch_unwind(AssertUnwindSafe(write)).unwrap_or_else(|panic| {
            discard(panic);
            None
        });
        claim.remove(error, |left| {
            if let Some(entry) = entry {
                entry.commit(left);
            }
        });
        self.negative.drop_content();
    }
}

impl<K, V> CacheState<K, V> {
    pub(crate) fn weigh(&self, key: &K, value: &V) -> Weight {
        let weigher = self.weigher.as_ref();
        weigher.map_or(Weight::ZERO, |weigh| Weight::new(weigh(key, value)))
    }
}

/// The lease of a job that loads for a fleet. It ends with the job; dropping it gives it back.
pub(crate) trait Leased<K, V>: Send {
    /// The loader made this entry; `published` says whether it is resident.
    fn publish(self: Box<Self>, entry: Arc<Entry<K, V>>, published: Published);
    /// The loader failed; the next attempt comes after `rest`.
    fn failed(self: Box<Self>, rest: Duration);
    /// The loader says that the key has no value.
    fn not_found(self: Box<Self>);
}

/// The claim of a job.
///
/// An attempt is dropped unfinished when its runtime shuts down or its future panics. The backoff
/// of a resident value then starts at that moment, as after a failure. The claim alone could not do
/// that, because it has no clock and would count from the moment at which it was made (P5).
struct Attempt<K, V> {
    claim: Option<ClaimGuard<K, V>>,
    state: Arc<CacheState<K, V>>,
}

impl<K, V> Attempt<K, V> {
    /// The claim, to be ended by the caller.
    fn take(mut self) -> ClaimGuard<K, V> {
        match self.claim.take() {
            Some(claim) => claim,
            None => unreachable!("an attempt loses its claim only together with itself"),
        }
    }
}

impl<K, V> Deref for Attempt<K, V> {
    type Target = ClaimGuard<K, V>;

    fn deref(&self) -> &ClaimGuard<K, V> {
        match &self.claim {
            Some(claim) => claim,
            None => unreachable!("an attempt loses its claim only together with itself"),
        }
    }
}

impl<K, V> Drop for Attempt<K, V> {
    fn drop(&mut self) {
        if let Some(claim) = self.claim.take() {
            let failures = claim.failures();
            let rest = with_rng(|rng| self.state.policy.backoff(failures, rng));
            claim.cancel(self.state.clock.now().saturating_add(rest));
        }
    }
}

/// One load or refresh on its way through the loader.
pub(crate) struct Job<K, V> {
    claim: Attempt<K, V>,
    reason: LoadReason,
    state: Arc<CacheState<K, V>>,
    lease: Option<Box<dyn Leased<K, V>>>,
    caller: TraceSpan,
}

/// How a load ended.
enum Ending<K, V> {
    Made(Arc<Entry<K, V>>),
    NotFound(Loaded<V>),
    Failed(Error),
    Panicked(Panic),
}

/// A job whose loader runs.
struct RunningJob<K, V> {
    // Dropped before the claim that it was made from.
    request: Request<K, V>,
    job: Job<K, V>,
    started: Tick,
    span: TraceSpan,
}

impl<K: Hash + Eq + Clone + Send + Sync + 'static, V> Job<K, V> {
    pub(crate) fn new(
        claim: ClaimGuard<K, V>,
        reason: LoadReason,
        state: Arc<CacheState<K, V>>,
    ) -> Self {
        let claim = Attempt {
            claim: Some(claim),
            state: state.clone(),
        };
        Job {
            claim,
            reason,
            state,
            lease: None,
            caller: TraceSpan::of_caller(reason),
        }
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

    pub(crate) fn interest(&self) -> Interest<K, V> {
        self.claim.interest()
    }

    /// Ends the job with a value that another process made. `None` if user code panicked.
    pub(crate) fn found(
        self,
        value: V,
        times: Times,
        now: Tick,
    ) -> Option<(Arc<Entry<K, V>>, Published)> {
        match self.entry(value, times) {
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

    /// Makes the entry of a new value. The weigher and the key's `Clone` run here, because the load
    /// can still fail here. They run as a part of the load, so a read of the same key in them is
    /// recursive.
    fn entry(&self, value: V, times: Times) -> Result<Arc<Entry<K, V>>, Panic> {
        let old = self.claim.entry();
        let _entered = self.claim.flight().wait_node().enter();
        let ask = || (old.key.clone(), self.state.weigh(&old.key, &value));
        let (key, weight) = catch_unwind(AssertUnwindSafe(ask))?;
        Ok(Arc::new(Entry::ready(
            key,
            value,
            times,
            old.eviction_state(weight),
        )))
    }

    fn publish(self, new: Arc<Entry<K, V>>, made: Made, now: Tick) -> Published {
        let Job {
            claim,
            reason,
            state,
            lease,
            ..
        } = self;
        let failed_before = claim.failures() > 0;
        let published = claim.take().publish(new.clone(), made, now);
        state.counters.published(published);
        trace::published(&state.name, reason, published);
        if failed_before && published == Published::Yes {
            // The next failure of this key counts as the first.
            state.negative.forget(&new.key);
        }
        if let Some(lease) = lease {
            lease.publish(new, published);
        }
        published
    }

    /// Ends the job untried, because another process failed. The backoff is that of a failure, but
    /// no failure is counted.
    pub(crate) fn cool(self, error: Error, rest: Tick) {
        let Job { claim, state, .. } = self;
        let (claim, now) = (claim.take(), state.clock.now());
        match claim.entry().is_loading() {
            true => state.remember(claim, error, now, rest, 0),
            false => claim.rest(error, now.saturating_add(rest)),
        }
    }

    /// Runs a function that computes, here and now.
    fn compute(self, f: impl FnOnce(&Request<K, V>) -> Returned<V>) {
        if let Some(running) = self.begin() {
            let entered = running.job.claim.flight().wait_node().enter();
            let run = || running.span.within(|| f(&running.request));
            let returned = catch_unwind(AssertUnwindSafe(run));
            drop(entered);
            running.finish(returned);
        }
    }

    /// Runs a function that waits. Dropping this future gives the claim back.
    async fn load(self, loader: Arc<impl Loader<K, V>>) {
        if let Some(running) = self.begin() {
            let returned = {
                // The loader is called inside an async block, so that a panic of the call is caught
                // like one of a poll.
                let mut future = pin!(async { fallible(loader.load(&running.request).await) });
                poll_fn(|cx| {
                    let _entered = running.job.claim.flight().wait_node().enter();
                    let poll = || running.span.within(|| future.as_mut().poll(cx));
                    match catch_unwind(AssertUnwindSafe(poll)) {
                        Ok(Poll::Ready(returned)) => Poll::Ready(Ok(returned)),
                        Ok(Poll::Pending) => Poll::Pending,
                        Err(panic) => Poll::Ready(Err(panic)),
                    }
                })
                .await
            };
            running.finish(returned);
        }
    }

    /// Counts the start. `None` if the result is no longer wanted.
    fn begin(self) -> Option<RunningJob<K, V>> {
        if !self.claim.is_wanted() {
            return None;
        }
        self.state.counters.started(self.reason);
        Some(RunningJob {
            request: Request {
                entry: self.claim.entry().clone(),
            },
            started: self.state.clock.exact(),
            span: self.caller.load(&self.state.name, self.reason),
            job: self,
        })
    }

    fn finish(self, returned: Result<Returned<V>, Panic>, started: Tick) {
        let took = self.state.clock.exact().saturating_sub(started);
        let now = self.state.clock.now();
        self.state.counters.took(took);
        let ending = self.ending(returned, took, now);
        let ended = match &ending {
            Ending::Made(_) => Ended::Ok,
            Ending::NotFound(_) => Ended::NotFound,
            Ending::Failed(_) | Ending::Panicked(_) => Ended::Failed,
        };
        metrics::loaded(&self.state.name, self.reason, ended, took);
        match ending {
            Ending::Made(new) => {
                self.publish(new, Made::Here, now);
            }
            Ending::NotFound(loaded) => self.not_found(&loaded, now),
            Ending::Failed(error) => self.fail(error, false, now),
            Ending::Panicked(panic) => self.fail(panicked(panic), true, now),
        }
    }

    fn ending(&self, returned: Result<Returned<V>, Panic>, took: Tick, now: Tick) -> Ending<K, V> {
        let mut loaded = match returned {
            Ok(Ok(loaded)) => loaded,
            Ok(Err(error)) => return Ending::Failed(Error::failed(error)),
            Err(panic) => return Ending::Panicked(panic),
        };
        let Some(value) = loaded.value.take() else {
            return Ending::NotFound(loaded);
        };
        let policy = &self.state.policy;
        let old = self.claim.entry();
        let cost = (!old.is_loading()).then(|| old.times.cost());
        let times = with_rng(|rng| policy.times(&loaded, now, cost, Some(took), rng));
        match self.entry(value, times) {
            Ok(new) => Ending::Made(new),
            Err(panic) => Ending::Panicked(panic),
        }
    }

    /// Ends a load that failed, or in which user code panicked.
    fn fail(self, error: Error, panicked: bool, now: Tick) {
        let Job {
            claim,
            reason,
            state,
            lease,
            ..
        } = self;
        state.counters.failed();
        let failures = claim.failures();
        let rest = with_rng(|rng| state.policy.backoff(failures, rng));
        let pause = Duration::from_nanos(rest);
        // Before the waiting callers learn of it, because they may trace it as well.
        trace::load_failed(&state.name, reason, panicked, failures + 1, pause);
        let claim = claim.take();
        match claim.entry().is_loading() {
            true => state.remember(claim, error, now, rest, failures + 1),
            false => claim.fail(error, now.saturating_add(rest)),
        }
        if let Some(lease) = lease {
            lease.failed(pause);
        }
    }

    fn not_found(self, loaded: &Loaded<V>, now: Tick) {
        let Job {
            claim,
            state,
            lease,
            ..
        } = self;
        let rest = loaded.fresh_for.map_or(state.policy.not_found_for, ticks);
        state.remember(claim.take(), Error::not_found(), now, rest, 0);
        if let Some(lease) = lease {
            lease.not_found();
        }
    }

    /// Gives the claim back untried, because the loader has no room.
    ///
    /// A postponed refresh never costs a caller its value, because the backoff ends when the value
    /// would no longer be served without a load. The next caller then tries again. A load that was
    /// refused leaves no negative entry, because there may be room for the next load.
    pub(crate) fn shed(self) {
        let Job {
            claim,
            reason,
            state,
            ..
        } = self;
        let rest = with_rng(|rng| state.policy.backoff(0, rng));
        let times = &claim.entry().times;
        let limit = match reason {
            LoadReason::Early => times.fresh_until(),
            LoadReason::Stale => times.stale_until(),
            LoadReason::Cold => 0,
        };
        let until = state.clock.now().saturating_add(rest).min(limit);
        state.counters.shed(reason);
        trace::not_tried(&state.name, reason);
        claim.take().rest(Error::overloaded(), until);
    }
}

impl<K: Hash + Eq + Clone + Send + Sync + 'static, V> RunningJob<K, V> {
    fn finish(self, returned: Result<Returned<V>, Panic>) {
        let RunningJob {
            job,
            request,
            started,
            span,
        } = self;
        // From here on only the claim keeps the entry.
        drop(request);
        span.within(|| job.finish(returned, started));
    }
}

/// A loader for CPU-bound work, on the pool.
pub(crate) fn computing<K, V>(
    pool: Arc<Pool>,
    f: impl Fn(&Request<K, V>) -> Returned<V> + Send + Sync + 'static,
) -> RunJob<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    let f = Arc::new(f);
    Box::new(move |job: Job<K, V>| {
        let reason = job.reason;
        if !pool.admits(reason) {
            return job.shed();
        }
        let (f, flight) = (f.clone(), job.claim.flight().clone());
        let task = Arc::new(Task::new(move || job.compute(|request| f(request))));
        flight.waits_for(task.clone());
        pool.queue(reason, task);
    })
}

/// A loader for I/O-bound work, on a runtime.
pub(crate) fn loading<K, V>(
    spawn: impl Fn(BoxFuture) + Send + Sync + 'static,
    loader: impl Loader<K, V>,
) -> RunJob<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    let loader = Arc::new(loader);
    Box::new(move |job: Job<K, V>| spawn(Box::pin(job.load(loader.clone()))))
}
