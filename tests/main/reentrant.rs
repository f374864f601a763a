//! User code that calls back into the cache. The cache holds nothing at that moment, so the call
//! ends.

use std::cell::Cell;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak, mpsc};
use std::thread;

use everfresh::{Cache, Loaded, ManualClock};

use crate::support::*;

type Handle<K, V> = OnceLock<Cache<K, V>>;

/// A value that inserts another such value when it is dropped, a given number of times.
struct Phoenix {
    cache: Weak<Handle<u64, Phoenix>>,
    times: u64,
}

/// Keys that no test uses directly.
static NEXT_KEY: AtomicU64 = AtomicU64::new(1_000_000);

impl Drop for Phoenix {
    fn drop(&mut self) {
        if self.times == 0 {
            return;
        }
        let handle = self.cache.upgrade();
        if let Some(cache) = handle.as_ref().and_then(|handle| handle.get()) {
            let risen = Phoenix {
                cache: self.cache.clone(),
                times: self.times - 1,
            };
            cache.insert(NEXT_KEY.fetch_add(1, Ordering::SeqCst), risen);
        }
    }
}

/// Runs an operation of the cache on its own thread, and checks that it ends.
fn ends(what: &str, operation: impl FnOnce() + Send + 'static) {
    let thread = thread::spawn(operation);
    until(what, || thread.is_finished());
    thread.join().unwrap();
}

fn phoenix(handle: &Arc<Handle<u64, Phoenix>>) -> Phoenix {
    Phoenix {
        cache: Arc::downgrade(handle),
        times: 3,
    }
}

/// A full cache of values that insert when they are dropped. Each has weight 1.
fn full(capacity: usize, clock: &ManualClock) -> Arc<Handle<u64, Phoenix>> {
    let handle = Arc::new(Handle::new());
    let loading = Arc::downgrade(&handle);
    let cache = builder(clock)
        .capacity(capacity)
        .max_weight(capacity as u64, |key: &u64, _| u32::from(*key != LIGHT))
        .compute(move |_: &u64| phoenix(&loading.upgrade().unwrap()))
        .build()
        .unwrap();
    for key in 0..capacity as u64 {
        cache.insert(key, phoenix(&handle));
    }
    handle.set(cache).ok().unwrap();
    handle
}

/// The key of a value with weight 0.
const LIGHT: u64 = 500_000;

#[test]
fn a_value_may_insert_when_it_is_dropped() {
    type Operation = fn(&Cache<u64, Phoenix>, Phoenix);
    let operations: [(&str, Operation); 8] = [
        ("an insert of a new key", |cache, new| {
            cache.insert(500, new)
        }),
        ("an insert of a value with weight 0", |cache, new| {
            cache.insert(LIGHT, new)
        }),
        ("an insert over a value", |cache, new| cache.insert(0, new)),
        ("a load", |cache, _| {
            assert!(cache.get_blocking(&501).is_ok())
        }),
        ("a refresh", |cache, _| {
            assert!(futures_lite::future::block_on(cache.refresh(&0)).is_ok())
        }),
        ("an invalidation", |cache, _| assert!(cache.invalidate(&0))),
        ("invalidate_all", |cache, _| cache.invalidate_all()),
        ("a sweep", |cache, _| _ = cache.sweep()),
    ];
    for capacity in [1, 4, 12] {
        for (what, operation) in operations {
            let clock = ManualClock::new();
            let handle = full(capacity, &clock);
            let cache = handle.get().unwrap().clone();
            if what == "a sweep" {
                clock.advance(secs(100));
            }
            let (inside, new) = (cache.clone(), phoenix(&handle));
            ends(what, move || operation(&inside, new));
            // A value dropped by a worker may still run its own code.
            ends("another insert", move || {
                cache.insert(502, Loaded::new(phoenix(&handle)));
                assert!(cache.len() <= capacity && cache.weight() <= capacity as u64);
            });
        }
    }
}

