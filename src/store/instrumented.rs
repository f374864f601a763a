//! A store that times and traces every reply, for one cache.

use std::time::Duration;

use super::error::StoreError;
use super::head::Head;
use super::key::{Namespace, StoreKey};
use super::lease::{Acquire, Acquired, Birth, Publish, Stored, Token};
use super::stats::StoreStats;
use super::{ChangeListener, Reply, Store, StoreState};
use crate::observe::metrics;
use crate::observe::trace::{self, TraceSpan};
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
    /// Waits for a reply inside a span and records its duration. `failed` finds the error in a
    /// reply.
    fn observe<'a, T: Send + 'a>(
        &'a self,
        operation: &'static str,
        mut reply: Reply<'a, T>,
        failed: fn(&T) -> Option<&StoreError>,
    ) -> Reply<'a, T> {
        Box::pin(async move {
            let span = TraceSpan::store(&self.cache, operation);
            let started = self.clock.exact();
            let answer = std::future::poll_fn(|cx| span.within(|| reply.as_mut().poll(cx))).await;
            let took = self.clock.exact().saturating_sub(started);
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

fn error_of<T>(answer: &Result<T, StoreError>) -> Option<&StoreError> {
    answer.as_ref().err()
}

impl Store for Instrumented {
    fn read<'a>(
        &'a self,
        keys: &'a [StoreKey],
    ) -> Reply<'a, Vec<Result<Option<Vec<u8>>, StoreError>>> {
        // Records only the first error, because it is usually the same for all keys.
        self.observe("read", self.store.read(keys), |answers| {
            answers.iter().find_map(error_of)
        })
    }

    fn heads<'a>(
        &'a self,
        keys: &'a [StoreKey],
    ) -> Reply<'a, Vec<Result<Option<Head>, StoreError>>> {
        self.observe("heads", self.store.heads(keys), |answers| {
            answers.iter().find_map(error_of)
        })
    }

    fn acquire<'a>(
        &'a self,
        key: &'a StoreKey,
        ask: Acquire,
    ) -> Reply<'a, Result<Acquired, StoreError>> {
        self.observe("acquire", self.store.acquire(key, ask), error_of)
    }

    fn acquire_many<'a>(
        &'a self,
        asks: &'a [(StoreKey, Acquire)],
    ) -> Reply<'a, Vec<Result<Acquired, StoreError>>> {
        // Records only the first error, as for `read`.
        self.observe("acquire", self.store.acquire_many(asks), |answers| {
            answers.iter().find_map(error_of)
        })
    }

    fn publish<'a>(
        &'a self,
        key: &'a StoreKey,
        publish: Publish,
    ) -> Reply<'a, Result<Stored, StoreError>> {
        self.observe("publish", self.store.publish(key, publish), error_of)
    }

    fn renew<'a>(
        &'a self,
        key: &'a StoreKey,
        token: Token,
        lease: Duration,
    ) -> Reply<'a, Result<bool, StoreError>> {
        self.observe("renew", self.store.renew(key, token, lease), error_of)
    }

    fn release<'a>(
        &'a self,
        key: &'a StoreKey,
        token: Token,
        cool_down: Option<Duration>,
    ) -> Reply<'a, Result<bool, StoreError>> {
        self.observe(
            "release",
            self.store.release(key, token, cool_down),
            error_of,
        )
    }

    fn set<'a>(
        &'a self,
        key: &'a StoreKey,
        payload: Vec<u8>,
        ttl: Duration,
        birth: Birth,
    ) -> Reply<'a, Result<Stored, StoreError>> {
        self.observe("set", self.store.set(key, payload, ttl, birth), error_of)
    }

    fn invalidate<'a>(
        &'a self,
        key: &'a StoreKey,
        birth: Birth,
    ) -> Reply<'a, Result<Stored, StoreError>> {
        self.observe("invalidate", self.store.invalidate(key, birth), error_of)
    }

    fn now(&self) -> Option<u64> {
        self.store.now()
    }

    fn gaps(&self) -> u64 {
        self.store.gaps()
    }

    fn history(&self) -> u64 {
        self.store.history()
    }

    fn timeline(&self) -> u64 {
        self.store.timeline()
    }

    fn tells_everything(&self) -> bool {
        self.store.tells_everything()
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
