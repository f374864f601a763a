//! The lease of one load: renewed while the loader runs, ended by its result.

use std::hash::Hash;
use std::time::Duration;

use super::Fleet;
use super::store_handle::StoreHandle;
use super::terms::{terms, ttl};
use super::version::{Stamp, Version};
use super::version_index::Installed;
use crate::load::job::{GiveBack, Leased};
use crate::load::lifecycle::{Lifecycle, Lost, Work};
use crate::observe::trace;
use crate::protocol::entry::Entry;
use crate::protocol::groups::Moment;
use crate::protocol::publish::{Interest, Published};
use crate::store::format::Sealed;
use crate::store::head::checksum;
use crate::store::{Publish, StoreKey, Stored, Terms, Token};
use crate::sync::future::or;
use crate::sync::{Arc, AtomicU8, Counter, Mutex, Ordering, StrongArc, lock};
use crate::time::clock::{Tick, ticks};

/// The cool-down of a load whose result cannot be stored.
const NOT_STORED: Option<Duration> = Some(Duration::ZERO);

/// The lease of one job, which loads for the fleet. Unless it ended before, dropping it gives it
/// back: its job was shed, taken over, or dropped with its runtime.
pub(super) struct Lease<K, V> {
    fleet: Arc<Fleet<K, V>>,
    grant: Grant,
    held: Arc<HeldLease>,
}

/// The grant of the store.
#[derive(Clone, Copy)]
pub(super) struct Grant {
    pub(super) token: Token,
    pub(super) base: Version,
    /// The gaps of the store before the grant.
    pub(super) gaps: u64,
}

/// A lease in the store.
struct HeldLease {
    store: Arc<StoreHandle>,
    key: StoreKey,
    token: Token,
    /// Not 0 once the lease has ended here.
    ended: AtomicU8,
    /// `None` once the lease has ended, here or in the store.
    duty: Mutex<Option<Duty>>,
    lifecycle: Arc<Lifecycle>,
}

/// From the request for a lease to the answer to the operation that ends it: a close waits for
/// this. Dropped before that answer, it counts as lost.
pub(super) struct Duty {
    lifecycle: Arc<Lifecycle>,
    lost: fn(&Lost) -> &Counter,
    is_done: bool,
}

impl Duty {
    /// A part of a load, which is counted.
    pub(super) fn begin(lifecycle: &Arc<Lifecycle>) -> Self {
        lifecycle.start_part(Work::Duty);
        Duty {
            lifecycle: lifecycle.clone(),
            lost: |lost| &lost.leases,
            is_done: false,
        }
    }

    /// The lease ends with a result.
    fn of_result(mut self) -> Self {
        self.lost = |lost| &lost.results;
        self
    }

    pub(super) fn done(mut self) {
        self.is_done = true;
    }
}

impl Drop for Duty {
    fn drop(&mut self) {
        if !self.is_done {
            self.lifecycle.lose(self.lost);
        }
        self.lifecycle.end(Work::Duty);
    }
}

impl HeldLease {
    /// Ends the lease here; `None` if it has ended before. Of the deadline, the result of its load
    /// and the close of the cache, one ends it.
    fn end(&self) -> Option<Duty> {
        // Relaxed: one renewal too many does no harm.
        (self.ended.swap(1, Ordering::Relaxed) == 0).then(|| {
            let duty = lock(&self.duty).take();
            duty.unwrap_or_else(|| Duty::begin(&self.lifecycle))
        })
    }

    fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed) != 0
    }

    /// The lease has ended in the store, while its load goes on.
    fn has_ended_there(&self) {
        let duty = lock(&self.duty).take();
        duty.into_iter().for_each(Duty::done);
    }

    fn release(&self, cool_down: Option<Duration>) {
        let Some(duty) = self.end() else {
            return;
        };
        let (store, key, token) = (self.store.clone(), self.key.clone(), self.token);
        self.store.spawn(async move {
            // If the store cannot be reached, the lease ends by itself.
            if store.release(&key, token, cool_down).await.is_ok() {
                duty.done();
            }
        });
    }
}

