//! The cell of the slot table: it holds a `StrongArc` or nothing, and is read without counting.
//!
//! The only `unsafe` code of the crate. The idea is that of `arc_swap`: a reader notes what it
//! borrows, and a writer that takes a value out of a slot pays the borrowers, each with one count.
//! `arc_swap` keeps eight notes for each thread, so its writers visit every thread that ever ran.
//! Here the notes lie in *lanes*, a few for each core, so a write costs the same however many
//! threads there are.
//!
//! A lane is a cache line of [`CELLS`] cells. A cell is empty, or it names what one guard borrows:
//!
//! ```text
//!   empty -> pointer   by the reader, before it borrows         (note)
//!   pointer -> empty   by the guard, when it is dropped         (release)
//!                      by a writer that counted for the guard   (pay)
//! ```
//!
//! The first threads have a lane each, where only that thread notes: by an exchange, because the
//! cell that it saw empty stays empty. Later threads share the other lanes, and note by
//! compare-and-swap. In every lane the last cell is the *spare*, which any thread may take. It is
//! for a reader whose lane is full: the reader notes there, counts, and releases the cell at once.
//!
//! # Why a borrowed value lives
//!
//! A reader loads the pointer, notes it, and loads the slot again. A writer exchanges the pointer,
//! and then looks at the lanes. These four accesses are `SeqCst`. If the second load still finds
//! the pointer, it comes before the exchange of the writer that takes the value out, so that writer
//! sees the note and counts for it while it still owns the value. If the second load finds another
//! pointer, the reader takes its note back and begins again.
//!
//! # Races that this must survive
//!
//! 1. A guard is dropped while a writer pays it. One exchange of the cell decides. The writer
//!    counts before that exchange, so the value lives if the guard was paid, and takes the count
//!    back if the guard was faster.
//! 2. A reader noted a pointer whose value has left the slot and was freed, and whose address
//!    belongs to a new value now. A writer of the new value may pay the note. The reader finds that
//!    it was paid and gives the count back. The new value has the same type, because a slot is used
//!    with one `Lanes` only, and these belong to the slots of one table (vorner/arc-swap#210 is the
//!    defect of notes that all types share).
//! 3. Two guards name the same value, and one of them drops the note of the other. Both are paid or
//!    borrowed, and both end by the same exchange, so the counts come out even.
//! 4. A guard outlives its table. The table empties its slots first, so the guard was paid. The
//!    lanes are never freed. The next table reuses them, whatever its type: no cell in them names a
//!    value that a guard does not keep alive.
//!
//! A slot that is dropped with a value leaks it, because a guard may borrow it.

use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::ptr;

use super::side::lanes::{self, CELLS, Home};
use super::side::{AtomicPtr, Watch, Watched, fence, last, yield_now};
use super::{Ordering, StrongArc};

/// The notes of the guards of one table.
///
/// Every call on a slot gets the `Lanes` with which the slot was first used.
pub struct Lanes<T> {
    lanes: &'static [Lane],
    of: PhantomData<fn() -> T>,
}

#[repr(align(64))]
pub(super) struct Lane([AtomicPtr; CELLS]);

/// The cell that any thread may take.
const SPARE: usize = CELLS - 1;

impl Lane {
    pub(super) fn new() -> Self {
        Lane(std::array::from_fn(|_| AtomicPtr::new(ptr::null_mut())))
    }
}

impl<T> Default for Lanes<T> {
    fn default() -> Self {
        Lanes {
            lanes: lanes::take(),
            of: PhantomData,
        }
    }
}

impl<T> Lanes<T> {
    /// Counts for every guard that borrows `old`, which has left its slot.
    fn pay(&self, old: &StrongArc<T>) {
        let noted: *mut () = StrongArc::as_ptr(old).cast_mut().cast();
        // After the exchange of the slot, in the one order of all `SeqCst` accesses, like the loads
        // of the cells: a lane that came into use later has no note of `old`.
        for lane in &self.lanes[..lanes::used()] {
            for cell in &lane.0 {
                if cell.load(Ordering::SeqCst) == noted {
                    pay_one(cell, old);
                }
            }
        }
    }
}

impl<T> Drop for Lanes<T> {
    fn drop(&mut self) {
        lanes::give_back(self.lanes);
    }
}

