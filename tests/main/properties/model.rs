//! What one cache with room for everything does, one step at a time.
//!
//! Exact but for two things that are random in the cache: whether a rest that jitter has shortened is over, and whether an
//! X-Fetch draw says "early". There the model follows what happened, if it was allowed to.

use std::collections::HashMap;

use everfresh::Source;

use super::promises::{Key, LIFE, Limits, Nanos, Number, backoff};

/// Calls are numbered in the order in which their futures were spawned.
pub type Call = usize;

/// What a load came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    Value(Number),
    Failed,
    Panicked,
    TimedOut,
    Cancelled,
}

/// A read that was answered: which value, from where; or why not.
pub type Answer = Result<(Number, Source), Ending>;

/// The shortest step by which a deadline can be later than another.
const UNIT: Nanos = 64;

#[derive(Clone, Copy)]
enum ClaimGuard {
    Free,
    Held(Call),
    /// After a failure. The next attempt is allowed from somewhere between the two on.
    Rests(Nanos, Nanos),
}

struct Entry {
    epoch: usize,
    /// `None` while the key is loaded for the first time.
    value: Option<(Number, Nanos)>,
    claim: ClaimGuard,
    failures: u32,
    last_deadline: Nanos,
    last_error: Ending,
}

/// What is remembered of a key that has no value because its load failed.
struct Note {
    ending: Ending,
    /// The next attempt is allowed from somewhere between the two on.
    rests: (Nanos, Nanos),
    failures: u32,
}

struct Load {
    key: Key,
    epoch: usize,
    deadline: Nanos,
    outcome: Option<(Ending, Nanos)>,
    taken_over: bool,
}

/// Where a reader stands between two polls.
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

enum Looked {
    Serve(Number, Source),
    Wait(Stage),
    Failed(Ending),
}

#[derive(Default)]
pub struct Model {
    pub now: Nanos,
    draws_early: bool,
    entries: HashMap<Key, Entry>,
    notes: HashMap<Key, Note>,
    loads: Vec<Load>,
    epochs: usize,
    pub computes: u64,
    pub published: u64,
    pub failed: u64,
    pub overtaken: u64,
    pub taken_over: u64,
}

impl Model {
    pub fn new(draws_early: bool) -> Self {
        Model {
            draws_early,
            ..Model::default()
        }
    }

    pub fn insert(&mut self, key: Key, number: Number) {
        let entry = self.entry(Some((number, self.now)));
        self.entries.insert(key, entry);
        self.notes.remove(&key);
    }

