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
//! 2. loom takes `SeqCst` accesses for `AcqRel`. A `SeqCst` load of an [`AtomicPtr`] here comes
//!    after a `SeqCst` fence, which loom knows. That orders it after an earlier exchange of its
//!    thread, as `SeqCst` does when both are `SeqCst`. The loads of [`slot`](super::slot) need no
//!    more.
//! 3. `crossbeam`, `moka` and `OnceLock` cannot run under loom either; `ordered` has their
//!    stand-ins.
//!
//! The canaries in `loom-tests` fail if one of these repairs stops working.

pub(crate) mod lanes;
mod ordered;
mod watch;

use loom::sync::atomic;
pub(super) use loom::sync::atomic::fence;
pub use loom::sync::{Mutex, MutexGuard};
pub use loom::thread::yield_now;
pub use ordered::{ArrayQueue, BoundedCache, SegQueue, SetOnce};

pub use watch::explore_slots;
pub(super) use watch::{Watch, Watched};

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

            pub fn fetch_max(&self, value: $value, order: Ordering) -> $value {
                self.shadow.stored(self.value.fetch_max(value, order))
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

/// An address; see the second repair for its `SeqCst` loads.
pub struct AtomicPtr {
    value: atomic::AtomicPtr<()>,
    /// The latest value. There is no plain store, and an exchange acts on the latest value.
    latest: std::sync::atomic::AtomicPtr<()>,
    shadow: Shadow,
}

impl AtomicPtr {
    pub fn new(value: *mut ()) -> Self {
        AtomicPtr {
            value: atomic::AtomicPtr::new(value),
            latest: std::sync::atomic::AtomicPtr::new(value),
            shadow: Shadow::new(),
        }
    }

    pub fn load(&self, order: Ordering) -> *mut () {
        if order == Ordering::SeqCst {
            fence(Ordering::SeqCst);
        }
        self.shadow.loaded(self.value.load(order))
    }

    /// The latest value; acquires.
    fn newest(&self) -> *mut () {
        let latest = self.latest.load(Ordering::Relaxed);
        // An exchange reads the latest value whether it succeeds or not.
        self.compare_exchange(latest, latest, Ordering::Acquire, Ordering::Acquire)
            .unwrap_or_else(|now| now)
    }

    pub fn swap(&self, value: *mut (), order: Ordering) -> *mut () {
        let old = self.value.swap(value, order);
        self.latest.store(value, Ordering::Relaxed);
        self.shadow.stored(old)
    }

    pub fn compare_exchange(
        &self,
        current: *mut (),
        new: *mut (),
        success: Ordering,
        failure: Ordering,
    ) -> Result<*mut (), *mut ()> {
        let exchanged = (self.value).compare_exchange(current, new, success, failure);
        if exchanged.is_ok() {
            self.latest.store(new, Ordering::Relaxed);
        }
        self.shadow.stored(exchanged)
    }
}

/// The content of a word that no other thread can reach any more.
///
/// Not asked from loom, which does not see the counts of an `Arc`, by which its last owner knows.
pub(super) fn last(word: &mut AtomicPtr) -> *mut () {
    *word.latest.get_mut()
}

/// The stand-in for `arc_swap`'s cell, which no model explores.
pub struct ArcCell<T>(Hidden<Option<Arc<T>>>);

impl<T> ArcCell<T> {
    pub fn empty() -> Self {
        ArcCell(Hidden::new(None))
    }

    pub fn load(&self) -> Box<Option<Arc<T>>> {
        Box::new(open(&self.0).clone())
    }

    pub fn compare_exchange(&self, current: Option<&Arc<T>>, new: Option<Arc<T>>) -> bool {
        let mut content = open(&self.0);
        let is_current = content.as_ref().map(Arc::as_ptr) == current.map(Arc::as_ptr);
        let old = is_current.then(|| std::mem::replace(&mut *content, new));
        drop(content);
        old.is_some()
    }
}
