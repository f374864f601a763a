//! The limits on entries and weight, and who goes when one is reached.
//!
//! Every resident value holds a permit for one entry and its weight. A permit is taken before the value can be seen and given
//! back by whoever removes it, so both limits hold at every moment (placeholders of loads hold none).
//!
//! The victim is chosen by S3-FIFO (`fifo`). Only a full set, whose key can live nowhere else, gives up the least used, then the
//! oldest, of its own values, expired ones first.

use crate::clock::Tick;
use crate::compact::Weight;
use crate::entry::Entry;
use crate::removal::Cause;
use crate::residents::Residents;
use crate::sync::{AtomicU64, Ordering, yield_now};

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

impl<K, V> Residents<K, V> {
    /// Takes a permit for a value that is not heavier than the cache, evicting as long as there is none.
    ///
    /// A value that is not in a queue yet cannot be met there; then the victim comes from `set`, or the sets after it.
    pub fn admit(&self, set: usize, need: Need, now: Tick) -> Permit<'_> {
        let mut fruitless = 0;
        while !self.limit.take(need) {
            if let Some(freed) = self.evict_by_queue(now) {
                // Passed on, not given back and taken again: the count is a line that all inserts write.
                match freed.reuse(need) {
                    Some(permit) => return permit,
                    None => continue,
                }
            }
            let sets = self.table.sets();
            match self.evict_value((set + fruitless) % sets, now) {
                true => fruitless = 0,
                false => fruitless += 1,
            }
            if fruitless == sets {
                // No value anywhere: whoever holds the permits is about to use them or to give them back, and may need
                // this core for it.
                fruitless = 0;
                yield_now();
            }
        }
        Permit(&self.limit, Some(need))
    }

    /// Frees a way of a full set; false if every way holds a load under way.
    pub fn make_room(&self, set: usize, now: Tick) -> bool {
        self.evict_value(set, now) || self.evict_hung_load(set, now)
    }

    /// Removes every value past its hard limit; returns how many.
    pub fn sweep(&self, now: Tick) -> usize {
        let swept = (0..self.table.sets())
            .flat_map(|set| self.table.items(set))
            .filter(|(_, entry)| !entry.is_loading() && !entry.is_servable(now))
            // Without its entry a load that is under way would be discarded; one past its deadline counts for nothing.
            .filter(|(_, entry)| {
                let claim = entry.claims.current();
                claim.is_none_or(|right| right.deadline() <= now)
            })
            .filter_map(|(place, entry)| self.take_out(place, entry.arc(), Cause::Expired))
            .count();
        self.removals.deliver();
        swept
    }

    fn evict_value(&self, set: usize, now: Tick) -> bool {
        let worth = |entry: &Entry<K, V>| {
            let alive = entry.is_servable(now);
            (alive, entry.uses(), entry.times.created())
        };
        self.table
            .items(set)
            .filter(|(_, entry)| !entry.is_loading())
            .min_by_key(|(_, entry)| worth(entry))
            .and_then(|(place, entry)| self.take_out(place, entry.arc(), Cause::of(&entry, now)))
            .is_some()
    }

    /// A load past its deadline holds its way for nobody.
    fn evict_hung_load(&self, set: usize, now: Tick) -> bool {
        let hung = |entry: &Entry<K, V>| {
            let claim = entry.claims.current();
            entry.is_loading() && claim.is_some_and(|right| right.deadline() <= now)
        };
        self.table
            .items(set)
            .filter(|(_, entry)| hung(entry))
            .any(|(place, entry)| self.take_out(place, entry.arc(), Cause::Size).is_some())
    }
}
