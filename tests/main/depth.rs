//! Chains of loads that wait one for another, and values that are large.

use std::sync::{Arc, OnceLock};
use std::task::Poll;

use everfresh::{Builder, Cache, Error, Pool, Request};

use crate::support::*;

/// A cache in which the load of each key reads the key below it.
fn chain(builder: Builder<u64, u64>) -> Cache<u64, u64> {
    let handle: Arc<OnceLock<Cache<u64, u64>>> = Arc::default();
    let inside = handle.clone();
    let cache = builder
        .try_compute(move |key: &u64| -> Result<u64, Error> {
            let below = key.checked_sub(1);
            let read = |below| inside.get().unwrap().get_blocking(&below);
            Ok(below.map(read).transpose()?.map_or(0, |sum| *sum + 1))
        })
        .build()
        .unwrap();
    handle.set(cache.clone()).unwrap();
    cache
}

#[test]
fn a_chain_of_loads_as_long_as_the_limit_loads_and_a_longer_one_is_an_error() {
    for threads in [1, 2] {
        let cache = chain(Cache::builder().threads(threads));
        assert_eq!(*cache.get_blocking(&127).unwrap(), 127);
        for deep in [500, 900, 100_000] {
            let error = cache.get_blocking(&deep).unwrap_err();
            assert!(error.is_too_deep() && error.is_load_failure(), "{error}");
            assert!(!error.is_recursive() && !error.is_overloaded());
        }
        // The loads that failed left no placeholders.
        assert_eq!(cache.len(), 128);
        // The limit is that of one chain, and those keys have values now.
        assert_eq!(*cache.get_blocking(&254).unwrap(), 254);
    }
}

#[test]
fn the_limit_is_settable_and_the_error_says_what_to_do() {
    let cache = chain(Cache::builder().threads(1).max_depth(3));
    assert_eq!(*cache.get_blocking(&2).unwrap(), 2);
    let cache = chain(Cache::builder().threads(1).max_depth(3));
    let error = cache.get_blocking(&3).unwrap_err();
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(below) = source {
        text = below.to_string();
        source = below.source();
    }
    assert!(text.contains("`max_depth`, 3"), "{text}");
    // A chain of 2 000 on stacks for it.
    let pool = Pool::builder()
        .threads(1)
        .stack_size(256 << 20)
        .build()
        .unwrap();
    let cache = chain(Cache::builder().pool(&pool).max_depth(2_000));
    assert_eq!(*cache.get_blocking(&1_999).unwrap(), 1_999);
}

#[test]
fn a_chain_in_a_pool_with_larger_stacks_does_not_overflow_a_small_one() {
    let pool = |stack_size| {
        let builder = Pool::builder().threads(1).stack_size(stack_size);
        builder.build().unwrap()
    };
    let (small, large) = (pool(65_536), pool(256 << 20));
    // The only worker of the larger pool is busy, so the worker with the small stack runs the loads
    // for which it waits.
    let (started, release) = (Arc::new(OnceLock::new()), Arc::new(OnceLock::new()));
    let (starts, released) = (started.clone(), release.clone());
    let busy: Cache<u64, u64> = Cache::builder()
        .pool(&large)
        .compute(move |key: &u64| {
            starts.set(()).unwrap();
            until("the chain has been loaded", || released.get().is_some());
            *key
        })
        .build()
        .unwrap();
    let mut blocked = get(&busy, 0);
    assert!(is_pending(&mut blocked));
    until("the worker is busy", || started.get().is_some());

    let below = chain(Cache::builder().pool(&large).max_depth(300));
    let cache: Cache<u64, u64> = Cache::builder()
        .pool(&small)
        .max_depth(1)
        .try_compute(move |key: &u64| below.get_blocking(key).map(|sum| *sum))
        .build()
        .unwrap();
    assert_eq!(*cache.get_blocking(&298).unwrap(), 298);
    release.set(()).unwrap();
    assert_eq!(*wait(blocked).unwrap(), 0);
}

#[test]
fn a_long_chain_does_not_overflow_the_stack_of_a_caller_that_runs_it() {
    let pool = Pool::builder().threads(1).stack_size(256 << 20);
    let builder = Cache::builder().pool(&pool.build().unwrap());
    let cache = chain(builder.max_depth(2_000).run_on_caller(true));
    assert_eq!(*cache.get_blocking(&1_999).unwrap(), 1_999);
}

