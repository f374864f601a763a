//! A store that fails on command, for tests of code that uses a store.

use std::collections::HashMap;
use std::fmt;
use std::future::{Future, pending};
use std::time::Duration;

use super::change_listeners::ChangeListeners;
use super::error::{ErrorClass, StoreError};
use super::key::{Namespace, StoreKey};
use super::lease::{Acquire, Acquired, Birth, Publish, Stored, Token};
use super::stats::{StoreCounters, StoreStats};
use super::{Change, ChangeListener, Reply, Store, StoreState};
use crate::sync::event::Event;
use crate::sync::future::BoxFuture;
use crate::sync::future::block_on;
use crate::sync::{Arc, Mutex, MutexGuard, Weak, lock};

/// An operation of a [`Store`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// [`Store::read`]
    Read,
    /// [`Store::acquire`], and [`Store::acquire_many`] as one operation.
    Acquire,
    /// [`Store::publish`]
    Publish,
    /// [`Store::renew`]
    Renew,
    /// [`Store::release`]
    Release,
    /// [`Store::set`]
    Set,
    /// [`Store::invalidate`]
    Invalidate,
}

/// A fault of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The operation does not run, and fails.
    Fail(ErrorClass),
    /// The operation runs, and fails: its answer is lost.
    Lose(ErrorClass),
    /// The operation does not run, and its reply never ends.
    Hang,
    /// The operation waits for [`ChaosStore::let_go`], and runs then.
    Hold,
    /// The operation runs; its answer waits for [`ChaosStore::let_go`].
    HoldAnswer,
    /// The operation runs; one bit in the last byte of each payload in its answer is wrong.
    Corrupt,
}

/// A wrapper around any [`Store`] that fails on command. It never waits for time to pass.
///
/// # Example
///
/// ```
/// use std::sync::Arc;
/// use everfresh::store::{
///     ChaosStore, ErrorClass, Fault, MemoryStore, Namespace, Op, Store, StoreKey,
/// };
///
/// let store = ChaosStore::new(Arc::new(MemoryStore::new()));
/// let key = StoreKey::new(&Namespace::new("squares:v1")?, b"12");
/// store.next(Op::Read, Fault::Fail(ErrorClass::TimedOut));
/// # futures_lite::future::block_on(async {
/// let answer = store.read(std::slice::from_ref(&key)).await;
/// assert_eq!(answer[0].as_ref().unwrap_err().class(), ErrorClass::TimedOut);
/// assert_eq!(store.read(&[key]).await, [Ok(None)]); // the fault was for one operation
/// # });
/// assert_eq!(store.calls(Op::Read), 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct ChaosStore(Arc<ChaosShared>);

struct ChaosShared {
    inner: Arc<dyn Store>,
    script: Mutex<FaultScript>,
    /// A call began, or held calls were let go.
    changed: Event,
    change_listeners: ChangeListeners,
    counters: StoreCounters,
    /// Keeps the listener of each namespace in the inner store alive.
    listening: Mutex<HashMap<Namespace, Arc<Forwarder>>>,
}

#[derive(Default)]
struct FaultScript {
    next: HashMap<Op, Vec<Fault>>,
    always: HashMap<Op, Fault>,
    calls: HashMap<Op, usize>,
    down: Option<StoreError>,
    /// Before the first connection the time of the store is not known.
    never_connected: bool,
    /// Counts the times that held calls were let go.
    releases: u64,
    /// Changes that are held back; `None` if changes are not held.
    held_changes: Option<Vec<(Namespace, Change)>>,
    loses_changes: bool,
    /// Whether changes were ever lost.
    has_lost_changes: bool,
    gaps: u64,
    histories: u64,
}

/// Receives the changes of one namespace from the inner store.
struct Forwarder {
    namespace: Namespace,
    store: Weak<ChaosShared>,
}

impl ChaosStore {
    /// Wraps a store, without faults.
    pub fn new(inner: Arc<dyn Store>) -> Self {
        ChaosStore(Arc::new(ChaosShared {
            inner,
            script: Mutex::default(),
            changed: Event::new(),
            change_listeners: ChangeListeners::default(),
            counters: StoreCounters::default(),
            listening: Mutex::default(),
        }))
    }

