//! A batch whose loader runs, and the end of each of its keys.
//!
//! The jobs of a batch share the call of the loader and its permits. Each keeps its own claim,
//! deadline and lease, and ends by itself:
//!
//! - A key that is no longer wanted when the batch starts, or is past its deadline, is not asked
//!   for.
//! - A key that is past its deadline while the loader runs rests, as after any time-out. When the
//!   last of the deadlines has passed, an async loader is dropped, and a computation gets a spare
//!   worker in its place.
//! - A key that is invalidated while the loader runs has its result discarded, and no other.
//! - A key whose own code panics fails alone.
//!
//! The loader runs as a part of the batch's own node in the wait graph, and each key has an edge to
//! it until that key has ended. So a loader that reads one of its own keys finds the cycle. The
//! results are published in the node too: user code that runs there, such as a weigher, may read a
//! key that has not been published yet.

use std::hash::Hash;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;

use crate::error::Error;
use crate::load::deadline::{Deadline, Running};
use crate::load::job::{Job, Panic, panicked};
use crate::load::load_many::{LoadMany, ReturnedMany, assign};
use crate::load::party::{Batch, Party};
use crate::load::running::{Answered, Inside, until_overdue};
use crate::load::state::CacheState;
use crate::load::workers::Workers;
use crate::observe::trace;
use crate::panics::isolated;
use crate::protocol::publish::Answer;
use crate::protocol::wait_graph::WaitNode;
use crate::sync::{Arc, Weak};
use crate::time::alarm::Sleeper;
use crate::time::clock::Tick;

/// One key of a batch that runs.
struct Member<K, V> {
    deadline: Arc<Deadline<K, V>>,
    job: Job<K, V>,
}

/// A batch whose loader runs.
struct RunningBatch<K, V> {
    keys: Vec<K>,
    /// One for each key, in their order.
    members: Vec<Member<K, V>>,
    /// The deadline that passes last. It has the permits of the call.
    last: Arc<Deadline<K, V>>,
    state: Arc<CacheState<K, V>>,
    started: Tick,
    inside: Inside,
    /// Dropped at the end, so that the next batch leaves after this one.
    _batch: Option<Batch>,
}

impl<K, V> Party<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// Runs a function that computes, here and now. Once it is past its deadlines, a spare of
    /// `workers` takes the place of this thread.
    pub(super) fn compute(
        self,
        f: impl FnOnce(&[K]) -> ReturnedMany<K, V>,
        workers: Weak<Workers>,
    ) {
        if let Some(running) = self.begin(Some(workers)) {
            let run = || running.inside.within(|| f(&running.keys));
            let returned = catch_unwind(AssertUnwindSafe(run));
            running.finish(Some(returned));
        }
    }

    /// Runs a function that waits. Dropping this future gives the claims back. Polling it never
    /// panics, because that could end the thread of an executor.
    pub(super) async fn load(self, loader: Arc<impl LoadMany<K, V>>) {
        let mut begun = None;
        isolated(|| begun = self.begin(None));
        if let Some(running) = begun {
            let returned = {
                // The loader is called inside an async block, so that a panic of the call is caught
                // like one of a poll.
                let load = async { loader.returned(&running.keys).await };
                let keeps = running.state.policy.keep_late_loads;
                until_overdue(&running.inside, &running.last, keeps, pin!(Some(load))).await
            };
            isolated(|| running.finish(returned));
        }
    }

    /// Counts the starts. `None` if no result is wanted any more.
    fn begin(self, workers: Option<Weak<Workers>>) -> Option<RunningBatch<K, V>> {
        let Party {
            mut lead,
            rest,
            batch,
        } = self;
        let (state, reason) = (lead.state.clone(), lead.reason);
        let mut pass = lead.pass.take();
        let span = lead.caller.load(&state.name, reason);
        let now = state.clock.now();
        let mut jobs = Vec::with_capacity(1 + rest.len());
        for mut job in std::iter::once(lead).chain(rest) {
            // A load without a permit was asked for by another load, which waits for this very
            // result.
            if !job.pass.is_free() && !job.claim.is_effective(Answer::Failed) {
                job.abandon();
            } else if job.claim.start(now) {
                jobs.push(job);
            } else if job.claim.is_wanted() {
                job.too_late(now);
            } else {
                job.abandon();
            }
        }
        if state.lifecycle.is_closed() {
            jobs.drain(..).for_each(Job::closed);
        }
        if jobs.is_empty() {
            return None;
        }
        if let Err(refusal) = pass.begin() {
            jobs.into_iter().for_each(|job| job.refuse(refusal));
            return None;
        }
        state.counters.batch();
        let node = Arc::new(WaitNode::default());
        for job in &mut jobs {
            state.counters.started(job.reason);
            // Before the first line of the loader.
            job.begins();
            job.runs_in = Some(job.claim.flight().wait_node().run_in(&node));
        }
        let inside = Inside { node, span };
        let (keys, jobs) = inside.within(|| asked(jobs, now));
        let deadline = |job: &Job<K, V>| job.claim.expiry().deadline();
        let (at_last, _) = (jobs.iter().enumerate()).max_by_key(|(_, job)| deadline(job))?;
        let mut call = Some((workers, pass));
        let mut members = Vec::with_capacity(jobs.len());
        for (at, job) in jobs.into_iter().enumerate() {
            let lease = job.lease.as_ref().map(|lease| lease.at_deadline());
            let call = call.take_if(|_| at == at_last);
            let (workers, pass) =
                call.map_or((None, None), |(workers, pass)| (workers, Some(pass)));
            let running = Running::new(job.reason, lease, workers, pass);
            let deadline = Arc::new(Deadline::new(job.claim.expiry(), state.clone(), running));
            members.push(Member { deadline, job });
        }
        for Member { deadline, job } in &members {
            let sleeper: Arc<dyn Sleeper> = deadline.clone();
            job.claim.flight().watch(&sleeper, &state.clock);
        }
        let last = members.get(at_last)?.deadline.clone();
        let started = state.clock.exact();
        Some(RunningBatch {
            keys,
            members,
            last,
            state,
            started,
            inside,
            _batch: batch,
        })
    }
}

