//! Functions that readers bring, and caches without a loader.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::Poll;

use everfresh::{Breaker, Cache, Cached, Error, Loaded, ManualClock, Source};

use crate::support::*;

/// A cache without a loader, whose functions that wait run when the test says so.
fn bare(clock: &ManualClock) -> (Cache<u64, u64>, Tasks) {
    let tasks = Tasks::default();
    let builder = builder(clock)
        .stale_if_error_for(secs(40))
        .backoff(secs(2), secs(2))
        .spawner(tasks.spawner());
    (builder.without_loader().build().unwrap(), tasks)
}

fn or_load(cache: &Cache<u64, u64>, key: u64, value: u64) -> Reading<u64> {
    let cache = cache.clone();
    Box::pin(async move { cache.read(&key).or_load(async move || value).await })
}

fn or_fail(cache: &Cache<u64, u64>, key: u64) -> Reading<u64> {
    let cache = cache.clone();
    Box::pin(async move {
        let fail = async || Err::<u64, _>("the function failed");
        cache.read(&key).or_try_load(fail).await
    })
}

/// Counts when it is dropped.
struct Dropped(Arc<AtomicUsize>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn the_function_of_the_first_caller_runs_for_all() {
    let clock = ManualClock::new();
    let (cache, tasks) = bare(&clock);
    let mut reads: Vec<_> = (10..20).map(|value| or_load(&cache, 1, value)).collect();
    assert!(reads.iter_mut().all(is_pending));
    assert_eq!(tasks.spawned(), 1);
    tasks.poll_all();
    for (at, read) in reads.into_iter().enumerate() {
        let loaded = ready(read).unwrap();
        let source = if at == 0 {
            Source::Loaded
        } else {
            Source::Coalesced
        };
        assert_eq!((*loaded, loaded.source()), (10, source));
    }
    assert_eq!(
        *ready(or_load(&cache, 1, 30)).unwrap(),
        10,
        "a hit runs none"
    );
    assert_eq!(cache.stats().loads, 1);
}

#[test]
fn functions_that_do_not_run_are_dropped_and_may_use_the_cache_then() {
    struct Reads(Cache<u64, u64>, Arc<AtomicUsize>);
    impl Drop for Reads {
        fn drop(&mut self) {
            self.0.insert(2, 2);
            let _ = self.0.get_if_present(&1);
            self.1.fetch_add(1, Ordering::Relaxed);
        }
    }
    let clock = ManualClock::new();
    let (cache, tasks) = bare(&clock);
    let drops = Arc::new(AtomicUsize::new(0));
    let read = |value: u64| -> Reading<u64> {
        let held = Reads(cache.clone(), drops.clone());
        let cache = cache.clone();
        Box::pin(async move {
            let function = async move || {
                let _held = held;
                value
            };
            cache.read(&1).or_load(function).await
        })
    };
    let mut reads = [read(10), read(11), read(12)];
    assert!(reads.iter_mut().all(is_pending));
    let [first, second, third] = reads;
    drop(third);
    assert_eq!(drops.load(Ordering::Relaxed), 1);
    tasks.poll_all();
    assert_eq!(*ready(first).unwrap(), 10);
    assert_eq!(*ready(second).unwrap(), 10);
    assert_eq!(drops.load(Ordering::Relaxed), 3);
    drop(read(13));
    assert_eq!(drops.load(Ordering::Relaxed), 4);
}

#[test]
fn a_caller_that_goes_away_leaves_its_function_to_the_others() {
    let clock = ManualClock::new();
    let (cache, tasks) = bare(&clock);
    let (mut first, mut second) = (or_load(&cache, 1, 10), get(&cache, 1));
    assert!(is_pending(&mut first) && is_pending(&mut second));
    drop(first);
    tasks.poll_all();
    assert_eq!(*ready(second).unwrap(), 10);
}

#[test]
fn a_load_that_was_overtaken_before_it_began_leaves_its_function_to_the_next() {
    let clock = ManualClock::new();
    let tasks = Tasks::default();
    let builder = builder(&clock).max_loads(1).spawner(tasks.spawner());
    let cache: Cache<u64, u64> = builder.without_loader().build().unwrap();
    let go = Arc::new(AtomicU64::new(0));
    let holds: Reading<u64> = {
        let (cache, go) = (cache.clone(), go.clone());
        Box::pin(async move {
            let function = move || {
                poll_fn(move |_| match go.load(Ordering::Relaxed) {
                    0 => Poll::Pending,
                    n => Poll::Ready(n),
                })
            };
            cache.read(&7).or_load(function).await
        })
    };
    let mut holds = holds;
    assert!(is_pending(&mut holds));
    tasks.poll_all();
    // This one waits for its turn, and its key is invalidated meanwhile.
    let mut read = or_load(&cache, 1, 10);
    assert!(is_pending(&mut read));
    cache.invalidate(&1);
    go.store(5, Ordering::Relaxed);
    tasks.poll_all();
    assert_eq!(*ready(holds).unwrap(), 5);
    let mut ends = None;
    until("the read ends", || {
        tasks.poll_all();
        if let Poll::Ready(read) = poll(&mut read) {
            ends = Some(read);
        }
        ends.is_some()
    });
    assert_eq!(*ends.unwrap().unwrap(), 10);
}

#[test]
fn a_failure_is_the_error_of_all_and_the_key_rests() {
    let clock = ManualClock::new();
    let (cache, tasks) = bare(&clock);
    let mut reads = [or_fail(&cache, 1), or_load(&cache, 1, 10), get(&cache, 1)];
    assert!(reads.iter_mut().all(is_pending));
    tasks.poll_all();
    for read in reads {
        assert!(ready(read).unwrap_err().is_load_failure());
    }
    assert!(ready(or_load(&cache, 1, 10)).unwrap_err().is_load_failure());
    clock.advance(secs(2));
    let mut read = or_load(&cache, 1, 10);
    assert!(is_pending(&mut read));
    tasks.poll_all();
    assert_eq!(*ready(read).unwrap(), 10);
}

#[test]
fn a_function_returns_what_a_loader_returns() {
    let clock = ManualClock::new();
    let cache: Cache<u64, u64> = builder(&clock).without_loader().build().unwrap();
    assert_eq!(*cache.read(&1).or_compute(|| 10).blocking().unwrap(), 10);
    let none = cache.read(&2).or_compute(|| None).blocking();
    assert!(none.unwrap_err().is_not_found());
    let short = || Loaded::new(30).fresh_for(secs(1));
    let short = cache.read(&3).or_compute(short).blocking().unwrap();
    assert_eq!(short.fresh_remaining(), secs(1));
    let parse = || "40".parse::<u64>();
    assert_eq!(
        *cache.read(&4).or_try_compute(parse).blocking().unwrap(),
        40
    );
    let error = cache
        .read(&5)
        .or_try_compute(|| "x".parse::<u64>())
        .blocking()
        .unwrap_err();
    assert!(error.downcast_ref::<std::num::ParseIntError>().is_some());
    let panic = || -> u64 { panic!("the function panics") };
    let error = cache.read(&6).or_compute(panic).blocking().unwrap_err();
    assert!(error.is_panic() && error.to_string().contains("the function panics"));
}

#[test]
fn a_key_that_no_function_could_load_is_an_error() {
    let clock = ManualClock::new();
    let (cache, tasks) = bare(&clock);
    let missing = [
        ready(get(&cache, 1)),
        cache.get_blocking(&1),
        ready(refresh(&cache, 1)),
    ];
    for missing in missing {
        assert!(missing.unwrap_err().is_without_loader());
    }
    let many = cache.get_many_blocking(&[1, 2]);
    assert!(
        many.into_iter()
            .all(|read| read.unwrap_err().is_without_loader())
    );
    assert!(
        cache
            .reader()
            .get_blocking(&1)
            .is_err_and(|error| error.is_without_loader())
    );
    assert_eq!(tasks.spawned(), 0);
    cache.insert(1, 10);
    let seen = ready(get(&cache, 1)).unwrap();
    let refresh_if = Box::pin(cache.refresh_if(&seen));
    assert!(ready(refresh_if).unwrap_err().is_without_loader());
    let error = cache.get_blocking(&2).unwrap_err();
    assert!(error.to_string().contains("`or_load`"), "{error}");
    assert_eq!(format!("{error:?}"), "WithoutLoader");
}

#[test]
fn a_stale_value_is_refreshed_by_the_function_of_the_reader_that_found_it() {
    let clock = ManualClock::new();
    let (cache, tasks) = bare(&clock);
    cache.insert(1, 10);
    clock.advance(secs(15));
    // Without a function it is served, to its hard limit, and no refresh starts.
    assert_eq!(ready(get(&cache, 1)).unwrap().source(), Source::Stale);
    assert_eq!(tasks.spawned(), 0);
    assert_eq!(*ready(or_load(&cache, 1, 11)).unwrap(), 10);
    assert_eq!(*ready(or_load(&cache, 1, 12)).unwrap(), 10);
    assert_eq!(tasks.spawned(), 1);
    tasks.poll_all();
    assert_eq!(*ready(get(&cache, 1)).unwrap(), 11);
    // In the second window a reader with a function waits, and the others do not.
    clock.advance(secs(35));
    assert_eq!(*ready(get(&cache, 1)).unwrap(), 11);
    let mut read = or_load(&cache, 1, 13);
    assert!(is_pending(&mut read));
    tasks.poll_all();
    assert_eq!(*ready(read).unwrap(), 13);
    clock.advance(secs(50));
    assert!(ready(get(&cache, 1)).unwrap_err().is_without_loader());
}

#[test]
fn where_there_is_a_loader_it_makes_the_refreshes() {
    let clock = ManualClock::new();
    let (cache, tasks, gates) = by_hand(builder(&clock));
    let mut read = or_load(&cache, 1, 10);
    assert!(is_pending(&mut read));
    tasks.poll_all();
    assert_eq!(*ready(read).unwrap(), 10);
    assert_eq!(gates.calls(), 0);
    clock.advance(secs(15));
    assert_eq!(*ready(or_load(&cache, 1, 11)).unwrap(), 10);
    tasks.poll_all();
    assert_eq!(gates.calls(), 1, "the refresh is the loader's");
    gates.end(0, gates::End::Value(20));
    tasks.poll_all();
    assert_eq!(*ready(get(&cache, 1)).unwrap(), 20);
    // A value that is too old is loaded for the caller that waits.
    clock.advance(secs(5));
    let mut old: Reading<u64> = {
        let cache = cache.clone();
        Box::pin(async move { cache.read(&1).max_age(secs(1)).or_load(async || 30).await })
    };
    assert!(is_pending(&mut old));
    tasks.poll_all();
    assert_eq!(*ready(old).unwrap(), 30);
    assert_eq!(gates.calls(), 1);
}

#[test]
fn a_function_that_computes_runs_on_the_shared_pool_of_a_cache_that_loads() {
    let clock = ManualClock::new();
    let (cache, tasks, gates) = by_hand(builder(&clock));
    let thread = || std::thread::current().name().map(str::to_owned);
    let (tell, told) = std::sync::mpsc::channel();
    let function = move || {
        tell.send(thread()).unwrap();
        10
    };
    assert_eq!(*cache.read(&1).or_compute(function).blocking().unwrap(), 10);
    assert!(told.recv().unwrap().unwrap().starts_with("everfresh"));
    assert_eq!((tasks.spawned(), gates.calls()), (0, 0));
}

#[cfg(feature = "tokio")]
#[test]
fn a_function_that_waits_runs_on_the_runtime_of_a_caller_of_a_cache_that_computes() {
    let cache: Cache<u64, u64> = Cache::builder().compute(|n: &u64| n * n).build().unwrap();
    let outside = cache.read(&1).or_load(async || 10).blocking();
    assert!(outside.unwrap_err().is_without_runtime());
    for runtime in runtimes() {
        cache.invalidate_all();
        let read = cache.read(&1).or_load(async || {
            tokio::task::yield_now().await;
            10
        });
        assert_eq!(*runtime.block_on(read.into_future()).unwrap(), 10);
        assert_eq!(*runtime.block_on(async { cache.get(&2).await }).unwrap(), 4);
    }
}

#[cfg(feature = "tokio")]
fn runtimes() -> [tokio::runtime::Runtime; 2] {
    [
        tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap(),
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .build()
            .unwrap(),
    ]
}

#[cfg(feature = "tokio")]
#[test]
fn a_blocking_read_does_not_wait_for_a_function_that_its_own_thread_would_run() {
    let cache: Cache<u64, u64> = Cache::builder().compute(|n: &u64| n * n).build().unwrap();
    let [one, many] = runtimes();
    let read = async || cache.read(&1).or_load(async || 10).blocking();
    assert!(one.block_on(read()).unwrap_err().is_would_block());
    cache.invalidate_all();
    let cache = cache.clone();
    let read = many.spawn(async move { cache.read(&1).or_load(async || 10).blocking() });
    assert_eq!(*many.block_on(read).unwrap().unwrap(), 10);
}

#[test]
fn a_function_that_reads_its_own_key_is_recursive() {
    let clock = ManualClock::new();
    let cache: Cache<u64, u64> = builder(&clock).without_loader().build().unwrap();
    let (inner, again) = (cache.clone(), cache.clone());
    let read = move || -> Result<u64, Error> { Ok(*inner.read(&1).or_compute(|| 5).blocking()?) };
    assert!(
        cache
            .read(&1)
            .or_try_compute(read)
            .blocking()
            .unwrap_err()
            .is_recursive()
    );
    // Other keys are loads inside the load.
    let sum = move || -> Result<u64, Error> {
        let two: Cached<u64, u64> = again.read(&2).or_compute(|| 2).blocking()?;
        Ok(*two + 1)
    };
    assert_eq!(*cache.read(&3).or_try_compute(sum).blocking().unwrap(), 3);
}

#[test]
fn a_chain_of_functions_in_a_cache_that_loads_has_room_and_a_limit() {
    fn chain(cache: &Cache<u64, u64>, n: u64) -> Result<u64, Error> {
        let inner = cache.clone();
        let below = move || match n {
            0 => Ok(0),
            n => chain(&inner, n - 1).map(|sum| sum + n),
        };
        cache
            .read(&n)
            .or_try_compute(below)
            .blocking()
            .map(|sum| *sum)
    }
    let clock = ManualClock::new();
    let cache = builder(&clock)
        .max_depth(1_000)
        .spawner(|_| {})
        .without_loader();
    let cache: Cache<u64, u64> = cache.build().unwrap();
    assert_eq!(chain(&cache, 500).unwrap(), 500 * 501 / 2);
    cache.invalidate_all();
    assert!(chain(&cache, 1_001).unwrap_err().is_too_deep());
}

#[test]
fn functions_pass_the_gates_and_end_with_the_cache() {
    let clock = ManualClock::new();
    let breaker = Breaker::new().of_last(4);
    let cache: Cache<u64, u64> = builder(&clock)
        .breaker(breaker)
        .without_loader()
        .build()
        .unwrap();
    let fail = |key: u64| {
        cache
            .read(&key)
            .or_try_compute(|| Err::<u64, _>("down"))
            .blocking()
    };
    for key in 10..14 {
        assert!(fail(key).unwrap_err().is_load_failure());
    }
    let runs = Arc::new(AtomicUsize::new(0));
    let drops = Dropped(runs.clone());
    let held = move || {
        let _drops = drops;
        3
    };
    assert!(
        cache
            .read(&3)
            .or_compute(held)
            .blocking()
            .unwrap_err()
            .is_unavailable()
    );
    assert_eq!(
        runs.load(Ordering::Relaxed),
        1,
        "the function is dropped unrun"
    );
    cache.close_blocking().unwrap();
    assert!(
        cache
            .read(&4)
            .or_compute(|| 4)
            .blocking()
            .unwrap_err()
            .is_closed()
    );
}

#[test]
fn a_cache_needs_a_loader_or_says_that_it_has_none() {
    let error = Cache::<u64, u64>::builder().build().unwrap_err();
    assert!(error.to_string().contains("`without_loader`"), "{error}");
    let last = Cache::<u64, u64>::builder()
        .without_loader()
        .compute(|n: &u64| n * n);
    assert_eq!(*last.build().unwrap().get_blocking(&3).unwrap(), 9);
    let last = Cache::<u64, u64>::builder()
        .compute(|n: &u64| n * n)
        .without_loader();
    assert!(
        last.build()
            .unwrap()
            .get_blocking(&3)
            .unwrap_err()
            .is_without_loader()
    );
}

#[test]
fn a_function_runs_on_the_thread_of_its_caller_where_the_cache_says_so() {
    let clock = ManualClock::new();
    let builder = builder(&clock).run_on_caller(true).threads(1);
    let cache: Cache<u64, u64> = builder.without_loader().build().unwrap();
    let here = std::thread::current().id();
    let function = move || u64::from(std::thread::current().id() == here);
    assert_eq!(*cache.read(&1).or_compute(function).blocking().unwrap(), 1);
    // A caller that waits for a limited time leaves the work to the pool.
    let read = cache.read(&2).or_compute(function).wait_at_most(secs(100));
    assert_eq!(*read.blocking().unwrap(), 0);
}
