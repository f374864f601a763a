//! Readers and pins see the same values as `get`, and take no memory once they are dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use everfresh::{Cache, Error, Loaded, ManualClock, Pinned, Reader, Source};

use crate::support::gates::{End, numbering};
use crate::support::*;

/// One way to read key 1 from a thread.
pub enum Tier {
    Get(Cache<u64, u64>),
    Reader(Reader<u64, u64>),
    Pin(Pinned<u64, u64>),
}

impl Tier {
    /// All ways, `get` first.
    pub fn all(cache: &Cache<u64, u64>) -> [Tier; 3] {
        [
            Tier::Get(cache.clone()),
            Tier::Reader(cache.reader()),
            Tier::Pin(cache.pin(1)),
        ]
    }

    pub fn read(&mut self) -> Result<(u64, Source), Error> {
        match self {
            Tier::Get(cache) => cache.get_blocking(&1).map(|read| (*read, read.source())),
            Tier::Reader(reader) => reader.get_blocking(&1).map(|read| (*read, read.source())),
            Tier::Pin(pin) => pin.get_blocking().map(|read| (*read, read.source())),
        }
    }

    /// Reads until the value is cached, if this tier caches values.
    fn warm(&mut self, value: u64) {
        for _ in 0..5 {
            assert_eq!(self.read().unwrap(), (value, Source::Fresh));
        }
    }
}

#[test]
fn no_read_is_older_than_the_last_write() {
    for tier in 0..3 {
        let clock = ManualClock::new();
        let loader = numbering();
        let cache = computing(builder(&clock).capacity(12), &loader);
        let mut tier = Tier::all(&cache).into_iter().nth(tier).unwrap();
        assert_eq!(tier.read().unwrap(), (1, Source::Loaded));
        tier.warm(1);
        cache.insert(1, 100);
        tier.warm(100);
        cache.invalidate(&1);
        assert_eq!(tier.read().unwrap(), (2, Source::Loaded));
        tier.warm(2);
        cache.invalidate_all();
        assert_eq!(tier.read().unwrap(), (3, Source::Loaded));
        tier.warm(3);
        // Removed and reinserted in the same way before the next read.
        cache.invalidate(&1);
        cache.insert(1, 200);
        tier.warm(200);
        // Expired.
        clock.advance(secs(30));
        assert_eq!(tier.read().unwrap(), (4, Source::Loaded));
        tier.warm(4);
        // Evicted, its way reused by others, and loaded again.
        for key in 1_000..1_100 {
            cache.insert(key, 0);
        }
        let (mut evicted, before) = (!cache.contains_key(&1), loader.calls());
        while !evicted {
            // Used often, so it is evicted only when others are used more recently.
            for key in 2_000..2_012 {
                cache.insert(key, 0);
                (0..3).for_each(|_| drop(cache.get_if_present(&key)));
            }
            evicted = !cache.contains_key(&1);
        }
        assert_eq!(tier.read().unwrap(), (5, Source::Loaded));
        assert_eq!(loader.calls(), before + 1);
        tier.warm(5);
        // Not found at the origin.
        cache.insert(1, Loaded::new(6).fresh_for(secs(1)).stale_for(secs(0)));
        tier.warm(6);
        clock.advance(secs(1));
        loader.fail_next(1);
        assert!(tier.read().unwrap_err().is_load_failure());
    }
}

#[test]
fn writes_to_other_keys_of_a_set_change_nothing() {
    // In a cache of one entry all keys are in one set.
    let clock = ManualClock::new();
    let (cache, tasks, _gates) = by_hand(builder(&clock).capacity(4));
    let mut tiers = Tier::all(&cache);
    cache.insert(1, 10);
    for key in 2..40 {
        for tier in &mut tiers {
            tier.warm(10);
        }
        cache.insert(2 + key % 3, key);
        cache.invalidate(&(2 + key % 3));
        assert!(is_pending(&mut get(&cache, key + 100)));
        cache.invalidate(&(key + 100));
    }
    assert_eq!(tasks.spawned(), 38, "key 1 is not loaded");
}

