//! Jobs whose keys are missing here read the store together.
//!
//! The jobs of one call for many keys are a batch of their own, which the task of that call reads;
//! so is a job that is alone. Jobs of several calls are collected, and one task reads for all of
//! them.

use std::hash::Hash;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::Fleet;
use super::asking::Ask;
use super::changes::payloads;
use super::fetch::Asking;
use super::version::Moment;
use crate::load::job::Job;
use crate::store::{StoreError, StoreKey};
use crate::sync::Arc;
use crate::sync::future::yield_now;

/// Keys that one request reads from the store.
pub(super) const TOGETHER: usize = 64;

/// After this many answers of several readers the task yields, so that these readers run first.
const IN_TURN: usize = 16;

/// Jobs whose keys are read together.
struct Batch<K, V> {
    keys: Vec<StoreKey>,
    asking: Vec<Asking<K, V>>,
    /// Those that do not read, and only ask for their leases.
    asks: Vec<Ask<K, V>>,
    /// The buffer for encoded keys.
    encoded: Vec<u8>,
}

impl<K, V> Batch<K, V> {
    fn of(jobs: usize) -> Self {
        Batch {
            keys: Vec::with_capacity(jobs),
            asking: Vec::with_capacity(jobs),
            asks: Vec::new(),
            encoded: Vec::new(),
        }
    }

    fn len(&self) -> usize {
        self.keys.len() + self.asks.len()
    }
}

impl<K, V> Fleet<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// Starts a job. A cache with a store calls this instead of running the loader.
    pub(super) fn start(self: &Arc<Self>, job: Job<K, V>) {
        if self.asking.push(job.begins_elsewhere()) {
            self.start_gathering();
        }
    }

    fn start_gathering(self: &Arc<Self>) {
        if !self.store.spawn(self.clone().batcher()) {
            self.end_jobs();
        }
    }

    /// Ends the jobs that wait, because the cache was closed.
    pub(super) fn end_jobs(&self) {
        loop {
            while let Some(job) = self.asking.next() {
                job.closed();
            }
            if self.asking.stops() {
                return;
            }
        }
    }

    /// Reads the keys of the jobs of one call.
    pub(super) async fn read_jobs(self: Arc<Self>, jobs: Vec<Job<K, V>>) {
        let mut batch = Batch::of(jobs.len());
        for job in jobs {
            self.prepare(job.begins_elsewhere(), &mut batch);
        }
        self.read(batch, TOGETHER).await;
    }

    /// Takes the jobs that wait, then reads for them. The next batch does not wait for that.
    async fn batcher(self: Arc<Self>) {
        // Tasks that are ready on this thread run first, because they may push more jobs.
        yield_now().await;
        let most = self.together();
        let mut batch = Batch::of(self.asking.waiting().min(most));
        let stopped = loop {
            while let Some(job) = (batch.len() < most).then(|| self.asking.next()).flatten() {
                self.prepare(job, &mut batch);
            }
            if batch.len() >= most {
                break false;
            }
            if self.asking.stops() {
                break true;
            }
        };
        if !stopped {
            self.start_gathering();
        }
        self.read(batch, IN_TURN).await;
    }

    /// The most jobs that one task takes. A batch of the loader is not split.
    fn together(&self) -> usize {
        let batches = self.state.batches.as_ref();
        batches.map_or(TOGETHER, |batches| batches.max_keys().max(TOGETHER))
    }

    /// Adds a job to a batch, unless it ends here.
    fn prepare(self: &Arc<Self>, job: Job<K, V>, batch: &mut Batch<K, V>) {
        // A key's `Eq` may panic. That ends its own job and no other.
        let prepared = catch_unwind(AssertUnwindSafe(|| self.prepared(job, &mut batch.encoded)));
        match prepared.ok().flatten() {
            Some((key, asking, true)) => {
                batch.keys.push(key);
                batch.asking.push(asking);
            }
            Some((key, asking, false)) => batch.asks.push((key, asking, None)),
            None => {}
        }
    }

    /// Encodes the name of the key, and says whether it is to be read. The job ends here if its key
    /// cannot be encoded, or if too many jobs are under way.
    fn prepared(
        self: &Arc<Self>,
        job: Job<K, V>,
        encoded: &mut Vec<u8>,
    ) -> Option<(StoreKey, Asking<K, V>, bool)> {
        if self.state.lifecycle.is_closed() {
            job.closed();
            return None;
        }
        let Some(key) = self.name_by(job.key(), encoded) else {
            self.unleased(job);
            return None;
        };
        let Some(underway) = self.enter() else {
            job.shed();
            return None;
        };
        job.begins();
        let flushed = self.track(&key, job.key(), job.set());
        let asking = Asking {
            job,
            _underway: underway,
        };
        let reads = asking.job.is_cold() && flushed;
        Some((key, asking, reads))
    }

    /// Reads missing keys together, and asks for the leases of those that the store does not have.
    /// The task yields after each `in_turn` answers.
    async fn read(self: &Arc<Self>, batch: Batch<K, V>, in_turn: usize) {
        let Batch {
            keys, asking, asks, ..
        } = batch;
        self.ask(asks);
        if keys.is_empty() {
            return;
        }
        let mut asks = Vec::new();
        let timeline = self.timeline();
        let answers = self.store.read(&keys).await;
        let mut moment = self.answered_with(timeline, payloads(&answers)).await;
        let answered = keys.into_iter().zip(asking).zip(answers);
        for (at, ((key, asking), answer)) in answered.enumerate() {
            // Readers that have their answers can ask for their next keys now, instead of after all
            // others.
            if at % in_turn == in_turn - 1 {
                yield_now().await;
                // Read the clock again: the yield may have been long, and ages must not be
                // underestimated.
                moment = self.later(moment);
            }
            // If user code panics here, the other jobs still get their answers.
            let answered = || self.answered(key, asking, answer, moment);
            let ask = catch_unwind(AssertUnwindSafe(answered));
            asks.extend(ask.ok().flatten());
        }
        self.ask(asks);
    }

    fn answered(
        self: &Arc<Self>,
        key: StoreKey,
        asking: Asking<K, V>,
        answer: Result<Option<Vec<u8>>, StoreError>,
        moment: Moment,
    ) -> Option<Ask<K, V>> {
        let Asking { job, _underway } = asking;
        let (job, seen) = match answer {
            Ok(Some(payload)) => self.install(job, &key, &payload, moment)?,
            Ok(None) => {
                self.counters.misses.add();
                (job, None)
            }
            // The stored data is no payload, or the store cannot be reached.
            Err(_) => {
                self.unleased(job);
                return None;
            }
        };
        Some((key, Asking { job, _underway }, seen))
    }
}
