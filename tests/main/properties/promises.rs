//! The promises, judged by what can be seen from outside alone.

use std::collections::{HashMap, HashSet};

pub type Key = u64;
pub type Number = u64;
pub type Nanos = u64;

const MS: Nanos = 1_000_000;

/// The times of every cache under test.
pub struct Limits;

impl Limits {
    pub const FRESH: Nanos = 1_000 * MS;
    pub const STALE: Nanos = 600 * MS;
    pub const ERROR: Nanos = 1_500 * MS;
    pub const TIMEOUT: Nanos = 800 * MS;
    /// The first rest after a failure, and the longest.
    pub const REST: (Nanos, Nanos) = (100 * MS, 500 * MS);
}

/// From its creation to its hard limit.
pub const LIFE: Nanos = Limits::FRESH + Limits::ERROR;

/// The longest rest after the attempt that followed so many failures; the shortest is half of it.
pub fn backoff(failures: u32) -> Nanos {
    (Limits::REST.0 << failures.min(31)).min(Limits::REST.1)
}

/// What a load replaces: a value, or nothing since the last write of its key.
type Epoch = (Key, Option<Number>, u64);

struct Value {
    key: Key,
    /// The step in which it was written, or in which its load was claimed.
    born: u64,
    created: Nanos,
}

struct Load {
    key: Key,
    epoch: Epoch,
    claimed: u64,
    deadline: Nanos,
    over: bool,
}

#[derive(Default)]
pub struct Promises {
    step: u64,
    /// The steps in which each key was written, in order.
    written: HashMap<Key, Vec<u64>>,
    /// The value of each key, as far as it shows; it may have expired.
    resident: HashMap<Key, Number>,
    values: HashMap<Number, Value>,
    loads: Vec<Load>,
    replaced: HashSet<Epoch>,
    /// Failures in a row of refreshing a value, and when the last one was.
    failures: HashMap<Epoch, (u32, Nanos)>,
}

impl Promises {
    /// Every operation is a step of its own, so that "before" is never in doubt.
    pub fn step(&mut self) -> u64 {
        self.step += 1;
        self.step
    }

    /// An insert (of this value), or an invalidation, that is done.
    pub fn wrote(&mut self, key: Key, inserted: Option<Number>, now: Nanos) {
        self.written.entry(key).or_default().push(self.step);
        self.resident.remove(&key);
        if let Some(number) = inserted {
            self.made(number, key, self.step, now);
            self.resident.insert(key, number);
        }
    }

    fn made(&mut self, number: Number, key: Key, born: u64, created: Nanos) {
        let value = Value { key, born, created };
        let twice = self.values.insert(number, value).is_some();
        assert!(!twice, "one number, two values");
    }

    /// P4 and P6: a value was served, now, to a read that began in step `began`.
    pub fn served(&self, number: Number, key: Key, began: u64, now: Nanos) {
        let value = &self.values[&number];
        assert_eq!(value.key, key, "P4: the value of another key");
        let written = self.written_before(key, began);
        assert!(
            value.born >= written,
            "P4: a read that began in step {began} got what was born in {}, although {written} wrote",
            value.born
        );
        assert!(now < value.created + LIFE, "P6: served past the hard limit");
    }

    fn written_before(&self, key: Key, step: u64) -> u64 {
        let written = self.written.get(&key).map_or(&[][..], Vec::as_slice);
        let before = written.partition_point(|at| *at < step);
        written[..before].last().copied().unwrap_or(0)
    }

    /// A load was claimed in this step, by a get or (`by_name`) a refresh.
    pub fn claimed(&mut self, key: Key, by_name: bool, now: Nanos) {
        let written = self.written_before(key, self.step);
        let epoch = (key, self.resident.get(&key).copied(), written);
        let running = |load: &&Load| !load.over && load.epoch == epoch && now < load.deadline;
        assert!(
            !self.loads.iter().any(|load| running(&load)),
            "P1, P3: two loads of one epoch at a time, {epoch:?}"
        );
        assert!(
            !self.replaced.contains(&epoch),
            "P1: a load of {epoch:?}, which has a successor"
        );
        if let (Some(&(failures, at)), false) = (self.failures.get(&epoch), by_name) {
            assert!(
                now >= at + backoff(failures - 1) / 2,
                "P5: no rest after a failure"
            );
        }
        self.loads.push(Load {
            key,
            epoch,
            claimed: self.step,
            deadline: now + Limits::TIMEOUT,
            over: false,
        });
    }

    /// The loader was called, and sees this previous value.
    pub fn started(&self, call: usize, key: Key, previous: Option<Number>) {
        let load = &self.loads[call];
        assert_eq!(
            (load.key, load.epoch.1),
            (key, previous),
            "what was claimed"
        );
    }

    /// A load ended with this value, which was resident right after it or not.
    pub fn returned(&mut self, call: usize, number: Number, resident: bool, now: Nanos) {
        let load = &mut self.loads[call];
        load.over = true;
        let (key, epoch, claimed) = (load.key, load.epoch, load.claimed);
        self.made(number, key, claimed, now);
        if resident {
            let written = self.written_before(key, self.step);
            self.resident.insert(key, number);
            assert!(claimed > written, "P4: a late result over a later write");
            assert!(self.replaced.insert(epoch), "P1: two results of {epoch:?}");
        }
    }

    /// A load failed, or its future was dropped.
    pub fn failed(&mut self, call: usize, now: Nanos) {
        let load = &mut self.loads[call];
        load.over = true;
        // A late failure belongs to a claim that may have been taken over: it starts no rest.
        if load.epoch.1.is_some() && now < load.deadline {
            let (failures, at) = self.failures.entry(load.epoch).or_default();
            (*failures, *at) = (*failures + 1, now);
        }
    }
}
