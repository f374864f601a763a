//! Compares the scripts on a real server with the store in memory: random programs must have the
//! same answers.
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use everfresh::store::{
    Acquired, Change, ChangeKind, Epoch, MemoryStore, Store, StoreKey, Stored, envelope,
};
use everfresh::testing::store_contract::{
    HOUR, LIMIT, Recording, StoreUnderTest, caller, key, namespace,
};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::server::OnServer;

#[derive(Clone, Copy, Debug)]
enum Step {
    Acquire(Seen),
    Publish,
    /// With the base of another caller.
    PublishOverAnothers,
    Renew,
    Release {
        cool: bool,
    },
    Set,
    Invalidate,
    /// A write that waited.
    SetBorn(Born, Seen),
    InvalidateBorn(Born, Seen),
    Read,
    LoseLease,
    LoseData,
    Plant(Planted),
}

#[derive(Clone, Copy, Debug)]
enum Seen {
    Nothing,
    Stored,
    Something,
}

#[derive(Clone, Copy, Debug)]
enum Born {
    LongAgo,
    /// A moment later than the other.
    LaterLongAgo,
    Now,
}

impl Born {
    fn micros(self) -> u64 {
        match self {
            Born::LongAgo => 4_000,
            Born::LaterLongAgo => 4_001,
            // Far enough in the future that no pause of the test matters.
            Born::Now => (1 << 53) - 1,
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Planted {
    Rubbish,
    Short,
    TooLarge,
    Future,
    DamagedEpoch,
}

fn seen() -> impl Strategy<Value = Seen> {
    prop_oneof![
        Just(Seen::Nothing),
        Just(Seen::Stored),
        Just(Seen::Something)
    ]
}

fn born() -> impl Strategy<Value = Born> {
    prop_oneof![
        Just(Born::LongAgo),
        Just(Born::LaterLongAgo),
        Just(Born::Now)
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => seen().prop_map(Step::Acquire),
        5 => Just(Step::Publish),
        1 => Just(Step::PublishOverAnothers),
        1 => Just(Step::Renew),
        2 => any::<bool>().prop_map(|cool| Step::Release { cool }),
        2 => Just(Step::Set),
        2 => Just(Step::Invalidate),
        3 => (born(), seen()).prop_map(|(born, seen)| Step::SetBorn(born, seen)),
        2 => (born(), seen()).prop_map(|(born, seen)| Step::InvalidateBorn(born, seen)),
        2 => Just(Step::Read),
        2 => Just(Step::LoseLease),
        1 => Just(Step::LoseData),
        1 => prop_oneof![
            Just(Planted::Rubbish), Just(Planted::Short), Just(Planted::TooLarge),
            Just(Planted::Future), Just(Planted::DamagedEpoch)
        ].prop_map(Step::Plant),
    ]
}

/// The answer of a store, with its epochs numbered in the order in which they first appeared.
#[derive(Debug, PartialEq)]
enum Observed {
    Nothing,
    Yes(bool),
    Epoch(usize),
    Payload(Vec<u8>),
    Held,
    Cooling,
    Refused,
    Failed(String),
}

/// One side of the comparison.
struct Side<'a> {
    world: &'a dyn StoreUnderTest,
    recording: Arc<Recording>,
    keys: Vec<StoreKey>,
    epochs: Vec<Epoch>,
    bases: HashMap<(usize, usize), Epoch>,
}

impl<'a> Side<'a> {
    fn new(world: &'a dyn StoreUnderTest, names: &[String]) -> Self {
        Side {
            world,
            recording: Recording::of(world.store(), &namespace()),
            keys: names.iter().map(|name| key(name)).collect(),
            epochs: vec![Epoch::from_micros(5_000).unwrap()],
            bases: HashMap::new(),
        }
    }

    /// The number of an epoch. A new epoch must be later than all earlier ones of this run.
    fn number(&mut self, epoch: Epoch) -> usize {
        if let Some(known) = self.epochs.iter().position(|known| *known == epoch) {
            return known;
        }
        let last = self.epochs.iter().max().unwrap();
        assert!(epoch > *last, "{epoch:?} after {last:?}");
        self.first(epoch)
    }

    fn first(&mut self, epoch: Epoch) -> usize {
        self.epochs.push(epoch);
        self.epochs.len() - 1
    }

    /// A payload in which the number of the epoch replaces the epoch.
    fn payload(&mut self, mut payload: Vec<u8>) -> Observed {
        if let Some(epoch) = envelope::epoch(&payload) {
            let number = self.number(epoch) as u64;
            payload[4..12].copy_from_slice(&number.to_be_bytes());
            payload[12..20].fill(0);
        }
        Observed::Payload(payload)
    }

    fn stored(&self, key: &StoreKey) -> Option<Epoch> {
        let payload = caller(self.world, 1).try_read(key).ok()??;
        envelope::epoch(&payload)
    }

    fn seen(&self, key: &StoreKey, seen: Seen, turn: usize) -> Option<Epoch> {
        match seen {
            Seen::Nothing => None,
            Seen::Stored => self.stored(key),
            Seen::Something => Some(self.epochs[turn % self.epochs.len()]),
        }
    }

    fn done(&mut self, stored: Stored) -> Observed {
        match stored {
            Stored::Yes { epoch } => Observed::Epoch(self.number(epoch)),
            Stored::Refused => Observed::Refused,
        }
    }

    fn run(&mut self, number: usize, at: usize, step: Step, turn: usize) -> Observed {
        let me = caller(self.world, number as u64);
        let key = self.keys[at].clone();
        let value = turn.to_be_bytes();
        match step {
            Step::Acquire(seen) => {
                let seen = self.seen(&key, seen, turn);
                match me.acquire(&key, seen) {
                    Acquired::Stored(payload) => self.payload(payload),
                    Acquired::Granted { base } => {
                        self.bases.insert((number, at), base);
                        Observed::Epoch(self.number(base))
                    }
                    Acquired::Held { .. } => Observed::Held,
                    Acquired::Cooling { .. } => Observed::Cooling,
                }
            }
            Step::Publish | Step::PublishOverAnothers => {
                let owner = match step {
                    Step::Publish => number,
                    _ => (number + 1) % 3,
                };
                let Some(base) = self.bases.get(&(owner, at)) else {
                    return Observed::Nothing;
                };
                let published = me.publish(&key, *base, &value);
                self.done(published)
            }
            Step::Renew => Observed::Yes(me.renew(&key, HOUR)),
            Step::Release { cool } => Observed::Yes(me.release(&key, cool.then_some(HOUR))),
            Step::Set => Observed::Epoch(self.number(me.set(&key, &value))),
            Step::Invalidate => Observed::Epoch(self.number(me.invalidate(&key))),
            Step::SetBorn(born, seen) => {
                let seen = self.seen(&key, seen, turn);
                self.done(me.set_born(&key, &value, born.micros(), seen))
            }
            Step::InvalidateBorn(born, seen) => {
                let seen = self.seen(&key, seen, turn);
                self.done(me.invalidate_born(&key, born.micros(), seen))
            }
            Step::Read => match me.try_read(&key) {
                Ok(None) => Observed::Nothing,
                Ok(Some(payload)) => self.payload(payload),
                Err(error) => Observed::Failed(error.class().name().to_owned()),
            },
            Step::LoseLease => {
                self.world.lose_lease(&key);
                Observed::Nothing
            }
            Step::LoseData => {
                self.world.lose_data(&key);
                Observed::Nothing
            }
            Step::Plant(what) => {
                self.world.plant(&key, planted(what));
                Observed::Nothing
            }
        }
    }

    /// All changes, once the expected number has arrived.
    fn changes(&mut self, expected: usize) -> Vec<(ChangeKind, Option<usize>, u128, u64)> {
        let changes: Vec<Change> = self.recording.wait_for(expected);
        let numbered = changes.into_iter().map(|change| {
            // A refused set may remove a value, and only the change has the epoch of the removal.
            let epoch = change.epoch.map(|epoch| {
                let known = self.epochs.iter().position(|known| *known == epoch);
                known.unwrap_or_else(|| self.first(epoch))
            });
            (change.kind, epoch, change.hash, change.origin.0)
        });
        numbered.collect()
    }
}

fn planted(what: Planted) -> Vec<u8> {
    let mut payload = everfresh::testing::store_contract::payload(&key("planted"), b"planted");
    payload[4..12].copy_from_slice(&5_000_u64.to_be_bytes());
    payload[12..20].copy_from_slice(&((1_u64 << 53) - 1 - 5_000).to_be_bytes());
    match what {
        Planted::Rubbish => {
            return b"rubbish, and quite a lot of it: more than a header has".to_vec();
        }
        Planted::Short => payload.truncate(19),
        Planted::TooLarge => payload.resize(LIMIT + 1, 7),
        Planted::Future => payload[3] = 9,
        Planted::DamagedEpoch => payload[7] ^= 1,
    }
    payload
}

struct InMemory(MemoryStore);

impl StoreUnderTest for InMemory {
    fn store(&self) -> &dyn Store {
        &self.0
    }

    fn limit(&self) -> usize {
        LIMIT
    }

    fn lose_lease(&self, key: &StoreKey) {
        self.0.lose_lease(key);
    }

    fn lose_data(&self, key: &StoreKey) {
        self.0.lose_data(key);
    }

    fn plant(&self, key: &StoreKey, bytes: Vec<u8>) {
        self.0.plant(key, bytes);
    }

    fn lease_left(&self, key: &StoreKey) -> Option<Duration> {
        self.0.lease_left(key)
    }

    fn data_left(&self, key: &StoreKey) -> Option<Duration> {
        self.0.data_left(key)
    }
}

static RUN: AtomicU64 = AtomicU64::new(0);

fn same(world: &OnServer, program: &[(usize, usize, Step)]) -> Result<(), TestCaseError> {
    let memory = InMemory(MemoryStore::new().limit(LIMIT));
    let run = RUN.fetch_add(1, Ordering::Relaxed);
    let names = [format!("{run} a"), format!("{run} b")];
    let (mut real, mut model) = (Side::new(world, &names), Side::new(&memory, &names));
    for (turn, (number, at, step)) in program.iter().enumerate() {
        let observed = real.run(*number, *at, *step, turn);
        let expected = model.run(*number, *at, *step, turn);
        prop_assert_eq!(observed, expected, "turn {}: {:?}", turn, step);
        for (ours, theirs) in real.keys.iter().zip(&model.keys) {
            let (lease, expected) = (world.lease_left(ours), memory.lease_left(theirs));
            prop_assert_eq!(
                lease.is_some(),
                expected.is_some(),
                "the lease after turn {}",
                turn
            );
        }
    }
    let expected = model.changes(0);
    prop_assert_eq!(real.changes(expected.len()), expected);
    Ok(())
}

#[test]
fn random_programs_have_the_same_answers() {
    // All programs share one server.
    let world = OnServer::new();
    let world = &world;
    let config = ProptestConfig {
        cases: 300,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    proptest!(config, |(program in vec((0..3_usize, 0..2_usize, step()), 1..60))| {
        same(world, &program)?;
    });
}
