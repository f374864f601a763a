//! The store of one process: its operations travel over the simulated network.

use std::fmt;
use std::future::poll_fn;
use std::sync::{Arc, Weak};
use std::time::Duration;

use everfresh::BoxFuture;
use everfresh::store::{
    Acquire, Acquired, Birth, Change, ChangeListener, ChangeListeners, ErrorClass, MemoryStore,
    Namespace, Publish, Reply, Store, StoreError, StoreKey, StoreState, StoreStats, Stored, Token,
};

use crate::faults::Fault;
use crate::network::{Answer, Delivery, READS, Request, SCRIPTS};
use crate::world::{Process, World};

/// The store as one process reaches it.
pub struct Link {
    pub world: Arc<World>,
    pub process: Process,
    /// The database, for its clock.
    pub server: Arc<MemoryStore>,
    pub listeners: ChangeListeners,
    pub namespace: Namespace,
    pub fault: Option<Fault>,
}

/// Hands the changes of a database to the network.
pub struct Tap {
    pub world: Arc<World>,
    pub process: Process,
}

impl ChangeListener for Tap {
    fn changed(&self, change: &Change) {
        self.world.with(|state| state.tell(self.process, change));
    }

    fn reconnected(&self, _: u64) {}
}

/// A request whose answer is awaited. Dropping it only ends the wait.
struct Waiting<'a> {
    link: &'a Link,
    number: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let Link { world, process, .. } = self.link;
        world.with(|state| state.forget_request(*process, self.number));
    }
}

impl Link {
    async fn call(&self, request: Request) -> Answer {
        let number = self.world.with(|state| state.send(self.process, request));
        let waiting = Waiting { link: self, number };
        poll_fn(|cx| {
            self.world
                .with(|state| state.poll_answer(self.process, waiting.number, cx.waker()))
        })
        .await
    }

    /// Reads the lines of the connection, in tasks of the process.
    pub fn listen(self: &Arc<Self>) {
        for line in [READS, SCRIPTS] {
            let link = self.clone();
            let reading = async move {
                loop {
                    let delivery = poll_fn(|cx| {
                        link.world
                            .with(|state| state.poll_line(link.process, line, cx.waker()))
                    });
                    link.delivered(delivery.await);
                }
            };
            self.world.spawn(self.process, Box::pin(reading));
        }
    }

    fn delivered(&self, delivery: Delivery) {
        match delivery {
            Delivery::Answer(number, answer) => self
                .world
                .with(|state| state.answered(self.process, number, answer)),
            Delivery::Change(change, write) => {
                self.world
                    .with(|state| state.told(self.process, &change, write));
                self.listeners.notify(self.namespace.as_str(), &change);
            }
        }
    }
}

impl Store for Link {
    fn read<'a>(
        &'a self,
        keys: &'a [StoreKey],
    ) -> Reply<'a, Vec<Result<Option<Vec<u8>>, StoreError>>> {
        Box::pin(async move {
            match self.call(Request::Read(keys.to_vec())).await {
                Answer::Read(answers) => answers,
                Answer::Failed(error) => keys.iter().map(|_| Err(error.clone())).collect(),
                _ => keys.iter().map(|_| Err(wrong_answer())).collect(),
            }
        })
    }

    fn acquire<'a>(
        &'a self,
        key: &'a StoreKey,
        ask: Acquire,
    ) -> Reply<'a, Result<Acquired, StoreError>> {
        Box::pin(async move {
            match self.call(Request::Acquire(key.clone(), ask)).await {
                Answer::Acquired(acquired) => Ok(acquired),
                Answer::Failed(error) => Err(error),
                _ => Err(wrong_answer()),
            }
        })
    }

    fn publish<'a>(
        &'a self,
        key: &'a StoreKey,
        publish: Publish,
    ) -> Reply<'a, Result<Stored, StoreError>> {
        self.stored(Request::Publish(key.clone(), publish))
    }

    fn renew<'a>(
        &'a self,
        key: &'a StoreKey,
        token: Token,
        lease: Duration,
    ) -> Reply<'a, Result<bool, StoreError>> {
        self.done(Request::Renew(key.clone(), token, lease))
    }

    fn release<'a>(
        &'a self,
        key: &'a StoreKey,
        token: Token,
        cool_down: Option<Duration>,
    ) -> Reply<'a, Result<bool, StoreError>> {
        self.done(Request::Release(key.clone(), token, cool_down))
    }

    fn set<'a>(
        &'a self,
        key: &'a StoreKey,
        payload: Vec<u8>,
        ttl: Duration,
        birth: Birth,
    ) -> Reply<'a, Result<Stored, StoreError>> {
        self.stored(Request::Set(key.clone(), payload, ttl, birth))
    }

    fn invalidate<'a>(
        &'a self,
        key: &'a StoreKey,
        birth: Birth,
    ) -> Reply<'a, Result<Stored, StoreError>> {
        self.stored(Request::Invalidate(key.clone(), birth))
    }

    fn now(&self) -> Option<u64> {
        let skew = self
            .world
            .with(|state| state.network.links[self.process].skew);
        self.server.now().map(|now| now.saturating_add_signed(skew))
    }

    fn gaps(&self) -> u64 {
        1
    }

    fn tells_everything(&self) -> bool {
        self.fault != Some(Fault::RefusedValuesLeave)
    }

    fn state(&self) -> StoreState {
        StoreState::Up
    }

    fn stats(&self) -> StoreStats {
        self.server.stats()
    }

    fn subscribe(&self, namespace: &Namespace, listener: Weak<dyn ChangeListener>) {
        self.listeners.add(namespace, listener);
        self.listeners.greet(self.gaps(), |_| true);
    }

    fn spawn(&self, work: BoxFuture) {
        self.world.spawn(self.process, work);
    }
}

impl Link {
    fn stored(&self, request: Request) -> Reply<'_, Result<Stored, StoreError>> {
        Box::pin(async move {
            match self.call(request).await {
                Answer::Stored(stored) => Ok(stored),
                Answer::Failed(error) => Err(error),
                _ => Err(wrong_answer()),
            }
        })
    }

    fn done(&self, request: Request) -> Reply<'_, Result<bool, StoreError>> {
        Box::pin(async move {
            match self.call(request).await {
                Answer::Done(done) => Ok(done),
                Answer::Failed(error) => Err(error),
                _ => Err(wrong_answer()),
            }
        })
    }
}

fn wrong_answer() -> StoreError {
    StoreError::new(ErrorClass::Protocol, "simulated")
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").finish_non_exhaustive()
    }
}
