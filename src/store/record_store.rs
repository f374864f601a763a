//! A store over records: the lease protocol for any database with atomic steps.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use super::background::Background;
use super::change_listeners::ChangeListeners;
use super::change_queue::ChangeQueue;
use super::envelope;
use super::error::StoreError;
use super::key::{Namespace, StoreKey};
use super::lease::{Acquire, Acquired, Birth, Publish, Stored, Token};
use super::record::Record;
use super::stats::{StoreCounters, StoreStats};
use super::step::Step;
use super::timelines::Timelines;
use super::{Change, ChangeListener, Reply, Store, StoreState};
use crate::sync::future::BoxFuture;
use crate::sync::{Counter, Ordering, Weak};

/// A database with one [`Record`] for each key. A [`RecordStore`] needs no more.
///
/// # Example
///
/// ```
/// use std::collections::HashMap;
/// use std::sync::Mutex;
/// use std::time::UNIX_EPOCH;
/// use everfresh::store::{Record, RecordStore, Records, StoreError, StoreKey};
///
/// #[derive(Debug, Default)]
/// struct Map(Mutex<HashMap<u128, Vec<u8>>>);
///
/// impl Records for Map {
///     async fn update<T: Send>(
///         &self,
///         key: &StoreKey,
///         step: impl FnOnce(&mut Record) -> T + Send,
///     ) -> Result<T, StoreError> {
///         let mut map = self.0.lock().unwrap(); // or begin a transaction
///         let bytes = map.get(&key.hash()).cloned().unwrap_or_default();
///         let mut record = Record::from_bytes(bytes);
///         let result = step(&mut record);
///         if record.is_changed() {
///             map.insert(key.hash(), record.to_bytes());
///         }
///         Ok(result)
///     }
///
///     fn now(&self) -> u64 {
///         UNIX_EPOCH.elapsed().map_or(0, |now| now.as_micros() as u64)
///     }
/// }
///
/// let store = RecordStore::over(Map::default());
/// # let _ = store;
/// ```
pub trait Records: fmt::Debug + Send + Sync + 'static {
    /// Reads the record of a key, runs the step on it once, and stores the result.
    ///
    /// All of this is one atomic step for all threads and processes. A key that has no record has
    /// the default record. The step is quick, waits for nothing and calls no other code, so it may
    /// run within a lock or a transaction. The update must end in a time limit of its own, and must
    /// not block the thread for long.
    ///
    /// # Errors
    ///
    /// The record could not be read, or it is not known to be stored.
    fn update<T: Send>(
        &self,
        key: &StoreKey,
        step: impl FnOnce(&mut Record) -> T + Send,
    ) -> impl Future<Output = Result<T, StoreError>> + Send;

    /// The time in microseconds since 1970, by one clock for all processes that share the records.
    ///
    /// An epoch is later than every epoch that this process gave before and than the one in the
    /// record, unless this clock was set back by more than a second since: then a new
    /// [timeline](Store::timeline) begins. Between processes, an epoch after a removal is later
    /// only if this clock went on.
    ///
    /// Called within each step as well, so it must take no lock that [`update`](Self::update)
    /// holds, and must not wait.
    fn now(&self) -> u64;
}

/// A [`Store`] over [`Records`]: the lease protocol, written once for all of them.
///
/// Each operation is one [`Records::update`]; [`Store::read`] makes one for each key. Listeners get
/// each change that this store made, in order and outside of every step, once its record and those
/// of earlier changes are stored. They do not get the changes of other processes. Background work
/// runs on one thread, which starts with the first such work.
pub struct RecordStore<R> {
    pub(super) records: R,
    limit: usize,
    /// The last epoch given.
    last: Counter,
    timelines: Timelines,
    changes: ChangeQueue<(Namespace, Change)>,
    listeners: ChangeListeners,
    gaps: Counter,
    /// Whether only caches of this process make changes.
    pub(super) is_local: bool,
    counters: StoreCounters,
    background: Background,
}

impl<R: Records> RecordStore<R> {
    /// Makes a store over these records.
    pub fn over(records: R) -> Self {
        RecordStore {
            records,
            limit: envelope::LONGEST,
            last: Counter::new(0),
            timelines: Timelines::default(),
            changes: ChangeQueue::default(),
            listeners: ChangeListeners::default(),
            gaps: Counter::new(1),
            is_local: false,
            counters: StoreCounters::default(),
            background: Background::default(),
        }
    }

    /// Sets the largest payload, in bytes. Default: room for an encoded value of 8 MiB.
    pub fn limit(mut self, bytes: usize) -> Self {
        self.limit = bytes;
        self
    }

