//! No value from before an invalidation comes back, for any interleaving of threads and processes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use everfresh::Cache;
use everfresh::SecondLevel;
use everfresh::store::MemoryStore;
use futures_lite::future::block_on;

const KEYS: u64 = 3;
const PROCESSES: usize = 3;

/// The current values at the origin. A load reads its value when it begins.
type Values = Arc<[AtomicU64; KEYS as usize]>;

fn process(memory: &Arc<MemoryStore>, origin: &Values, fresh: Duration) -> Cache<u64, u64> {
    let origin = origin.clone();
    let level = SecondLevel::new(memory.clone(), "race:v1").unwrap();
    Cache::builder()
        .capacity(64)
        .fresh_for(fresh)
        .stale_for(Duration::from_secs(3_600))
        .threads(2)
        .store(level)
        .compute(move |key: &u64| {
            let now = origin[*key as usize].load(Ordering::SeqCst);
            std::thread::yield_now();
            now
        })
        .build()
        .unwrap()
}

/// Writers change the origin and invalidate. After its invalidation a writer reads no older value
/// in its process.
fn race(fresh: Duration, rounds: u64) {
    let memory = Arc::new(MemoryStore::new());
    let origin: Values = Arc::new(std::array::from_fn(|_| AtomicU64::new(0)));
    let processes: Vec<_> = (0..PROCESSES)
        .map(|_| process(&memory, &origin, fresh))
        .collect();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for cache in &processes {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    for key in 0..KEYS {
                        cache.get_blocking(&key).unwrap();
                    }
                }
            });
        }
        let writers: Vec<_> = (0..PROCESSES * 2)
            .map(|number| {
                let (cache, origin) = (&processes[number % PROCESSES], &origin);
                scope.spawn(move || {
                    for round in 0..rounds {
                        let key = (round + number as u64) % KEYS;
                        let now = origin[key as usize].fetch_add(1, Ordering::SeqCst) + 1;
                        match round % 3 {
                            0 => _ = cache.invalidate(&key),
                            _ => _ = block_on(cache.invalidate_everywhere(&key)).unwrap(),
                        }
                        let read = *cache.get_blocking(&key).unwrap();
                        assert!(
                            read >= now,
                            "read {read}, but the origin had {now} before the invalidation"
                        );
                    }
                })
            })
            .collect();
        for writer in writers {
            let ended = writer.join();
            over.fetch_or(ended.is_err(), Ordering::Relaxed);
            ended.unwrap();
        }
        over.store(true, Ordering::Relaxed);
    });
    // Once all writes are flushed, all processes read the value of the origin.
    for cache in &processes {
        crate::support::until("all writes are flushed", || {
            cache.store_stats().unwrap().pending == 0
        });
    }
    for key in 0..KEYS {
        let last = origin[key as usize].load(Ordering::SeqCst);
        for cache in &processes {
            crate::support::until("all processes read the value of the origin", || {
                *cache.get_blocking(&key).unwrap() == last
            });
        }
    }
}

#[test]
fn no_older_value_comes_back_from_a_cold_load_after_an_invalidation() {
    race(Duration::from_secs(3_600), 300);
}

#[test]
fn no_older_value_comes_back_from_a_refresh_after_an_invalidation() {
    race(Duration::from_millis(1), 300);
}
