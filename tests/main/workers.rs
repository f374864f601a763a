//! The workers of a pool: which loads they run, and the pools that caches share.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::thread;

use everfresh::{Builder, Cache, CountingLoader, ManualClock, Pool};

use crate::support::*;

/// With a load timeout that only a fault reaches.
fn patient() -> Builder<u64, u64> {
    Cache::builder().load_timeout(secs(20))
}

/// Reads these keys from threads of their own, all at once.
fn read_at_once(cache: &Cache<u64, u64>, keys: &[u64]) -> Vec<u64> {
    thread::scope(|scope| {
        let reads: Vec<_> = keys
            .iter()
            .map(|key| scope.spawn(move || *cache.get_blocking(key).unwrap()))
            .collect();
        reads.into_iter().map(|read| read.join().unwrap()).collect()
    })
}

#[test]
fn one_half_of_a_parallel_load_may_read_the_cache() {
    for (threads, parents) in [(1, 1), (2, 1), (2, 2), (4, 2)] {
        let begun = Barrier::new(parents as usize);
        let cache = reading_itself(patient().threads(threads), move |cache, key| {
            if key >= 100 {
                return Ok(key);
            }
            begun.wait();
            let (read, other) = rayon::join(|| cache.get_blocking(&(100 + key)), || 5);
            Ok(*read? + other)
        });
        let keys: Vec<u64> = (0..parents).collect();
        let values: Vec<u64> = keys.iter().map(|key| key + 105).collect();
        assert_eq!(read_at_once(&cache, &keys), values, "{threads} threads");
        assert_eq!(*cache.get_blocking(&777).unwrap(), 777);
    }
}

#[test]
fn both_halves_of_a_parallel_load_may_read_the_cache() {
    for (threads, parents) in [(1, 1), (2, 1), (2, 2), (3, 4)] {
        let cache = reading_itself(patient().threads(threads), |cache, key| {
            if key >= 100 {
                return Ok(key);
            }
            // Two keys of its own, and one that all parents read.
            let (one, two) = rayon::join(
                || cache.get_blocking(&(100 + key)),
                || {
                    rayon::join(
                        || cache.get_blocking(&200),
                        || cache.get_blocking(&(300 + key)),
                    )
                },
            );
            Ok(*one? + *two.0? + *two.1?)
        });
        let keys: Vec<u64> = (0..parents).collect();
        let values: Vec<u64> = keys.iter().map(|key| 600 + 2 * key).collect();
        assert_eq!(read_at_once(&cache, &keys), values, "{threads} threads");
        assert_eq!(*cache.get_blocking(&777).unwrap(), 777);
    }
}

#[test]
fn a_worker_that_took_over_a_part_of_a_load_starts_no_load_on_top_of_it() {
    // Key 5 needs key 0. A worker that starts it while it waits inside a part of key 0 keeps key 0
    // from its end, and so itself.
    let outer: Arc<[AtomicBool; 2]> = Arc::default();
    let started = Arc::new(AtomicBool::new(false));
    let (parts, five) = (outer.clone(), started.clone());
    let cache = reading_itself(patient().threads(2), move |cache, key| {
        if key == 5 {
            five.store(true, Ordering::SeqCst);
            return Ok(*cache.get_blocking(&0)? + 1);
        }
        let is_set = |part: usize| parts[part].load(Ordering::SeqCst);
        let set = |part: usize| parts[part].store(true, Ordering::SeqCst);
        rayon::join(
            || until("the other worker has one half", || is_set(0)),
            || {
                set(0);
                rayon::join(
                    || until("the first worker has a part of that half", || is_set(1)),
                    || {
                        set(1);
                        // Gives the other worker, which waits for this part, time to start key 5.
                        let mut looks = 0;
                        until("key 5 runs, or does not", || {
                            looks += 1;
                            looks > 1_000 || five.load(Ordering::SeqCst)
                        });
                    },
                );
            },
        );
        Ok(key)
    });
    thread::scope(|scope| {
        let zero = scope.spawn(|| cache.get_blocking(&0).map(|read| *read));
        until("the parts are apart", || outer[1].load(Ordering::SeqCst));
        let five = scope.spawn(|| cache.get_blocking(&5).map(|read| *read));
        assert_eq!(zero.join().unwrap().unwrap(), 0);
        assert_eq!(five.join().unwrap().unwrap(), 1);
    });
}

#[test]
fn a_worker_runs_all_queued_loads_after_its_own_and_none_inside_it() {
    // The wakes of the other loads reach the only worker while it runs the first load.
    let others_queued = Arc::new(AtomicBool::new(false));
    let (go, running) = (others_queued.clone(), AtomicBool::new(false));
    let cache = reading_itself(patient().threads(1), move |_, key| {
        assert!(
            !running.swap(true, Ordering::SeqCst),
            "one load inside another"
        );
        if key == 0 {
            until("the others are queued", || go.load(Ordering::SeqCst));
            // Ends, because no wake is sent again to the worker that it came from.
            while rayon::yield_now() == Some(rayon::Yield::Executed) {}
        }
        running.store(false, Ordering::SeqCst);
        Ok(key)
    });
    let mut first = get(&cache, 0);
    assert!(is_pending(&mut first));
    until("the first load runs", || cache.stats().loads == 1);
    let mut others: Vec<_> = (1..6).map(|key| get(&cache, key)).collect();
    assert!(others.iter_mut().all(is_pending));
    others_queued.store(true, Ordering::SeqCst);
    assert_eq!(*wait(first).unwrap(), 0);
    for (read, key) in others.into_iter().zip(1..) {
        assert_eq!(*wait(read).unwrap(), key);
    }
}

