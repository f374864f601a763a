//! The scripts on a real server against the store in memory: random programs, the same answers.
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
    /// Over the base of another caller.
    PublishOverAnothers,
    Renew,
    Release {
        cool: bool,
    },
    Set,
    Invalidate,
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
enum Planted {
    Rubbish,
    Short,
    TooLarge,
    Future,
    DamagedEpoch,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => prop_oneof![Just(Seen::Nothing), Just(Seen::Stored), Just(Seen::Something)].prop_map(Step::Acquire),
        5 => Just(Step::Publish),
        1 => Just(Step::PublishOverAnothers),
        1 => Just(Step::Renew),
        2 => any::<bool>().prop_map(|cool| Step::Release { cool }),
        2 => Just(Step::Set),
        2 => Just(Step::Invalidate),
        2 => Just(Step::Read),
        2 => Just(Step::LoseLease),
        1 => Just(Step::LoseData),
        1 => prop_oneof![
            Just(Planted::Rubbish), Just(Planted::Short), Just(Planted::TooLarge),
            Just(Planted::Future), Just(Planted::DamagedEpoch)
        ].prop_map(Step::Plant),
    ]
}

/// What a store said, with its epochs numbered in the order in which they were first seen.
#[derive(Debug, PartialEq)]
enum Said {
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
    heard: Arc<Recording>,
    keys: Vec<StoreKey>,
    epochs: Vec<Epoch>,
    bases: HashMap<(usize, usize), Epoch>,
}

impl<'a> Side<'a> {
    fn new(world: &'a dyn StoreUnderTest, names: &[String]) -> Self {
        Side {
            world,
            heard: Recording::of(world.store(), &namespace()),
            keys: names.iter().map(|name| key(name)).collect(),
            epochs: vec![Epoch::from_micros(5_000).unwrap()],
            bases: HashMap::new(),
        }
    }

    /// The number of an epoch; a new one must be later than all that this run has seen.
    fn number(&mut self, epoch: Epoch) -> usize {
        if let Some(known) = self.epochs.iter().position(|known| *known == epoch) {
            return known;
        }
        let last = self.epochs.iter().max().unwrap();
        assert!(epoch > *last, "{epoch:?} after {last:?}");
        self.epochs.push(epoch);
        self.epochs.len() - 1
    }

    /// A payload, with the number of its epoch in the place of the epoch.
    fn payload(&mut self, mut payload: Vec<u8>) -> Said {
        if let Some(epoch) = envelope::epoch(&payload) {
            let number = self.number(epoch) as u64;
            payload[4..12].copy_from_slice(&number.to_be_bytes());
            payload[12..20].fill(0);
        }
        Said::Payload(payload)
    }

    fn stored(&self, key: &StoreKey) -> Option<Epoch> {
        let payload = caller(self.world, 1).try_read(key).ok()??;
        envelope::epoch(&payload)
    }

    fn run(&mut self, who: usize, at: usize, step: Step, turn: usize) -> Said {
        let me = caller(self.world, who as u64);
        let key = self.keys[at].clone();
        let value = turn.to_be_bytes();
        match step {
            Step::Acquire(seen) => {
                let seen = match seen {
                    Seen::Nothing => None,
                    Seen::Stored => self.stored(&key),
                    Seen::Something => Some(self.epochs[turn % self.epochs.len()]),
                };
                match me.acquire(&key, seen) {
                    Acquired::Stored(payload) => self.payload(payload),
                    Acquired::Granted { base } => {
                        self.bases.insert((who, at), base);
                        Said::Epoch(self.number(base))
                    }
                    Acquired::Held { .. } => Said::Held,
                    Acquired::Cooling { .. } => Said::Cooling,
                }
            }
            Step::Publish | Step::PublishOverAnothers => {
                let whose = match step {
                    Step::Publish => who,
                    _ => (who + 1) % 3,
                };
                let Some(base) = self.bases.get(&(whose, at)) else {
                    return Said::Nothing;
                };
                match me.publish(&key, *base, &value) {
                    Stored::Yes { epoch } => Said::Epoch(self.number(epoch)),
                    Stored::Refused => Said::Refused,
                }
            }
            Step::Renew => Said::Yes(me.renew(&key, HOUR)),
            Step::Release { cool } => Said::Yes(me.release(&key, cool.then_some(HOUR))),
            Step::Set => Said::Epoch(self.number(me.set(&key, &value))),
            Step::Invalidate => Said::Epoch(self.number(me.invalidate(&key))),
            Step::Read => match me.try_read(&key) {
                Ok(None) => Said::Nothing,
                Ok(Some(payload)) => self.payload(payload),
                Err(error) => Said::Failed(error.class().name().to_owned()),
            },
            Step::LoseLease => {
                self.world.lose_lease(&key);
                Said::Nothing
            }
            Step::LoseData => {
                self.world.lose_data(&key);
                Said::Nothing
            }
            Step::Plant(what) => {
                self.world.plant(&key, planted(what));
                Said::Nothing
            }
        }
    }

    /// All that was told, once as much as expected is there.
    fn told(&mut self, expected: usize) -> Vec<(ChangeKind, Option<usize>, u128, u64)> {
        let changes: Vec<Change> = self.heard.wait_for(expected);
        let numbered = changes.into_iter().map(|change| {
            let epoch = change.epoch.map(|epoch| self.number(epoch));
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
    for (turn, (who, at, step)) in program.iter().enumerate() {
        let said = real.run(*who, *at, *step, turn);
        let expected = model.run(*who, *at, *step, turn);
        prop_assert_eq!(said, expected, "turn {}: {:?}", turn, step);
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
    let expected = model.told(0);
    prop_assert_eq!(real.told(expected.len()), expected);
    Ok(())
}

#[test]
fn random_programs_have_the_same_answers() {
    // One server for all of them; it ends with the test.
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