impl GiveBack for HeldLease {
    fn give_back(&self) {
        self.release(None);
    }
}

impl<K, V> Drop for Lease<K, V> {
    fn drop(&mut self) {
        self.held.release(None);
    }
}

impl<K, V> Lease<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// A lease that was just granted. It is renewed until it ends or its result is no longer
    /// wanted.
    pub(super) fn granted(
        fleet: &Arc<Fleet<K, V>>,
        key: StoreKey,
        grant: Grant,
        interest: Interest<K, V>,
        duty: Duty,
    ) -> Self {
        let lease = Lease {
            fleet: fleet.clone(),
            grant,
            held: Arc::new(HeldLease {
                store: fleet.store.clone(),
                key,
                token: grant.token,
                ended: AtomicU8::new(0),
                duty: Mutex::new(Some(duty)),
                lifecycle: fleet.state.lifecycle.clone(),
            }),
        };
        fleet.store.spawn(lease.renewing(interest));
        lease
    }

    /// Renews at a third of the lease, so that one lost attempt does not lose it.
    fn renewing(
        &self,
        interest: Interest<K, V>,
    ) -> impl Future<Output = ()> + Send + 'static + use<K, V> {
        let (fleet, held) = (self.fleet.clone(), self.held.clone());
        let third = ticks(fleet.lease) / 3;
        // From the grant on, and later from before each renewal, however late this task runs.
        let mut next = fleet.state.clock.now().saturating_add(third);
        async move {
            loop {
                let clock = &fleet.state.clock;
                let (key, token) = (&held.key, held.token);
                or(clock.sleep_until(next), held.lifecycle.closed()).await;
                next = clock.now().saturating_add(third);
                if held.has_ended() {
                    return;
                }
                if held.lifecycle.is_closed() {
                    // The loader may go on, but other processes need not wait for it.
                    return held.release(None);
                }
                if !interest.is_live(clock.now()) {
                    // After the end of the claim the job ends its lease by itself, perhaps with a
                    // result that the store would refuse after a release. Otherwise the deadline
                    // has passed, another caller took over, or the cache is gone: the loader may go
                    // on, but not for the fleet.
                    if !interest.has_ended() {
                        let _ = fleet.store.release(key, token, None).await;
                        held.has_ended_there();
                    }
                    return;
                }
                match fleet.store.renew(key, token, fleet.lease).await {
                    Ok(true) => fleet.counters.leases_renewed.add(),
                    Ok(false) => {
                        trace::lease_lost(&fleet.state.name);
                        held.has_ended_there();
                        return fleet.counters.leases_lost.add();
                    }
                    Err(_) => {}
                }
            }
        }
    }
}

impl<K, V> Fleet<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// The store refused a result. It leaves this process, because a set or an invalidation may
    /// have come after the load had begun.
    ///
    /// It stays if there was none. Then its lease was lost: it was evicted, or it ended while this
    /// process did not run, or the load was `late` and had given it back. The store cannot tell
    /// this from an invalidation, but the messages can.
    fn refused(&self, hash: u128, grant: Grant, late: bool, answer: &Answered<K, V>) {
        let told = self.store.tells_everything() && self.store.gaps() == grant.gaps;
        if (told || late) && self.versions.keep(hash, grant.base) {
            self.counters.not_stored.add();
            // Another process may have published over the lost lease.
            return self.look_for_newer(hash);
        }
        trace::refused(&self.state.name);
        self.counters.refused.add();
        match answer {
            Answered::Value(entry) => self.remove_entry(hash, entry),
            Answered::NotFound => self.forget(hash),
        }
    }

    /// Forgets that a key has no value.
    fn forget(&self, hash: u128) {
        if let Some((key, _)) = self.versions.key(hash) {
            self.state.negative.forget(&key);
        }
    }
}

