//! Which values a full cache evicts, by number and by weight, and which ones `sweep` removes.
//!
//! No set of the table can overflow in caches of up to 13 entries, so S3-FIFO alone chooses what to
//! evict.

use std::hash::{BuildHasherDefault, DefaultHasher};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use everfresh::{Cache, Loaded, ManualClock, Source};

use crate::support::gates::End;
use crate::support::random::{Rng, rounds};
use crate::support::*;

const CAPACITY: u64 = 12;

fn small(clock: &ManualClock) -> (Cache<u64, u64>, Tasks, Gates<u64>) {
    by_hand(builder(clock).capacity(CAPACITY as usize))
}

/// Inserts keys that are used only once, several times as many as fit.
fn scan(cache: &Cache<u64, u64>, from: u64, keys: u64) {
    for key in from..from + keys {
        cache.insert(key, key);
        assert!(cache.contains_key(&key), "an inserted value is resident");
        assert!(cache.len() <= CAPACITY as usize);
    }
}

#[test]
fn used_values_survive_a_scan_and_unused_values_do_not() {
    let clock = ManualClock::new();
    let (cache, ..) = small(&clock);
    scan(&cache, 0, 6);
    for _ in 0..3 {
        assert!(
            [0, 2, 4]
                .iter()
                .all(|key| cache.get_if_present(key).is_some())
        );
    }
    scan(&cache, 1_000, 100);
    assert!([0, 2, 4].iter().all(|key| cache.contains_key(key)));
    assert!([1, 3, 5].iter().all(|key| !cache.contains_key(key)));
    assert_eq!(cache.len(), CAPACITY as usize);
}

#[test]
fn values_that_are_no_longer_used_are_evicted_at_last() {
    let clock = ManualClock::new();
    let (cache, ..) = small(&clock);
    scan(&cache, 0, CAPACITY);
    // All of these values are used, and later only others are. The first ones must not stay for
    // ever.
    for round in 0..20 {
        for key in round * CAPACITY..(round + 1) * CAPACITY {
            cache.insert(key, key);
            for _ in 0..3 {
                assert!(cache.get_if_present(&key).is_some());
            }
        }
    }
    assert!((0..CAPACITY).all(|key| !cache.contains_key(&key)));
}

#[test]
fn uses_survive_a_refresh_and_an_overwrite() {
    let clock = ManualClock::new();
    let (cache, tasks, gates) = small(&clock);
    scan(&cache, 0, 2);
    for _ in 0..3 {
        assert!([0, 1].iter().all(|key| cache.get_if_present(key).is_some()));
    }
    let mut refreshing = refresh(&cache, 0);
    assert!(is_pending(&mut refreshing));
    tasks.poll_all();
    gates.end(0, End::Value(100));
    tasks.poll_all();
    assert_eq!(*ready(refreshing).unwrap(), 100);
    cache.insert(1, 101);
    scan(&cache, 1_000, 100);
    // No read since then: the current value itself was never used.
    assert_eq!(cache.get_if_present(&0).map(|read| *read), Some(100));
    assert_eq!(cache.get_if_present(&1).map(|read| *read), Some(101));
}

#[test]
fn a_value_that_was_refreshed_or_overwritten_can_still_be_evicted() {
    let clock = ManualClock::new();
    let (cache, tasks, gates) = small(&clock);
    for _ in 0..3 {
        scan(&cache, 0, CAPACITY);
    }
    for key in 0..CAPACITY / 2 {
        let mut refreshing = refresh(&cache, key);
        assert!(is_pending(&mut refreshing));
        tasks.poll_all();
        gates.end(key as usize, End::Value(key));
        tasks.poll_all();
        assert!(ready(refreshing).is_ok());
    }
    scan(&cache, 1_000, 3 * CAPACITY);
    let left = (0..CAPACITY).filter(|key| cache.contains_key(key)).count();
    assert_eq!(
        left, 0,
        "a value is lost from the queues and stays for ever"
    );
}

