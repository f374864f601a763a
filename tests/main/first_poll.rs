//! The first poll of an async load, in the task of its caller.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use everfresh::{Cache, Error, Loaded};
use tokio::runtime::Runtime;
use tokio::sync::Notify;
use tokio::task::{Id, try_id};

use crate::support::*;

#[test]
fn a_load_that_is_ready_at_once_runs_in_the_task_of_its_caller() {
    let runtime = Runtime::new().unwrap();
    let cache: Cache<u64, Option<Id>> = Cache::builder()
        .load(async |_: &u64| Loaded::new(try_id()))
        .build()
        .unwrap();
    let read = cache.clone();
    let task = async move {
        let cold = *read.get(&1).await.unwrap();
        (cold == try_id(), *read.refresh(&2).await.unwrap())
    };
    let (is_same, refreshed) = runtime.block_on(runtime.spawn(task)).unwrap();
    assert!(is_same);
    // A refresh has a task of its own, and so has a load for a thread.
    assert!(refreshed.is_some());
    let _within = runtime.enter();
    assert!(cache.get_blocking(&3).unwrap().is_some());
}

#[test]
fn a_load_that_has_to_wait_goes_on_without_its_caller() {
    let runtime = Runtime::new().unwrap();
    let wake = Arc::new(Notify::new());
    let cache: Cache<u64, u64> = Cache::builder()
        .load_on(wake.clone(), async |wake: &Arc<Notify>, key: &u64| {
            wake.notified().await;
            *key
        })
        .build()
        .unwrap();
    let _within = runtime.enter();
    let mut read = get(&cache, 1);
    assert!(is_pending(&mut read));
    drop(read);
    wake.notify_one();
    until("the load ends", || cache.get_if_present(&1).is_some());
    assert_eq!(cache.stats().loads, 1);
}

#[test]
fn a_panic_in_the_first_poll_is_an_error() {
    let runtime = Runtime::new().unwrap();
    let cache: Cache<u64, u64> = Cache::builder()
        .load(async |key: &u64| -> u64 { panic!("no value for {key}") })
        .build()
        .unwrap();
    let read = runtime.block_on(async { cache.get(&1).await });
    assert!(read.unwrap_err().is_panic());
}

#[test]
fn a_load_inside_a_load_has_a_task_of_its_own_and_recursion_is_found() {
    let runtime = Runtime::new().unwrap();
    let handle: Arc<OnceLock<Cache<u64, u64>>> = Arc::default();
    let cache: Cache<u64, u64> = Cache::builder()
        .try_load_on(
            handle.clone(),
            async |cache: &Arc<OnceLock<Cache<u64, u64>>>, key: &u64| match key {
                // Around a cycle of two.
                1 | 2 => Ok::<u64, Error>(*Box::pin(cache.get().unwrap().get(&(3 - key))).await?),
                0 => Ok(0),
                _ => Ok(1 + *Box::pin(cache.get().unwrap().get(&(key - 10))).await?),
            },
        )
        .build()
        .unwrap();
    handle.set(cache.clone()).unwrap();
    let read = runtime.block_on(async { cache.get(&1).await });
    assert!(read.unwrap_err().is_recursive());
    assert_eq!(
        *runtime.block_on(async { cache.get(&1_000).await }).unwrap(),
        100
    );
}

#[test]
fn a_load_that_waits_for_a_permit_goes_on_elsewhere() {
    let runtime = Runtime::new().unwrap();
    let wake = Arc::new(Notify::new());
    let cache: Cache<u64, u64> = Cache::builder()
        .max_loads(1)
        .load_on(wake.clone(), async |wake: &Arc<Notify>, key: &u64| {
            if *key == 1 {
                wake.notified().await;
            }
            *key
        })
        .build()
        .unwrap();
    let _within = runtime.enter();
    let (mut first, mut second) = (get(&cache, 1), get(&cache, 2));
    assert!(is_pending(&mut first));
    assert!(is_pending(&mut second));
    assert_eq!(cache.stats().waiting_cold, 1);
    wake.notify_one();
    until("both loads end", || cache.stats().published == 2);
    assert_eq!((*ready(first).unwrap(), *ready(second).unwrap()), (1, 2));
}

#[test]
fn a_load_that_is_not_ready_is_polled_again_at_once() {
    // A future that counts its polls: the first one in the task of the caller, the second one in a
    // task of its own, at once.
    let runtime = Runtime::new().unwrap();
    let polls = Arc::new(AtomicUsize::new(0));
    let cache: Cache<u64, u64> = Cache::builder()
        .load_on(
            polls.clone(),
            async |polls: &Arc<AtomicUsize>, key: &u64| {
                let poll = |_: &mut Context<'_>| match polls.fetch_add(1, Ordering::SeqCst) {
                    0 => Poll::Pending,
                    _ => Poll::Ready(*key),
                };
                std::future::poll_fn(poll).await
            },
        )
        .build()
        .unwrap();
    assert_eq!(*runtime.block_on(async { cache.get(&1).await }).unwrap(), 1);
    assert_eq!(polls.load(Ordering::SeqCst), 2);
}
