//! Groups of keys: "everything of tenant 7", and how all of it is invalidated at once.
//!
//! A group lives in one of a fixed number of *cells*, by a hash of its number that is the same in
//! every process and every version. Two groups in one cell are invalidated together: too many
//! values leave, never too few.
//!
//! One count, `last`, numbers all invalidations. A cell holds the number of the last invalidation
//! of its groups. An entry has a *stamp* for each of its groups: the cell, and the number that the
//! cell held when the value was made. As long as the two numbers are the same, the value is
//! *current*. So an invalidation touches no entry; it costs the same for one member and for a
//! million. The next reader of an outdated value removes it, as `invalidate` of its key would have
//! done, and goes on as if the key were missing.
//!
//! Invariants (P4), and the races that they survive:
//!
//! 1. A load notes `last` as its *beginning*, before the first step that could read an old value:
//!    the user's loader, or the store. A stamp is made after the value. If the cell then holds a
//!    later number than the beginning, the value is born outdated: its stamp has the beginning,
//!    which the cell has left behind. So whenever an invalidation comes while the load runs, before
//!    or after the stamp, the stamp and the cell differ in the end, and the publishing of the value
//!    needs no check.
//! 2. An invalidation raises `last` before the cell. A load that begins between the two steps is
//!    not born outdated by mistake: it notes the new number, which is not lower than the cell's.
//! 3. A cell only ever grows. Two invalidations of one cell may write in either order, and the
//!    later number stays.
//! 4. A caller that comes after an invalidation sees the cell's new number, because its arrival
//!    happens after the call returned. Whether it finds the entry in the table, in a slot that it
//!    remembers, or in its own hands, it asks the cell.
//! 5. A caller that waits for a load notes `last` at its arrival. It takes the result if that is
//!    current, or if the load began at its arrival or later. So callers that come after an
//!    invalidation never get a value that was loaded before it, and earlier callers do.
//!
//! A stamp holds the low 32 bits of a number. An outdated value would be taken for current again if
//! its cell were invalidated exactly 2^32 invalidations (of any groups) after its stamp, and if no
//! reader, no eviction and no limit of time met it meanwhile. At 10 000 invalidations a second that
//! moment comes after five days, and is gone with the next invalidation of the cell.

use crate::protocol::entries::Entries;
use crate::protocol::entry::Entry;
use crate::protocol::flight::{Flight, Made};
use crate::protocol::removal::Cause;
use crate::protocol::table::Place;
use crate::sync::{AtomicU8, AtomicU64, Ordering, SetOnce, StrongArc};
use crate::time::clock::Tick;

/// The cells of a cache.
#[cfg(not(all(loom, feature = "loom")))]
pub const CELLS: usize = 1 << CELL_BITS;
/// As many as a model can watch.
#[cfg(all(loom, feature = "loom"))]
pub const CELLS: usize = 2;

#[cfg(not(all(loom, feature = "loom")))]
const CELL_BITS: u32 = 14;

/// The number of an invalidation, and so a moment between two of them.
pub type Moment = u64;

/// The beginning of a load that has not begun. Nothing was invalidated since.
pub const NOT_BEGUN: Moment = u64::MAX;

/// The cell of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cell(u16);

/// The low half of the number of a cell when a value was made, and the cell; in few bytes, without
/// padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp([u8; 6]);

/// The invalidations of all groups of a cache.
pub struct Groups {
    /// The number of the last invalidation; 0 before the first.
    last: AtomicU64,
    /// The last invalidation of each cell. Made for the first one: 128 KiB.
    cells: SetOnce<Box<[AtomicU64; CELLS]>>,
    /// 1 once a value had a group.
    is_used: AtomicU8,
    /// See [`invalidate_others`](Self::invalidate_others).
    begin_from: AtomicU64,
}

impl Cell {
    /// The cell of a group. A fixed hash: all processes of a fleet agree on it, whatever their
    /// version.
    pub fn of(group: u64) -> Self {
        // The last steps of SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number
        // generators", OOPSLA 2014).
        let mixed = (group ^ group >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        let mixed = mixed ^ mixed >> 31;
        Cell((mixed % CELLS as u64) as u16)
    }

    /// The cell with this number; `None` if there are not so many.
    pub fn numbered(number: usize) -> Option<Self> {
        (number < CELLS).then_some(Cell(number as u16))
    }

    pub fn number(self) -> usize {
        self.0.into()
    }
}

impl Stamp {
    /// The cell is in the upper bits, so that a hit gets its number by one shift.
    const SPARE_BITS: u32 = u16::BITS - CELLS.ilog2();

    fn new(cell: Cell, number: Moment) -> Self {
        let [a, b, c, d] = (number as u32).to_le_bytes();
        let [e, f] = (cell.0 << Self::SPARE_BITS).to_le_bytes();
        Stamp([a, b, c, d, e, f])
    }

    #[inline(always)]
    pub fn from_bytes(bytes: [u8; 6]) -> Self {
        Stamp(bytes)
    }

    #[inline(always)]
    pub fn to_bytes(self) -> [u8; 6] {
        self.0
    }

