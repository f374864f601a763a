//! The lanes of a table, and which of them each thread uses; see [`slot`](super::slot).

use std::cell::Cell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::per_thread;
use super::plain::{Mutex, lock};
use super::slot::Lane;

/// The cells of a lane: as many as fill a cache line.
pub(crate) const CELLS: usize = 8;

/// Where a thread notes what it borrows, in every table.
#[derive(Clone, Copy)]
pub(crate) struct Home {
    pub(crate) lane: usize,
    /// No other thread notes in this lane, except in its spare.
    pub(crate) owned: bool,
    /// The cell to try first.
    ///
    /// Another one for each guard, so that a load does not wait for the exchange that has just
    /// freed the last one (an observation of the crate hazarc).
    pub(crate) cell: usize,
}

/// A [`Home`] in one word: the lane, whether it is owned, the cell. A thread without one has
/// `NONE`.
type Word = u64;
const NONE: Word = Word::MAX;
const OWNED: Word = 1 << 8;
const LANE: u32 = 16;

thread_local! {
    // Without a destructor, so that it can be read until the thread's very end, and costs a hit no
    // check.
    static HOME: Cell<Word> = const { Cell::new(NONE) };
}

#[cfg(test)]
thread_local! {
    /// How often this thread has looked at the lanes of a table.
    pub(crate) static VISITS: Cell<usize> = const { Cell::new(0) };
}

/// The lanes that any thread has used so far.
static USED: AtomicUsize = AtomicUsize::new(0);

/// Lanes whose table is gone. They are never freed, because a guard may outlive its table.
static FREE: Mutex<Vec<&'static [Lane]>> = Mutex::new(Vec::new());

/// The number of lanes of a table: two for each core, of which a quarter is shared.
fn count() -> usize {
    static COUNT: OnceLock<usize> = OnceLock::new();
    *COUNT.get_or_init(|| {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        (2 * cores).next_power_of_two().max(8)
    })
}

/// The lanes for a new table.
pub(in crate::sync) fn take() -> &'static [Lane] {
    let free = lock(&FREE).pop();
    free.unwrap_or_else(|| Box::leak((0..count()).map(|_| Lane::new()).collect()))
}

pub(in crate::sync) fn give_back(lanes: &'static [Lane]) {
    lock(&FREE).push(lanes);
}

/// How many lanes a writer looks at.
pub(crate) fn used() -> usize {
    #[cfg(test)]
    VISITS.set(VISITS.get() + 1);
    USED.load(Ordering::SeqCst)
}

#[inline]
pub(crate) fn home() -> Home {
    let word = match HOME.get() {
        NONE => settle(),
        word => word,
    };
    Home {
        lane: (word >> LANE) as usize,
        owned: word & OWNED != 0,
        cell: (word & 0xff) as usize,
    }
}

/// The next guard of this thread takes the next cell.
#[inline]
pub(crate) fn next(home: Home) {
    let cell = match home.cell + 1 {
        // The last cell is the spare.
        cell if cell == CELLS - 1 => 0,
        cell => cell,
    };
    HOME.set(word(home.lane, home.owned) | cell as Word);
}

fn word(lane: usize, owned: bool) -> Word {
    ((lane as Word) << LANE) | (Word::from(owned) * OWNED)
}

/// Finds a home for a thread: a lane of its own as long as there are any, else a shared one.
#[cold]
#[inline(never)]
fn settle() -> Word {
    static SHARED: AtomicUsize = AtomicUsize::new(0);
    let (lanes, shared) = (count(), count() / 4);
    let owned = lanes - shared;
    let number = per_thread::number().map_or(usize::MAX, |number| number as usize);
    let lane = match number < owned {
        true => number,
        false => owned + SHARED.fetch_add(1, Ordering::Relaxed) % shared,
    };
    // Before the first note in this lane, in the order of all `SeqCst` accesses.
    USED.fetch_max(lane + 1, Ordering::SeqCst);
    let word = word(lane, lane < owned);
    HOME.set(word);
    word
}

/// The number of this thread goes to a later one, and its lane with it.
pub(crate) fn leave() {
    // The destructors of other thread-locals may still read.
    if HOME.get() & OWNED != 0 && HOME.get() != NONE {
        HOME.set(NONE);
    }
}

#[cfg(test)]
mod tests {
    use crate::sync::slot::{Held, Lanes, Slot};
    use crate::sync::{AtomicUsize, Ordering, StrongArc};

    /// Counts those that live.
    struct Value<'a>(&'a AtomicUsize);

    impl Drop for Value<'_> {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// More threads than lanes keep more guards than a lane holds. Run under Miri too.
    #[test]
    fn guards_and_values_of_many_threads_end_together() {
        let (threads, steps) = if cfg!(miri) { (9, 40) } else { (12, 20_000) };
        let alive = AtomicUsize::new(0);
        let value = || {
            alive.fetch_add(1, Ordering::Relaxed);
            Some(StrongArc::new(Value(&alive)))
        };
        let (lanes, slots) = (Lanes::default(), [(); 3].map(|()| Slot::empty()));
        let act = |thread: usize| {
            let mut guards: Vec<Held<Value<'_>>> = Vec::new();
            for step in 0..steps {
                let slot = &slots[(thread + step) % slots.len()];
                match (thread * 7 + step) % 4 {
                    0 => drop(slot.swap(value().filter(|_| step % 8 != 0), &lanes)),
                    _ => guards.extend(slot.load(&lanes)),
                }
                assert!(guards.iter().all(|held| held.0.load(Ordering::Relaxed) > 0));
                guards.truncate(step % 19);
            }
            guards.pop()
        };
        std::thread::scope(|scope| {
            let act = &act;
            let all = (0..threads).map(|thread| scope.spawn(move || act(thread)));
            // Each thread hands a guard over, which ends here.
            Vec::from_iter(all)
                .into_iter()
                .for_each(|thread| drop(thread.join()));
        });
        slots.iter().for_each(|slot| drop(slot.swap(None, &lanes)));
        assert_eq!(alive.load(Ordering::Relaxed), 0);
    }
}
