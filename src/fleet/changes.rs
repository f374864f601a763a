//! Changes that other processes make.
//!
//! A message causes a read, and never a load. After *invalidated* and *set*, the older value leaves
//! at once. After *refreshed*, the value at hand is served until the newer one has been read. If
//! this process cannot read that one, it keeps its own and does not ask for that epoch again. Only
//! a reader that finds its value stale, expired or missing leads to a load. Otherwise two processes
//! that cannot read each other's values would wake each other for ever.
//!
//! Messages may come faster than values can be read. Their keys wait in a queue, each once, and are
//! read one request at a time. A message that comes while a task stops is seen by that task or
//! starts another one, as with every `Batcher`.

use std::hash::Hash;

use super::batch::TOGETHER;
use super::version::{Moment, Stamp};
use super::{Fleet, PAUSES};
use crate::load::job::Job;
use crate::load::runtime::Caller;
use crate::observe::reason::LoadReason;
use crate::panics::isolated;
use crate::protocol::claim::ClaimState;
use crate::protocol::entries::{Claimed, Entries};
use crate::protocol::entry::Entry;
use crate::protocol::flight::Flight;
use crate::protocol::groups::Cell;
use crate::protocol::removal::Cause;
use crate::protocol::table::Place;
use crate::store::{Change, ChangeKind, ChangeListener, ErrorClass, Head, StoreError, StoreKey};
use crate::sync::future::or;
use crate::sync::{Arc, Held, StrongArc};
use crate::time::clock::Tick;

/// After a gap, this many keys are compared with the store in one request, and refreshed at once.
pub(super) const COMPARED: usize = 64;

/// The longest pause before keys are compared that were being loaded or written.
const LOOK_AGAIN: Tick = 400_000_000;

