//! Look-ups.
//!
//! A [`Fresh`](crate::Fresh) has only one key. Its table has one set, and no key is twice in a set,
//! so at most one way is occupied: a look-up needs no hash, no tags and no comparison. It keeps the
//! rule of every look-up, `control`, slot, `control`. The way that it chose may be given up
//! meanwhile, and the next value may get another one. Then the look-up finds nothing, which is
//! right: between the two values the key was missing.

use super::{Entries, Limits};
use crate::protocol::entry::Entry;
use crate::protocol::table::{Place, Table};
use crate::sync::Held;

impl<K: Eq, V> Entries<K, V> {
    /// Whether there is only one key: a type without a size has only one value.
    const ONE_KEY: bool = size_of::<K>() == 0;

    /// The number of ways of the table.
    pub(super) fn ways(limits: Limits) -> usize {
        match Self::ONE_KEY {
            true => 1,
            false => limits.ways,
        }
    }

    /// The fast half of every read. Takes no lock, runs no user code except `is_key`, and writes
    /// nothing.
    #[inline(always)]
    pub fn find(
        &self,
        hash: u64,
        is_key: impl Fn(&K) -> bool,
    ) -> Option<(Place, Held<Entry<K, V>>)> {
        match Self::ONE_KEY {
            true => self.table.find_only(),
            false => self.table.find(hash, |entry| is_key(&entry.key)),
        }
    }

    /// [`find`](Self::find) where a hit is rare, out of line.
    #[inline(never)]
    pub(crate) fn resident(&self, hash: u64, key: &K) -> Option<(Place, Held<Entry<K, V>>)> {
        self.find(hash, |other| other == key)
    }
}

impl<T> Table<T> {
    /// The item of a table with only one key.
    #[inline(always)]
    pub fn find_only(&self) -> Option<(Place, Held<T>)> {
        let place = self.occupied_in(0).next()?;
        Some((place, self.seen_at(place)?.0))
    }
}
