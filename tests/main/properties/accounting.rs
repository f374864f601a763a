//! Resident values are counted and weighed exactly, and the listener is notified once of every
//! removal.
//!
//! One thread takes random steps on a small cache with both limits. No value expires, so the test
//! can ask for the resident values. Loads end in any order, with light values, with values that are
//! too heavy, with "not found", or not at all.

use std::collections::{HashMap, HashSet};

use everfresh::{Cache, ManualClock};
use proptest::prelude::*;

use super::for_all;
use crate::removal::Removals;
use crate::support::gates::End;
use crate::support::*;

const KEYS: u64 = 24;

/// A value encodes its number and its weight.
const WEIGHTS: u64 = 16;

#[derive(Clone, Debug)]
struct Program {
    capacity: usize,
    max_weight: u64,
    steps: Vec<Step>,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Insert(u64, u64),
    Read(u64),
    Begin(u64),
    /// Ends one of the running loads, with a value of this weight.
    End(usize, u64),
    NotFound(usize),
    Fail(usize),
    Invalidate(u64),
    InvalidateAll,
    Sweep,
}

fn programs() -> impl Strategy<Value = Program> {
    let (key, weight, which) = (|| 0..KEYS, || 0..WEIGHTS, || 0..64usize);
    let step = prop_oneof![
        30 => (key(), weight()).prop_map(|(key, weight)| Step::Insert(key, weight)),
        20 => key().prop_map(Step::Read),
        12 => key().prop_map(Step::Begin),
        8 => (which(), weight()).prop_map(|(load, weight)| Step::End(load, weight)),
        3 => which().prop_map(Step::NotFound),
        2 => which().prop_map(Step::Fail),
        4 => key().prop_map(Step::Invalidate),
        1 => Just(Step::InvalidateAll),
        1 => Just(Step::Sweep),
    ];
    let steps = prop::collection::vec(step, 1..200);
    (1..16usize, WEIGHTS / 2..80, steps).prop_map(|(capacity, max_weight, steps)| Program {
        capacity,
        max_weight,
        steps,
    })
}

struct Run {
    cache: Cache<u64, u64>,
    tasks: Tasks,
    gates: Gates<u64>,
    removals: Removals,
    made: u64,
    /// Loads that have begun and not ended, with their keys.
    loads: Vec<(usize, u64)>,
    /// The last value of each key, resident or not.
    last: HashMap<u64, u64>,
    /// Values that were seen resident, and values whose removal was notified.
    seen: HashSet<u64>,
    left: HashSet<u64>,
}

impl Run {
    fn new(program: &Program) -> Self {
        let removals = Removals::default();
        let clock = ManualClock::new();
        let builder = builder(&clock)
            .capacity(program.capacity)
            .max_weight(program.max_weight, |_: &u64, value: &u64| {
                (value % WEIGHTS) as u32
            });
        let (cache, tasks, gates) = by_hand(removals.listen(builder));
        Run {
            cache,
            tasks,
            gates,
            removals,
            made: 0,
            loads: Vec::new(),
            last: HashMap::new(),
            seen: HashSet::new(),
            left: HashSet::new(),
        }
    }

    fn make(&mut self, weight: u64) -> u64 {
        self.made += 1;
        self.made * WEIGHTS + weight
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Insert(key, weight) => {
                let value = self.make(weight);
                self.cache.insert(key, value);
                self.last.insert(key, value);
            }
            Step::Read(key) => {
                if let Some(read) = self.cache.get_if_present(&key) {
                    assert_eq!(Some(&*read), self.last.get(&key));
                }
            }
            Step::Begin(key) => {
                let before = self.tasks.spawned();
                drop(poll(&mut refresh(&self.cache, key)));
                if self.tasks.spawned() > before {
                    self.tasks.poll(before);
                    self.loads.push((before, key));
                }
            }
            Step::End(which, weight) => {
                let value = self.make(weight);
                self.end(which, End::Value(value), Some(value));
            }
            Step::NotFound(which) => self.end(which, End::NotFound, None),
            Step::Fail(which) => self.end(which, End::Fail, None),
            Step::Invalidate(key) => {
                let resident = self.cache.contains_key(&key);
                assert_eq!(self.cache.invalidate(&key), resident);
            }
            Step::InvalidateAll => self.cache.invalidate_all(),
            Step::Sweep => assert_eq!(self.cache.sweep(), 0, "no value has expired"),
        }
    }

    fn end(&mut self, which: usize, end: End<u64>, value: Option<u64>) {
        if self.loads.is_empty() {
            return;
        }
        let (load, key) = self.loads.swap_remove(which % self.loads.len());
        self.gates.end(load, end);
        assert!(self.tasks.poll(load), "the load ends at this poll");
        if let Some(read) = self.cache.get_if_present(&key) {
            assert!(Some(*read) == value || Some(&*read) == self.last.get(&key));
            self.last.insert(key, *read);
        }
    }

    fn check(&mut self, program: &Program) {
        for (_, value, cause) in self.removals.take() {
            assert!(self.seen.contains(&value), "{value} was never resident");
            assert!(
                self.left.insert(value),
                "{value} was removed twice ({cause:?})"
            );
        }
        let is_resident = |key: &u64| self.cache.contains_key(key);
        let resident: HashSet<u64> = (self.last.iter())
            .filter(|(key, _)| is_resident(key))
            .map(|(_, value)| *value)
            .collect();
        self.seen.extend(&resident);
        let there: HashSet<u64> = self.seen.difference(&self.left).copied().collect();
        assert_eq!(
            there, resident,
            "the resident values are those that were seen and not removed"
        );

        assert_eq!(self.cache.len(), resident.len());
        assert!(self.cache.len() <= program.capacity);
        let weight: u64 = resident.iter().map(|value| value % WEIGHTS).sum();
        assert_eq!(self.cache.weight(), weight);
        assert!(weight <= program.max_weight);
    }
}

#[test]
fn resident_values_are_counted_and_weighed_and_their_removals_notified() {
    for_all(programs(), |program| {
        let mut run = Run::new(&program);
        for step in &program.steps {
            run.step(*step);
            run.check(&program);
        }
    });
}
