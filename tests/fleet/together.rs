//! Requests to the store are batched.

use std::cell::RefCell;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Waker};
use std::thread;
use std::time::Duration;

use everfresh::store::{
    Fault, MemoryStore, Op, Record, RecordStore, Records, StoreError, StoreKey,
};
use everfresh::{Cache, SecondLevel, Source};
use futures_lite::future::{block_on, poll_once};

use crate::support::{Fleet, Process, name, until};

#[test]
fn many_keys_are_read_in_one_request() {
    let fleet = Fleet::new();
    let (a, b) = (fleet.process(), fleet.process());
    for key in 0..64 {
        a.get(key);
    }
    a.published(64);
    let keys: Vec<u64> = (0..64).collect();
    let answers = block_on(b.cache.get_many(&keys));
    let values: Vec<u64> = answers.into_iter().map(|answer| *answer.unwrap()).collect();
    let expected: Vec<u64> = keys.iter().map(|key| a.get(*key)).collect();
    assert_eq!(values, expected);
    assert_eq!(b.chaos.calls(Op::Read), 1);
    assert_eq!(b.chaos.calls(Op::Acquire), 0);
    assert_eq!(fleet.origin.loads(), 64);
}

#[test]
fn stored_and_missing_keys_are_answered_in_order() {
    let fleet = Fleet::new();
    let a = fleet.process();
    a.cache.insert(2, 20);
    a.cache.insert(4, 40);
    until("all writes are flushed", || a.stats().pending == 0);
    let answers = block_on(a.cache.get_many(&[2, 3, 4]));
    let values: Vec<u64> = answers.into_iter().map(|answer| *answer.unwrap()).collect();
    assert_eq!(values, [20, 0, 40]);
}

/// Two processes that share the keys 0 to 3. The store keeps the reads of the second one waiting.
fn held() -> (Fleet, Process) {
    let fleet = Fleet::new();
    let (a, b) = (fleet.process(), fleet.process());
    for key in 0..4 {
        a.get(key);
    }
    a.published(4);
    b.chaos.always(Op::Read, Some(Fault::Hold));
    (fleet, b)
}

#[test]
fn a_caller_that_is_not_polled_again_holds_up_no_other_caller() {
    let (_fleet, b) = held();
    let keys = [0, 1, 2, 3];
    let mut many = pin!(b.cache.get_many(&keys));
    assert!(block_on(poll_once(many.as_mut())).is_none());
    b.chaos.wait_for_calls(Op::Read, 1);
    thread::scope(|scope| {
        let other = scope.spawn(|| b.cache.get_blocking(&2).map(|value| value.source()));
        until("the other caller waits", || b.cache.stats().coalesced == 1);
        b.chaos.let_go();
        assert_eq!(other.join().unwrap().unwrap(), Source::Store);
    });
    assert_eq!(b.chaos.calls(Op::Read), 1);
    // All of its keys are here.
    until("the reading ends", || b.cache.get_if_present(&3).is_some());
    assert!(block_on(many).into_iter().all(|answer| answer.is_ok()));
}

#[test]
fn a_single_read_that_is_not_polled_again_holds_up_no_other_caller() {
    let (_fleet, b) = held();
    let mut first = pin!(b.cache.get(&1));
    assert!(
        first
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
            .is_pending()
    );
    thread::scope(|scope| {
        let other = scope.spawn(|| b.cache.get_blocking(&1).map(|value| value.source()));
        until("the other caller waits", || b.cache.stats().coalesced == 1);
        b.chaos.let_go();
        assert_eq!(other.join().unwrap().unwrap(), Source::Store);
    });
    assert_eq!(b.chaos.calls(Op::Read), 1);
}

#[test]
fn a_caller_whose_reading_was_handed_over_is_answered_with_the_others() {
    // In a part of the rounds the first caller wakes because the store wakes who asked first.
    for _ in 0..16 {
        let (_fleet, b) = held();
        thread::scope(|scope| {
            let first = scope.spawn(|| b.cache.get_many_blocking(&[0, 1, 2, 3]));
            b.chaos.wait_for_calls(Op::Read, 1);
            let other = scope.spawn(|| b.cache.get_blocking(&2).map(|value| value.source()));
            until("the other caller waits", || b.cache.stats().coalesced == 1);
            b.chaos.let_go();
            assert_eq!(other.join().unwrap().unwrap(), Source::Store);
            // The clock stands still, so this caller has no other reason to wake.
            until("the first caller returns", || first.is_finished());
            let answers = first.join().unwrap();
            assert!(answers.into_iter().all(|answer| answer.is_ok()));
        });
    }
}