#[test]
fn a_stale_value_starts_one_refresh_in_every_tier() {
    for tier in 0..3 {
        let clock = ManualClock::new();
        let (cache, tasks, gates) = by_hand(builder(&clock));
        let mut tier = Tier::all(&cache).into_iter().nth(tier).unwrap();
        cache.insert(1, 10);
        tier.warm(10);
        clock.advance(secs(12));
        for _ in 0..5 {
            assert_eq!(tier.read().unwrap(), (10, Source::Stale));
            assert_eq!(tasks.spawned(), 1);
        }
        tasks.poll_all();
        gates.end(0, End::Value(11));
        tasks.poll_all();
        tier.warm(11);
        // A refresh that fails: stale-if-error.
        clock.advance(secs(12));
        assert_eq!(tier.read().unwrap(), (11, Source::Stale));
        tasks.poll_all();
        gates.end(1, End::Fail);
        tasks.poll_all();
        for _ in 0..5 {
            assert_eq!(tier.read().unwrap(), (11, Source::AfterFailure));
        }
        let stats = cache.stats();
        assert_eq!((stats.stale, stats.refreshes_stale), (11, 2));
        assert_eq!(stats.claims_denied, 9);
    }
}

#[test]
fn an_early_read_starts_a_refresh_in_every_tier() {
    for tier in 0..3 {
        let clock = ManualClock::new();
        let (tasks, moved) = (Tasks::default(), clock.clone());
        let cache = builder(&clock)
            .fresh_for(secs(100))
            .beta(1.0)
            .spawner(tasks.spawner())
            .load(move |_: &u64| {
                moved.advance(secs(2));
                async { 10 }
            })
            .build()
            .unwrap();
        let mut first = get(&cache, 1);
        assert!(is_pending(&mut first));
        tasks.poll_all();
        let mut tier = Tier::all(&cache).into_iter().nth(tier).unwrap();
        tier.warm(10);
        // So late, the chance that a read does not refresh is one in two billion.
        clock.advance(secs(100) - NANO);
        assert_eq!(tier.read().unwrap(), (10, Source::Early));
        assert_eq!(tier.read().unwrap(), (10, Source::Fresh));
        assert_eq!(tasks.spawned(), 2);
        tasks.poll_all();
        tier.warm(10);
        let stats = cache.stats();
        assert_eq!((stats.early, stats.refreshes_early), (1, 1));
    }
}

#[test]
fn hits_are_counted_even_if_in_late_batches() {
    for tier in 0..3 {
        let clock = ManualClock::new();
        let (cache, ..) = by_hand(builder(&clock));
        cache.insert(1, 10);
        let mut tier = Tier::all(&cache).into_iter().nth(tier).unwrap();
        for _ in 0..1_000 {
            assert!(tier.read().is_ok());
        }
        let counted = cache.stats().fresh;
        assert!((1_000 - 64..=1_000).contains(&counted), "{counted} of 1000");
        drop(tier);
        let stats = cache.stats();
        assert_eq!((stats.fresh, stats.reads()), (1_000, 1_000));
    }
}

#[test]
fn reads_by_readers_and_pins_protect_a_value_from_eviction() {
    for tier in 0..3 {
        let clock = ManualClock::new();
        let (cache, tasks, _gates) = by_hand(builder(&clock).capacity(12));
        let mut tier = Tier::all(&cache).into_iter().nth(tier).unwrap();
        cache.insert(1, 10);
        for key in 1_000..1_200 {
            tier.warm(10);
            cache.insert(key, 0);
        }
        assert_eq!(tasks.spawned(), 0);
    }
}

#[test]
fn cached_values_are_dropped_with_their_readers() {
    let tally = Tally::default();
    let clock = ManualClock::new();
    let made = tally.clone();
    let cache = builder(&clock)
        .compute(move |_: &u64| made.make())
        .build()
        .unwrap();
    let (mut reader, mut pin) = (cache.reader(), cache.pin(1));
    for _ in 0..5 {
        assert_eq!(reader.get_blocking(&1).unwrap().number, 0);
        assert_eq!(pin.get_blocking().unwrap().number, 0);
    }
    // The reader caches 200 more values.
    for key in (1_000..1_200).flat_map(|key| [key; 4]) {
        assert!(reader.get_blocking(&key).is_ok());
    }
    cache.invalidate_all();
    assert!((1..=201).contains(&tally.alive()));
    drop(reader);
    // The task that made a value can hold it for a moment longer.
    until("only the value of the pin is alive", || tally.alive() == 1);
    assert!(
        pin.get_blocking().unwrap().number > 0,
        "the value is not the old one"
    );
    until("the new value has replaced the old one", || {
        tally.alive() <= 2
    });
    drop(pin);
    until("only the value in the cache is alive", || {
        tally.alive() == 1
    });
    let (mut reader, mut pin) = (cache.reader(), cache.pin(1));
    for _ in 0..5 {
        assert!(reader.get_blocking(&1).is_ok() && pin.get_blocking().is_ok());
    }
    // Reader and pin outlive the handle, and keep the cache alive.
    drop(cache);
    assert!(reader.get_blocking(&1).is_ok() && pin.get_blocking().is_ok());
    drop((reader, pin));
    until("no value is alive", || tally.alive() == 0);
}

