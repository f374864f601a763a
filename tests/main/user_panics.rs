//! User code that panics when the cache calls it. The cache stays usable and its counts stay
//! correct.

use std::cell::Cell;
use std::hash::{Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll};

use everfresh::{BoxFuture, Cache, Error, InjectedFailure, Loaded, ManualClock, Request};

use crate::support::*;

thread_local! {
    static TRAP: Cell<Option<(Trap, u32)>> = const { Cell::new(None) };
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Trap {
    Hash,
    Eq,
    Clone,
}

/// Sets a trap that panics once, at the `after`th use by this thread.
fn set(trap: Trap, after: u32) {
    TRAP.set(Some((trap, after)));
}

fn step_on(trap: Trap) {
    match TRAP.get() {
        Some((set, 0)) if set == trap => {
            TRAP.set(None);
            panic!("a trap");
        }
        Some((set, left)) if set == trap => TRAP.set(Some((set, left - 1))),
        _ => {}
    }
}

#[derive(Debug)]
struct Key(u64);

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        step_on(Trap::Hash);
        // All keys are in one set, where they are compared.
        state.write_u64(0);
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        step_on(Trap::Eq);
        self.0 == other.0
    }
}

impl Eq for Key {}

impl Clone for Key {
    fn clone(&self) -> Self {
        step_on(Trap::Clone);
        Key(self.0)
    }
}

type Operation = fn(&Cache<Key, u64>);

#[test]
fn a_key_may_panic_anywhere_on_its_callers_thread() {
    let operations: [Operation; 7] = [
        |cache| drop(cache.get_blocking(&Key(1))),
        |cache| drop(cache.get_blocking(&Key(9))),
        |cache| drop(cache.get_if_present(&Key(1))),
        |cache| cache.insert(Key(1), 1),
        |cache| cache.insert(Key(8), 8),
        |cache| assert!(cache.invalidate(&Key(2))),
        |cache| assert!(cache.contains_key(&Key(3))),
    ];
    let mut panics = 0;
    for operation in operations {
        for trap in [Trap::Hash, Trap::Eq, Trap::Clone] {
            for after in 0..12 {
                let cache: Cache<Key, u64> = Cache::builder()
                    .clock(ManualClock::new())
                    .capacity(12)
                    .threads(1)
                    .compute(|key: &Key| key.0)
                    .build()
                    .unwrap();
                for key in 0..4 {
                    cache.insert(Key(key), key);
                }
                set(trap, after);
                let unwound = catch_unwind(AssertUnwindSafe(|| operation(&cache))).is_err();
                TRAP.set(None);
                panics += u32::from(unwound);
                // Every key can be read, and the count matches the keys.
                for key in 0..11 {
                    assert_eq!(*cache.get_blocking(&Key(key)).unwrap(), key);
                }
                let resident = (0..20).filter(|key| cache.contains_key(&Key(*key))).count();
                assert_eq!((resident, cache.len()), (11, 11));
                cache.invalidate_all();
                assert!(cache.is_empty());
            }
        }
    }
    assert!(panics > 20, "only {panics} traps were triggered");
}

/// A cache whose key panics on the worker, at the `after`th clone after a load of key 1.
fn trapped(clock: &ManualClock, after: u32, ends: fn() -> Loaded<u64>) -> Cache<Key, u64> {
    Cache::builder()
        .clock(clock)
        .threads(1)
        .fresh_for(secs(10))
        .stale_for(secs(20))
        .beta(0.0)
        .backoff(secs(4), secs(4))
        .compute_with(move |request: &Request<Key, u64>| {
            if request.key().0 == 1 {
                set(Trap::Clone, after);
            }
            Ok::<_, InjectedFailure>(ends())
        })
        .build()
        .unwrap()
}