/// The keys for the loader. A job whose key cannot be cloned fails here.
fn asked<K, V>(jobs: Vec<Job<K, V>>, now: Tick) -> (Vec<K>, Vec<Job<K, V>>)
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    let (mut keys, mut asked) = (
        Vec::with_capacity(jobs.len()),
        Vec::with_capacity(jobs.len()),
    );
    for mut job in jobs {
        match catch_unwind(AssertUnwindSafe(|| job.key().clone())) {
            Ok(key) => {
                keys.push(key);
                asked.push(job);
            }
            Err(panic) => job.fail(panicked(panic), true, now),
        }
    }
    (keys, asked)
}

impl<K, V> RunningBatch<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    fn finish(self, returned: Option<Result<ReturnedMany<K, V>, Panic>>) {
        let RunningBatch {
            keys,
            members,
            last,
            state,
            started,
            inside,
            _batch,
        } = self;
        let took = state.clock.exact().saturating_sub(started);
        let answers = inside.within(|| answers(&keys, returned));
        let is_last = |deadline: &Arc<Deadline<K, V>>| Arc::ptr_eq(deadline, &last);
        let mut pass = None;
        let mut ended = Vec::with_capacity(members.len());
        for (Member { deadline, job }, answer) in members.into_iter().zip(answers) {
            let (late, passes) = deadline.end();
            if is_last(&deadline) {
                pass = passes.filter(|_| !late).or(pass);
            }
            ended.push((job, answer, late));
        }
        drop((keys, last));
        if let Some(pass) = &mut pass {
            let answers = ended.iter().map(|(_, answer, _)| answer);
            pass.ended(failed(answers), |changed| {
                trace::breaker(&state.name, changed)
            });
        }
        end_each(ended, |(job, answer, late)| {
            inside.within(|| job.finish(answer, took, late));
        });
    }
}

/// Ends the keys of a batch. A value that a result replaces may panic when it is dropped, which
/// harms no other key.
pub fn end_each<T>(keys: impl IntoIterator<Item = T>, end: impl Fn(T)) {
    for key in keys {
        isolated(|| end(key));
    }
}

/// The answer for each key, in their order.
fn answers<K: Hash + Eq, V>(
    keys: &[K],
    returned: Option<Result<ReturnedMany<K, V>, Panic>>,
) -> Vec<Answered<V>> {
    let everybodys = |answered: &dyn Fn() -> Answered<V>| keys.iter().map(|_| answered()).collect();
    match returned {
        Some(Ok(Ok(answers))) => assign(keys, answers),
        Some(Ok(Err(error))) => {
            let error = Error::failed(error);
            everybodys(&|| Answered::Failed(error.clone()))
        }
        Some(Err(panic)) => {
            let error = panicked(panic);
            everybodys(&|| Answered::Panicked(error.clone()))
        }
        None => everybodys(&|| Answered::TimedOut),
    }
}

/// Whether a call counts as failed for a breaker; see [`Pass::ended`]. It does if no key has an
/// answer.
fn failed<'a, V: 'a>(answers: impl Iterator<Item = &'a Answered<V>>) -> Option<bool> {
    let mut blames = None;
    for answer in answers {
        match answer {
            Answered::Loaded(_) => return Some(false),
            Answered::Failed(error) => blames = blames.or(error.blames_origin()),
            Answered::Panicked(_) | Answered::TimedOut => blames = Some(true),
        }
    }
    blames
}