#[test]
fn a_reader_keeps_no_values_of_keys_read_once() {
    let tally = Tally::default();
    let clock = ManualClock::new();
    let made = tally.clone();
    let cache = builder(&clock)
        .compute(move |_: &u64| made.make())
        .build()
        .unwrap();
    let mut reader = cache.reader();
    for key in 0..1_000 {
        assert!(reader.get_blocking(&key).is_ok());
    }
    cache.invalidate_all();
    // The reader keeps the value of its last read.
    until("the other values are dropped", || tally.alive() <= 1);
    drop(reader);
    until("the last value is dropped", || tally.alive() == 0);
}

#[test]
fn tasks_can_read_a_pin() {
    let clock = ManualClock::new();
    let (cache, tasks, gates) = by_hand(builder(&clock));
    let mut pin = cache.pin(1);
    assert_eq!(*pin.key(), 1);
    assert_eq!(
        tasks.spawned(),
        0,
        "the pin loads nothing before its first read"
    );
    {
        let mut read = std::pin::pin!(pin.get());
        assert!(is_pending(&mut read));
        tasks.poll_all();
        gates.end(0, End::Value(10));
        tasks.poll_all();
        let read = ready(read).unwrap();
        assert_eq!((*read, read.source()), (10, Source::Loaded));
    }
    for _ in 0..5 {
        let read = ready(std::pin::pin!(pin.get())).unwrap();
        assert_eq!((*read, read.source()), (10, Source::Fresh));
        assert!(read.freshness().is_fresh() && read.age().is_zero());
    }
    clock.advance(secs(12));
    let read = ready(std::pin::pin!(pin.get())).unwrap();
    assert_eq!((*read, read.source()), (10, Source::Stale));
    assert!(read.freshness().is_stale() && read.age() == secs(12));
    cache.invalidate(&1);
    {
        // Dropped while it waits, and read again.
        assert!(is_pending(&mut std::pin::pin!(pin.get())));
    }
    tasks.poll_all();
    gates.end(2, End::Value(12));
    tasks.poll_all();
    assert_eq!(*ready(std::pin::pin!(pin.get())).unwrap(), 12);
}

#[test]
fn tasks_can_read_a_reader() {
    let clock = ManualClock::new();
    let (cache, tasks, gates) = by_hand(builder(&clock));
    let mut reader = cache.reader();
    {
        let mut read = std::pin::pin!(reader.get(&1));
        assert!(is_pending(&mut read));
        tasks.poll_all();
        gates.end(0, End::Value(10));
        tasks.poll_all();
        let read = ready(read).unwrap();
        assert_eq!((*read, read.source()), (10, Source::Loaded));
    }
    for _ in 0..5 {
        let read = ready(std::pin::pin!(reader.get(&1))).unwrap();
        assert_eq!((*read, read.source()), (10, Source::Fresh));
    }
    clock.advance(secs(12));
    let read = ready(std::pin::pin!(reader.get(&1))).unwrap();
    assert_eq!((*read, read.source()), (10, Source::Stale));
    cache.invalidate(&1);
    {
        // Dropped while it waits, and read again.
        assert!(is_pending(&mut std::pin::pin!(reader.get(&1))));
    }
    tasks.poll_all();
    gates.end(2, End::Value(12));
    tasks.poll_all();
    assert_eq!(*ready(std::pin::pin!(reader.get(&1))).unwrap(), 12);
}

#[test]
fn keys_that_share_a_cell_of_a_reader_are_distinguished() {
    // More keys than cells, read so that each is cached for a while.
    let clock = ManualClock::new();
    let calls = Arc::new(AtomicU64::new(0));
    let counted = calls.clone();
    let cache = builder(&clock)
        .capacity(20_000)
        .compute(move |key: &u64| counted.fetch_add(1, Ordering::Relaxed) << 32 | *key)
        .build()
        .unwrap();
    let mut reader = cache.reader();
    for _ in 0..2 {
        for key in 0..6_000 {
            for _ in 0..3 {
                assert_eq!(*reader.get_blocking(&key).unwrap() & 0xffff_ffff, key);
            }
        }
    }
    assert_eq!(calls.load(Ordering::Relaxed), 6_000);
}
