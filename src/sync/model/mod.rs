//! Loom's side of the sync shim: the same names, repaired.
//!
//! 1. Loom 0.7 remembers only the last access of an atomic, so it never runs an earlier *load* of
//!    one thread after a later load-then-store of another (tokio-rs/loom issues 166 and 392). Claim
//!    words and slots consist of exactly that. Here every atomic carries a shadow of one word for
//!    each thread: a load adds zero to the word of its own thread, a store to all of them. So every
//!    load and every store of another thread depend on one another, and so do any two stores, and
//!    loom explores every order of them. Two loads do not depend on one another, and loom does not
//!    explore their order. The shadow is touched right after the operation, in a step at which loom
//!    may not switch threads, so it adds no orders of its own. The touch is `Relaxed`, so it adds
//!    no happens-before edge and weak-memory outcomes remain. (Over 800 random programs of two
//!    threads and 16 of three this found the same as a single shadow touched before each operation,
//!    in at most a twentieth of the executions; plain loom missed outcomes of 108.)
//! 2. `arc_swap` cannot run under loom. A [`Slot`] here is an index into the list of everything
//!    that it ever held. Each `Arc` is listed once while it is listed, so equal pointers have equal
//!    indices. The list sits behind a *std* mutex that is never held across a loom operation and so
//!    hides no ordering. The orderings are the weakest that `arc_swap` promises. See [`Slot`] for
//!    the references that a slot keeps alive.
//! 3. `crossbeam`, `moka` and `OnceLock` cannot run under loom either; `ordered` has their
//!    stand-ins.
//!
//! The canaries in `loom-tests` fail if one of these repairs stops working.

mod ordered;

use std::ops::Deref;

use loom::sync::atomic;
pub(super) use loom::sync::atomic::fence;
pub use loom::sync::{Mutex, MutexGuard};
pub use loom::thread::yield_now;
pub use ordered::{ArrayQueue, BoundedCache, SegQueue, SetOnce};

use super::{Arc, Ordering};

/// A lock of the stand-ins themselves, which no model sees.
type Hidden<T> = std::sync::Mutex<T>;

fn open<T>(hidden: &Hidden<T>) -> std::sync::MutexGuard<'_, T> {
    hidden.lock().unwrap_or_else(super::PoisonError::into_inner)
}

/// Loom's constructor is not `const`.
macro_rules! of_each_thread {
    (static $name:ident: $type:ty = const $first:block;) => {
        loom::thread_local! { static $name: $type = $first; }
    };
}
pub(crate) use of_each_thread as thread_local;

/// The most threads of a model, including `main`.
const THREADS: usize = 3;

/// One word for the loads of each thread; a store touches all of them.
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

