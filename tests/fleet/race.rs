//! Nothing from before an invalidation comes back, whatever the threads of whatever process do.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use everfresh::Cache;
use everfresh::SecondLevel;
use everfresh::store::MemoryStore;
use futures_lite::future::block_on;

const KEYS: u64 = 3;
const PROCESSES: usize = 3;

/// What is true now: a load takes it when it begins.
type Truth = Arc<[AtomicU64; KEYS as usize]>;

fn process(memory: &Arc<MemoryStore>, truth: &Truth, fresh: Duration) -> Cache<u64, u64> {
    let truth = truth.clone();
    let level = SecondLevel::new(memory.clone(), "race:v1").unwrap();
    Cache::builder()
        .capacity(64)
        .fresh_for(fresh)
        .stale_for(Duration::from_secs(3_600))
        .threads(2)
        .store(level)
        .compute(move |key: &u64| {
            let now = truth[*key as usize].load(Ordering::SeqCst);
            std::thread::yield_now();
            now
        })
        .build()
        .unwrap()
}

/// Writers change the truth and invalidate; whoever invalidated reads, in its own process, nothing older from then on.
fn race(fresh: Duration, rounds: u64) {
    let memory = Arc::new(MemoryStore::new());
    let truth: Truth = Arc::new(std::array::from_fn(|_| AtomicU64::new(0)));
    let processes: Vec<_> = (0..PROCESSES)
        .map(|_| process(&memory, &truth, fresh))
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
                let (cache, truth) = (&processes[number % PROCESSES], &truth);
                scope.spawn(move || {
                    for round in 0..rounds {
                        let key = (round + number as u64) % KEYS;
                        let now = truth[key as usize].fetch_add(1, Ordering::SeqCst) + 1;
                        match round % 3 {
                            0 => _ = cache.invalidate(&key),
                            _ => _ = block_on(cache.invalidate_everywhere(&key)).unwrap(),
                        }
                        let read = *cache.get_blocking(&key).unwrap();
                        assert!(
                            read >= now,
                            "read {read}, but {now} was true before the invalidation"
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
    // When everything is told, all agree on the truth.
    for cache in &processes {
        crate::support::until("told", || cache.store_stats().unwrap().pending == 0);
    }
    for key in 0..KEYS {
        let last = truth[key as usize].load(Ordering::SeqCst);
        for cache in &processes {
            crate::support::until("all agree", || *cache.get_blocking(&key).unwrap() == last);
        }
    }
}

#[test]
fn invalidations_against_cold_loads() {
    race(Duration::from_secs(3_600), 300);
}

#[test]
fn invalidations_against_refreshes() {
    race(Duration::from_millis(1), 300);
}
