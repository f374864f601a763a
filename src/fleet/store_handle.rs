//! The store of a cache, until the cache is closed.
//!
//! Stores are shared, and a store ends with its last user. So a closed cache gives its store back,
//! although handles to the cache, and loads that did not end in time, may live on. Operations
//! belong to tasks that are spawned here, and these are counted; a read may belong to another task,
//! and is counted by itself. Races that this must survive:
//!
//! 1. A task starts while the handle ends: see `tasks`.
//! 2. Several callers end the handle. One takes the store and drops it. The others wait for that,
//!    so a file, for example, is free once any of them returns.

use std::time::Duration;

use super::tasks::Tasks;
use crate::panics::isolated;
use crate::store::{
    Acquire, Acquired, Birth, ChangeListener, ErrorClass, Head, Namespace, Publish, Store,
    StoreError, StoreKey, StoreState, StoreStats, Stored, Token,
};
use crate::sync::event::Event;
use crate::sync::future::or;
use crate::sync::{Arc, ArcCell, AtomicU8, OnceLock, Ordering, Weak};
use crate::time::clock::{Clock, Tick};

pub(super) struct StoreHandle {
    /// In an `Arc` of its own, because a cell has no room for a trait object.
    store: ArcCell<Arc<dyn Store>>,
    tasks: Tasks,
    /// 1 once a caller has begun to give the store back.
    gives_back: AtomicU8,
    /// 1 once that caller has dropped it.
    is_gone: AtomicU8,
    /// The counts of the store at the end.
    counts: OnceLock<StoreStats>,
    /// Notified when the store was given back.
    given_back: Event,
}

/// Counts one task.
struct Counted(Arc<StoreHandle>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.tasks.leave();
    }
}

pub(super) fn closed() -> StoreError {
    StoreError::new(ErrorClass::Closed, "")
}

impl StoreHandle {
    pub(super) fn new(store: Arc<dyn Store>) -> Arc<Self> {
        let cell = ArcCell::empty();
        cell.compare_exchange(None, Some(Arc::new(store)));
        Arc::new(StoreHandle {
            store: cell,
            tasks: Tasks::default(),
            gives_back: AtomicU8::new(0),
            is_gone: AtomicU8::new(0),
            counts: OnceLock::new(),
            given_back: Event::new(),
        })
    }

    fn get(&self) -> Result<Arc<dyn Store>, StoreError> {
        let store = self.store.load();
        (*store).as_deref().cloned().ok_or_else(closed)
    }

    fn look<R>(&self, look: impl FnOnce(&dyn Store) -> R) -> Option<R> {
        (*self.store.load()).as_deref().map(|store| look(&**store))
    }

    pub(super) fn has_ended(&self) -> bool {
        self.tasks.have_ended()
    }

    /// Counts a task; false after the end.
    fn count(self: &Arc<Self>) -> (Counted, bool) {
        let starts = self.tasks.enter();
        (Counted(self.clone()), starts)
    }

    /// Runs a task on the store. Returns false, and drops it, after the end.
    pub(super) fn spawn(self: &Arc<Self>, work: impl Future<Output = ()> + Send + 'static) -> bool {
        // Dropped after the reference to the store, so that this reference is never the last one.
        let (spawning, starts) = self.count();
        let Some(store) = self.get().ok().filter(|_| starts) else {
            return false;
        };
        let (task, _) = self.count();
        store.spawn(Box::pin(async move {
            let _task = task;
            work.await;
        }));
        drop(store);
        drop(spawning);
        true
    }

    /// Ends the handle: no task starts, those under way are waited for, and the store is dropped.
    /// Waits at most until `limit`; then the last task drops the store.
    pub(super) async fn end(&self, clock: &Clock, limit: Tick) {
        if let Some(counts) = self.look(|store| store.stats()) {
            let _ = self.counts.set(counts);
        }
        self.tasks.end();
        or(self.tasks.idle(), clock.sleep_until(limit)).await;
        self.give_back().await;
    }

