//! The one door to atomics, shared pointers and the model checker.
//!
//! No other file names `std::sync`, `arc_swap` or `loom` (a test greps for it), so a build for
//! the model checker swaps every primitive here and nowhere else. The model side also repairs
//! two gaps of loom; see [`model`](self::model) in the source.
//!
//! Orderings are part of the operation names here where only one is ever right:
//! [`Slot::load`] acquires, [`Slot::compare_exchange`] and [`Slot::swap`] acquire and release.
//! Atomics take their ordering from the caller, who explains it.

pub(crate) mod event;
pub(crate) mod future;
pub(crate) mod on_demand;
pub(crate) mod per_thread;

use std::ops::Deref;
pub use std::sync::atomic::Ordering;
pub use std::sync::{Arc, OnceLock, PoisonError, Weak};

#[cfg(all(loom, feature = "loom"))]
pub mod model;

#[cfg(all(loom, feature = "loom"))]
use model as side;
#[cfg(not(all(loom, feature = "loom")))]
use native as side;

pub use side::{
    ArrayQueue, AtomicU8, AtomicU16, AtomicU64, AtomicUsize, BoundedCache, Emptied, Held, Mutex,
    MutexGuard, SegQueue, SetOnce, Slot, yield_now,
};
use side::{Kept, fence};

#[cfg(all(loom, feature = "loom"))]
pub(crate) use model::thread_local;
#[cfg(not(all(loom, feature = "loom")))]
pub(crate) use std::thread_local;

/// A word that only counts and orders nothing, and so is not part of any model.
pub use std::sync::atomic::AtomicU64 as Counter;

/// Locks a mutex whose data stays valid when a holder panics, so poison carries no news.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What no model looks into: the start of threads, their numbers, and how they block.
pub(crate) mod plain {
    use std::sync::PoisonError;
    pub use std::sync::{Condvar, Mutex, MutexGuard};

    /// As [`lock`](super::lock).
    pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A [`Slot`] seen by one thread, which remembers what it last held: a look is one load and a
/// comparison, no guard.
pub struct Watch<O, T>(Kept<O, T>);

impl<O: Deref<Target = Slot<T>>, T> Watch<O, T> {
    pub fn new(slot: O) -> Self {
        Watch(Kept::new(slot))
    }

    /// What the slot holds now.
    ///
    /// Acquires, without a guard: one load, a comparison and a fence, which is free on x86.
    #[inline]
    pub fn look(&mut self) -> Option<&Arc<T>> {
        let held = self.0.renewed();
        // The load inside is Relaxed. What the caller reads next, the second look at `control`,
        // must not come before it. Here, and not on either side, so that the models need it too.
        fence(Ordering::Acquire);
        held
    }
}

#[cfg(not(all(loom, feature = "loom")))]
mod native {
    use std::mem::ManuallyDrop;
    use std::ops::Deref;
    use std::ptr;

    use arc_swap::cache::Cache;
    use arc_swap::{ArcSwapOption, Guard};

    use super::Arc;
    pub use crossbeam::queue::{ArrayQueue, SegQueue};
    pub use moka::sync::Cache as BoundedCache;
    pub use std::sync::OnceLock as SetOnce;
    pub use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU64, AtomicUsize, fence};
    pub use std::sync::{Mutex, MutexGuard};
    pub use std::thread::yield_now;

    /// A slot that its owner empties before it is dropped; one that is not empty then leaks.
    pub use std::mem::ManuallyDrop as Emptied;

    /// A cell that holds an `Arc` or nothing, read without touching the reference count.
    pub struct Slot<T>(ManuallyDrop<ArcSwapOption<T>>);

    /// What a [`Slot`] held when it was loaded, kept alive without counting.
    ///
    /// Moving one between threads is fine. A thread that keeps more than eight at once pays a
    /// reference count for each further one.
    pub struct Held<T>(Guard<Option<Arc<T>>>);

    impl<T> Slot<T> {
        pub fn new(value: Option<Arc<T>>) -> Self {
            Slot(ManuallyDrop::new(ArcSwapOption::new(value)))
        }

        /// Acquire: what was written before the pointer was stored is visible.
        #[inline]
        pub fn load(&self) -> Option<Held<T>> {
            let guard = self.0.load();
            guard.is_some().then_some(Held(guard))
        }

        /// Stores `new` if the slot holds exactly `current` (by address); returns whether it did.
        ///
        /// Success acquires and releases. The caller owns a reference to `current`, so its
        /// address cannot be reused meanwhile: there is no ABA.
        pub fn compare_exchange(&self, current: Option<&Arc<T>>, new: Option<Arc<T>>) -> bool {
            self.exchange(current, new).is_ok()
        }

        /// [`compare_exchange`](Self::compare_exchange) for a caller that holds something: a
        /// failure returns what the slot held, because that reference may be the last one.
        pub fn exchange(
            &self,
            current: Option<&Arc<T>>,
            new: Option<Arc<T>>,
        ) -> Result<(), Option<Held<T>>> {
            let expected = current.map_or(ptr::null(), Arc::as_ptr);
            let found = self.0.compare_and_swap(expected, new);
            match found.as_ref().map_or(ptr::null(), Arc::as_ptr) == expected {
                true => Ok(()),
                false => Err(found.is_some().then_some(Held(found))),
            }
        }

        /// Replaces whatever the slot holds; acquires and releases.
        pub fn swap(&self, new: Option<Arc<T>>) -> Option<Arc<T>> {
            self.0.swap(new)
        }
    }

    impl<T> Drop for Slot<T> {
        fn drop(&mut self) {
            // The drop of an `ArcSwap` visits every thread that ever lived, even if it is empty.
            if self.0.load().is_some() {
                self.0.swap(None);
            }
        }
    }

    impl<T> Held<T> {
        /// Wraps an `Arc` that is owned, for values that come from somewhere else than a slot.
        pub fn owned(value: Arc<T>) -> Self {
            Held(Guard::from_inner(Some(value)))
        }

        /// A counted reference instead.
        pub fn into_arc(self) -> Arc<T> {
            match Guard::into_inner(self.0) {
                Some(arc) => arc,
                None => unreachable!("a Held is only built from a slot that held something"),
            }
        }

        /// A counted reference to the same value.
        #[inline]
        pub fn arc(&self) -> &Arc<T> {
            match &*self.0 {
                Some(arc) => arc,
                None => unreachable!("a Held is only built from a slot that held something"),
            }
        }
    }

    /// What a slot held when it was last looked at; kept until it holds something else.
    pub(super) struct Kept<O, T>(Cache<Inner<O>, Option<Arc<T>>>);

    struct Inner<O>(O);

    impl<O: Deref<Target = Slot<T>>, T> Deref for Inner<O> {
        type Target = ArcSwapOption<T>;
        #[inline]
        fn deref(&self) -> &ArcSwapOption<T> {
            &self.0.0
        }
    }

    impl<O: Deref<Target = Slot<T>>, T> Kept<O, T> {
        pub(super) fn new(slot: O) -> Self {
            Kept(Cache::new(Inner(slot)))
        }

        /// Relaxed, if the slot holds what is kept.
        #[inline]
        pub(super) fn renewed(&mut self) -> Option<&Arc<T>> {
            self.0.load().as_ref()
        }
    }

    impl<T> Deref for Held<T> {
        type Target = T;
        #[inline]
        fn deref(&self) -> &T {
            self.arc()
        }
    }
}