#[test]
fn a_key_that_returns_soon_survives_a_scan() {
    // A ghost is a fingerprint, so a key is sometimes mistaken for another. Many caches average
    // this out.
    let clock = ManualClock::new();
    let (mut ghosts, mut strangers) = (0, 0);
    for _ in 0..60 {
        for (returns, survivors) in [(true, &mut ghosts), (false, &mut strangers)] {
            let (cache, ..) = small(&clock);
            if returns {
                cache.insert(7, 7);
                scan(&cache, 100, CAPACITY);
                assert!(!cache.contains_key(&7));
            } else {
                scan(&cache, 100, CAPACITY + 1);
            }
            cache.insert(7, 8);
            scan(&cache, 1_000, 2 * CAPACITY);
            *survivors += u64::from(cache.contains_key(&7));
        }
    }
    assert!(ghosts >= 50, "{ghosts} of 60 keys that returned stayed");
    assert!(
        strangers <= 20,
        "{strangers} of 60 keys inserted once stayed"
    );
}

const MAX_WEIGHT: u64 = 100;

/// The weight of a value is its number modulo 128: one in five is heavier than the cache.
fn weigh(_: &u64, value: &u64) -> u32 {
    (value % 128) as u32
}

#[test]
fn both_limits_hold_at_every_moment() {
    let clock = ManualClock::new();
    let numbers = AtomicU64::new(0);
    let next = move || numbers.fetch_add(37, Ordering::Relaxed);
    let cache: Cache<u64, u64> = builder(&clock)
        .capacity(8)
        .max_weight(MAX_WEIGHT, weigh)
        .compute(move |_: &u64| next())
        .build()
        .unwrap();
    let (done, most) = (AtomicBool::new(false), AtomicU64::new(0));
    let observe = || {
        let (len, weight) = (cache.len(), cache.weight());
        assert!(len <= 8, "{len} values");
        assert!(weight <= MAX_WEIGHT, "a weight of {weight}");
        most.fetch_max(weight, Ordering::Relaxed);
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..4)
            .map(|stream| {
                let (cache, clock, observe) = (&cache, &clock, &observe);
                scope.spawn(move || {
                    let mut rng = Rng::new(stream);
                    for _ in 0..rounds(3_000) {
                        let key = rng.below(20);
                        match rng.below(10) {
                            0 => drop(cache.invalidate(&key)),
                            1..4 => cache.insert(key, rng.next() >> 8),
                            // Past the soft limit of some values, which are refreshed with another
                            // weight.
                            4 => clock.advance(secs(3)),
                            5 => drop(cache.sweep()),
                            _ => drop(cache.get_blocking(&key)),
                        }
                        observe();
                    }
                })
            })
            .collect();
        let watcher = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                observe();
                thread::yield_now();
            }
        });
        for worker in workers {
            worker.join().unwrap();
        }
        done.store(true, Ordering::Relaxed);
        watcher.join().unwrap();
    });
    assert!(most.load(Ordering::Relaxed) > MAX_WEIGHT / 2);
    // Once the last refresh has ended, the counts match the resident values.
    cache.sweep();
    until("the counts are right", || {
        let values: Vec<u64> = (0..20)
            .filter_map(|key| Some(*cache.get_if_present(&key)?))
            .collect();
        let weight: u64 = values.iter().map(|value| value % 128).sum();
        (values.len(), weight) == (cache.len(), cache.weight())
    });
    until("the cache is empty", || {
        cache.invalidate_all();
        (cache.len(), cache.weight()) == (0, 0)
    });
}

#[test]
fn values_that_stay_are_counted_while_free_room_moves() {
    const KEYS: u64 = 1_000;
    let cache: Cache<u64, u64> = builder(&ManualClock::new())
        .capacity(100_000)
        .max_weight(400_000, |_, value| *value as u32)
        .compute(|key: &u64| *key)
        .build()
        .unwrap();
    (0..KEYS).for_each(|key| cache.insert(key, 1));
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            // Each of them needs room of several parts of the table.
            for key in KEYS..KEYS + rounds(20_000) {
                cache.insert(key, 300_000);
                cache.invalidate(&key);
            }
            done.store(true, Ordering::Relaxed);
        });
        while !done.load(Ordering::Relaxed) {
            let (len, weight) = (cache.len() as u64, cache.weight());
            assert!(len >= KEYS && weight >= KEYS, "{len} values of {weight}");
        }
    });
    assert_eq!((cache.len() as u64, cache.weight()), (KEYS, KEYS));
}

