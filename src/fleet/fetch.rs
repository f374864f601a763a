//! The way of a job through the store: wait for the pending writes of this process, read, ask for
//! the lease (see `asking`), and only then load.
//!
//! | the job finds | it does |
//! |---|---|
//! | a pending write of this process | waits for it; if that fails, loads without the store (P4) |
//! | a payload of a group that was invalidated since its load began | as if it were unreadable |
//! | a payload that may be served | installs it and loads nothing |
//! | a stale payload, and the key is resident | asks for the lease, to refresh it |
//! | no payload, or one that cannot be read | asks for the lease |
//! | the lease granted | loads, publishes, notifies the fleet |
//! | the lease held by another process | waits for the change, at most until the lease ends |
//! | a result that the other process could not store | loads without a lease |
//! | the answer that the origin has no value | remembers it for its time |
//! | a cool-down that names this process | fails like a load, or leaves the stale value in place |
//! | no store | loads without a lease (P7) |
//!
//! A reader of a stale value never waits for any of this.

use std::hash::Hash;

use super::terms::restored;
use super::version::{Moment, Stamp};
use super::version_index::Installed;
use super::{Fleet, GivenUp, Underway};
use crate::load::job::Job;
use crate::protocol::entry::Entry;
use crate::protocol::groups::{self, Cell};
use crate::protocol::publish::Published;
use crate::protocol::times::Times;
use crate::store::envelope::{self, CellEpoch};
use crate::store::format::Answer;
use crate::store::head::checksum;
use crate::store::{Epoch, StoreKey};
use crate::sync::StrongArc;
use crate::time::clock::{Tick, ticks};

/// One job that asks the store.
pub(super) struct Asking<K, V> {
    pub(super) job: Job<K, V>,
    pub(super) _underway: Underway<K, V>,
}

/// The job of a payload that may not be served, or may not replace a refresh. The epoch of the
/// payload, if it has one, is the one that the store holds.
type Unusable<K, V> = (Job<K, V>, Option<Epoch>);

/// A payload that may be served. It has no value if the origin has none.
pub(super) struct Found<V> {
    value: Option<V>,
    stamp: Stamp,
    times: Times,
    now: Tick,
    cells: Vec<CellEpoch>,
    /// Before its cells were compared.
    began: groups::Moment,
}

impl<V> Found<V> {
    pub(super) fn is_fresh(&self) -> bool {
        self.now < self.times.fresh_until()
    }
}

impl<K, V> Fleet<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// Loads without the store.
    pub(super) fn unleased(&self, job: Job<K, V>) {
        self.counters.unleased.add();
        (self.load)(job);
    }

    /// Makes a payload the value of the job's key, if it may be served; `moment` is that of the
    /// answer. Returns the job unless it has ended: with this value, or because user code panicked.
    pub(super) fn install(
        &self,
        job: Job<K, V>,
        key: &StoreKey,
        payload: &[u8],
        moment: Moment,
    ) -> Option<Unusable<K, V>> {
        match self.open(key, job.key(), payload, moment) {
            // A stale value does not replace the one that the job refreshes.
            Ok(found) if found.is_fresh() || job.is_cold() => {
                self.make_resident(job, key.hash(), found);
                None
            }
            Ok(found) => Some((job, Some(found.stamp.version.epoch))),
            Err(epoch) => Some((job, epoch)),
        }
    }

    /// Opens the payload of a key with this name; `moment` is that of the answer. The error is the
    /// epoch of a payload that may not be served, if it has one.
    pub(super) fn open(
        &self,
        name: &StoreKey,
        key: &K,
        payload: &[u8],
        moment: Moment,
    ) -> Result<Found<V>, Option<Epoch>> {
        let hash = name.hash();
        // Before the cells are looked at: see `cells`.
        let began = self.state.groups.now();
        let opened = match self.format.open_answer(name, payload) {
            Ok(opened) => opened,
            Err(reason) => {
                self.counters.payload_errors(reason);
                let epoch = envelope::epoch(payload);
                if let Some(epoch) = epoch {
                    self.versions.cannot_read(hash, moment.version(epoch));
                }
                return Err(epoch);
            }
        };
        let Answer {
            value,
            epoch,
            terms,
            cells,
        } = opened;
        let version = moment.version(epoch);
        let is_valid = self.versions.accepts(hash, version)
            && !self.distrusts(epoch)
            && self.are_valid(key, &cells, moment);
        if !is_valid {
            self.counters.outdated.add();
            return Err(Some(epoch));
        }
        let now = self.state.clock.now();
        // A value of unknown age is stale.
        let age = moment.age(epoch).unwrap_or(ticks(terms.fresh_for));
        let times = restored(&self.state.policy, &terms, age, now);
        // This process has taken the answer over, and forgot it because a caller wants another.
        let is_known = value.is_none() && self.versions.installed(hash) == Some(version);
        // Past the hard limit.
        if is_known || now >= times.expires() {
            return Err(Some(epoch));
        }
        let checksum = checksum(payload);
        Ok(Found {
            value,
            stamp: Stamp { version, checksum },
            times,
            now,
            cells,
            began,
        })
    }

    /// Ends a job with a value of the store.
    pub(super) fn make_resident(&self, job: Job<K, V>, hash: u128, found: Found<V>) {
        match found.is_fresh() {
            true => self.counters.hits.add(),
            false => self.counters.stale.add(),
        }
        job.flight().begins(found.began);
        let Some(value) = found.value else {
            return self.found_nothing(job, hash, found.stamp, &found.times, found.now);
        };
        let cells = found.cells.iter();
        let cells = cells.filter_map(|epoch| Cell::numbered(epoch.cell.into()));
        if let Some((entry, Published::Yes)) =
            job.found(value, found.times, cells.collect(), found.now)
        {
            self.installed(hash, found.stamp, &entry);
        }
    }

    /// Ends a job because another process found no value.
    fn found_nothing(&self, job: Job<K, V>, hash: u128, stamp: Stamp, times: &Times, now: Tick) {
        let entry = job.found_nothing(times.fresh_until().saturating_sub(now), now);
        // The negative entry may be older than a change of which this process was told meanwhile.
        if self.versions.install(hash, stamp) != Installed::Latest {
            self.state.negative.forget(&entry.key);
        }
    }

    /// Records that this entry is resident and has this version in the store. A notification of a
    /// later one may have come before, and found nothing to remove or to replace.
    pub(super) fn installed(&self, hash: u128, stamp: Stamp, entry: &StrongArc<Entry<K, V>>) {
        match self.versions.install(hash, stamp) {
            Installed::Latest => {}
            Installed::Outdated => self.look_for_newer(hash),
            Installed::Removed => self.remove_entry(hash, entry),
        }
    }

    /// Whether a payload may be older than a write that was given up.
    fn distrusts(&self, epoch: Epoch) -> bool {
        let distrusted = self.distrusted.load();
        let Some(&GivenUp { at, time: then }) = (*distrusted).as_deref() else {
            return false;
        };
        let passed = self.state.clock.exact().saturating_sub(at) / 1_000;
        let trusted = |time: u64| {
            let since = then.max(Some(time.saturating_sub(passed)));
            Some(epoch.micros()) > since && !epoch.is_ahead_of(time)
        };
        !self.store.now().is_some_and(trusted)
    }
}
