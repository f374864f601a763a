//! Loom's side of the door: the same names, repaired.
//!
//! 1. Loom 0.7 remembers only the last access of an atomic, so it never runs an earlier *load*
//!    of one thread after a later load-then-store of another (tokio-rs/loom issues 166 and 392).
//!    Claims and slots are made of exactly that. Here every atomic carries a shadow of one word for each thread: a
//!    load adds zero to the word of its own thread, a store to all of them. Every load and every store of
//!    another thread then depend on one another, as do any two stores, and every order of them is explored; two
//!    loads do not, and their order is not. The shadow is touched right after the operation, by a step at
//!    which loom may not switch threads, so it adds no orders of its own; it is `Relaxed`, so it adds no
//!    happens-before edge and weak-memory outcomes remain. (Over 800 random programs of two threads and 16 of three
//!    this found what a single shadow touched before each operation found, in a twentieth of the executions or less; plain loom
//!    missed outcomes of 108.)
//! 2. `arc_swap` cannot run under loom. A [`Slot`] here is an index into the append-only list of
//!    the `Arc`s it ever held, each of them once, so equal pointers have equal indices. The list
//!    sits behind a *std* mutex that is never held across a loom operation and so hides no
//!    ordering. The orderings are the weakest that `arc_swap` promises. Reclamation is not
//!    modelled; the tests check drops on the real type.
//! 3. `crossbeam`, `moka` and `OnceLock` cannot either; for them see `ordered`.
//!
//! The canaries in `loom-tests` fail if one of these repairs stops working.

mod ordered;

use std::ops::Deref;
use std::sync::Mutex;

pub use loom::sync::Mutex as ListMutex;
use loom::sync::atomic;
pub use loom::thread::yield_now;
pub use ordered::{ArrayQueue, NoteCache, SegQueue, SetOnce};

use super::{Arc, Ordering, lock};

/// Threads of a model, `main` among them.
const THREADS: usize = 3;

/// One word for the loads of each thread; a store concerns them all.
pub(crate) struct Shadow([atomic::AtomicUsize; THREADS]);

impl Shadow {
    fn new() -> Self {
        Shadow(std::array::from_fn(|_| atomic::AtomicUsize::new(0)))
    }

    fn loaded<R>(&self, result: R) -> R {
        touch(&self.0[this_thread()..][..1]);
        result
    }

    fn stored<R>(&self, result: R) -> R {
        touch(&self.0);
        result
    }
}

/// Not explored: no other thread comes in between an operation and what is touched after it.
fn touch(words: &[atomic::AtomicUsize]) {
    loom::stop_exploring();
    for word in words {
        word.fetch_add(0, Ordering::Relaxed);
    }
    loom::explore();
}

/// The number of the running thread, which loom shows only in `ThreadId(0)`.
fn this_thread() -> usize {
    let id = format!("{:?}", loom::thread::current().id());
    let digits = id.chars().filter_map(|digit| digit.to_digit(10));
    digits.fold(0, |number, digit| number * 10 + digit as usize)
}

macro_rules! shadowed {
    ($name:ident, $inner:ty, $value:ty) => {
        pub struct $name {
            value: $inner,
            shadow: Shadow,
        }

        impl Default for $name {
            fn default() -> Self {
                $name::new(<$value>::default())
            }
        }

        #[allow(dead_code)]
        impl $name {
            pub fn new(value: $value) -> Self {
                $name {
                    value: <$inner>::new(value),
                    shadow: Shadow::new(),
                }
            }

            pub fn load(&self, order: Ordering) -> $value {
                self.shadow.loaded(self.value.load(order))
            }

            pub fn store(&self, value: $value, order: Ordering) {
                self.shadow.stored(self.value.store(value, order))
            }

            pub fn swap(&self, value: $value, order: Ordering) -> $value {
                self.shadow.stored(self.value.swap(value, order))
            }

            pub fn fetch_add(&self, value: $value, order: Ordering) -> $value {
                self.shadow.stored(self.value.fetch_add(value, order))
            }

            pub fn fetch_min(&self, value: $value, order: Ordering) -> $value {
                self.shadow.stored(self.value.fetch_min(value, order))
            }

            pub fn fetch_xor(&self, value: $value, order: Ordering) -> $value {
                self.shadow.stored(self.value.fetch_xor(value, order))
            }

            pub fn fetch_sub(&self, value: $value, order: Ordering) -> $value {
                self.shadow.stored(self.value.fetch_sub(value, order))
            }

            pub fn compare_exchange(
                &self,
                current: $value,
                new: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                self.shadow
                    .stored(self.value.compare_exchange(current, new, success, failure))
            }
        }
    };
}

