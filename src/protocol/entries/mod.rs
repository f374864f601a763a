//! The entries of one cache: the protocol of claims on the slot table, without policy or loader.
//!
//! Every step for which two threads can race is here or in `publish`. It takes the time as an
//! argument, and the models in `loom-tests` explore it.

use crate::error::Error;
use crate::protocol::claim::{ClaimState, ClaimToken};
use crate::protocol::drop_later::{DropAll, DropLater};
use crate::protocol::entry::Entry;
use crate::protocol::fifo::{Queues, generation};
use crate::protocol::flight::{Flight, Outcome};
use crate::protocol::groups::Groups;
use crate::protocol::permits::{Limit, Need};
use crate::protocol::publish::ClaimGuard;
use crate::protocol::removal::{Cause, Removals};
use crate::protocol::shards::Shards;
use crate::protocol::table::{Inserted, Membership, Place, Table};
use crate::protocol::times::Times;
use crate::sync::{Arc, CountedLanes, Held, StrongArc, yield_now};
use crate::time::clock::Tick;

pub struct Entries<K, V> {
    pub table: Table<Entry<K, V>>,
    pub limit: Limit,
    pub queues: Queues,
    pub removals: Removals<K, V>,
    pub groups: Arc<Groups>,
    pub timing: Timing,
    /// The closed flight, which an entry gets when it has its successor; shared by all entries.
    pub closed: StrongArc<Flight<K, V>>,
    /// The lanes of the flight slots of all entries.
    pub flights: CountedLanes<Flight<K, V>>,
}

/// How much may be resident.
#[derive(Clone, Copy)]
pub struct Limits {
    pub entries: usize,
    pub weight: u64,
    /// The number of ways of the table, in all its sets together.
    pub ways: usize,
    /// The number of shards of the table.
    pub shards: usize,
}

/// How long a claim lasts, and how long a dropped claim rests; in ticks.
#[derive(Clone, Copy)]
pub struct Timing {
    /// After this time another caller may take over.
    pub claim_for: Tick,
    /// The same time as the caller configured it, for the error of a timed-out load.
    pub timeout: std::time::Duration,
    /// How long a dropped claim rests.
    pub rest_for: Tick,
}

/// The state that a reader found, and its next step.
pub enum Read<K, V> {
    /// Serve this entry. If there is a claim, start its refresh.
    Serve {
        entry: Held<Entry<K, V>>,
        condition: Condition,
        claim: Option<ClaimGuard<K, V>>,
    },
    /// Start the load of this claim, then wait for it.
    Load(ClaimGuard<K, V>, Option<Held<Entry<K, V>>>),
    /// Another caller loads: wait for this flight. If the load fails, the held entry may be served
    /// instead.
    Wait(StrongArc<Flight<K, V>>, Option<Held<Entry<K, V>>>),
    /// The last attempt failed, and the next one may not start yet.
    Failed(Error),
    /// The key is not resident.
    Missing,
}

/// The condition in which an entry is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    Fresh,
    /// Fresh, and this reader won the claim for an early refresh.
    Early,
    Stale,
    /// Stale, and the last refresh failed.
    AfterFailure,
}

/// How a value of this age and with this claim is served; `None` if a reader has to wait for a
/// refresh first. A placeholder is past all its limits.
#[inline(always)]
pub fn condition(times: &Times, claim: ClaimState, now: Tick) -> Option<Condition> {
    let fresh_until = times.fresh_until();
    if now < fresh_until {
        return Some(Condition::Fresh);
    }
    match claim {
        ClaimState::Cooling { until, failures } if failures > 0 && now < until => {
            (now < times.expires()).then_some(Condition::AfterFailure)
        }
        _ => {
            let stale_until = fresh_until.saturating_add(times.stale_for());
            (now < stale_until).then_some(Condition::Stale)
        }
    }
}

/// The result of claiming an entry for an explicit refresh.
pub enum Claimed<K, V> {
    Ours(ClaimGuard<K, V>),
    /// Another caller holds the claim and its attempt is under way: wait for this flight.
    Theirs(StrongArc<Flight<K, V>>),
    /// The entry is no longer resident: read again.
    Changed,
}

/// Loads under way, for which a caller may wait.
pub type Loads<K, V> = Vec<StrongArc<Flight<K, V>>>;