#[test]
fn a_heavy_value_finds_room_although_the_values_it_evicts_insert_others() {
    let clock = ManualClock::new();
    let handle = Arc::new(Handle::new());
    let cache: Cache<u64, Phoenix> = builder(&clock)
        .max_weight(10, |key: &u64, _| if *key == 100 { 10 } else { 1 })
        .compute(|_: &u64| -> Phoenix { unreachable!("nothing is loaded") })
        .build()
        .unwrap();
    for key in 0..10 {
        cache.insert(key, phoenix(&handle));
    }
    handle.set(cache.clone()).ok().unwrap();
    let new = phoenix(&handle);
    ends("the insert", move || cache.insert(100, new));
    let cache = handle.get().unwrap();
    assert!(cache.weight() <= 10);
    // Each of the ten evicted values inserts another, three times in a row.
    assert!(!cache.contains_key(&100) && cache.len() == 10);
}

/// A key that inserts another key once, when this thread has made a given number of comparisons.
#[derive(Clone)]
struct Key {
    number: u64,
    inserts: Arc<OnceLock<Cache<Key, u64>>>,
}

thread_local! {
    static COMPARED: Cell<u64> = const { Cell::new(u64::MAX) };
}

impl Key {
    fn plain(number: u64) -> Self {
        Key {
            number,
            inserts: Arc::default(),
        }
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // All hashes are equal, so that keys are compared.
        state.write_u64(0);
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        if let Some(cache) = self.inserts.get().or_else(|| other.inserts.get()) {
            let left = COMPARED.get();
            COMPARED.set(left.wrapping_sub(1));
            if left == 0 {
                cache.insert(Key::plain(77), 7);
            }
        }
        self.number == other.number
    }
}

impl Eq for Key {}

#[test]
fn a_key_may_insert_when_it_is_compared() {
    for after in 0..6 {
        let tasks = Tasks::default();
        let cache: Cache<Key, u64> = Cache::builder()
            .clock(ManualClock::new())
            .capacity(1)
            .spawner(tasks.spawner())
            .load(|_: &Key| std::future::pending::<u64>())
            .build()
            .unwrap();
        // A running load, whose key is compared; it has no permit.
        let mut loading = Box::pin({
            let cache = cache.clone();
            async move { cache.get(&Key::plain(1)).await }
        });
        assert!(is_pending(&mut loading));
        let new = Key {
            number: 2,
            inserts: Arc::new(OnceLock::from(cache.clone())),
        };
        let inside = cache.clone();
        ends("the insert", move || {
            COMPARED.set(after);
            inside.insert(new, 2);
        });
        assert!(cache.contains_key(&Key::plain(2)), "after {after}");
        assert_eq!(cache.len(), 1, "after {after}");
    }
}

/// Notifies the test when it is dropped.
struct Tells(mpsc::Sender<usize>, Tasks);

impl Drop for Tells {
    fn drop(&mut self) {
        let _ = self.0.send(self.1.spawned());
    }
}

#[test]
fn a_load_starts_before_the_values_it_evicts_are_notified_and_dropped() {
    // The listener and the drops may read the key that is loaded. If they ran first, they would
    // wait for a load that only their own thread can start.
    let clock = ManualClock::new();
    let tasks = Tasks::default();
    let ((dropped, drops), (notified, removals)) = (mpsc::channel(), mpsc::channel());
    let started = tasks.clone();
    let cache: Cache<u64, Tells, OneSet> = builder(&clock)
        .hasher(OneSet::default())
        .on_removal(move |_, _, _| notified.send(started.spawned()).unwrap())
        .spawner(tasks.spawner())
        .load(async |_: &u64| std::future::pending::<Tells>().await)
        .build()
        .unwrap();
    cache.insert(0, Tells(dropped, tasks.clone()));
    clock.advance(secs(31));
    // The last of these loads takes the way of the expired value.
    let mut loads: Vec<_> = (1..=13).map(|key| get(&cache, key)).collect();
    assert!(loads.iter_mut().all(is_pending));
    assert!(cache.is_empty());
    assert_eq!(removals.try_recv(), Ok(13));
    assert_eq!(drops.try_recv(), Ok(13));
}