// A clock is shown by tests, which is not part of a model.
macro_rules! plain {
    ($name:ident) => {
        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(stringify!($name))
            }
        }
    };
}

plain!(AtomicU8);
plain!(AtomicU16);
plain!(AtomicU64);
plain!(AtomicUsize);

shadowed!(AtomicU8, atomic::AtomicU8, u8);
shadowed!(AtomicU16, atomic::AtomicU16, u16);
shadowed!(AtomicU64, atomic::AtomicU64, u64);
shadowed!(AtomicUsize, atomic::AtomicUsize, usize);

/// The stand-in for `arc_swap`'s cell.
pub struct Slot<T> {
    index: AtomicUsize,
    history: Mutex<Vec<Option<Arc<T>>>>,
}

/// The stand-in for a slot that its owner empties: it frees its history when it is dropped.
pub struct Emptied<T>(T);

impl<T> Emptied<T> {
    pub fn new(slot: T) -> Self {
        Emptied(slot)
    }
}

impl<T> Deref for Emptied<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

/// The stand-in for `arc_swap`'s guard.
pub struct Held<T>(Arc<T>);

/// The stand-in for `arc_swap`'s per-thread cache.
pub struct Watch<O, T> {
    slot: O,
    seen: Option<Arc<T>>,
}

impl<O: Deref<Target = Slot<T>>, T> Watch<O, T> {
    pub fn new(slot: O) -> Self {
        Watch { slot, seen: None }
    }

    pub fn look(&mut self) -> Option<&Arc<T>> {
        self.seen = self.slot.load().map(|held| held.arc().clone());
        self.seen.as_ref()
    }
}

fn same<T>(a: Option<&Arc<T>>, b: Option<&Arc<T>>) -> bool {
    a.map(Arc::as_ptr) == b.map(Arc::as_ptr)
}

impl<T> Slot<T> {
    pub fn new(value: Option<Arc<T>>) -> Self {
        Slot {
            index: AtomicUsize::new(0),
            history: Mutex::new(vec![value]),
        }
    }

    pub fn load(&self) -> Option<Held<T>> {
        let index = self.index.load(Ordering::Acquire);
        lock(&self.history)[index].clone().map(Held)
    }

    pub fn compare_exchange(&self, current: Option<&Arc<T>>, new: Option<Arc<T>>) -> bool {
        let Some(current) = self.known(current) else {
            // Never stored here, so the exchange fails whenever it happens; the load keeps its
            // place in the order of operations.
            self.index.load(Ordering::Acquire);
            return false;
        };
        let new = self.intern(new);
        self.index
            .compare_exchange(current, new, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    /// What the slot held on a failure is not modelled, because only its drop matters.
    pub fn exchange(
        &self,
        current: Option<&Arc<T>>,
        new: Option<Arc<T>>,
    ) -> Result<(), Option<Held<T>>> {
        match self.compare_exchange(current, new) {
            true => Ok(()),
            false => Err(None),
        }
    }

    pub fn swap(&self, new: Option<Arc<T>>) -> Option<Arc<T>> {
        let new = self.intern(new);
        let old = self.index.swap(new, Ordering::AcqRel);
        lock(&self.history)[old].clone()
    }

    fn known(&self, value: Option<&Arc<T>>) -> Option<usize> {
        let history = lock(&self.history);
        history.iter().position(|held| same(held.as_ref(), value))
    }

    fn intern(&self, value: Option<Arc<T>>) -> usize {
        let mut history = lock(&self.history);
        let known = history
            .iter()
            .position(|held| same(held.as_ref(), value.as_ref()));
        known.unwrap_or_else(|| {
            history.push(value);
            history.len() - 1
        })
    }
}

impl<T> Held<T> {
    pub fn owned(value: Arc<T>) -> Self {
        Held(value)
    }

    pub fn into_arc(self) -> Arc<T> {
        self.0
    }

    pub fn arc(&self) -> &Arc<T> {
        &self.0
    }
}

impl<T> Deref for Held<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}
