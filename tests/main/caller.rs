//! Cold loads that run on the threads of their callers.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::{self, ThreadId};

use everfresh::{Breaker, Builder, Cache, CountingLoader, ManualClock, Source};

use crate::support::*;

/// The threads that ran the loads of a cache, in order.
#[derive(Clone, Default)]
struct RanOn(Arc<Mutex<Vec<ThreadId>>>);

impl RanOn {
    fn record(&self) {
        self.0.lock().unwrap().push(thread::current().id());
    }

    /// Whether each load so far ran on this thread.
    fn here(&self) -> Vec<bool> {
        let threads = self.0.lock().unwrap();
        let here = thread::current().id();
        threads.iter().map(|thread| *thread == here).collect()
    }
}

/// A cache whose loads run on the callers, and record where.
fn on_caller(builder: Builder<u64, u64>) -> (Cache<u64, u64>, RanOn) {
    let ran_on = RanOn::default();
    let threads = ran_on.clone();
    let cache = builder
        .run_on_caller(true)
        .compute(move |key: &u64| {
            threads.record();
            *key
        })
        .build()
        .unwrap();
    (cache, ran_on)
}

#[test]
fn the_caller_of_a_missing_key_runs_its_load() {
    let (cache, ran_on) = on_caller(builder(&ManualClock::new()));
    let value = cache.get_blocking(&1).unwrap();
    assert_eq!((*value, value.source()), (1, Source::Loaded));
    assert_eq!(*cache.reader().get_blocking(&2).unwrap(), 2);
    assert_eq!(*cache.pin(3).get_blocking().unwrap(), 3);
    assert_eq!(ran_on.here(), [true; 3]);
    let stats = cache.stats();
    assert_eq!((stats.loads, stats.misses, stats.published), (3, 3, 3));
    assert_eq!((stats.running, stats.waiting_cold), (0, 0));
}

#[test]
fn an_expired_value_is_loaded_by_its_caller_and_a_stale_one_is_not() {
    let clock = ManualClock::new();
    let (cache, ran_on) = on_caller(builder(&clock).fresh_for(secs(10)).stale_for(secs(10)));
    assert_eq!(*cache.get_blocking(&1).unwrap(), 1);
    clock.advance(secs(20));
    assert_eq!(*cache.get_blocking(&1).unwrap(), 1);
    clock.advance(secs(10));
    assert_eq!(cache.get_blocking(&1).unwrap().source(), Source::Stale);
    until("the refresh ends", || cache.stats().published == 3);
    assert_eq!(*cache.refresh_blocking(&1).unwrap(), 1);
    assert_eq!(ran_on.here(), [true, true, false, false]);
}

#[test]
fn tasks_and_reads_of_many_keys_load_on_the_pool() {
    let (cache, ran_on) = on_caller(builder(&ManualClock::new()));
    assert_eq!(*futures_lite::future::block_on(cache.get(&1)).unwrap(), 1);
    let many = cache.get_many_blocking(&[2, 3]);
    assert_eq!(
        many.into_iter().flatten().map(|value| *value).sum::<u64>(),
        5
    );
    assert_eq!(*cache.refresh_blocking(&4).unwrap(), 4);
    assert_eq!(ran_on.here(), [false; 4]);
}

#[test]
fn without_it_loads_run_on_the_pool() {
    let ran_on = RanOn::default();
    let threads = ran_on.clone();
    let cache = builder(&ManualClock::new())
        .run_on_caller(false)
        .compute(move |key: &u64| {
            threads.record();
            *key
        })
        .build()
        .unwrap();
    assert_eq!(*cache.get_blocking(&1).unwrap(), 1);
    assert_eq!(ran_on.here(), [false]);
}

/// A cache with one permit, and its loader, which records where it runs.
fn one_permit(clock: &ManualClock) -> (Cache<u64, u64>, CountingLoader<u64, u64>, RanOn) {
    let ran_on = RanOn::default();
    let threads = ran_on.clone();
    let loader = CountingLoader::new(move |key: &u64| {
        threads.record();
        *key
    });
    let computing = loader.clone();
    let cache = builder(clock)
        .max_loads(1)
        .load_timeout(secs(5))
        .run_on_caller(true)
        .try_compute(move |key: &u64| computing.compute(key))
        .build()
        .unwrap();
    (cache, loader, ran_on)
}