#[test]
fn the_weight_limit_evicts_as_the_entry_limit_does() {
    let clock = ManualClock::new();
    let (cache, ..) = by_hand(builder(&clock).max_weight(MAX_WEIGHT, weigh));
    for key in 0..10 {
        cache.insert(key, 10);
    }
    assert_eq!((cache.len(), cache.weight()), (10, 100));
    cache.insert(10, 95);
    assert_eq!(*cache.get_if_present(&10).unwrap(), 95);
    assert_eq!((cache.len(), cache.weight()), (1, 95));
    // A value that becomes heavier makes room for itself, and one that becomes lighter frees room.
    cache.insert(11, 5);
    cache.insert(10, 3);
    assert_eq!((cache.len(), cache.weight()), (2, 8));
    cache.insert(11, 97);
    assert_eq!((cache.len(), cache.weight()), (2, 100));
    // Zero is a valid weight.
    cache.insert(12, 0);
    assert_eq!((cache.len(), cache.weight()), (3, 100));
}

#[test]
fn a_refresh_with_a_heavier_value_evicts_others() {
    let clock = ManualClock::new();
    let (cache, tasks, gates) = by_hand(builder(&clock).max_weight(MAX_WEIGHT, weigh));
    cache.insert(1, 40);
    cache.insert(2, 40);
    // Used, so that it is not the first to be evicted.
    for _ in 0..3 {
        assert!(cache.get_if_present(&2).is_some());
    }
    let mut refreshing = refresh(&cache, 2);
    assert!(is_pending(&mut refreshing));
    tasks.poll_all();
    gates.end(0, End::Value(90));
    tasks.poll_all();
    assert_eq!(*ready(refreshing).unwrap(), 90);
    assert_eq!(cache.get_if_present(&2).map(|read| *read), Some(90));
    assert!(!cache.contains_key(&1));
    assert_eq!((cache.len(), cache.weight()), (1, 90));
}

#[test]
fn a_value_heavier_than_the_cache_is_served_and_not_kept() {
    let clock = ManualClock::new();
    let (cache, tasks, gates) = by_hand(builder(&clock).max_weight(MAX_WEIGHT, weigh));
    cache.insert(0, 50);
    for call in 0..2 {
        let mut reads = [get(&cache, 1), get(&cache, 1)];
        assert!(reads.iter_mut().all(is_pending));
        tasks.poll_all();
        gates.end(call, End::Value(101));
        tasks.poll_all();
        let sources = reads.map(|read| {
            let read = ready(read).unwrap();
            assert_eq!(*read, 101);
            read.source()
        });
        assert_eq!(sources, [Source::Loaded, Source::Coalesced]);
        assert!(!cache.contains_key(&1));
        assert_eq!(cache.stats().not_kept, call as u64 + 1);
    }
    cache.insert(1, 127);
    assert!(!cache.contains_key(&1));
    // No value was evicted for one that is not kept.
    assert!(cache.contains_key(&0));
    assert_eq!((cache.len(), cache.weight()), (1, 50));
}

#[test]
fn a_value_too_heavy_to_keep_removes_the_old_value() {
    let clock = ManualClock::new();
    let (cache, tasks, gates) = by_hand(builder(&clock).max_weight(MAX_WEIGHT, weigh));
    cache.insert(1, 10);
    cache.insert(2, 20);
    clock.advance(secs(12));
    assert_eq!(ready(get(&cache, 1)).unwrap().source(), Source::Stale);
    tasks.poll_all();
    gates.end(0, End::Value(120));
    tasks.poll_all();
    assert!(
        cache.get_if_present(&1).is_none(),
        "the old value outlived its successor"
    );
    assert!(
        is_pending(&mut get(&cache, 1)),
        "the next read loads the key"
    );
    cache.insert(2, 110);
    assert!(cache.get_if_present(&2).is_none());
    assert_eq!((cache.len(), cache.weight()), (0, 0));
}