/// The result of the first call for a missing key.
pub enum Begun<K, V> {
    /// This caller loads.
    Ours(ClaimGuard<K, V>),
    /// Another caller was faster: read again.
    Exists,
    /// The key's set is full, and these loads of other keys are in it.
    ///
    /// The placeholder of this claim is not in the table. A caller that may wait gives the claim
    /// up, waits for one of the loads, and tries again. A caller that may not wait loads: its
    /// result goes to the waiters of the claim and is not kept, as if the placeholder had been
    /// evicted at once.
    Full(ClaimGuard<K, V>, Loads<K, V>),
}

impl<K, V> Entries<K, V> {
    /// The flight of the last attempt of an entry, out of line because a hit does not ask for it.
    #[inline(never)]
    pub fn last_flight(&self, entry: &Entry<K, V>) -> Option<StrongArc<Flight<K, V>>> {
        entry.flight.load(&self.flights)
    }
}

impl<K: Eq, V> Entries<K, V> {
    pub fn new(limits: Limits, timing: Timing, removals: Removals<K, V>) -> Self {
        let table = Table::new(Self::ways(limits));
        let shards = Shards::new(table.sets(), limits.shards);
        Entries {
            table,
            limit: Limit::new(limits.entries, limits.weight, shards),
            queues: Queues::new(limits.entries, shards),
            removals,
            groups: Arc::default(),
            timing,
            closed: StrongArc::new(Flight::closed()),
            flights: CountedLanes::default(),
        }
    }

    /// The membership of a set in which the key is missing.
    fn missing(&self, hash: u64, key: &K) -> Option<Membership> {
        self.table.missing(hash, |other| other.key == *key)
    }

    /// How an entry is served, if that needs no claim: either no claim is available now, or the
    /// entry is fresh and an X-Fetch draw, from `early_from` on, says no. Writes nothing.
    #[inline(always)]
    pub fn fast_state(
        &self,
        entry: &Entry<K, V>,
        now: Tick,
        draw: impl FnOnce(&Times) -> bool,
    ) -> Option<Condition> {
        let claim = entry.claim_word.state();
        let times = entry.times();
        let condition = condition(&times, claim, now)?;
        let early = || now >= times.early_from() && draw(&times);
        // The claim word is read first, because most hits in these windows come while a refresh is
        // running.
        let served = !claim.is_free(now) || (condition == Condition::Fresh && !early());
        served.then_some(condition)
    }

    /// The slow half, for an entry that [`fast_state`](Self::fast_state) does not serve: decides by
    /// its age and its claim.
    pub fn classify(
        self: &Arc<Self>,
        place: Place,
        entry: Held<Entry<K, V>>,
        now: Tick,
    ) -> Read<K, V> {
        let Some(condition) = condition(&entry.times(), entry.claim_word.state(), now) else {
            let fallback = self.is_servable(&entry, now);
            return self.load_or_join(place, entry, now, fallback);
        };
        let claim = self.claim(place, &entry, now);
        let condition = match (condition, &claim) {
            (Condition::Fresh, Some(_)) => Condition::Early,
            _ => condition,
        };
        Read::Serve {
            entry,
            condition,
            claim,
        }
    }

    /// No value may be served: take the claim, or wait for its claimant.
    fn load_or_join(
        self: &Arc<Self>,
        place: Place,
        entry: Held<Entry<K, V>>,
        now: Tick,
        fallback: bool,
    ) -> Read<K, V> {
        if let Some(claim) = self.claim(place, &entry, now) {
            return Read::Load(claim, fallback.then_some(entry));
        }
        match self.join(&entry) {
            Some(flight) => match flight.outcome() {
                // A failure stays with the entry while it cools. The next claim replaces it.
                Some(Outcome::Failed(_)) if fallback => Read::Serve {
                    entry,
                    condition: Condition::AfterFailure,
                    claim: None,
                },
                Some(Outcome::Failed(error)) => Read::Failed(error),
                _ => Read::Wait(flight, fallback.then_some(entry)),
            },
            None => Read::Missing,
        }
    }