impl<K, V> ChangeListener for Fleet<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    fn changed(&self, change: &Change) {
        let cell = StoreKey::cell_of(change.hash).map(usize::from);
        if let Some(cell) = cell.and_then(Cell::numbered) {
            return self.cell_changed(cell, change);
        }
        let ours = change.origin == self.origin;
        // The version index first, then the table: see `version_index`.
        let removes = matches!(change.kind, ChangeKind::Invalidated | ChangeKind::Set);
        let version = change.epoch.map(|epoch| self.version(epoch));
        let later =
            version.is_some_and(|version| self.versions.raise(change.hash, version, removes));
        if !ours {
            if let Some(version) = version.filter(|_| removes) {
                self.versions.removed_by_other(change.hash, version);
            }
            self.counters.notifications.add();
            if later {
                self.counters.followed_changes.add();
                self.follow(change);
            }
        }
        if change.kind == ChangeKind::NotStored {
            self.versions.add_not_stored(change.hash);
        }
        // A job that waits for the lease tries again.
        self.versions.notify(change.hash);
    }

    fn reconnected(&self, gaps: u64) {
        let Some(fleet) = self.me() else { return };
        fleet.cells_after_gap(gaps);
        let is_new = self.versions.begin_history(self.store.history());
        fleet.wake_probe();
        if fleet.versions.len() > 0 {
            fleet.counters.rechecks.add();
            self.store.spawn(fleet.recheck(is_new));
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
                    // The store decides whether a pending set is later, and answers it. Any other
                    // value may be older than the change, also while an invalidation is pending.
                    let stays =
                        |entry: &Entry<K, V>| self.versions.is_pending_set(change.hash, entry);
                    entries.invalidate_in(set, &key, stays);
                }
                self.state.negative.forget(&key);
                self.state.look(true);
            }
            ChangeKind::Refreshed => {
                self.state.negative.forget(&key);
                self.look_for_newer(change.hash);
            }
            ChangeKind::Released | ChangeKind::NotStored => {}
        }
    }

    /// Queues a key whose value another process refreshed.
    pub(super) fn look_for_newer(&self, hash: u128) {
        if self.versions.queue(hash) && self.newer.push(hash) {
            if let Some(fleet) = self.me() {
                fleet.start_reading();
            }
        }
    }

    fn start_reading(self: &Arc<Self>) {
        self.store.spawn(self.clone().read_newer());
    }

    /// Reads the first keys of the queue and takes over their values. The next keys are read
    /// afterwards.
    async fn read_newer(self: Arc<Self>) {
        let _turn = Turn(self.clone());
        let mut keys = Vec::new();
        while keys.len() < TOGETHER {
            let Some(hash) = self.newer.next() else { break };
            // Before the look at the key, so that a message after the look queues it again.
            self.versions.unqueue(hash);
            isolated(|| keys.extend(self.wanted(hash)));
        }
        if keys.is_empty() {
            return;
        }
        let names: Vec<_> = keys.iter().map(|(name, ..)| name.clone()).collect();
        let timeline = self.timeline();
        let answers = self.store.read(&names).await;
        let moment = self.answered_with(timeline, payloads(&answers)).await;
        for ((name, key, set), answer) in keys.iter().zip(answers) {
            // Without an answer the value at hand stays until it is stale.
            if let Ok(Some(payload)) = answer {
                isolated(|| _ = self.take_over(name, key, *set, &payload, moment));
            }
        }
    }

    /// The key with this hash, if its value is here and another process made a later one.
    fn wanted(&self, hash: u128) -> Option<(StoreKey, Arc<K>, usize)> {
        if !self.versions.is_outdated(hash) {
            return None;
        }
        let (key, set) = self.versions.key(hash)?;
        let (_, entry) = self.entries.upgrade()?.find_in(set, &key)?;
        // A load or refresh that is under way asks the store by itself.
        (!self.is_under_way(&entry)).then(|| Some((self.name(&key)?, key, set)))?
    }

    /// Replaces the resident value by a payload, if that may be served and is not stale while the
    /// other is fresh. Returns false if only a refresh could replace it.
    pub(super) fn take_over(
        &self,
        name: &StoreKey,
        key: &K,
        set: usize,
        payload: &[u8],
        moment: Moment,
    ) -> bool {
        // A payload that cannot be read here is no better than the value at hand.
        let Ok(found) = self.open(name, key, payload, moment) else {
            return true;
        };
        let fresh_until = || {
            let entries = self.entries.upgrade()?;
            let (_, entry) = entries.find_in(set, key)?;
            Some(entry.times().fresh_until())
        };
        let fresh = fresh_until().is_some_and(|until| self.state.clock.now() < until);
        if fresh && !found.is_fresh() {
            return false;
        }
        if let Some(job) = self.claim(set, key, LoadReason::Early) {
            self.make_resident(job, name.hash(), found);
        }
        true
    }

    /// Claims a resident value. `None` if it is being loaded or refreshed already.
    fn claim(&self, set: usize, key: &K, reason: LoadReason) -> Option<Job<K, V>> {
        let entries = self.entries.upgrade()?;
        let (place, entry) = entries.find_in(set, key)?;
        if entry.is_loading() {
            return None;
        }
        match entries.claim_now(place, &entry, self.state.clock.now()) {
            Claimed::Ours(claim) => Job::new(claim, reason, self.state.clone(), Caller::GoesOn),
            Claimed::Theirs(_) | Claimed::Changed => None,
        }
    }

    /// Refreshes a value that may be out of date. It is served until then.
    fn refresh(&self, set: usize, key: &K) -> Option<StrongArc<Flight<K, V>>> {
        // Not as an early refresh, because a busy loader drops those, and no later call would try
        // again.
        let job = self.claim(set, key, LoadReason::Stale)?;
        let flight = job.flight().clone();
        self.me()?.start(job);
        Some(flight)
    }

    /// After a gap in the notifications: compares the resident values with the store. They are
    /// served meanwhile.
    ///
    /// Values that differ are taken over. A key that the store no longer has was invalidated, or
    /// expired, or the store evicted it. The process cannot tell which, so it loads the key again,
    /// a few keys at a time. But if the store began a new history, it has lost the key, and the
    /// value is stored again.
    async fn recheck(self: Arc<Self>, is_new: bool) {
        let gaps = self.store.gaps();
        let mut left = self.versions.hashes();
        let mut pause = PAUSES.0;
        while !left.is_empty() {
            let mut again = Vec::new();
            for hashes in left.chunks(COMPARED) {
                let mut pause = PAUSES.0;
                loop {
                    if self.store.gaps() != gaps || self.state.lifecycle.is_closed() {
                        return;
                    }
                    if let Some(changing) = self.compare(hashes, is_new).await {
                        again.extend(changing);
                        break;
                    }
                    // Notifications may arrive again before reads succeed. A key that is skipped
                    // now would be skipped for ever, so try again.
                    self.rest(&mut pause, PAUSES.1).await;
                }
            }
            left = again;
            if !left.is_empty() {
                self.rest(&mut pause, LOOK_AGAIN).await;
            }
        }
    }

    /// Waits for a pause. The next one is longer.
    pub(super) async fn rest(&self, pause: &mut Tick, longest: Tick) {
        let clock = &self.state.clock;
        let ends = clock.sleep_until(clock.now().saturating_add(*pause));
        or(ends, self.state.lifecycle.closed()).await;
        *pause = (2 * *pause).min(longest);
    }

    /// Compares some keys with the store, and takes over or refreshes those that differ. Returns
    /// the keys to be compared later, or `None` if the store did not answer for all of them.
    async fn compare(self: &Arc<Self>, hashes: &[u128], is_new: bool) -> Option<Vec<u128>> {
        let mut changing = Vec::new();
        let known = |hash: &u128| {
            let (key, set) = self.versions.key(*hash)?;
            let entry = self.resident(*hash)?;
            if self.versions.is_pending_set(*hash, &entry) {
                // The store decides whether it is later than the changes that were missed.
                return None;
            }
            // A load that began before the gap may make a value that is out of date. So may be one
            // that was loaded while an invalidation is pending.
            if self.is_under_way(&entry) || self.versions.is_pending(*hash) {
                changing.push(*hash);
                return None;
            }
            Some((self.name(&key)?, key, set))
        };
        let keys: Vec<_> = hashes.iter().filter_map(known).collect();
        if keys.is_empty() {
            return Some(changing);
        }
        let names: Vec<_> = keys.iter().map(|(name, ..)| name.clone()).collect();
        let (mut refreshed, mut answered) = (Vec::new(), true);
        let present = |name: &StoreKey| {
            let hash = name.hash();
            (
                self.versions.installed(hash),
                is_new && self.versions.is_of_older_history(hash),
            )
        };
        let before: Vec<_> = names.iter().map(present).collect();
        let timeline = self.timeline();
        let heads = self.store.heads(&names).await;
        let moment = self.answered_in(timeline);
        let mut outdated = Vec::new();
        for (at, head) in heads.into_iter().enumerate() {
            let (name, key, set) = &keys[at];
            match usable(head, &mut answered) {
                Some(Some(Head { epoch, checksum })) => {
                    let version = moment.version(epoch);
                    if self
                        .versions
                        .compare(name.hash(), Stamp { version, checksum })
                    {
                        outdated.push(at);
                    }
                }
                // The answer is older than what is here: another process has stored the key since,
                // or it has left.
                Some(None) if self.versions.installed(name.hash()) != before[at].0 => {}
                Some(None) if before[at].1 => {
                    answered &= self.store_again(name, key, *set).await;
                }
                Some(None) => refreshed.extend(self.refresh(*set, key)),
                None => {}
            }
        }
        // Only values that differ are worth their bytes.
        let names: Vec<_> = outdated.iter().map(|at| names[*at].clone()).collect();
        let timeline = self.timeline();
        let answers = match names.is_empty() {
            true => Vec::new(),
            false => self.store.read(&names).await,
        };
        let moment = self.answered_with(timeline, payloads(&answers)).await;
        for (at, answer) in outdated.into_iter().zip(answers) {
            let (name, key, set) = &keys[at];
            let is_done = match usable(answer, &mut answered) {
                Some(Some(payload)) => {
                    self.state.negative.forget(key);
                    self.take_over(name, key, *set, &payload, moment)
                }
                Some(None) => false,
                None => continue,
            };
            if !is_done {
                refreshed.extend(self.refresh(*set, key));
            }
        }
        for flight in refreshed {
            flight.land(&self.state.clock).await;
        }
        answered.then_some(changing)
    }

    /// Whether a load or refresh of this entry is under way.
    fn is_under_way(&self, entry: &Entry<K, V>) -> bool {
        matches!(entry.claim_word.state(), ClaimState::Claimed { deadline }
            if self.state.clock.now() < deadline)
    }
}

