//! A job whose loader runs, and the end of the load.

use std::future::poll_fn;
use std::hash::Hash;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use crate::error::Error;
use crate::load::deadline::{Deadline, Running};
use crate::load::job::{Job, Panic, panicked};
use crate::load::loader::{Load, Loaded, Request, Returned};
use crate::load::workers::Workers;
use crate::observe::metrics::{self, Ended};
use crate::observe::trace::TraceSpan;
use crate::panics::isolated;
use crate::protocol::entry::Entry;
use crate::protocol::flight::Made;
use crate::protocol::groups::Cell;
use crate::protocol::publish::{Answer, Published};
use crate::protocol::wait_graph::WaitNode;
use crate::sync::{Arc, StrongArc, Weak};
use crate::time::alarm::Sleeper;
use crate::time::clock::{Tick, ticks};

/// What a load returned for one key, or that it did not.
pub enum Answered<V> {
    Loaded(Box<Loaded<V>>),
    Failed(Error),
    Panicked(Error),
    /// Its future was dropped at its deadline.
    TimedOut,
}

impl<V> Answered<V> {
    pub(super) fn by(returned: Option<Result<Returned<V>, Panic>>) -> Self {
        match returned {
            Some(Ok(Ok(loaded))) => Answered::Loaded(loaded),
            Some(Ok(Err(error))) => Answered::Failed(Error::failed(error)),
            Some(Err(panic)) => Answered::Panicked(panicked(panic)),
            None => Answered::TimedOut,
        }
    }
}

/// How a load ended.
enum Ending<K, V> {
    Made(StrongArc<Entry<K, V>>),
    NotFound(Box<Loaded<V>>),
    Failed(Error),
    Panicked(Error),
    TimedOut,
}

/// Where the code of a loader runs: as a part of this node, in this span.
pub(super) struct Inside {
    pub(super) node: Arc<WaitNode>,
    pub(super) span: TraceSpan,
}

impl Inside {
    pub(super) fn within<R>(&self, run: impl FnOnce() -> R) -> R {
        let _entered = self.node.enter();
        self.span.within(run)
    }
}

/// A job whose loader runs.
struct RunningJob<K, V> {
    // Dropped before the claim that it was made from.
    request: Request<K, V>,
    deadline: Arc<Deadline<K, V>>,
    job: Job<K, V>,
    started: Tick,
    inside: Inside,
}

impl<K, V> Job<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// Runs a function that computes, here and now. While it is past its deadline, a spare of
    /// `workers` takes the place of this thread.
    pub(super) fn compute(
        self,
        f: impl FnOnce(&Request<K, V>) -> Returned<V>,
        workers: Weak<Workers>,
    ) {
        if let Some(running) = self.begin(Some(workers)) {
            let run = || running.inside.within(|| f(&running.request));
            let returned = catch_unwind(AssertUnwindSafe(run));
            running.finish(Some(returned));
        }
    }

    /// Runs a function that waits. Dropping this future gives the claim back. Polling it never
    /// panics, because that could end the thread of an executor.
    pub(super) async fn load(self, loader: Arc<impl Load<K, V>>) {
        let mut begun = None;
        isolated(|| begun = self.begin(None));
        if let Some(running) = begun {
            let returned = {
                // The loader is called inside an async block, so that a panic of the call is caught
                // like one of a poll.
                let load = async { loader.returned(&running.request).await };
                let keeps = running.job.state.policy.keep_late_loads;
                until_overdue(&running.inside, &running.deadline, keeps, pin!(Some(load))).await
            };
            // The value that the result replaces may panic when it is dropped.
            isolated(|| running.finish(returned));
        }
    }

    /// Counts the start. `None` if the result is no longer wanted.
    fn begin(mut self, workers: Option<Weak<Workers>>) -> Option<RunningJob<K, V>> {
        let now = self.state.clock.now();
        if !self.claim.start(now) {
            match self.claim.is_wanted() {
                true => self.too_late(now),
                false => self.abandon(),
            }
            return None;
        }
        if self.state.lifecycle.is_closed() {
            self.closed();
            return None;
        }
        if let Err(refusal) = self.pass.begin() {
            self.refuse(refusal);
            return None;
        }
        self.state.counters.started(self.reason);
        let lease = self.lease.as_ref().map(|lease| lease.at_deadline());
        let running = Running::new(self.reason, lease, workers, Some(self.pass.take()));
        let deadline = Arc::new(Deadline::new(
            self.claim.expiry(),
            self.state.clone(),
            running,
        ));
        // Before the first line of the loader.
        self.begins();
        let sleeper: Arc<dyn Sleeper> = deadline.clone();
        let flight = self.claim.flight();
        flight.watch(&sleeper, &self.state.clock);
        let started = self.state.clock.exact();
        Some(RunningJob {
            request: Request {
                entry: self.claim.entry().clone(),
                state: self.state.clone(),
            },
            deadline,
            started,
            inside: Inside {
                node: self.node().clone(),
                span: self.caller.load(&self.state.name, self.reason),
            },
            job: self,
        })
    }

    /// Ends the job with what the load returned after so long; `late` says that it came after the
    /// deadline.
    pub(super) fn finish(mut self, answered: Answered<V>, took: Tick, late: bool) {
        let now = self.state.clock.now();
        self.state.counters.took(took);
        let ending = self.ending(answered, took, now);
        let ended = match &ending {
            Ending::Made(_) => Ended::Ok,
            Ending::NotFound(_) => Ended::NotFound,
            Ending::Failed(_) | Ending::Panicked(_) => Ended::Failed,
            Ending::TimedOut => Ended::TimedOut,
        };
        metrics::loaded(&self.state.name, self.reason, ended, took);
        if !late {
            self.answered(match &ending {
                Ending::Failed(error) => error.blames_origin(),
                _ => Some(matches!(ended, Ended::Failed)),
            });
        }
        match ending {
            Ending::Made(new) => {
                let published = self.publish(new, Made::Here, now);
                if late {
                    self.state.counters.late(published == Published::Yes);
                }
            }
            Ending::NotFound(loaded) => self.not_found(&loaded, now, late),
            Ending::Failed(error) => self.fail(error, false, now),
            Ending::Panicked(error) => self.fail(error, true, now),
            Ending::TimedOut => self.time_out(now),
        }
    }
}

