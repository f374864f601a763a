//! A model of a cache with unlimited room, one step at a time.
//!
//! The model is exact except for two random decisions of the cache: whether a backoff shortened by
//! jitter is over, and whether X-Fetch refreshes early. There the model follows the cache if its
//! decision was allowed.

use std::collections::{HashMap, HashSet};

use everfresh::Source;

use super::promises::{Key, LIFE, Limits, Nanos, Number, UNIT, backoff};

/// Calls are numbered in the order in which their futures were spawned.
pub type Call = usize;

/// The end of a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    Value(Number),
    Failed,
    Panicked,
    TimedOut,
    Cancelled,
}

/// The result of a read: a value and its source, or an error.
pub type Answer = Result<(Number, Source), Ending>;

#[derive(Clone, Copy)]
enum ClaimGuard {
    Free,
    Held(Call),
    /// After a failure. The backoff ends at a moment between the two.
    Backoff(Nanos, Nanos),
}

struct Entry {
    epoch: usize,
    /// `None` during the first load of the key.
    value: Option<(Number, Nanos)>,
    claim: ClaimGuard,
    failures: u32,
    last_deadline: Nanos,
    last_call: Call,
    last_error: Ending,
}

/// A remembered failure of a key without a value.
struct NegativeEntry {
    ending: Ending,
    /// The backoff ends at a moment between the two.
    backoff_end: (Nanos, Nanos),
    failures: u32,
}

struct Load {
    key: Key,
    epoch: usize,
    deadline: Nanos,
    outcome: Option<(Ending, Nanos)>,
    taken_over: bool,
    started: bool,
    /// It loads a key without a value.
    cold: bool,
    /// It passed its deadline while it ran.
    overdue: bool,
    over: bool,
    /// It never ran, or was dropped, and its key got a late result. Its readers read again.
    superseded: bool,
}

/// A load that waited for this part of its time gets its full time from its start.
const SHORT: Nanos = 16;

/// The stage of a reader between two polls.
#[derive(Clone, Copy)]
pub enum Stage {
    Get,
    Refresh,
    Waits {
        call: Call,
        fallback: Option<(Number, Nanos)>,
        source: Source,
    },
}

enum Lookup {
    Serve(Number, Source),
    Wait(Stage),
    Failed(Ending),
}

#[derive(Default)]
pub struct Model {
    pub now: Nanos,
    draws_early: bool,
    entries: HashMap<Key, Entry>,
    negative: HashMap<Key, NegativeEntry>,
    loads: Vec<Load>,
    epochs: usize,
    /// Entries that have had their first result, or whose placeholder was given up.
    spent: HashSet<usize>,
    pub computes: u64,
    pub published: u64,
    pub failed: u64,
    pub overtaken: u64,
    pub taken_over: u64,
    pub timed_out: u64,
    pub late_published: u64,
}

impl Model {
    pub fn new(draws_early: bool) -> Self {
        Model {
            draws_early,
            ..Model::default()
        }
    }

    /// Moves the time. Loads that run end their claims at their deadlines and go on.
    pub fn advance(&mut self, by: Nanos) {
        self.now += by;
        let now = self.now;
        for (call, load) in self.loads.iter_mut().enumerate() {
            if !load.started || load.over || load.overdue || now < load.deadline {
                continue;
            }
            load.overdue = true;
            load.outcome = load.outcome.or(Some((Ending::TimedOut, now)));
            self.timed_out += 1;
            let here = self.entries.get_mut(&load.key);
            let here = here.filter(|entry| entry.epoch == load.epoch);
            if let Some(entry) = here {
                if matches!(entry.claim, ClaimGuard::Held(holder) if holder == call) {
                    rest(entry, now, Ending::TimedOut);
                }
            }
        }
    }

    pub fn insert(&mut self, key: Key, number: Number) {
        let entry = self.entry(Some((number, self.now)));
        self.entries.insert(key, entry);
        self.negative.remove(&key);
    }

    /// Returns whether there was a value.
    pub fn invalidate(&mut self, key: Key) -> bool {
        self.negative.remove(&key);
        let removed = self.entries.remove(&key);
        removed.is_some_and(|entry| entry.value.is_some())
    }

    pub fn peek(&self, key: Key) -> Option<Number> {
        let (number, created) = self.entries.get(&key)?.value?;
        (self.now < created + LIFE).then_some(number)
    }

    pub fn resident(&self) -> usize {
        let values = self.entries.values();
        values.filter(|entry| entry.value.is_some()).count()
    }