#[test]
fn the_reading_of_a_caller_that_goes_away_goes_on() {
    let (fleet, b) = held();
    let keys = [0, 1, 2, 3];
    assert!(block_on(poll_once(b.cache.get_many(&keys))).is_none());
    assert!(block_on(poll_once(b.cache.get(&1))).is_none());
    b.chaos.let_go();
    until("the values are here", || {
        keys.iter().all(|key| b.cache.get_if_present(key).is_some())
    });
    assert_eq!(b.chaos.calls(Op::Read), 1);
    assert_eq!(fleet.origin.loads(), 4);
}

#[test]
fn a_caller_that_reads_the_store_waits_no_longer_than_load_timeout() {
    let (fleet, b) = held();
    let reads: [fn(&Process) -> bool; 2] = [
        |b| {
            b.cache
                .get_blocking(&1)
                .is_err_and(|error| error.is_timeout())
        },
        |b| {
            let answers = b.cache.get_many_blocking(&[2, 3]);
            let is_timeout = |error: everfresh::Error| error.is_timeout();
            answers
                .into_iter()
                .all(|answer| answer.is_err_and(is_timeout))
        },
    ];
    for (at, read) in reads.into_iter().enumerate() {
        thread::scope(|scope| {
            let reader = scope.spawn(|| read(&b));
            b.chaos.wait_for_calls(Op::Read, at + 1);
            until("the reader returns", || {
                fleet.clock.advance(Duration::from_secs(30));
                reader.is_finished()
            });
            assert!(reader.join().unwrap());
        });
    }
}

/// A store whose reads panic.
#[derive(Debug)]
struct Broken;

impl Records for Broken {
    async fn update<T: Send>(
        &self,
        _: &StoreKey,
        _: impl FnOnce(&mut Record) -> T + Send,
    ) -> Result<T, StoreError> {
        panic!("the store is broken")
    }

    fn now(&self) -> u64 {
        1_000_000
    }
}

#[test]
fn a_panic_of_the_store_is_an_error_of_the_caller_that_reads() {
    let store = Arc::new(RecordStore::over(Broken));
    let cache: Cache<u64, u64> = Cache::builder()
        .store(SecondLevel::new(store, "broken:v1").unwrap())
        .compute(|n: &u64| n * n)
        .build()
        .unwrap();
    let is_panic = |error: everfresh::Error| error.is_panic();
    assert!(block_on(cache.get(&1)).is_err_and(is_panic));
    assert!(cache.get_blocking(&2).is_err_and(is_panic));
    let answers = block_on(cache.get_many(&[3, 4]));
    assert!(
        answers
            .into_iter()
            .all(|answer| answer.is_err_and(is_panic))
    );
}

thread_local! {
    /// The keys that the next clones read.
    static NEXT: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

static CACHE: OnceLock<Cache<Reader, u64>> = OnceLock::new();

/// A key that reads the cache when it is cloned.
#[derive(Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
struct Reader(u64);

impl Clone for Reader {
    fn clone(&self) -> Self {
        let next = NEXT.take();
        if let Some((first, rest)) = next.split_first() {
            if let Some(cache) = CACHE.get() {
                let _ = cache.get_blocking(&Reader(*first));
            }
            NEXT.set(rest.to_vec());
        }
        Reader(self.0)
    }
}

#[test]
fn a_key_may_read_another_key_when_it_is_cloned() {
    let store = Arc::new(MemoryStore::new());
    let cache: Cache<Reader, u64> = Cache::builder()
        .store(SecondLevel::new(store, "test:v1").unwrap())
        .compute(|key: &Reader| key.0)
        .build()
        .unwrap();
    let cache = CACHE.get_or_init(|| cache);
    // Keys whose versions are in one shard.
    let shard = |key: &u64| name(*key).hash() % 64;
    let keys: Vec<u64> = (0..)
        .filter(|key| shard(key) == shard(&0))
        .take(9)
        .collect();
    let reader = thread::spawn(move || {
        NEXT.set(keys[1..].to_vec());
        block_on(cache.get(&Reader(keys[0]))).map(|value| *value)
    });
    until("the reader returns", || reader.is_finished());
    assert_eq!(reader.join().unwrap().unwrap(), 0);
}