impl<K: Hash + Eq + Clone + Send + Sync + 'static, V> Job<K, V> {
    fn ending(&self, answered: Answered<V>, took: Tick, now: Tick) -> Ending<K, V> {
        let mut loaded = match answered {
            Answered::Loaded(loaded) => loaded,
            Answered::Failed(error) => return Ending::Failed(error),
            Answered::Panicked(error) => return Ending::Panicked(error),
            Answered::TimedOut => return Ending::TimedOut,
        };
        if loaded.value.is_none() {
            return Ending::NotFound(loaded);
        }
        let policy = &self.state.policy;
        let old = self.claim.entry();
        let cost = (!old.is_loading()).then(|| old.times().cost());
        let times = policy.draw_times(loaded.given(), now, cost, Some(took));
        let groups = std::mem::take(&mut loaded.groups);
        let cells = groups.into_iter().map(Cell::of).collect();
        match self.entry(&mut loaded.value, times, cells) {
            Ok(new) => Ending::Made(new),
            Err(panic) => Ending::Panicked(panicked(panic)),
        }
    }

    /// Ends a load for which the system has no thread.
    pub(super) fn not_started(mut self, error: Error) {
        let now = self.state.clock.now();
        self.fail(error, false, now);
    }

    /// Ends a load that failed, or in which user code panicked.
    pub(super) fn fail(&mut self, error: Error, panicked: bool, now: Tick) {
        let state = &*self.state;
        let failures = self.claim.failures();
        // Before the waiting callers learn of it, because they may trace it as well.
        let rest = state.failed(self.reason, panicked, failures);
        let claim = self.claim.take();
        match claim.entry().is_loading() {
            true => {
                // After its deadline the key rests already, and the failure changes nothing.
                let (until, failures) = claim
                    .rest_of_placeholder()
                    .unwrap_or((now.saturating_add(rest), failures + 1));
                let rest = until.saturating_sub(now);
                state.remember(claim, Answer::Failed, error, now, rest, failures);
            }
            false => claim.fail(error, now.saturating_add(rest)),
        }
        if let Some(lease) = self.lease.take() {
            lease.failed(Duration::from_nanos(rest));
        }
    }

    /// Ends a load whose future was dropped at its deadline. The deadline has ended the claim; the
    /// rest of a missing key moves from its placeholder to a negative entry.
    fn time_out(&mut self, now: Tick) {
        let state = &*self.state;
        if let Some((until, failures)) = self.claim.rest_of_placeholder() {
            let error = Error::timed_out(state.policy.load_timeout);
            let rest = until.saturating_sub(now);
            let claim = self.claim.take();
            state.remember(claim, Answer::Failed, error, now, rest, failures);
        }
    }

    fn not_found(&mut self, loaded: &Loaded<V>, now: Tick, late: bool) {
        let state = &*self.state;
        let rest = loaded.fresh_for.map_or(state.policy.not_found_for, ticks);
        let (answer, error) = (Answer::NotFound, Error::not_found());
        let (entry, began) = (self.claim.entry().clone(), self.claim.flight().began());
        let removed = state.remember(self.claim.take(), answer, error, now, rest, 0);
        if late {
            state.counters.late(removed);
        }
        if let Some(lease) = self.lease.take() {
            lease.not_found(&entry.key, rest, began);
        }
    }
}

impl<K, V> RunningJob<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    fn finish(self, returned: Option<Result<Returned<V>, Panic>>) {
        let RunningJob {
            request,
            deadline,
            mut job,
            started,
            inside,
        } = self;
        let took = job.state.clock.exact().saturating_sub(started);
        let (late, pass) = deadline.end();
        if let Some(pass) = pass {
            job.pass = pass;
        }
        // From here on only the claim keeps the entry.
        drop((request, deadline));
        (inside.span).within(|| job.finish(Answered::by(returned), took, late));
    }
}

/// Waits for what a loader returns; `None` if its future was dropped at the deadline, which does
/// not happen if late loads are kept.
pub(super) async fn until_overdue<K, V, F: Future>(
    inside: &Inside,
    deadline: &Deadline<K, V>,
    keeps: bool,
    mut load: Pin<&mut Option<F>>,
) -> Option<Result<F::Output, Panic>> {
    let mut passed = pin!(None);
    poll_fn(|cx| {
        let Some(running) = load.as_mut().as_pin_mut() else {
            return Poll::Ready(None);
        };
        match catch_unwind(AssertUnwindSafe(|| inside.within(|| running.poll(cx)))) {
            Ok(Poll::Ready(returned)) => return Poll::Ready(Some(Ok(returned))),
            Err(panic) => return Poll::Ready(Some(Err(panic))),
            Ok(Poll::Pending) if keeps => return Poll::Pending,
            Ok(Poll::Pending) => {}
        }
        // Only a load that has to wait pays for this.
        if passed.is_none() {
            passed.set(Some(deadline.passed()));
        }
        match passed.as_mut().as_pin_mut().map(|passed| passed.poll(cx)) {
            Some(Poll::Ready(())) => {
                isolated(|| inside.within(|| load.set(None)));
                Poll::Ready(None)
            }
            _ => Poll::Pending,
        }
    })
    .await
}