#[test]
fn without_a_free_permit_the_load_waits_for_one_and_runs_on_the_pool() {
    let (cache, loader, ran_on) = one_permit(&ManualClock::new());
    loader.hold();
    thread::scope(|scope| {
        let first = scope.spawn(|| *cache.get_blocking(&1).unwrap());
        loader.wait_for_calls(1);
        let second = scope.spawn(|| {
            assert_eq!(*cache.get_blocking(&2).unwrap(), 2);
            ran_on.here()
        });
        until("the second load waits", || cache.stats().waiting_cold == 1);
        assert_eq!(cache.stats().running, 1);
        loader.release();
        assert_eq!(first.join().unwrap(), 1);
        assert_eq!(second.join().unwrap(), [false, false]);
    });
    assert_eq!(loader.calls(), 2);
    let mut key = 2;
    until("the permit is free again", || {
        key += 1;
        assert_eq!(*cache.get_blocking(&key).unwrap(), key);
        ran_on.here().last() == Some(&true)
    });
}

#[test]
fn callers_run_no_more_loads_at_once_than_the_pool_has_threads() {
    let running = Arc::new(AtomicUsize::new(0));
    let (ends, wait) = mpsc::channel::<()>();
    let (wait, count) = (Mutex::new(wait), running.clone());
    let cache = builder(&ManualClock::new())
        .threads(2)
        .run_on_caller(true)
        .compute(move |key: &u64| {
            assert!(count.fetch_add(1, Ordering::SeqCst) < 2);
            let _ = wait.lock().unwrap().recv();
            count.fetch_sub(1, Ordering::SeqCst);
            *key
        })
        .build()
        .unwrap();
    thread::scope(|scope| {
        let reads: Vec<_> = (0..6)
            .map(|key| {
                let cache = &cache;
                scope.spawn(move || *cache.get_blocking(&key).unwrap())
            })
            .collect();
        until("two loads run and the others wait", || {
            cache.stats().running == 2 && cache.stats().waiting_cold == 4
        });
        drop(ends);
        for (key, read) in reads.into_iter().enumerate() {
            assert_eq!(read.join().unwrap(), key as u64);
        }
    });
}

#[test]
fn callers_of_one_key_share_the_load_of_the_first() {
    let (cache, loader, ran_on) = one_permit(&ManualClock::new());
    loader.hold();
    thread::scope(|scope| {
        let reads = [1, 2, 3].map(|_| scope.spawn(|| *cache.get_blocking(&1).unwrap()));
        loader.wait_for_calls(1);
        until("two callers wait", || cache.stats().coalesced == 2);
        loader.release();
        for read in reads {
            assert_eq!(read.join().unwrap(), 1);
        }
    });
    assert_eq!((loader.calls(), ran_on.here().len()), (1, 1));
}

#[test]
fn an_open_breaker_refuses_the_load_of_a_caller() {
    let clock = ManualClock::new();
    let loader = CountingLoader::new(|key: &u64| *key);
    let computing = loader.clone();
    let cache = builder(&clock)
        .breaker(Breaker::new().opens_at(0.5).of_last(4))
        .run_on_caller(true)
        .try_compute(move |key: &u64| computing.compute(key))
        .build()
        .unwrap();
    loader.fail_next(4);
    for key in 0..4 {
        assert!(cache.get_blocking(&key).is_err());
    }
    assert!(cache.get_blocking(&9).unwrap_err().is_unavailable());
    assert_eq!(loader.calls(), 4);
}

/// With a load timeout that only a fault reaches.
fn patient() -> Builder<u64, u64> {
    Cache::builder().load_timeout(secs(20)).run_on_caller(true)
}

#[test]
fn loads_that_read_other_keys_run_on_the_same_thread_up_to_a_depth() {
    let ran_on = RanOn::default();
    let threads = ran_on.clone();
    let cache = reading_itself(patient().max_loads(1), move |cache, key| {
        threads.record();
        match key {
            0 => Ok(0),
            _ => Ok(1 + *cache.get_blocking(&(key - 1))?),
        }
    });
    assert_eq!(*cache.get_blocking(&15).unwrap(), 15);
    assert_eq!(ran_on.here(), [true; 16]);
    // The stack of a test has 2 MiB, so a longer chain goes on in a thread of its own.
    assert_eq!(*cache.get_blocking(&120).unwrap(), 120);
    let here = ran_on.here();
    assert_eq!(here.len(), 121);
    assert!(!here[120]);
    assert!(cache.get_blocking(&300).unwrap_err().is_too_deep());
}

#[test]
fn a_load_that_reads_its_own_key_gets_an_error_at_once() {
    let direct = reading_itself(patient(), |cache, key| Ok(*cache.get_blocking(&key)?));
    assert!(direct.get_blocking(&1).unwrap_err().is_recursive());
    let around = reading_itself(patient(), |cache, key| {
        Ok(*cache.get_blocking(&((key + 1) % 3))?)
    });
    assert!(around.get_blocking(&1).unwrap_err().is_recursive());
}