    /// Tries to claim the entry, then checks that it is still resident.
    ///
    /// The check rejects a straggler whose entry was overwritten or removed without ever having
    /// been claimed. An entry that was refreshed is `Spent` and cannot be claimed at all.
    fn claim(
        self: &Arc<Self>,
        place: Place,
        entry: &Held<Entry<K, V>>,
        now: Tick,
    ) -> Option<ClaimGuard<K, V>> {
        self.end_overdue(entry, now);
        let last = || self.last_flight(entry).map(|flight| flight.token());
        let token = entry
            .claim_word
            .try_claim(now, self.timing.claim_for, last)?;
        self.confirm(place, entry, token, now)
    }

    /// If the load of a claim past its deadline is running, ends the claim for it. The key then
    /// rests. A claim without a running load can be taken over at once.
    fn end_overdue(&self, entry: &Entry<K, V>, now: Tick) {
        if let ClaimState::Claimed { deadline } = entry.claim_word.state() {
            if deadline <= now {
                if let Some(flight) = self.last_flight(entry) {
                    flight.wake_load();
                }
            }
        }
    }

    fn confirm(
        self: &Arc<Self>,
        place: Place,
        entry: &Held<Entry<K, V>>,
        token: ClaimToken,
        now: Tick,
    ) -> Option<ClaimGuard<K, V>> {
        let flight = self.flight_of(entry, token);
        let claim = ClaimGuard::new(self, entry.arc().clone(), place, token, flight, now);
        match self.table.holds(place, entry.arc()) {
            true => Some(claim),
            false => {
                claim.abandon();
                None
            }
        }
    }

    /// The flight to wait for; `None` if the entry has its successor or was never claimed.
    fn join(&self, entry: &Entry<K, V>) -> Option<StrongArc<Flight<K, V>>> {
        let flight = match entry.claim_word.current() {
            Some(token) => self.flight_of(entry, token),
            None => self.last_flight(entry)?,
        };
        (!flight.is_closed()).then_some(flight)
    }

    /// The flight of the claim `token`. The first thread that asks for it installs it, be it the
    /// claimant or a waiter.
    ///
    /// Returns a later flight if there is a later claim. A waiter can install a flight only before
    /// the claimant has asked for it: from then on the entry holds this flight or a later one.
    fn flight_of(&self, entry: &Entry<K, V>, token: ClaimToken) -> StrongArc<Flight<K, V>> {
        loop {
            let current = self.last_flight(entry);
            if let Some(flight) = &current {
                if !token.is_after(flight.token()) {
                    return flight.clone();
                }
            }
            let new = Flight::start(token);
            let started = Some(new.clone());
            if (entry.flight).compare_exchange(current.as_ref(), started, &self.flights) {
                if let Some(taken_over) = current {
                    taken_over.deliver(Outcome::Failed(self.timed_out(&taken_over)));
                }
                return new;
            }
        }
    }

    /// The error of a caller that waited for a flight up to its deadline.
    pub fn timed_out(&self, flight: &Flight<K, V>) -> Error {
        match flight.has_begun() {
            true => Error::timed_out(self.timing.timeout),
            false => Error::not_started(self.timing.timeout),
        }
    }

    /// Inserts the placeholder of a load, already claimed, with the number of failures in a row so
    /// far.
    ///
    /// The placeholder takes no place of a value that may still be served, except in a set that
    /// holds nothing else.
    ///
    /// The caller starts the load first. Only then does it drop `drop_later` and deliver the
    /// removals, because the user's code that runs then may read this very key.
    pub fn begin(
        self: &Arc<Self>,
        key: K,
        hash: u64,
        failures: u32,
        now: Tick,
        drop_later: &mut DropLater<Entry<K, V>>,
    ) -> Begun<K, V>
    where
        K: Clone,
    {
        let (entry, token, flight) = Entry::loading(
            key,
            generation(hash, now),
            failures,
            now,
            self.timing.claim_for,
        );
        let set = self.table.set_of(hash);
        loop {
            let Some(seen) = self.missing(hash, &entry.key) else {
                match self.clear_tombstone(hash, &entry.key) {
                    true => continue,
                    false => return Begun::Exists,
                }
            };
            let seen = match self.table.insert(hash, &entry, seen) {
                Inserted::Here(place) => {
                    return Begun::Ours(ClaimGuard::new(self, entry, place, token, flight, now));
                }
                Inserted::Changed => continue,
                Inserted::Full(seen) => seen,
            };
            if self.evict_idle(set, now, drop_later) {
                continue;
            }
            let loads = self.loads_in(set, now);
            if !seen.is_full() || !self.table.is_unchanged(set, seen) {
                // There is room, or another thread is about to fill a way or to free one. A caller
                // that waited now might wait for a load that has ended.
                yield_now();
            } else if loads.is_empty() {
                self.evict_seen(set, seen, now, drop_later);
            } else {
                let place = Place::first(set);
                let claim = ClaimGuard::new(self, entry, place, token, flight, now);
                return Begun::Full(claim, loads);
            }
        }
    }

