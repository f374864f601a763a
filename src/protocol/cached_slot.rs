//! A way that one thread remembers: the cheapest read, on which readers and pins are built.
//!
//! A `CachedSlot` remembers the entry that it read last. A read takes no guard. It compares the
//! remembered entry with the table by the rule of every lookup: it reads `control`, then the slot,
//! then `control` again. If both reads of `control` agree and the bit is set, the entry was in the
//! table between them. So a read never returns an entry that was invalidated before the read began,
//! even if the slot is not emptied yet.

use crate::protocol::entries::Entries;
use crate::protocol::entry::Entry;
use crate::protocol::table::Place;
use crate::sync::StrongArc;

pub struct CachedSlot<K, V> {
    place: Place,
    /// The entry that the last read found in the slot.
    seen: Option<StrongArc<Entry<K, V>>>,
}

impl<K, V> CachedSlot<K, V> {
    pub fn new(place: Place) -> Self {
        CachedSlot { place, seen: None }
    }

    /// Returns the entry if it is in the table now and has this key; [`seen`](Self::seen) then
    /// returns the same entry.
    ///
    /// Writes no shared memory while the slot holds the entry that was read last.
    #[inline(always)]
    pub fn look(
        &mut self,
        entries: &Entries<K, V>,
        is_key: impl Fn(&K) -> bool,
    ) -> Option<&Entry<K, V>> {
        let before = entries.table.occupied(self.place);
        entries.table.renew(self.place, &mut self.seen);
        let here = self.seen.as_ref()?;
        let live =
            is_key(&here.key) && before.is_some() && entries.table.occupied(self.place) == before;
        live.then_some(here)
    }

    /// The entry that the last read found in the slot.
    #[inline]
    pub fn seen(&self) -> Option<&StrongArc<Entry<K, V>>> {
        self.seen.as_ref()
    }

    pub fn place(&self) -> Place {
        self.place
    }
}
