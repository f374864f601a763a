//! A cache that is closed: where, when and by which threads.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::task::{Context, Waker};
use std::thread;
use std::time::Duration;

use dev_support::until;
use everfresh::{Cache, CloseError, Fresh, Loader, ManualClock, Request};
use futures_lite::future::block_on;
use tokio::sync::Semaphore;

const HOUR: Duration = Duration::from_secs(3_600);

/// P3: no load starts after a close has returned, and none that started before is lost.
#[test]
fn a_close_waits_for_every_load_that_started_and_no_load_starts_after_it() {
    for _ in 0..200 {
        let running = Arc::new(AtomicU64::new(0));
        let is_closed = Arc::new(AtomicBool::new(false));
        let cache: Cache<u64, u64> = Cache::builder()
            .close_timeout(HOUR)
            .threads(2)
            .compute({
                let (running, is_closed) = (running.clone(), is_closed.clone());
                move |n: &u64| {
                    running.fetch_add(1, Ordering::SeqCst);
                    assert!(
                        !is_closed.load(Ordering::SeqCst),
                        "it starts after the close"
                    );
                    thread::yield_now();
                    running.fetch_sub(1, Ordering::SeqCst);
                    n * n
                }
            })
            .build()
            .unwrap();
        let start = Barrier::new(3);
        thread::scope(|scope| {
            for reader in 0..2 {
                let (cache, start) = (&cache, &start);
                scope.spawn(move || {
                    start.wait();
                    for n in 0..50 {
                        let key = n * 2 + reader;
                        match cache.get_blocking(&key) {
                            Ok(value) => assert_eq!(*value, key * key),
                            Err(error) => assert!(error.is_closed(), "{error}"),
                        }
                    }
                });
            }
            start.wait();
            cache.close_blocking().unwrap();
            is_closed.store(true, Ordering::SeqCst);
            assert_eq!(running.load(Ordering::SeqCst), 0);
        });
    }
}

#[test]
fn a_load_may_read_other_keys_while_the_cache_closes() {
    let (began, goes_on) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
    let sum = {
        let (began, goes_on) = (began.clone(), goes_on.clone());
        move |request: &Request<u64, u64>| {
            let key = *request.key();
            if key == 10 {
                began.wait();
                goes_on.wait();
            }
            Ok::<u64, everfresh::Error>(match key {
                0 => 0,
                n => n + *request.cache()?.get_blocking(&(n - 1))?,
            })
        }
    };
    let sums: Cache<u64, u64> = Cache::builder()
        .close_timeout(HOUR)
        .compute_with(sum)
        .build()
        .unwrap();
    thread::scope(|scope| {
        let load = scope.spawn(|| *sums.get_blocking(&10).unwrap());
        began.wait();
        let mut closing = pin!(sums.close());
        let mut context = Context::from_waker(Waker::noop());
        assert!(closing.as_mut().poll(&mut context).is_pending());
        assert!(sums.get_blocking(&100).unwrap_err().is_closed());
        goes_on.wait();
        assert_eq!(load.join().unwrap(), 55);
        assert_eq!(block_on(closing), Ok(()));
    });
    assert!(sums.get_blocking(&11).unwrap_err().is_closed());
}

#[test]
fn a_load_cannot_close_a_cache() {
    let close = |request: &Request<u64, CloseError>| {
        let cache = request.cache()?;
        Ok::<_, everfresh::Error>(cache.close_blocking().unwrap_err())
    };
    let cache: Cache<u64, CloseError> = Cache::builder().compute_with(close).build().unwrap();
    let error = cache.get_blocking(&1).unwrap();
    assert!(error.is_inside_a_load());
    assert!(error.to_string().contains("from outside"), "{}", *error);
    // It did nothing.
    cache.get_blocking(&2).unwrap();
    cache.close_blocking().unwrap();
}

struct Closes;

impl Loader<u64, CloseError> for Closes {
    type Value = CloseError;
    type Error = everfresh::Error;

    async fn load(&self, request: &Request<u64, CloseError>) -> Result<CloseError, Self::Error> {
        Ok(request.cache()?.close().await.unwrap_err())
    }
}

#[tokio::test]
async fn an_async_load_cannot_close_its_cache() {
    let cache: Cache<u64, CloseError> = Cache::builder().loader(Closes).build().unwrap();
    assert!(cache.get(&1).await.unwrap().is_inside_a_load());
    cache.close().await.unwrap();
}

