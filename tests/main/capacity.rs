//! The entry limit at every moment.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use everfresh::{Cache, ManualClock};

use crate::support::random::{Rng, rounds};
use crate::support::*;

#[test]
fn the_limit_holds_at_every_moment() {
    for capacity in [1, 2, 10] {
        let clock = ManualClock::new();
        let cache: Cache<u64, u64> = builder(&clock)
            .capacity(capacity)
            .compute(|key: &u64| *key)
            .build()
            .unwrap();
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let workers: Vec<_> = (0..4)
                .map(|stream| {
                    let cache = &cache;
                    scope.spawn(move || {
                        let mut rng = Rng::new(stream);
                        for _ in 0..rounds(3_000) {
                            let key = rng.below(40);
                            match rng.below(8) {
                                0 => drop(cache.invalidate(&key)),
                                1..4 => cache.insert(key, key),
                                _ => assert_eq!(*cache.get_blocking(&key).unwrap(), key),
                            }
                            assert!(cache.len() <= capacity);
                        }
                    })
                })
                .collect();
            let watcher = scope.spawn(|| {
                let mut most = 0;
                while !done.load(Ordering::Relaxed) {
                    let len = cache.len();
                    assert!(len <= capacity, "{len} of {capacity}");
                    most = most.max(len);
                    thread::yield_now();
                }
                most
            });
            for worker in workers {
                worker.join().unwrap();
            }
            done.store(true, Ordering::Relaxed);
            assert!(watcher.join().unwrap() > 0);
        });
        // The count matches the resident values, and the limit can be reached.
        for key in 0..40 {
            cache.insert(key, key);
            assert!(cache.contains_key(&key), "an inserted value is resident");
        }
        let resident = (0..40).filter(|key| cache.contains_key(key)).count();
        assert_eq!((resident, cache.len()), (capacity, capacity));
        cache.invalidate_all();
        assert_eq!(cache.len(), 0);
    }
}

#[test]
fn an_expired_value_is_evicted_before_one_that_can_be_served() {
    let clock = ManualClock::new();
    let (cache, ..) = by_hand(builder(&clock).capacity(2));
    cache.insert(
        1,
        everfresh::Loaded::new(1)
            .fresh_for(secs(1))
            .stale_for(secs(1)),
    );
    cache.insert(2, 2);
    for _ in 0..3 {
        assert!(cache.get_if_present(&1).is_some());
    }
    clock.advance(secs(2));
    cache.insert(3, 3);
    assert!(cache.contains_key(&2) && cache.contains_key(&3));
}