    pub fn cell(self) -> Cell {
        self.parts().0
    }

    #[inline(always)]
    fn parts(self) -> (Cell, u32) {
        let [a, b, c, d, e, f] = self.0;
        let cell = Cell(u16::from_le_bytes([e, f]) >> Self::SPARE_BITS);
        (cell, u32::from_le_bytes([a, b, c, d]))
    }
}

impl Default for Groups {
    fn default() -> Self {
        Groups {
            last: AtomicU64::new(0),
            cells: SetOnce::new(),
            is_used: AtomicU8::new(0),
            begin_from: AtomicU64::new(0),
        }
    }
}

impl Groups {
    /// The present moment: the beginning of a load, or the arrival of a caller.
    ///
    /// Acquire: a load that notes an invalidation sees what its caller wrote before it.
    #[inline]
    pub fn now(&self) -> Moment {
        self.last.load(Ordering::Acquire)
    }

    /// Invalidates all groups of a cell.
    pub fn invalidate(&self, cell: Cell) {
        let cells = self.cells.get_or_init(new_cells);
        // Before the cell (invariant 2). Release: see `now`. Acquire: keeps the order of the two
        // steps, and a later number comes with what an earlier caller wrote.
        let number = self.last.fetch_add(1, Ordering::AcqRel) + 1;
        // Release: a reader that sees the number sees what this caller wrote before.
        cells[cell.number()].fetch_max(number, Ordering::AcqRel);
    }

    /// The last invalidation of a cell.
    ///
    /// Acquire: a reader that finds a value outdated sees what the invalidating caller wrote.
    #[inline(always)]
    fn last_of(&self, cell: Cell) -> Moment {
        match self.cells.get() {
            // The remainder is a mask, and no number is out of bounds.
            Some(cells) => cells[cell.number() % CELLS].load(Ordering::Acquire),
            None => 0,
        }
    }

    /// Whether something in this cell was invalidated after `moment`.
    pub fn is_invalidated(&self, cell: Cell, moment: Moment) -> bool {
        self.last_of(cell) > moment
    }

    /// The stamp of a value that was just made by a load which began at `began`; outdated from
    /// birth if the cell was invalidated since.
    pub fn stamp(&self, cell: Cell, began: Moment) -> Stamp {
        Stamp::new(cell, self.last_of(cell).min(began))
    }

    /// The stamps of a value of these groups, each cell once.
    pub fn stamps(&self, groups: impl IntoIterator<Item = u64>, began: Moment) -> Vec<Stamp> {
        self.stamps_in(groups.into_iter().map(Cell::of), began)
    }

    /// The stamps of a value in these cells, each cell once.
    pub fn stamps_in(&self, cells: impl Iterator<Item = Cell>, began: Moment) -> Vec<Stamp> {
        let stamp = |cell| {
            if began < self.begin_from() {
                self.invalidate(cell);
            }
            self.stamp(cell, began)
        };
        let mut stamps: Vec<Stamp> = cells.map(stamp).collect();
        // Two stamps of one cell, made at two moments, may differ; then the value is outdated by
        // one of them, so both are kept.
        stamps.sort_unstable();
        stamps.dedup();
        stamps
    }

    /// Whether the cell of a stamp was not invalidated since the beginning of its load.
    #[inline(always)]
    pub fn is_current(&self, stamp: Stamp) -> bool {
        let (cell, number) = stamp.parts();
        self.last_of(cell) as u32 == number
    }

    /// The same for all of these stamps.
    pub fn are_current(&self, stamps: &[Stamp]) -> bool {
        stamps.iter().all(|stamp| self.is_current(*stamp))
    }
}

/// Invalidations of which a fleet may not have told.
impl Groups {
    /// A new moment: loads that begin after this call begin at it or later.
    ///
    /// AcqRel: keeps the order of this caller's steps before and after it.
    pub fn tick(&self) -> Moment {
        self.last.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// Invalidates all groups in cells that `is_other`, also for loads that are under way.
    ///
    /// A cache whose values have no groups has no cells, and gets none. Its first value with a
    /// group may be made at the same time. The two exchanges of `is_used` have one order: either
    /// this caller finds the cache used, or the maker of that value finds the moment here.
    pub fn invalidate_others(&self, is_other: impl Fn(Cell) -> bool) {
        self.begin_from.fetch_max(self.tick(), Ordering::AcqRel);
        if self.is_used.fetch_add(0, Ordering::AcqRel) != 0 {
            let cells = (0..CELLS).filter_map(Cell::numbered);
            cells
                .filter(|cell| is_other(*cell))
                .for_each(|cell| self.invalidate(cell));
        }
    }

    /// The moment from which a load must have begun, for its value not to be outdated from birth.
    fn begin_from(&self) -> Moment {
        // Acquire: a thread that finds this set sees what the one that set it saw.
        if self.is_used.load(Ordering::Acquire) == 0 {
            self.is_used.swap(1, Ordering::AcqRel);
        }
        self.begin_from.load(Ordering::Acquire)
    }
}

impl<K, V> Entries<K, V> {
    /// Whether this is a value that may be served.
    pub fn is_servable(&self, entry: &Entry<K, V>, now: Tick) -> bool {
        entry.is_unexpired(now) && entry.is_current(&self.groups)
    }

