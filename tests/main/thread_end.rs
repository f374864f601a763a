//! Destructors of thread-locals that use a cache, while a thread ends.
//!
//! A panic in such a destructor aborts the process, so each test runs in its own process.

use std::cell::RefCell;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::{env, thread};

use everfresh::{Cache, Cause, Clock, ManualClock, Pinned, Reader};

use crate::removal::Removals;
use crate::support::gates::numbering;
use crate::support::*;

/// Runs a test of this module in its own process.
fn apart(test: &str, run: impl FnOnce()) {
    const APART: &str = "EVERFRESH_TEST_APART";
    if env::var_os(APART).is_some() {
        return run();
    }
    let output = Command::new(env::current_exe().unwrap())
        .args(["--exact", &format!("thread_end::{test}"), "--nocapture"])
        .env(APART, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{}\n{said}\n{complained}",
        output.status
    );
}

type End = Arc<dyn Fn() + Send + Sync>;

struct AtEnd(RefCell<Option<End>>);

impl Drop for AtEnd {
    fn drop(&mut self) {
        if let Some(end) = self.0.take() {
            end();
        }
    }
}

thread_local! {
    static REGISTERED_FIRST: AtEnd = const { AtEnd(RefCell::new(None)) };
    static REGISTERED_LAST: AtEnd = const { AtEnd(RefCell::new(None)) };
}

/// Runs `life` on a thread, and `end` in two destructors of this thread. Destructors run in the
/// reverse order of the first use of their thread-locals, so one runs before and the other after
/// those of everything that `life` uses.
fn live_and_end(life: impl FnOnce() + Send + 'static, end: End) {
    let thread = thread::spawn(move || {
        REGISTERED_FIRST.with(|at_end| at_end.0.replace(Some(end.clone())));
        life();
        REGISTERED_LAST.with(|at_end| at_end.0.replace(Some(end)));
    });
    thread.join().unwrap();
}

type Handles = (Reader<u64, u64>, Pinned<u64, u64>);

thread_local! {
    static KEPT: RefCell<Option<Handles>> = const { RefCell::new(None) };
}

/// Reads 70 times by a reader and 70 times by a pin of this thread, which report hits in batches of
/// 64.
fn read_by_kept_handles(cache: &Cache<u64, u64>) {
    KEPT.with_borrow_mut(|kept| {
        let (reader, pin) = kept.get_or_insert_with(|| (cache.reader(), cache.pin(1)));
        for _ in 0..70 {
            assert_eq!(*reader.get_blocking(&1).unwrap(), 10);
            assert_eq!(*pin.get_blocking().unwrap(), 10);
        }
    });
}

#[test]
fn a_reader_and_a_pin_kept_by_a_thread_are_dropped_with_it() {
    apart(
        "a_reader_and_a_pin_kept_by_a_thread_are_dropped_with_it",
        || {
            let (cache, ..) = by_hand(builder(&ManualClock::new()));
            cache.insert(1, 10);
            for before in [false, true] {
                let cache = cache.clone();
                let thread = thread::spawn(move || {
                    if before {
                        assert!(cache.get_if_present(&1).is_some());
                    }
                    read_by_kept_handles(&cache);
                });
                thread.join().unwrap();
            }
            assert_eq!(cache.stats().fresh, 2 * 140 + 1);
        },
    );
}

#[test]
fn a_reader_and_a_pin_kept_by_a_worker_of_tokio_are_dropped_with_it() {
    apart(
        "a_reader_and_a_pin_kept_by_a_worker_of_tokio_are_dropped_with_it",
        || {
            let (cache, ..) = by_hand(builder(&ManualClock::new()));
            cache.insert(1, 10);
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .build()
                .unwrap();
            let reading = cache.clone();
            let task = runtime.spawn(async move { read_by_kept_handles(&reading) });
            runtime.block_on(task).unwrap();
            drop(runtime);
            assert_eq!(cache.stats().fresh, 140);
        },
    );
}

/// Makes every call of the public API.
fn use_all_of(cache: &Cache<u64, u64>, removals: &Removals, next: &AtomicU64) {
    let key = next.fetch_add(10, Ordering::Relaxed);
    assert_eq!(*cache.get_blocking(&key).unwrap(), key * 2, "a cold read");
    assert_eq!(*cache.get_blocking(&key).unwrap(), key * 2, "a hit");
    assert_eq!(*wait(get(cache, key + 1)).unwrap(), key * 2 + 2);
    assert_eq!(*ready(get(cache, key)).unwrap(), key * 2);
    assert_eq!(*cache.get_if_present(&key).unwrap(), key * 2);
    assert!(cache.get_if_present(&(key + 9)).is_none());
    cache.insert(key, 5);
    assert_eq!(removals.count(key, Cause::Replaced), 1);
    assert_eq!(*wait(refresh(cache, key)).unwrap(), key * 2);
    let (mut reader, mut pin) = (cache.reader(), cache.pin(key));
    for _ in 0..3 {
        assert_eq!(*reader.get_blocking(&key).unwrap(), key * 2);
        assert_eq!(*pin.get_blocking().unwrap(), key * 2);
    }
    drop((reader, pin));
    assert!(cache.invalidate(&key));
    assert_eq!(removals.count(key, Cause::Invalidated), 1);
    assert!(cache.contains_key(&(key + 1)));
    cache.sweep();
    cache.invalidate_all();
    assert_eq!(removals.count(key + 1, Cause::Invalidated), 1);
    assert!(cache.is_empty());
    assert!(cache.stats().reads() > 0 && format!("{cache:?}").contains("everfresh"));
}

