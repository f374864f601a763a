//! Values that the store has lost: a fresh resident value is stored again, not loaded again.
//!
//! The value is published like the result of a load, under a lease, so that one process of the
//! fleet stores it. It may not come back after a later write:
//!
//! - A write before the grant, of which this process was told, has taken the value out of the
//!   table.
//! - A write after the grant ends the lease, and the store refuses the value.
//! - A value with groups is not stored again.
//!
//! A set that this process missed is found in the store. An invalidation leaves no trace there. So
//! one that came between the return of the store and that of this process is undone. Therefore
//! values are stored again only in the gap in which the new history was found, and not in later
//! ones.
//!
//! The keys are stored one after the other, each in two steps, which bounds the rate.

use std::hash::Hash;
use std::time::Duration;

use super::Fleet;
use super::terms::{terms_from, ttl};
use super::version::Stamp;
use crate::protocol::entry::Entry;
use crate::store::head::checksum;
use crate::store::{
    Acquire, Acquired, Epoch, ErrorClass, Publish, StoreError, StoreKey, Stored, Token,
};
use crate::sync::{Ordering, StrongArc};

/// Whether the same operation may succeed soon. A store that is full, for example, must not keep
/// the process from comparing its other values.
fn may_work_soon(error: &StoreError) -> bool {
    use ErrorClass::{Busy, TimedOut, Unavailable};
    matches!(error.class(), Busy | TimedOut | Unavailable)
}

impl<K, V> Fleet<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// Stores a resident value again, if it is fresh. A stale one is left to its next reader, which
    /// refreshes it. Returns false if the store should be asked again.
    pub(super) async fn store_again(&self, name: &StoreKey, key: &K, set: usize) -> bool {
        let Some(entry) = self.fresh(key, set) else {
            return true;
        };
        if self.state.lifecycle.is_closed() {
            return true;
        }
        let token = Token {
            origin: self.origin,
            serial: self.serial.fetch_add(1, Ordering::Relaxed),
        };
        let ask = Acquire {
            seen: self.versions.seen(name.hash()),
            token,
            lease: self.lease,
        };
        let timeline = self.timeline();
        match self.store.acquire(name, ask).await {
            Ok(Acquired::Granted { base }) => self.publish_again(name, &entry, token, base).await,
            Ok(Acquired::Stored(payload)) => {
                let payloads = std::iter::once(&*payload);
                let moment = self.answered_with(timeline, payloads).await;
                self.take_over(name, key, set, &payload, moment);
                true
            }
            // Another process loads the key or stores it again.
            Ok(Acquired::Held { .. } | Acquired::Cooling { .. }) => true,
            Err(error) => !may_work_soon(&error),
        }
    }

    async fn publish_again(
        &self,
        name: &StoreKey,
        entry: &StrongArc<Entry<K, V>>,
        token: Token,
        base: Epoch,
    ) -> bool {
        let Some((payload, ttl)) = self.seal_again(name, entry) else {
            // The lease is not needed, and would keep the key from others.
            let _ = self.store.release(name, token, None).await;
            return true;
        };
        let checksum = checksum(&payload);
        let publish = Publish {
            base,
            token,
            payload,
            ttl,
        };
        match self.store.publish(name, publish).await {
            Ok(Stored::Yes { epoch }) => {
                self.counters.published.add();
                let version = self.version(epoch);
                self.installed(name.hash(), Stamp { version, checksum }, entry);
                true
            }
            // A later write came.
            Ok(Stored::Refused) => true,
            Err(error) => {
                self.counters.not_stored.add();
                let _ = self.store.release(name, token, None).await;
                !may_work_soon(&error)
            }
        }
    }

    /// The payload of a value that is still resident and fresh, with the time that is left to it.
    fn seal_again(
        &self,
        name: &StoreKey,
        entry: &StrongArc<Entry<K, V>>,
    ) -> Option<(Vec<u8>, Duration)> {
        let (key, set) = self.versions.key(name.hash())?;
        let resident = self.fresh(&key, set)?;
        if !StrongArc::ptr_eq(&resident, entry) {
            return None;
        }
        let terms = terms_from(&entry.times(), self.state.clock.now());
        let payload = self.format.seal(name, entry.value()?, &terms).ok()?;
        Some((payload, ttl(&terms)))
    }

    /// The resident value of a key, if it is fresh.
    fn fresh(&self, key: &K, set: usize) -> Option<StrongArc<Entry<K, V>>> {
        let (_, entry) = self.entries.upgrade()?.find_in(set, key)?;
        // The epochs of its cells at its beginning are not known any more. The store has lost those
        // as well, so the value is invalid.
        if entry.cells().next().is_some() {
            return None;
        }
        let is_fresh = self.state.clock.now() < entry.times().fresh_until();
        (is_fresh && !entry.is_loading()).then(|| entry.into_arc())
    }
}
