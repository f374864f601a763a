//! The entries of one cache: the protocol of claims on the slot table, without policy or loader.
//!
//! Every step that two threads can race for is here or in `publish`, takes the time as an
//! argument, and is explored by the models in `loom-tests`.

use crate::error::Error;
use crate::protocol::claim::{ClaimToken, State};
use crate::protocol::drop_later::{DropAll, DropLater};
use crate::protocol::entry::Entry;
use crate::protocol::eviction::{Limit, Need};
use crate::protocol::fifo::{Queues, generation};
use crate::protocol::flight::{Flight, Outcome};
use crate::protocol::publish::ClaimGuard;
use crate::protocol::removal::{Cause, Removals};
use crate::protocol::table::{Inserted, Place, Table};
use crate::protocol::times::Times;
use crate::sync::{Arc, Held, yield_now};
use crate::time::clock::Tick;

pub struct Entries<K, V> {
    pub table: Table<Entry<K, V>>,
    pub limit: Limit,
    pub queues: Queues,
    pub removals: Removals<K, V>,
    pub timing: Timing,
    /// Put into an entry when it has its successor; one for all.
    pub closed: Arc<Flight<K, V>>,
}

/// How much may be resident.
#[derive(Clone, Copy)]
pub struct Limits {
    pub entries: usize,
    pub weight: u64,
    /// Ways of the table, for all its sets together.
    pub ways: usize,
}

/// How long a claim lasts and what it costs to drop it, in ticks.
#[derive(Clone, Copy)]
pub struct Timing {
    /// After this long another caller may take over.
    pub claim_for: Tick,
    /// How long that is for the caller, who is told of it.
    pub timeout: std::time::Duration,
    /// A claim that was dropped rests this long.
    pub rest_for: Tick,
}

/// What a reader finds, and what it has to do about it.
pub enum Read<K, V> {
    /// Serve this; if there is a claim, start its refresh.
    Serve {
        entry: Held<Entry<K, V>>,
        condition: Condition,
        claim: Option<ClaimGuard<K, V>>,
    },
    /// Start the load of this claim, then wait for it.
    Load(ClaimGuard<K, V>, Option<Held<Entry<K, V>>>),
    /// Somebody loads: wait for that. If it fails, the held entry may be served instead.
    Wait(Arc<Flight<K, V>>, Option<Held<Entry<K, V>>>),
    /// The last attempt failed and the next one may not start yet.
    Failed(Error),
    /// The key is not here.
    Missing,
}

/// In which condition an entry is served.
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
pub fn condition(times: &Times, claim: State, now: Tick) -> Option<Condition> {
    let fresh_until = times.fresh_until();
    if now < fresh_until {
        return Some(Condition::Fresh);
    }
    match claim {
        State::Cooling { until, failures } if failures > 0 && now < until => {
            (now < times.expires()).then_some(Condition::AfterFailure)
        }
        _ => {
            let stale_until = fresh_until.saturating_add(times.stale_for());
            (now < stale_until).then_some(Condition::Stale)
        }
    }
}

/// What became of a claim that was asked for by name.
pub enum Claimed<K, V> {
    Ours(ClaimGuard<K, V>),
    /// Another caller has it, and its attempt is under way: wait for this.
    Theirs(Arc<Flight<K, V>>),
    /// The entry is no longer the resident one: read again.
    Changed,
}

/// What became of a first call for an absent key.
pub enum Begun<K, V> {
    /// This caller loads.
    Ours(ClaimGuard<K, V>),
    /// Somebody was faster: read again.
    Exists,
    /// Every way of the key's set holds a load; wait for this one, then try again.
    Full(Arc<Flight<K, V>>),
}

impl<K: Eq, V> Entries<K, V> {
    pub fn new(limits: Limits, timing: Timing, removals: Removals<K, V>) -> Self {
        Entries {
            table: Table::new(limits.ways),
            limit: Limit::new(limits.entries, limits.weight),
            queues: Queues::new(limits.entries),
            removals,
            timing,
            closed: Arc::new(Flight::closed()),
        }
    }

    /// The fast half of every read. Takes no lock, runs no user code but `is_key`, writes nothing.
    #[inline(always)]
    pub fn find(
        &self,
        hash: u64,
        is_key: impl Fn(&K) -> bool,
    ) -> Option<(Place, Held<Entry<K, V>>)> {
        self.table.find(hash, |entry| is_key(&entry.key))
    }

