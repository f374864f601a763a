//! The contracts on the store in memory, and its own behaviour.
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dev_support::until;
use everfresh::ManualClock;
use everfresh::store::{Acquire, Acquired, MemoryStore, Origin, Store, StoreKey, Token};
use everfresh::testing::store_contract::{
    HOUR, LIMIT, MINUTE, Recording, StoreUnderTest, caller, key, namespace,
};
use futures_lite::future::block_on;

struct InMemory {
    store: MemoryStore,
    clock: ManualClock,
}

impl InMemory {
    fn new() -> Self {
        let clock = ManualClock::new();
        let store = MemoryStore::with_clock(&clock).limit(LIMIT);
        InMemory { store, clock }
    }
}

impl StoreUnderTest for InMemory {
    fn store(&self) -> &dyn Store {
        &self.store
    }

    fn limit(&self) -> usize {
        LIMIT
    }

    fn lose_lease(&self, key: &StoreKey) {
        self.store.lose_lease(key);
    }

    fn lose_data(&self, key: &StoreKey) {
        self.store.lose_data(key);
    }

    fn plant(&self, key: &StoreKey, bytes: Vec<u8>) {
        self.store.plant(key, bytes);
    }

    fn lease_left(&self, key: &StoreKey) -> Option<Duration> {
        self.store.lease_left(key)
    }

    fn data_left(&self, key: &StoreKey) -> Option<Duration> {
        self.store.data_left(key)
    }
}

everfresh::store_contract_tests!(InMemory::new());

#[test]
fn leases_and_payloads_expire() {
    let world = InMemory::new();
    let (k, a, b) = (key("a"), caller(&world, 1), caller(&world, 2));
    let nano = Duration::from_nanos(1);
    let base = a.granted(&k, None);
    world.clock.advance(MINUTE - nano);
    assert!(b.is_held(&k, None));
    world.clock.advance(nano);
    let other = b.granted(&k, None);
    let epoch = b.published(&k, other, b"one");
    assert!(other > base);
    world.clock.advance(HOUR - nano);
    assert_eq!(a.read(&k).unwrap().1, epoch);
    world.clock.advance(nano);
    assert_eq!(a.read(&k), None);
    a.granted_over_nothing(&k);
}

#[test]
fn a_cool_down_passes() {
    let world = InMemory::new();
    let (k, a) = (key("a"), caller(&world, 1));
    a.granted(&k, None);
    a.release(&k, Some(MINUTE));
    assert!(matches!(a.acquire(&k, None), Acquired::Cooling { left } if left == MINUTE));
    world.clock.advance(MINUTE);
    a.granted(&k, None);
}

#[test]
fn epochs_are_the_time_of_its_clock() {
    let world = InMemory::new();
    let (k, a) = (key("a"), caller(&world, 1));
    let first = a.set(&k, b"one");
    assert_eq!(world.store.now(), Some(first.micros()));
    world.clock.advance(Duration::from_micros(10));
    assert_eq!(a.set(&k, b"two").micros(), first.micros() + 10);
    // If the clock stands still, the epoch is the next number.
    assert_eq!(a.set(&k, b"three").micros(), first.micros() + 11);
}

#[test]
fn expired_payloads_are_not_kept_for_ever() {
    let world = InMemory::new();
    let a = caller(&world, 1);
    for turn in 0..10 {
        for at in 0..200 {
            a.set(&key(&format!("{turn} {at}")), b"value");
        }
        world.clock.advance(HOUR);
    }
    assert!(world.store.len() < 1_000, "{}", world.store.len());
}

#[test]
fn a_flush_loses_everything() {
    let world = InMemory::new();
    let (k, a) = (key("a"), caller(&world, 1));
    let epoch = a.set(&k, b"one");
    a.granted(&k, Some(epoch));
    world.store.flush();
    assert_eq!(a.read(&k), None);
    assert_eq!(
        a.publish(&k, epoch, b"two"),
        everfresh::store::Stored::Refused
    );
}

#[test]
fn listeners_are_notified_of_a_reconnection() {
    let world = InMemory::new();
    let recording = Recording::of(world.store(), &namespace());
    let before = world.store.gaps();
    world.store.reconnect();
    assert_eq!(world.store.gaps(), before + 1);
    assert_eq!(recording.gaps(), [before + 1]);
}

#[test]
fn background_work_runs_to_its_end() {
    let world = InMemory::new();
    let done = Arc::new(AtomicUsize::new(0));
    for turn in 0..50 {
        let (done, clock) = (done.clone(), world.clock.clone());
        world.store.spawn(Box::pin(async move {
            if turn == 7 {
                panic!("only this future ends");
            }
            for _ in 0..turn {
                futures_lite::future::yield_now().await;
            }
            drop(clock);
            done.fetch_add(1, Ordering::SeqCst);
        }));
    }
    until("all but one are done", || done.load(Ordering::SeqCst) == 49);
}

#[test]
fn background_work_ends_with_the_store() {
    struct Dropped(Arc<AtomicUsize>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let dropped = Arc::new(AtomicUsize::new(0));
    let store = MemoryStore::new();
    let held = Dropped(dropped.clone());
    store.spawn(Box::pin(async move {
        let _held = held;
        loop {
            futures_lite::future::yield_now().await;
        }
    }));
    drop(store);
    until("its futures are dropped", || {
        dropped.load(Ordering::SeqCst) == 1
    });
}

#[test]
fn a_reply_does_nothing_until_it_is_polled() {
    let world = InMemory::new();
    let k = key("a");
    let ask = Acquire {
        seen: None,
        token: Token {
            origin: Origin::random(),
            serial: 1,
        },
        lease: MINUTE,
    };
    let reply = world.store.acquire(&k, ask);
    caller(&world, 2).granted(&k, None);
    assert!(matches!(block_on(reply), Ok(Acquired::Held { .. })));
}
