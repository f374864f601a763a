//! Linearizability: what real threads saw of one table fits an order in which their operations happened one by one.
//!
//! Each operation is recorded with two readings of one counter, before it is called and after it returned. A search in
//! the manner of Wing and Gong then looks for an order that agrees with the readings and with a plain map. A map is
//! linearizable if each of its keys is, so every key is searched alone. `invalidate_all` counts as a
//! removal of every key, at one moment or more for each of them: it walks through the table, and may
//! meet a key again that is inserted meanwhile.

use std::cell::Cell;
use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use everfresh::{Cache, ManualClock};
use proptest::prelude::*;

use super::{cases, for_all};
use crate::support::secs;

const KEYS: u8 = 2;

thread_local! {
    static TURN: Cell<u8> = const { Cell::new(0) };
}

/// A key that makes its thread step aside in the middle of an operation, so that operations overlap on any machine.
#[derive(Clone, Debug)]
struct Key(u8);

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        // Not every time: on a busy machine another process may get a whole time slice.
        let turn = TURN.replace(TURN.get().wrapping_add(1));
        if turn % 3 == 0 {
            thread::yield_now();
        }
        self.0 == other.0
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

#[derive(Clone, Copy, Debug)]
enum Call {
    Insert(u8),
    Invalidate(u8),
    InvalidateAll,
    Peek(u8),
    Contains(u8),
}

/// What an operation did to one key, or saw of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    Insert(u64),
    /// Whether there was a value.
    Remove(bool),
    RemoveAll,
    Peek(Option<u64>),
    Contains(bool),
}

#[derive(Clone, Copy, Debug)]
struct Event {
    key: u8,
    deed: Deed,
    called: u64,
    returned: u64,
}

impl Deed {
    /// The value after it, if it may happen while this one is there.
    fn after(self, value: Option<u64>) -> Option<Option<u64>> {
        let (agrees, after) = match self {
            Deed::Insert(number) => (true, Some(number)),
            Deed::Remove(had) => (had == value.is_some(), None),
            Deed::RemoveAll => (true, None),
            Deed::Peek(seen) => (seen == value, value),
            Deed::Contains(seen) => (seen == value.is_some(), value),
        };
        agrees.then_some(after)
    }
}

/// Whether the events of one key fit some order.
fn is_linearizable(events: &[Event]) -> bool {
    assert!(events.len() <= 64, "one bit for each event");
    let all = u64::MAX >> (64 - events.len().max(1));
    let (mut open, mut met) = (vec![(0, None)], HashSet::new());
    while let Some((done, value)) = open.pop() {
        if done == all || events.is_empty() {
            return true;
        }
        let left = |at: &usize| done >> at & 1 == 0;
        let left: Vec<usize> = (0..events.len()).filter(left).collect();
        // Next may be whatever was called before any of the others had returned.
        let until = left.iter().map(|at| events[*at].returned).min();
        for at in left {
            let Event { deed, called, .. } = events[at];
            let Some(after) = deed.after(value).filter(|_| Some(called) < until) else {
                continue;
            };
            let again = (deed == Deed::RemoveAll).then_some((done, after));
            for next in again.into_iter().chain([(done | 1 << at, after)]) {
                if met.insert(next) {
                    open.push(next);
                }
            }
        }
    }
    false
}

fn programs() -> impl Strategy<Value = Vec<Vec<Call>>> {
    let key = || 0..KEYS;
    let call = prop_oneof![
        6 => key().prop_map(Call::Insert),
        6 => key().prop_map(Call::Invalidate),
        1 => Just(Call::InvalidateAll),
        6 => key().prop_map(Call::Peek),
        3 => key().prop_map(Call::Contains),
    ];
    prop::collection::vec(prop::collection::vec(call, 1..10), 2..=3)
}

