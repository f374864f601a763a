//! The lease of one load: renewed while the loader runs, ended by its result.

use std::hash::Hash;
use std::time::Duration;

use super::Fleet;
use super::terms::{terms, ttl};
use crate::load::job::{GiveBack, Leased};
use crate::observe::trace;
use crate::protocol::entry::Entry;
use crate::protocol::publish::{Interest, Published};
use crate::store::{Birth, Epoch, Publish, Store, StoreKey, Stored, Token};
use crate::sync::{Arc, AtomicU8, Ordering};
use crate::time::clock::ticks;

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
    pub(super) base: Epoch,
    /// Whether the store holds a payload that the result will replace.
    pub(super) replaces: bool,
}

/// A lease in the store.
struct HeldLease {
    store: Arc<dyn Store>,
    key: StoreKey,
    token: Token,
    /// Not 0 once the lease has ended.
    ended: Arc<AtomicU8>,
}

impl HeldLease {
    /// Ends the lease here; false if it has ended before. Of the deadline and the result of its
    /// load, one ends it.
    fn end(&self) -> bool {
        // Relaxed: one renewal too many does no harm.
        self.ended.swap(1, Ordering::Relaxed) == 0
    }

    fn release(&self, cool_down: Option<Duration>) {
        if !self.end() {
            return;
        }
        let (store, key, token) = (self.store.clone(), self.key.clone(), self.token);
        self.store.spawn(Box::pin(async move {
            // If the store cannot be reached, the lease ends by itself.
            let _ = store.release(&key, token, cool_down).await;
        }));
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
    ) -> Self {
        let lease = Lease {
            fleet: fleet.clone(),
            grant,
            held: Arc::new(HeldLease {
                store: fleet.store.clone(),
                key,
                token: grant.token,
                ended: Arc::new(AtomicU8::new(0)),
            }),
        };
        let renewing = lease.renewing(interest);
        fleet.store.spawn(Box::pin(renewing));
        lease
    }

    /// Renews at a third of the lease, so that one lost attempt does not lose it.
    fn renewing(
        &self,
        interest: Interest<K, V>,
    ) -> impl Future<Output = ()> + Send + 'static + use<K, V> {
        let (fleet, key, token) = (self.fleet.clone(), self.held.key.clone(), self.held.token);
        let ended = self.held.ended.clone();
        async move {
            loop {
                let clock = &fleet.state.clock;
                let next = clock.now().saturating_add(ticks(fleet.lease) / 3);
                clock.sleep_until(next).await;
                if ended.load(Ordering::Relaxed) != 0 {
                    return;
                }
                if !interest.is_live(clock.now()) {
                    // After the end of the claim the job ends its lease by itself, perhaps with a
                    // result that the store would refuse after a release. Otherwise the deadline
                    // has passed, another caller took over, or the cache is gone: the loader may go
                    // on, but not for the fleet.
                    if !interest.has_ended() {
                        let _ = fleet.store.release(&key, token, None).await;
                    }
                    return;
                }
                match fleet.store.renew(&key, token, fleet.lease).await {
                    Ok(true) => fleet.counters.leases_renewed.add(),
                    Ok(false) => {
                        trace::lease_lost(&fleet.state.name);
                        return fleet.counters.leases_lost.add();
                    }
                    Err(_) => {}
                }
            }
        }
    }
}

impl<K, V> Leased<K, V> for Lease<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// The callers have the value already. If the store refuses it, the value is out of date, and
    /// is removed from this process too.
    fn publish(self: Box<Self>, entry: Arc<Entry<K, V>>, published: Published) {
        if published == Published::TakenOver {
            return;
        }
        let Some(value) = entry.value() else { return };
        let terms = terms(&entry.times);
        let payload = match self.fleet.format.seal(&self.held.key, value, &terms) {
            Ok(payload) => payload,
            Err(reason) => {
                trace::not_stored(&self.fleet.state.name, &reason);
                self.fleet.counters.payload_errors(reason);
                self.fleet.counters.not_stored.add();
                return;
            }
        };
        let late = !self.held.end();
        let (fleet, key) = (self.fleet.clone(), self.held.key.clone());
        let publish = Publish {
            base: self.grant.base,
            token: self.grant.token,
            payload,
            ttl: ttl(&terms),
        };
        let Grant { token, base, .. } = self.grant;
        self.fleet.in_background(async move {
            match fleet.store.publish(&key, publish).await {
                Ok(Stored::Yes { epoch }) => {
                    fleet.counters.published.add();
                    // A notification of a later epoch may have come before the index knew that this
                    // value is resident.
                    if !fleet.versions.install(key.hash(), epoch) {
                        fleet.remove_entry(key.hash(), &entry);
                    }
                }
                // The value came after the deadline, when the lease had been given back. The store
                // refuses it even if nothing happened to the key. It stays in this process unless
                // something later is known.
                Ok(Stored::Refused) if late && fleet.versions.accepts(key.hash(), base) => {}
                Ok(Stored::Refused) => {
                    trace::refused(&fleet.state.name);
                    fleet.counters.refused.add();
                    fleet.remove_entry(key.hash(), &entry);
                }
                Err(_) => {
                    fleet.counters.not_stored.add();
                    let _ = fleet.store.release(&key, token, None).await;
                }
            }
        });
    }

    fn at_deadline(&self) -> Arc<dyn GiveBack> {
        self.held.clone()
    }

    fn failed(self: Box<Self>, rest: Duration) {
        self.held.release(Some(rest));
    }

    /// The store must not keep a value for this key either.
    fn not_found(self: Box<Self>) {
        // A late answer counts in this process only, like a late value.
        if !self.grant.replaces || !self.held.end() {
            return;
        }
        let (fleet, key) = (self.fleet.clone(), self.held.key.clone());
        self.fleet.in_background(async move {
            let _ = fleet
                .store
                .invalidate(&key, Birth::latest(fleet.origin))
                .await;
        });
    }
}