/// Counts for the guard whose cell names `old`, unless the guard is dropped first.
#[cold]
#[inline(never)]
fn pay_one<T>(cell: &AtomicPtr, old: &StrongArc<T>) {
    let pointer = StrongArc::into_raw(old.clone());
    let noted: *mut () = pointer.cast_mut().cast();
    // Release: the guard that finds itself paid sees the count. Acquire: as the load before it.
    let paid = cell.compare_exchange(noted, ptr::null_mut(), Ordering::AcqRel, Ordering::Relaxed);
    if paid.is_err() {
        // SAFETY: it was made by `StrongArc::into_raw` above, and no guard took its count.
        drop(unsafe { StrongArc::from_raw(pointer) });
    }
}

/// Gives a cell back that names `noted`; false if the note was paid.
#[inline]
fn release(cell: &AtomicPtr, noted: *mut ()) -> bool {
    // Release: a writer that finds the cell empty may free the value, after everything that the
    // guard's holder did with it. Acquire, if it fails: the count of the payment.
    cell.compare_exchange(noted, ptr::null_mut(), Ordering::Release, Ordering::Acquire)
        .is_ok()
}

/// A cell that holds a `StrongArc` or nothing.
pub struct Slot<T> {
    pointer: AtomicPtr,
    /// Nothing but in the models.
    watched: Watched<T>,
    of: PhantomData<StrongArc<T>>,
}

/// The content of a [`Slot`] when it was loaded, kept alive without counting.
///
/// It may move between threads. A thread that keeps more than seven at once pays a reference count
/// for each further one.
pub struct Held<T> {
    /// Counted, if there is no cell or if the cell was paid; else borrowed.
    arc: ManuallyDrop<StrongArc<T>>,
    cell: Option<&'static AtomicPtr>,
    watch: Watch<T>,
}

fn into_pointer<T>(value: Option<StrongArc<T>>) -> *mut () {
    value.map_or(ptr::null_mut(), |arc| {
        StrongArc::into_raw(arc).cast_mut().cast()
    })
}

impl<T> Slot<T> {
    pub fn empty() -> Self {
        Self::new(None)
    }

    fn new(value: Option<StrongArc<T>>) -> Self {
        Slot {
            watched: Watched::new(value.as_ref()),
            pointer: AtomicPtr::new(into_pointer(value)),
            of: PhantomData,
        }
    }

    /// Acquire: everything written before the pointer was stored is visible.
    #[inline]
    pub fn load(&self, lanes: &Lanes<T>) -> Option<Held<T>> {
        if let Some(loaded) = self.watched.load(&self.pointer) {
            return loaded.map(Held::owned);
        }
        let noted = self.pointer.load(Ordering::Acquire);
        match noted.is_null() {
            true => None,
            false => self.borrow(noted, lanes),
        }
    }

    /// Borrows what the slot holds; `found` is what it held a moment ago.
    ///
    /// Inlined up to its first try, which is all that most hits need.
    #[inline(always)]
    fn borrow(&self, found: *mut (), lanes: &Lanes<T>) -> Option<Held<T>> {
        match self.try_borrow(found, lanes) {
            Ok(held) => Some(held),
            Err(again) => self.borrow_again(found, again, lanes),
        }
    }

    /// Borrows exactly `found`; the error is what the slot holds instead, or none if the lane is
    /// full.
    #[inline(always)]
    fn try_borrow(&self, found: *mut (), lanes: &Lanes<T>) -> Result<Held<T>, Option<*mut ()>> {
        let home = lanes::home();
        let Some(cell) = free_cell(lanes.lanes, home, found) else {
            return Err(None);
        };
        // In the one order of all `SeqCst` accesses after the note.
        let again = self.pointer.load(Ordering::SeqCst);
        if again == found {
            lanes::next(home);
            // SAFETY: the pointer comes from `StrongArc::into_raw` and is in the slot, so a
            // writer that takes it out counts for this cell first.
            return Ok(unsafe { self.borrowed(found, cell) });
        }
        take_back::<T>(cell, found);
        Err(Some(again))
    }

    /// [`borrow`](Self::borrow) after a try that found the slot changed, or the lane full.
    #[cold]
    #[inline(never)]
    fn borrow_again(
        &self,
        mut found: *mut (),
        mut again: Option<*mut ()>,
        lanes: &Lanes<T>,
    ) -> Option<Held<T>> {
        while let Some(next) = again {
            if next.is_null() {
                return None;
            }
            found = next;
            match self.try_borrow(found, lanes) {
                Ok(held) => return Some(held),
                Err(next) => again = next,
            }
        }
        self.count(found, lanes)
    }

