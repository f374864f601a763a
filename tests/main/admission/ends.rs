//! Permits are given back, however a load ends, and loads that wait have an end as well.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;

use everfresh::{BoxFuture, Budget, Cache, Error, Loaded, ManualClock, Source};
use futures_lite::future::block_on;

use crate::support::gates::End;
use crate::support::*;

fn end(tasks: &Tasks, gates: &Gates<u64>, call: usize, with: End<u64>) {
    gates.end(call, with);
    tasks.poll_all();
}

#[test]
fn each_end_of_a_load_gives_its_permit_to_the_next() {
    let clock = ManualClock::new();
    let (cache, tasks, gates) = by_hand(builder(&clock).max_loads(1));
    let mut reads: Vec<_> = (0..6).map(|key| get(&cache, key)).collect();
    assert!(reads.iter_mut().all(is_pending));
    tasks.poll_all();
    let ends = [End::Value(1), End::NotFound, End::Fail, End::Panic];
    for (call, with) in ends.into_iter().enumerate() {
        assert_eq!(gates.calls(), call + 1);
        end(&tasks, &gates, call, with);
    }
    assert_eq!(gates.calls(), 5);
    // The runtime drops the load.
    assert!(tasks.abort(4));
    tasks.poll_all();
    assert_eq!(gates.calls(), 6);
    end(&tasks, &gates, 5, End::Value(1));
    let errors: Vec<Option<Error>> = reads.into_iter().map(|read| ready(read).err()).collect();
    let has = |at: usize, is: fn(&Error) -> bool| errors[at].as_ref().is_some_and(is);
    assert!(errors[0].is_none() && errors[5].is_none());
    assert!(has(1, Error::is_not_found) && has(2, Error::is_load_failure));
    assert!(has(3, Error::is_panic) && has(4, Error::is_cancelled));
    let stats = cache.stats();
    assert_eq!((stats.running, stats.waiting_cold), (0, 0));
}

/// Spawns inline, so that each load ends on the stack of the one that gave it its permit.
#[test]
fn ten_thousand_loads_that_end_at_once_do_not_pile_up_on_the_stack() {
    let (release, held) = mpsc::channel::<()>();
    let held = Arc::new(std::sync::Mutex::new(held));
    let cache: Cache<u64, u64> = builder(&ManualClock::new())
        .capacity(20_000)
        .max_loads(1)
        .spawner(|load: BoxFuture| block_on(load))
        .load_on(held, async |held: &Arc<std::sync::Mutex<_>>, key: &u64| {
            if *key == 0 {
                let held: &mpsc::Receiver<()> = &held.lock().unwrap();
                held.recv().unwrap();
            }
            *key
        })
        .build()
        .unwrap();
    let first = cache.clone();
    let first = thread::Builder::new()
        .stack_size(256 << 10)
        .spawn(move || *first.get_blocking(&0).unwrap())
        .unwrap();
    until("the first load runs", || cache.stats().running == 1);
    let mut reads: Vec<_> = (1..=10_000).map(|key| get(&cache, key)).collect();
    assert!(reads.iter_mut().all(is_pending));
    assert_eq!(cache.stats().waiting_cold, 10_000);
    release.send(()).unwrap();
    assert_eq!(first.join().unwrap(), 0);
    for (key, read) in (1..).zip(reads) {
        assert_eq!(*ready(read).unwrap(), key);
    }
    assert_eq!(cache.stats().running, 0);
}

#[test]
fn a_spawner_that_panics_keeps_no_permit_and_no_other_load_from_starting() {
    let calls = Arc::new(AtomicUsize::new(0));
    let tasks = Tasks::default();
    let spawn = tasks.spawner();
    let gates = Gates::<u64>::default();
    let limits = builder(&ManualClock::new())
        .max_loads(1)
        .spawner(move |future| {
            let call = calls.fetch_add(1, Ordering::Relaxed);
            assert!(call != 1 && call != 3, "no runtime");
            spawn(future);
        });
    let cache = gates.cache(limits);
    let mut reads: Vec<_> = (0..3).map(|key| get(&cache, key)).collect();
    assert!(reads.iter_mut().all(is_pending));
    tasks.poll_all();
    // The permit goes to the second load, whose spawner panics, and then to the third.
    end(&tasks, &gates, 0, End::Value(0));
    assert_eq!(gates.calls(), 2);
    end(&tasks, &gates, 1, End::Value(2));
    let mut reads = reads.into_iter();
    assert_eq!(*ready(reads.next().unwrap()).unwrap(), 0);
    assert!(ready(reads.next().unwrap()).is_err_and(|error| error.is_panic()));
    assert_eq!(*ready(reads.next().unwrap()).unwrap(), 2);
    // A caller whose own spawner panics gets the panic.
    assert!(catch_unwind(AssertUnwindSafe(|| poll(&mut get(&cache, 3)))).is_err());
    let mut read = get(&cache, 4);
    assert!(is_pending(&mut read));
    tasks.poll_all();
    assert_eq!(cache.stats().running, 1);
    end(&tasks, &gates, 2, End::Value(4));
    assert_eq!(*ready(read).unwrap(), 4);
}

#[test]
fn a_waiting_load_that_was_invalidated_is_not_made_and_its_callers_read_again() {
    let clock = ManualClock::new();
    let (cache, tasks, gates) = by_hand(builder(&clock).max_loads(1));
    let mut running = get(&cache, 0);
    let mut waits = [get(&cache, 1), get(&cache, 2), get(&cache, 1)];
    assert!(is_pending(&mut running) && waits.iter_mut().all(is_pending));
    cache.insert(3, Loaded::new(3).fresh_for(secs(1)));
    clock.advance(secs(1));
    assert_eq!(ready(get(&cache, 3)).unwrap().source(), Source::Stale);
    tasks.poll_all();
    cache.insert(1, 10);
    cache.invalidate(&2);
    cache.invalidate(&3);
    end(&tasks, &gates, 0, End::Value(0));
    ready(running).unwrap();
    assert_eq!(gates.calls(), 1, "nothing that waited is wanted");
    let [first, mut second, third] = waits;
    assert_eq!((*ready(first).unwrap(), *ready(third).unwrap()), (10, 10));
    assert!(is_pending(&mut second));
    tasks.poll_all();
    end(&tasks, &gates, 1, End::Value(20));
    assert_eq!((*ready(second).unwrap(), gates.key(1)), (20, 2));
}

#[test]
fn a_cache_that_is_dropped_while_loads_wait_leaves_nothing_behind() {
    let budget = Budget::new(1).unwrap();
    for shared in [false, true] {
        let state = Arc::new(());
        let kept = Arc::downgrade(&state);
        let tasks = Tasks::default();
        let limits = builder(&ManualClock::new()).spawner(tasks.spawner());
        let limits = match shared {
            true => limits.budget(&budget),
            false => limits.max_loads(1),
        };
        let cache: Cache<u64, u64> = limits
            .load_on(state, async |_: &Arc<()>, _: &u64| {
                std::future::pending::<u64>().await
            })
            .build()
            .unwrap();
        for key in 0..100 {
            assert!(is_pending(&mut get(&cache, key)));
        }
        tasks.poll_all();
        assert_eq!(cache.stats().waiting_cold, 99);
        // The running load hangs for ever and keeps its permit.
        drop(cache);
        assert_eq!(kept.strong_count(), 1, "the running load has the state");
        assert!(tasks.abort(0));
        assert_eq!(tasks.spawned(), 1);
        assert_eq!(kept.strong_count(), 0);
    }
}
