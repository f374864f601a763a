//! Handles that do not keep a cache alive, and loaders that reach their own cache.

use std::hash::RandomState;
use std::sync::{Arc, Mutex};

use everfresh::{Cache, Cached, Error, Loader, Request, WeakCache};

use crate::support::{Tally, Tracked, builder, get, is_pending, until};
use everfresh::ManualClock;

fn sum(request: &Request<u64, u64>) -> Result<u64, Error> {
    Ok(match *request.key() {
        0 => 0,
        n => n + *request.cache()?.get_blocking(&(n - 1))?,
    })
}

/// The threads of this process whose names begin so.
#[cfg(target_os = "linux")]
fn threads(name: &str) -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.filter_map(|task| {
        // A thread may end while it is listed.
        std::fs::read_to_string(task.ok()?.path().join("comm")).ok()
    });
    names.filter(|found| found.starts_with(name)).count()
}

#[test]
fn caches_whose_loaders_read_them_leave_nothing_behind() {
    let tally = Tally::default();
    // Owned by the loader, which the cache owns, and by the weigher, which the loads share.
    let owned = Arc::new(());
    for _ in 0..20 {
        let (made, by_loader, by_weigher) = (tally.clone(), owned.clone(), owned.clone());
        let cache: Cache<u64, Tracked> = Cache::builder()
            .capacity(100)
            .max_weight(1_000, move |_, _| Arc::strong_count(&by_weigher) as u32)
            .thread_name("leave-nothing")
            .threads(2)
            .compute_with(move |request: &Request<u64, Tracked>| {
                let _owned = &by_loader;
                if let Some(before) = request.key().checked_sub(1) {
                    request.cache()?.get_blocking(&before)?.check();
                }
                Ok::<_, Error>(made.make())
            })
            .build()
            .unwrap();
        cache.get_blocking(&3).unwrap().check();
        assert_eq!(cache.len(), 4);
    }
    until("the values are dropped", || tally.alive() == 0);
    assert_eq!(tally.made(), 80);
    until("the parts are dropped", || Arc::strong_count(&owned) == 1);
    #[cfg(target_os = "linux")]
    until("the threads end", || threads("leave-nothing") == 0);
}

#[test]
fn a_loader_that_reads_its_own_key_is_recursive() {
    let cache: Cache<u64, u64> = Cache::builder()
        .compute_with(|request: &Request<u64, u64>| {
            let cache = request.cache()?;
            cache.get_blocking(request.key()).map(|value| *value)
        })
        .build()
        .unwrap();
    assert!(cache.get_blocking(&1).unwrap_err().is_recursive());
}

#[test]
fn a_loader_may_write_other_keys_of_its_cache() {
    let cache: Cache<u64, u64> = Cache::builder()
        .compute_with(|request: &Request<u64, u64>| {
            // One answer of the origin holds both.
            request.cache()?.insert(request.key() + 1, 11);
            Ok::<u64, Error>(10)
        })
        .build()
        .unwrap();
    assert_eq!(*cache.get_blocking(&1).unwrap(), 10);
    assert_eq!(cache.peek(&2).as_deref(), Some(&11));
}

type Handed = Arc<Mutex<Vec<Result<Cache<u64, u64>, Error>>>>;

/// Asks for its cache when it is polled a second time.
struct Late(Handed);

impl Loader<u64, u64> for Late {
    type Value = u64;
    type Error = Error;

    async fn load(&self, request: &Request<u64, u64>) -> Result<u64, Error> {
        futures_lite::future::yield_now().await;
        self.0.lock().unwrap().push(request.cache());
        Ok(1)
    }
}

#[test]
fn the_cache_of_a_load_that_outlives_it_is_gone() {
    let clock = ManualClock::new();
    let handed = Handed::default();
    let tasks = crate::support::Tasks::default();
    let cache = builder(&clock)
        .spawner(tasks.spawner())
        .loader(Late(handed.clone()))
        .build()
        .unwrap();
    let mut reads = [1, 2].map(|key| get(&cache, key));
    assert!(reads.iter_mut().all(is_pending));
    tasks.poll_all();
    tasks.poll(0);
    let first = handed.lock().unwrap().pop().unwrap();
    // The same cache.
    first.unwrap().insert(7, 70);
    assert_eq!(cache.peek(&7).as_deref(), Some(&70));
    drop((cache, reads));
    tasks.poll(1);
    let second = handed.lock().unwrap().pop().unwrap();
    let error = second.unwrap_err();
    assert!(error.is_cache_dropped(), "{error}");
}

#[test]
fn a_cache_with_a_hasher_of_its_own_is_found_by_its_type() {
    let cache: Cache<u64, u64, RandomState> = Cache::builder()
        .hasher(RandomState::new())
        .compute_with(|request: &Request<u64, u64>| {
            let error = request.cache().unwrap_err();
            assert!(error.to_string().contains("cache_with_hasher"), "{error}");
            assert!(!error.is_cache_dropped());
            match *request.key() {
                0 => Ok::<u64, Error>(0),
                n => Ok(*request
                    .cache_with_hasher::<RandomState>()?
                    .get_blocking(&(n - 1))?
                    + n),
            }
        })
        .build()
        .unwrap();
    assert_eq!(*cache.get_blocking(&4).unwrap(), 10);
}

#[test]
fn a_weak_handle_keeps_nothing_alive() {
    let cache: Cache<u64, u64> = Cache::builder().compute_with(sum).build().unwrap();
    let weak: WeakCache<u64, u64> = cache.downgrade();
    let value: Cached<u64, u64> = weak.upgrade().unwrap().get_blocking(&4).unwrap();
    assert_eq!(*value, 10);
    let (copy, strong) = (weak.clone(), weak.upgrade());
    drop(cache);
    assert!(copy.upgrade().is_some(), "a handle is left");
    drop(strong);
    assert!(copy.upgrade().is_none() && weak.upgrade().is_none());
    assert_eq!(*value, 10);
}

#[test]
fn an_async_loader_reaches_its_cache() {
    struct Sums;
    impl Loader<u64, u64> for Sums {
        type Value = u64;
        type Error = Error;

        async fn load(&self, request: &Request<u64, u64>) -> Result<u64, Error> {
            Ok(match *request.key() {
                0 => 0,
                n => n + *request.cache()?.get(&(n - 1)).await?,
            })
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let cache = Cache::builder().loader(Sums).build().unwrap();
    let sum = runtime.unwrap().block_on(cache.get(&20)).unwrap();
    assert_eq!(*sum, 210);
}
