//! The promises, checked by observable behaviour alone.

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
    /// The first backoff after a failure, and the longest.
    pub const REST: (Nanos, Nanos) = (100 * MS, 500 * MS);
}

/// The shortest difference between two deadlines.
pub const UNIT: Nanos = 64;

/// The time from the creation of a value to its hard limit.
pub const LIFE: Nanos = Limits::FRESH + Limits::ERROR;

/// The longest backoff after an attempt that follows this many failures. The shortest is half of
/// it.
pub fn backoff(failures: u32) -> Nanos {
    (Limits::REST.0 << failures.min(31)).min(Limits::REST.1)
}

/// Identifies the value that a load replaces, or its absence since the last write of the key.
type Epoch = (Key, Option<Number>, u64);

struct Value {
    key: Key,
    /// The step in which the value was written, or in which its load was claimed.
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
    /// The observed value of each key, which may have expired.
    resident: HashMap<Key, Number>,
    values: HashMap<Number, Value>,
    loads: Vec<Load>,
    replaced: HashSet<Epoch>,
    /// Consecutive failures of refreshing a value, and the time of the last one.
    failures: HashMap<Epoch, (u32, Nanos)>,
}

impl Promises {
    /// Starts a step. Every operation is a separate step, so that all steps are ordered.
    pub fn step(&mut self) -> u64 {
        self.step += 1;
        self.step
    }

    /// Records a completed insert of this value, or a completed invalidation.
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
        assert!(!twice, "two values have the same number");
    }

    /// Checks P4 and P6: a value is served now to a read that began in step `began`.
    pub fn served(&self, number: Number, key: Key, began: u64, now: Nanos) {
        let value = &self.values[&number];
        assert_eq!(value.key, key, "P4: the value of another key");
        let written = self.written_before(key, began);
        assert!(
            value.born >= written,
            "P4: a read begun in step {began} got a value of step {}, but {written} wrote",
            value.born
        );
        assert!(now < value.created + LIFE, "P6: served past the hard limit");
    }

    fn written_before(&self, key: Key, step: u64) -> u64 {
        let written = self.written.get(&key).map_or(&[][..], Vec::as_slice);
        let before = written.partition_point(|at| *at < step);
        written[..before].last().copied().unwrap_or(0)
    }

    /// Records a load claimed in this step, by a `get` or (`explicit`) by a `refresh`.
    pub fn claimed(&mut self, key: Key, explicit: bool, now: Nanos) {
        let written = self.written_before(key, self.step);
        let epoch = (key, self.resident.get(&key).copied(), written);
        let running = |load: &&Load| !load.over && load.epoch == epoch && now < load.deadline;
        assert!(
            !self.loads.iter().any(|load| running(&load)),
            "P1, P3: two loads of one epoch at a time, {epoch:?}"
        );
        assert!(
            !self.replaced.contains(&epoch),
            "P1: a load of {epoch:?}, which was already replaced"
        );
        if let (Some(&(failures, at)), false) = (self.failures.get(&epoch), explicit) {
            assert!(
                now >= at + backoff(failures - 1) / 2,
                "P5: no backoff after a failure"
            );
        }
        // Claims of one entry differ in their deadlines. A missing key has a new one each time.
        let is_same = |load: &&Load| load.epoch == epoch && epoch.1.is_some();
        let earlier = self.loads.iter().filter(is_same);
        let last = earlier.map(|load| load.deadline).max().unwrap_or(0);
        self.loads.push(Load {
            key,
            epoch,
            claimed: self.step,
            deadline: (now + Limits::TIMEOUT).max(last + UNIT),
            over: false,
        });
    }

    /// Records that the loader was called, and sees this previous value.
    pub fn started(&mut self, call: usize, key: Key, previous: Option<Number>, now: Nanos) {
        let load = &mut self.loads[call];
        let is_short = load.deadline - now <= Limits::TIMEOUT - Limits::TIMEOUT / 16;
        // In its last unit a claim is too old to be renewed: the load runs under what is left.
        if is_short && now + UNIT < load.deadline {
            load.deadline = now + Limits::TIMEOUT;
        }
        assert_eq!(
            (load.key, load.epoch.1),
            (key, previous),
            "the loader sees the claimed value"
        );
    }

    /// Records that a load ended with this value, and whether the value was resident right
    /// afterwards.
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

    /// Records that a load failed, or that its future was dropped.
    pub fn failed(&mut self, call: usize, now: Nanos) {
        let load = &mut self.loads[call];
        load.over = true;
        // A late failure belongs to a claim that may have been taken over, so it starts no backoff.
        if load.epoch.1.is_some() && now < load.deadline {
            let (failures, at) = self.failures.entry(load.epoch).or_default();
            (*failures, *at) = (*failures + 1, now);
        }
    }
}