/// Checks a load that panics after its loader has returned: the caller gets the error, the failure
/// is counted, and the backoff begins.
fn assert_failed_once<K, V>(cache: &Cache<K, V>, key: &K, clock: &ManualClock, text: &str)
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + std::fmt::Debug + 'static,
{
    let error = cache.get_blocking(key).unwrap_err();
    assert!(
        error.is_panic() && error.to_string().contains(text),
        "{error}"
    );
    for _ in 0..3 {
        assert!(cache.get_blocking(key).unwrap_err().is_panic());
    }
    let stats = cache.stats();
    assert_eq!((stats.loads, stats.failed, stats.published), (1, 1, 0));
    assert!(cache.is_empty());
    clock.advance(secs(5));
    assert!(cache.get_blocking(key).unwrap_err().is_panic());
    let stats = cache.stats();
    assert_eq!(
        (stats.loads, stats.failed),
        (2, 2),
        "the load is tried again"
    );
}

#[test]
fn a_key_whose_clone_panics_after_its_load_fails_the_load() {
    let clock = ManualClock::new();
    let cache = trapped(&clock, 0, || Loaded::new(1));
    assert_failed_once(&cache, &Key(1), &clock, "a trap");
    assert_eq!(*cache.get_blocking(&Key(2)).unwrap(), 1);
    assert_eq!(cache.len(), 1);
}

#[test]
fn the_callers_get_the_error_even_if_the_key_cannot_be_remembered() {
    // The clone panics where a failure, or the answer "not found", is stored.
    let clock = ManualClock::new();
    let cache = trapped(&clock, 0, Loaded::not_found);
    let error = cache.get_blocking(&Key(1)).unwrap_err();
    assert!(error.is_not_found(), "{error}");
    assert!(cache.is_empty());
    assert!(cache.get_blocking(&Key(2)).unwrap_err().is_not_found());
}

#[test]
fn a_key_that_panics_while_its_value_is_removed_ends_the_load_with_a_panic() {
    let clock = ManualClock::new();
    // One clone stores the answer. The second is for the notification of the removed value.
    let cache = trapped(&clock, 1, Loaded::not_found);
    cache.insert(Key(1), 5);
    clock.advance(secs(40));
    let error = cache.get_blocking(&Key(1)).unwrap_err();
    assert!(error.is_panic(), "{error}");
    // The value is still resident, and the key is in backoff as after a failure.
    assert_eq!(cache.len(), 1);
    assert!(cache.get_blocking(&Key(1)).is_err());
    assert_eq!(cache.stats().loads, 1);
}

#[test]
fn a_weigher_that_panics_after_a_load_fails_the_load() {
    let clock = ManualClock::new();
    let cache: Cache<u64, u64> = builder(&clock)
        .backoff(secs(4), secs(4))
        .max_weight(100, |_, value| 10 / u32::try_from(*value).unwrap())
        .compute(|key: &u64| key - 1)
        .build()
        .unwrap();
    assert_failed_once(&cache, &1, &clock, "divide by zero");
    // A resident value is served while its refresh fails.
    cache.insert(1, 5);
    clock.advance(secs(12));
    assert_eq!(*cache.get_blocking(&1).unwrap(), 5);
    until("the refresh has failed", || cache.stats().failed == 3);
    assert_eq!(*cache.get_blocking(&1).unwrap(), 5);
    assert_eq!(cache.stats().refreshes_stale, 1, "the key is in backoff");
    assert_eq!(cache.weight(), 2);
}

#[test]
fn a_weigher_that_panics_on_insert_leaves_nothing_behind() {
    let cache: Cache<u64, u64> = builder(&ManualClock::new())
        .max_weight(100, |_, value| 10 / u32::try_from(*value).unwrap())
        .compute(|key: &u64| *key)
        .build()
        .unwrap();
    cache.insert(1, 5);
    for key in [1, 2] {
        let unwound = catch_unwind(AssertUnwindSafe(|| cache.insert(key, 0))).is_err();
        assert!(unwound);
    }
    assert_eq!((cache.len(), cache.weight()), (1, 2));
    assert_eq!(*cache.get_if_present(&1).unwrap(), 5);
    assert_eq!(*cache.get_blocking(&2).unwrap(), 2);
}

#[test]
fn a_loader_whose_panic_payload_panics_when_dropped_fails_the_load() {
    struct Payload;
    impl Drop for Payload {
        fn drop(&mut self) {
            panic!("a payload");
        }
    }
    let clock = ManualClock::new();
    let cache: Cache<u64, u64> = builder(&clock)
        .backoff(secs(4), secs(4))
        .compute(|_: &u64| -> u64 { std::panic::panic_any(Payload) })
        .build()
        .unwrap();
    assert_failed_once(&cache, &1, &clock, "the loader panicked");
}

