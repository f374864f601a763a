//! The auto traits and common traits of every public type: `Send`, `Sync`, `Clone`, `Debug` and
//! unwind safety.

use std::fmt::Debug;
use std::panic::{RefUnwindSafe, UnwindSafe};

use everfresh::*;

use crate::support::*;

fn shared<T: Send + Sync>() {}
fn unwinds<T: UnwindSafe + RefUnwindSafe>() {}
fn unpinned<T: Unpin>() {}
fn cloned<T: Clone>() {}
fn printed<T: Debug>() {}
fn an_error<T: std::error::Error + Send + Sync + 'static>() {}
fn sent<T: Send>(value: T) -> T {
    value
}

type Key = String;
type Value = Vec<u8>;

#[test]
fn public_types_are_send_and_sync() {
    shared::<Cache<Key, Value>>();
    shared::<Cached<Key, Value>>();
    shared::<Cached<(), Value>>();
    shared::<Error>();
    shared::<BuildError>();
    shared::<Loaded<Value>>();
    shared::<Request<Key, Value>>();
    shared::<Stats>();
    shared::<Histogram>();
    shared::<Clock>();
    shared::<ManualClock>();
    shared::<Freshness>();
    shared::<Source>();
    shared::<CountingLoader<Key, Value>>();
    shared::<InjectedFailure>();
    // A value needs neither `Clone` nor `Debug`.
    struct Plain;
    shared::<Cache<u64, Plain>>();
    shared::<Cached<u64, Plain>>();
}

#[test]
fn public_types_may_be_moved_cloned_and_printed() {
    unpinned::<Cache<Key, Value>>();
    unpinned::<Cached<Key, Value>>();
    unpinned::<Builder<Key, Value>>();
    cloned::<Cache<Key, Value>>();
    cloned::<Cached<Key, Value>>();
    cloned::<Error>();
    cloned::<Loaded<Value>>();
    cloned::<Stats>();
    cloned::<Histogram>();
    cloned::<Clock>();
    cloned::<ManualClock>();
    printed::<Cache<Key, Value>>();
    printed::<Cached<Key, Value>>();
    printed::<Builder<Key, Value>>();
    printed::<Request<Key, Value>>();
    printed::<Loaded<Value>>();
    printed::<Stats>();
    printed::<Clock>();
    printed::<ManualClock>();
    an_error::<Error>();
    an_error::<BuildError>();
    an_error::<InjectedFailure>();
    struct Plain;
    cloned::<Cached<u64, Plain>>();
    cloned::<Cache<u64, Plain>>();
    printed::<Cache<u64, Plain>>();
}

#[test]
fn plain_data_survives_unwinding() {
    unwinds::<Stats>();
    unwinds::<Histogram>();
    unwinds::<Freshness>();
    unwinds::<Source>();
    unwinds::<Loaded<Value>>();
    unwinds::<InjectedFailure>();
}

#[test]
fn futures_of_reads_may_be_sent_and_a_value_held_across_an_await() {
    let clock = ManualClock::new();
    let cache = computing(builder(&clock), &gates::numbering());
    let future = Box::pin(sent(async {
        let held = cache.get(&1).await?;
        let refreshed = cache.refresh(&1).await?;
        // The value is still alive, although it was replaced.
        Ok::<_, Error>((*held, *refreshed, held.source()))
    }));
    assert_eq!(wait(future).unwrap(), (1, 2, Source::Loaded));
}

#[test]
fn a_read_derefs_and_prints_as_its_value() {
    let cache: Cache<String, String> = Cache::builder()
        .compute(|key: &String| key.to_uppercase())
        .build()
        .unwrap();
    // Looks up by a borrowed form of the key.
    let read = cache.get_blocking("abc").unwrap();
    assert_eq!(read.len(), 3);
    assert_eq!(read.as_ref(), "ABC");
    assert_eq!(read.to_string(), "ABC");
    assert_eq!(read.clone().as_str(), "ABC");
    let debug = format!("{read:?}");
    assert!(
        debug.contains("\"ABC\"") && debug.contains("Loaded"),
        "{debug}"
    );
    assert!(cache.contains_key("abc") && cache.invalidate("abc"));
    let debug = format!("{cache:?}");
    assert!(
        debug.contains("everfresh") && debug.contains("len: 0"),
        "{debug}"
    );
    assert_eq!(cache.name(), "everfresh");
}

