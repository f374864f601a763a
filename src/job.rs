//! One load or refresh on its way through the loader, from the claim to its end.

use std::any::Any;
use std::future::poll_fn;
use std::hash::Hash;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use crate::absent::Absent;
use crate::clock::{Clock, Tick, ticks};
use crate::compact::Weight;
use crate::entry::{Entry, Times};
use crate::error::Error;
use crate::flight::Made;
use crate::loader::{AsyncLoader, BoxFuture, Loaded, Request, Returned};
use crate::metrics::{self, Ended};
use crate::panics::discard;
use crate::pool::{Class, Pool, Task};
use crate::publish::{Claim, Interest, Published};
use crate::schedule::{Policy, with_rng};
use crate::stats::Counters;
use crate::sync::Arc;
use crate::trace::{self, Span};

/// What user code panicked with.
type Panic = Box<dyn Any + Send>;

fn panicked(panic: Panic) -> Error {
    let error = Error::panicked(&*panic);
    discard(panic);
    error
}

/// How a loader runs jobs.
pub(crate) type Start<K, V> = Box<dyn Fn(Job<K, V>) + Send + Sync>;

/// What all jobs of a cache share; not the cache itself, which may be dropped while they run.
pub(crate) struct Shared<K, V> {
    pub(crate) name: Arc<str>,
    pub(crate) policy: Policy,
    pub(crate) clock: Clock,
    pub(crate) counters: Counters,
    pub(crate) weigher: Option<Weigher<K, V>>,
    pub(crate) absent: Absent<K>,
}

pub(crate) type Weigher<K, V> = Box<dyn Fn(&K, &V) -> u32 + Send + Sync>;

impl<K: Hash + Eq + Clone + Send + Sync + 'static, V> Shared<K, V> {
    /// Ends a claim without a value, and remembers why.
    fn remember(&self, claim: Claim<K, V>, error: Error, now: Tick, rest: Tick, failures: u32) {
        let until = now.saturating_add(rest);
        // The late answer of a load that was overtaken must not displace what a later one left.
        let effective = claim.is_effective();
        // A key that panics is not remembered; that its load ended is told all the same.
        let key = || claim.entry().key.clone();
        let write = || {
            effective.then(|| {
                self.absent
                    .write(key(), error.clone(), until, now, failures)
            })
        };
        let note = catch_unwind(AssertUnwindSafe(write)).unwrap_or_else(|panic| {
            discard(panic);
            None
        });
        claim.leave(error, |left| {
            if let Some(note) = note {
                note.settle(left);
            }
        });
    }
}

impl<K, V> Shared<K, V> {
    pub(crate) fn weigh(&self, key: &K, value: &V) -> Weight {
        let weigher = self.weigher.as_ref();
        weigher.map_or(Weight::ZERO, |weigh| Weight::new(weigh(key, value)))
    }
}

/// The right to load for a fleet, which ends with the job; dropped, it is given back.
pub(crate) trait Leased<K, V>: Send {
    /// The loader made this entry, which is, or is not, resident.
    fn publish(self: Box<Self>, entry: Arc<Entry<K, V>>, published: Published);
    /// The loader failed, and is asked again after `rest`.
    fn failed(self: Box<Self>, rest: Duration);
    /// The loader says that the key has no value.
    fn absent(self: Box<Self>);
}

/// The claim of a job.
///
/// Dropped unfinished, because its runtime shut down or its future panicked, a resident value rests
/// from that moment on, for as long as its failures have earned: the claim alone knows no clock, and
/// could only rest from the moment at which it was made (P5).
struct Attempt<K, V> {
    claim: Option<Claim<K, V>>,
    shared: Arc<Shared<K, V>>,
}

impl<K, V> Attempt<K, V> {
    /// The claim, to be ended by the caller.
    fn take(mut self) -> Claim<K, V> {
        match self.claim.take() {
            Some(claim) => claim,
            None => unreachable!("an attempt loses its claim only together with itself"),
        }
    }
}

impl<K, V> Deref for Attempt<K, V> {
    type Target = Claim<K, V>;

    fn deref(&self) -> &Claim<K, V> {
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
            let rest = with_rng(|rng| self.shared.policy.backoff(failures, rng));
            claim.cancel(self.shared.clock.now().saturating_add(rest));
        }
    }
}

/// One load or refresh on its way through the loader.
pub(crate) struct Job<K, V> {
    claim: Attempt<K, V>,
    class: Class,
    shared: Arc<Shared<K, V>>,
    lease: Option<Box<dyn Leased<K, V>>>,
    caller: Span,
}

