//! Changes that other processes make.

use std::hash::Hash;

use super::version_index::WriteState;
use super::{Fleet, PAUSES};
use crate::load::job::Job;
use crate::load::runtime::Caller;
use crate::observe::reason::LoadReason;
use crate::protocol::entries::{Claimed, Entries};
use crate::protocol::entry::Entry;
use crate::protocol::flight::Flight;
use crate::protocol::removal::Cause;
use crate::protocol::table::Place;
use crate::store::envelope;
use crate::store::{Change, ChangeKind, ChangeListener, ErrorClass};
use crate::sync::{Arc, Held};

/// After a gap, this many keys are compared with the store in one request, and refreshed at once.
const COMPARED: usize = 64;

impl<K, V> ChangeListener for Fleet<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    fn changed(&self, change: &Change) {
        let ours = change.origin == self.origin;
        // The version index first, then the table: see `version_index`.
        let later = change
            .epoch
            .is_some_and(|epoch| self.versions.raise(change.hash, epoch));
        if !ours {
            self.counters.notifications.add();
            if later {
                self.counters.followed_changes.add();
                self.follow(change);
            }
        }
        // A job that waits for the lease tries again.
        self.versions.notify(change.hash);
    }

    fn reconnected(&self, _: u64) {
        let Some(fleet) = self.me() else { return };
        fleet.wake_probe();
        if fleet.versions.len() > 0 {
            fleet.counters.rechecks.add();
            self.store.spawn(Box::pin(fleet.recheck()));
        }
    }
}

impl<K, V> Fleet<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    fn me(&self) -> Option<Arc<Self>> {
        self.this.upgrade()
    }

    fn follow(&self, change: &Change) {
        let Some((key, set)) = self.versions.key(change.hash) else {
            return;
        };
        if self.versions.is_pending(change.hash) {
            // The store decides which of the two is later, and answers the pending write.
            return;
        }
        match change.kind {
            // The order of every write: the versions, the table, the negative entries (see
            // `cache::write`).
            ChangeKind::Invalidated | ChangeKind::Set => {
                if let Some(entries) = self.entries.upgrade() {
                    entries.invalidate_in(set, &key);
                }
                self.state.negative.forget(&key);
            }
            ChangeKind::Refreshed => {
                self.state.negative.forget(&key);
                self.catch_up(set, &key, LoadReason::Early);
            }
            ChangeKind::Released => {}
        }
    }

    /// Takes over a value that another process refreshed. The resident value is served until then.
    fn catch_up(&self, set: usize, key: &K, reason: LoadReason) -> Option<Arc<Flight<K, V>>> {
        let entries = self.entries.upgrade()?;
        let (place, entry) = entries.find_in(set, key)?;
        if entry.is_loading() {
            // The load waits for a change, and is notified of this one.
            return None;
        }
        match entries.claim_now(place, &entry, self.state.clock.now()) {
            Claimed::Ours(claim) => {
                let flight = claim.flight().clone();
                let job = Job::new(claim, reason, self.state.clone(), Caller::GoesOn);
                self.me()?.start(job);
                Some(flight)
            }
            Claimed::Theirs(_) | Claimed::Changed => None,
        }
    }

    /// After a gap in the notifications: compares the resident values with the store and refreshes
    /// those that differ. They are served meanwhile.
    ///
    /// A key that the store no longer has was invalidated, or expired, or the store lost it. The
    /// process cannot tell which, so it loads the key again, a few keys at a time.
    async fn recheck(self: Arc<Self>) {
        let gaps = self.store.gaps();
        for hashes in self.versions.hashes().chunks(COMPARED) {
            let mut pause = PAUSES.0;
            loop {
                if self.store.gaps() != gaps || self.entries.strong_count() == 0 {
                    return;
                }
                if self.compare(hashes).await {
                    break;
                }
                // Notifications may arrive again before reads succeed. A key that is skipped now
                // would be skipped for ever, so try again.
                let clock = &self.state.clock;
                clock.sleep_until(clock.now().saturating_add(pause)).await;
                pause = (2 * pause).min(PAUSES.1);
            }
        }
    }

    /// Compares some keys with the store and refreshes those that differ. Returns false if the
    /// store did not answer for all of them.
    async fn compare(self: &Arc<Self>, hashes: &[u128]) -> bool {
        let known = |hash: &u128| {
            let (key, set) = self.versions.key(*hash)?;
            // A value that was never stored cannot have changed there, and a pending write will
            // change it.
            self.versions.installed(*hash)?;
            matches!(self.versions.write_state(*hash), WriteState::Flushed)
                .then(|| Some((self.name(&key)?, key, set)))
                .flatten()
        };
        let keys: Vec<_> = hashes.iter().filter_map(known).collect();
        let names: Vec<_> = keys.iter().map(|(name, ..)| name.clone()).collect();
        let (mut refreshed, mut answered) = (Vec::new(), true);
        for ((name, key, set), answer) in keys.iter().zip(self.store.read(&names).await) {
            let stored = match answer {
                Ok(stored) => stored.as_deref().and_then(envelope::epoch),
                // Data that no cache can use counts as nothing.
                Err(error)
                    if matches!(error.class(), ErrorClass::TooLarge | ErrorClass::Foreign) =>
                {
                    None
                }
                Err(_) => {
                    answered = false;
                    continue;
                }
            };
            if let Some(epoch) = stored {
                self.versions.raise(name.hash(), epoch);
            }
            if stored.is_none() || stored != self.versions.installed(name.hash()) {
                // Not as an early refresh, because a busy loader drops those, and no later call
                // would try again.
                refreshed.extend(self.catch_up(*set, key, LoadReason::Stale));
            }
        }
        for flight in refreshed {
            flight.land(&self.state.clock).await;
        }
        answered
    }
}

impl<K: Eq, V> Entries<K, V> {
    /// The entry of a key whose set is known.
    pub(super) fn find_in(&self, set: usize, key: &K) -> Option<(Place, Held<Entry<K, V>>)> {
        self.table.items(set).find(|(_, entry)| entry.key == *key)
    }

    /// [`Entries::remove`] of a key whose set is known.
    fn invalidate_in(&self, set: usize, key: &K) {
        while let Some((place, entry)) = self.find_in(set, key) {
            if self
                .remove_entry(place, entry.arc(), Cause::Invalidated)
                .is_some()
            {
                break;
            }
        }
        self.removals.deliver();
    }
}