/// A value that panics when it is dropped while the flag is set.
struct Bomb(Arc<AtomicBool>);

impl Drop for Bomb {
    fn drop(&mut self) {
        if !std::thread::panicking() && self.0.load(Ordering::SeqCst) {
            panic!("a bomb");
        }
    }
}

#[test]
fn a_value_may_panic_when_it_is_dropped() {
    let armed = Arc::new(AtomicBool::new(false));
    type Operation = fn(&Cache<u64, Bomb>, &Arc<AtomicBool>);
    let operations: [Operation; 5] = [
        |cache, armed| cache.insert(0, Bomb(armed.clone())),
        |cache, armed| cache.insert(50, Bomb(armed.clone())),
        |cache, _| assert!(cache.invalidate(&0)),
        |cache, _| cache.invalidate_all(),
        |cache, _| drop(cache.get_blocking(&60)),
    ];
    for (number, operation) in operations.into_iter().enumerate() {
        let clock = ManualClock::new();
        let making = armed.clone();
        let cache: Cache<u64, Bomb> = builder(&clock)
            .capacity(3)
            .threads(1)
            .compute(move |_: &u64| Bomb(making.clone()))
            .build()
            .unwrap();
        for key in 0..3 {
            cache.insert(key, Bomb(armed.clone()));
        }
        armed.store(true, Ordering::SeqCst);
        let unwound = catch_unwind(AssertUnwindSafe(|| operation(&cache, &armed))).is_err();
        // The last operation drops its value on a thread of the pool.
        assert_eq!(unwound, number < 4, "operation {number}");
        until("the worker has returned", || {
            armed.store(false, Ordering::SeqCst);
            true
        });
        for key in 100..110 {
            assert!(cache.get_blocking(&key).is_ok(), "operation {number}");
            assert!(cache.len() <= 3);
        }
        let resident = (0..200).filter(|key| cache.contains_key(key)).count();
        assert_eq!((resident, cache.len()), (3, 3), "operation {number}");
        cache.invalidate_all();
        assert_eq!(cache.len(), 0, "operation {number}");
    }
}

/// The load of 0 runs the refresh of 1 on its own worker. The old value of 1 panics in its drop.
#[test]
fn a_value_that_panics_when_a_load_inside_another_replaces_it_harms_neither() {
    let armed = Arc::new(AtomicBool::new(false));
    let making = armed.clone();
    let load = move |request: &Request<u64, Bomb>| -> Result<Bomb, Error> {
        if *request.key() == 0 {
            let cache = request.cache()?;
            making.store(true, Ordering::SeqCst);
            let read = catch_unwind(AssertUnwindSafe(|| cache.get_blocking(&1).map(|_| ())));
            making.store(false, Ordering::SeqCst);
            read.expect("the read panics in the drop of an old value")?;
        }
        Ok(Bomb(making.clone()))
    };
    let clock = ManualClock::new();
    let cache: Cache<u64, Bomb> = builder(&clock)
        .threads(1)
        .compute_with(load)
        .build()
        .unwrap();
    cache.insert(
        1,
        Loaded::new(Bomb(armed))
            .fresh_for(secs(1))
            .stale_for(secs(0)),
    );
    clock.advance(secs(1));
    assert!(cache.get_blocking(&0).is_ok());
    assert!(cache.get_if_present(&1).is_some());
}

/// A future of a loader that panics when it is dropped.
struct Explosive(Arc<AtomicBool>);

impl Future for Explosive {
    type Output = u64;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<u64> {
        Poll::Ready(5)
    }
}

impl Drop for Explosive {
    fn drop(&mut self) {
        assert!(!self.0.load(Ordering::SeqCst), "a future explodes");
    }
}

