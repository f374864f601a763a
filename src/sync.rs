//! The one door to atomics, shared pointers and the model checker.
//!
//! No other file names `std::sync`, `arc_swap` or `loom` (a test greps for it), so a build for
//! the model checker swaps every primitive here and nowhere else. The model side also repairs
//! two gaps of loom; see [`model`](self::model) in the source.
//!
//! Orderings are part of the operation names here where only one is ever right:
//! [`Slot::load`] acquires, [`Slot::compare_exchange`] and [`Slot::swap`] acquire and release.
//! Atomics take their ordering from the caller, who explains it.

pub use std::sync::atomic::Ordering;
pub use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

pub use event_listener::{Event, listener};

#[cfg(all(loom, feature = "loom"))]
pub mod model;

#[cfg(all(loom, feature = "loom"))]
pub use model::{
    ArrayQueue, AtomicU8, AtomicU16, AtomicU64, AtomicUsize, Emptied, Held, ListMutex, NoteCache,
    SegQueue, SetOnce, Slot, Watch, yield_now,
};

#[cfg(not(all(loom, feature = "loom")))]
pub use native::{
    ArrayQueue, AtomicU8, AtomicU16, AtomicU64, AtomicUsize, Emptied, Held, ListMutex, NoteCache,
    SegQueue, SetOnce, Slot, Watch, yield_now,
};

/// A word that only counts and orders nothing, and so is not part of any model.
pub use std::sync::atomic::AtomicU64 as Counter;

/// Locks a mutex whose data stays valid when a holder panics, so poison carries no news.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(not(all(loom, feature = "loom")))]
mod native {
    use std::mem::ManuallyDrop;
    use std::ops::Deref;
    use std::ptr;
    use std::sync::atomic::{Ordering, fence};

    use arc_swap::cache::Cache;
    use arc_swap::{ArcSwapOption, Guard};

    use super::Arc;
    pub use crossbeam::queue::{ArrayQueue, SegQueue};
    pub use moka::sync::Cache as NoteCache;
    /// A mutex whose order with what comes before and after it matters, and so is part of the models.
    pub use std::sync::Mutex as ListMutex;
    pub use std::sync::OnceLock as SetOnce;
    pub use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU64, AtomicUsize};
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

    /// A [`Slot`] seen by one thread, which remembers what it last held: a look is one load and a comparison, no guard.
    pub struct Watch<O, T>(Cache<Inner<O>, Option<Arc<T>>>);

    struct Inner<O>(O);

    impl<O: Deref<Target = Slot<T>>, T> Deref for Inner<O> {
        type Target = ArcSwapOption<T>;
        #[inline]
        fn deref(&self) -> &ArcSwapOption<T> {
            &self.0.0
        }
    }

    impl<O: Deref<Target = Slot<T>>, T> Watch<O, T> {
        pub fn new(slot: O) -> Self {
            Watch(Cache::new(Inner(slot)))
        }

        /// What the slot holds now.
        ///
        /// Acquires, without a guard: one load, a comparison and a fence, which is free on x86.
        #[inline]
        pub fn look(&mut self) -> Option<&Arc<T>> {
            let held = self.0.load().as_ref();
            // The load inside is Relaxed. What the caller reads next, the second look at `control`, must not come before it.
            fence(Ordering::Acquire);
            held
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
