//! The pool of `compute`: order, bounds and names.

use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use everfresh::{Builder, Cache, CountingLoader, Loaded, ManualClock, Source};

use crate::support::*;

/// A pool whose only worker is blocked by key 0. The list records the order of the computed keys.
struct Held {
    cache: Cache<u64, u64>,
    loader: CountingLoader<u64, u64>,
    clock: ManualClock,
    order: Arc<Mutex<Vec<u64>>>,
    holding: Option<Reading<u64>>,
}

impl Held {
    fn new(queue: usize) -> Self {
        Held::with(queue, |limits| limits)
    }

    fn with(queue: usize, set: impl Fn(Builder<u64, u64>) -> Builder<u64, u64>) -> Self {
        let clock = ManualClock::new();
        let order = Arc::new(Mutex::new(Vec::new()));
        let (list, moved) = (order.clone(), clock.clone());
        let loader = CountingLoader::new(move |key: &u64| {
            list.lock().unwrap().push(*key);
            // Key 3 takes a second to load, so that it has an early window.
            if *key == 3 {
                moved.advance(secs(1));
            }
            *key
        });
        let limits = builder(&clock)
            .beta(1.0)
            .threads(1)
            .queue(queue)
            .stale_for(secs(100));
        Held {
            cache: computing(set(limits), &loader),
            loader,
            clock,
            order,
            holding: None,
        }
    }

    fn hold(&mut self) {
        let calls = self.loader.calls();
        self.loader.hold();
        let mut holding = get(&self.cache, 0);
        assert!(is_pending(&mut holding));
        self.loader.wait_for_calls(calls + 1);
        self.holding = Some(holding);
    }

    fn finish(&self, published: u64) {
        self.loader.release();
        until("all results are published", || {
            self.cache.stats().published == published
        });
    }
}

#[test]
fn cold_loads_run_before_stale_refreshes_and_these_before_early_ones() {
    let mut held = Held::new(100);
    let cache = held.cache.clone();
    // Key 3 is 20 ns before its soft limit, where an early refresh is certain. Keys 1 and 2 are
    // stale.
    let early = cache.get_blocking(&3).unwrap();
    assert!(early.cost() <= secs(1) && early.cost() > secs(1) - millis(1));
    for stale in [1, 2] {
        cache.insert(stale, Loaded::new(0).fresh_for(secs(1)));
    }
    held.clock.advance(secs(10) - Duration::from_nanos(20));
    // While the worker is idle the early refresh is accepted. Later loads overtake it while it is
    // queued.
    until("the worker is idle", || cache.stats().published == 1);
    held.order.lock().unwrap().clear();
    held.loader.hold();
    let accepted = loop {
        // The worker counts as busy until it has returned from its last job.
        if ready(get(&cache, 3)).unwrap().source() == Source::Early && cache.stats().shed_early == 0
        {
            break true;
        }
        held.clock.advance(millis(200));
        cache.insert(3, 3);
        thread::yield_now();
        if cache.stats().shed_early > 0 {
            break false;
        }
    };
    if accepted {
        // The worker has taken the early refresh, which now blocks it.
        held.loader.wait_for_calls(2);
    } else {
        held.hold();
    }
    let running = held.loader.calls();
    assert!(ready(get(&cache, 1)).unwrap().freshness().is_stale());
    assert!(ready(get(&cache, 2)).unwrap().freshness().is_stale());
    let mut cold = [get(&cache, 11), get(&cache, 12)];
    assert!(cold.iter_mut().all(is_pending));
    assert_eq!(held.loader.calls(), running, "all loads are queued");
    held.finish(6);
    let order = held.order.lock().unwrap().clone();
    assert_eq!(order[1..], [11, 12, 1, 2], "in the order of their reasons");
}