/// Runs unexplored: no other thread comes in between an operation and the touch after it.
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

            pub fn fetch_and(&self, value: $value, order: Ordering) -> $value {
                self.shadow.stored(self.value.fetch_and(value, order))
            }

            pub fn fetch_or(&self, value: $value, order: Ordering) -> $value {
                self.shadow.stored(self.value.fetch_or(value, order))
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

// `Debug` of a clock, for tests; not part of a model.
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
///
/// `Arc::get_mut` of a caller reveals which references a slot keeps alive:
///
/// - An `Arc` that an exchange did not store is released at once. An `Arc` that an exchange takes
///   back without a replacement (an undone reservation) is released with that exchange. So their
///   owner holds the only reference again, unless a thread holds one that it loaded before.
/// - A load that comes later in an execution and reads that old index no longer gets the `Arc`, but
///   the latest content of the slot. This is no weaker than `arc_swap`: an exchange there returns
///   only when every thread that loaded the old pointer has counted it or has begun anew.
/// - Every other replaced `Arc` is kept until the execution ends, so a late load still gets it. No
///   model checks whether such a reference is the only one. Its drop is not modelled; the tests
///   check drops on the real type.
///
/// Counting itself is not a step of a model: a reference exists from the load that got it, and that
/// moment is explored. The order of its drop relative to other threads is not.
pub struct Slot<T> {
    index: AtomicUsize,
    past: Hidden<Vec<Past<T>>>,
}

/// One of the contents of a slot, or an `Arc` that was offered to it.
struct Past<T> {
    value: Content<T>,
    /// Whether the slot ever held it. If not, no load can return its index.
    stored: bool,
}

enum Content<T> {
    Kept(Option<Arc<T>>),
    Released,
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
pub(super) struct LastLoad<O, T> {
    slot: O,
    seen: Option<Arc<T>>,
}

impl<O: Deref<Target = Slot<T>>, T> LastLoad<O, T> {
    pub(super) fn new(slot: O) -> Self {
        let seen = slot.load().map(Held::into_arc);
        LastLoad { slot, seen }
    }

    /// Relaxed, like the real one, if the slot still holds the same value.
    pub(super) fn renewed(&mut self) -> Option<&Arc<T>> {
        let index = self.slot.index.load(Ordering::Relaxed);
        if !open(&self.slot.past)[index].is(self.seen.as_ref()) {
            self.seen = self.slot.load().map(Held::into_arc);
        }
        self.seen.as_ref()
    }
}

impl<T> Past<T> {
    fn is(&self, value: Option<&Arc<T>>) -> bool {
        match &self.value {
            Content::Kept(kept) => kept.as_ref().map(Arc::as_ptr) == value.map(Arc::as_ptr),
            Content::Released => false,
        }
    }

    fn release(&mut self) -> Content<T> {
        std::mem::replace(&mut self.value, Content::Released)
    }
}

impl<T> Slot<T> {
    pub fn new(value: Option<Arc<T>>) -> Self {
        let first = Past {
            value: Content::Kept(value),
            stored: true,
        };
        Slot {
            index: AtomicUsize::new(0),
            past: Hidden::new(vec![first]),
        }
    }

    pub fn load(&self) -> Option<Held<T>> {
        let index = self.index.load(Ordering::Acquire);
        let loaded = match &open(&self.past)[index].value {
            Content::Kept(value) => Some(value.clone()),
            Content::Released => None,
        };
        // An exchange reads the last store, and the content of the last store is kept.
        let value = loaded.unwrap_or_else(|| self.at(self.index.fetch_add(0, Ordering::Acquire)));
        value.map(Held)
    }

    pub fn compare_exchange(&self, current: Option<&Arc<T>>, new: Option<Arc<T>>) -> bool {
        let Some(current) = self.known(current) else {
            // `current` is not in the list, so the exchange fails whenever it happens. The load
            // keeps its place in the order of operations.
            self.index.load(Ordering::Acquire);
            return false;
        };
        let empties = new.is_none();
        let new = self.intern(new);
        let exchanged = self
            .index
            .compare_exchange(current, new, Ordering::AcqRel, Ordering::Acquire)
            .is_ok();
        // No other thread comes in here, because loom switches threads only before an operation.
        let mut past = open(&self.past);
        past[new].stored |= exchanged;
        let over = match exchanged {
            true => (empties && current != new).then_some(current),
            false => (!past[new].stored).then_some(new),
        };
        let release = over.map(|index| past[index].release());
        drop(past);
        // Not while the list is open, because this may be the last reference.
        drop(release);
        exchanged
    }

    /// The content on a failure is not modelled, because only its drop matters.
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
        open(&self.past)[new].stored = true;
        self.at(old)
    }

    /// The content of the slot at the last store.
    fn at(&self, index: usize) -> Option<Arc<T>> {
        match &open(&self.past)[index].value {
            Content::Kept(value) => value.clone(),
            Content::Released => unreachable!("a slot keeps what it holds"),
        }
    }

    fn known(&self, value: Option<&Arc<T>>) -> Option<usize> {
        open(&self.past).iter().position(|past| past.is(value))
    }

    fn intern(&self, value: Option<Arc<T>>) -> usize {
        let mut past = open(&self.past);
        let known = past.iter().position(|past| past.is(value.as_ref()));
        known.unwrap_or_else(|| {
            past.push(Past {
                value: Content::Kept(value),
                stored: false,
            });
            past.len() - 1
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