#[test]
fn a_caller_runs_the_queued_load_that_its_own_load_waits_for() {
    // The only worker waits for the load of the caller, which waits for a load in the queue.
    let (begun, has_begun) = mpsc::channel();
    let (go, may_go) = mpsc::channel::<()>();
    let may_go = Mutex::new(may_go);
    let cache = reading_itself(
        patient().threads(1).max_loads(8),
        move |cache, key| match key {
            1 => {
                begun.send(()).unwrap();
                may_go.lock().unwrap().recv().unwrap();
                Ok(*cache.get_blocking(&2)?)
            }
            10 => Ok(*cache.get_blocking(&1)?),
            _ => Ok(key),
        },
    );
    thread::scope(|scope| {
        let first = scope.spawn(|| *cache.get_blocking(&1).unwrap());
        has_begun.recv().unwrap();
        // A task, so that these two run on the pool: one occupies the worker, the other is queued.
        let mut occupies = get(&cache, 10);
        assert!(is_pending(&mut occupies));
        until("the worker waits", || cache.stats().coalesced == 1);
        let mut queued = get(&cache, 2);
        assert!(is_pending(&mut queued));
        go.send(()).unwrap();
        assert_eq!(first.join().unwrap(), 2);
    });
}

#[test]
fn a_panic_of_the_loader_is_an_error_for_the_caller_that_runs_it() {
    let clock = ManualClock::new();
    let loader = CountingLoader::new(|key: &u64| *key);
    let computing = loader.clone();
    let cache = builder(&clock)
        .run_on_caller(true)
        .try_compute(move |key: &u64| computing.compute(key))
        .build()
        .unwrap();
    loader.panic_next(1);
    assert!(cache.get_blocking(&1).unwrap_err().is_panic());
    assert!(cache.get_blocking(&1).unwrap_err().is_panic(), "it rests");
    clock.advance(secs(1));
    assert_eq!(*cache.get_blocking(&1).unwrap(), 1);
    assert_eq!(cache.stats().running, 0);
}

#[test]
fn at_the_deadline_the_others_go_and_the_caller_gets_its_late_value() {
    let clock = ManualClock::new();
    let (cache, loader, _) = one_permit(&clock);
    loader.hold();
    thread::scope(|scope| {
        let runs = scope.spawn(|| cache.get_blocking(&1));
        loader.wait_for_calls(1);
        let mut waits = get(&cache, 1);
        assert!(is_pending(&mut waits));
        clock.advance(secs(5));
        assert!(ready(waits).unwrap_err().is_timeout());
        assert!(ready(get(&cache, 1)).unwrap_err().is_timeout(), "it rests");
        assert!(!runs.is_finished());
        // Its permit is free, so other keys go on; no worker had to be replaced.
        let mut other = get(&cache, 2);
        assert!(is_pending(&mut other));
        loader.wait_for_calls(2);
        loader.release();
        assert_eq!(*runs.join().unwrap().unwrap(), 1);
    });
    assert_eq!(*cache.get_if_present(&1).unwrap(), 1);
    let stats = cache.stats();
    assert_eq!((stats.timed_out, stats.late_published), (1, 1));
    assert_eq!(stats.replaced_workers, 0);
}

#[test]
fn a_write_beats_the_late_result_of_a_caller_too() {
    let clock = ManualClock::new();
    let (cache, loader, _) = one_permit(&clock);
    loader.hold();
    thread::scope(|scope| {
        let runs = scope.spawn(|| cache.get_blocking(&1));
        loader.wait_for_calls(1);
        clock.advance(secs(5));
        cache.insert(1, 7);
        loader.release();
        assert_eq!(*runs.join().unwrap().unwrap(), 7, "what the key has now");
    });
    assert_eq!(*cache.get_if_present(&1).unwrap(), 7);
}

#[test]
fn a_caller_whose_late_load_failed_gets_the_time_out() {
    let clock = ManualClock::new();
    let (cache, loader, _) = one_permit(&clock);
    loader.fail_next(1);
    loader.hold();
    thread::scope(|scope| {
        let runs = scope.spawn(|| cache.get_blocking(&1));
        loader.wait_for_calls(1);
        clock.advance(secs(5));
        loader.release();
        assert!(runs.join().unwrap().unwrap_err().is_timeout());
    });
}

#[test]
fn on_the_only_thread_of_a_runtime_a_caller_runs_its_load() {
    let (cache, ran_on) = on_caller(Cache::builder());
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let read = runtime.unwrap().block_on(async { cache.get_blocking(&1) });
    assert_eq!(*read.unwrap(), 1);
    assert_eq!(ran_on.here(), [true]);
}

#[test]
fn with_an_async_loader_it_is_refused() {
    let error = Cache::<u64, u64>::builder()
        .run_on_caller(true)
        .load(async |key: &u64| *key)
        .build()
        .unwrap_err();
    let text = error.to_string();
    assert!(
        text.starts_with("`run_on_caller` is true; it has no effect on `load`"),
        "{text}"
    );
}