    /// [`borrow`](Self::borrow) in a full lane: counts, so that no cell stays taken.
    #[cold]
    #[inline(never)]
    fn count(&self, mut found: *mut (), lanes: &Lanes<T>) -> Option<Held<T>> {
        let home = lanes::home().lane;
        loop {
            // The spare of this lane first, then those of all others.
            let (before, after) = lanes.lanes.split_at(home);
            let spares = after.iter().chain(before).map(|lane| &lane.0[SPARE]);
            let Some(cell) = spares.into_iter().find(|cell| note(cell, found)) else {
                // As many threads as there are lanes were stopped with a spare in their hands.
                yield_now();
                continue;
            };
            let again = self.pointer.load(Ordering::SeqCst);
            if again == found {
                // SAFETY: as in `borrow`.
                let held = unsafe { self.borrowed(found, cell) };
                return Some(Held::owned(held.into_arc()));
            }
            take_back::<T>(cell, found);
            match again.is_null() {
                true => return None,
                false => found = again,
            }
        }
    }

    /// Stores `new` if the slot holds exactly `current` (by address); returns whether it did.
    ///
    /// Success acquires and releases. The caller owns a reference to `current`, so its address
    /// cannot be reused meanwhile: there is no ABA problem. The caller owns one to `new` too, so
    /// that no value is dropped here.
    pub fn compare_exchange(
        &self,
        current: Option<&StrongArc<T>>,
        new: Option<StrongArc<T>>,
        lanes: &Lanes<T>,
    ) -> bool {
        let kept = self.watched.keep(new.as_ref());
        let expected = current.map_or(ptr::null(), StrongArc::as_ptr);
        let expected: *mut () = expected.cast_mut().cast();
        let emptied = new.is_none();
        let new = into_pointer(new);
        // SeqCst, before the lanes are looked at. Acquire on failure is not needed.
        let exchanged =
            self.pointer
                .compare_exchange(expected, new, Ordering::SeqCst, Ordering::Relaxed);
        if exchanged.is_ok() {
            self.watched.put(kept);
        }
        let leaves = exchanged.unwrap_or(new);
        if leaves.is_null() {
            return exchanged.is_ok();
        }
        // SAFETY: it was made by `StrongArc::into_raw`, and its count belongs to this call: the
        // slot gave `current` up, or did not take `new`.
        let left = unsafe { StrongArc::from_raw(leaves.cast::<T>().cast_const()) };
        if exchanged.is_ok() {
            lanes.pay(&left);
            self.watched.left(&left, emptied);
        }
        exchanged.is_ok()
    }

    /// Replaces the content of the slot; acquires and releases.
    pub fn swap(&self, new: Option<StrongArc<T>>, lanes: &Lanes<T>) -> Option<StrongArc<T>> {
        let kept = self.watched.keep(new.as_ref());
        // SeqCst, before the lanes are looked at.
        let old = self.pointer.swap(into_pointer(new), Ordering::SeqCst);
        self.watched.put(kept);
        if old.is_null() {
            return None;
        }
        // SAFETY: it was made by `StrongArc::into_raw`, and the slot gave its count up.
        let old = unsafe { StrongArc::from_raw(old.cast::<T>().cast_const()) };
        lanes.pay(&old);
        self.watched.left(&old, false);
        Some(old)
    }

    /// # Safety
    ///
    /// `pointer` comes from `StrongArc::into_raw`, and the value lives until the guard is dropped:
    /// by the note in the cell, or by a count that passes to the guard.
    #[inline]
    unsafe fn borrowed(&self, pointer: *mut (), cell: &'static AtomicPtr) -> Held<T> {
        let watch = self.watched.watch(pointer);
        // SAFETY: the caller's promise. `ManuallyDrop`, because the count is not this guard's.
        let arc = unsafe { StrongArc::from_raw(pointer.cast::<T>().cast_const()) };
        Held {
            arc: ManuallyDrop::new(arc),
            cell: Some(cell),
            watch,
        }
    }

    /// Loads the slot into `seen`, unless it still holds the same value.
    ///
    /// Then this is one load, a comparison and a fence, which is free on x86, without a guard.
    #[inline]
    pub fn renew(&self, seen: &mut Option<StrongArc<T>>, lanes: &Lanes<T>) {
        // Relaxed: the same pointer is the same value, because `seen` keeps it alive.
        let now: *const () = self.pointer.load(Ordering::Relaxed);
        let before: *const T = seen.as_ref().map_or(ptr::null(), StrongArc::as_ptr);
        if !ptr::eq(now, before.cast()) {
            *seen = self.load(lanes).map(Held::into_arc);
        }
        // The caller's next read, the second read of `control`, must not come before the load.
        fence(Ordering::Acquire);
    }
}

