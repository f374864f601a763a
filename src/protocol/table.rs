//! The slot table: lock-free and set-associative.
//!
//! A key lives in exactly one *set*, in one of its *ways*. A set is two cache lines:
//!
//! ```text
//!   control  version:38 | promoted:13 | occupied:13      tags 13 x 8 bits      ways [Slot; 13]
//! ```
//!
//! Invariants (P4, and "no key twice", on which P1 and P3 rest):
//!
//! 1. A way whose bit is clear and whose slot is empty is free. A thread reserves it by a
//!    compare-and-swap of the slot from nothing to the item. The item is invisible until the bit is
//!    set.
//! 2. Setting a bit is a compare-and-swap of `control` from a value under which the set was seen
//!    not to hold the key. Every change of such a bit bumps the version, so a thread that commits
//!    knows that no other thread committed since. Therefore no key is ever twice in a set.
//! 3. Clearing a bit is the moment of removal, and only the thread that clears it may empty the
//!    way. An occupied way is therefore never empty, and an empty one always free. Between the two
//!    steps the item is in the slot but no longer in the table: a thread that remembers a way asks
//!    [`Table::holds`].
//! 4. An item is replaced only by one of the same key (a compare-and-swap of the slot), so a tag
//!    changes only while its way is free.
//! 5. A reader that found its key reads `control` again. If `control` is unchanged, the way was
//!    occupied all the time and the item was in the table. If it changed, the reader may have read
//!    a reservation, and it reads again. A reader that did not find the key is done: at some moment
//!    of its scan the key was missing.
//! 6. The promoted bit of a way belongs to the stay of its key: an item that replaces another one
//!    has it too, and the removal clears it. It is only ever set from a value of `control` under
//!    which the item was seen. This leaves the version alone, because no rule above depends on the
//!    bit. A thread that compares `control` at that moment fails once without need.
//!
//! An outdated thread would take `control` for unchanged after exactly 2^38 changes of one set,
//! which take hours, and only if it continues between two of them.

pub use crate::protocol::control::{Membership, Place, WAYS};
use crate::protocol::control::{OCCUPIED, VERSION, bits, promoted, without};
use crate::protocol::drop_later::DropAll;
use crate::sync::{AtomicU64, Held, Lanes, Ordering, Slot, StrongArc};

/// Words of eight tags.
const WORDS: usize = WAYS.div_ceil(8);

/// A fixed scramble (2^64 divided by the golden ratio, made odd), so that a hasher with weak high
/// bits still spreads keys over the sets.
const SCRAMBLE: u64 = 0x9e37_79b9_7f4a_7c15;

pub struct Table<T> {
    sets: Box<[Set<T>]>,
    lanes: Lanes<T>,
}

#[repr(align(128))]
struct Set<T> {
    control: AtomicU64,
    /// Eight tags to a word, so that a lookup compares them all at once without a branch.
    tags: [AtomicU64; WORDS],
    ways: [Slot<T>; WAYS],
}

#[cfg(all(target_pointer_width = "64", not(all(loom, feature = "loom"))))]
const _: () = assert!(size_of::<Set<u64>>() == 128, "a set is two cache lines");

#[cfg(not(all(loom, feature = "loom")))]
const _: () = assert!(
    !std::mem::needs_drop::<Set<String>>(),
    "a table empties its ways itself, because guards may borrow what they hold"
);

/// The result of [`Table::insert`].
pub enum Inserted {
    /// The item is in the table, at this place.
    Here(Place),
    /// An item that may have the same key came to the set: the caller looks again.
    Changed,
    /// Every way of the key's set was taken under this membership.
    Full(Membership),
}

impl<T> Table<T> {
    /// A table with at least `ways` ways.
    pub fn new(ways: usize) -> Self {
        let sets = ways.div_ceil(WAYS).max(1);
        Table {
            sets: (0..sets).map(|_| Set::new()).collect(),
            lanes: Lanes::default(),
        }
    }

    pub fn sets(&self) -> usize {
        self.sets.len()
    }

    /// The number of the set in which a key of this hash lives.
    #[inline]
    pub fn set_of(&self, hash: u64) -> usize {
        // The high half of the product picks the set, so all the high bits of the hash count.
        let mixed = hash.wrapping_mul(SCRAMBLE);
        ((u128::from(mixed) * self.sets.len() as u128) >> 64) as usize
    }

    #[inline]
    fn tag_of(hash: u64) -> u8 {
        // Bits of the product that hardly take part in the choice of the set.
        (hash.wrapping_mul(SCRAMBLE) >> 16) as u8
    }

