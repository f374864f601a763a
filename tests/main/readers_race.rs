//! Reads race with writes on real threads. No read is older than a write that returned before it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use everfresh::{Cache, Cached, Fresh, ManualClock, Source};

use crate::readers::Tier;
use crate::support::random::rounds;
use crate::support::*;

/// One way to read, of one thread.
type Read<'a> = Box<dyn FnMut() -> (u64, Source) + 'a>;

/// As [`race`], of key 1 of a cache.
fn race_of_a_key(cache: &Cache<u64, u64>, writes: u64, write: impl Fn(u64) + Sync) {
    let reads = |tier| -> Read<'_> {
        let mut tier = Tier::all(cache).into_iter().nth(tier).unwrap();
        Box::new(move || tier.read().unwrap())
    };
    race(reads, writes, write);
}

/// As [`race`], of a single value.
fn race_of_one(one: &Fresh<u64>, writes: u64, write: impl Fn(u64) + Sync) {
    let reads = |tier| -> Read<'_> {
        let get = || one.get_blocking().unwrap();
        let mut pin = one.pin();
        match tier {
            0 => Box::new(move || seen(&get())),
            1 => Box::new(move || {
                let read = pin.get_blocking().unwrap();
                (*read, read.source())
            }),
            _ => Box::new(move || seen(&one.get_if_present().unwrap_or_else(get))),
        }
    };
    race(reads, writes, write);
}

fn seen(read: &Cached<(), u64>) -> (u64, Source) {
    (**read, read.source())
}

/// One thread writes 1, 2, 3 and so on, and publishes each number once its write has returned.
/// Other threads read, each in one of three ways.
fn race<'a>(reads: impl Fn(usize) -> Read<'a> + Sync, writes: u64, write: impl Fn(u64) + Sync) {
    let (shown, done) = (AtomicU64::new(0), AtomicBool::new(false));
    let (shown, done, reads_of) = (&shown, &done, &reads);
    thread::scope(|scope| {
        let readers: Vec<_> = (0..3)
            .map(|tier| {
                scope.spawn(move || {
                    let mut read = reads_of(tier);
                    let (mut reads, mut newest) = (0_u64, 0);
                    while !done.load(Ordering::Relaxed) || reads == 0 {
                        let before = shown.load(Ordering::Acquire);
                        let (number, source) = read();
                        assert!(number >= before, "read {number} after {before} was written");
                        // A load that an insert overtook may give its waiters the current value of
                        // the origin, which is newer than the resident value. Resident values only
                        // get newer.
                        if source == Source::Fresh {
                            assert!(number >= newest, "read {number} after reading {newest}");
                            newest = number;
                        }
                        reads += 1;
                    }
                    reads
                })
            })
            .collect();
        for number in 1..=writes {
            write(number);
            shown.store(number, Ordering::Release);
            if number % 8 == 0 {
                // Gives readers time to cache the value.
                thread::yield_now();
            }
        }
        done.store(true, Ordering::Relaxed);
        for reader in readers {
            assert!(reader.join().unwrap() > 0);
        }
    });
}

/// A cache whose loader returns the current value of the origin.
fn of_origin(origin: &Arc<AtomicU64>, capacity: usize) -> Cache<u64, u64> {
    let asked = origin.clone();
    builder(&ManualClock::new())
        .capacity(capacity)
        .compute(move |_: &u64| asked.load(Ordering::Acquire))
        .build()
        .unwrap()
}

#[test]
fn no_read_is_older_than_an_insert_before_it() {
    let origin = Arc::new(AtomicU64::new(0));
    let cache = of_origin(&origin, 10);
    race_of_a_key(&cache, rounds(4_000), |number| cache.insert(1, number));
}

#[test]
fn no_read_is_older_than_an_invalidation_before_it() {
    let origin = Arc::new(AtomicU64::new(0));
    let cache = of_origin(&origin, 10);
    race_of_a_key(&cache, rounds(2_000), |number| {
        origin.store(number, Ordering::Release);
        cache.invalidate(&1);
    });
}

#[test]
fn no_read_is_older_than_a_write_while_other_keys_are_inserted_and_evicted() {
    let origin = Arc::new(AtomicU64::new(0));
    let cache = of_origin(&origin, 3);
    race_of_a_key(&cache, rounds(2_000), |number| {
        // Stored before the insert, so that a load between the two finds it.
        origin.store(number, Ordering::Release);
        match number % 3 {
            0 => cache.insert(1, number),
            1 => cache.invalidate_all(),
            _ => drop(cache.invalidate(&1)),
        }
        // Keys of the same set are evicted and reuse the way of key 1.
        cache.insert(2 + number % 5, 0);
    });
}

/// A single value whose loader returns the current value of the origin.
fn one_of_origin(origin: &Arc<AtomicU64>) -> Fresh<u64> {
    let asked = origin.clone();
    Fresh::builder()
        .clock(ManualClock::new())
        .compute(move |()| asked.load(Ordering::Acquire))
        .build_fresh()
        .unwrap()
}

#[test]
fn no_read_of_one_value_is_older_than_a_set_or_an_invalidation_before_it() {
    let origin = Arc::new(AtomicU64::new(0));
    let one = one_of_origin(&origin);
    race_of_one(&one, rounds(4_000), |number| {
        // Stored before the set, so that a load between the two finds it.
        origin.store(number, Ordering::Release);
        match number % 4 {
            0 | 1 => one.set(number),
            2 => drop(one.invalidate()),
            _ => {
                // The new value finds the way of the old one not emptied yet, or reserved.
                one.invalidate();
                one.set(number);
            }
        }
    });
}

#[test]
fn no_read_of_one_value_is_older_than_a_refresh_before_it() {
    let origin = Arc::new(AtomicU64::new(0));
    let one = one_of_origin(&origin);
    one.set(0);
    race_of_one(&one, rounds(2_000), |number| {
        origin.store(number, Ordering::Release);
        assert_eq!(*one.refresh_blocking().unwrap(), number);
    });
}