    /// Whether a value that has groups is current.
    #[inline(always)]
    pub fn has_current_groups(&self, entry: &Entry<K, V>) -> bool {
        entry.has_current_groups(&self.groups)
    }

    /// Whether a caller that comes now must neither be served by this entry nor wait for its load,
    /// because a group was invalidated since the load began.
    ///
    /// The groups of a value are known. Those of a load are known as far as `groups_of` its key
    /// tells; it is asked only if something was invalidated since the load began.
    pub fn is_outdated(
        &self,
        entry: &Entry<K, V>,
        groups_of: Option<impl FnOnce(&K) -> Vec<u64>>,
    ) -> bool {
        if !entry.is_loading() {
            return !entry.is_current(&self.groups);
        }
        let (Some(groups_of), Some(flight)) = (groups_of, self.last_flight(entry)) else {
            return false;
        };
        let began = flight.began();
        let is_invalidated = |group| self.groups.is_invalidated(Cell::of(group), began);
        self.groups.now() > began && groups_of(&entry.key).into_iter().any(is_invalidated)
    }

    /// Whether a caller that arrived at `arrived` takes this result of a flight for which it
    /// waited.
    ///
    /// Without an invalidation since its load began, always. Else only if the load began for this
    /// caller, or at its arrival or later. Not if an earlier attempt made it, because its load
    /// began before the flight.
    pub fn is_answer(
        &self,
        entry: &Entry<K, V>,
        made: Made,
        flight: &Flight<K, V>,
        is_own: bool,
        arrived: Moment,
    ) -> bool {
        let is_late = made == Made::Earlier;
        entry.is_current(&self.groups) || !is_late && (is_own || flight.began() >= arrived)
    }

    /// Removes exactly this entry, a value or a load under way, as [`remove`](Self::remove) of its
    /// key would; does nothing if it was no longer resident.
    ///
    /// Through a tombstone, because an `insert` may put a successor there at that moment, and the
    /// successor came later than the invalidation that this call carries out.
    pub fn remove_outdated(&self, place: Place, entry: &StrongArc<Entry<K, V>>)
    where
        K: Clone,
    {
        let tombstone = StrongArc::new(Entry::tombstone(entry.key.clone(), self.closed.clone()));
        match entry.is_loading() {
            true => {
                // A load has no permit.
                if self.table.replace(place, entry, &tombstone) {
                    self.table.remove(place, &tombstone);
                }
            }
            false => {
                self.remove_through_tombstone(place, entry, tombstone, Cause::Invalidated);
            }
        }
        self.removals.deliver();
    }
}

/// On the heap from the beginning, because the stack may be small.
fn new_cells() -> Box<[AtomicU64; CELLS]> {
    let cells: Box<[AtomicU64]> = std::iter::repeat_with(|| AtomicU64::new(0))
        .take(CELLS)
        .collect();
    match cells.try_into() {
        Ok(cells) => cells,
        Err(_) => unreachable!("there are as many as were taken"),
    }
}

#[cfg(all(test, not(all(loom, feature = "loom"))))]
mod tests {
    use super::{CELLS, Cell, Groups, NOT_BEGUN, Stamp};

    #[test]
    fn a_stamp_holds_its_cell_and_its_number() {
        for cell in [0, 1, CELLS - 1] {
            for number in [0, 1, u32::MAX.into(), u64::MAX] {
                let stamp = Stamp::new(Cell(cell as u16), number);
                assert_eq!(stamp.parts(), (Cell(cell as u16), number as u32));
                assert_eq!(Stamp::from_bytes(stamp.to_bytes()), stamp);
            }
        }
    }

    #[test]
    fn the_cells_of_groups_are_the_same_for_ever() {
        let cells: Vec<_> = [0, 1, 7, u64::MAX]
            .map(|group| Cell::of(group).number())
            .into();
        assert_eq!(cells, CELLS_OF_THE_FIRST_VERSION);
        let mut hit = vec![false; CELLS];
        (0..200_000).for_each(|group| hit[Cell::of(group).number()] = true);
        assert!(hit.into_iter().all(|hit| hit));
    }

    const CELLS_OF_THE_FIRST_VERSION: [usize; 4] = [0, 1_509, 7_956, 15_739];

    #[test]
    fn a_value_is_current_until_its_cell_is_invalidated_after_the_beginning_of_its_load() {
        let groups = Groups::default();
        let (ours, other) = (Cell::of(7), Cell::of(8));
        let first = groups.stamp(ours, groups.now());
        assert!(groups.is_current(first));
        groups.invalidate(other);
        assert!(groups.is_current(first));
        let began = groups.now();
        groups.invalidate(ours);
        assert!(!groups.is_current(first));
        assert!(
            !groups.is_current(groups.stamp(ours, began)),
            "born outdated"
        );
        assert!(groups.is_current(groups.stamp(ours, groups.now())));
        assert!(groups.is_current(groups.stamp(ours, NOT_BEGUN)));
    }
}
