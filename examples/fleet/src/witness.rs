//! A store that reports the operations that pass through it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use everfresh::BoxFuture;
use everfresh::store::{
    Acquire, Acquired, Birth, ChangeListener, Epoch, Namespace, Publish, RedisStore, Reply, Store,
    StoreError, StoreKey, StoreState, StoreStats, Stored, Token,
};

use crate::log::Event;
use crate::process::say;

/// Records the epoch over which each lease was granted, and reports each change that the store has
/// confirmed.
#[derive(Debug)]
pub struct Witness {
    store: RedisStore,
    granted: Mutex<HashMap<u128, Epoch>>,
}

impl Witness {
    pub fn new(store: RedisStore) -> Arc<Self> {
        Arc::new(Witness {
            store,
            granted: Mutex::default(),
        })
    }

    /// The epoch over which the lease of a load was granted; `None` if the load has no lease.
    pub fn base(&self, hash: u128) -> Option<Epoch> {
        self.granted().remove(&hash)
    }

    fn granted(&self) -> MutexGuard<'_, HashMap<u128, Epoch>> {
        self.granted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wrote(&self, key: &StoreKey, wrote: &Result<Stored, StoreError>) {
        if let Ok(Stored::Yes { epoch }) = wrote {
            say(&Event::Wrote {
                hash: key.hash(),
                epoch: epoch.micros(),
            });
        }
    }
}

impl Store for Witness {
    fn read<'a>(
        &'a self,
        keys: &'a [StoreKey],
    ) -> Reply<'a, Vec<Result<Option<Vec<u8>>, StoreError>>> {
        self.store.read(keys)
    }

    fn acquire<'a>(
        &'a self,
        key: &'a StoreKey,
        ask: Acquire,
    ) -> Reply<'a, Result<Acquired, StoreError>> {
        Box::pin(async move {
            self.granted().remove(&key.hash());
            let acquired = self.store.acquire(key, ask).await;
            if let Ok(Acquired::Granted { base }) = &acquired {
                self.granted().insert(key.hash(), *base);
            }
            acquired
        })
    }

    fn publish<'a>(
        &'a self,
        key: &'a StoreKey,
        publish: Publish,
    ) -> Reply<'a, Result<Stored, StoreError>> {
        Box::pin(async move {
            let base = publish.base;
            let stored = self.store.publish(key, publish).await;
            if let Ok(Stored::Yes { epoch }) = &stored {
                say(&Event::Published {
                    hash: key.hash(),
                    base: base.micros(),
                    epoch: epoch.micros(),
                });
            }
            stored
        })
    }

    fn renew<'a>(
        &'a self,
        key: &'a StoreKey,
        token: Token,
        lease: Duration,
    ) -> Reply<'a, Result<bool, StoreError>> {
        self.store.renew(key, token, lease)
    }

    fn release<'a>(
        &'a self,
        key: &'a StoreKey,
        token: Token,
        cool_down: Option<Duration>,
    ) -> Reply<'a, Result<bool, StoreError>> {
        self.store.release(key, token, cool_down)
    }

    fn set<'a>(
        &'a self,
        key: &'a StoreKey,
        payload: Vec<u8>,
        ttl: Duration,
        birth: Birth,
    ) -> Reply<'a, Result<Stored, StoreError>> {
        Box::pin(async move {
            let set = self.store.set(key, payload, ttl, birth).await;
            self.wrote(key, &set);
            set
        })
    }

    fn invalidate<'a>(
        &'a self,
        key: &'a StoreKey,
        birth: Birth,
    ) -> Reply<'a, Result<Stored, StoreError>> {
        Box::pin(async move {
            let invalidated = self.store.invalidate(key, birth).await;
            self.wrote(key, &invalidated);
            invalidated
        })
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
