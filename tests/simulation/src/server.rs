//! The server: its databases, and what the checker sees of each request.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use everfresh::ManualClock;
use everfresh::store::{
    Acquired, Birth, MemoryStore, Namespace, Store, StoreError, StoreKey, Stored, Token, envelope,
};

use crate::claims::Payload;
use crate::faults::Fault;
use crate::network::{Answer, Arrival, Request};
use crate::world::{Database, Key, World};

pub struct Server {
    pub clock: ManualClock,
    pub databases: Vec<Arc<MemoryStore>>,
    fault: Option<Fault>,
    /// The cool-downs of [`Fault::OneFailureCoolsAll`], and when they end.
    cooling: BTreeMap<(Database, u128), u64>,
}

impl Server {
    pub fn new(databases: usize, fault: Option<Fault>) -> Self {
        let clock = ManualClock::new();
        let database = |_| Arc::new(MemoryStore::with_clock(&clock));
        Server {
            databases: (0..databases).map(database).collect(),
            clock,
            fault,
            cooling: BTreeMap::new(),
        }
    }

    /// Serves a request that has arrived.
    pub fn serve(&mut self, world: &World, database: Database, arrival: Arrival) {
        let key = arrival.request.key().cloned();
        let before = key.as_ref().and_then(|key| self.stored(database, key));
        // Messages carry it.
        world.with(|state| state.network.making = arrival.write);
        let answer = match self.run(database, arrival.request.clone()) {
            Ok(answer) => answer,
            Err(error) => Answer::Failed(error),
        };
        let after = key.as_ref().and_then(|key| self.stored(database, key));
        world.with(|state| {
            state.network.making = None;
            state.served(database, &arrival, before, after, &answer);
            state.reply(&arrival, answer);
        });
    }

    /// The record of a key.
    pub fn stored(&self, database: Database, key: &StoreKey) -> Option<Payload> {
        let keys = std::slice::from_ref(key);
        let bytes = now(self.databases[database].read(keys)).remove(0).ok()??;
        Payload::of(&bytes)
    }

    fn run(&mut self, database: Database, request: Request) -> Result<Answer, StoreError> {
        let store = self.databases[database].clone();
        let at = |key: &StoreKey| (database, key.hash());
        let time = store.now().unwrap_or(0);
        Ok(match request {
            Request::Read(keys) => Answer::Read(now(store.read(&keys))),
            Request::Acquire(key, ask) => {
                let cools = self.cooling.get(&at(&key)).copied().unwrap_or(0);
                if cools > time {
                    let left = Duration::from_micros(cools - time);
                    return Ok(Answer::Acquired(Acquired::Cooling { left }));
                }
                let acquired = now(store.acquire(&key, ask))?;
                if self.is(Fault::LeasesForAll) && matches!(acquired, Acquired::Held { .. }) {
                    store.lose_lease(&key);
                    return Ok(Answer::Acquired(now(store.acquire(&key, ask))?));
                }
                Answer::Acquired(acquired)
            }
            Request::Publish(key, publish) if self.is_not_found(&publish.payload) => {
                let token = publish.token;
                match self.fault {
                    Some(Fault::NotFoundWithoutBase) => {
                        self.overwrite(&store, &key, None, token)?
                    }
                    Some(Fault::NotFoundIsNotShared) => {
                        now(store.release(&key, token, None))?;
                        Answer::Stored(Stored::Refused)
                    }
                    _ => Answer::Stored(now(store.publish(&key, publish))?),
                }
            }
            Request::Publish(key, publish) if self.is(Fault::PublishWithoutBase) => {
                let value = Some((publish.payload, publish.ttl));
                self.overwrite(&store, &key, value, publish.token)?
            }
            Request::Publish(key, publish) => {
                let stored = now(store.publish(&key, publish))?;
                if stored.epoch().is_some() {
                    self.cooling.remove(&at(&key));
                }
                Answer::Stored(stored)
            }
            Request::Renew(key, token, lease) => {
                Answer::Done(now(store.renew(&key, token, lease))?)
            }
            Request::Release(key, token, cool_down) => {
                let rest = cool_down.unwrap_or_default();
                if self.is(Fault::OneFailureCoolsAll) && !rest.is_zero() {
                    let until = time + rest.as_micros() as u64;
                    self.cooling.insert(at(&key), until);
                }
                Answer::Done(now(store.release(&key, token, cool_down))?)
            }
            Request::Set(key, payload, ttl, birth) => {
                self.cooling.remove(&at(&key));
                let birth = self.birth(birth);
                Answer::Stored(now(store.set(&key, payload, ttl, birth))?)
            }
            Request::Invalidate(key, birth) => {
                self.cooling.remove(&at(&key));
                let birth = self.birth(birth);
                Answer::Stored(now(store.invalidate(&key, birth))?)
            }
        })
    }

    fn is(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    fn is_not_found(&self, payload: &[u8]) -> bool {
        Payload::of(payload).is_some_and(|payload| payload.value.is_none())
    }

    fn birth(&self, birth: Birth) -> Birth {
        match self.is(Fault::LateWritesWin) {
            true => Birth::latest(birth.origin),
            false => birth,
        }
    }

    /// Changes a key whatever is stored, in the name of a load.
    fn overwrite(
        &self,
        store: &MemoryStore,
        key: &StoreKey,
        value: Option<(Vec<u8>, Duration)>,
        token: Token,
    ) -> Result<Answer, StoreError> {
        let birth = Birth::latest(token.origin);
        Ok(Answer::Stored(match value {
            Some((payload, ttl)) => now(store.set(key, payload, ttl, birth))?,
            None => now(store.invalidate(key, birth))?,
        }))
    }

    /// Comes back without data.
    pub fn empty(&mut self) {
        for database in &self.databases {
            database.flush();
        }
        self.cooling.clear();
    }
}

/// The output of a future that waits for nothing.
fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => unreachable!("a store in memory never waits"),
    }
}

/// The namespace of all processes.
pub fn namespace() -> Namespace {
    match Namespace::new("simulated:v1") {
        Ok(namespace) => namespace,
        Err(_) => unreachable!("the name is valid"),
    }
}

/// The name of a key in the store.
pub fn name(key: Key) -> StoreKey {
    StoreKey::new(&namespace(), &key.to_be_bytes())
}

impl Payload {
    /// Reads what the checker needs of a payload; see [`envelope`] for the layout.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        const NOT_FOUND: u8 = 4;
        const WRITTEN: u8 = 2;
        const FRESH_FOR: usize = 36;
        const STALE_FOR: usize = 44;
        let word = |at: usize| {
            let word = bytes.get(at..at + 8)?;
            Some(u64::from_be_bytes(word.try_into().ok()?))
        };
        let flags = *bytes.get(envelope::HEADER - 1)?;
        let micros = word(FRESH_FOR)?.saturating_add(word(STALE_FOR)?);
        let value = match flags & NOT_FOUND {
            0 => Some(word(bytes.len().checked_sub(8)?)?),
            _ => None,
        };
        Some(Payload {
            epoch: envelope::epoch(bytes),
            value,
            is_written: flags & WRITTEN != 0,
            lasts: micros.saturating_mul(1_000),
        })
    }
}
