//! The limits on entries and weight, and the choice of a victim when one is reached.
//!
//! Every resident value holds a permit for one entry and its weight. A value takes its permit
//! before it becomes visible, and its remover gives the permit back. So both limits hold at every
//! moment (placeholders of loads hold no permit).
//!
//! S3-FIFO (`fifo`) chooses the victim. Only a full set, whose key can live nowhere else, gives up
//! one of its own entries, and to whom depends on what needs the room:
//!
//! - A *value* takes the place of an idle entry, else of a load, else of the least valuable value.
//!   The load goes on, its waiters get its result, and the result is not kept. So no insert
//!   vanishes, and loads cost no value its place.
//! - A *load* takes the place of an idle entry only. Else it waits for a load in its set, or goes
//!   without a place. Only a set that holds nothing but values that may be served gives up one of
//!   them, because nothing is left to wait for.
//!
//! Races that this must survive:
//!
//! 1. An `insert` overwrites an expired value while a load takes its place. The load removes
//!    exactly the expired value, through a tombstone, so the inserted value stays.
//! 2. A load ends while a value takes its place. Either the removal takes out the new value, or the
//!    load finds its placeholder gone; the waiters get the result in both cases (P3).
//! 3. Another load, or a write, empties the way first. Then there may be room, so the caller looks
//!    again.
//! 4. A reader meets a tombstone whose owner is paused. The reader removes it itself (P2).

use crate::protocol::claim::{ClaimState, ClaimToken};
use crate::protocol::compact::Weight;
use crate::protocol::drop_later::{DropAll, DropLater};
use crate::protocol::entries::Entries;
use crate::protocol::entry::Entry;
use crate::protocol::removal::Cause;
use crate::protocol::table::{Membership, Place};
use crate::sync::{Arc, AtomicU64, Held, Ordering, yield_now};
use crate::time::clock::Tick;

pub struct Limit {
    entries: Count,
    weight: Count,
}

/// A count that never exceeds its limit.
struct Count {
    limit: u64,
    taken: AtomicU64,
}

impl Count {
    fn new(limit: u64) -> Self {
        Count {
            limit,
            taken: AtomicU64::new(0),
        }
    }

    // Relaxed throughout: the count guards no other memory.
    fn take(&self, more: u64) -> bool {
        if more == 0 {
            return true;
        }
        let mut taken = self.taken.load(Ordering::Relaxed);
        while more <= self.limit - taken {
            let exchanged = self.taken.compare_exchange(
                taken,
                taken + more,
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
            match exchanged {
                Ok(_) => return true,
                Err(now) => taken = now,
            }
        }
        false
    }

    fn release(&self, less: u64) {
        if less > 0 {
            self.taken.fetch_sub(less, Ordering::Relaxed);
        }
    }
}

impl Limit {
    pub fn new(entries: usize, weight: u64) -> Self {
        Limit {
            entries: Count::new(entries as u64),
            weight: Count::new(weight),
        }
    }

    pub fn entries(&self) -> usize {
        self.entries.taken.load(Ordering::Relaxed) as usize
    }

    /// Whether a value of this weight could ever be resident.
    pub fn allows(&self, weight: Weight) -> bool {
        weight.get() <= self.weight.limit
    }

    pub fn weight(&self) -> u64 {
        self.weight.taken.load(Ordering::Relaxed)
    }

    #[cfg(feature = "metrics")]
    pub fn max_entries(&self) -> u64 {
        self.entries.limit
    }

    /// `None` if the weight is not limited.
    #[cfg(feature = "metrics")]
    pub fn max_weight(&self) -> Option<u64> {
        (self.weight.limit < u64::MAX).then_some(self.weight.limit)
    }

    fn take(&self, need: Need) -> bool {
        if !self.entries.take(need.entries) {
            return false;
        }
        let weighed = self.weight.take(need.weight);
        if !weighed {
            self.entries.release(need.entries);
        }
        weighed
    }

