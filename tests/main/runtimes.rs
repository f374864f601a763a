//! Where an async load runs, and blocking reads on the threads of a runtime.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use everfresh::{Cache, Error, Fresh, Loader, Request};
use futures_lite::future::block_on;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::LocalSet;

use crate::support::{builder, by_hand, get, is_pending, millis, ready, refresh, secs};
use everfresh::ManualClock;

fn one_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn threads(number: usize) -> Runtime {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(number).enable_all().build().unwrap()
}

/// A cache built outside of every runtime. Its loader waits for a timer of the runtime it is on.
fn timed() -> Cache<u64, u64> {
    Cache::builder()
        .load(async |key: &u64| {
            tokio::time::sleep(millis(1)).await;
            *key * 2
        })
        .build()
        .unwrap()
}

#[test]
fn a_static_cache_loads_on_the_runtime_of_each_caller() {
    static USERS: LazyLock<Cache<u64, u64>> = LazyLock::new(timed);
    for id in 1..5 {
        let runtime = one_thread();
        let user = runtime.block_on(async { USERS.get(&id).await });
        assert_eq!(*user.unwrap(), id * 2);
    }
    let stats = USERS.stats();
    assert_eq!((stats.loads, stats.failed), (4, 0));
}

#[test]
fn a_cache_built_in_a_runtime_loads_there_for_callers_without_one() {
    let runtime = threads(1);
    let cache = runtime.block_on(async { timed() });
    assert_eq!(*cache.get_blocking(&1).unwrap(), 2);
    assert_eq!(*block_on(cache.get(&2)).unwrap(), 4);
    // The runtime of the caller comes first.
    drop(runtime);
    assert_eq!(*one_thread().block_on(cache.get(&3)).unwrap(), 6);
    // Without one the load is dropped by the runtime that is gone, and its key rests.
    for _ in 0..3 {
        let error = cache.get_blocking(&4).unwrap_err();
        assert!(error.is_cancelled(), "{error}");
    }
}

#[test]
fn without_any_runtime_a_load_is_an_error_and_leaves_no_trace() {
    let cache = timed();
    for _ in 0..3 {
        let errors: [Error; 3] = [
            cache.get_blocking(&1).unwrap_err(),
            block_on(cache.get(&1)).unwrap_err(),
            cache.refresh_blocking(&1).unwrap_err(),
        ];
        for error in errors {
            assert!(error.is_without_runtime(), "{error}");
            assert!(error.to_string().contains("`spawner`"), "{error}");
        }
    }
    assert_eq!(*one_thread().block_on(cache.get(&1)).unwrap(), 2);
    assert_eq!(*cache.get_blocking(&1).unwrap(), 2);
    let stats = cache.stats();
    assert_eq!((stats.computes(), stats.rejected), (1, 9));
}

#[test]
fn without_any_runtime_a_stale_value_stays() {
    let clock = ManualClock::new();
    let cache = builder(&clock)
        .load(async |key: &u64| *key)
        .build()
        .unwrap();
    cache.insert(1, 10);
    clock.advance(secs(11));
    assert_eq!(*cache.get_blocking(&1).unwrap(), 10);
    clock.advance(secs(18));
    assert_eq!(*cache.get_blocking(&1).unwrap(), 10);
    clock.advance(secs(1));
    assert!(cache.get_blocking(&1).unwrap_err().is_without_runtime());
}

/// What every blocking read does that would wait for a load.
fn blocking(cache: &Cache<u64, u64>) -> Vec<Result<u64, Error>> {
    let value = |read: Result<everfresh::Cached<u64, u64>, Error>| read.map(|value| *value);
    let (mut reader, mut pinned) = (cache.reader(), cache.pin(103));
    let mut reads = vec![
        value(cache.get_blocking(&100)),
        value(cache.refresh_blocking(&101)),
        reader.get_blocking(&102).map(|value| *value),
        pinned.get_blocking().map(|value| *value),
    ];
    let many = cache.get_many_blocking(&[104, 105]);
    reads.extend(many.into_iter().map(value));
    reads
}