/// Runs one program for each thread, and records what each of them saw.
fn run(programs: &[Vec<Call>]) -> Vec<Event> {
    let cache: Cache<Key, u64> = Cache::builder()
        .clock(ManualClock::new())
        // Few sets, for `invalidate_all` looks at each, but room enough that nothing is evicted.
        .capacity(20)
        .fresh_for(secs(1))
        .spawner(|_| panic!("nothing here loads"))
        .load(async |_: &Key| 0)
        .build()
        .unwrap();
    let (moments, numbers, ready) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    // One order of all readings, with everything that a thread did between two of its own in between.
    let moment = || moments.fetch_add(1, Ordering::SeqCst);
    let record = |call: Call| {
        let called = moment();
        let (keys, deed) = match call {
            Call::Insert(key) => {
                let number = numbers.fetch_add(1, Ordering::Relaxed);
                cache.insert(Key(key), number);
                (key..key + 1, Deed::Insert(number))
            }
            Call::Invalidate(key) => {
                let had = cache.invalidate(&Key(key));
                (key..key + 1, Deed::Remove(had))
            }
            Call::InvalidateAll => {
                cache.invalidate_all();
                (0..KEYS, Deed::RemoveAll)
            }
            Call::Peek(key) => {
                let seen = cache.get_if_present(&Key(key)).map(|read| *read);
                (key..key + 1, Deed::Peek(seen))
            }
            Call::Contains(key) => {
                let seen = cache.contains_key(&Key(key));
                (key..key + 1, Deed::Contains(seen))
            }
        };
        let returned = moment();
        keys.map(move |key| Event {
            key,
            deed,
            called,
            returned,
        })
    };
    thread::scope(|scope| {
        let threads: Vec<_> = programs
            .iter()
            .map(|program| {
                let (record, ready) = (&record, &ready);
                scope.spawn(move || {
                    ready.fetch_add(1, Ordering::SeqCst);
                    while ready.load(Ordering::SeqCst) < programs.len() as u64 {
                        thread::yield_now();
                    }
                    program.iter().flat_map(|call| record(*call)).collect()
                })
            })
            .collect();
        let join = |thread: thread::ScopedJoinHandle<'_, Vec<Event>>| thread.join().unwrap();
        threads.into_iter().flat_map(join).collect()
    })
}

#[test]
fn what_threads_see_fits_one_order() {
    let overlaps = AtomicU64::new(0);
    for_all(programs(), |programs| {
        let events = run(&programs);
        for key in 0..KEYS {
            let of_key = events.iter().filter(|event| event.key == key);
            let of_key: Vec<Event> = of_key.copied().collect();
            assert!(
                is_linearizable(&of_key),
                "no order explains key {key}: {of_key:?}"
            );
            // A reading between its own two belongs to another thread.
            let overlapping = |event: &&Event| event.returned > event.called + 1;
            let count = of_key.iter().filter(overlapping).count();
            overlaps.fetch_add(count as u64, Ordering::Relaxed);
        }
    });
    let overlaps = overlaps.into_inner();
    println!("{overlaps} operations overlapped others");
    // Threads that take turns prove nothing.
    assert!(overlaps >= u64::from(cases()) / 10, "{overlaps}");
}

/// A history of one key: what happened, and between which moments.
fn history(events: &[(Deed, u64, u64)]) -> Vec<Event> {
    let event = |&(deed, called, returned)| Event {
        key: 0,
        deed,
        called,
        returned,
    };
    events.iter().map(event).collect()
}

#[test]
fn the_search_accepts_what_some_order_explains() {
    use Deed::*;
    for events in [
        &[][..],
        &[(Insert(1), 0, 1), (Peek(Some(1)), 2, 3)],
        // The read overlaps the insert: either answer is right.
        &[(Insert(1), 0, 3), (Peek(None), 1, 2)],
        &[(Insert(1), 0, 3), (Peek(Some(1)), 1, 2)],
        // The insert that was called first happened last.
        &[(Insert(1), 0, 5), (Insert(2), 1, 2), (Peek(Some(2)), 3, 4)],
        &[
            (Insert(1), 0, 1),
            (Remove(true), 2, 5),
            (Remove(false), 3, 4),
        ],
        &[
            (Insert(1), 0, 1),
            (RemoveAll, 2, 3),
            (Contains(false), 4, 5),
        ],
        // It met the key, and once more when another thread had inserted it again.
        &[
            (Insert(1), 0, 1),
            (RemoveAll, 2, 9),
            (Remove(false), 3, 4),
            (Insert(2), 5, 6),
            (Contains(true), 7, 8),
            (Contains(false), 10, 11),
        ],
    ] {
        assert!(is_linearizable(&history(events)), "{events:?}");
    }
}

#[test]
fn the_search_refuses_what_no_order_explains() {
    use Deed::*;
    for events in [
        // Out of thin air, lost, and back again.
        &[(Peek(Some(1)), 0, 1), (Insert(1), 2, 3)][..],
        &[(Insert(1), 0, 1), (Peek(None), 2, 3)],
        &[(Insert(1), 0, 1), (Insert(2), 2, 3), (Peek(Some(1)), 4, 5)],
        &[
            (Insert(1), 0, 1),
            (Remove(true), 2, 3),
            (Contains(true), 4, 5),
        ],
        // A removal of all that goes on after its return.
        &[
            (Insert(1), 0, 1),
            (RemoveAll, 2, 3),
            (Insert(2), 4, 5),
            (Contains(false), 6, 7),
        ],
        // Two removals of one value.
        &[
            (Insert(1), 0, 1),
            (Remove(true), 2, 5),
            (Remove(true), 3, 4),
        ],
        // Two readers, one after the other, that saw the new value and then the old one.
        &[
            (Insert(1), 0, 1),
            (Insert(2), 2, 7),
            (Peek(Some(2)), 3, 4),
            (Peek(Some(1)), 5, 6),
        ],
    ] {
        assert!(!is_linearizable(&history(events)), "{events:?}");
    }
}