    pub fn release(&self, need: Need) {
        self.entries.release(need.entries);
        self.weight.release(need.weight);
    }
}

/// The room that a value needs to be resident.
#[derive(Clone, Copy)]
pub struct Need {
    entries: u64,
    weight: u64,
}

impl Need {
    /// For a value whose key has none yet.
    pub fn entry(weight: Weight) -> Self {
        Need {
            entries: 1,
            weight: weight.get(),
        }
    }

    /// The room that a value needs in addition to the value that it replaces.
    pub fn beyond(weight: Weight, old: Weight) -> Self {
        Need {
            entries: 0,
            weight: weight.get().saturating_sub(old.get()),
        }
    }
}

/// The right to make a value resident; given back when dropped.
pub struct Permit<'a>(&'a Limit, Option<Need>);

impl<'a> Permit<'a> {
    /// The permit of a removed value, which now belongs to the remover.
    pub fn inherit(limit: &'a Limit, removed: Weight) -> Self {
        Permit(limit, Some(Need::entry(removed)))
    }

    /// Turns this into a permit for `need` and gives the rest back; `None` if it is too small.
    fn reuse(mut self, need: Need) -> Option<Self> {
        let has = self.1?;
        let left = Need {
            entries: has.entries.checked_sub(need.entries)?,
            weight: has.weight.checked_sub(need.weight)?,
        };
        self.0.release(left);
        self.1 = Some(need);
        Some(self)
    }

    /// The value is in the table. From now on its remover gives the permit back.
    pub fn keep(mut self) {
        self.1 = None;
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if let Some(need) = self.1 {
            self.0.release(need);
        }
    }
}

