//! The entry limit, and who goes when it is reached.
//!
//! Every resident value holds a permit. A permit is taken before the value can be seen and given
//! back by whoever removes it, so the limit holds at every moment (placeholders of loads hold none).
//!
//! The victim is the least used, then the oldest, value of the key's set, expired ones first.

use crate::clock::Tick;
use crate::entry::Entry;
use crate::residents::Residents;
use crate::sync::{AtomicUsize, Ordering, yield_now};
use crate::table::Table;

pub struct Limit {
    capacity: usize,
    taken: AtomicUsize,
}

impl Limit {
    pub fn new(capacity: usize) -> Self {
        Limit {
            capacity,
            taken: AtomicUsize::new(0),
        }
    }

    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    fn take(&self) -> bool {
        let mut taken = self.taken.load(Ordering::Relaxed);
        while taken < self.capacity {
            // Relaxed: the count guards no other memory.
            let exchanged =
                self.taken
                    .compare_exchange(taken, taken + 1, Ordering::Relaxed, Ordering::Relaxed);
            match exchanged {
                Ok(_) => return true,
                Err(now) => taken = now,
            }
        }
        false
    }

    pub fn release(&self) {
        self.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The right to make one more value resident; given back when dropped.
pub struct Permit<'a>(Option<&'a Limit>);

impl Permit<'_> {
    /// The value is in the table; whoever removes it gives the permit back.
    pub fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if let Some(limit) = self.0 {
            limit.release();
        }
    }
}

impl<K, V> Residents<K, V> {
    /// Takes a permit, evicting from `set`, and then from the sets after it, as long as there is none.
    pub fn admit(&self, set: usize, now: Tick) -> Permit<'_> {
        let mut from = set;
        while !self.limit.take() {
            if !self.evict_value(from, now) {
                from = (from + 1) % self.table.sets();
                if from == set {
                    // No value anywhere: whoever holds the permits is about to use them or to
                    // give them back, and may need this core for it.
                    yield_now();
                }
            }
        }
        Permit(Some(&self.limit))
    }

    /// Frees a way of a full set; false if every way holds a load under way.
    pub fn make_room(&self, set: usize, now: Tick) -> bool {
        self.evict_value(set, now) || self.evict_hung_load(set, now)
    }

    fn evict_value(&self, set: usize, now: Tick) -> bool {
        let worth = |entry: &Entry<K, V>| {
            let alive = entry.is_servable(now);
            (alive, entry.uses(), entry.times.created())
        };
        Table::<Entry<K, V>>::places(set)
            .filter_map(|place| Some((place, self.table.item_at(place)?)))
            .filter(|(_, entry)| !entry.is_loading())
            .min_by_key(|(_, entry)| worth(entry))
            .and_then(|(place, entry)| self.take_out(place, entry.arc()))
            .is_some()
    }

    /// A load past its deadline holds its way for nobody.
    fn evict_hung_load(&self, set: usize, now: Tick) -> bool {
        Table::<Entry<K, V>>::places(set)
            .filter_map(|place| Some((place, self.table.item_at(place)?)))
            .filter(|(_, entry)| entry.is_loading())
            .filter(|(_, entry)| {
                entry
                    .claims
                    .current()
                    .is_some_and(|right| right.deadline() <= now)
            })
            .any(|(place, entry)| self.take_out(place, entry.arc()).is_some())
    }
}