fn all_refused(reads: Vec<Result<u64, Error>>) {
    assert!(reads.len() > 4);
    for read in reads {
        let error = read.unwrap_err();
        assert!(error.is_would_block(), "{error}");
        assert!(error.to_string().contains("get(..).await"), "{error}");
    }
}

fn all_served(reads: Vec<Result<u64, Error>>) {
    let values: Vec<u64> = reads.into_iter().map(Result::unwrap).collect();
    assert_eq!(values, [200, 202, 204, 206, 208, 210]);
}

#[test]
fn the_only_thread_of_a_runtime_never_waits_for_a_load() {
    let cache = timed();
    one_thread().block_on(async {
        all_refused(blocking(&cache));
        // A value that is there is served, alone or among others.
        assert_eq!(*cache.get(&1).await.unwrap(), 2);
        assert_eq!(*cache.get_blocking(&1).unwrap(), 2);
        let many = cache.get_many_blocking(&[1, 200]);
        assert_eq!(**many[0].as_ref().unwrap(), 2);
        assert!(many[1].as_ref().is_err_and(Error::is_would_block));
        // In a task and in a set of local tasks it is the same.
        cache.invalidate_all();
        let spawned = cache.clone();
        let reads = tokio::spawn(async move { blocking(&spawned) });
        all_refused(reads.await.unwrap());
        cache.invalidate_all();
        let local = LocalSet::new();
        let spawned = cache.clone();
        let reads = local
            .run_until(async { tokio::task::spawn_local(async move { blocking(&spawned) }).await });
        all_refused(reads.await.unwrap());
    });
    let level: Fresh<u64> = Fresh::builder().load(async |&()| 7).build_fresh().unwrap();
    one_thread().block_on(async {
        assert!(level.get_blocking().unwrap_err().is_would_block());
        assert!(level.refresh_blocking().unwrap_err().is_would_block());
        assert_eq!(*level.get().await.unwrap(), 7);
    });
}

#[test]
fn a_refused_read_counts_as_a_miss_and_its_load_runs_on() {
    let cache = timed();
    one_thread().block_on(async {
        assert!(cache.get_blocking(&1).unwrap_err().is_would_block());
        assert_eq!(*cache.get(&1).await.unwrap(), 2);
    });
    let stats = cache.stats();
    assert_eq!((stats.misses, stats.loads, stats.coalesced), (2, 1, 1));
}

#[test]
fn a_thread_that_only_knows_a_runtime_may_wait() {
    let cache = timed();
    // A thread for blocking work, beside the only thread of the runtime.
    let runtime = one_thread();
    let reads = runtime.block_on(async {
        let cache = cache.clone();
        tokio::task::spawn_blocking(move || blocking(&cache)).await
    });
    all_served(reads.unwrap());
    // Inside of it, a runtime's own way to block.
    cache.invalidate_all();
    let reads = runtime.block_on(async {
        let (cache, handle) = (cache.clone(), Handle::current());
        let wait = move || handle.block_on(async move { blocking(&cache) });
        tokio::task::spawn_blocking(wait).await
    });
    all_served(reads.unwrap());
    // A thread that has entered a runtime.
    cache.invalidate_all();
    let runtime = threads(1);
    let _entered = runtime.enter();
    all_served(blocking(&cache));
}

#[test]
fn the_threads_of_a_runtime_with_many_wait_while_others_do_their_work() {
    for workers in [1, 3] {
        let cache = timed();
        let runtime = threads(workers);
        all_served(runtime.block_on(async { blocking(&cache) }));
        cache.invalidate_all();
        let local = LocalSet::new();
        all_served(runtime.block_on(local.run_until(async { blocking(&cache) })));
        // As many as there are workers, and more, block at once. Each load begins on the thread
        // that waits for it.
        let tasks: Vec<_> = (0..8)
            .map(|key| {
                let cache = cache.clone();
                runtime.spawn(async move { *cache.get_blocking(&key).unwrap() })
            })
            .collect();
        for (key, task) in (0..8).zip(tasks) {
            assert_eq!(runtime.block_on(task).unwrap(), key * 2);
        }
    }
}