#[test]
fn a_destructor_may_make_every_call() {
    apart("a_destructor_may_make_every_call", || {
        let removals = Removals::default();
        let cache: Cache<u64, u64> = removals
            .listen(builder(&ManualClock::new()))
            .compute(|key: &u64| key * 2)
            .build()
            .unwrap();
        let next = Arc::new(AtomicU64::new(0));
        let using = {
            let (cache, removals, next) = (cache.clone(), removals.clone(), next.clone());
            move || use_all_of(&cache, &removals, &next)
        };
        let end: End = Arc::new(using.clone());
        live_and_end(using, end.clone());
        live_and_end(|| {}, end);
        let stats = cache.stats();
        assert_eq!(next.load(Ordering::Relaxed), 50);
        // Each run counts 11 hits and 3 misses, one of them of `peek`.
        assert_eq!((stats.fresh, stats.misses), (5 * 9, 5 * 3), "{stats}");
    });
}

#[test]
fn a_destructor_may_build_a_cache_and_drop_the_last_handle() {
    apart(
        "a_destructor_may_build_a_cache_and_drop_the_last_handle",
        || {
            let last: Cache<u64, u64> = Cache::builder().compute(|key: &u64| *key).build().unwrap();
            let using = || {
                let cache: Cache<u64, u64> = Cache::builder()
                    .fresh_for(millis(100))
                    .compute(|key: &u64| *key)
                    .build()
                    .unwrap();
                assert_eq!(*cache.get_blocking(&1).unwrap(), 1);
            };
            live_and_end(using, Arc::new(using));
            live_and_end(|| {}, Arc::new(using));
            live_and_end(
                || {},
                Arc::new(move || assert!(last.get_blocking(&1).is_ok())),
            );
        },
    );
}

#[test]
fn a_destructor_that_waits_for_a_hanging_load_gets_an_error() {
    apart(
        "a_destructor_that_waits_for_a_hanging_load_gets_an_error",
        || {
            // Uses a system clock, whose thread the destructor starts.
            let loader = numbering();
            loader.hold();
            let builder = Cache::builder()
                .clock(Clock::precise())
                .threads(1)
                .load_timeout(millis(20));
            let cache = computing(builder, &loader);
            let using = move || assert!(cache.get_blocking(&1).unwrap_err().is_timeout());
            live_and_end(|| {}, Arc::new(using));
            loader.release();
        },
    );
}

#[test]
fn a_destructor_may_run_a_load_that_reads_itself() {
    apart("a_destructor_may_run_a_load_that_reads_itself", || {
        let handle = Arc::new(std::sync::OnceLock::<Cache<u64, u64>>::new());
        let inside = handle.clone();
        let cache: Cache<u64, u64> = builder(&ManualClock::new())
            // The spawner runs the load inside the call that starts it.
            .spawner(|mut load| while is_pending(&mut load) {})
            .try_load(move |key: &u64| {
                let (cache, key) = (inside.clone(), *key);
                async move { cache.get().unwrap().get(&key).await.map(|read| *read) }
            })
            .build()
            .unwrap();
        assert!(handle.set(cache.clone()).is_ok());
        let next = AtomicU64::new(0);
        let using = move || {
            let key = next.fetch_add(1, Ordering::Relaxed);
            let error = cache.get_blocking(&key).unwrap_err();
            assert!(error.is_recursive(), "{error}");
        };
        live_and_end(|| {}, Arc::new(using));
    });
}

#[test]
fn a_destructor_may_wait_for_a_load_on_tokio() {
    apart("a_destructor_may_wait_for_a_load_on_tokio", || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .build()
            .unwrap();
        let entered = runtime.enter();
        let cache: Cache<u64, u64> = Cache::builder()
            .load(|key: &u64| {
                let key = *key;
                async move { key }
            })
            .build()
            .unwrap();
        drop(entered);
        let next = AtomicU64::new(0);
        let using = move || {
            let key = next.fetch_add(1, Ordering::Relaxed);
            assert_eq!(*cache.get_blocking(&key).unwrap(), key);
        };
        live_and_end(|| {}, Arc::new(using));
    });
}