#[test]
fn early_refreshes_are_shed_while_no_worker_is_idle_and_counted() {
    let mut held = Held::new(100);
    let cache = held.cache.clone();
    cache.get_blocking(&3).unwrap();
    held.clock.advance(secs(10) - Duration::from_nanos(20));
    held.hold();
    let early = ready(get(&cache, 3)).unwrap();
    assert_eq!((early.source(), *early), (Source::Early, 3));
    // The key is in backoff now, so the next reader does not try again at once.
    assert_eq!(ready(get(&cache, 3)).unwrap().source(), Source::Fresh);
    let stats = cache.stats();
    assert_eq!((stats.shed_early, stats.early), (1, 1));
    assert_eq!((stats.refreshes_early, stats.failed), (0, 0));
    held.finish(2);
    assert_eq!(held.loader.calls_for(&3), 1);
    // Once the value is stale, it is refreshed.
    held.clock.advance(secs(1));
    assert_eq!(ready(get(&cache, 3)).unwrap().source(), Source::Stale);
    until("key 3 is refreshed", || held.loader.calls_for(&3) == 2);
}

#[test]
fn a_shed_early_refresh_does_not_keep_later_callers_from_loading() {
    let mut held = Held::with(100, |limits| limits.stale_for(secs(0)));
    let cache = held.cache.clone();
    cache.get_blocking(&3).unwrap();
    held.clock.advance(secs(10) - Duration::from_nanos(20));
    held.hold();
    assert_eq!(ready(get(&cache, 3)).unwrap().source(), Source::Early);
    assert_eq!(cache.stats().shed_early, 1);
    held.finish(2);
    // The backoff of 50 to 100 ms is not over, but the value is past its hard limit.
    held.clock.advance(Duration::from_nanos(20));
    let loaded = cache.get_blocking(&3).unwrap();
    assert_eq!((*loaded, loaded.source()), (3, Source::Loaded));
}

#[test]
fn a_shed_stale_refresh_does_not_keep_later_callers_from_loading() {
    let mut held = Held::with(1, |limits| limits.stale_for(secs(1)).beta(0.0));
    let cache = held.cache.clone();
    cache.insert(1, 7);
    held.clock.advance(secs(11) - NANO);
    held.hold();
    let mut queued = get(&cache, 11);
    assert!(is_pending(&mut queued));
    assert_eq!(ready(get(&cache, 1)).unwrap().source(), Source::Stale);
    assert_eq!(cache.stats().shed_stale, 1);
    // The queue has no room for a load either. The caller gets this error, and the next caller
    // tries again.
    held.clock.advance(NANO);
    for _ in 0..2 {
        assert!(ready(get(&cache, 1)).unwrap_err().is_overloaded());
    }
    held.finish(2);
    assert_eq!(*wait(queued).unwrap(), 11);
    assert_eq!(*cache.get_blocking(&1).unwrap(), 1);
}

#[test]
fn a_full_queue_rejects_cold_loads_and_sheds_stale_refreshes() {
    let mut held = Held::new(2);
    let cache = held.cache.clone();
    cache.insert(1, Loaded::new(7).fresh_for(secs(1)));
    held.clock.advance(secs(2));
    held.hold();
    let mut queued = [get(&cache, 11), get(&cache, 12)];
    assert!(queued.iter_mut().all(is_pending));
    for _ in 0..3 {
        let error = ready(get(&cache, 13)).unwrap_err();
        assert!(error.is_overloaded());
    }
    // A stale value is still served, and its refresh is tried again only after a backoff.
    for _ in 0..5 {
        let stale = ready(get(&cache, 1)).unwrap();
        assert_eq!((*stale, stale.source()), (7, Source::Stale));
    }
    let stats = cache.stats();
    assert_eq!((stats.rejected, stats.shed_stale, stats.failed), (3, 1, 0));
    held.finish(3);
    for (read, key) in queued.into_iter().zip([11, 12]) {
        assert_eq!(*wait(read).unwrap(), key);
    }
    // The queue has room for both again.
    assert_eq!(*cache.get_blocking(&13).unwrap(), 13);
    held.clock.advance(millis(100));
    assert!(cache.get_blocking(&1).is_ok());
    until("key 1 is refreshed", || held.loader.calls_for(&1) == 1);
}