impl<K, V> Entries<K, V> {
    /// Takes a permit for a value that is not heavier than the cache, and evicts until there is
    /// one.
    ///
    /// The caller drops `drop_later` after the permit, because its drop runs the user's code.
    pub fn admit(
        &self,
        set: usize,
        need: Need,
        now: Tick,
        drop_later: &mut DropLater<Entry<K, V>>,
    ) -> Permit<'_> {
        while !self.limit.take(need) {
            if let Some(freed) = self.evict_by_queue(now, drop_later) {
                // Passed on, not given back and taken again, because all inserts write the cache
                // line of the count.
                match freed.reuse(need) {
                    Some(permit) => return permit,
                    None => continue,
                }
            }
            // A value that is not in a queue yet cannot be found there. Then the victim comes from
            // `set`, or from the sets after it.
            let sets = self.table.sets();
            let evicted = (0..sets).any(|n| self.evict_value((set + n) % sets, now, drop_later));
            if !evicted {
                // The threads that hold the permits are about to use them or to give them back, and
                // may need this core.
                yield_now();
            }
        }
        Permit(&self.limit, Some(need))
    }

    /// Frees a way of a set that had none under `seen`, for a value.
    ///
    /// The caller looks again: another thread may have made room, or may have taken the way that
    /// was freed here.
    pub fn make_room(
        &self,
        set: usize,
        seen: Membership,
        now: Tick,
        drop_later: &mut DropLater<Entry<K, V>>,
    ) {
        let worth = |entry: &Entry<K, V>| match entry.is_loading() {
            _ if is_idle(entry, now) => Some((0, 0, 0)),
            // The load that began last has done the least work.
            true => Some((1, 0, Tick::MAX - deadline(entry))),
            false => Some((2, entry.uses(), entry.times.created())),
        };
        let is_full = self.table.is_unchanged(set, seen);
        if is_full && !self.evict_least(set, now, &worth, drop_later) {
            // Other threads are about to fill the ways or to free them, and may need this core.
            yield_now();
        }
    }

    /// Removes every value past its hard limit; returns how many.
    pub fn sweep(&self, now: Tick) -> usize {
        let mut drops = DropAll::default();
        let swept = (0..self.table.sets())
            .flat_map(|set| self.table.items(set))
            .filter(|(_, entry)| !entry.is_loading() && !entry.is_servable(now))
            // A load that is under way would be discarded without its entry. A load past its
            // deadline does not count.
            .filter(|(_, entry)| {
                let claim = entry.claim_word.current();
                claim.is_none_or(|token| token.deadline() <= now)
            })
            .filter_map(|(place, entry)| self.remove_entry(place, entry.arc(), Cause::Expired))
            .map(|removed| drops.drop_one(removed))
            .count();
        self.removals.deliver();
        swept
    }

    /// Evicts the least valuable value of a set; false if the set has none.
    fn evict_value(&self, set: usize, now: Tick, drop_later: &mut DropLater<Entry<K, V>>) -> bool {
        self.evict_least(set, now, &|entry| worth(entry, now), drop_later)
    }

    /// Evicts the least valuable value of a set that was seen to hold nothing else, for a load,
    /// unless a key came to the set or left it since.
    pub fn evict_seen(
        &self,
        set: usize,
        seen: Membership,
        now: Tick,
        drop_later: &mut DropLater<Entry<K, V>>,
    ) {
        if let Some((place, entry)) = self.least(set, &|entry| worth(entry, now)) {
            drop(self.evict(place, entry, seen, now, drop_later));
        }
    }

    /// The entry of a set that is worth least, of those that have a worth.
    #[inline(never)]
    fn least(
        &self,
        set: usize,
        worth: &dyn Fn(&Entry<K, V>) -> Option<Worth>,
    ) -> Option<(Place, Held<Entry<K, V>>)> {
        let (mut least, mut found) = (None, None);
        for (place, entry) in self.table.items(set) {
            let worth = worth(&entry);
            if worth.is_some() && (least.is_none() || worth < least) {
                (least, found) = (worth, Some((place, entry)));
            }
        }
        found
    }

    /// Evicts the [`least`](Self::least) entry of a set; false if there is none.
    ///
    /// Also true if another thread removed or replaced that entry first. There may be room then, so
    /// the caller looks again. At each further look some thread has made progress.
    fn evict_least(
        &self,
        set: usize,
        now: Tick,
        worth: &dyn Fn(&Entry<K, V>) -> Option<Worth>,
        drop_later: &mut DropLater<Entry<K, V>>,
    ) -> bool {
        let Some((place, victim)) = self.least(set, worth) else {
            return false;
        };
        if let Some(removed) = self.remove_entry(place, victim.arc(), Cause::of(&victim, now)) {
            drop_later.add(removed);
        }
        true
    }

    /// Removes an idle entry of a set, for a load; false if the set has none.
    ///
    /// Also true if another thread removed or replaced that entry first: see
    /// [`evict_least`](Self::evict_least).
    pub fn evict_idle(&self, set: usize, now: Tick, drop_later: &mut DropLater<Entry<K, V>>) -> bool
    where
        K: Clone,
    {
        let mut items = self.table.items(set);
        let Some((place, idle)) = items.find(|(_, entry)| is_idle(entry, now)) else {
            return false;
        };
        if idle.is_loading() {
            // No insert replaces a placeholder in place.
            let removed = self.remove_entry(place, idle.arc(), Cause::Size);
            removed.into_iter().for_each(|entry| drop_later.add(entry));
        } else {
            let tombstone = Arc::new(Entry::tombstone(idle.key.clone(), self.closed.clone()));
            self.remove_through_tombstone(place, idle.arc(), tombstone, Cause::Expired);
            drop_later.add(idle.into_arc());
        }
        true
    }

    /// Removes the tombstone of a key that [`evict_idle`](Self::evict_idle) has left in the table;
    /// false if there is none.
    pub fn clear_tombstone(&self, hash: u64, key: &K) -> bool
    where
        K: Eq,
    {
        let found = self.resident(hash, key);
        let is_closed = |entry: &Entry<K, V>| {
            let flight = self.last_flight(entry);
            entry.is_loading() && flight.is_some_and(|flight| flight.is_closed())
        };
        let found = found.filter(|(_, entry)| is_closed(entry));
        found.is_some_and(|(place, entry)| self.table.remove(place, entry.arc()).is_some())
    }
}

/// The order in which the entries of a set are evicted.
type Worth = (u8, u8, Tick);