    /// Polls a reader; `spawned` is the load started by this poll. Returns `None` if the reader
    /// keeps waiting.
    pub fn poll(&mut self, key: Key, stage: &mut Stage, spawned: Option<Call>) -> Option<Answer> {
        let mut spawned = spawned;
        let answer = loop {
            let explicit = match *stage {
                Stage::Get => false,
                Stage::Refresh => true,
                Stage::Waits { call, .. } if self.loads[call].superseded => false,
                Stage::Waits {
                    call,
                    fallback,
                    source,
                } => match self.outcome(call) {
                    None => break None,
                    Some((Ending::Value(number), created)) if self.now < created + LIFE => {
                        break Some(Ok((number, source)));
                    }
                    // Polled too late, so the reader acts like a new caller.
                    Some((Ending::Value(_), _)) => false,
                    Some((ending, _)) => {
                        let alive = fallback.filter(|(_, created)| self.now < created + LIFE);
                        let served = alive.map(|(number, _)| (number, Source::AfterFailure));
                        break Some(served.ok_or(ending));
                    }
                },
            };
            match self.lookup(key, explicit, &mut spawned) {
                Lookup::Serve(number, source) => break Some(Ok((number, source))),
                Lookup::Failed(ending) => break Some(Err(ending)),
                Lookup::Wait(waits) => *stage = waits,
            }
        };
        assert_eq!(spawned, None, "an unexpected load of key {key}");
        answer
    }

    fn outcome(&self, call: Call) -> Option<(Ending, Nanos)> {
        let load = &self.loads[call];
        let late = (self.now >= load.deadline).then_some((Ending::TimedOut, self.now));
        load.outcome.or(late)
    }

    fn lookup(&mut self, key: Key, explicit: bool, spawned: &mut Option<Call>) -> Lookup {
        let Some(entry) = self.entries.get(&key) else {
            if explicit {
                self.negative.remove(&key);
            }
            let mut placeholder = self.entry(None);
            if let Some(entry) = self.negative.get(&key) {
                let (earliest, latest) = entry.backoff_end;
                if self.now < earliest || (self.now < latest && spawned.is_none()) {
                    return Lookup::Failed(entry.ending);
                }
                placeholder.failures = entry.failures;
            }
            self.entries.insert(key, placeholder);
            let Some(call) = spawned.take() else {
                panic!("no load of the missing key {key}");
            };
            return Lookup::Wait(self.claim(key, call, None));
        };
        let (claim, value, last_error) = (entry.claim, entry.value, entry.last_error);
        let age = value.map_or(Nanos::MAX, |(_, created)| self.now - created);
        let fresh = age < Limits::FRESH && !explicit;
        let (may, must) = match claim {
            ClaimGuard::Free => (true, true),
            ClaimGuard::Held(call) => [self.loads[call].deadline <= self.now; 2].into(),
            ClaimGuard::Backoff(..) if explicit => (true, true),
            ClaimGuard::Backoff(earliest, latest) => (earliest <= self.now, latest <= self.now),
        };
        let (may, must) = match fresh {
            true => (may && self.draws_early, false),
            false => (may, must),
        };
        let taken = match (*spawned, may) {
            (Some(call), true) => Some(call),
            _ => None,
        };
        assert!(
            taken.is_some() || !must,
            "no load of the unclaimed key {key}"
        );
        let served = |source| match value {
            Some((number, _)) => Lookup::Serve(number, source),
            None => unreachable!("a key without a value is never fresh or stale"),
        };
        // A caller in the second stale window falls back on the old value if the refresh fails.
        let fallback = value.filter(|_| age < LIFE && !explicit);
        if let Some(call) = taken {
            *spawned = None;
            let waits = self.claim(key, call, fallback);
            return match age {
                _ if explicit => Lookup::Wait(waits),
                _ if fresh => served(Source::Early),
                _ if age < Limits::FRESH + Limits::STALE => served(Source::Stale),
                _ => Lookup::Wait(waits),
            };
        }
        if fresh {
            return served(Source::Fresh);
        }
        let in_window = age < Limits::FRESH + Limits::STALE && !explicit;
        match claim {
            ClaimGuard::Held(_) if in_window => served(Source::Stale),
            ClaimGuard::Held(call) => Lookup::Wait(Stage::Waits {
                call,
                fallback,
                source: Source::Coalesced,
            }),
            _ if age < LIFE => served(Source::AfterFailure),
            _ => Lookup::Failed(last_error),
        }
    }

    fn claim(&mut self, key: Key, call: Call, fallback: Option<(Number, Nanos)>) -> Stage {
        assert_eq!(
            call,
            self.loads.len(),
            "loads are numbered in the order of their start"
        );
        let Some(entry) = self.entries.get_mut(&key) else {
            unreachable!("only an entry is claimed");
        };
        if let ClaimGuard::Held(before) = entry.claim {
            let before = &mut self.loads[before];
            before.taken_over = true;
            before.outcome = Some((Ending::TimedOut, self.now));
        }
        let deadline = (self.now + Limits::TIMEOUT).max(entry.last_deadline + UNIT);
        entry.last_deadline = deadline;
        entry.last_call = call;
        entry.claim = ClaimGuard::Held(call);
        self.loads.push(Load {
            key,
            epoch: entry.epoch,
            deadline,
            outcome: None,
            taken_over: false,
            started: false,
            cold: entry.value.is_none(),
            overdue: false,
            over: false,
            superseded: false,
        });
        Stage::Waits {
            call,
            fallback,
            source: Source::Loaded,
        }
    }