#[test]
fn reads_are_equal_if_their_values_are() {
    let clock = ManualClock::new();
    let cache: Cache<u64, Vec<u64>> = builder(&clock)
        .compute(|key: &u64| vec![key % 10])
        .build()
        .unwrap();
    let first = cache.get_blocking(&1).unwrap();
    clock.advance(secs(15));
    let other = cache.get_blocking(&11).unwrap();
    assert_eq!(first, other, "keys, ages and sources do not count");
    assert_ne!(first, cache.get_blocking(&2).unwrap());
    assert_eq!((*first.key(), *other.key()), (1, 11));
    // A clone is the same read; the value is cloned by name.
    let again = first.clone();
    assert_eq!((&again, again.age()), (&first, first.age()));
    assert!(std::ptr::eq(&*again, &*first));
    let value: Vec<u64> = Vec::clone(&first);
    assert!(!std::ptr::eq(&value, &*first));
}

#[test]
fn the_remaining_fresh_time_counts_from_the_read() {
    let clock = ManualClock::new();
    let cache = computing(builder(&clock), &gates::numbering());
    cache.insert(1, 1);
    assert_eq!(cache.peek(&1).unwrap().fresh_remaining(), secs(10));
    clock.advance(secs(4));
    let read = cache.peek(&1).unwrap();
    clock.advance(secs(2));
    assert_eq!(read.fresh_remaining(), secs(6), "as it was at the read");
    assert_eq!(cache.peek(&1).unwrap().fresh_remaining(), secs(4));
    clock.advance(secs(4));
    for _ in 0..2 {
        let stale = cache.peek(&1).unwrap();
        assert!(stale.freshness().is_stale());
        assert_eq!(stale.fresh_remaining(), secs(0));
        clock.advance(secs(10));
    }
}

#[test]
fn a_read_serializes_as_its_value() {
    #[derive(serde::Serialize)]
    struct Answer {
        score: Cached<u64, Option<f64>>,
    }
    let cache: Cache<u64, Option<f64>> = builder(&ManualClock::new())
        .compute(|key: &u64| (*key > 0).then_some(0.5))
        .build()
        .unwrap();
    for (key, expected) in [(0, r#"{"score":null}"#), (1, r#"{"score":0.5}"#)] {
        let score = cache.get_blocking(&key).unwrap();
        assert_eq!(serde_json::to_string(&Answer { score }).unwrap(), expected);
    }
}

#[test]
fn another_hasher_may_be_used() {
    let cache = Cache::<u64, u64>::builder()
        .hasher(std::hash::RandomState::new())
        .compute(|key: &u64| key + 1)
        .build()
        .unwrap();
    assert_eq!(*cache.get_blocking(&1).unwrap(), 2);
    // A hasher with a single hash is slow, but correct.
    #[derive(Default)]
    struct Same;
    impl std::hash::Hasher for Same {
        fn write(&mut self, _: &[u8]) {}
        fn finish(&self) -> u64 {
            7
        }
    }
    let cache = Cache::<u64, u64>::builder()
        .capacity(100)
        .hasher(std::hash::BuildHasherDefault::<Same>::default())
        .compute(|key: &u64| key + 1)
        .build()
        .unwrap();
    for key in 0..50 {
        assert_eq!(*cache.get_blocking(&key).unwrap(), key + 1);
    }
    assert_eq!(cache.len(), 13, "a single hash can fill only one set");
}

#[test]
fn system_clocks_work_too() {
    for clock in [Clock::coarse(), Clock::precise()] {
        let cache: Cache<u64, u64> = Cache::builder()
            .clock(clock)
            .fresh_for(secs(1_000_000))
            .compute(|key: &u64| *key)
            .build()
            .unwrap();
        cache.get_blocking(&1).unwrap();
        let read = cache.get_blocking(&1).unwrap();
        assert!(read.freshness().is_fresh() && read.age() < secs(1_000_000));
    }
    let moved = ManualClock::default();
    let other = moved.clone();
    let cache: Cache<u64, u64> = builder(&moved).compute(|key: &u64| *key).build().unwrap();
    cache.insert(1, 1);
    other.advance(secs(3));
    assert_eq!(cache.get_if_present(&1).unwrap().age(), secs(3));
}
