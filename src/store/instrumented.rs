//! A store whose answers are timed and traced, for one cache.

use std::time::Duration;

use super::error::StoreError;
use super::key::{Namespace, StoreKey};
use super::lease::{Acquire, Acquired, Epoch, Origin, Publish, Stored, Token};
use super::stats::StoreStats;
use super::{ChangeListener, Reply, Store, StoreState};
use crate::observe::metrics;
use crate::observe::trace::{self, Span};
use crate::sync::future::BoxFuture;
use crate::sync::{Arc, Weak};
use crate::time::clock::Clock;

/// A store as one cache sees it.
#[derive(Debug)]
pub(super) struct Instrumented {
    pub(super) store: Arc<dyn Store>,
    pub(super) cache: Arc<str>,
    pub(super) clock: Clock,
}

impl Instrumented {
    /// Waits for a reply in its span, and tells how long it took. `failed` finds an error in it.
    fn watch<'a, T: Send + 'a>(
        &'a self,
        operation: &'static str,
        mut reply: Reply<'a, T>,
        failed: fn(&T) -> Option<&StoreError>,
    ) -> Reply<'a, T> {
        Box::pin(async move {
            let span = Span::store(&self.cache, operation);
            let asked = self.clock.exact();
            let answer = std::future::poll_fn(|cx| span.within(|| reply.as_mut().poll(cx))).await;
            let took = self.clock.exact().saturating_sub(asked);
            let error = failed(&answer);
            metrics::answered(&self.cache, operation, error.is_some(), took);
            if let Some(error) = error {
                span.within(|| {
                    trace::store_failed(&self.cache, operation, error.class().name(), error)
                });
            }
            answer
        })
    }
}

fn of_one<T>(answer: &Result<T, StoreError>) -> Option<&StoreError> {
    answer.as_ref().err()
}

impl Store for Instrumented {
    fn read<'a>(
        &'a self,
        keys: &'a [StoreKey],
    ) -> Reply<'a, Vec<Result<Option<Vec<u8>>, StoreError>>> {
        // Of many errors the first: mostly it is the same for all keys.
        self.watch("read", self.store.read(keys), |answers| {
            answers.iter().find_map(of_one)
        })
    }

    fn acquire<'a>(
        &'a self,
        key: &'a StoreKey,
        ask: Acquire,
    ) -> Reply<'a, Result<Acquired, StoreError>> {
        self.watch("acquire", self.store.acquire(key, ask), of_one)
    }

    fn publish<'a>(
        &'a self,
        key: &'a StoreKey,
        publish: Publish,
    ) -> Reply<'a, Result<Stored, StoreError>> {
        self.watch("publish", self.store.publish(key, publish), of_one)
    }

    fn renew<'a>(
        &'a self,
        key: &'a StoreKey,
        token: Token,
        lease: Duration,
    ) -> Reply<'a, Result<bool, StoreError>> {
        self.watch("renew", self.store.renew(key, token, lease), of_one)
    }

    fn release<'a>(
        &'a self,
        key: &'a StoreKey,
        token: Token,
        cool_down: Option<Duration>,
    ) -> Reply<'a, Result<bool, StoreError>> {
        self.watch("release", self.store.release(key, token, cool_down), of_one)
    }

    fn set<'a>(
        &'a self,
        key: &'a StoreKey,
        payload: Vec<u8>,
        ttl: Duration,
        origin: Origin,
    ) -> Reply<'a, Result<Epoch, StoreError>> {
        self.watch("set", self.store.set(key, payload, ttl, origin), of_one)
    }

    fn invalidate<'a>(
        &'a self,
        key: &'a StoreKey,
        origin: Origin,
    ) -> Reply<'a, Result<Epoch, StoreError>> {
        self.watch("invalidate", self.store.invalidate(key, origin), of_one)
    }

    fn now(&self) -> Option<u64> {
        self.store.now()
    }

    fn gaps(&self) -> u64 {
        self.store.gaps()
    }

    fn state(&self) -> StoreState {
        self.store.state()
    }

    fn stats(&self) -> StoreStats {
        self.store.stats()
    }

    fn subscribe(&self, namespace: &Namespace, listener: Weak<dyn ChangeListener>) {
        self.store.subscribe(namespace, listener);
    }

    fn spawn(&self, work: BoxFuture) {
        self.store.spawn(work);
    }
}