    /// Polls the future of a load for the first time. Returns whether it calls the loader.
    pub fn start(&mut self, call: Call) -> bool {
        let now = self.now;
        let load = &mut self.loads[call];
        // A load that was taken over before it ran, or whose turn came too late, does not run. Nor
        // does one whose key got a late result meanwhile.
        let ended = load.taken_over || self.spent.contains(&load.epoch);
        if ended || now >= load.deadline {
            let (key, epoch, cold) = (load.key, load.epoch, load.cold);
            load.over = true;
            if load.outcome.is_none() {
                match ended {
                    true => load.superseded = true,
                    false => load.outcome = Some((Ending::TimedOut, now)),
                }
            }
            let here = self.entries.get_mut(&key);
            match here.filter(|entry| !ended && entry.epoch == epoch) {
                Some(entry) if entry.value.is_some() => entry.claim = ClaimGuard::Free,
                Some(_) => {
                    self.spent.insert(epoch);
                    self.entries.remove(&key);
                }
                // It gives its placeholder up, although that has left already.
                None if !ended && cold => {
                    self.spent.insert(epoch);
                }
                None => {}
            }
            return false;
        }
        load.started = true;
        let renewed = now + Limits::TIMEOUT;
        let is_short = load.deadline - now <= Limits::TIMEOUT - Limits::TIMEOUT / SHORT;
        if is_short && now + UNIT < load.deadline && renewed > load.deadline {
            load.deadline = renewed;
            let here = self.entries.get_mut(&load.key);
            if let Some(entry) = here.filter(|entry| entry.epoch == load.epoch) {
                entry.last_deadline = renewed;
            }
        }
        self.computes += 1;
        true
    }

    /// Ends a load that has started, or drops the future of any load.
    pub fn end(&mut self, call: Call, ending: Ending) {
        match ending {
            Ending::Value(_) => {}
            Ending::Failed | Ending::Panicked => self.failed += 1,
            Ending::Cancelled | Ending::TimedOut => {}
        }
        let now = self.now;
        let load = &mut self.loads[call];
        let (key, epoch, late) = (load.key, load.epoch, load.overdue);
        load.over = true;
        if load.taken_over {
            return;
        }
        if ending == Ending::Cancelled && load.outcome.is_none() && self.spent.contains(&epoch) {
            // Its key got a late result, so its readers read again.
            load.superseded = true;
            return;
        }
        load.outcome = load.outcome.or(Some((ending, now)));
        let here = self.entries.get_mut(&key);
        let here = here.filter(|entry| entry.epoch == epoch);
        match (ending, here) {
            (Ending::Value(_), _) if !self.spent.insert(epoch) => self.taken_over += 1,
            (Ending::Value(number), Some(entry)) => {
                if let ClaimGuard::Held(later) = entry.claim {
                    let later = &mut self.loads[later];
                    later.outcome = later.outcome.or(Some((ending, now)));
                }
                self.published += 1;
                self.late_published += u64::from(late);
                self.insert(key, number);
            }
            (Ending::Value(_), None) => self.overtaken += 1,
            (_, Some(entry)) if late => {
                // The rest of the key moves from the placeholder to a negative entry.
                let ClaimGuard::Backoff(earliest, latest) = entry.claim else {
                    return;
                };
                let claimed_since = entry.last_call != call;
                if entry.value.is_some() || claimed_since || ending == Ending::Cancelled {
                    return;
                }
                let failures = entry.failures;
                self.spent.insert(epoch);
                self.entries.remove(&key);
                let backoff_end = (earliest, latest);
                let entry = NegativeEntry {
                    ending,
                    backoff_end,
                    failures,
                };
                self.negative.insert(key, entry);
            }
            (_, Some(entry)) if entry.value.is_none() => {
                let longest = backoff(entry.failures);
                let failures = entry.failures + 1;
                self.spent.insert(epoch);
                self.entries.remove(&key);
                let backoff_end = (self.now + longest / 2, self.now + longest);
                let entry = NegativeEntry {
                    ending,
                    backoff_end,
                    failures,
                };
                self.negative.insert(key, entry);
            }
            (_, Some(entry)) => rest(entry, now, ending),
            // It gives its placeholder up, although that has left already. After its deadline it
            // does so unless another load has claimed the placeholder since.
            (_, None) if self.loads[call].cold => {
                let mut later = self.loads[call + 1..].iter();
                let is_last = later.all(|load| load.epoch != epoch);
                if !late || (is_last && ending != Ending::Cancelled) {
                    self.spent.insert(epoch);
                }
            }
            (_, None) => {}
        }
    }

    fn entry(&mut self, value: Option<(Number, Nanos)>) -> Entry {
        self.epochs += 1;
        Entry {
            epoch: self.epochs,
            value,
            claim: ClaimGuard::Free,
            failures: 0,
            last_deadline: 0,
            last_call: Call::MAX,
            last_error: Ending::Cancelled,
        }
    }
}

/// An attempt failed, and the next one waits.
fn rest(entry: &mut Entry, now: Nanos, ending: Ending) {
    let longest = backoff(entry.failures);
    entry.claim = ClaimGuard::Backoff(now + longest / 2, now + longest);
    entry.failures += 1;
    entry.last_error = ending;
}