/// Counts the hits among 1 000 reads of popular keys in a cache of `capacity` entries. `values`
/// limits the weight so that this many values fit. The reads are always the same.
fn hits(capacity: usize, values: Option<u64>, once: bool) -> u64 {
    const KEYS: u64 = 10_000;
    let builder = builder(&ManualClock::new()).capacity(capacity);
    let builder = match values {
        Some(values) => builder.max_weight(values * 3, |_, _| 3),
        None => builder,
    };
    let cache: Cache<u64, u64, _> = builder
        .hasher(BuildHasherDefault::<DefaultHasher>::default())
        .compute(|key: &u64| *key)
        .build()
        .unwrap();
    // Zipf's law with an exponent of 0.9: the cumulative share of each key.
    let mut shares = Vec::new();
    for key in 1..=KEYS {
        let share = (key as f64).powf(-0.9);
        shares.push(shares.last().map_or(share, |sum| sum + share));
    }
    let mut state = 1_u64;
    let (mut reads, mut hits) = (0, 0);
    for round in 0..60_000 {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        let drawn = (state >> 11) as f64 / (1_u64 << 53) as f64 * shares[shares.len() - 1];
        let key = shares.partition_point(|sum| *sum < drawn) as u64;
        let hit = cache.get_if_present(&key).is_some();
        if !hit {
            cache.insert(key, key);
        }
        if round >= 20_000 {
            reads += 1;
            hits += u64::from(hit);
        }
        if once {
            cache.insert(KEYS + round, 0);
        }
    }
    assert_eq!(cache.len() as u64, values.unwrap_or(capacity as u64));
    hits * 1_000 / reads
}

#[test]
fn a_weight_limit_keeps_the_same_values_as_an_entry_limit() {
    const FIT: u64 = 500;
    for once in [false, true] {
        let by_number = hits(FIT as usize, None, once);
        for capacity in [600, 1_000, 5_000, 50_000] {
            let by_weight = hits(capacity, Some(FIT), once);
            assert!(
                by_weight + 10 >= by_number,
                "{by_weight} hits in 1 000 and not {by_number}, with a capacity of {capacity} \
                 and keys that come once: {once}"
            );
        }
    }
}

fn short(value: u64) -> Loaded<u64> {
    Loaded::new(value).fresh_for(secs(1)).stale_for(secs(1))
}

#[test]
fn a_sweep_removes_exactly_what_has_expired() {
    let clock = ManualClock::new();
    let (cache, tasks, gates) = by_hand(builder(&clock).load_timeout(secs(5)));
    for key in 0..10 {
        match key % 2 {
            0 => cache.insert(key, short(key)),
            _ => cache.insert(key, key),
        }
    }
    clock.advance(secs(2) - NANO);
    assert_eq!(cache.sweep(), 0, "a stale value is not expired");
    clock.advance(NANO);
    // One of them is being reloaded: its claim is on the old entry, and the result replaces that
    // entry.
    let mut loading = get(&cache, 4);
    assert!(is_pending(&mut loading));
    tasks.poll_all();
    assert_eq!(cache.sweep(), 4);
    assert!((0..10).all(|key| cache.contains_key(&key) == (key % 2 == 1)));
    assert_eq!(cache.len(), 6);
    gates.end(0, End::Value(44));
    tasks.poll_all();
    assert_eq!(*ready(loading).unwrap(), 44);
    assert_eq!(*cache.get_if_present(&4).unwrap(), 44);
    assert_eq!((cache.sweep(), cache.len()), (0, 6));
    assert_eq!(cache.stats().published, 1);
}

#[test]
fn a_sweep_removes_an_expired_value_whose_load_hangs() {
    let clock = ManualClock::new();
    let (cache, tasks, _gates) = by_hand(builder(&clock).load_timeout(secs(5)));
    cache.insert(1, short(1));
    clock.advance(secs(2));
    let mut hanging = get(&cache, 1);
    assert!(is_pending(&mut hanging));
    tasks.poll_all();
    assert_eq!(cache.sweep(), 0);
    clock.advance(secs(5));
    assert!(ready(hanging).unwrap_err().is_timeout());
    assert_eq!((cache.sweep(), cache.len()), (1, 0));
}