    /// The flights of a set for which a caller without a value would wait.
    fn loads_in(&self, set: usize, now: Tick) -> Loads<K, V> {
        let waited_for = |entry: &Entry<K, V>| match self.is_servable(entry, now) {
            true => None,
            false => self.join(entry),
        };
        let mut loads = Vec::new();
        for (_, entry) in self.table.items(set) {
            loads.extend(waited_for(&entry));
        }
        loads
    }

    /// Inserts a value and replaces any entry of its key; returns false if the value is heavier
    /// than the cache.
    ///
    /// A load or refresh that is under way finds its entry gone, and its result is discarded. So
    /// does a load of another key that loses its place to the value.
    pub fn insert(&self, hash: u64, new: &StrongArc<Entry<K, V>>, now: Tick) -> bool {
        let mut drop_later = DropLater::new();
        let kept = self.put(hash, new, now, &mut drop_later);
        self.removals.deliver();
        kept
    }

    fn put(
        &self,
        hash: u64,
        new: &StrongArc<Entry<K, V>>,
        now: Tick,
        drop_later: &mut DropLater<Entry<K, V>>,
    ) -> bool {
        let set = self.table.set_of(hash);
        loop {
            match self.resident(hash, &new.key) {
                Some((place, old)) if old.is_loading() => {
                    // Removed, not replaced: only its own load replaces a placeholder, so a load
                    // that fails at this moment cannot remove the new value.
                    let removed = self.remove_entry(place, old.arc(), Cause::Replaced);
                    removed.into_iter().for_each(|entry| drop_later.add(entry));
                }
                Some((place, old)) => {
                    new.succeed(&old);
                    let Some(admitted) = self.admit_successor(place, &old, new, now, drop_later)
                    else {
                        // The value does not fit, but the old value must not stay either.
                        match self.remove_entry(place, old.arc(), Cause::Replaced) {
                            Some(_) => return false,
                            None => continue,
                        }
                    };
                    if self.replace(place, old.arc(), new, admitted) {
                        return true;
                    }
                }
                None => {
                    if !self.limit.allows(new.weight()) {
                        return false;
                    }
                    // Keys are compared without the permit, because that runs the user's code.
                    let Some(seen) = self.missing(hash, &new.key) else {
                        continue;
                    };
                    let admitted = self.admit(set, Need::entry(new.weight()), now, drop_later);
                    let full = match self.table.insert(hash, new, seen) {
                        Inserted::Here(place) => {
                            admitted.keep();
                            self.enqueue(place, new);
                            return true;
                        }
                        Inserted::Changed => continue,
                        Inserted::Full(seen) => seen,
                    };
                    drop(admitted);
                    self.make_room(set, full, now, drop_later);
                }
            }
        }
    }

    /// Removes a key, whether it has a value or is being loaded; returns the value that it had.
    pub fn remove(&self, hash: u64, is_key: impl Fn(&K) -> bool) -> Option<StrongArc<Entry<K, V>>> {
        while let Some((place, entry)) = self.find(hash, &is_key) {
            if let Some(removed) = self.remove_entry(place, entry.arc(), Cause::Invalidated) {
                self.removals.deliver();
                return (!removed.is_loading()).then_some(removed);
            }
        }
        None
    }

    /// Removes every key that was resident when the call began.
    pub fn invalidate_all(&self) {
        let mut drops = DropAll::default();
        // An entry never moves, so each of them is still in its way or was removed.
        for place in (0..self.table.sets()).flat_map(|set| self.table.occupied_in(set)) {
            while let Some(entry) = self.table.item_at(place) {
                if let Some(removed) = self.remove_entry(place, entry.arc(), Cause::Invalidated) {
                    drops.drop_one((entry, removed));
                    break;
                }
            }
        }
        self.removals.deliver();
    }
}

mod explicit;
mod find;
#[cfg(all(test, not(all(loom, feature = "loom"))))]
mod tests;
