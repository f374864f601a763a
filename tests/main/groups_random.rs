//! Random programs and threads against an origin that counts its writes: no read is older than the
//! last invalidation before it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use everfresh::{Cache, Loaded, ManualClock};

use crate::support::random::{Rng, rounds};
use crate::support::*;

const KEYS: u64 = 8;
const GROUPS: u64 = 4;

/// The groups of a key: one by the key, and a second that only the loader knows.
fn groups_of(key: u64) -> [u64; 2] {
    [key % 2, 2 + key / 2 % 2]
}

/// An origin whose value is the number of its writes so far.
fn cache(clock: &ManualClock, origin: &Arc<AtomicU64>) -> Cache<u64, u64> {
    let origin = origin.clone();
    builder(clock)
        .group_by(|key| [groups_of(*key)[0]])
        .compute(move |key: &u64| {
            Loaded::new(origin.load(Ordering::Relaxed)).group(groups_of(*key)[1])
        })
        .build()
        .unwrap()
}

/// What a plain map with groups would hold: for each key the oldest value that may be served.
struct Plain([u64; KEYS as usize]);

#[test]
fn a_random_program_reads_nothing_older_than_a_plain_map_allows() {
    for program in 0..rounds(200) {
        let (clock, origin) = (ManualClock::new(), Arc::new(AtomicU64::new(1)));
        let cache = cache(&clock, &origin);
        let (mut reader, mut rng) = (cache.reader(), Rng::new(program));
        let mut plain = Plain([0; KEYS as usize]);
        for step in 0..200 {
            let key = rng.below(KEYS);
            let at = key as usize;
            let now = origin.load(Ordering::Relaxed);
            let what = rng.below(12);
            let context = format!("program {program}, step {step}, operation {what}, key {key}");
            let read = match what {
                0..=3 => Some(*cache.get_blocking(&key).unwrap()),
                4 => Some(*reader.get_blocking(&key).unwrap()),
                5 => cache.get_if_present(&key).map(|read| *read),
                6 => cache.remove(&key).map(|read| *read),
                7 => {
                    clock.advance(secs(rng.below(8)));
                    None
                }
                8 => {
                    cache.insert(key, Loaded::new(now).group(groups_of(key)[1]));
                    None
                }
                9 => Some(*cache.refresh_from_now_blocking(&key).unwrap()),
                10 => {
                    cache.sweep();
                    None
                }
                _ => {
                    let group = rng.below(GROUPS);
                    let version = origin.fetch_add(1, Ordering::Relaxed) + 1;
                    cache.invalidate_group(group);
                    let members = (0..KEYS).filter(|key| groups_of(*key).contains(&group));
                    members.for_each(|key| plain.0[key as usize] = version);
                    None
                }
            };
            if let Some(value) = read {
                assert!(plain.0[at] <= value && value <= now, "{context}: {value}");
            }
            if what == 6 {
                assert!(cache.peek(&key).is_none(), "{context}");
            }
            assert!(cache.len() <= KEYS as usize, "{context}");
        }
        (0..GROUPS).for_each(|group| cache.invalidate_group(group));
        // A refresh that begins now reads the latest value.
        let latest = origin.load(Ordering::Relaxed);
        let mut left = (0..KEYS).filter_map(|key| cache.peek(&key));
        assert!(left.all(|read| *read == latest), "program {program}");
    }
}

#[test]
fn no_thread_reads_what_was_loaded_before_an_invalidation() {
    for _ in 0..rounds(5) {
        let (clock, origin) = (ManualClock::new(), Arc::new(AtomicU64::new(1)));
        let cache = cache(&clock, &origin);
        // For each group the version of which its last invalidation has returned.
        let floors: Arc<[AtomicU64; GROUPS as usize]> = Arc::default();
        let ends = Arc::new(AtomicBool::new(false));
        let readers: Vec<_> = (0..2)
            .map(|number| {
                let (cache, floors, ends) = (cache.clone(), floors.clone(), ends.clone());
                thread::spawn(move || {
                    let (mut reader, mut rng) = (cache.reader(), Rng::new(number));
                    while !ends.load(Ordering::Relaxed) {
                        let key = rng.below(KEYS);
                        let floor = groups_of(key)
                            .map(|group| floors[group as usize].load(Ordering::Acquire))
                            .into_iter()
                            .max();
                        let value = match rng.below(3) {
                            0 => *cache.get_blocking(&key).unwrap(),
                            1 => *reader.get_blocking(&key).unwrap(),
                            _ => match cache.get_if_present(&key) {
                                Some(read) => *read,
                                None => continue,
                            },
                        };
                        assert!(Some(value) >= floor, "key {key}: {value}, not {floor:?}");
                    }
                })
            })
            .collect();
        let mut rng = Rng::new(9);
        for _ in 0..2_000 {
            let group = rng.below(GROUPS);
            let version = origin.fetch_add(1, Ordering::Relaxed) + 1;
            cache.invalidate_group(group);
            floors[group as usize].store(version, Ordering::Release);
        }
        ends.store(true, Ordering::Relaxed);
        readers
            .into_iter()
            .for_each(|reader| reader.join().unwrap());
    }
}