/// The answer of a loader.
enum Answered<K, V> {
    Value(StrongArc<Entry<K, V>>),
    NotFound,
}

impl<K, V> Lease<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// Stores an answer that the callers have already.
    fn store(self, payload: Vec<u8>, ttl: Duration, answer: Answered<K, V>) {
        let ended = self.held.end();
        let late = ended.is_none();
        let duty = ended.unwrap_or_else(|| Duty::begin(&self.held.lifecycle));
        let duty = duty.of_result();
        let (fleet, key, grant) = (self.fleet.clone(), self.held.key.clone(), self.grant);
        let publish = Publish {
            base: grant.base.epoch,
            token: grant.token,
            payload,
            ttl,
        };
        let checksum = checksum(&publish.payload);
        self.fleet.in_background(async move {
            let hash = key.hash();
            match fleet.store.publish(&key, publish).await {
                Ok(Stored::Yes { epoch }) => {
                    fleet.counters.published.add();
                    let version = fleet.version(epoch);
                    let stamp = Stamp { version, checksum };
                    match answer {
                        Answered::Value(entry) => fleet.installed(hash, stamp, &entry),
                        Answered::NotFound => {
                            if fleet.versions.install(hash, stamp) != Installed::Latest {
                                fleet.forget(hash);
                            }
                        }
                    }
                }
                Ok(Stored::Refused) => fleet.refused(hash, grant, late, &answer),
                Err(_) => {
                    fleet.counters.not_stored.add();
                    let _ = fleet.store.release(&key, grant.token, NOT_STORED).await;
                    return drop(duty);
                }
            }
            duty.done();
        });
    }
}

impl<K, V> Leased<K, V> for Lease<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    fn publish(
        self: Box<Self>,
        entry: StrongArc<Entry<K, V>>,
        published: Published,
        began: Moment,
    ) {
        if published == Published::TakenOver {
            return;
        }
        let Some(value) = entry.value() else { return };
        let Some(cells) = self.fleet.epochs(&entry, began) else {
            self.fleet.prepare_cells_soon(entry.cells().collect());
            self.fleet.counters.not_stored.add();
            return self.held.release(NOT_STORED);
        };
        let terms = terms(&entry.times());
        let sealed = Sealed {
            cells: &cells,
            ..Sealed::loaded(value, &terms)
        };
        match self.fleet.format.seal_answer(&self.held.key, sealed) {
            Ok(payload) => self.store(payload, ttl(&terms), Answered::Value(entry)),
            Err(reason) => {
                trace::not_stored(&self.fleet.state.name, &reason);
                self.fleet.counters.payload_errors(reason);
                self.fleet.counters.not_stored.add();
                self.held.release(NOT_STORED);
            }
        }
    }

    fn at_deadline(&self) -> Arc<dyn GiveBack> {
        self.held.clone()
    }

    fn failed(self: Box<Self>, rest: Duration) {
        self.held.release(Some(rest));
    }

    /// Stored like a value, so that other processes need not ask the origin, and a later write is
    /// not undone.
    fn not_found(self: Box<Self>, key: &K, lasts: Tick, began: Moment) {
        // A late answer counts in this process only.
        if self.held.has_ended() {
            return;
        }
        let lasts = Duration::from_nanos(lasts);
        let terms = Terms {
            fresh_for: lasts,
            stale_for: Duration::ZERO,
            stale_if_error_for: Duration::ZERO,
            cost: Duration::ZERO,
        };
        let Some(cells) = self.fleet.epochs_of_key(key, began) else {
            return self.held.release(NOT_STORED);
        };
        let sealed = Sealed {
            value: None,
            terms: &terms,
            born: None,
            cells: &cells,
        };
        match self.fleet.format.seal_answer(&self.held.key, sealed) {
            Ok(payload) => self.store(payload, ttl(&terms), Answered::NotFound),
            Err(_) => self.held.release(NOT_STORED),
        }
    }
}