/// A cache whose loads run on the current runtime and wait for a permit each.
fn held() -> (Cache<u64, u64>, Arc<Semaphore>) {
    let permits = Arc::new(Semaphore::new(0));
    let cache = Cache::builder()
        .load({
            let permits = permits.clone();
            move |n: &u64| {
                let (n, permits) = (*n, permits.clone());
                async move {
                    permits.acquire().await.unwrap().forget();
                    n * n
                }
            }
        })
        .build()
        .unwrap();
    (cache, permits)
}

#[tokio::test]
async fn the_only_thread_of_a_runtime_is_not_blocked_by_a_close() {
    let (cache, permits) = held();
    let load = tokio::spawn({
        let cache = cache.clone();
        async move { *cache.get(&3).await.unwrap() }
    });
    tokio::task::yield_now().await;
    let error = cache.close_blocking().unwrap_err();
    assert!(error.is_would_block());
    assert!(error.to_string().contains("close().await"), "{error}");
    assert!(cache.get(&4).await.unwrap_err().is_closed(), "it has begun");
    permits.add_permits(1);
    cache.close().await.unwrap();
    cache.close_blocking().unwrap();
    assert_eq!(load.await.unwrap(), 9);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_task_of_a_runtime_with_many_threads_may_close_blocking() {
    let task = tokio::spawn(async {
        let (cache, permits) = held();
        let load = tokio::spawn({
            let cache = cache.clone();
            async move { *cache.get(&3).await.unwrap() }
        });
        until("the load runs", || {
            tokio::task::block_in_place(|| cache.stats().running == 1)
        });
        // While the close blocks this task, another thread goes on with this one.
        tokio::spawn(async move { permits.add_permits(1) });
        cache.close_blocking().unwrap();
        load.await.unwrap()
    });
    assert_eq!(task.await.unwrap(), 9);
}

#[test]
fn loads_that_have_not_begun_end_at_the_limit() {
    let clock = ManualClock::new();
    let gate = Arc::new(Barrier::new(2));
    let loads = Arc::new(AtomicU64::new(0));
    let cache: Cache<u64, u64> = Cache::builder()
        .clock(&clock)
        .max_loads(1)
        .threads(1)
        .compute({
            let (gate, loads) = (gate.clone(), loads.clone());
            move |n: &u64| {
                loads.fetch_add(1, Ordering::SeqCst);
                gate.wait();
                n * n
            }
        })
        .build()
        .unwrap();
    thread::scope(|scope| {
        let first = scope.spawn(|| cache.get_blocking(&1).map(|value| *value));
        until("it runs", || loads.load(Ordering::SeqCst) == 1);
        let second = scope.spawn(|| cache.get_blocking(&2).map(|value| *value));
        until("it waits", || cache.stats().waiting_cold == 1);
        let closing = scope.spawn(|| cache.close_blocking());
        until("the limit has passed", || {
            clock.advance(Duration::from_millis(100));
            closing.is_finished()
        });
        let error = closing.join().unwrap().unwrap_err();
        assert_eq!(error.left().loads, 1, "the one that runs");
        assert!(second.join().unwrap().unwrap_err().is_closed());
        gate.wait();
        assert_eq!(first.join().unwrap().unwrap(), 1);
    });
    assert_eq!(loads.load(Ordering::SeqCst), 1);
    assert_eq!(*cache.get_blocking(&1).unwrap(), 1, "its result is served");
}

#[test]
fn a_fresh_value_is_closed_like_a_cache() {
    let fresh: Fresh<u64> = Fresh::builder().compute(|&()| 1).build_fresh().unwrap();
    let mut pinned = fresh.pin();
    assert_eq!(*pinned.get_blocking().unwrap(), 1);
    block_on(fresh.close()).unwrap();
    fresh.close_blocking().unwrap();
    assert_eq!(*pinned.get_blocking().unwrap(), 1);
    fresh.invalidate();
    assert!(pinned.get_blocking().unwrap_err().is_closed());
    fresh.set(2);
    assert_eq!(*fresh.get_blocking().unwrap(), 2);
}

#[test]
fn a_cache_without_work_is_closed_at_once() {
    let cache: Cache<u64, u64> = Cache::builder()
        .close_timeout(Duration::ZERO)
        .compute(|n: &u64| n * n)
        .build()
        .unwrap();
    cache.close_blocking().unwrap();
    let mut reader = cache.reader();
    assert!(reader.get_blocking(&1).unwrap_err().is_closed());
    cache.insert(1, 5);
    assert_eq!(*reader.get_blocking(&1).unwrap(), 5);
}
