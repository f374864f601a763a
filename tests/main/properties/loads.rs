//! Linearizability of loads: the results seen by real threads, some of which load, fit an order of
//! single steps.
//!
//! A load consists of two steps. It begins while the key is missing, between the call of the read
//! that started it and the call of the loader. It is published between the return of the loader and
//! the end of that read, unless the key was overwritten meanwhile (P4). The search is that of Wing
//! and Gong, for each key alone.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;

use everfresh::{Cache, ManualClock, Source};
use futures_lite::future;
use proptest::collection::vec;
use proptest::prelude::*;

use super::for_all;

#[derive(Clone, Copy, Debug)]
enum Op {
    Insert(u64),
    Invalidate(u64),
    Peek(u64),
    Get(u64),
}

/// An operation and its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Done {
    Insert(u64),
    /// An insert first removes a running load, so for a moment the key has neither.
    Clear,
    Invalidate {
        had: bool,
    },
    Read(Option<u64>),
    Waited {
        number: u64,
    },
    Begin {
        number: u64,
    },
    Publish {
        number: u64,
    },
}

#[derive(Clone, Copy, Debug)]
struct Event {
    key: u64,
    from: u64,
    to: u64,
    done: Done,
}

/// The state of one key of the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum State {
    Missing,
    Loading(u64),
    Here(u64),
}

impl State {
    /// The state after `done`, if the operation is possible in this state.
    fn after(self, done: Done) -> Option<State> {
        let here = match self {
            State::Here(number) => Some(number),
            _ => None,
        };
        match done {
            Done::Insert(number) => Some(State::Here(number)),
            Done::Clear if here.is_none() => Some(State::Missing),
            Done::Clear => Some(self),
            Done::Invalidate { had } => (had == here.is_some()).then_some(State::Missing),
            Done::Read(read) => (read == here).then_some(self),
            Done::Waited { number } => (self == State::Loading(number)).then_some(self),
            Done::Begin { number } => (self == State::Missing).then_some(State::Loading(number)),
            Done::Publish { number } if self == State::Loading(number) => Some(State::Here(number)),
            Done::Publish { .. } => Some(self),
        }
    }
}

fn is_linearizable(events: &[Event]) -> bool {
    assert!(events.len() <= 64, "one bit for each event");
    let all = u64::MAX >> (64 - events.len() as u32).min(63);
    let (mut open, mut tried) = (vec![(0u64, State::Missing)], HashSet::new());
    while let Some((done, state)) = open.pop() {
        if done == all || events.is_empty() {
            return true;
        }
        if !tried.insert((done, state)) {
            continue;
        }
        let left = || (0..events.len()).filter(|event| done >> event & 1 == 0);
        let first_end = left().map(|event| events[event].to).min().unwrap_or(0);
        for event in left().filter(|event| events[*event].from < first_end) {
            if let Some(state) = state.after(events[event].done) {
                open.push((done | 1 << event, state));
            }
        }
    }
    false
}

/// Orders the ends of all operations, and numbers the loads.
#[derive(Default)]
struct Recorder {
    time: AtomicU64,
    numbers: AtomicU64,
    loads: Mutex<Vec<(u64, u64)>>,
}

impl Recorder {
    fn now(&self) -> u64 {
        self.time.fetch_add(1, Ordering::SeqCst)
    }

    fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::SeqCst)
    }

    fn load(&self, key: u64) -> u64 {
        let number = self.number();
        self.loads.lock().unwrap().push((number, self.now()));
        for _ in 0..key {
            thread::yield_now();
        }
        number
    }

    /// The moment at which the loader returned this number.
    fn loaded_at(&self, number: u64) -> u64 {
        let loads = self.loads.lock().unwrap();
        loads.iter().find(|(known, _)| *known == number).unwrap().1
    }
}

fn perform<K>(cache: &Cache<K, u64>, of: fn(u64) -> K, recorder: &Recorder, op: Op) -> Vec<Event>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
{
    let from = recorder.now();
    let (key, done, led) = match op {
        Op::Insert(key) => {
            let number = recorder.number();
            cache.insert(of(key), number);
            (key, Done::Insert(number), None)
        }
        Op::Invalidate(key) => {
            let had = cache.invalidate(&of(key));
            (key, Done::Invalidate { had }, None)
        }
        Op::Peek(key) => (
            key,
            Done::Read(cache.get_if_present(&of(key)).map(|read| *read)),
            None,
        ),
        Op::Get(key) => {
            let read = cache.get_blocking(&of(key)).unwrap();
            match read.source() {
                Source::Fresh => (key, Done::Read(Some(*read)), None),
                Source::Coalesced => (key, Done::Waited { number: *read }, None),
                _ => (key, Done::Begin { number: *read }, Some(*read)),
            }
        }
    };
    let to = recorder.now();
    let Some(number) = led else {
        let event = |done| Event {
            key,
            from,
            to,
            done,
        };
        return match done {
            // Every other thread can begin a load in such a moment.
            Done::Insert(_) => [Done::Clear, Done::Clear, done].map(event).to_vec(),
            _ => vec![event(done)],
        };
    };
    let middle = recorder.loaded_at(number);
    vec![
        Event {
            key,
            from,
            to: middle,
            done,
        },
        Event {
            key,
            from: middle,
            to,
            done: Done::Publish { number },
        },
    ]
}

