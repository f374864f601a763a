//! The limits on entries and weight, and the choice of a victim when one is reached.
//!
//! Every resident value holds a permit for one entry and its weight. A value takes its permit
//! before it becomes visible, and its remover gives the permit back. So both limits hold at every
//! moment (placeholders of loads hold no permit).
//!
//! S3-FIFO (`fifo`) chooses the victim. Only a full set, whose key can live nowhere else, gives up
//! one of its own values: expired values first, then the least used, then the oldest.

use crate::protocol::claim::ClaimState;
use crate::protocol::compact::Weight;
use crate::protocol::drop_later::{DropAll, DropLater};
use crate::protocol::entries::Entries;
use crate::protocol::entry::Entry;
use crate::protocol::removal::Cause;
use crate::protocol::table::{Membership, Place};
use crate::sync::{Arc, AtomicU64, Ordering, yield_now};
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

    /// Frees a way of a set that had no free way under `seen`; false if every way holds a load that
    /// is under way.
    ///
    /// Also true if another thread makes room or has just made it: the caller looks again.
    pub fn make_room(
        &self,
        set: usize,
        seen: Membership,
        now: Tick,
        drop_later: &mut DropLater<Entry<K, V>>,
    ) -> bool {
        if self.evict_value(set, now, drop_later) || self.evict_hung_load(set, now, drop_later) {
            return true;
        }
        // No value was found. If the set is as full as before, it contains none. Otherwise another
        // thread is changing a way, and may need this core.
        let full = seen.is_full() && self.table.is_unchanged(set, seen);
        if !full {
            yield_now();
        }
        !full
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
    ///
    /// Also true if another thread removed or replaced that value first. There may be room then, so
    /// the caller looks again. At each further look some thread has made progress.
    fn evict_value(&self, set: usize, now: Tick, drop_later: &mut DropLater<Entry<K, V>>) -> bool {
        let worth = |entry: &Entry<K, V>| {
            let alive = entry.is_servable(now);
            (alive, entry.uses(), entry.times.created())
        };
        let values = (self.table.items(set)).filter(|(_, entry)| !entry.is_loading());
        let Some((place, victim)) = values.min_by_key(|(_, entry)| worth(entry)) else {
            return false;
        };
        if let Some(removed) = self.remove_entry(place, victim.arc(), Cause::of(&victim, now)) {
            drop_later.add(removed);
        }
        true
    }

    /// Removes the placeholder of a load past its deadline, which its callers treat as timed out;
    /// false if there is none.
    ///
    /// Also true if the load ended first: see [`evict_value`](Self::evict_value).
    fn evict_hung_load(
        &self,
        set: usize,
        now: Tick,
        drop_later: &mut DropLater<Entry<K, V>>,
    ) -> bool {
        // A spent one is about to be replaced, or is the tombstone of a value.
        let hung = |entry: &Entry<K, V>| {
            entry.is_loading()
                && match entry.claim_word.state() {
                    ClaimState::Claimed { deadline } => deadline <= now,
                    ClaimState::Cooling { .. } => true,
                    ClaimState::Idle | ClaimState::Spent => false,
                }
        };
        let Some((place, load)) = self.table.items(set).find(|(_, entry)| hung(entry)) else {
            return false;
        };
        if let Some(removed) = self.remove_entry(place, load.arc(), Cause::Size) {
            drop_later.add(removed);
        }
        true
    }
}

impl<K, V> Entries<K, V> {
    /// Removes an entry and gives its permit back if it was a value.
    ///
    /// The removed entry may be the successor of `entry`; see
    /// [`Table::remove`](crate::protocol::table::Table::remove).
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
        let mut drop_later = DropLater::new();
        let vacated = (self.table).replace(place, value, tombstone.clone(), &mut drop_later);
        if vacated {
            self.limit.release(Need::entry(value.weight));
            self.removals.push(value, cause);
            self.table.remove(place, &tombstone);
        }
        vacated
    }

    /// Takes a permit for the successor of a value, or for the first value of a placeholder.
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
        Some(self.admit(place.set(), need, now, drop_later))
    }

    /// Replaces exactly `old` by its successor, which uses the permit, and gives back the weight of
    /// `old`.
    pub fn replace(
        &self,
        place: Place,
        old: &Arc<Entry<K, V>>,
        new: &Arc<Entry<K, V>>,
        permit: Permit<'_>,
        drop_later: &mut DropLater<Entry<K, V>>,
    ) -> bool {
        if !self.table.replace(place, old, new.clone(), drop_later) {
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
