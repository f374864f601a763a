//! The entries of one cache: the protocol of claims on the slot table, without policy or loader.
//!
//! Every step that two threads can race for is here or in `publish`, takes the time as an
//! argument, and is explored by the models in `loom-tests`.

use crate::claim::{Right, State};
use crate::clock::Tick;
use crate::departed::{Departed, Drops};
use crate::entry::{Entry, Times};
use crate::error::Error;
use crate::eviction::{Limit, Need};
use crate::fifo::{Queues, residency};
use crate::flight::{Flight, Outcome};
use crate::publish::Claim;
use crate::removal::{Cause, Removals};
use crate::sync::{Arc, Held, yield_now};
use crate::table::{Inserted, Place, Table};

pub struct Residents<K, V> {
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
    /// A claim that was dropped rests this long.
    pub rest_for: Tick,
}

/// What a reader finds, and what it has to do about it.
pub enum Read<K, V> {
    /// Serve this; if there is a claim, start its refresh.
    Serve {
        entry: Held<Entry<K, V>>,
        condition: Condition,
        claim: Option<Claim<K, V>>,
    },
    /// Start the load of this claim, then wait for it.
    Load(Claim<K, V>, Option<Held<Entry<K, V>>>),
    /// Somebody loads: wait for that. If it fails, the held entry may be served instead.
    Wait(Arc<Flight<K, V>>, Option<Held<Entry<K, V>>>),
    /// The last attempt failed and the next one may not start yet.
    Failed(Error),
    /// The key is not here.
    Absent,
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

/// What became of a claim that was asked for by name.
pub enum Claimed<K, V> {
    Ours(Claim<K, V>),
    /// Somebody has it: wait for this.
    Theirs(Arc<Flight<K, V>>),
    /// The entry is no longer the resident one: read again.
    Changed,
}

/// What became of a first call for an absent key.
pub enum Begun<K, V> {
    /// This caller loads.
    Ours(Claim<K, V>),
    /// Somebody was faster: read again.
    Exists,
    /// Every way of the key's set holds a load; wait for this one, then try again.
    Full(Arc<Flight<K, V>>),
}

impl<K: Eq, V> Residents<K, V> {
    pub fn new(limits: Limits, timing: Timing, removals: Removals<K, V>) -> Self {
        Residents {
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

    /// How an entry past its `early_from` is served, if that needs no claim: nobody could take one now, or the X-Fetch draw of a fresh
    /// one says no. Writes nothing. `fresh_until` is the entry's.
    #[inline(always)]
    pub fn glance(
        &self,
        entry: &Entry<K, V>,
        now: Tick,
        fresh_until: Tick,
        draw: impl FnOnce(&Times) -> bool,
    ) -> Option<Condition> {
        let stale_until = fresh_until.saturating_add(entry.times.stale_for());
        // First what nearly all hits on a stale value find. A placeholder is claimed too, but has no stale window.
        if fresh_until <= now && now < stale_until && entry.claims.is_held(now) {
            return Some(Condition::Stale);
        }
        if now < fresh_until {
            return (!draw(&entry.times)).then_some(Condition::Fresh);
        }
        let failing = match entry.claims.state() {
            State::Cooling { until, failures } if now < until => failures > 0,
            State::Spent => false,
            _ => return None,
        };
        match failing {
            false => (now < stale_until).then_some(Condition::Stale),
            true => (now < entry.times.expires()).then_some(Condition::AfterFailure),
        }
    }

    /// The slow half, for an entry that [`glance`](Self::glance) does not serve: decides by its age and its claim.
    pub fn appraise(
        self: &Arc<Self>,
        place: Place,
        entry: Held<Entry<K, V>>,
        now: Tick,
    ) -> Read<K, V> {
        if entry.is_loading() {
            return self.load_or_wait(place, entry, now, false);
        }
        if now < entry.times.fresh_until() {
            let claim = self.claim(place, &entry, now);
            let condition = match claim {
                Some(_) => Condition::Early,
                None => Condition::Fresh,
            };
            return Read::Serve {
                entry,
                condition,
                claim,
            };
        }
        let failing = match entry.claims.state() {
            State::Cooling { until, failures } => now < until && failures > 0,
            _ => false,
        };
        if now < entry.times.stale_until() || (failing && now < entry.times.expires()) {
            let claim = self.claim(place, &entry, now);
            let condition = match failing {
                true => Condition::AfterFailure,
                false => Condition::Stale,
            };
            return Read::Serve {
                entry,
                condition,
                claim,
            };
        }
        let fallback = now < entry.times.expires();
        self.load_or_wait(place, entry, now, fallback)
    }

    /// Nothing may be served: take the claim, or wait for whoever has it.
    fn load_or_wait(
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
            None => Read::Absent,
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
    ) -> Option<Claim<K, V>> {
        let last = || entry.flight.load().map(|flight| flight.right);
        let right = entry.claims.try_claim(now, self.timing.claim_for, last)?;
        self.confirm(place, entry, right, now)
    }

    fn confirm(
        self: &Arc<Self>,
        place: Place,
        entry: &Held<Entry<K, V>>,
        right: Right,
        now: Tick,
    ) -> Option<Claim<K, V>> {
        let flight = self.flight_of(entry, right);
        let claim = Claim::new(self, entry.arc().clone(), place, right, flight, now);
        match self.table.holds(place, entry.arc()) {
            true => Some(claim),
            false => {
                claim.abandon();
                None
            }
        }
    }

    /// Claims a resident value whatever its age, for an explicit refresh.
    pub fn claim_now(
        self: &Arc<Self>,
        place: Place,
        entry: &Held<Entry<K, V>>,
        now: Tick,
    ) -> Claimed<K, V> {
        let last = || entry.flight.load().map(|flight| flight.right);
        let claimed = match entry.claims.force_claim(now, self.timing.claim_for, last) {
            Some(right) => self.confirm(place, entry, right, now).map(Claimed::Ours),
            None => self.join(entry).map(Claimed::Theirs),
        };
        claimed.unwrap_or(Claimed::Changed)
    }

    /// The flight to wait for; `None` if the entry has its successor or was never claimed.
    fn join(&self, entry: &Entry<K, V>) -> Option<Arc<Flight<K, V>>> {
        let flight = match entry.claims.current() {
            Some(right) => self.flight_of(entry, right),
            None => entry.flight.load()?.arc().clone(),
        };
        (!flight.is_closed()).then_some(flight)
    }

    /// The flight of the claim `right`, put there by whoever comes first, claimant or waiter.
    ///
    /// Returns a later one if there is a later claim. A waiter can install one only before the
    /// claimant has looked for it: from then on the entry holds this flight or a later one.
    fn flight_of(&self, entry: &Entry<K, V>, right: Right) -> Arc<Flight<K, V>> {
        loop {
            let current = entry.flight.load();
            if let Some(flight) = &current {
                if !right.is_after(flight.right) {
                    return flight.arc().clone();
                }
            }
            let new = Arc::new(Flight::new(right));
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
        Error::timed_out(std::time::Duration::from_nanos(self.timing.claim_for))
    }

    /// Puts the placeholder of a load in, claimed, after so many failures in a row.
    pub fn begin(self: &Arc<Self>, key: K, hash: u64, failures: u32, now: Tick) -> Begun<K, V> {
        let (entry, right, flight) = Entry::loading(
            key,
            residency(hash, now),
            failures,
            now,
            self.timing.claim_for,
        );
        let entry = Arc::new(entry);
        let set = self.table.set_of(hash);
        let mut departed = Departed::new();
        let begun = loop {
            let Some(seen) = self.table.absent(hash, |other| other.key == entry.key) else {
                break Begun::Exists;
            };
            match self.table.insert(hash, &entry, seen, &mut departed) {
                Inserted::Here(place) => {
                    break Begun::Ours(Claim::new(self, entry, place, right, flight, now));
                }
                Inserted::Changed => {}
                Inserted::Full(seen) if self.make_room(set, seen, now, &mut departed) => {}
                Inserted::Full(_) => match self.some_load(set) {
                    Some(flight) => break Begun::Full(flight),
                    // Other threads are about to fill the ways or to free them.
                    None => yield_now(),
                },
            }
        };
        self.removals.deliver();
        // Before the claim is the caller's: it is given back if a user's drop panics.
        drop(departed);
        begun
    }

    fn some_load(&self, set: usize) -> Option<Arc<Flight<K, V>>> {
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
        let mut departed = Departed::new();
        let kept = self.put(hash, new, now, &mut departed);
        self.removals.deliver();
        kept
    }

    fn put(
        &self,
        hash: u64,
        new: &mut Arc<Entry<K, V>>,
        now: Tick,
        departed: &mut Departed<Entry<K, V>>,
    ) -> bool {
        let set = self.table.set_of(hash);
        loop {
            match self.table.find(hash, |other| other.key == new.key) {
                Some((place, old)) if old.is_loading() => {
                    // Removed, not replaced: a placeholder is replaced by its own load alone, so
                    // a load that fails at this moment cannot take the new value away with it.
                    let removed = self.take_out(place, old.arc(), Cause::Replaced);
                    removed.into_iter().for_each(|entry| departed.add(entry));
                }
                Some((place, old)) => {
                    // A reader that met it while it was reserved for a moment may still hold it: then it is queued like a new value.
                    let succeeds = Arc::get_mut(new).map(|new| new.succeed(&old)).is_some();
                    let Some(admitted) = self.admit_successor(place, &old, new, now, departed)
                    else {
                        // It cannot stay, but what it overwrites must not stay either.
                        match self.take_out(place, old.arc(), Cause::Replaced) {
                            Some(_) => return false,
                            None => continue,
                        }
                    };
                    if self.replace(place, old.arc(), new, admitted, departed) {
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
                    let admitted = self.admit(set, Need::entry(new.weight), now, departed);
                    let full = match self.table.insert(hash, new, seen, departed) {
                        Inserted::Here(place) => {
                            admitted.keep();
                            self.enrol(place, new);
                            return true;
                        }
                        Inserted::Changed => continue,
                        Inserted::Full(seen) => seen,
                    };
                    drop(admitted);
                    if !self.make_room(set, full, now, departed) {
                        return false;
                    }
                }
            }
        }
    }

    /// Removes a key, whether it has a value or is being loaded; returns whether it had a value.
    pub fn invalidate(&self, hash: u64, is_key: impl Fn(&K) -> bool) -> bool {
        while let Some((place, entry)) = self.find(hash, &is_key) {
            if let Some(removed) = self.take_out(place, entry.arc(), Cause::Invalidated) {
                self.removals.deliver();
                return !removed.is_loading();
            }
        }
        false
    }

    /// Removes every key that was here when the call began.
    pub fn invalidate_all(&self) {
        let mut drops = Drops::default();
        // An entry never moves, so whatever was here is met in its way, or was removed.
        for place in (0..self.table.sets()).flat_map(|set| self.table.occupied_in(set)) {
            while let Some(entry) = self.table.item_at(place) {
                if let Some(removed) = self.take_out(place, entry.arc(), Cause::Invalidated) {
                    drops.drop((entry, removed));
                    break;
                }
            }
        }
        self.removals.deliver();
    }
}