/// Runs the programs concurrently, and returns the history. A load takes the longer, the larger the
/// number of its key.
fn history<K>(programs: &[Vec<Op>], of: fn(u64) -> K, number: fn(&K) -> u64) -> Vec<Event>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
{
    let recorder = Arc::new(Recorder::default());
    let loading = recorder.clone();
    // Loads run on the thread that starts them, while the other threads continue.
    let cache: Cache<K, u64> = Cache::builder()
        .clock(ManualClock::new())
        .capacity(64)
        .spawner(future::block_on)
        .load(move |key: &K| {
            let number = loading.load(number(key));
            async move { number }
        })
        .build()
        .unwrap();
    let start = Barrier::new(programs.len());
    thread::scope(|scope| {
        let threads: Vec<_> = programs
            .iter()
            .map(|program| {
                let (cache, recorder, start) = (&cache, &recorder, &start);
                scope.spawn(move || {
                    start.wait();
                    let mut events = Vec::new();
                    for op in program {
                        events.extend(perform(cache, of, recorder, *op));
                    }
                    events
                })
            })
            .collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect()
    })
}

fn programs(keys: u64) -> impl Strategy<Value = Vec<Vec<Op>>> {
    let key = move || 0..keys;
    let op = prop_oneof![
        2 => key().prop_map(Op::Insert),
        2 => key().prop_map(Op::Invalidate),
        2 => key().prop_map(Op::Peek),
        3 => key().prop_map(Op::Get),
    ];
    vec(vec(op, 4..8), 2..4)
}

#[test]
fn every_history_is_one_of_a_plain_map() {
    are_of_a_plain_map(2, |key| key, |key| *key);
}

/// As in a [`Fresh`](everfresh::Fresh).
#[test]
fn every_history_of_one_value_is_one_of_a_plain_map() {
    are_of_a_plain_map(1, |_| (), |()| 1);
}

fn are_of_a_plain_map<K>(keys: u64, of: fn(u64) -> K, number: fn(&K) -> u64)
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
{
    for_all(programs(keys), |programs| {
        // A single schedule shows little. Each repetition gets another one from the system's
        // scheduler.
        for _ in 0..3 {
            let history = history(&programs, of, number);
            for key in 0..keys {
                let of_key: Vec<Event> = history
                    .iter()
                    .filter(|event| event.key == key)
                    .copied()
                    .collect();
                assert!(is_linearizable(&of_key), "{of_key:#?}");
            }
        }
    });
}

#[test]
fn the_search_rejects_histories_that_no_map_has() {
    let event = |from, to, done| Event {
        key: 0,
        from,
        to,
        done,
    };
    let insert = |from, to, number| event(from, to, Done::Insert(number));
    let read = |from, to, read| event(from, to, Done::Read(read));
    assert!(is_linearizable(&[]));
    assert!(is_linearizable(&[insert(0, 1, 7), read(2, 3, Some(7))]));
    assert!(is_linearizable(&[insert(0, 3, 7), read(1, 2, None)]));
    assert!(!is_linearizable(&[insert(0, 1, 7), read(2, 3, None)]));
    assert!(!is_linearizable(&[
        insert(0, 1, 7),
        insert(2, 3, 8),
        read(4, 5, Some(7))
    ]));
    // Two reads that do not overlap must not see one write appear and disappear.
    assert!(!is_linearizable(&[
        insert(0, 9, 7),
        read(1, 2, Some(7)),
        read(3, 4, None)
    ]));
    // An overwritten load is not published (P4).
    let load = [
        event(0, 1, Done::Begin { number: 5 }),
        event(1, 8, Done::Publish { number: 5 }),
    ];
    let invalidate = event(2, 3, Done::Invalidate { had: false });
    assert!(is_linearizable(&[
        load[0],
        load[1],
        invalidate,
        read(9, 10, None)
    ]));
    assert!(!is_linearizable(&[
        load[0],
        load[1],
        invalidate,
        read(9, 10, Some(5))
    ]));
    // A caller that came after the write must not wait for the load either.
    let waited = event(4, 6, Done::Waited { number: 5 });
    assert!(is_linearizable(&[load[0], load[1], waited]));
    assert!(!is_linearizable(&[load[0], load[1], invalidate, waited]));
}
