//! The store that fails on command.
use std::slice::from_ref;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use everfresh::store::{
    Birth, ChangeKind, ChaosStore, ErrorClass, Fault, MemoryStore, Op, Store, StoreKey, StoreState,
};
use everfresh::testing::store_contract::{
    LIMIT, Recording, StoreUnderTest, caller, key, namespace, value,
};
use futures_lite::future::block_on;

struct Chaotic {
    memory: Arc<MemoryStore>,
    store: ChaosStore,
}

impl Chaotic {
    fn new() -> Self {
        let memory = Arc::new(MemoryStore::new().limit(LIMIT));
        let store = ChaosStore::new(memory.clone());
        Chaotic { memory, store }
    }
}

impl StoreUnderTest for Chaotic {
    fn store(&self) -> &dyn Store {
        &self.store
    }

    fn limit(&self) -> usize {
        LIMIT
    }

    fn lose_lease(&self, key: &StoreKey) {
        self.memory.lose_lease(key);
    }

    fn lose_data(&self, key: &StoreKey) {
        self.memory.lose_data(key);
    }

    fn plant(&self, key: &StoreKey, bytes: Vec<u8>) {
        self.memory.plant(key, bytes);
    }

    fn lease_left(&self, key: &StoreKey) -> Option<Duration> {
        self.memory.lease_left(key)
    }

    fn data_left(&self, key: &StoreKey) -> Option<Duration> {
        self.memory.data_left(key)
    }
}

// Without faults it keeps every contract.
everfresh::store_contract_tests!(Chaotic::new());

#[test]
fn it_fails_before_and_after_an_operation() {
    let world = Chaotic::new();
    let (k, a) = (key("a"), caller(&world, 1));
    world
        .store
        .next(Op::Invalidate, Fault::Fail(ErrorClass::Refused));
    world
        .store
        .next(Op::Invalidate, Fault::Lose(ErrorClass::TimedOut));
    a.set(&k, b"one");
    let invalidate = || block_on(world.store.invalidate(&k, Birth::latest(a.token.origin)));
    assert_eq!(invalidate().unwrap_err().class(), ErrorClass::Refused);
    assert!(a.read(&k).is_some());
    assert_eq!(invalidate().unwrap_err().class(), ErrorClass::TimedOut);
    assert!(a.read(&k).is_none());
    invalidate().unwrap();
    assert_eq!(world.store.calls(Op::Invalidate), 3);
    assert_eq!(world.store.stats().errors(ErrorClass::TimedOut), 1);
}

#[test]
fn it_hangs_and_holds_operations() {
    let world = Chaotic::new();
    let (k, a) = (key("a"), caller(&world, 1));
    a.set(&k, b"one");
    let context = &mut Context::from_waker(Waker::noop());
    world.store.always(Op::Read, Some(Fault::Hang));
    let mut hangs = world.store.read(from_ref(&k));
    assert!(hangs.as_mut().poll(context).is_pending());
    world.store.always(Op::Read, None);
    world.store.next(Op::Read, Fault::Hold);
    world.store.next(Op::Read, Fault::HoldAnswer);
    let mut late = world.store.read(from_ref(&k));
    let mut early = world.store.read(from_ref(&k));
    assert!(late.as_mut().poll(context).is_pending());
    assert!(early.as_mut().poll(context).is_pending());
    a.set(&k, b"two");
    world.store.let_go();
    assert!(hangs.as_mut().poll(context).is_pending());
    let read = |answers: Vec<Result<Option<Vec<u8>>, _>>| {
        let answer: Result<_, everfresh::store::StoreError> = answers.into_iter().next().unwrap();
        value(&k, &answer.unwrap().unwrap())
    };
    assert_eq!(read(block_on(late)), b"two");
    assert_eq!(read(block_on(early)), b"one");
}

#[test]
fn it_damages_payloads() {
    let world = Chaotic::new();
    let (k, a) = (key("a"), caller(&world, 1));
    a.set(&k, b"one");
    world.store.next(Op::Read, Fault::Corrupt);
    let damaged = a.try_read(&k).unwrap().unwrap();
    let error = everfresh::testing::store_contract::raw()
        .open(&k, &damaged)
        .unwrap_err();
    assert_eq!(error, everfresh::store::PayloadError::Checksum);
    assert_eq!(a.read(&k).unwrap().0, b"one");
}

#[test]
fn it_disconnects() {
    let world = Chaotic::new();
    let recording = Recording::of(world.store(), &namespace());
    let (k, a) = (key("a"), caller(&world, 1));
    let gaps = world.store.gaps();
    world.store.disconnect();
    assert!(matches!(world.store.state(), StoreState::Down(_)));
    assert_eq!(a.try_read(&k).unwrap_err().class(), ErrorClass::Unavailable);
    // A change of another process, of which no listener here is notified.
    block_on(world.memory.invalidate(&k, Birth::latest(a.token.origin))).unwrap();
    world.store.reconnect();
    assert!(world.store.state().is_up());
    assert_eq!(world.store.gaps(), gaps + 1);
    assert_eq!(recording.gaps(), [gaps + 1]);
    assert_eq!(recording.changes(), []);
    a.invalidate(&k);
    assert_eq!(recording.wait_for(1)[0].kind, ChangeKind::Invalidated);
}

#[test]
fn it_holds_and_loses_changes() {
    let world = Chaotic::new();
    let recording = Recording::of(world.store(), &namespace());
    let (k, a) = (key("a"), caller(&world, 1));
    world.store.hold_changes();
    a.set(&k, b"one");
    a.invalidate(&k);
    assert_eq!(recording.changes(), []);
    world.store.let_changes_go();
    let kinds: Vec<_> = recording
        .wait_for(2)
        .iter()
        .map(|change| change.kind)
        .collect();
    assert_eq!(kinds, [ChangeKind::Set, ChangeKind::Invalidated]);
    world.store.lose_changes(true);
    a.set(&k, b"two");
    world.store.lose_changes(false);
    a.invalidate(&k);
    assert_eq!(recording.wait_for(3)[2].kind, ChangeKind::Invalidated);
}

#[test]
fn a_test_can_wait_for_calls() {
    let world = Chaotic::new();
    std::thread::scope(|scope| {
        scope.spawn(|| caller(&world, 1).read(&key("a")));
        world.store.wait_for_calls(Op::Read, 1);
    });
    assert_eq!(world.store.calls(Op::Read), 1);
}