/// All keys share one set of 13 ways, and each load waits for a part of it that another worker took
/// over, and that reads the next key.
#[test]
fn a_part_of_a_load_on_another_worker_needs_no_place_in_a_full_set() {
    const DEEP: u64 = 15;
    let builder = patient()
        .hasher(OneSet::default())
        // One worker for each load, and one for the part that waits for it.
        .threads(2 * DEEP as usize + 2);
    let cache = reading_itself(builder, |cache, key| {
        if key == 0 {
            return Ok(0);
        }
        let (end, ended) = mpsc::channel();
        let ended = Mutex::new(ended);
        let ((), read) = rayon::join(
            // Takes no other job of `rayon` meanwhile.
            || ended.lock().unwrap().recv().unwrap(),
            || {
                let read = cache.get_blocking(&(key - 1)).map(|read| *read + 1);
                end.send(()).unwrap();
                read
            },
        );
        read
    });
    assert_eq!(*cache.get_blocking(&DEEP).unwrap(), DEEP);
}

/// A loader that returns the thread on which it runs, and the thread's name.
fn place(_: &u64) -> (thread::ThreadId, Option<String>) {
    let thread = thread::current();
    (thread.id(), thread.name().map(str::to_owned))
}

#[test]
fn caches_without_a_pool_of_their_own_share_one() {
    let cores = thread::available_parallelism().unwrap().get();
    let mut threads = HashSet::new();
    for _ in 0..3 * cores {
        let cache = Cache::builder()
            .name("mine")
            .compute(place)
            .build()
            .unwrap();
        for key in 0..10 {
            let (thread, name) = (*cache.get_blocking(&key).unwrap()).clone();
            assert!(name.unwrap().starts_with("everfresh-"));
            threads.insert(thread);
        }
    }
    assert!(threads.len() <= cores, "{} threads", threads.len());
}

#[test]
fn caches_with_one_pool_share_its_threads_and_its_bound() {
    let pool = Pool::builder().threads(2).name("models").build().unwrap();
    let loader = CountingLoader::new(place);
    let clock = ManualClock::new();
    let caches: Vec<_> = (0..3)
        .map(|_| computing(builder(&clock).pool(&pool), &loader))
        .collect();
    drop(pool);
    loader.hold();
    let mut reads: Vec<_> = (0..12).map(|n| get(&caches[n % 3], n as u64)).collect();
    assert!(reads.iter_mut().all(is_pending));
    loader.wait_for_calls(2);
    assert_eq!(loader.running(), 2);
    loader.release();
    for read in reads {
        let name = wait(read).unwrap().1.clone().unwrap();
        assert!(["models-0", "models-1"].contains(&name.as_str()), "{name}");
    }
}

#[test]
fn a_load_of_one_cache_may_read_another_on_the_same_pool() {
    let pool = Pool::builder().threads(1).build().unwrap();
    let inner = Cache::builder()
        .pool(&pool)
        .compute(|n: &u64| n * n)
        .build()
        .unwrap();
    let outer = Cache::<u64, u64>::builder()
        .pool(&pool)
        .try_compute(move |n: &u64| inner.get_blocking(n).map(|square| *square + 1))
        .build()
        .unwrap();
    assert_eq!(*outer.get_blocking(&3).unwrap(), 10);
}

#[test]
fn a_pool_beside_other_settings_of_threads_is_refused_by_name_and_value() {
    let pool = Pool::builder().threads(3).name("models").build().unwrap();
    let cache = || Cache::<u64, u64>::builder().pool(&pool);
    let refused = [
        (cache().compute(|n: &u64| *n).threads(4), "`threads` is 4; "),
        (
            cache().compute(|n: &u64| *n).thread_name("mine"),
            "`thread_name` is \"mine\"; ",
        ),
        (
            cache().spawner(drop).load(async |n: &u64| *n),
            "`pool` is Pool { name: \"models\", threads: 3, stack_size: 8388608 }; ",
        ),
    ];
    for (builder, beginning) in refused {
        let text = builder.build().unwrap_err().to_string();
        assert!(text.starts_with(beginning), "{text}");
    }
    let refused = [
        (
            Pool::builder().threads(0),
            "`threads` is 0; it must be 1 to",
        ),
        (Pool::builder().threads(1_025), "`threads` is 1 025; "),
        (
            Pool::builder().stack_size(4_096),
            "`stack_size` is 4 096; it must be at least",
        ),
        (Pool::builder().name("a\0b"), "`name` is \"a\\0b\"; "),
    ];
    for (builder, beginning) in refused {
        let text = builder.build().unwrap_err().to_string();
        assert!(text.starts_with(beginning), "{text}");
    }
}

#[test]
fn the_stacks_of_a_pool_have_the_size_that_is_set() {
    #[inline(never)]
    fn used(bytes: usize) -> usize {
        let block = std::hint::black_box([1_u8; 64 << 10]);
        match bytes {
            0 => usize::from(block[7]),
            _ => used(bytes - 1) + usize::from(block[9]),
        }
    }
    let pool = Pool::builder()
        .threads(1)
        .stack_size(64 << 20)
        .build()
        .unwrap();
    let cache = Cache::builder()
        .pool(&pool)
        .compute(|blocks: &u64| used(*blocks as usize))
        .build()
        .unwrap();
    // 200 blocks are more than 12 MiB.
    assert_eq!(*cache.get_blocking(&200).unwrap(), 201);
}