/// What a load came to.
enum Ending<K, V> {
    Made(Arc<Entry<K, V>>),
    Absent(Loaded<V>),
    Failed(Error),
    Panicked(Panic),
}

/// A job whose loader runs.
struct Running<K, V> {
    // Dropped before the claim that it was made from.
    request: Request<K, V>,
    job: Job<K, V>,
    started: Tick,
    span: Span,
}

impl<K: Hash + Eq + Clone + Send + Sync + 'static, V> Job<K, V> {
    pub(crate) fn new(claim: Claim<K, V>, class: Class, shared: Arc<Shared<K, V>>) -> Self {
        let claim = Attempt {
            claim: Some(claim),
            shared: shared.clone(),
        };
        Job {
            claim,
            class,
            shared,
            lease: None,
            caller: Span::of_caller(class),
        }
    }

    /// Under a lease, whose end is that of the job.
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

    /// Ends with a value that another process made; `None` if that failed, because user code
    /// panicked.
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

    /// The entry of a new value. The user's code that this needs, the weigher and the key's
    /// `Clone`, runs here, while the load can still fail, and as a part of the load: a read of the
    /// same key in it is recursive.
    fn entry(&self, value: V, times: Times) -> Result<Arc<Entry<K, V>>, Panic> {
        let old = self.claim.entry();
        let _entered = self.claim.flight().frame().enter();
        let ask = || (old.key.clone(), self.shared.weigh(&old.key, &value));
        let (key, weight) = catch_unwind(AssertUnwindSafe(ask))?;
        Ok(Arc::new(Entry::ready(
            key,
            value,
            times,
            old.standing(weight),
        )))
    }

    fn publish(self, new: Arc<Entry<K, V>>, made: Made, now: Tick) -> Published {
        let Job {
            claim,
            class,
            shared,
            lease,
            ..
        } = self;
        let failed_before = claim.failures() > 0;
        let published = claim.take().publish(new.clone(), made, now);
        shared.counters.published(published);
        trace::published(&shared.name, class, published);
        if failed_before && published == Published::Yes {
            // The next failure of this key is the first again.
            shared.absent.forget(&new.key);
        }
        if let Some(lease) = lease {
            lease.publish(new, published);
        }
        published
    }

    /// Ends untried, because another process failed: rests like after a failure, which is not counted.
    pub(crate) fn cool(self, error: Error, rest: Tick) {
        let Job { claim, shared, .. } = self;
        let (claim, now) = (claim.take(), shared.clock.now());
        match claim.entry().is_loading() {
            true => shared.remember(claim, error, now, rest, 0),
            false => claim.rest(error, now.saturating_add(rest)),
        }
    }

    /// Runs a function that computes, here and now.
    fn compute(self, f: impl FnOnce(&Request<K, V>) -> Returned<V>) {
        if let Some(running) = self.begin() {
            let entered = running.job.claim.flight().frame().enter();
            let run = || running.span.within(|| f(&running.request));
            let returned = catch_unwind(AssertUnwindSafe(run));
            drop(entered);
            running.finish(returned);
        }
    }

    /// Runs a function that waits. Dropping this future gives the claim back.
    async fn load(self, loader: Arc<impl AsyncLoader<K, V>>) {
        if let Some(running) = self.begin() {
            let returned = {
                // In a block of its own, so that calling the function is caught like polling it.
                let mut future = pin!(async { loader.load(&running.request).await });
                poll_fn(|cx| {
                    let _entered = running.job.claim.flight().frame().enter();
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

    /// Counts the start, unless nobody wants the result any more.
    fn begin(self) -> Option<Running<K, V>> {
        if !self.claim.is_wanted() {
            return None;
        }
        self.shared.counters.started(self.class);
        Some(Running {
            request: Request {
                entry: self.claim.entry().clone(),
            },
            started: self.shared.clock.exact(),
            span: self.caller.load(&self.shared.name, self.class),
            job: self,
        })
    }

    fn finish(self, returned: Result<Returned<V>, Panic>, started: Tick) {
        let took = self.shared.clock.exact().saturating_sub(started);
        let now = self.shared.clock.now();
        self.shared.counters.took(took);
        let ending = self.ending(returned, took, now);
        let ended = match &ending {
            Ending::Made(_) => Ended::Ok,
            Ending::Absent(_) => Ended::Absent,
            Ending::Failed(_) | Ending::Panicked(_) => Ended::Failed,
        };
        metrics::loaded(&self.shared.name, self.class, ended, took);
        match ending {
            Ending::Made(new) => {
                self.publish(new, Made::Here, now);
            }
            Ending::Absent(loaded) => self.absent(&loaded, now),
            Ending::Failed(error) => self.fail(error, false, now),
            Ending::Panicked(panic) => self.fail(panicked(panic), true, now),
        }
    }

    fn ending(&self, returned: Result<Returned<V>, Panic>, took: Tick, now: Tick) -> Ending<K, V> {
        let mut loaded = match returned {
            Ok(Ok(loaded)) => loaded,
            Ok(Err(error)) => return Ending::Failed(error),
            Err(panic) => return Ending::Panicked(panic),
        };
        let Some(value) = loaded.value.take() else {
            return Ending::Absent(loaded);
        };
        let policy = &self.shared.policy;
        let old = self.claim.entry();
        let cost = (!old.is_loading()).then(|| old.times.cost());
        let times = with_rng(|rng| policy.times(&loaded, now, cost, Some(took), rng));
        match self.entry(value, times) {
            Ok(new) => Ending::Made(new),
            Err(panic) => Ending::Panicked(panic),
        }
    }

    /// Ends a load that failed, or that user code made fail by a panic.
    fn fail(self, error: Error, panicked: bool, now: Tick) {
        let Job {
            claim,
            class,
            shared,
            lease,
            ..
        } = self;
        shared.counters.failed();
        let failures = claim.failures();
        let rest = with_rng(|rng| shared.policy.backoff(failures, rng));
        let pause = Duration::from_nanos(rest);
        // Before those who wait learn of it, and perhaps tell of it themselves.
        trace::load_failed(&shared.name, class, panicked, failures + 1, pause);
        let claim = claim.take();
        match claim.entry().is_loading() {
            true => shared.remember(claim, error, now, rest, failures + 1),
            false => claim.fail(error, now.saturating_add(rest)),
        }
        if let Some(lease) = lease {
            lease.failed(pause);
        }
    }

    fn absent(self, loaded: &Loaded<V>, now: Tick) {
        let Job {
            claim,
            shared,
            lease,
            ..
        } = self;
        let rest = loaded.fresh_for.map_or(shared.policy.absent_for, ticks);
        shared.remember(claim.take(), Error::absent(), now, rest, 0);
        if let Some(lease) = lease {
            lease.absent();
        }
    }

    /// Gives the claim back untried, because the loader has no room.
    ///
    /// Putting a refresh off never costs a caller its value: the rest ends where the value would no
    /// longer be served without a load. The caller whose load that is then tries for itself, and a
    /// load that was refused is not remembered, because there may be room for the next.
    pub(crate) fn shed(self) {
        let Job {
            claim,
            class,
            shared,
            ..
        } = self;
        let rest = with_rng(|rng| shared.policy.backoff(0, rng));
        let times = &claim.entry().times;
        let limit = match class {
            Class::Early => times.fresh_until(),
            Class::Stale => times.stale_until(),
            Class::Cold => 0,
        };
        let until = shared.clock.now().saturating_add(rest).min(limit);
        shared.counters.shed(class);
        trace::not_tried(&shared.name, class);
        claim.take().rest(Error::overloaded(), until);
    }
}

impl<K: Hash + Eq + Clone + Send + Sync + 'static, V> Running<K, V> {
    fn finish(self, returned: Result<Returned<V>, Panic>) {
        let Running {
            job,
            request,
            started,
            span,
        } = self;
        // The entry is kept by the claim alone from here on.
        drop(request);
        span.within(|| job.finish(returned, started));
    }
}

/// A loader for CPU-bound work, on the pool.
pub(crate) fn computing<K, V>(
    pool: Arc<Pool>,
    f: impl Fn(&Request<K, V>) -> Returned<V> + Send + Sync + 'static,
) -> Start<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    let f = Arc::new(f);
    Box::new(move |job: Job<K, V>| {
        let class = job.class;
        if !pool.admits(class) {
            return job.shed();
        }
        let (f, flight) = (f.clone(), job.claim.flight().clone());
        let task = Arc::new(Task::new(move || job.compute(|request| f(request))));
        flight.waits_for(task.clone());
        pool.queue(class, task);
    })
}

/// A loader for I/O-bound work, on a runtime.
pub(crate) fn loading<K, V>(
    spawn: impl Fn(BoxFuture) + Send + Sync + 'static,
    loader: impl AsyncLoader<K, V>,
) -> Start<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    let loader = Arc::new(loader);
    Box::new(move |job: Job<K, V>| spawn(Box::pin(job.load(loader.clone()))))
}