#[test]
fn no_panic_of_an_async_load_reaches_the_executor() {
    let armed = Arc::new(AtomicBool::new(false));
    let panicked = Arc::new(AtomicBool::new(false));
    let sees = panicked.clone();
    let spawn = move |load: BoxFuture| {
        let run = AssertUnwindSafe(|| futures_lite::future::block_on(load));
        sees.fetch_or(catch_unwind(run).is_err(), Ordering::SeqCst);
    };
    // An old value that panics when it is replaced.
    let clock = ManualClock::new();
    let making = armed.clone();
    let cache: Cache<u64, Bomb> = builder(&clock)
        .capacity(1)
        .spawner(spawn.clone())
        .load_on(making, async |armed: &Arc<AtomicBool>, _: &u64| {
            Bomb(armed.clone())
        })
        .build()
        .unwrap();
    cache.insert(1, Bomb(armed.clone()));
    armed.store(true, Ordering::SeqCst);
    let read = cache.get_blocking(&2).map(|_| ());
    armed.store(false, Ordering::SeqCst);
    assert!(read.is_ok());
    assert!(!panicked.load(Ordering::SeqCst));
    // A future that panics when it is dropped after its end, as a part of the load.
    let making = armed.clone();
    let cache: Cache<u64, u64> = builder(&clock)
        .spawner(spawn)
        .load(move |_: &u64| Explosive(making.clone()))
        .build()
        .unwrap();
    armed.store(true, Ordering::SeqCst);
    let read = cache.get_blocking(&2);
    armed.store(false, Ordering::SeqCst);
    assert!(read.unwrap_err().is_panic());
    assert!(!panicked.load(Ordering::SeqCst));
}

#[test]
fn a_weigher_or_a_key_that_reads_the_loaded_key_gets_a_recursion_error() {
    // The weigher runs inside the load, so waiting for this load would never end.
    let clock = ManualClock::new();
    let handle = Arc::new(OnceLock::<Cache<u64, u64>>::new());
    let (inside, seen) = (handle.clone(), Arc::new(Mutex::new(Vec::new())));
    let recorder = seen.clone();
    let cache = builder(&clock)
        .max_weight(100, move |key: &u64, _| {
            let read = inside.get().unwrap().get_blocking(key);
            recorder.lock().unwrap().push(read.map(|read| *read));
            1
        })
        .compute(|key: &u64| *key)
        .build()
        .unwrap();
    handle.set(cache.clone()).unwrap();
    assert_eq!(*cache.get_blocking(&7).unwrap(), 7);
    let seen = seen.lock().unwrap();
    assert!(
        matches!(&seen[..], [Err(error)] if error.is_recursive()),
        "{seen:?}"
    );
}

/// A key that runs a function when it is dropped.
#[derive(Clone)]
struct Watched(u64, Arc<dyn Fn() + Send + Sync>);

impl Hash for Watched {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl PartialEq for Watched {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Eq for Watched {}

impl Drop for Watched {
    fn drop(&mut self) {
        (self.1)();
    }
}

#[test]
fn a_key_without_a_value_is_never_dropped_inside_the_memory_of_such_keys() {
    let (inside, dropped) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let found = inside.clone();
    let counting = dropped.clone();
    let on_drop: Arc<dyn Fn() + Send + Sync> = Arc::new(move || {
        counting.fetch_add(1, Ordering::SeqCst);
        let stack = std::backtrace::Backtrace::force_capture().to_string();
        if stack.contains("moka::") || stack.contains("crossbeam_epoch::") {
            found.fetch_add(1, Ordering::SeqCst);
        }
    });
    let clock = ManualClock::new();
    let cache: Cache<Watched, u64> = Cache::builder()
        .clock(&clock)
        .capacity(20)
        .negative_capacity(10)
        .threads(1)
        .compute(|_: &Watched| Loaded::not_found())
        .build()
        .unwrap();
    for key in 0..200 {
        let answer = cache.get_blocking(&Watched(key % 100, on_drop.clone()));
        assert!(answer.is_err_and(|error| error.is_not_found()));
        // Replaced, evicted and forgotten entries alike.
        if key % 3 == 0 {
            cache.invalidate(&Watched(key % 100, on_drop.clone()));
        }
    }
    assert!(dropped.load(Ordering::SeqCst) > 200);
    drop(cache);
    assert_eq!(inside.load(Ordering::SeqCst), 0);
}