    /// Runs one operation atomically, and then delivers its change.
    async fn step<T: Send>(
        &self,
        key: &StoreKey,
        step: impl FnOnce(&mut Step<'_>) -> Result<T, StoreError> + Send,
    ) -> Result<T, StoreError> {
        let mut place = self.changes.place();
        let update = self.records.update(key, |record| {
            let now = self.records.now();
            self.timelines.observe(now);
            let mut moment = Step::new(record, now, &self.last, self.limit);
            let result = step(&mut moment);
            if let Some((kind, epoch, origin)) = moment.change {
                let hash = key.hash();
                let change = Change {
                    kind,
                    epoch,
                    hash,
                    origin,
                };
                place.take((key.namespace().clone(), change));
            }
            result
        });
        let result = update.await;
        drop(place);
        self.changes.deliver(|(namespace, change)| {
            self.counters.changed(true);
            self.listeners.notify(namespace.as_str(), &change);
        });
        if self.timelines.is_new() {
            // Changes since the clock was set back may have been ignored.
            self.gap();
        }
        result.and_then(|result| result)
    }

    /// Tells listeners that changes may have been missed.
    fn gap(&self) {
        // Release: pairs with the load in `gaps`.
        let gaps = self.gaps.fetch_add(1, Ordering::AcqRel) + 1;
        self.listeners.reconnected(gaps, |_| true);
    }

    /// As [`step`](Self::step), and counts an error.
    fn counted<'a, T: Send + 'a>(
        &'a self,
        key: &'a StoreKey,
        step: impl FnOnce(&mut Step<'_>) -> Result<T, StoreError> + Send + 'a,
    ) -> Reply<'a, Result<T, StoreError>> {
        Box::pin(async move { self.counters.result(self.step(key, step).await) })
    }
}

impl<R: Records> Store for RecordStore<R> {
    fn read<'a>(
        &'a self,
        keys: &'a [StoreKey],
    ) -> Reply<'a, Vec<Result<Option<Vec<u8>>, StoreError>>> {
        Box::pin(async move {
            let mut answers = Vec::with_capacity(keys.len());
            for key in keys {
                answers.push(self.step(key, |step| step.read()).await);
            }
            self.counters.read(&answers);
            answers
        })
    }

    fn acquire<'a>(
        &'a self,
        key: &'a StoreKey,
        ask: Acquire,
    ) -> Reply<'a, Result<Acquired, StoreError>> {
        self.counted(key, move |step| step.acquire(ask))
    }

    fn publish<'a>(
        &'a self,
        key: &'a StoreKey,
        publish: Publish,
    ) -> Reply<'a, Result<Stored, StoreError>> {
        self.counted(key, move |step| step.publish(publish))
    }

    fn renew<'a>(
        &'a self,
        key: &'a StoreKey,
        token: Token,
        lease: Duration,
    ) -> Reply<'a, Result<bool, StoreError>> {
        self.counted(key, move |step| Ok(step.renew(token, lease)))
    }

    fn release<'a>(
        &'a self,
        key: &'a StoreKey,
        token: Token,
        cool_down: Option<Duration>,
    ) -> Reply<'a, Result<bool, StoreError>> {
        self.counted(key, move |step| Ok(step.release(token, cool_down)))
    }

    fn set<'a>(
        &'a self,
        key: &'a StoreKey,
        payload: Vec<u8>,
        ttl: Duration,
        birth: Birth,
    ) -> Reply<'a, Result<Stored, StoreError>> {
        self.counted(key, move |step| step.set(payload, ttl, birth))
    }

    fn invalidate<'a>(
        &'a self,
        key: &'a StoreKey,
        birth: Birth,
    ) -> Reply<'a, Result<Stored, StoreError>> {
        self.counted(key, move |step| step.invalidate(birth))
    }

    fn now(&self) -> Option<u64> {
        Some(self.records.now())
    }

    fn gaps(&self) -> u64 {
        // Acquire: a caller that reads a count sees everything before its increment.
        self.gaps.load(Ordering::Acquire)
    }

    fn timeline(&self) -> u64 {
        self.timelines.current()
    }

    fn tells_everything(&self) -> bool {
        self.is_local
    }

    fn state(&self) -> StoreState {
        StoreState::Up
    }

    fn stats(&self) -> StoreStats {
        self.counters.snapshot()
    }

    fn subscribe(&self, namespace: &Namespace, listener: Weak<dyn ChangeListener>) {
        self.listeners.add(namespace, listener);
        self.listeners.greet(self.gaps(), |_| true);
    }

    fn spawn(&self, work: BoxFuture) {
        self.background.spawn(work);
    }
}

impl<R: Records> fmt::Debug for RecordStore<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RecordStore").field(&self.records).finish()
    }
}

/// Faults of servers, for tests.
///
/// Each blocks until the record is stored.
///
/// # Panics
///
/// If the records return an error.
#[cfg(any(test, feature = "test-util"))]
#[allow(clippy::expect_used, reason = "a panic is the result of a test")]
impl<R: Records> RecordStore<R> {
    /// Puts arbitrary bytes under a key, without expiry and without notifying listeners.
    pub fn plant(&self, key: &StoreKey, bytes: Vec<u8>) {
        let until = u64::MAX;
        let payload = super::record::Payload { bytes, until };
        self.edit(key, |record| record.set_payload(Some(payload)));
    }

    /// Drops a lease, as a server that evicts does.
    pub fn lose_lease(&self, key: &StoreKey) {
        self.edit(key, |record| record.set_lease(None));
    }

    /// Drops a payload, as a server that evicts does, without notifying listeners.
    pub fn lose_data(&self, key: &StoreKey) {
        self.edit(key, |record| record.set_payload(None));
    }

    /// The time left of a lease or a cool-down.
    pub fn lease_left(&self, key: &StoreKey) -> Option<Duration> {
        self.left(self.edit(key, |record| Some(record.lease.as_ref()?.until)))
    }

    /// The time left until a payload expires.
    pub fn data_left(&self, key: &StoreKey) -> Option<Duration> {
        self.left(self.edit(key, |record| Some(record.payload.as_ref()?.until)))
    }

    /// Tells listeners that changes may have been missed, as after a lost connection.
    pub fn reconnect(&self) {
        self.gap();
    }

    /// The limit that [`limit`](Self::limit) set.
    pub(crate) fn longest(&self) -> usize {
        self.limit
    }

    fn edit<T: Send>(&self, key: &StoreKey, edit: impl FnOnce(&mut Record) -> T + Send) -> T {
        let update = std::pin::pin!(self.records.update(key, edit));
        crate::sync::future::block_on(update).expect("the records return no error")
    }

    fn left(&self, until: Option<u64>) -> Option<Duration> {
        let left = until?.saturating_sub(self.records.now());
        (left > 0).then(|| Duration::from_micros(left))
    }
}