#[test]
fn loads_that_other_callers_queued_count_where_they_run() {
    // The only worker runs each of these loads on top of the one that needs it.
    let handle: Arc<OnceLock<Cache<u64, u64>>> = Arc::default();
    let (inside, released) = (handle.clone(), Arc::new(OnceLock::new()));
    let release = released.clone();
    let cache: Cache<u64, u64> = Cache::builder()
        .threads(1)
        .try_compute(move |key: &u64| -> Result<u64, Error> {
            if *key == 0 {
                until("all loads are queued", || released.get().is_some());
                return Ok(0);
            }
            Ok(*inside.get().unwrap().get_blocking(&(key - 1))? + 1)
        })
        .build()
        .unwrap();
    handle.set(cache.clone()).unwrap();
    let mut first = get(&cache, 0);
    assert!(is_pending(&mut first));
    let mut reads: Vec<_> = (0..1_000).rev().map(|key| get(&cache, key)).collect();
    assert!(reads.iter_mut().all(is_pending));
    release.set(()).unwrap();
    assert_eq!(*wait(first).unwrap(), 0);
    // The first of them is the deepest.
    let deepest = wait(reads.remove(0)).unwrap_err();
    assert!(deepest.is_too_deep(), "{deepest}");
    for read in reads {
        let read = wait(read);
        assert!(read.as_ref().map_or_else(Error::is_too_deep, |_| true));
    }
}

#[test]
fn a_chain_through_several_caches_has_one_depth() {
    let handles: Arc<OnceLock<[Cache<u64, u64>; 2]>> = Arc::default();
    let cache = |other: usize| {
        let inside = handles.clone();
        Cache::<u64, u64>::builder()
            .threads(1)
            .max_depth(10)
            .try_compute(move |key: &u64| -> Result<u64, Error> {
                if *key == 0 {
                    return Ok(0);
                }
                let caches = inside.get().unwrap();
                Ok(*caches[other].get_blocking(&(key - 1))? + 1)
            })
            .build()
            .unwrap()
    };
    let caches = [cache(1), cache(0)];
    handles.set(caches.clone()).unwrap_or_default();
    assert!(caches[0].get_blocking(&20).unwrap_err().is_too_deep());
    assert_eq!(*caches[0].get_blocking(&9).unwrap(), 9);
}

#[test]
fn a_chain_of_async_loads_is_limited_too() {
    let (tasks, handle) = (
        Tasks::default(),
        Arc::<OnceLock<Cache<u64, u64>>>::default(),
    );
    let inside = handle.clone();
    let cache: Cache<u64, u64> = Cache::builder()
        .max_depth(10)
        .spawner(tasks.spawner())
        .try_load(move |key: &u64| {
            let (cache, key) = (inside.get().unwrap().clone(), *key);
            async move {
                match key {
                    0 => Ok(0),
                    _ => cache.get(&(key - 1)).await.map(|below| *below + 1),
                }
            }
        })
        .build()
        .unwrap();
    handle.set(cache.clone()).unwrap();
    for (key, is_too_deep) in [(20, true), (9, false)] {
        let mut read = get(&cache, key);
        let read = loop {
            match poll(&mut read) {
                Poll::Ready(read) => break read,
                Poll::Pending => tasks.poll_all(),
            }
        };
        assert_eq!(read.is_err_and(|error| error.is_too_deep()), is_too_deep);
    }
}

const MEGABYTE: usize = 1_000_000;

/// A value that lies in its entry and takes a megabyte.
struct Large([u8; MEGABYTE]);

#[inline(never)]
fn large() -> Large {
    Large([1; MEGABYTE])
}

#[test]
fn a_large_value_loads_on_a_stack_of_the_default_size() {
    let cache: Cache<u64, Large> = Cache::builder()
        .capacity(10)
        .try_compute(|_: &u64| Ok::<_, Error>(large()))
        .build()
        .unwrap();
    assert_eq!(read_large(&cache, 1), 1);
}

/// Reads on a thread whose stack has room for the placeholder of a large value, which is copied
/// without optimizations.
fn read_large(cache: &Cache<u64, Large>, key: u64) -> u8 {
    let cache = cache.clone();
    let caller = std::thread::Builder::new().stack_size(8 << 20);
    let read = move || cache.get_blocking(&key).unwrap().0[7];
    caller.spawn(read).unwrap().join().unwrap()
}

/// Loads a value that says how many loads were nested in its own.
fn nested(request: &Request<u64, Large>) -> Result<Large, Error> {
    let below = match *request.key() {
        0 => 0,
        key => request.cache()?.get_blocking(&(key - 1))?.0[0] + 1,
    };
    levels(below)
}

#[inline(never)]
fn levels(below: u8) -> Result<Large, Error> {
    Ok(Large([below; MEGABYTE]))
}

#[test]
fn loads_of_large_values_nest_on_a_stack_of_the_default_size() {
    let with_request = Cache::builder().compute_with(nested);
    let cache: Cache<u64, Large> = with_request.capacity(10).threads(1).build().unwrap();
    // Four loads on the stack of one worker.
    assert_eq!(read_large(&cache, 3), 3);
}
