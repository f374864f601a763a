//! One load or refresh on its way through the loader, from the claim to its end.

use std::any::Any;
use std::future::poll_fn;
use std::hash::Hash;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

use crate::absent::Absent;
use crate::clock::{Clock, Tick, ticks};
use crate::compact::Weight;
use crate::entry::Entry;
use crate::error::Error;
use crate::loader::{AsyncLoader, BoxFuture, Request, Returned};
use crate::pool::{Class, Pool, Task};
use crate::publish::{Claim, Published};
use crate::schedule::{Policy, with_rng};
use crate::stats::Counters;
use crate::sync::Arc;

/// How a loader runs jobs.
pub(crate) type Start<K, V> = Box<dyn Fn(Job<K, V>) + Send + Sync>;

/// What all jobs of a cache share; not the cache itself, which may be dropped while they run.
pub(crate) struct Shared<K, V> {
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
        let key = claim.entry().key.clone();
        // The late answer of a load that was overtaken must not displace what a later one left.
        let note = claim
            .is_effective()
            .then(|| self.absent.write(key, error.clone(), until, now, failures));
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

/// One load or refresh on its way through the loader.
pub(crate) struct Job<K, V> {
    claim: Claim<K, V>,
    class: Class,
    shared: Arc<Shared<K, V>>,
}

impl<K: Hash + Eq + Clone + Send + Sync + 'static, V> Job<K, V> {
    pub(crate) fn new(claim: Claim<K, V>, class: Class, shared: Arc<Shared<K, V>>) -> Self {
        Job {
            claim,
            class,
            shared,
        }
    }

    /// Runs a function that computes, here and now.
    fn compute(self, f: impl FnOnce(&Request<K, V>) -> Returned<V>) {
        if let Some((job, request, started)) = self.begin() {
            let entered = job.claim.flight().frame.enter();
            let returned = catch_unwind(AssertUnwindSafe(|| f(&request)));
            drop(entered);
            drop(request);
            job.finish(returned, started);
        }
    }

    /// Runs a function that waits. Dropping this future gives the claim back.
    async fn load(self, loader: Arc<impl AsyncLoader<K, V>>) {
        if let Some((job, request, started)) = self.begin() {
            let returned = {
                // In a block of its own, so that calling the function is caught like polling it.
                let mut future = pin!(async { loader.load(&request).await });
                poll_fn(|cx| {
                    let _entered = job.claim.flight().frame.enter();
                    match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
                        Ok(Poll::Ready(returned)) => Poll::Ready(Ok(returned)),
                        Ok(Poll::Pending) => Poll::Pending,
                        Err(panic) => Poll::Ready(Err(panic)),
                    }
                })
                .await
            };
            drop(request);
            job.finish(returned, started);
        }
    }

    /// Counts the start, unless nobody wants the result any more.
    fn begin(self) -> Option<(Self, Request<K, V>, Tick)> {
        if !self.claim.is_wanted() {
            return None;
        }
        self.shared.counters.started(self.class);
        let request = Request {
            entry: self.claim.entry().clone(),
        };
        let started = self.shared.clock.exact();
        Some((self, request, started))
    }

    fn finish(self, returned: Result<Returned<V>, Box<dyn Any + Send>>, started: Tick) {
        let Job { claim, shared, .. } = self;
        let took = shared.clock.exact().saturating_sub(started);
        let now = shared.clock.now();
        shared.counters.took(took);
        let error = match returned {
            Ok(Ok(mut loaded)) => {
                let Some(value) = loaded.value.take() else {
                    let rest = loaded.fresh_for.map_or(shared.policy.absent_for, ticks);
                    return shared.remember(claim, Error::absent(), now, rest, 0);
                };
                let old = claim.entry();
                let cost = (!old.is_loading()).then(|| old.times.cost());
                let times =
                    with_rng(|rng| shared.policy.times(&loaded, now, cost, Some(took), rng));
                let weight = shared.weigh(&old.key, &value);
                let standing = old.standing(weight);
                let new = Entry::ready(old.key.clone(), value, times, standing);
                let failed_before = claim.failures() > 0;
                let new = Arc::new(new);
                let published = claim.publish(new.clone(), now);
                shared.counters.published(published);
                if failed_before && published == Published::Yes {
                    // The next failure of this key is the first again.
                    shared.absent.forget(&new.key);
                }
                return;
            }
            Ok(Err(error)) => error,
            Err(panic) => Error::panicked(&*panic),
        };
        shared.counters.failed();
        let failures = claim.failures();
        let rest = with_rng(|rng| shared.policy.backoff(failures, rng));
        match claim.entry().is_loading() {
            true => shared.remember(claim, error, now, rest, failures + 1),
            false => claim.fail(error, now.saturating_add(rest)),
        }
    }

    /// Gives the claim back untried, because the loader has no room.
    fn shed(self) {
        let Job {
            claim,
            class,
            shared,
        } = self;
        let rest = with_rng(|rng| shared.policy.backoff(0, rng));
        shared.counters.shed(class);
        claim.rest(Error::overloaded(), shared.clock.now().saturating_add(rest));
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
