//! The sync shim: the only access to atomics, shared pointers and the model checker.
//!
//! No other file names `std::sync`, `arc_swap` or `loom` (a test checks this), so a build for the
//! model checker swaps every primitive here and nowhere else. The model side also repairs two gaps
//! of loom; see [`model`](self::model) in the source.
//!
//! Where only one ordering is ever right, the operation implies it: [`Slot::load`] acquires,
//! [`Slot::compare_exchange`] and [`Slot::swap`] acquire and release. Atomics take their ordering
//! from the caller, which explains it.

pub(crate) mod event;
pub(crate) mod future;
pub(crate) mod on_demand;
pub(crate) mod per_thread;
pub(crate) mod runtime;

use std::ops::Deref;
pub use std::sync::atomic::Ordering;
pub use std::sync::{Arc, OnceLock, PoisonError, TryLockError, Weak};

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
use side::{LastLoad, fence};

#[cfg(all(loom, feature = "loom"))]
pub(crate) use model::thread_local;
#[cfg(not(all(loom, feature = "loom")))]
pub(crate) use std::thread_local;

/// A word that only counts and orders nothing, and so is not part of any model.
pub use std::sync::atomic::AtomicU64 as Counter;

/// Locks a mutex whose data stays valid when a holder panics, so poison means nothing.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Primitives that no model explores: the start of threads, their numbers, how they block, and the
/// values that wait to be dropped.
pub(crate) mod plain {
    pub use crossbeam::queue::SegQueue;
    use std::sync::PoisonError;
    #[cfg(test)]
    pub use std::sync::mpsc::{Sender, channel};
    pub use std::sync::{Condvar, Mutex, MutexGuard};

    /// As [`lock`](super::lock).
    pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A [`Slot`] as one thread remembers it. A read is one load and a comparison, without a guard.
pub struct SlotCache<O, T>(LastLoad<O, T>);

impl<O: Deref<Target = Slot<T>>, T> SlotCache<O, T> {
    pub fn new(slot: O) -> Self {
        SlotCache(LastLoad::new(slot))
    }

    /// The value in the slot now.
    ///
    /// Acquires without a guard, by one load, a comparison and a fence, which is free on x86.
    #[inline]
    pub fn look(&mut self) -> Option<&Arc<T>> {
        let held = self.0.renewed();
        // The load inside is Relaxed. The caller's next read, the second read of `control`, must
        // not come before it. The fence is here, and not on either side, so that the models need it
        // too.
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

    /// A slot that its owner empties before it is dropped. If it is not empty then, its content
    /// leaks.
    pub use std::mem::ManuallyDrop as Emptied;

    /// A cell that holds an `Arc` or nothing, read without touching the reference count.
    pub struct Slot<T>(ManuallyDrop<ArcSwapOption<T>>);

    /// The content of a [`Slot`] when it was loaded, kept alive without counting.
    ///
    /// It may move between threads. A thread that keeps more than eight at once pays a reference
    /// count for each further one.
    pub struct Held<T>(ManuallyDrop<Guard<Option<Arc<T>>>>);

    impl<T> Slot<T> {
        pub fn new(value: Option<Arc<T>>) -> Self {
            Slot(ManuallyDrop::new(ArcSwapOption::new(value)))
        }

        /// Acquire: everything written before the pointer was stored is visible.
        #[inline]
        pub fn load(&self) -> Option<Held<T>> {
            let guard = self.0.load();
            guard.is_some().then(|| Held(ManuallyDrop::new(guard)))
        }

        /// Stores `new` if the slot holds exactly `current` (by address); returns whether it did.
        ///
        /// Success acquires and releases. The caller owns a reference to `current`, so its address
        /// cannot be reused meanwhile: there is no ABA problem.
        pub fn compare_exchange(&self, current: Option<&Arc<T>>, new: Option<Arc<T>>) -> bool {
            self.exchange(current, new).is_ok()
        }

        /// [`compare_exchange`](Self::compare_exchange) for a caller that holds something. A
        /// failure returns the content of the slot, because that reference may be the last one.
        pub fn exchange(
            &self,
            current: Option<&Arc<T>>,
            new: Option<Arc<T>>,
        ) -> Result<(), Option<Held<T>>> {
            let expected = current.map_or(ptr::null(), Arc::as_ptr);
            let found = self.0.compare_and_swap(expected, new);
            match found.as_ref().map_or(ptr::null(), Arc::as_ptr) == expected {
                true => Ok(()),
                false => Err(found.is_some().then(|| Held(ManuallyDrop::new(found)))),
            }
        }

        /// Replaces the content of the slot; acquires and releases.
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

    impl<T> Drop for Held<T> {
        /// Moves the guard out, because a guard is dropped by a call that takes its address, and
        /// what has an address lies in memory. Each move of a hit would then be a copy of what was
        /// just written, which stalls the processor.
        #[inline(always)]
        fn drop(&mut self) {
            drop(self.take());
        }
    }

    impl<T> Held<T> {
        #[inline(always)]
        fn take(&mut self) -> Guard<Option<Arc<T>>> {
            std::mem::replace(&mut *self.0, Guard::from_inner(None))
        }

        /// Wraps an owned `Arc`, for values that do not come from a slot.
        pub fn owned(value: Arc<T>) -> Self {
            Held(ManuallyDrop::new(Guard::from_inner(Some(value))))
        }

        /// Converts this into a counted reference.
        pub fn into_arc(mut self) -> Arc<T> {
            match Guard::into_inner(self.take()) {
                Some(arc) => arc,
                None => unreachable!("a Held is only built from a slot that held something"),
            }
        }

        /// A counted reference to the same value.
        #[inline]
        pub fn arc(&self) -> &Arc<T> {
            match &**self.0 {
                Some(arc) => arc,
                None => unreachable!("a Held is only built from a slot that held something"),
            }
        }
    }

    /// The content of a slot when it was last read; kept until the slot holds something else.
    pub(super) struct LastLoad<O, T>(Cache<Inner<O>, Option<Arc<T>>>);

    struct Inner<O>(O);

    impl<O: Deref<Target = Slot<T>>, T> Deref for Inner<O> {
        type Target = ArcSwapOption<T>;
        #[inline]
        fn deref(&self) -> &ArcSwapOption<T> {
            &self.0.0
        }
    }

    impl<O: Deref<Target = Slot<T>>, T> LastLoad<O, T> {
        pub(super) fn new(slot: O) -> Self {
            LastLoad(Cache::new(Inner(slot)))
        }

        /// Relaxed, if the slot still holds the same value.
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
