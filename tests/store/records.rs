//! A store over records that are slow or fail: listeners get a change once it is stored.

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use everfresh::store::{
    Birth, Change, ChangeListener, ErrorClass, Origin, Record, RecordStore, Records, Reply, Store,
    StoreError, StoreKey,
};
use everfresh::testing::store_contract::{HOUR, LIMIT, Recording, caller, key, namespace, payload};
use futures_lite::future::block_on;

/// Encoded records in a map, under a clock that stands still.
#[derive(Debug, Default)]
struct Slow {
    map: Mutex<HashMap<StoreKey, Vec<u8>>>,
    fault: Arc<Fault>,
}

#[derive(Debug, Default)]
struct Fault {
    /// Every update is an error.
    fails: AtomicBool,
    /// The update of the key "slow" does not end.
    hangs: AtomicBool,
}

impl Records for Slow {
    async fn update<T: Send>(
        &self,
        key: &StoreKey,
        step: impl FnOnce(&mut Record) -> T + Send,
    ) -> Result<T, StoreError> {
        let result = {
            let mut map = self.map.lock().unwrap();
            let mut record = Record::from_bytes(map.get(key).cloned().unwrap_or_default());
            let result = step(&mut record);
            if self.fault.fails.load(SeqCst) {
                return Err(StoreError::new(ErrorClass::Busy, ""));
            }
            match record.is_empty() {
                true => map.remove(key),
                false => map.insert(key.clone(), record.to_bytes()),
            };
            result
        };
        let is_slow = *key == self::key("slow");
        poll_fn(|_| match is_slow && self.fault.hangs.load(SeqCst) {
            true => Poll::Pending,
            false => Poll::Ready(()),
        })
        .await;
        Ok(result)
    }

    fn now(&self) -> u64 {
        1_700_000_000_000_000
    }
}

fn new() -> RecordStore<Slow> {
    RecordStore::over(Slow::default()).limit(LIMIT)
}

fn with_fault() -> (RecordStore<Slow>, Arc<Fault>) {
    let fault = Arc::new(Fault::default());
    let records = Slow {
        map: Mutex::default(),
        fault: fault.clone(),
    };
    (RecordStore::over(records).limit(LIMIT), fault)
}

fn poll<T>(reply: &mut Reply<'_, T>) -> Poll<T> {
    reply.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

everfresh::store_contract_tests!(new());

#[test]
fn an_error_of_the_records_is_returned_and_counted() {
    let (store, fault) = with_fault();
    let (k, other) = (key("a"), key("b"));
    let set = caller(&store, 1).set(&k, b"one");
    fault.fails.store(true, SeqCst);
    let busy = |error: StoreError| error.class() == ErrorClass::Busy;
    let (keys, origin) = ([k.clone(), other], Origin(1));
    let answers = block_on(store.read(&keys));
    assert_eq!(answers.len(), 2);
    assert!(answers.into_iter().all(|answer| answer.is_err_and(busy)));
    assert!(block_on(store.invalidate(&k, Birth::latest(origin))).is_err_and(busy));
    let token = caller(&store, 1).token;
    assert!(block_on(store.renew(&k, token, HOUR)).is_err_and(busy));
    assert!(block_on(store.release(&k, token, None)).is_err_and(busy));
    assert_eq!(store.stats().errors(ErrorClass::Busy), 5);

    fault.fails.store(false, SeqCst);
    let read = caller(&store, 1).read(&k);
    assert_eq!(read, Some((b"one".to_vec(), set)));
}

#[test]
fn listeners_get_a_change_once_it_is_stored_and_in_order() {
    let (store, fault) = with_fault();
    let recording = Recording::of(&store, &namespace());
    let (slow, quick) = (key("slow"), key("quick"));
    fault.hangs.store(true, SeqCst);
    let mut reply = store.set(
        &slow,
        payload(&slow, b"one"),
        HOUR,
        Birth::latest(Origin(1)),
    );
    assert!(poll(&mut reply).is_pending());
    caller(&store, 2).set(&quick, b"two");
    assert_eq!(recording.changes(), []);

    fault.hangs.store(false, SeqCst);
    assert!(poll(&mut reply).is_ready());
    let received = recording.changes();
    let hashes: Vec<_> = received.iter().map(|change| change.hash).collect();
    assert_eq!(hashes, [slow.hash(), quick.hash()]);
}

#[test]
fn a_cancelled_operation_holds_up_no_change() {
    let (store, fault) = with_fault();
    let recording = Recording::of(&store, &namespace());
    let (slow, quick) = (key("slow"), key("quick"));
    fault.hangs.store(true, SeqCst);
    let mut reply = store.set(
        &slow,
        payload(&slow, b"one"),
        HOUR,
        Birth::latest(Origin(1)),
    );
    assert!(poll(&mut reply).is_pending());
    drop(reply);
    caller(&store, 2).set(&quick, b"two");
    // The first one may have taken effect, and has, so the listeners get it.
    assert_eq!(recording.changes().len(), 2);
}

/// A listener whose user's code panics.
struct Panics;

impl ChangeListener for Panics {
    fn changed(&self, _: &Change) {
        panic!("a value that panics when it is dropped");
    }

    fn reconnected(&self, _: u64) {}
}

#[test]
fn a_listener_that_panics_stops_no_later_notification() {
    let (store, _) = with_fault();
    let recording = Recording::of(&store, &namespace());
    let panics: Arc<dyn ChangeListener> = Arc::new(Panics);
    store.subscribe(&namespace(), Arc::downgrade(&panics));
    let key = key("key");
    caller(&store, 1).set(&key, b"one");
    drop(panics);
    caller(&store, 1).set(&key, b"two");
    assert_eq!(recording.changes().len(), 2);
}
