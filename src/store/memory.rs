//! A store in memory: the contracts of [`Store`] without a server.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::time::Duration;

use super::background::Background;
use super::change_listeners::ChangeListeners;
use super::envelope;
use super::error::{ErrorClass, StoreError};
use super::key::{Namespace, StoreKey};
use super::lease::{Acquire, Acquired, Epoch, Origin, Publish, Stored, Token};
use super::stats::{StoreCounters, StoreStats};
use super::{Change, ChangeKind, ChangeListener, Reply, Store, StoreState};
use crate::sync::future::BoxFuture;
use crate::sync::{AtomicU64, Mutex, Ordering, Weak, lock};
use crate::time::clock::{Clock, Tick, ticks};

/// Added to the clock of a store in memory, so that its epochs look like a server's: a day in 2023.
const YEAR_2023: u64 = 1_700_000_000_000_000;

/// A [`Store`] in this process: several caches that share one store behave like a fleet.
///
/// Made for tests, and for programs that want the second level's encoding and fencing without a
/// server. It keeps every payload until its hard limit; the number of payloads is not bounded.
/// Listeners are notified before the operation that made the change returns.
pub struct MemoryStore {
    clock: Clock,
    limit: usize,
    state: Mutex<State>,
    /// Held while changes are delivered, one after the other, in their order.
    delivery: Mutex<()>,
    change_listeners: ChangeListeners,
    gaps: AtomicU64,
    counters: StoreCounters,
    background: Background,
}

#[derive(Default)]
struct State {
    data: HashMap<StoreKey, Data>,
    leases: HashMap<StoreKey, Lease>,
    /// Changes not yet delivered.
    changes: VecDeque<(Namespace, Change)>,
    last: Option<Epoch>,
    /// The number of payloads and leases at which the expired ones are swept.
    sweep_at: usize,
}

struct Data {
    payload: Vec<u8>,
    expires: Tick,
}

struct Lease {
    /// The attempt that holds the lease, and its base. The base is `None` once another load was
    /// published over it. The holder is `None` during the cool-down after a failed load.
    holder: Option<(Token, Option<Epoch>)>,
    until: Tick,
}

impl Lease {
    fn belongs_to(&self, token: Token) -> bool {
        self.holder.is_some_and(|(holder, _)| holder == token)
    }
}

impl MemoryStore {
    /// Makes an empty store.
    pub fn new() -> Self {
        Self::with_clock(Clock::precise())
    }

    /// Makes an empty store that takes its time from this clock.
    pub fn with_clock(clock: impl Into<Clock>) -> Self {
        MemoryStore {
            clock: clock.into(),
            limit: envelope::LONGEST,
            state: Mutex::default(),
            delivery: Mutex::new(()),
            change_listeners: ChangeListeners::default(),
            gaps: AtomicU64::new(1),
            counters: StoreCounters::default(),
            background: Background::default(),
        }
    }

    /// Sets the largest payload, in bytes. Default: room for an encoded value of 8 MiB.
    pub fn limit(mut self, bytes: usize) -> Self {
        self.limit = bytes;
        self
    }

    fn micros(&self) -> u64 {
        YEAR_2023 + self.clock.exact() / 1_000
    }

    /// Runs one operation atomically, and then delivers its changes.
    fn step<R>(&self, step: impl FnOnce(&mut State, Tick) -> R) -> R {
        let result = {
            let mut state = lock(&self.state);
            let now = self.clock.exact();
            state.sweep(now);
            step(&mut state, now)
        };
        self.deliver();
        result
    }

    fn deliver(&self) {
        // Another thread that is delivering looks again after it releases the lock.
        while !lock(&self.state).changes.is_empty() {
            let Ok(_delivery) = self.delivery.try_lock() else {
                return;
            };
            loop {
                let next = lock(&self.state).changes.pop_front();
                let Some((namespace, change)) = next else {
                    break;
                };
                self.change_listeners.notify(namespace.as_str(), &change);
                self.counters.changed(true);
            }
        }
    }

    /// Returns an epoch later than all before, even if the clock stands still.
    fn next_epoch(&self, state: &mut State, key: &StoreKey) -> Result<Epoch, StoreError> {
        let stored = state.stored(key).map_or(0, Epoch::micros);
        let last = state.last.map_or(0, Epoch::micros);
        // One payload may carry an epoch far in the future. It must not push the epochs of other
        // keys ahead of the clock.
        let epoch = self.micros().max(last + 1);
        let far = stored.max(epoch - 1) + 1;
        if far == epoch {
            state.last = Epoch::from_micros(epoch);
        }
        Epoch::from_micros(far)
            .ok_or_else(|| StoreError::new(ErrorClass::Other, "the clock is past the year 2255"))
    }

    /// Stores a payload with a new epoch.
    fn store(
        &self,
        state: &mut State,
        key: &StoreKey,
        mut payload: Vec<u8>,
        expires: Tick,
    ) -> Result<Epoch, StoreError> {
        let epoch = self.next_epoch(state, key)?;
        if payload.len() > self.limit {
            return Err(StoreError::new(ErrorClass::TooLarge, ""));
        }
        if !envelope::stamp(&mut payload, epoch) {
            return Err(StoreError::new(ErrorClass::Protocol, "no envelope"));
        }
        let data = Data { payload, expires };
        state.data.insert(key.clone(), data);
        Ok(epoch)
    }
}