    /// Bits of the product beside the tag.
    pub fn rest_of(hash: u64) -> u8 {
        (hash.wrapping_mul(SCRAMBLE) >> 24) as u8
    }

    /// Finds the item of a key.
    ///
    /// Writes nothing. Repeats only if a membership change or a promotion in this set overlaps a
    /// match.
    #[inline(always)]
    pub fn find(&self, hash: u64, is_key: impl Fn(&T) -> bool) -> Option<(Place, Held<T>)> {
        let number = self.set_of(hash);
        let set = &self.sets[number];
        // Acquire pairs with the commit of an insert: its tag and slot are visible.
        let mut control = set.control.load(Ordering::Acquire);
        loop {
            let (way, held) = set.scan(control, Self::tag_of(hash), &is_key, &self.lanes)?;
            // The load of the slot acquires, so this load does not come before it (invariant 5).
            let again = set.control.load(Ordering::Acquire);
            if again == control {
                return Some((Place::new(number, way), held));
            }
            control = again;
        }
    }

    /// A membership under which a key is missing, for [`insert`](Self::insert); `None` if the key
    /// is in the table.
    pub fn missing(&self, hash: u64, is_key: impl Fn(&T) -> bool) -> Option<Membership> {
        let set = &self.sets[self.set_of(hash)];
        set.missing_under(Self::tag_of(hash), is_key, &self.lanes)
            .map(Membership)
    }

    /// Inserts an item whose key was missing under `seen`.
    ///
    /// The caller may hold a permit, so no key is compared here. The tags show whether an item that
    /// may have the same key came to the set since `seen`.
    pub fn insert(&self, hash: u64, item: &StrongArc<T>, seen: Membership) -> Inserted {
        let number = self.set_of(hash);
        let set = &self.sets[number];
        let tag = Self::tag_of(hash);
        // Acquire, as in the commit below: the tags of items that came since are visible.
        let mut control = set.control.load(Ordering::Acquire);
        if control != seen.0 && set.may_hold(control, tag) {
            return Inserted::Changed;
        }
        let Some(reserved) = set.reserve(control, item, &self.lanes) else {
            return Inserted::Full(Membership(control));
        };
        set.write_tag(reserved.way, tag);
        loop {
            let committed = (control | 1 << reserved.way).wrapping_add(VERSION);
            // Release publishes tag and slot. Acquire, on success as on failure: the check of the
            // tags that follows sees what other threads committed.
            let exchanged = set.control.compare_exchange(
                control,
                committed,
                Ordering::AcqRel,
                Ordering::Acquire,
            );
            match exchanged {
                Ok(_) => return Inserted::Here(Place::new(number, reserved.commit())),
                Err(now) if set.may_hold(now, tag) => return Inserted::Changed,
                Err(now) => control = now,
            }
        }
    }

    /// Removes `item`, if it is still in its way; returns the item that left the table.
    ///
    /// That is `item`, or the item that replaced it between the check and the removal. The key is
    /// gone in either case, and the caller accounts for the returned item.
    pub fn remove(&self, place: Place, item: &StrongArc<T>) -> Option<StrongArc<T>> {
        let (set, way) = self.at(place);
        let mut control = set.control.load(Ordering::Acquire);
        loop {
            let here = control >> way & 1 == 1 && self.is_in(&set.ways[way], item);
            if !here {
                return None;
            }
            let cleared = without(control, way);
            // AcqRel: what happened before the removal is visible to a thread that commits after
            // it.
            let exchanged =
                set.control
                    .compare_exchange(control, cleared, Ordering::AcqRel, Ordering::Acquire);
            match exchanged {
                // Only this thread may empty the way now (invariant 3).
                Ok(_) => return set.ways[way].swap(None, &self.lanes),
                Err(now) => control = now,
            }
        }
    }

    /// Replaces exactly `item` by `new`, of the same key; false if `item` was no longer in its
    /// slot.
    ///
    /// Also true if another thread was removing `item` at that moment; `new` is then removed with
    /// it.
    pub fn replace(&self, place: Place, item: &StrongArc<T>, new: &StrongArc<T>) -> bool {
        let (set, way) = self.at(place);
        set.ways[way].compare_exchange(Some(item), Some(new.clone()), &self.lanes)
    }

    /// Whether `item` is in the table, at this place.
    pub fn holds(&self, place: Place, item: &StrongArc<T>) -> bool {
        self.item_at(place)
            .is_some_and(|held| StrongArc::ptr_eq(held.arc(), item))
    }

    /// The item in the table at this place.
    #[inline(never)]
    pub fn item_at(&self, place: Place) -> Option<Held<T>> {
        self.seen_at(place).map(|(held, _)| held)
    }