/// The worth of a value; `None` for a load.
fn worth<K, V>(entry: &Entry<K, V>, now: Tick) -> Option<Worth> {
    let alive = entry.is_servable(now);
    (!entry.is_loading()).then(|| (alive.into(), entry.uses(), entry.times.created()))
}

/// Whether an entry holds its place for nothing: it may not be served, and no attempt for it is
/// under way. A load past its deadline is not, and neither is one that has failed and rests.
fn is_idle<K, V>(entry: &Entry<K, V>, now: Tick) -> bool {
    let ended = match entry.claim_word.state() {
        ClaimState::Idle | ClaimState::Cooling { .. } => true,
        ClaimState::Claimed { deadline } => deadline <= now,
        // Its successor, or its removal, is a step away.
        ClaimState::Spent => false,
    };
    ended && !entry.is_servable(now)
}

/// The deadline of the attempt for an entry; 0 if none is under way.
fn deadline<K, V>(entry: &Entry<K, V>) -> Tick {
    let claim = entry.claim_word.current();
    claim.map_or(0, ClaimToken::deadline)
}

impl<K, V> Entries<K, V> {
    /// Removes an entry and gives its permit back if it was a value.
    ///
    /// The removed entry may be the successor of `entry`; see
    /// [`Table::remove`](crate::protocol::table::Table::remove).
    #[inline(never)]
    pub fn remove_entry(
        &self,
        place: Place,
        entry: &Arc<Entry<K, V>>,
        cause: Cause,
    ) -> Option<Arc<Entry<K, V>>> {
        let removed = self.table.remove(place, entry)?;
        if !removed.is_loading() {
            self.limit.release(Need::entry(removed.weight));
            self.removals.push(&removed, cause);
        }
        Some(removed)
    }

    /// Removes exactly `value` and gives its permit back; false if it was no longer resident.
    ///
    /// `tombstone` replaces it first, because an `insert` may put a successor there at that moment,
    /// and the successor must not be removed.
    pub fn remove_through_tombstone(
        &self,
        place: Place,
        value: &Arc<Entry<K, V>>,
        tombstone: Arc<Entry<K, V>>,
        cause: Cause,
    ) -> bool {
        let vacated = (self.table).replace(place, value, &tombstone);
        if vacated {
            self.limit.release(Need::entry(value.weight));
            self.removals.push(value, cause);
            self.table.remove(place, &tombstone);
        }
        vacated
    }

    /// Takes a permit for the successor of a value, or for the first value of a placeholder; `None`
    /// if the successor is heavier than the cache, or would have to evict another value though
    /// `old` has left the table.
    pub fn admit_successor(
        &self,
        place: Place,
        old: &Entry<K, V>,
        new: &Entry<K, V>,
        now: Tick,
        drop_later: &mut DropLater<Entry<K, V>>,
    ) -> Option<Permit<'_>> {
        if !self.limit.allows(new.weight) {
            return None;
        }
        let need = match old.is_loading() {
            true => Need::entry(new.weight),
            false => Need::beyond(new.weight, old.weight),
        };
        if self.limit.take(need) {
            return Some(Permit(&self.limit, Some(need)));
        }
        // A result that cannot be kept must not cost another value its place.
        let is_here = (self.table.item_at(place)).is_some_and(|here| std::ptr::eq(&*here, old));
        is_here.then(|| self.admit(place.set(), need, now, drop_later))
    }

    /// Replaces exactly `old` by its successor, which uses the permit, and gives back the weight of
    /// `old`.
    pub fn replace(
        &self,
        place: Place,
        old: &Arc<Entry<K, V>>,
        new: &Arc<Entry<K, V>>,
        permit: Permit<'_>,
    ) -> bool {
        if !self.table.replace(place, old, new) {
            return false;
        }
        permit.keep();
        if !old.is_loading() {
            self.limit.release(Need::beyond(old.weight, new.weight));
            self.removals.push(old, Cause::Replaced);
            self.hand_over(place, old, new);
        }
        true
    }
}