impl State {
    /// The epoch of the stored payload, if it is valid.
    fn stored(&self, key: &StoreKey) -> Option<Epoch> {
        self.data
            .get(key)
            .and_then(|data| envelope::epoch(&data.payload))
    }

    fn is_held_by(&self, key: &StoreKey, token: Token) -> bool {
        let lease = self.leases.get(key);
        lease.is_some_and(|lease| lease.belongs_to(token))
    }

    fn changed(&mut self, key: &StoreKey, kind: ChangeKind, epoch: Option<Epoch>, origin: Origin) {
        let change = Change {
            kind,
            epoch,
            hash: key.hash(),
            origin,
        };
        self.changes.push_back((key.namespace().clone(), change));
    }

    /// Removes everything that has expired, but only once the store has grown enough to pay for it.
    fn sweep(&mut self, now: Tick) {
        let size = self.data.len() + self.leases.len();
        if size >= self.sweep_at {
            self.data.retain(|_, data| now < data.expires);
            self.leases.retain(|_, lease| now < lease.until);
            self.sweep_at = (self.data.len() + self.leases.len()) * 2 + 64;
        }
    }

    fn expire(&mut self, key: &StoreKey, now: Tick) {
        if self.data.get(key).is_some_and(|data| now >= data.expires) {
            self.data.remove(key);
        }
        if self.leases.get(key).is_some_and(|lease| now >= lease.until) {
            self.leases.remove(key);
        }
    }
}

impl Store for MemoryStore {
    fn read<'a>(
        &'a self,
        keys: &'a [StoreKey],
    ) -> Reply<'a, Vec<Result<Option<Vec<u8>>, StoreError>>> {
        Box::pin(async move {
            let answers: Vec<_> = self.step(|state, now| {
                let answer = |key| {
                    state.expire(key, now);
                    match state.data.get(key) {
                        Some(data) if data.payload.len() > self.limit => {
                            Err(StoreError::new(ErrorClass::TooLarge, ""))
                        }
                        data => Ok(data.map(|data| data.payload.clone())),
                    }
                };
                keys.iter().map(answer).collect()
            });
            self.counters.read(&answers);
            answers
        })
    }

    fn acquire<'a>(
        &'a self,
        key: &'a StoreKey,
        ask: Acquire,
    ) -> Reply<'a, Result<Acquired, StoreError>> {
        Box::pin(async move {
            let acquired = self.step(|state, now| {
                state.expire(key, now);
                let stored = state.stored(key);
                if let Some(data) = state.data.get(key) {
                    // A payload above the limit cannot be returned, so the caller may replace it.
                    if stored.is_some() && stored != ask.seen && data.payload.len() <= self.limit {
                        return Ok(Acquired::Stored(data.payload.clone()));
                    }
                }
                let mut known = stored;
                if let Some(lease) = state.leases.get(key) {
                    let left = Duration::from_nanos(lease.until - now);
                    match lease.holder {
                        Some((holder, base)) if holder == ask.token => known = known.or(base),
                        Some(_) => return Ok(Acquired::Held { left }),
                        None => return Ok(Acquired::Cooling { left }),
                    }
                }
                let base = match known {
                    Some(base) => base,
                    None => self.next_epoch(state, key)?,
                };
                let lease = Lease {
                    holder: Some((ask.token, Some(base))),
                    until: now.saturating_add(ticks(ask.lease)),
                };
                state.leases.insert(key.clone(), lease);
                Ok(Acquired::Granted { base })
            });
            self.counters.result(acquired)
        })
    }

    fn publish<'a>(
        &'a self,
        key: &'a StoreKey,
        publish: Publish,
    ) -> Reply<'a, Result<Stored, StoreError>> {
        Box::pin(async move {
            let stored = self.step(|state, now| {
                state.expire(key, now);
                let lease = state.leases.get(key).and_then(|lease| lease.holder);
                let accepted = match state.stored(key) {
                    Some(stored) => publish.base == stored,
                    None => lease == Some((publish.token, Some(publish.base))),
                };
                let ours = state.is_held_by(key, publish.token);
                let stored = match accepted {
                    true => {
                        let expires = now.saturating_add(ticks(publish.ttl));
                        let epoch = self.store(state, key, publish.payload, expires)?;
                        let origin = publish.token.origin;
                        state.changed(key, ChangeKind::Refreshed, Some(epoch), origin);
                        Stored::Yes { epoch }
                    }
                    false => Stored::Refused,
                };
                match state.leases.get_mut(key) {
                    _ if ours => drop(state.leases.remove(key)),
                    // The overtaken holder keeps its lease so that no other process loads, but its
                    // result is refused.
                    Some(Lease {
                        holder: Some((_, base)),
                        ..
                    }) if stored != Stored::Refused => *base = None,
                    _ => {}
                }
                Ok(stored)
            });
            self.counters.result(stored)
        })
    }

    fn renew<'a>(
        &'a self,
        key: &'a StoreKey,
        token: Token,
        lease: Duration,
    ) -> Reply<'a, Result<bool, StoreError>> {
        Box::pin(async move {
            Ok(self.step(|state, now| {
                state.expire(key, now);
                match state.leases.get_mut(key) {
                    Some(held) if held.belongs_to(token) => {
                        held.until = now.saturating_add(ticks(lease));
                        true
                    }
                    _ => false,
                }
            }))
        })
    }

    fn release<'a>(
        &'a self,
        key: &'a StoreKey,
        token: Token,
        cool_down: Option<Duration>,
    ) -> Reply<'a, Result<bool, StoreError>> {
        Box::pin(async move {
            Ok(self.step(|state, now| {
                state.expire(key, now);
                if !state.is_held_by(key, token) {
                    return false;
                }
                state.leases.remove(key);
                if let Some(cool_down) = cool_down {
                    let lease = Lease {
                        holder: None,
                        until: now.saturating_add(ticks(cool_down)),
                    };
                    state.leases.insert(key.clone(), lease);
                }
                state.changed(key, ChangeKind::Released, None, token.origin);
                true
            }))
        })
    }

    fn set<'a>(
        &'a self,
        key: &'a StoreKey,
        payload: Vec<u8>,
        ttl: Duration,
        origin: Origin,
    ) -> Reply<'a, Result<Epoch, StoreError>> {
        Box::pin(async move {
            let epoch = self.step(|state, now| {
                state.expire(key, now);
                let expires = now.saturating_add(ticks(ttl));
                let epoch = self.store(state, key, payload, expires)?;
                state.leases.remove(key);
                state.changed(key, ChangeKind::Set, Some(epoch), origin);
                Ok(epoch)
            });
            self.counters.result(epoch)
        })
    }

    fn invalidate<'a>(
        &'a self,
        key: &'a StoreKey,
        origin: Origin,
    ) -> Reply<'a, Result<Epoch, StoreError>> {
        Box::pin(async move {
            let epoch = self.step(|state, now| {
                state.expire(key, now);
                let epoch = self.next_epoch(state, key)?;
                state.data.remove(key);
                state.leases.remove(key);
                state.changed(key, ChangeKind::Invalidated, Some(epoch), origin);
                Ok(epoch)
            });
            self.counters.result(epoch)
        })
    }

    fn now(&self) -> Option<u64> {
        Some(self.micros())
    }

    fn gaps(&self) -> u64 {
        // Acquire: a caller that reads a count sees everything before its increment.
        self.gaps.load(Ordering::Acquire)
    }

    fn state(&self) -> StoreState {
        StoreState::Up
    }

    fn stats(&self) -> StoreStats {
        self.counters.snapshot()
    }

    fn subscribe(&self, namespace: &Namespace, listener: Weak<dyn ChangeListener>) {
        self.change_listeners.add(namespace, listener);
        self.change_listeners.greet(self.gaps(), |_| true);
    }

    fn spawn(&self, work: BoxFuture) {
        self.background.spawn(work);
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").finish_non_exhaustive()
    }
}

