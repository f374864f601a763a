//! The shipped contracts find stores that are wrong.

use std::panic::catch_unwind;
use std::time::Duration;

use everfresh::BoxFuture;
use everfresh::store::{
    Acquire, Acquired, Birth, ChangeListener, Epoch, MemoryStore, Namespace, Publish, Reply, Store,
    StoreError, StoreKey, StoreState, StoreStats, Stored, Token, envelope,
};
use everfresh::testing::store_contract::{self, HOUR, LIMIT, StoreUnderTest};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Wrong {
    /// Nothing is wrong.
    Nothing,
    /// Every payload has the same epoch.
    EpochStandsStill,
    /// A result is stored although the key was invalidated since its load began.
    PublishAfterInvalidate,
    /// A lease that is held is granted to a second caller.
    LeaseGrantedTwice,
    /// The last write to arrive wins, whenever it was made.
    LastToArrive,
}

/// A store in memory with one fault.
#[derive(Debug)]
struct Faulty {
    memory: MemoryStore,
    wrong: Wrong,
}

type Answer<'a, T> = Reply<'a, Result<T, StoreError>>;

impl Faulty {
    fn new(wrong: Wrong) -> Self {
        Faulty {
            memory: MemoryStore::new().limit(LIMIT),
            wrong,
        }
    }

    fn broken(wrong: Wrong) -> Vec<&'static str> {
        store_contract::broken(|| Faulty::new(wrong))
    }

    fn born(&self, birth: Birth) -> Birth {
        match self.wrong {
            Wrong::LastToArrive => Birth::latest(birth.origin),
            _ => birth,
        }
    }

    /// Gives a stored payload the epoch that all others have.
    fn stand_still(&self, key: &StoreKey, mut payload: Vec<u8>, epoch: Epoch) -> Epoch {
        if self.wrong != Wrong::EpochStandsStill {
            return epoch;
        }
        let always = Epoch::from_micros(1_700_000_000_000_000).unwrap();
        envelope::stamp(&mut payload, always);
        self.memory.plant(key, payload);
        always
    }
}

impl Store for Faulty {
    fn read<'a>(
        &'a self,
        keys: &'a [StoreKey],
    ) -> Reply<'a, Vec<Result<Option<Vec<u8>>, StoreError>>> {
        self.memory.read(keys)
    }

    fn acquire<'a>(&'a self, key: &'a StoreKey, ask: Acquire) -> Answer<'a, Acquired> {
        Box::pin(async move {
            let acquired = self.memory.acquire(key, ask).await?;
            match acquired {
                Acquired::Held { .. } if self.wrong == Wrong::LeaseGrantedTwice => {
                    self.memory.lose_lease(key);
                    self.memory.acquire(key, ask).await
                }
                acquired => Ok(acquired),
            }
        })
    }

    fn publish<'a>(&'a self, key: &'a StoreKey, publish: Publish) -> Answer<'a, Stored> {
        Box::pin(async move {
            let (payload, origin) = (publish.payload.clone(), publish.token.origin);
            let epoch = match self.memory.publish(key, publish).await? {
                Stored::Yes { epoch } => epoch,
                Stored::Refused if self.wrong == Wrong::PublishAfterInvalidate => {
                    let birth = Birth::latest(origin);
                    let set = self.memory.set(key, payload.clone(), HOUR, birth).await?;
                    set.epoch().unwrap()
                }
                Stored::Refused => return Ok(Stored::Refused),
            };
            let epoch = self.stand_still(key, payload, epoch);
            Ok(Stored::Yes { epoch })
        })
    }

    fn renew<'a>(&'a self, key: &'a StoreKey, token: Token, lease: Duration) -> Answer<'a, bool> {
        self.memory.renew(key, token, lease)
    }

    fn release<'a>(
        &'a self,
        key: &'a StoreKey,
        token: Token,
        cool_down: Option<Duration>,
    ) -> Answer<'a, bool> {
        self.memory.release(key, token, cool_down)
    }

    fn set<'a>(
        &'a self,
        key: &'a StoreKey,
        payload: Vec<u8>,
        ttl: Duration,
        birth: Birth,
    ) -> Answer<'a, Stored> {
        Box::pin(async move {
            let birth = self.born(birth);
            match self.memory.set(key, payload.clone(), ttl, birth).await? {
                Stored::Refused => Ok(Stored::Refused),
                Stored::Yes { epoch } => {
                    let epoch = self.stand_still(key, payload, epoch);
                    Ok(Stored::Yes { epoch })
                }
            }
        })
    }

    fn invalidate<'a>(&'a self, key: &'a StoreKey, birth: Birth) -> Answer<'a, Stored> {
        self.memory.invalidate(key, self.born(birth))
    }

    fn now(&self) -> Option<u64> {
        self.memory.now()
    }

    fn gaps(&self) -> u64 {
        self.memory.gaps()
    }

    fn state(&self) -> StoreState {
        self.memory.state()
    }

    fn stats(&self) -> StoreStats {
        self.memory.stats()
    }

    fn subscribe(&self, namespace: &Namespace, listener: std::sync::Weak<dyn ChangeListener>) {
        self.memory.subscribe(namespace, listener);
    }

    fn spawn(&self, work: BoxFuture) {
        self.memory.spawn(work);
    }
}

impl StoreUnderTest for Faulty {
    fn store(&self) -> &dyn Store {
        self
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

#[test]
fn a_right_store_breaks_no_contract() {
    assert_eq!(Faulty::broken(Wrong::Nothing), [""; 0]);
    store_contract::check(|| Faulty::new(Wrong::Nothing));
}

#[test]
fn an_epoch_that_does_not_rise_is_found() {
    let broken = Faulty::broken(Wrong::EpochStandsStill);
    assert!(broken.contains(&"epochs::epochs_only_grow"), "{broken:?}");
    assert!(broken.contains(&"leases::one_successor_of_each_epoch"));
}

#[test]
fn a_publish_after_an_invalidation_is_found() {
    let broken = Faulty::broken(Wrong::PublishAfterInvalidate);
    for contract in ["load", "refresh"] {
        let contract = format!("leases::an_invalidation_fences_a_{contract}");
        assert!(broken.contains(&&*contract), "{broken:?}");
    }
}

#[test]
fn a_lease_that_is_granted_twice_is_found() {
    let broken = Faulty::broken(Wrong::LeaseGrantedTwice);
    assert!(
        broken.contains(&"leases::one_lease_at_a_time"),
        "{broken:?}"
    );
    assert!(broken.contains(&"leases::one_of_many_callers_is_granted_the_lease"));
}

#[test]
fn an_order_of_writes_by_their_arrival_is_found() {
    let broken = Faulty::broken(Wrong::LastToArrive);
    for contract in [
        "writes::a_write_older_than_a_stored_write_is_refused",
        "writes::a_set_that_waited_is_not_stored_over_a_loaded_value",
    ] {
        assert!(broken.contains(&contract), "{broken:?}");
    }
}

#[test]
fn the_panic_names_the_broken_contracts() {
    let checked = catch_unwind(|| {
        store_contract::check(|| Faulty::new(Wrong::LeaseGrantedTwice));
    });
    let panic = checked.unwrap_err();
    let message = panic.downcast_ref::<String>().unwrap();
    assert!(message.contains("leases::one_lease_at_a_time"), "{message}");
}

#[test]
fn every_contract_has_a_name_of_its_own() {
    let names: std::collections::HashSet<_> = store_contract::names().collect();
    assert_eq!(names.len(), 54);
    assert_eq!(names.len(), store_contract::names().count());
}
