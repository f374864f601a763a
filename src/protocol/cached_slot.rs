//! One way cached_slot by one thread: the cheapest read there is, and what readers and pins are made of.
//!
//! A watch remembers what it last saw. A look compares that with the table, without a guard, by the rule of every look-up: `control`
//! before, the slot, `control` again. Unchanged, with the bit set, the entry was in the table in between. So nothing
//! that was invalidated before the look began is seen, also when its slot is not emptied yet.

use std::ops::Deref;

use crate::protocol::entries::Entries;
use crate::protocol::entry::Entry;
use crate::protocol::table::Place;
use crate::sync::{Arc, Slot, Watch};

pub struct CachedSlot<K, V> {
    place: Place,
    slot: Watch<Way<K, V>, Entry<K, V>>,
    /// What the last look saw.
    seen: Option<Arc<Entry<K, V>>>,
}

/// A way that keeps its table alive.
struct Way<K, V> {
    entries: Arc<Entries<K, V>>,
    place: Place,
}

impl<K, V> Deref for Way<K, V> {
    type Target = Slot<Entry<K, V>>;

    #[inline]
    fn deref(&self) -> &Self::Target {
        self.entries.table.slot(self.place)
    }
}

impl<K, V> CachedSlot<K, V> {
    pub fn new(entries: &Arc<Entries<K, V>>, place: Place) -> Self {
        let entries = entries.clone();
        CachedSlot {
            place,
            slot: Watch::new(Way { entries, place }),
            seen: None,
        }
    }

    /// Looks whether a value of this key lives here now; then [`seen`](Self::seen) is it too. Writes
    /// nothing that is shared while that is the one seen last.
    #[inline]
    pub fn look(
        &mut self,
        entries: &Entries<K, V>,
        is_key: impl Fn(&K) -> bool,
    ) -> Option<&Entry<K, V>> {
        let before = entries.table.occupied(self.place);
        let Some(here) = self.slot.look() else {
            self.seen = None;
            return None;
        };
        if !self
            .seen
            .as_ref()
            .is_some_and(|seen| Arc::ptr_eq(seen, here))
        {
            self.seen = Some(here.clone());
        }
        let live =
            is_key(&here.key) && before.is_some() && entries.table.occupied(self.place) == before;
        live.then_some(here)
    }

    /// What the last look saw.
    #[inline]
    pub fn seen(&self) -> Option<&Arc<Entry<K, V>>> {
        self.seen.as_ref()
    }

    pub fn place(&self) -> Place {
        self.place
    }
}