    /// Whether there was a value.
    pub fn invalidate(&mut self, key: Key) -> bool {
        self.notes.remove(&key);
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

    /// A reader is polled; `spawned` is the load that was started meanwhile. `None` if it goes on waiting.
    pub fn poll(&mut self, key: Key, stage: &mut Stage, spawned: Option<Call>) -> Option<Answer> {
        let mut spawned = spawned;
        let answer = loop {
            let by_name = match *stage {
                Stage::Get => false,
                Stage::Refresh => true,
                Stage::Waits {
                    call,
                    fallback,
                    source,
                } => match self.outcome(call) {
                    None => break None,
                    Some((Ending::Value(number), created)) if self.now < created + LIFE => {
                        break Some(Ok((number, source)));
                    }
                    // Polled too late: as good as a caller that comes now.
                    Some((Ending::Value(_), _)) => false,
                    Some((ending, _)) => {
                        let alive = fallback.filter(|(_, created)| self.now < created + LIFE);
                        let served = alive.map(|(number, _)| (number, Source::AfterFailure));
                        break Some(served.ok_or(ending));
                    }
                },
            };
            match self.look(key, by_name, &mut spawned) {
                Looked::Serve(number, source) => break Some(Ok((number, source))),
                Looked::Failed(ending) => break Some(Err(ending)),
                Looked::Wait(waits) => *stage = waits,
            }
        };
        assert_eq!(spawned, None, "a load of key {key} that nothing called for");
        answer
    }

    fn outcome(&self, call: Call) -> Option<(Ending, Nanos)> {
        let load = &self.loads[call];
        let late = (self.now >= load.deadline).then_some((Ending::TimedOut, self.now));
        load.outcome.or(late)
    }

    fn look(&mut self, key: Key, by_name: bool, spawned: &mut Option<Call>) -> Looked {
        let Some(entry) = self.entries.get(&key) else {
            if by_name {
                self.notes.remove(&key);
            }
            let mut placeholder = self.entry(None);
            if let Some(note) = self.notes.get(&key) {
                let (earliest, latest) = note.rests;
                if self.now < earliest || (self.now < latest && spawned.is_none()) {
                    return Looked::Failed(note.ending);
                }
                placeholder.failures = note.failures;
            }
            self.entries.insert(key, placeholder);
            let Some(call) = spawned.take() else {
                panic!("no load of the absent key {key}");
            };
            return Looked::Wait(self.claim(key, call, None));
        };
        let (claim, value, last_error) = (entry.claim, entry.value, entry.last_error);
        let age = value.map_or(Nanos::MAX, |(_, created)| self.now - created);
        let fresh = age < Limits::FRESH && !by_name;
        let (may, must) = match claim {
            ClaimGuard::Free => (true, true),
            ClaimGuard::Held(call) => [self.loads[call].deadline <= self.now; 2].into(),
            ClaimGuard::Rests(..) if by_name => (true, true),
            ClaimGuard::Rests(earliest, latest) => (earliest <= self.now, latest <= self.now),
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
            "no load of key {key}, free to claim"
        );
        let served = |source| match value {
            Some((number, _)) => Looked::Serve(number, source),
            None => unreachable!("a key without a value is never fresh or stale"),
        };
        // Whoever only gets a value because refreshing fails has it to fall back on.
        let fallback = value.filter(|_| age < LIFE && !by_name);
        if let Some(call) = taken {
            *spawned = None;
            let waits = self.claim(key, call, fallback);
            return match age {
                _ if by_name => Looked::Wait(waits),
                _ if fresh => served(Source::Early),
                _ if age < Limits::FRESH + Limits::STALE => served(Source::Stale),
                _ => Looked::Wait(waits),
            };
        }
        if fresh {
            return served(Source::Fresh);
        }
        let in_window = age < Limits::FRESH + Limits::STALE && !by_name;
        match claim {
            ClaimGuard::Held(_) if in_window => served(Source::Stale),
            ClaimGuard::Held(call) => Looked::Wait(Stage::Waits {
                call,
                fallback,
                source: Source::Coalesced,
            }),
            _ if age < LIFE => served(Source::AfterFailure),
            _ => Looked::Failed(last_error),
        }
    }

    fn claim(&mut self, key: Key, call: Call, fallback: Option<(Number, Nanos)>) -> Stage {
        assert_eq!(call, self.loads.len(), "loads are numbered as they start");
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
        entry.claim = ClaimGuard::Held(call);
        self.loads.push(Load {
            key,
            epoch: entry.epoch,
            deadline,
            outcome: None,
            taken_over: false,
        });
        Stage::Waits {
            call,
            fallback,
            source: Source::Loaded,
        }
    }

    /// The future of a load is polled for the first time; whether it calls the loader.
    pub fn start(&mut self, call: Call) -> bool {
        // A load that was taken over before it ran is not run for nobody.
        let wanted = !self.loads[call].taken_over;
        self.computes += u64::from(wanted);
        wanted
    }

    /// A load that had started ends, or the future of any load is dropped.
    pub fn end(&mut self, call: Call, ending: Ending) {
        match ending {
            Ending::Value(_) => {}
            Ending::Failed | Ending::Panicked => self.failed += 1,
            Ending::Cancelled | Ending::TimedOut => {}
        }
        let load = &mut self.loads[call];
        let (key, epoch) = (load.key, load.epoch);
        if load.taken_over {
            self.taken_over += u64::from(matches!(ending, Ending::Value(_)));
            return;
        }
        load.outcome = Some((ending, self.now));
        let here = self.entries.get_mut(&key);
        let here = here.filter(|entry| entry.epoch == epoch);
        match (ending, here) {
            (Ending::Value(number), Some(_)) => {
                self.published += 1;
                self.insert(key, number);
            }
            (Ending::Value(_), None) => self.overtaken += 1,
            (_, Some(entry)) if entry.value.is_none() => {
                let longest = backoff(entry.failures);
                let failures = entry.failures + 1;
                self.entries.remove(&key);
                // The runtime's doing says nothing about the key.
                if ending != Ending::Cancelled {
                    let rests = (self.now + longest / 2, self.now + longest);
                    let note = Note {
                        ending,
                        rests,
                        failures,
                    };
                    self.notes.insert(key, note);
                }
            }
            (_, Some(entry)) => {
                let longest = backoff(entry.failures);
                entry.claim = ClaimGuard::Rests(self.now + longest / 2, self.now + longest);
                entry.failures += 1;
                entry.last_error = ending;
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
            last_error: Ending::Cancelled,
        }
    }
}
