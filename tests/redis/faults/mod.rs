//! Faults of servers. In every case no operation waits past its limit, nothing panics, errors have
//! their class, and the store recovers by itself.

mod access;
mod crashes;
mod data;
mod network;
mod pauses;
pub mod proxy;
mod refusals;
use std::time::{Duration, Instant};

use everfresh::store::{
    Acquire, Acquired, Birth, Epoch, ErrorClass, Origin, Store, StoreError, StoreKey, Token,
};
use everfresh::testing::store_contract::{HOUR, MINUTE, payload};
use futures_lite::future::block_on;

/// Ends a hang. It is far longer than the timeout of the stores, 0.3 s, so that a slow machine does
/// not reach it.
const BOUND: Duration = Duration::from_secs(20);

fn bounded<R>(operation: impl FnOnce() -> R) -> R {
    let started = Instant::now();
    let result = operation();
    assert!(started.elapsed() < BOUND, "it took {:?}", started.elapsed());
    result
}

pub fn set(store: &dyn Store, key: &StoreKey, value: &[u8]) -> Result<Epoch, StoreError> {
    let birth = Birth::latest(Origin(1));
    let set = bounded(|| block_on(store.set(key, payload(key, value), HOUR, birth)))?;
    Ok(set.epoch().unwrap())
}

pub fn read(store: &dyn Store, key: &StoreKey) -> Result<Option<Vec<u8>>, StoreError> {
    bounded(|| block_on(store.read(std::slice::from_ref(key)))).remove(0)
}

fn invalidate(store: &dyn Store, key: &StoreKey) -> Result<Epoch, StoreError> {
    let birth = Birth::latest(Origin(1));
    let removed = bounded(|| block_on(store.invalidate(key, birth)))?;
    Ok(removed.epoch().unwrap())
}

fn question(seen: Option<Epoch>) -> Acquire {
    let token = Token {
        origin: Origin(1),
        serial: 1,
    };
    let lease = MINUTE;
    Acquire { seen, token, lease }
}

fn acquire(store: &dyn Store, key: &StoreKey, seen: Option<Epoch>) -> Result<Acquired, StoreError> {
    bounded(|| block_on(store.acquire(key, question(seen))))
}

pub fn class<T: std::fmt::Debug>(result: Result<T, StoreError>) -> ErrorClass {
    result.unwrap_err().class()
}

/// Whether the error says that the connection is lost.
fn is_gone<T: std::fmt::Debug>(result: Result<T, StoreError>) -> bool {
    let gone = [ErrorClass::Unavailable, ErrorClass::TimedOut];
    result.is_err_and(|error| gone.contains(&error.class()))
}

/// Asserts that all operations work.
pub fn works(store: &dyn Store, key: &StoreKey) {
    let epoch = set(store, key, b"works").unwrap();
    assert!(read(store, key).unwrap().is_some());
    let granted = Acquired::Granted { base: epoch };
    assert_eq!(acquire(store, key, Some(epoch)), Ok(granted));
    invalidate(store, key).unwrap();
    assert_eq!(read(store, key), Ok(None));
}
