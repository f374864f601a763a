//! What other processes change.

use std::hash::Hash;

use super::version_index::WriteState;
use super::{Fleet, PAUSES};
use crate::load::job::Job;
use crate::observe::reason::LoadReason;
use crate::protocol::entries::{Claimed, Entries};
use crate::protocol::entry::Entry;
use crate::protocol::flight::Flight;
use crate::protocol::removal::Cause;
use crate::protocol::table::Place;
use crate::store::envelope;
use crate::store::{Change, ChangeKind, ChangeListener, ErrorClass};
use crate::sync::{Arc, Held};

/// Keys that are compared with the store in one request after a gap, and refreshed at once.
const COMPARED: usize = 64;

impl<K, V> ChangeListener for Fleet<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    fn changed(&self, change: &Change) {
        let ours = change.origin == self.origin;
        // First what is known, then what is resident: see the versions.
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
        // Who waits for a lease tries again.
        self.versions.notify(change.hash);
    }

    fn reconnected(&self, _: u64) {
        let Some(fleet) = self.me() else { return };
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

    /// Takes over what another process refreshed; the value that is here is served until then.
    fn catch_up(&self, set: usize, key: &K, reason: LoadReason) -> Option<Arc<Flight<K, V>>> {
        let entries = self.entries.upgrade()?;
        let (place, entry) = entries.find_in(set, key)?;
        if entry.is_loading() {
            // It waits for a change, and was flushed of this one.
            return None;
        }
        match entries.claim_now(place, &entry, self.state.clock.now()) {
            Claimed::Ours(claim) => {
                let flight = claim.flight().clone();
                let job = Job::new(claim, reason, self.state.clone());
                self.me()?.start(job);
                Some(flight)
            }
            Claimed::Theirs(_) | Claimed::Changed => None,
        }
    }

    /// After a gap: compares what is resident with the store, and refreshes what differs. Meanwhile it is served.
    ///
    /// What the store no longer has was invalidated, or expired, or the store lost it. None of the three can be flushed apart, so it is loaded again, a few
    /// keys at a time.
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
                // Changes arrive again before reads do, perhaps. A key that was left out would be left out for ever.
                let clock = &self.state.clock;
                clock.sleep_until(clock.now().saturating_add(pause)).await;
                pause = (2 * pause).min(PAUSES.1);
            }
        }
    }

    /// Compares some keys with the store, and refreshes what differs; false if the store did not answer for all of them.
    async fn compare(self: &Arc<Self>, hashes: &[u128]) -> bool {
        let known = |hash: &u128| {
            let (key, set) = self.versions.key(*hash)?;
            // What was never stored cannot have changed there, and what is pending will.
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
                // Something that no cache can use is as nothing.
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
                // Not as an early refresh, which is left out when the loader is busy: nobody would try again.
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
