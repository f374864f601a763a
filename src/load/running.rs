//! A job whose loader runs, and the end of the load.

use std::future::poll_fn;
use std::hash::Hash;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use crate::error::{BuildError, Error};
use crate::load::job::{Job, Panic, panicked};
use crate::load::loader::{Loaded, Loader, Request, Returned, boxed};
use crate::observe::metrics::{self, Ended};
use crate::observe::trace::{self, TraceSpan};
use crate::protocol::entry::Entry;
use crate::protocol::flight::Made;
use crate::rng::with_rng;
use crate::sync::Arc;
use crate::time::clock::{Tick, ticks};

/// How a load ended.
enum Ending<K, V> {
    Made(Arc<Entry<K, V>>),
    NotFound(Box<Loaded<V>>),
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
    /// Runs a function that computes, here and now.
    pub(super) fn compute(self, f: impl FnOnce(&Request<K, V>) -> Returned<V>) {
        if let Some(running) = self.begin() {
            let entered = running.job.claim.flight().wait_node().enter();
            let run = || running.span.within(|| f(&running.request));
            let returned = catch_unwind(AssertUnwindSafe(run));
            drop(entered);
            running.finish(returned);
        }
    }

    /// Runs a function that waits. Dropping this future gives the claim back.
    pub(super) async fn load(self, loader: Arc<impl Loader<K, V>>) {
        if let Some(running) = self.begin() {
            let returned = {
                // The loader is called inside an async block, so that a panic of the call is caught
                // like one of a poll.
                let mut future = pin!(async { boxed(loader.load(&running.request).await) });
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
    fn begin(mut self) -> Option<RunningJob<K, V>> {
        if !self.claim.is_wanted() {
            return None;
        }
        if let Err(refusal) = self.pass.begin() {
            self.refuse(refusal);
            return None;
        }
        self.state.counters.started(self.reason);
        Some(RunningJob {
            request: Request {
                entry: self.claim.entry().clone(),
                state: self.state.clone(),
            },
            started: self.state.clock.exact(),
            span: self.caller.load(&self.state.name, self.reason),
            job: self,
        })
    }

    fn finish(mut self, returned: Result<Returned<V>, Panic>, started: Tick) {
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
        self.answered(matches!(ended, Ended::Failed));
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

    /// Ends a load for which the system has no thread.
    pub(super) fn not_started(self, error: BuildError) {
        let now = self.state.clock.now();
        self.fail(Error::failed(error), false, now);
    }

    /// Ends a load that failed, or in which user code panicked.
    pub(super) fn fail(self, error: Error, panicked: bool, now: Tick) {
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
