//! The limits on entries and weight, and who goes when one is reached.
//!
//! Every resident value holds a permit for one entry and its weight. A permit is taken before the value can be seen and given
//! back by whoever removes it, so both limits hold at every moment (placeholders of loads hold none).
//!
//! The victim is chosen by S3-FIFO (`fifo`). Only a full set, whose key can live nowhere else, gives up the least used, then the
//! oldest, of its own values, expired ones first.

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

/// What a value needs to be resident.
#[derive(Clone, Copy)]
pub struct Need {
    entries: u64,
    weight: u64,
}

impl Need {
    /// A value of a key that has none yet.
    pub fn entry(weight: Weight) -> Self {
        Need {
            entries: 1,
            weight: weight.get(),
        }
    }

    /// What a value needs beyond the one whose place it takes.
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
    /// The permit of a value that was removed, now its remover's.
    pub fn inherit(limit: &'a Limit, removed: Weight) -> Self {
        Permit(limit, Some(Need::entry(removed)))
    }

    /// Makes it a permit for `need`, giving back what is left over; `None` if it is too small.
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

    /// The value is in the table; whoever removes it gives the permit back.
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
    /// Takes a permit for a value that is not heavier than the cache, evicting as long as there is none.
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
                // Passed on, not given back and taken again: the count is a line that all inserts write.
                match freed.reuse(need) {
                    Some(permit) => return permit,
                    None => continue,
                }
            }
            // A value that is not in a queue yet cannot be met there. Then the victim comes from
            // `set`, or from the sets after it.
            let sets = self.table.sets();
            let evicted = (0..sets).any(|n| self.evict_value((set + n) % sets, now, drop_later));
            if !evicted {
                // The threads that hold the permits are about to use them or to give them back,
                // and may need this core for it.
                yield_now();
            }
        }
        Permit(&self.limit, Some(need))
    }

    /// Frees a way of a set in which none was free under `seen`; false if every way holds a load
    /// under way.
    ///
    /// True also if another thread makes room or has just made it: the caller looks again.
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
        // No value was met. If the set is full as it was before, that is because there is none.
        // Otherwise another thread is at work in a way, and may need this core for it.
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
            // Without its entry a load that is under way would be discarded; one past its deadline counts for nothing.
            .filter(|(_, entry)| {
                let claim = entry.claims.current();
                claim.is_none_or(|token| token.deadline() <= now)
            })
            .filter_map(|(place, entry)| self.remove_entry(place, entry.arc(), Cause::Expired))
            .map(|removed| drops.drop_one(removed))
            .count();
        self.removals.deliver();
        swept
    }

    /// Evicts the value of a set that is worth least; false if there is none.
    ///
    /// True also if another thread removed or replaced it first. There may be room then, so the
    /// caller looks again, and at each further look some thread has made progress.
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

    /// Removes a load past its deadline, which its callers take for timed out; false if there is
    /// none.
    ///
    /// True also if it ended first: see [`evict_value`](Self::evict_value).
    fn evict_hung_load(
        &self,
        set: usize,
        now: Tick,
        drop_later: &mut DropLater<Entry<K, V>>,
    ) -> bool {
        let hung = |entry: &Entry<K, V>| {
            let claim = entry.claims.current();
            entry.is_loading() && claim.is_some_and(|token| token.deadline() <= now)
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
    /// What is removed may be the successor of `entry`; see [`Table::remove`].
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

    /// Removes exactly `value` and gives its permit back; false if it was no longer here.
    ///
    /// `tombstone` takes its place first: a successor, which an `insert` may put there at that moment,
    /// must not leave with it.
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

    /// A permit for the successor of a value, or for the first value of a placeholder.
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