    fn script(&self) -> MutexGuard<'_, FaultScript> {
        lock(&self.0.script)
    }

    /// Adds a fault for the next operation of this kind that has none.
    pub fn next(&self, op: Op, fault: Fault) {
        self.script().next.entry(op).or_default().push(fault);
    }

    /// Sets the fault of every operation of this kind that has no other; `None` for no fault.
    pub fn always(&self, op: Op, fault: Option<Fault>) {
        let mut script = self.script();
        match fault {
            Some(fault) => script.always.insert(op, fault),
            None => script.always.remove(&op),
        };
    }

    /// Lets all held operations and answers go.
    pub fn let_go(&self) {
        self.script().releases += 1;
        self.0.changed.notify_all();
    }

    /// Breaks the connection: every operation fails, and no change arrives.
    pub fn disconnect(&self) {
        self.script().down = Some(StoreError::new(ErrorClass::Unavailable, "chaos"));
    }

    /// As [`disconnect`](Self::disconnect), before the first connection: the time of the store is
    /// not known until [`reconnect`](Self::reconnect).
    pub fn not_connected_yet(&self) {
        self.disconnect();
        self.script().never_connected = true;
    }

    /// Restores the connection: [`Store::gaps`] rises, and changes arrive from now on.
    pub fn reconnect(&self) {
        let gaps = {
            let mut script = self.script();
            script.down = None;
            script.never_connected = false;
            script.gaps += 1;
            self.0.inner.gaps() + script.gaps
        };
        self.0.change_listeners.reconnected(gaps, |_| true);
    }

    /// Begins a new history, as a server does that comes back empty; to be called while the
    /// connection is broken. The inner store keeps what it has.
    pub fn begin_history(&self) {
        self.script().histories += 1;
    }

    /// Begins or ends to lose changes on their way to the listeners, silently.
    pub fn lose_changes(&self, lose: bool) {
        let mut script = self.script();
        script.loses_changes = lose;
        script.has_lost_changes |= lose;
    }

    /// Holds changes back on their way to the listeners.
    pub fn hold_changes(&self) {
        self.script().held_changes.get_or_insert_default();
    }

    /// Delivers the changes that were held back, in their order, and holds no further ones.
    pub fn let_changes_go(&self) {
        let held = self.script().held_changes.take();
        for (namespace, change) in held.into_iter().flatten() {
            self.0.change_listeners.notify(namespace.as_str(), &change);
        }
    }

    /// The number of operations of this kind so far.
    pub fn calls(&self, op: Op) -> usize {
        self.script().calls.get(&op).copied().unwrap_or(0)
    }

    /// Blocks until so many operations of this kind have begun.
    pub fn wait_for_calls(&self, op: Op, calls: usize) {
        while self.calls(op) < calls {
            let changed = self.0.changed.listen();
            if self.calls(op) < calls {
                block_on(changed);
            }
        }
    }

    /// Runs one operation with the next fault for it.
    async fn run<R>(
        &self,
        op: Op,
        run: impl Future<Output = R>,
        corrupt: impl FnOnce(R) -> R,
        fail: impl Fn(StoreError) -> R,
    ) -> R {
        let (fault, releases, down) = {
            let mut script = self.script();
            *script.calls.entry(op).or_default() += 1;
            let next = script.next.get_mut(&op).filter(|next| !next.is_empty());
            let next = next.map(|next| next.remove(0));
            let fault = next.or_else(|| script.always.get(&op).cloned());
            (fault, script.releases, script.down.clone())
        };
        self.0.changed.notify_all();
        let error = |class| StoreError::new(class, "chaos");
        if let Some(down) = down {
            return fail(down);
        }
        match fault {
            None => run.await,
            Some(Fault::Fail(class)) => fail(error(class)),
            Some(Fault::Lose(class)) => {
                run.await;
                fail(error(class))
            }
            Some(Fault::Hang) => pending().await,
            Some(Fault::Hold) => {
                self.released(releases).await;
                run.await
            }
            Some(Fault::HoldAnswer) => {
                let answer = run.await;
                self.released(releases).await;
                answer
            }
            Some(Fault::Corrupt) => corrupt(run.await),
        }
    }

    async fn released(&self, seen: u64) {
        while self.script().releases == seen {
            let changed = self.0.changed.listen();
            if self.script().releases == seen {
                changed.await;
            }
        }
    }

    async fn one<T>(
        &self,
        op: Op,
        run: impl Future<Output = Result<T, StoreError>>,
        corrupt: impl FnOnce(T) -> T,
    ) -> Result<T, StoreError> {
        let result = self.run(op, run, |result| result.map(corrupt), Err).await;
        self.0.counters.result(result)
    }
}

fn with_damage(acquired: Acquired) -> Acquired {
    match acquired {
        Acquired::Stored(payload) => Acquired::Stored(damaged(payload)),
        other => other,
    }
}

fn damaged(mut payload: Vec<u8>) -> Vec<u8> {
    if let Some(last) = payload.last_mut() {
        *last ^= 1;
    }
    payload
}