#[test]
fn a_load_that_a_worker_needs_is_accepted_by_a_full_queue() {
    let clock = ManualClock::new();
    let handle: Arc<std::sync::OnceLock<Cache<u64, u64>>> = Arc::default();
    let inside = handle.clone();
    let cache: Cache<u64, u64> = builder(&clock)
        .threads(1)
        .queue(1)
        .try_compute(move |key: &u64| {
            let cache = inside.get().unwrap();
            if *key == 0 {
                until("the queue is full", || cache.stats().rejected > 0);
                return cache.get_blocking(&1).map(|read| *read * 10);
            }
            Ok(*key)
        })
        .build()
        .unwrap();
    handle.set(cache.clone()).unwrap();
    let mut outer = get(&cache, 0);
    assert!(is_pending(&mut outer));
    until("the outer load runs", || cache.stats().loads == 1);
    let mut queued = get(&cache, 5);
    assert!(is_pending(&mut queued));
    assert!(ready(get(&cache, 6)).unwrap_err().is_overloaded());
    assert_eq!(*wait(outer).unwrap(), 10);
}

#[test]
fn the_pool_has_the_configured_number_and_names_of_threads() {
    let names = |name: &str, thread_name: Option<&str>, threads: usize| {
        let clock = ManualClock::new();
        let loader = CountingLoader::new(|_: &u64| thread::current().name().map(str::to_owned));
        let mut limits = builder(&clock).name(name).threads(threads);
        if let Some(thread_name) = thread_name {
            limits = limits.thread_name(thread_name);
        }
        let cache = computing(limits, &loader);
        loader.hold();
        let mut reads: Vec<_> = (0..10).map(|key| get(&cache, key)).collect();
        assert!(reads.iter_mut().all(is_pending));
        // At most as many loads run at once as there are threads.
        loader.wait_for_calls(threads);
        assert_eq!(loader.running(), threads);
        loader.release();
        let mut names: Vec<String> = reads
            .into_iter()
            .map(|read| (*wait(read).unwrap()).clone().unwrap())
            .collect();
        names.sort();
        names.dedup();
        names
    };
    let all = names("forecasts", None, 3);
    assert!(!all.is_empty() && all.iter().all(|name| name.starts_with("forecasts-")));
    assert!(
        all.iter()
            .all(|name| ["forecasts-0", "forecasts-1", "forecasts-2"].contains(&name.as_str()))
    );
    assert_eq!(names("forecasts", Some("model"), 1), ["model-0"]);
}

#[test]
fn a_load_runs_on_the_pool_and_not_on_its_caller() {
    let cache: Cache<u64, thread::ThreadId> = builder(&ManualClock::new())
        .threads(1)
        .compute(|_: &u64| thread::current().id())
        .build()
        .unwrap();
    let first = *cache.get_blocking(&1).unwrap();
    assert_ne!(first, thread::current().id());
    assert_eq!(*cache.get_blocking(&2).unwrap(), first);
}

#[test]
fn a_refresh_for_which_a_caller_waits_runs_before_loads_that_come_later() {
    let (clock, order) = (ManualClock::new(), Arc::<Mutex<Vec<u64>>>::default());
    let runs = order.clone();
    let (release, held) = mpsc::channel::<()>();
    let held = Mutex::new(held);
    let cache: Cache<u64, u64> = builder(&clock)
        .threads(1)
        .compute(move |key: &u64| {
            runs.lock().unwrap().push(*key);
            if *key == 0 {
                held.lock().unwrap().recv().unwrap();
            }
            *key
        })
        .build()
        .unwrap();
    for key in [7, 8] {
        cache.insert(key, Loaded::new(key).fresh_for(secs(1)).stale_for(secs(1)));
    }
    clock.advance(secs(1));
    let mut reads = vec![get(&cache, 0)];
    assert!(is_pending(&mut reads[0]));
    until("the worker is busy", || cache.stats().running == 1);
    for key in [7, 8] {
        assert_eq!(ready(get(&cache, key)).unwrap().source(), Source::Stale);
    }
    // The values expire while their refreshes wait.
    clock.advance(secs(1));
    for key in [1, 8, 2] {
        let mut read = get(&cache, key);
        assert!(is_pending(&mut read));
        reads.push(read);
    }
    release.send(()).unwrap();
    assert!(reads.into_iter().all(|read| wait(read).is_ok()));
    until("all are loaded", || order.lock().unwrap().len() == 5);
    assert_eq!(*order.lock().unwrap(), [0, 1, 8, 2, 7]);
}