/// Notes a pointer in a free cell of a thread's lane; `None` if the lane is full.
#[inline]
fn free_cell(lanes: &'static [Lane], home: Home, pointer: *mut ()) -> Option<&'static AtomicPtr> {
    let lane = &lanes[home.lane];
    let first = &lane.0[home.cell % CELLS];
    if first.load(Ordering::Relaxed).is_null() {
        if home.owned {
            // Only this thread notes here, so the cell is still empty.
            first.swap(pointer, Ordering::SeqCst);
            return Some(first);
        }
        if note(first, pointer) {
            return Some(first);
        }
    }
    another_cell(lane, home, pointer)
}

#[cold]
#[inline(never)]
fn another_cell(lane: &'static Lane, home: Home, pointer: *mut ()) -> Option<&'static AtomicPtr> {
    // By compare-and-swap in an owned lane too, because this is rare.
    let cells = lane.0[..SPARE].iter();
    let free = cells.skip(home.cell).chain(&lane.0[..home.cell % CELLS]);
    free.into_iter().find(|cell| note(cell, pointer))
}

/// Notes a pointer if the cell is empty.
#[inline]
fn note(cell: &AtomicPtr, pointer: *mut ()) -> bool {
    cell.load(Ordering::Relaxed).is_null()
        && cell
            .compare_exchange(
                ptr::null_mut(),
                pointer,
                Ordering::SeqCst,
                Ordering::Relaxed,
            )
            .is_ok()
}

/// Takes a note back whose pointer is no longer in the slot.
#[cold]
#[inline(never)]
fn take_back<T>(cell: &AtomicPtr, noted: *mut ()) {
    if !release(cell, noted) {
        // SAFETY: a writer of this table paid for the note, and so passed one count of a value of
        // type `T` at this address to this thread.
        drop(unsafe { StrongArc::from_raw(noted.cast::<T>().cast_const()) });
    }
}

impl<T> Held<T> {
    /// Wraps an owned `StrongArc`, for values that do not come from a slot.
    pub fn owned(value: StrongArc<T>) -> Self {
        Held {
            watch: Watch::of(&value),
            arc: ManuallyDrop::new(value),
            cell: None,
        }
    }

    /// Converts this into a counted reference.
    pub fn into_arc(self) -> StrongArc<T> {
        self.watch.step();
        self.arc().clone()
    }

    /// A counted reference to the same value.
    #[inline]
    pub fn arc(&self) -> &StrongArc<T> {
        self.watch.assert_alive();
        &self.arc
    }
}

impl<T> Drop for Held<T> {
    #[inline]
    fn drop(&mut self) {
        self.watch.step();
        let noted: *mut () = StrongArc::as_ptr(&self.arc).cast_mut().cast();
        let borrowed = self.cell.is_some_and(|cell| release(cell, noted));
        if !borrowed {
            // SAFETY: not used again. The guard owns the count: it was made from an owned
            // `StrongArc`, or its note was paid. By value: as a reference it would keep every guard
            // in memory.
            drop_counted(unsafe { ManuallyDrop::take(&mut self.arc) });
        }
    }
}

#[cold]
#[inline(never)]
fn drop_counted<T>(arc: StrongArc<T>) {
    drop(arc);
}

impl<T> Deref for Held<T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        self.arc()
    }
}

/// A [`Slot`] that is only read by counting, and so may be dropped while it holds a value.
pub struct CountedSlot<T>(Slot<T>);

impl<T> CountedSlot<T> {
    pub fn new(value: Option<StrongArc<T>>) -> Self {
        CountedSlot(Slot::new(value))
    }

    /// Acquire, as [`Slot::load`].
    pub fn load(&self, lanes: &Lanes<T>) -> Option<StrongArc<T>> {
        self.0.load(lanes).map(Held::into_arc)
    }

    pub fn compare_exchange(
        &self,
        current: Option<&StrongArc<T>>,
        new: Option<StrongArc<T>>,
        lanes: &Lanes<T>,
    ) -> bool {
        self.0.compare_exchange(current, new, lanes)
    }

    pub fn swap(&self, new: Option<StrongArc<T>>, lanes: &Lanes<T>) -> Option<StrongArc<T>> {
        self.0.swap(new, lanes)
    }
}

impl<T> Drop for CountedSlot<T> {
    fn drop(&mut self) {
        let last = last(&mut self.0.pointer);
        if !last.is_null() {
            // SAFETY: it was made by `StrongArc::into_raw`. No guard borrows it, because `load` has
            // counted before it returns.
            drop(unsafe { StrongArc::from_raw(last.cast::<T>().cast_const()) });
        }
    }
}
