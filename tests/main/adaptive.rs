//! Eviction that adapts to the pattern of accesses.
//!
//! Keys, hashes and the clock are the same in every run.

use std::hash::{BuildHasherDefault, DefaultHasher};

use everfresh::{Builder, Cache, ManualClock};

use crate::support::*;

type Fixed = BuildHasherDefault<DefaultHasher>;

/// Numbers that look random: the high bits of a linear congruence.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        (self.0 >> 33) % end
    }
}

/// Reads the keys in turn and inserts those that are missing; returns the hits among 1 000 reads.
fn replay(cache: &Cache<u64, u64, Fixed>, keys: impl IntoIterator<Item = u64>) -> u64 {
    let (mut reads, mut hits) = (0, 0);
    for key in keys {
        reads += 1;
        match cache.get_if_present(&key) {
            Some(_) => hits += 1,
            None => cache.insert(key, key),
        }
    }
    hits * 1_000 / reads
}

fn limited(limits: impl FnOnce(Builder<u64, u64>) -> Builder<u64, u64>) -> Cache<u64, u64, Fixed> {
    limits(builder(&ManualClock::new()))
        .hasher(Fixed::default())
        .compute(|key: &u64| *key)
        .build()
        .unwrap()
}

/// Round and round over so many keys.
fn looped(from: u64, keys: u64, reads: usize) -> impl Iterator<Item = u64> {
    (from..from + keys).cycle().take(reads)
}

/// New keys all the time, of which more than half are read again within 400 reads, some of them
/// several times.
fn recent(from: u64, reads: usize) -> Vec<u64> {
    let mut numbers = Numbers(from);
    let mut later = vec![None; reads + 401];
    let mut newest = from;
    let mut keys = Vec::new();
    for at in 0..reads {
        let key = later[at].take().unwrap_or_else(|| {
            newest += 1;
            newest
        });
        keys.push(key);
        if numbers.below(10) < 6 {
            later[at + 1 + numbers.below(400) as usize] = Some(key);
        }
    }
    keys
}

#[test]
fn a_large_part_of_a_loop_stays_resident() {
    for (capacity, least) in [(200, 170), (500, 300)] {
        let cache = limited(|builder| builder.capacity(capacity));
        let hits = replay(&cache, looped(0, 1_011, 60_000));
        assert!(hits >= least, "{hits} hits of 1 000, {capacity} entries");
    }
}

#[test]
fn keys_that_are_used_again_soon_stay_for_that_long() {
    let cache = limited(|builder| builder.capacity(512));
    let hits = replay(&cache, recent(0, 40_000));
    assert!(hits >= 350, "{hits} hits of 1 000");
}

#[test]
fn hot_keys_survive_a_scan() {
    let mut numbers = Numbers(1);
    let keys = (0..60_000).map(|at| match at % 2 {
        0 => numbers.below(180),
        _ => 1_000 + at,
    });
    let cache = limited(|builder| builder.capacity(200));
    let hits = replay(&cache, keys);
    assert!(hits >= 470, "{hits} hits of 1 000");
}

#[test]
fn a_change_of_pattern_is_followed() {
    let cache = limited(|builder| builder.capacity(512));
    let first = replay(&cache, recent(0, 40_000));
    let second = replay(&cache, looped(1 << 32, 1_011, 60_000));
    let third = replay(&cache, recent(1 << 33, 40_000));
    for (hits, least) in [(first, 350), (second, 300), (third, 350)] {
        assert!(hits >= least, "{first}, {second}, {third} hits of 1 000");
    }
}

#[test]
fn a_weight_limit_adapts_as_an_entry_limit_does() {
    let cache = limited(|builder| builder.capacity(5_000).max_weight(512, |_, _| 1));
    let hits = replay(&cache, recent(0, 40_000));
    assert!(hits >= 350, "{hits} hits of 1 000");
}

/// Keys of which the lower ones are more popular.
fn popular(reads: usize) -> impl Iterator<Item = u64> {
    let mut numbers = Numbers(1);
    (0..reads).map(move |_| (0..3).fold(1_000, |end, _| numbers.below(end) + 1))
}

#[test]
fn many_light_values_do_not_spoil_the_choice_among_few_heavy_ones() {
    let cache = || {
        limited(|builder| {
            let weigh = |_: &u64, value: &u64| if *value < 1 << 32 { 1_000 } else { 1 };
            builder.capacity(100_000).max_weight(32_000, weigh)
        })
    };
    let at_first = replay(&cache(), popular(60_000));
    let later = cache();
    replay(&later, 1 << 32..(1 << 32) + 60_000);
    assert_eq!(later.len(), 32_000);
    let later = replay(&later, popular(60_000));
    assert!(
        later + 8 >= at_first,
        "{later} hits of 1 000, and {at_first} without light values before"
    );
}