    /// The item in the table at this place, and the membership under which it was read.
    #[inline(always)]
    pub fn seen_at(&self, place: Place) -> Option<(Held<T>, Membership)> {
        let (set, way) = self.at(place);
        let mut control = set.control.load(Ordering::Acquire);
        while control >> way & 1 == 1 {
            let held = set.ways[way].load(&self.lanes);
            // As in `find`: between two equal reads of `control` the way was occupied.
            let again = set.control.load(Ordering::Acquire);
            if again == control {
                return held.map(|held| (held, Membership(control)));
            }
            control = again;
        }
        None
    }

    /// Removes the item that was seen at this place, or the item that replaced it since; `None` if
    /// the membership of its set has changed.
    ///
    /// Cheaper than [`remove`](Self::remove): the version proves what a second read of the slot
    /// would show, and the caller need not hold the item.
    pub fn remove_seen(&self, place: Place, seen: Membership) -> Option<StrongArc<T>> {
        let (set, way) = self.at(place);
        let cleared = without(seen.0, way);
        // AcqRel, as in `remove`. On failure nothing is read.
        let exchanged =
            set.control
                .compare_exchange(seen.0, cleared, Ordering::AcqRel, Ordering::Relaxed);
        // Only this thread may empty the way now (invariant 3).
        exchanged
            .ok()
            .and_then(|_| set.ways[way].swap(None, &self.lanes))
    }

    /// Promotes the item that was seen at this place, and those that replace it; false if `control`
    /// has changed.
    pub fn promote(&self, place: Place, seen: Membership) -> bool {
        let (set, way) = self.at(place);
        let now = seen.0 | promoted(way);
        // Relaxed: the bit says nothing about other memory, and an exchange leaves the edges from
        // the commits before it to those who read `control` as they are.
        set.control
            .compare_exchange(seen.0, now, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    }

    /// Whether the membership of a set is still this one.
    pub fn is_unchanged(&self, set: usize, seen: Membership) -> bool {
        // Acquire: what a caller reads next is not older than a change that it sees.
        self.sets[set].control.load(Ordering::Acquire) == seen.0
    }

    /// Loads the slot of a way into `seen`, unless it still holds the same item; for a
    /// [`CachedSlot`](crate::protocol::cached_slot::CachedSlot).
    #[inline]
    pub fn renew(&self, place: Place, seen: &mut Option<StrongArc<T>>) {
        let (set, way) = self.at(place);
        set.ways[way].renew(seen, &self.lanes);
    }

    /// The version of a set, if the way is occupied.
    #[inline]
    pub fn occupied(&self, place: Place) -> Option<u64> {
        let (set, way) = self.at(place);
        let control = set.control.load(Ordering::Acquire);
        (control >> way & 1 == 1).then_some(control)
    }

    /// The tag of the key that lives at this place, while one does.
    pub fn tag_at(&self, place: Place) -> u8 {
        let (set, way) = self.at(place);
        set.tag(way)
    }

    /// The items of a set, each as it is when the iterator reaches it. An item that is inserted
    /// meanwhile may be left out.
    pub fn items(&self, set: usize) -> impl Iterator<Item = (Place, Held<T>)> {
        let occupied = self.occupied_in(set);
        occupied.filter_map(|place| Some((place, self.item_at(place)?)))
    }

    /// The ways of a set that are occupied now.
    pub fn occupied_in(&self, set: usize) -> impl Iterator<Item = Place> {
        let control = self.sets[set].control.load(Ordering::Acquire);
        bits(control & OCCUPIED).map(move |way| Place::new(set, way))
    }

    fn is_in(&self, slot: &Slot<T>, item: &StrongArc<T>) -> bool {
        slot.load(&self.lanes)
            .is_some_and(|held| StrongArc::ptr_eq(held.arc(), item))
    }

    /// The ways of a set that are promoted now.
    pub fn promoted_in(&self, set: usize) -> impl Iterator<Item = Place> {
        // Relaxed: the caller looks at each of them again.
        let control = self.sets[set].control.load(Ordering::Relaxed);
        bits(control >> WAYS & OCCUPIED).map(move |way| Place::new(set, way))
    }

    fn at(&self, place: Place) -> (&Set<T>, usize) {
        (&self.sets[place.set()], place.way())
    }
}

impl<T> Drop for Table<T> {
    /// Empties the ways that hold something, and visits no other.
    fn drop(&mut self) {
        let mut drops = DropAll::default();
        for set in &self.sets {
            // Relaxed: the thread that drops the table is its only owner. A way is reserved or
            // being emptied only during a call, so only the occupied ways hold something.
            for way in bits(set.control.load(Ordering::Relaxed) & OCCUPIED) {
                drops.drop_one(set.ways[way].swap(None, &self.lanes));
            }
        }
    }
}

impl<T> Set<T> {
    fn new() -> Self {
        Set {
            control: AtomicU64::new(0),
            tags: std::array::from_fn(|_| AtomicU64::new(0)),
            ways: std::array::from_fn(|_| Slot::empty()),
        }
    }

