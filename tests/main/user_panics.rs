//! User code that panics where the cache calls it: the cache stays usable and its counts right.

use std::cell::Cell;
use std::hash::{Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use everfresh::{Cache, ManualClock};

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

/// Panics at the `after`th use of this thread, once.
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
        // All in one set, where keys are compared.
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
        |cache| drop(cache.peek(&Key(1))),
        |cache| cache.insert(Key(1), 1),
        |cache| cache.insert(Key(8), 8),
        |cache| assert!(cache.invalidate(&Key(2))),
        |cache| assert!(cache.contains(&Key(3))),
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
                // Every key can be read, and the count is that of the keys.
                for key in 0..11 {
                    assert_eq!(*cache.get_blocking(&Key(key)).unwrap(), key);
                }
                let resident = (0..20).filter(|key| cache.contains(&Key(*key))).count();
                assert_eq!((resident, cache.len()), (11, 11));
                cache.invalidate_all();
                assert!(cache.is_empty());
            }
        }
    }
    assert!(panics > 20, "only {panics} traps were stepped on");
}

#[test]
fn a_key_whose_clone_panics_after_its_load_cancels_the_load() {
    let cache: Cache<Key, u64> = Cache::builder()
        .clock(ManualClock::new())
        .threads(1)
        .compute(|key: &Key| {
            // On the worker, which clones the key for the new entry.
            if key.0 == 1 {
                set(Trap::Clone, 0);
            }
            key.0
        })
        .build()
        .unwrap();
    let error = cache.get_blocking(&Key(1)).unwrap_err();
    assert!(error.is_cancelled(), "{error}");
    assert!(cache.is_empty());
    assert_eq!(*cache.get_blocking(&Key(2)).unwrap(), 2);
    assert_eq!(cache.len(), 1);
}

/// A value that panics when it is dropped, while it is armed.
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
        // The last operation drops its victim on the pool's thread.
        assert_eq!(unwound, number < 4, "operation {number}");
        until("the pool has come back", || {
            armed.store(false, Ordering::SeqCst);
            true
        });
        for key in 100..110 {
            assert!(cache.get_blocking(&key).is_ok(), "operation {number}");
            assert!(cache.len() <= 3);
        }
        let resident = (0..200).filter(|key| cache.contains(key)).count();
        assert_eq!((resident, cache.len()), (3, 3), "operation {number}");
        cache.invalidate_all();
        assert_eq!(cache.len(), 0, "operation {number}");
    }
}
