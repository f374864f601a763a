//! Data that each thread has for itself, such as its counters: found without a lock and written
//! without a locked instruction.
//!
//! Threads have numbers. The number of a thread that ended goes to a later thread, with all the
//! data that belongs to it. So a program that starts threads again and again needs memory only for
//! as many as run at the same time.
//!
//! A thread gives its number back when it is about to end and its thread-locals are gone. From then
//! on it has no data of its own: destructors that run later get `None`. No access here panics,
//! wherever it happens.

use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::sync::OnceLock;
#[cfg(not(all(loom, feature = "loom")))]
use crate::sync::lanes;
use crate::sync::plain::{Mutex, lock};

/// As many rows as numbers have bits; each row is twice as long as the one before.
const ROWS: usize = 32;

/// Where the data of a thread is found in every [`PerThread`].
#[derive(Clone, Copy)]
struct ThreadIndex {
    row: u32,
    column: u32,
}

impl ThreadIndex {
    /// There is no such row.
    const NONE: ThreadIndex = ThreadIndex {
        row: u32::MAX,
        column: 0,
    };

    fn of(number: u32) -> Self {
        let from_one = number + 1;
        let row = from_one.ilog2();
        ThreadIndex {
            row,
            column: from_one - (1 << row),
        }
    }
}

thread_local! {
    // Separate from the guard, because it has no destructor. So it can be read until the thread's
    // very end, and costs a hit no check.
    static PLACE: Cell<ThreadIndex> = const { Cell::new(ThreadIndex::NONE) };
    static NUMBERED: Numbered = const { Numbered(Cell::new(None)) };
}

/// The number of a thread, given back when its thread-locals are destroyed.
struct Numbered(Cell<Option<u32>>);

impl Drop for Numbered {
    fn drop(&mut self) {
        if let Some(number) = self.0.get() {
            let _ = PLACE.try_with(|place| place.set(ThreadIndex::NONE));
            #[cfg(not(all(loom, feature = "loom")))]
            lanes::leave();
            lock(&NUMBERS).free.push(Reverse(number));
        }
    }
}

static NUMBERS: Mutex<Numbers> = Mutex::new(Numbers {
    given: 0,
    free: BinaryHeap::new(),
});

struct Numbers {
    given: u32,
    /// The lowest number first, so that the long rows stay unused.
    free: BinaryHeap<Reverse<u32>>,
}

impl Numbers {
    fn take(&mut self) -> u32 {
        if let Some(Reverse(number)) = self.free.pop() {
            return number;
        }
        self.given += 1;
        self.given - 1
    }
}

/// The number of this thread; `None` if its thread-locals are gone.
#[cfg(not(all(loom, feature = "loom")))]
pub(crate) fn number() -> Option<u32> {
    let place = match PLACE.try_with(Cell::get) {
        Ok(place) if place.row < ROWS as u32 => place,
        _ => take_number()?,
    };
    Some((1 << place.row) + place.column - 1)
}

/// Gives this thread a number; `None` if its thread-locals are gone.
fn take_number() -> Option<ThreadIndex> {
    let numbered = NUMBERED.try_with(|numbered| {
        // The lock makes the writes of the last thread with this number visible to this one.
        let number = lock(&NUMBERS).take();
        numbered.0.set(Some(number));
        ThreadIndex::of(number)
    });
    let place = numbered.ok()?;
    PLACE.try_with(|cell| cell.set(place)).ok()?;
    Some(place)
}

/// One `T` for each thread.
pub(crate) struct PerThread<T>([OnceLock<Box<[T]>>; ROWS]);

impl<T> Default for PerThread<T> {
    fn default() -> Self {
        PerThread(std::array::from_fn(|_| OnceLock::new()))
    }
}

impl<T: Default> PerThread<T> {
    /// The data of this thread, if it exists.
    #[inline]
    pub(crate) fn get(&self) -> Option<&T> {
        let place = PLACE.try_with(Cell::get).unwrap_or(ThreadIndex::NONE);
        let row = self.0.get(place.row as usize)?.get()?;
        row.get(place.column as usize)
    }

    /// The data of this thread, created if needed; `None` if its thread-locals are gone.
    pub(crate) fn get_or_make(&self) -> Option<&T> {
        let place = match PLACE.try_with(Cell::get) {
            Ok(place) if place.row < ROWS as u32 => place,
            _ => take_number()?,
        };
        let make = || (0..1 << place.row).map(|_| T::default()).collect();
        let row = self.0.get(place.row as usize)?.get_or_init(make);
        row.get(place.column as usize)
    }

    /// The data of every thread that has or had any.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().filter_map(OnceLock::get).flatten()
    }
}

#[cfg(all(test, not(all(loom, feature = "loom"))))]
mod tests {
    use super::{PerThread, ThreadIndex};
    use crate::sync::{Counter, Ordering};

    #[test]
    fn no_two_numbers_have_the_same_place() {
        let mut last = (0, 0);
        for number in 1..2_000 {
            let place = ThreadIndex::of(number);
            assert!((place.row, place.column) > last);
            assert!(place.column < 1 << place.row);
            last = (place.row, place.column);
        }
    }

    #[test]
    fn threads_that_come_and_go_share_no_counter_and_lose_no_count() {
        let counts = PerThread::<Counter>::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        std::thread::scope(|scope| {
                            scope.spawn(|| {
                                for _ in 0..100 {
                                    let own = counts.get().or_else(|| counts.get_or_make());
                                    let Some(own) = own else {
                                        panic!("the thread-locals are gone");
                                    };
                                    let count = own.load(Ordering::Relaxed);
                                    own.store(count + 1, Ordering::Relaxed);
                                }
                            });
                        });
                    }
                });
            }
        });
        let all: u64 = counts
            .iter()
            .map(|count| count.load(Ordering::Relaxed))
            .sum();
        assert_eq!(all, 40_000);
    }
}