    async fn give_back(&self) {
        if self.gives_back.swap(1, Ordering::AcqRel) == 0 {
            let store = (*self.store.load()).clone();
            self.store.compare_exchange(store.as_ref(), None);
            isolated(|| drop(store));
            self.is_gone.swap(1, Ordering::AcqRel);
            return self.given_back.notify_all();
        }
        loop {
            let given_back = self.given_back.listen();
            if self.is_gone.load(Ordering::Acquire) != 0 {
                return;
            }
            given_back.await;
        }
    }

    /// Reads payloads. Counts itself, because the task of a caller may poll it.
    pub(super) async fn read(
        self: &Arc<Self>,
        keys: &[StoreKey],
    ) -> Vec<Result<Option<Vec<u8>>, StoreError>> {
        let _reading = self.count();
        match self.get() {
            Ok(store) => store.read(keys).await,
            Err(error) => keys.iter().map(|_| Err(error.clone())).collect(),
        }
    }

    pub(super) async fn heads(&self, keys: &[StoreKey]) -> Vec<Result<Option<Head>, StoreError>> {
        match self.get() {
            Ok(store) => store.heads(keys).await,
            Err(error) => keys.iter().map(|_| Err(error.clone())).collect(),
        }
    }

    pub(super) async fn acquire(
        &self,
        key: &StoreKey,
        ask: Acquire,
    ) -> Result<Acquired, StoreError> {
        self.get()?.acquire(key, ask).await
    }

    pub(super) async fn acquire_many(
        &self,
        asks: &[(StoreKey, Acquire)],
    ) -> Vec<Result<Acquired, StoreError>> {
        match self.get() {
            Ok(store) => store.acquire_many(asks).await,
            Err(error) => asks.iter().map(|_| Err(error.clone())).collect(),
        }
    }

    pub(super) async fn publish(
        &self,
        key: &StoreKey,
        publish: Publish,
    ) -> Result<Stored, StoreError> {
        self.get()?.publish(key, publish).await
    }

    pub(super) async fn renew(
        &self,
        key: &StoreKey,
        token: Token,
        lease: Duration,
    ) -> Result<bool, StoreError> {
        self.get()?.renew(key, token, lease).await
    }

    pub(super) async fn release(
        &self,
        key: &StoreKey,
        token: Token,
        cool_down: Option<Duration>,
    ) -> Result<bool, StoreError> {
        self.get()?.release(key, token, cool_down).await
    }

    pub(super) async fn set(
        &self,
        key: &StoreKey,
        payload: Vec<u8>,
        ttl: Duration,
        birth: Birth,
    ) -> Result<Stored, StoreError> {
        self.get()?.set(key, payload, ttl, birth).await
    }

    pub(super) async fn invalidate(
        &self,
        key: &StoreKey,
        birth: Birth,
    ) -> Result<Stored, StoreError> {
        self.get()?.invalidate(key, birth).await
    }

    pub(super) fn now(&self) -> Option<u64> {
        self.look(|store| store.now()).flatten()
    }

    pub(super) fn gaps(&self) -> u64 {
        self.look(|store| store.gaps()).unwrap_or(u64::MAX)
    }

    pub(super) fn history(&self) -> u64 {
        self.look(|store| store.history()).unwrap_or(0)
    }

    pub(super) fn timeline(&self) -> u64 {
        self.look(|store| store.timeline()).unwrap_or(0)
    }

    pub(super) fn tells_everything(&self) -> bool {
        self.look(|store| store.tells_everything()).unwrap_or(false)
    }

    pub(super) fn state(self: &Arc<Self>) -> StoreState {
        let (_looking, starts) = self.count();
        let state = starts.then(|| self.look(|store| store.state()));
        state
            .flatten()
            .unwrap_or_else(|| StoreState::Down(closed()))
    }

    pub(super) fn stats(self: &Arc<Self>) -> StoreStats {
        let (_looking, starts) = self.count();
        let counts = match starts {
            true => self.look(|store| store.stats()),
            false => self.counts.get().cloned(),
        };
        counts.unwrap_or_default()
    }

    pub(super) fn subscribe(&self, namespace: &Namespace, listener: Weak<dyn ChangeListener>) {
        self.look(|store| store.subscribe(namespace, listener));
    }
}