#[test]
fn a_blocking_read_of_a_worker_waits_for_a_load_of_its_own_runtime() {
    let cache = timed();
    let runtime = threads(1);
    let task = {
        let cache = cache.clone();
        runtime.spawn(async move {
            // This load lies in the queue of this very thread.
            let mut begun = get(&cache, 1);
            assert!(is_pending(&mut begun));
            *cache.get_blocking(&1).unwrap()
        })
    };
    assert_eq!(runtime.block_on(task).unwrap(), 2);
}

#[test]
fn a_loader_that_computes_blocks_the_thread_of_its_caller() {
    let cache: Cache<u64, u64> = Cache::builder()
        .threads(1)
        .compute(|key: &u64| key * 2)
        .build()
        .unwrap();
    one_thread().block_on(async { all_served(blocking(&cache)) });
}

/// Reads another cache by a blocking call, as a loader should not.
struct Outer(Cache<u64, u64>);

impl Loader<u64, u64> for Outer {
    type Value = u64;
    type Error = Error;

    async fn load(&self, request: &Request<u64, u64>) -> Result<u64, Error> {
        Ok(*self.0.get_blocking(request.key())? + 1)
    }
}

#[test]
fn a_load_that_blocks_its_runtime_gets_the_error_or_waits() {
    let outer = Cache::builder().loader(Outer(timed())).build().unwrap();
    let error = one_thread().block_on(outer.get(&1)).unwrap_err();
    assert!(error.is_load_failure() && error.is_would_block(), "{error}");
    assert_eq!(*threads(1).block_on(outer.get(&2)).unwrap(), 5);
}

#[test]
fn a_dropped_load_of_a_missing_key_rests() {
    let clock = ManualClock::new();
    let settings = builder(&clock).backoff(secs(1), secs(60));
    let (cache, tasks, gates) = by_hand(settings);
    let mut read = get(&cache, 1);
    assert!(is_pending(&mut read));
    tasks.poll_all();
    assert!(tasks.abort(0));
    assert!(ready(read).unwrap_err().is_cancelled());
    // Half a second at least, a second at most.
    clock.advance(millis(499));
    for _ in 0..3 {
        assert!(cache.get_blocking(&1).unwrap_err().is_cancelled());
    }
    assert_eq!((gates.calls(), tasks.spawned()), (1, 1));
    clock.advance(millis(501));
    let mut read = get(&cache, 1);
    assert!(is_pending(&mut read));
    assert!(tasks.abort(1));
    // The second rest is longer, and an explicit refresh does not wait for it.
    clock.advance(millis(999));
    assert!(cache.get_blocking(&1).unwrap_err().is_cancelled());
    assert!(is_pending(&mut refresh(&cache, 1)));
    assert_eq!(tasks.spawned(), 3);
}

/// Counts the loads that began; each is dropped with its runtime.
#[test]
fn a_load_that_its_runtime_drops_is_tried_again_on_another_one_after_its_rest() {
    static BEGUN: AtomicU64 = AtomicU64::new(0);
    let clock = ManualClock::new();
    let cache = builder(&clock)
        .load(async |key: &u64| {
            if BEGUN.fetch_add(1, Ordering::Relaxed) == 0 {
                std::future::pending::<()>().await;
            }
            *key
        })
        .build()
        .unwrap();
    let runtime = one_thread();
    let mut read = get(&cache, 1);
    runtime.block_on(async {
        assert!(is_pending(&mut read));
        tokio::task::yield_now().await;
    });
    drop(runtime);
    assert!(ready(read).unwrap_err().is_cancelled());
    assert!(cache.get_blocking(&1).unwrap_err().is_cancelled());
    clock.advance(secs(1));
    assert_eq!(*one_thread().block_on(cache.get(&1)).unwrap(), 1);
    assert_eq!(BEGUN.load(Ordering::Relaxed), 2);
}