    /// How an entry past its `early_from` is served, if that needs no claim: no claim could be had
    /// now, or the X-Fetch draw of a fresh one says no. Writes nothing.
    #[inline(always)]
    pub fn fast_state(
        &self,
        entry: &Entry<K, V>,
        now: Tick,
        draw: impl FnOnce(&Times) -> bool,
    ) -> Option<Condition> {
        let claim = entry.claims.state();
        let condition = condition(&entry.times, claim, now)?;
        // The claim first, because most hits in these windows come while a refresh is running.
        let served = !claim.is_free(now) || (condition == Condition::Fresh && !draw(&entry.times));
        served.then_some(condition)
    }

    /// The slow half, for an entry that [`fast_state`](Self::fast_state) does not serve: decides by its age and its claim.
    pub fn classify(
        self: &Arc<Self>,
        place: Place,
        entry: Held<Entry<K, V>>,
        now: Tick,
    ) -> Read<K, V> {
        let Some(condition) = condition(&entry.times, entry.claims.state(), now) else {
            let fallback = entry.is_servable(now);
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

    /// Nothing may be served: take the claim, or wait for whoever has it.
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
                // A failure stays with the entry while it cools; the next claim replaces it.
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

    /// Tries to claim the entry, and makes sure that it is still resident.
    ///
    /// The second look is for the straggler whose entry was overwritten or removed without ever having been
    /// claimed; one that was refreshed is `Spent` and cannot be claimed at all.
    fn claim(
        self: &Arc<Self>,
        place: Place,
        entry: &Held<Entry<K, V>>,
        now: Tick,
    ) -> Option<ClaimGuard<K, V>> {
        let last = || entry.flight.load().map(|flight| flight.token);
        let token = entry.claims.try_claim(now, self.timing.claim_for, last)?;
        self.confirm(place, entry, token, now)
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

    /// ClaimWord a resident value whatever its age, for an explicit refresh.
    pub fn claim_now(
        self: &Arc<Self>,
        place: Place,
        entry: &Held<Entry<K, V>>,
        now: Tick,
    ) -> Claimed<K, V> {
        let last = || entry.flight.load().map(|flight| flight.token);
        let has_failed = |token| {
            let flight = entry.flight.load().filter(|flight| flight.token == token);
            flight.is_some_and(|flight| flight.has_ended())
        };
        let claimed = entry
            .claims
            .force_claim(now, self.timing.claim_for, last, has_failed);
        let claimed = match claimed {
            Some(token) => self.confirm(place, entry, token, now).map(Claimed::Ours),
            // A flight that has its outcome began before this call, and is not joined: its claimant
            // has published, or has just given the claim up.
            None => (self.join(entry))
                .filter(|flight| !flight.has_ended())
                .map(Claimed::Theirs),
        };
        claimed.unwrap_or(Claimed::Changed)
    }

    /// The flight to wait for; `None` if the entry has its successor or was never claimed.
    fn join(&self, entry: &Entry<K, V>) -> Option<Arc<Flight<K, V>>> {
        let flight = match entry.claims.current() {
            Some(token) => self.flight_of(entry, token),
            None => entry.flight.load()?.arc().clone(),
        };
        (!flight.is_closed()).then_some(flight)
    }

    /// The flight of the claim `token`, put there by whoever comes first, claimant or waiter.
    ///
    /// Returns a later one if there is a later claim. A waiter can install one only before the
    /// claimant has looked for it: from then on the entry holds this flight or a later one.
    fn flight_of(&self, entry: &Entry<K, V>, token: ClaimToken) -> Arc<Flight<K, V>> {
        loop {
            let current = entry.flight.load();
            if let Some(flight) = &current {
                if !token.is_after(flight.token) {
                    return flight.arc().clone();
                }
            }
            let new = Arc::new(Flight::new(token));
            let old = current.as_ref().map(Held::arc);
            if entry.flight.compare_exchange(old, Some(new.clone())) {
                if let Some(taken_over) = current {
                    taken_over.deliver(Outcome::Failed(self.timed_out()));
                }
                return new;
            }
        }
    }

    pub fn timed_out(&self) -> Error {
        Error::timed_out(self.timing.timeout)
    }

    /// Puts the placeholder of a load in, claimed, after so many failures in a row.
    ///
    /// The caller drops `drop_later`, and delivers the removals, once it has started the load: the
    /// user's code that runs then may read this very key.
    pub fn begin(
        self: &Arc<Self>,
        key: K,
        hash: u64,
        failures: u32,
        now: Tick,
        drop_later: &mut DropLater<Entry<K, V>>,
    ) -> Begun<K, V> {
        let (entry, token, flight) = Entry::loading(
            key,
            generation(hash, now),
            failures,
            now,
            self.timing.claim_for,
        );
        let entry = Arc::new(entry);
        let set = self.table.set_of(hash);
        loop {
            let Some(seen) = self.table.absent(hash, |other| other.key == entry.key) else {
                return Begun::Exists;
            };
            match self.table.insert(hash, &entry, seen, drop_later) {
                Inserted::Here(place) => {
                    return Begun::Ours(ClaimGuard::new(self, entry, place, token, flight, now));
                }
                Inserted::Changed => {}
                Inserted::Full(seen) if self.make_room(set, seen, now, drop_later) => {}
                Inserted::Full(_) => match self.any_load(set) {
                    Some(flight) => return Begun::Full(flight),
                    // Other threads are about to fill the ways or to free them.
                    None => yield_now(),
                },
            }
        }
    }

    fn any_load(&self, set: usize) -> Option<Arc<Flight<K, V>>> {
        Table::<Entry<K, V>>::places(set)
            .filter_map(|place| self.table.item_at(place))
            .find_map(|entry| self.join(&entry))
    }

    /// Puts a value in, over whatever is there; false if there was no room for it.
    ///
    /// A load or refresh that is under way finds its entry gone and is discarded.
    ///
    /// Nobody else may hold `new`: over an old value it takes over that one's place in the queues.
    pub fn insert(&self, hash: u64, new: &mut Arc<Entry<K, V>>, now: Tick) -> bool {
        let mut drop_later = DropLater::new();
        let kept = self.put(hash, new, now, &mut drop_later);
        self.removals.deliver();
        kept
    }

    fn put(
        &self,
        hash: u64,
        new: &mut Arc<Entry<K, V>>,
        now: Tick,
        drop_later: &mut DropLater<Entry<K, V>>,
    ) -> bool {
        let set = self.table.set_of(hash);
        loop {
            match self.table.find(hash, |other| other.key == new.key) {
                Some((place, old)) if old.is_loading() => {
                    // Removed, not replaced: a placeholder is replaced by its own load alone, so
                    // a load that fails at this moment cannot take the new value away with it.
                    let removed = self.remove_entry(place, old.arc(), Cause::Replaced);
                    removed.into_iter().for_each(|entry| drop_later.add(entry));
                }
                Some((place, old)) => {
                    // A reader that met it while it was reserved for a moment may still hold it: then it is queued like a new value.
                    let succeeds = Arc::get_mut(new).map(|new| new.succeed(&old)).is_some();
                    let Some(admitted) = self.admit_successor(place, &old, new, now, drop_later)
                    else {
                        // It cannot stay, but what it overwrites must not stay either.
                        match self.remove_entry(place, old.arc(), Cause::Replaced) {
                            Some(_) => return false,
                            None => continue,
                        }
                    };
                    if self.replace(place, old.arc(), new, admitted, drop_later) {
                        if !succeeds {
                            self.enrol(place, new);
                        }
                        return true;
                    }
                }
                None => {
                    if !self.limit.allows(new.weight) {
                        return false;
                    }
                    // Keys are compared without the permit, because that runs the user's code.
                    let Some(seen) = self.table.absent(hash, |other| other.key == new.key) else {
                        continue;
                    };
                    let admitted = self.admit(set, Need::entry(new.weight), now, drop_later);
                    let full = match self.table.insert(hash, new, seen, drop_later) {
                        Inserted::Here(place) => {
                            admitted.keep();
                            self.enrol(place, new);
                            return true;
                        }
                        Inserted::Changed => continue,
                        Inserted::Full(seen) => seen,
                    };
                    drop(admitted);
                    if !self.make_room(set, full, now, drop_later) {
                        return false;
                    }
                }
            }
        }
    }

    /// Removes a key, whether it has a value or is being loaded; returns the value that it had.
    pub fn remove(&self, hash: u64, is_key: impl Fn(&K) -> bool) -> Option<Arc<Entry<K, V>>> {
        while let Some((place, entry)) = self.find(hash, &is_key) {
            if let Some(removed) = self.remove_entry(place, entry.arc(), Cause::Invalidated) {
                self.removals.deliver();
                return (!removed.is_loading()).then_some(removed);
            }
        }
        None
    }

    /// Removes every key that was here when the call began.
    pub fn invalidate_all(&self) {
        let mut drops = DropAll::default();
        // An entry never moves, so whatever was here is met in its way, or was removed.
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

#[cfg(all(test, not(all(loom, feature = "loom"))))]
mod tests;