    /// The occupied way, under `control`, whose item has the key.
    #[inline(always)]
    fn scan(
        &self,
        control: u64,
        tag: u8,
        is_key: impl Fn(&T) -> bool,
        lanes: &Lanes<T>,
    ) -> Option<(usize, Held<T>)> {
        let mut left = self.with_tag(tag) & control & OCCUPIED;
        while left != 0 {
            let way = left.trailing_zeros() as usize;
            left &= left - 1;
            if let Some(held) = self.ways[way].load(lanes) {
                if is_key(&held) {
                    return Some((way, held));
                }
            }
        }
        None
    }

    /// The ways that may have this tag, as bits. Now and then there is one too many, but none is
    /// missing.
    #[inline]
    fn with_tag(&self, tag: u8) -> u64 {
        const LOW: u64 = 0x0101_0101_0101_0101;
        const HIGH: u64 = LOW << 7;
        /// Moves the lowest bit of each byte into the highest byte, in order.
        const GATHER: u64 = 0x0102_0408_1020_4080;
        let mut ways = 0;
        for (word, tags) in self.tags.iter().enumerate() {
            // Relaxed: the tag of an occupied way was written before the commit that `control`
            // acquired. A newer tag means a newer item; the slot and the second read of `control`
            // decide.
            let differences = tags.load(Ordering::Relaxed) ^ (LOW * u64::from(tag));
            let zeros = differences.wrapping_sub(LOW) & !differences & HIGH;
            ways |= ((zeros >> 7).wrapping_mul(GATHER) >> 56) << (8 * word);
        }
        ways
    }

    /// Whether a way that is occupied under `control` may have this tag. Sometimes true for a way
    /// that has another tag, never false for a way that has it.
    fn may_hold(&self, control: u64, tag: u8) -> bool {
        self.with_tag(tag) & control & OCCUPIED != 0
    }

    fn tag(&self, way: usize) -> u8 {
        (self.tags[way / 8].load(Ordering::Relaxed) >> (way % 8 * 8)) as u8
    }

    /// Sets the tag of a reserved way. No other thread writes that byte.
    fn write_tag(&self, way: usize, tag: u8) {
        let old = self.tag(way);
        // The exclusive or of the difference leaves the other bytes to their writers. Relaxed: the
        // commit releases it.
        self.tags[way / 8].fetch_xor(u64::from(old ^ tag) << (way % 8 * 8), Ordering::Relaxed);
    }

    /// A `control` under which the key is missing; `None` if the key is in the set.
    fn missing_under(&self, tag: u8, is_key: impl Fn(&T) -> bool, lanes: &Lanes<T>) -> Option<u64> {
        let mut control = self.control.load(Ordering::Acquire);
        while self.scan(control, tag, &is_key, lanes).is_some() {
            let again = self.control.load(Ordering::Acquire);
            if again == control {
                return None;
            }
            control = again;
        }
        Some(control)
    }

    /// Takes a free way for `item`; the item stays invisible.
    fn reserve<'a>(
        &'a self,
        control: u64,
        item: &'a StrongArc<T>,
        lanes: &'a Lanes<T>,
    ) -> Option<Reserved<'a, T>> {
        let mut free = bits(!control & OCCUPIED);
        let way =
            free.find(|&way| self.ways[way].compare_exchange(None, Some(item.clone()), lanes))?;
        Some(Reserved {
            slot: &self.ways[way],
            way,
            item: Some(item),
            lanes,
        })
    }
}

/// A way that is taken but not visible yet; gives the way back when dropped before
/// [`commit`](Self::commit).
struct Reserved<'a, T> {
    slot: &'a Slot<T>,
    way: usize,
    item: Option<&'a StrongArc<T>>,
    lanes: &'a Lanes<T>,
}

impl<T> Reserved<'_, T> {
    fn commit(mut self) -> usize {
        self.item = None;
        self.way
    }
}

impl<T> Drop for Reserved<'_, T> {
    fn drop(&mut self) {
        if let Some(item) = self.item {
            // No other thread may change a reserved way.
            self.slot.compare_exchange(Some(item), None, self.lanes);
        }
    }
}
