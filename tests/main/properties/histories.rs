//! Linearizability of one table: the results seen by real threads fit an order in which their
//! operations happen one by one.
//!
//! Each operation is recorded with two readings of one counter, before its call and after its
//! return. A search after Wing and Gong then looks for an order that agrees with the readings and
//! with a plain map. A map is linearizable if each of its keys is, so every key is searched alone.
//! `invalidate_all` counts as a removal of every key, at one or more moments for each key, because
//! it walks through the table and may meet a key again that was inserted meanwhile.

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

/// A key that makes its thread yield in the middle of an operation, so that operations overlap on
/// any machine.
#[derive(Clone, Debug)]
struct Key(u8);

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        // Does not yield every time, because on a busy machine another process could get a whole
        // time slice.
        let turn = TURN.replace(TURN.get().wrapping_add(1));
        if turn % 3 == 0 {
            thread::yield_now();
        }
        self.0 == other.0
    }
}

impl Eq for Key {}

/// The only value of its type, as the key of a [`Fresh`](everfresh::Fresh). It makes its thread
/// yield too.
#[derive(Clone, Debug)]
struct Only;

impl PartialEq for Only {
    fn eq(&self, _: &Self) -> bool {
        Key(0) == Key(0)
    }
}

impl Eq for Only {}

impl Hash for Only {
    fn hash<H: Hasher>(&self, _: &mut H) {
        // Before each operation. A read of the only value compares no keys.
        _ = Key(0) == Key(0);
    }
}

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

/// The effect of an operation on one key, or the value it saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    Insert(u64),
    /// A removal, and whether there was a value.
    Remove(bool),
    RemoveAll,
    Peek(Option<u64>),
    Contains(bool),
}

#[derive(Clone, Copy, Debug)]
struct Event {
    key: u8,
    effect: Effect,
    called: u64,
    returned: u64,
}

impl Effect {
    /// The value after the operation, if the operation is possible in this state.
    fn after(self, value: Option<u64>) -> Option<Option<u64>> {
        let (agrees, after) = match self {
            Effect::Insert(number) => (true, Some(number)),
            Effect::Remove(had) => (had == value.is_some(), None),
            Effect::RemoveAll => (true, None),
            Effect::Peek(seen) => (seen == value, value),
            Effect::Contains(seen) => (seen == value.is_some(), value),
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
        // The next operation can be any one called before the first return of the others.
        let until = left.iter().map(|at| events[*at].returned).min();
        for at in left {
            let Event { effect, called, .. } = events[at];
            let Some(after) = effect.after(value).filter(|_| Some(called) < until) else {
                continue;
            };
            let again = (effect == Effect::RemoveAll).then_some((done, after));
            for next in again.into_iter().chain([(done | 1 << at, after)]) {
                if met.insert(next) {
                    open.push(next);
                }
            }
        }
    }
    false
}

fn programs(keys: u8) -> impl Strategy<Value = Vec<Vec<Call>>> {
    let key = move || 0..keys;
    let call = prop_oneof![
        6 => key().prop_map(Call::Insert),
        6 => key().prop_map(Call::Invalidate),
        1 => Just(Call::InvalidateAll),
        6 => key().prop_map(Call::Peek),
        3 => key().prop_map(Call::Contains),
    ];
    prop::collection::vec(prop::collection::vec(call, 1..10), 2..=3)
}

/// Runs one program on each thread, and records the results.
fn run<K>(programs: &[Vec<Call>], keys: u8, of: fn(u8) -> K) -> Vec<Event>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
{
    let cache: Cache<K, u64> = Cache::builder()
        .clock(ManualClock::new())
        // Few sets, because `invalidate_all` visits each of them, but enough room that nothing is
        // evicted.
        .capacity(20)
        .fresh_for(secs(1))
        .spawner(|_| panic!("no operation loads"))
        .load(async |_: &K| 0)
        .build()
        .unwrap();
    let (moments, numbers, ready) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    // All readings have one order, and the operations of a thread lie between its readings.
    let moment = || moments.fetch_add(1, Ordering::SeqCst);
    let record = |call: Call| {
        let called = moment();
        let (keys, effect) = match call {
            Call::Insert(key) => {
                let number = numbers.fetch_add(1, Ordering::Relaxed);
                cache.insert(of(key), number);
                (key..key + 1, Effect::Insert(number))
            }
            Call::Invalidate(key) => {
                let had = cache.invalidate(&of(key));
                (key..key + 1, Effect::Remove(had))
            }
            Call::InvalidateAll => {
                cache.invalidate_all();
                (0..keys, Effect::RemoveAll)
            }
            Call::Peek(key) => {
                let seen = cache.get_if_present(&of(key)).map(|read| *read);
                (key..key + 1, Effect::Peek(seen))
            }
            Call::Contains(key) => {
                let seen = cache.contains_key(&of(key));
                (key..key + 1, Effect::Contains(seen))
            }
        };
        let returned = moment();
        keys.map(move |key| Event {
            key,
            effect,
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
fn the_results_of_threads_fit_one_order() {
    fit_one_order(KEYS, Key);
}

#[test]
fn the_results_of_threads_on_one_value_fit_one_order() {
    fit_one_order(1, |_| Only);
}

fn fit_one_order<K>(keys: u8, of: fn(u8) -> K)
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
{
    let overlaps = AtomicU64::new(0);
    for_all(programs(keys), |programs| {
        let events = run(&programs, keys, of);
        for key in 0..keys {
            let of_key = events.iter().filter(|event| event.key == key);
            let of_key: Vec<Event> = of_key.copied().collect();
            assert!(
                is_linearizable(&of_key),
                "no order explains key {key}: {of_key:?}"
            );
            // A reading between the two of an operation belongs to another thread.
            let overlapping = |event: &&Event| event.returned > event.called + 1;
            let count = of_key.iter().filter(overlapping).count();
            overlaps.fetch_add(count as u64, Ordering::Relaxed);
        }
    });
    let overlaps = overlaps.into_inner();
    println!("{overlaps} operations overlapped others");
    // Threads that never overlap prove nothing.
    assert!(overlaps >= u64::from(cases()) / 10, "{overlaps}");
}

/// Makes a history of one key from operations with the readings before and after.
fn history(events: &[(Effect, u64, u64)]) -> Vec<Event> {
    let event = |&(effect, called, returned)| Event {
        key: 0,
        effect,
        called,
        returned,
    };
    events.iter().map(event).collect()
}

#[test]
fn the_search_accepts_histories_that_some_order_explains() {
    use Effect::*;
    for events in [
        &[][..],
        &[(Insert(1), 0, 1), (Peek(Some(1)), 2, 3)],
        // The read overlaps the insert, so either result is correct.
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
        // The walk removed the key, and removed it again after another thread had inserted it.
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
fn the_search_rejects_histories_that_no_order_explains() {
    use Effect::*;
    for events in [
        // A value from nowhere, a lost value, and one that comes back.
        &[(Peek(Some(1)), 0, 1), (Insert(1), 2, 3)][..],
        &[(Insert(1), 0, 1), (Peek(None), 2, 3)],
        &[(Insert(1), 0, 1), (Insert(2), 2, 3), (Peek(Some(1)), 4, 5)],
        &[
            (Insert(1), 0, 1),
            (Remove(true), 2, 3),
            (Contains(true), 4, 5),
        ],
        // A removal of all keys that has an effect after its return.
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
        // Two readers, one after the other, that see the new value and then the old one.
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