/// The payloads of an answer.
pub(super) fn payloads(
    answers: &[Result<Option<Vec<u8>>, StoreError>],
) -> impl Iterator<Item = &[u8]> {
    let found = answers.iter().filter_map(|answer| answer.as_ref().ok());
    found.filter_map(|payload| payload.as_deref())
}

/// What the store has of a key; `None` if that says nothing about the value at hand. Data that no
/// cache can use count as nothing.
fn usable<T>(answer: Result<Option<T>, StoreError>, answered: &mut bool) -> Option<Option<T>> {
    match answer {
        Ok(found) => Some(found),
        Err(error) if error.class() == ErrorClass::Foreign => Some(None),
        // A value that cannot be read here.
        Err(error) if error.class() == ErrorClass::TooLarge => None,
        Err(_) => {
            *answered = false;
            None
        }
    }
}

/// The turn of a task at the queue. Dropping it, also with the runtime of the task, lets the next
/// task begin.
struct Turn<K, V>(Arc<Fleet<K, V>>)
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static;

impl<K, V> Drop for Turn<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    fn drop(&mut self) {
        if !self.0.newer.stops() {
            self.0.start_reading();
        }
    }
}

impl<K: Eq, V> Entries<K, V> {
    /// The entry of a key whose set is known.
    pub(super) fn find_in(&self, set: usize, key: &K) -> Option<(Place, Held<Entry<K, V>>)> {
        self.table.items(set).find(|(_, entry)| entry.key == *key)
    }

    /// [`Entries::remove`] of a key whose set is known, except for a value that stays.
    fn invalidate_in(&self, set: usize, key: &K, stays: impl Fn(&Entry<K, V>) -> bool) {
        while let Some((place, entry)) = self.find_in(set, key) {
            let is_done = stays(&entry)
                || self
                    .remove_entry(place, entry.arc(), Cause::Invalidated)
                    .is_some();
            if is_done {
                break;
            }
        }
        self.removals.deliver();
    }
}
