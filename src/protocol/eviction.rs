//! The choice of a victim when one of the limits is reached (`permits`), or when a set is full.
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
use crate::protocol::drop_later::{DropAll, DropLater};
use crate::protocol::entries::Entries;
use crate::protocol::entry::Entry;
use crate::protocol::permits::{Need, Permit};
use crate::protocol::removal::Cause;
use crate::protocol::table::{Membership, Place};
use crate::sync::{Held, StrongArc, yield_now};
use crate::time::clock::Tick;

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
        let shard = self.queues.shards.of(set);
        loop {
            if let Some(permit) = self.limit.take(shard, need) {
                return permit;
            }
            if let Some(freed) = self.evict_by_queue(shard, now, drop_later) {
                // Passed on, not given back and taken again, because all inserts of the shard would
                // write the cache line of the count.
                match freed.reuse(shard, need) {
                    Some(permit) => return permit,
                    None => continue,
                }
            }
            if let Some(permit) = self.limit.take_anywhere(shard, need) {
                return permit;
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
            _ if self.is_idle(entry, now) => Some((0, 0, 0)),
            // The load that began last has done the least work.
            true => Some((1, 0, Tick::MAX - deadline(entry))),
            false => Some((2, entry.uses(), entry.times().created())),
        };
        let is_full = self.table.is_unchanged(set, seen);
        if is_full && !self.evict_least(set, now, &worth, drop_later) {
            // Other threads are about to fill the ways or to free them, and may need this core.
            yield_now();
        }
    }

    /// Removes every value past its hard limit or outdated; returns how many.
    pub fn sweep(&self, now: Tick) -> usize {
        let mut drops = DropAll::default();
        let swept = (0..self.table.sets())
            .flat_map(|set| self.table.items(set))
            .filter(|(_, entry)| !entry.is_loading() && !self.is_servable(entry, now))
            // A load that is under way would be discarded without its entry. A load past its
            // deadline does not count.
            .filter(|(_, entry)| {
                let claim = entry.claim_word.current();
                claim.is_none_or(|token| token.deadline() <= now)
            })
            .filter_map(|(place, entry)| {
                let cause = Cause::of(&entry, &self.groups, now);
                self.remove_entry(place, entry.arc(), cause)
            })
            .map(|removed| drops.drop_one(removed))
            .count();
        self.removals.deliver();
        swept
    }

    /// Evicts the least valuable value of a set; false if the set has none.
    fn evict_value(&self, set: usize, now: Tick, drop_later: &mut DropLater<Entry<K, V>>) -> bool {
        self.evict_least(set, now, &|entry| self.worth(entry, now), drop_later)
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
        if let Some((place, entry)) = self.least(set, &|entry| self.worth(entry, now)) {
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
        let cause = Cause::of(&victim, &self.groups, now);
        if let Some(removed) = self.remove_entry(place, victim.arc(), cause) {
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
        let Some((place, idle)) = items.find(|(_, entry)| self.is_idle(entry, now)) else {
            return false;
        };
        if idle.is_loading() {
            // No insert replaces a placeholder in place.
            let removed = self.remove_entry(place, idle.arc(), Cause::Size);
            removed.into_iter().for_each(|entry| drop_later.add(entry));
        } else {
            let tombstone = StrongArc::new(Entry::tombstone(idle.key.clone(), self.closed.clone()));
            let cause = Cause::of(&idle, &self.groups, now);
            self.remove_through_tombstone(place, idle.arc(), tombstone, cause);
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

/// The deadline of the attempt for an entry; 0 if none is under way.
fn deadline<K, V>(entry: &Entry<K, V>) -> Tick {
    let claim = entry.claim_word.current();
    claim.map_or(0, ClaimToken::deadline)
}

impl<K, V> Entries<K, V> {
    /// The worth of a value; `None` for a load.
    fn worth(&self, entry: &Entry<K, V>, now: Tick) -> Option<Worth> {
        let alive = self.is_servable(entry, now);
        (!entry.is_loading()).then(|| (alive.into(), entry.uses(), entry.times().created()))
    }

    /// Whether an entry holds its place for nothing: it may not be served, and no attempt for it is
    /// under way. A load past its deadline is not, and neither is one that has failed and rests.
    fn is_idle(&self, entry: &Entry<K, V>, now: Tick) -> bool {
        let ended = match entry.claim_word.state() {
            ClaimState::Idle | ClaimState::Cooling { .. } => true,
            ClaimState::Claimed { deadline } => deadline <= now,
            // Its successor, or its removal, is a step away.
            ClaimState::Spent => false,
        };
        ended && !self.is_servable(entry, now)
    }

    /// Removes an entry and gives its permit back if it was a value.
    ///
    /// The removed entry may be the successor of `entry`; see
    /// [`Table::remove`](crate::protocol::table::Table::remove).
    #[inline(never)]
    pub fn remove_entry(
        &self,
        place: Place,
        entry: &StrongArc<Entry<K, V>>,
        cause: Cause,
    ) -> Option<StrongArc<Entry<K, V>>> {
        let removed = self.table.remove(place, entry)?;
        if !removed.is_loading() {
            let shard = self.queues.shards.of(place.set());
            self.limit.release(shard, Need::entry(removed.weight()));
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
        value: &StrongArc<Entry<K, V>>,
        tombstone: StrongArc<Entry<K, V>>,
        cause: Cause,
    ) -> bool {
        let vacated = (self.table).replace(place, value, &tombstone);
        if vacated {
            let shard = self.queues.shards.of(place.set());
            self.limit.release(shard, Need::entry(value.weight()));
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
        if !self.limit.allows(new.weight()) {
            return None;
        }
        let need = match old.is_loading() {
            true => Need::entry(new.weight()),
            false => Need::beyond(new.weight(), old.weight()),
        };
        let shard = self.queues.shards.of(place.set());
        if let Some(permit) = self.limit.take(shard, need) {
            return Some(permit);
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
        old: &StrongArc<Entry<K, V>>,
        new: &StrongArc<Entry<K, V>>,
        permit: Permit<'_>,
    ) -> bool {
        if !self.table.replace(place, old, new) {
            return false;
        }
        permit.keep();
        if !old.is_loading() {
            let shard = self.queues.shards.of(place.set());
            (self.limit).release(shard, Need::beyond(old.weight(), new.weight()));
            self.removals.push(old, Cause::Replaced);
        }
        true
    }
}