/// Faults of servers, for tests.
#[cfg(any(test, feature = "test-util"))]
impl MemoryStore {
    /// Puts arbitrary bytes under a key, without expiry and without notifying listeners.
    pub fn plant(&self, key: &StoreKey, bytes: Vec<u8>) {
        let data = Data {
            payload: bytes,
            expires: Tick::MAX,
        };
        lock(&self.state).data.insert(key.clone(), data);
    }

    /// Drops a lease, as a server that evicts does.
    pub fn lose_lease(&self, key: &StoreKey) {
        lock(&self.state).leases.remove(key);
    }

    /// Drops a payload, as a server that evicts does, without notifying listeners.
    pub fn lose_data(&self, key: &StoreKey) {
        lock(&self.state).data.remove(key);
    }

    /// The time left of a lease or a cool-down.
    pub fn lease_left(&self, key: &StoreKey) -> Option<Duration> {
        let state = lock(&self.state);
        self.left(state.leases.get(key)?.until)
    }

    /// The time left until a payload expires.
    pub fn data_left(&self, key: &StoreKey) -> Option<Duration> {
        let state = lock(&self.state);
        self.left(state.data.get(key)?.expires)
    }

    fn left(&self, until: Tick) -> Option<Duration> {
        let left = until.saturating_sub(self.clock.exact());
        (left > 0).then(|| Duration::from_nanos(left))
    }

    /// The number of payloads, including expired ones that were not yet removed.
    pub fn len(&self) -> usize {
        lock(&self.state).data.len()
    }

    /// Whether the store holds no payload.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Drops everything without notifying listeners.
    pub fn flush(&self) {
        let mut state = lock(&self.state);
        state.data.clear();
        state.leases.clear();
    }

    /// Tells listeners that changes may have been missed, as after a lost connection.
    pub fn reconnect(&self) {
        // Release: pairs with the load in `gaps`.
        let gaps = self.gaps.fetch_add(1, Ordering::AcqRel) + 1;
        self.change_listeners.reconnected(gaps, |_| true);
    }
}