impl Store for ChaosStore {
    fn read<'a>(
        &'a self,
        keys: &'a [StoreKey],
    ) -> Reply<'a, Vec<Result<Option<Vec<u8>>, StoreError>>> {
        type Answers = Vec<Result<Option<Vec<u8>>, StoreError>>;
        let corrupt = |answers: Answers| {
            let answers = answers.into_iter();
            answers
                .map(|answer| answer.map(|payload| payload.map(damaged)))
                .collect()
        };
        let fail = |error: StoreError| keys.iter().map(|_| Err(error.clone())).collect();
        Box::pin(async move {
            let answers = self
                .run(Op::Read, self.0.inner.read(keys), corrupt, fail)
                .await;
            self.0.counters.read(&answers);
            answers
        })
    }

    fn acquire<'a>(
        &'a self,
        key: &'a StoreKey,
        ask: Acquire,
    ) -> Reply<'a, Result<Acquired, StoreError>> {
        let run = self.0.inner.acquire(key, ask);
        Box::pin(self.one(Op::Acquire, run, with_damage))
    }

    fn acquire_many<'a>(
        &'a self,
        asks: &'a [(StoreKey, Acquire)],
    ) -> Reply<'a, Vec<Result<Acquired, StoreError>>> {
        type Answers = Vec<Result<Acquired, StoreError>>;
        let corrupt = |answers: Answers| {
            let answers = answers.into_iter();
            answers.map(|answer| answer.map(with_damage)).collect()
        };
        let fail = |error: StoreError| asks.iter().map(|_| Err(error.clone())).collect();
        Box::pin(async move {
            let run = self.0.inner.acquire_many(asks);
            let answers: Answers = self.run(Op::Acquire, run, corrupt, fail).await;
            let answers = answers.into_iter();
            answers
                .map(|answer| self.0.counters.result(answer))
                .collect()
        })
    }

    fn publish<'a>(
        &'a self,
        key: &'a StoreKey,
        publish: Publish,
    ) -> Reply<'a, Result<Stored, StoreError>> {
        let run = self.0.inner.publish(key, publish);
        Box::pin(self.one(Op::Publish, run, |stored| stored))
    }

    fn renew<'a>(
        &'a self,
        key: &'a StoreKey,
        token: Token,
        lease: Duration,
    ) -> Reply<'a, Result<bool, StoreError>> {
        let run = self.0.inner.renew(key, token, lease);
        Box::pin(self.one(Op::Renew, run, |renewed| renewed))
    }

    fn release<'a>(
        &'a self,
        key: &'a StoreKey,
        token: Token,
        cool_down: Option<Duration>,
    ) -> Reply<'a, Result<bool, StoreError>> {
        let run = self.0.inner.release(key, token, cool_down);
        Box::pin(self.one(Op::Release, run, |released| released))
    }

    fn set<'a>(
        &'a self,
        key: &'a StoreKey,
        payload: Vec<u8>,
        ttl: Duration,
        birth: Birth,
    ) -> Reply<'a, Result<Stored, StoreError>> {
        let run = self.0.inner.set(key, payload, ttl, birth);
        Box::pin(self.one(Op::Set, run, |stored| stored))
    }

    fn invalidate<'a>(
        &'a self,
        key: &'a StoreKey,
        birth: Birth,
    ) -> Reply<'a, Result<Stored, StoreError>> {
        let run = self.0.inner.invalidate(key, birth);
        Box::pin(self.one(Op::Invalidate, run, |stored| stored))
    }

    fn now(&self) -> Option<u64> {
        let is_known = !self.script().never_connected;
        self.0.inner.now().filter(|_| is_known)
    }

    fn gaps(&self) -> u64 {
        self.0.inner.gaps() + self.script().gaps
    }

    fn history(&self) -> u64 {
        self.0.inner.history() + self.script().histories
    }

    fn timeline(&self) -> u64 {
        self.0.inner.timeline() + self.script().histories
    }

    fn tells_everything(&self) -> bool {
        self.0.inner.tells_everything() && !self.script().has_lost_changes
    }

    fn state(&self) -> StoreState {
        let script = self.script();
        match &script.down {
            Some(_) if script.never_connected => StoreState::Connecting,
            Some(error) => StoreState::Down(error.clone()),
            None => self.0.inner.state(),
        }
    }

    /// Errors and reads as the callers saw them.
    fn stats(&self) -> StoreStats {
        self.0.counters.snapshot()
    }

    fn subscribe(&self, namespace: &Namespace, listener: Weak<dyn ChangeListener>) {
        self.0.change_listeners.add(namespace, listener);
        let mut listening = lock(&self.0.listening);
        listening.entry(namespace.clone()).or_insert_with(|| {
            let forwarder = Arc::new(Forwarder {
                namespace: namespace.clone(),
                store: Arc::downgrade(&self.0),
            });
            let listener: Arc<dyn ChangeListener> = forwarder.clone();
            self.0.inner.subscribe(namespace, Arc::downgrade(&listener));
            forwarder
        });
        drop(listening);
        self.0.change_listeners.greet(self.gaps(), |_| true);
    }

    fn spawn(&self, work: BoxFuture) {
        self.0.inner.spawn(work);
    }
}

impl ChangeListener for Forwarder {
    fn changed(&self, change: &Change) {
        let Some(store) = self.store.upgrade() else {
            return;
        };
        {
            let mut script = lock(&store.script);
            if script.loses_changes || script.down.is_some() {
                return;
            }
            if let Some(held) = &mut script.held_changes {
                held.push((self.namespace.clone(), *change));
                return;
            }
        }
        store.counters.changed(true);
        store
            .change_listeners
            .notify(self.namespace.as_str(), change);
    }

    fn reconnected(&self, gaps: u64) {
        if let Some(store) = self.store.upgrade() {
            let gaps = gaps + lock(&store.script).gaps;
            store.change_listeners.reconnected(gaps, |_| true);
        }
    }
}

impl fmt::Debug for ChaosStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ChaosStore").field(&self.0.inner).finish()
    }
}
