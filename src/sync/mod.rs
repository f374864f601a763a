//! The sync shim: the only access to atomics, shared pointers and the model checker.
//!
//! No other file names `std::sync`, `arc_swap`, `triomphe` or `loom` (a test checks this), so a
//! build for the model checker swaps every primitive here and nowhere else. The model side also
//! repairs two gaps of loom; see [`model`](self::model) in the source.
//!
//! Where only one ordering is ever right, the operation implies it: [`Slot::load`] acquires,
//! [`Slot::compare_exchange`] and [`Slot::swap`] acquire and release. Atomics take their ordering
//! from the caller, which explains it.

#[cfg(feature = "arc-swap-slots")]
mod arc_swap_slot;
pub(crate) mod event;
pub(crate) mod future;
#[cfg(not(all(loom, feature = "loom")))]
#[cfg_attr(feature = "arc-swap-slots", allow(dead_code))]
pub(crate) mod lanes;
pub(crate) mod on_demand;
pub(crate) mod per_thread;
pub(crate) mod runtime;
#[cfg_attr(feature = "arc-swap-slots", allow(dead_code))]
#[allow(unsafe_code)]
mod slot;

pub use std::sync::atomic::Ordering;
pub use std::sync::{Arc, OnceLock, PoisonError, TryLockError, Weak};

#[cfg(all(loom, feature = "loom"))]
pub mod model;

#[cfg(all(loom, feature = "loom"))]
use model as side;
#[cfg(not(all(loom, feature = "loom")))]
use native as side;

#[cfg(feature = "arc-swap-slots")]
pub use arc_swap_slot::{Held, Lanes, Slot};
pub use side::{
    ArcCell, ArrayQueue, AtomicU8, AtomicU16, AtomicU64, AtomicUsize, BoundedCache, Mutex,
    MutexGuard, SegQueue, SetOnce, yield_now,
};
pub use slot::{CountedSlot, Lanes as CountedLanes};
#[cfg(not(feature = "arc-swap-slots"))]
pub use slot::{Held, Lanes, Slot};

#[cfg(all(loom, feature = "loom"))]
pub use model::explore_slots;
#[cfg(all(loom, feature = "loom"))]
pub(crate) use model::thread_local;
#[cfg(not(all(loom, feature = "loom")))]
pub(crate) use std::thread_local;

/// `arc_swap` and the models know the standard one.
#[cfg(any(all(loom, feature = "loom"), feature = "arc-swap-slots"))]
pub use std::sync::Arc as StrongArc;
/// The `Arc` of entries and flights. It has no weak count, which each entry would carry.
#[cfg(not(any(all(loom, feature = "loom"), feature = "arc-swap-slots")))]
pub use triomphe::Arc as StrongArc;

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
    #[cfg(test)]
    pub use std::sync::mpsc::{Sender, channel};
    pub use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

    /// As [`lock`](super::lock).
    pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(not(all(loom, feature = "loom")))]
mod native {
    use std::marker::PhantomData;
    use std::ops::Deref;
    use std::ptr;

    use arc_swap::{ArcSwapOption, Guard};

    pub(crate) use super::lanes;
    use super::{Arc, StrongArc};
    pub use crossbeam::queue::{ArrayQueue, SegQueue};
    pub use moka::sync::Cache as BoundedCache;
    pub use std::sync::OnceLock as SetOnce;
    pub use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU64, AtomicUsize, fence};
    pub use std::sync::{Mutex, MutexGuard};
    pub use std::thread::yield_now;

    pub type AtomicPtr = std::sync::atomic::AtomicPtr<()>;

    /// A cell for one `Arc` that is read often and written rarely: each write visits all threads.
    pub struct ArcCell<T>(ArcSwapOption<T>);

    impl<T> ArcCell<T> {
        pub fn empty() -> Self {
            ArcCell(ArcSwapOption::empty())
        }

        /// Acquire: everything written before the pointer was stored is visible.
        #[inline]
        pub fn load(&self) -> impl Deref<Target = Option<Arc<T>>> + use<T> {
            self.0.load()
        }

        /// As [`Slot::compare_exchange`](super::Slot::compare_exchange).
        pub fn compare_exchange(&self, current: Option<&Arc<T>>, new: Option<Arc<T>>) -> bool {
            let expected = current.map_or(ptr::null(), Arc::as_ptr);
            let found: Guard<Option<Arc<T>>> = self.0.compare_and_swap(expected, new);
            found.as_ref().map_or(ptr::null(), Arc::as_ptr) == expected
        }

        /// Replaces the content; acquires and releases.
        #[cfg(feature = "redis")]
        pub fn swap(&self, new: Option<Arc<T>>) -> Option<Arc<T>> {
            self.0.swap(new)
        }
    }

    /// Here nothing watches the values of a slot and the guards; the models do.
    pub struct Watched<T>(PhantomData<fn() -> T>);
    pub struct Watch<T>(PhantomData<fn() -> T>);
    pub struct Kept;

    impl<T> Watched<T> {
        pub fn new(_: Option<&StrongArc<T>>) -> Self {
            Watched(PhantomData)
        }
        #[inline(always)]
        pub fn load(&self, _: &AtomicPtr) -> Option<Option<StrongArc<T>>> {
            None
        }
        #[inline(always)]
        pub fn keep(&self, _: Option<&StrongArc<T>>) -> Kept {
            Kept
        }
        #[inline(always)]
        pub fn put(&self, _: Kept) {}
        #[inline(always)]
        pub fn left(&self, _: &StrongArc<T>, _: bool) {}
        #[inline(always)]
        pub fn watch(&self, _: *mut ()) -> Watch<T> {
            Watch(PhantomData)
        }
    }

    impl<T> Watch<T> {
        #[inline(always)]
        pub fn of(_: &StrongArc<T>) -> Self {
            Watch(PhantomData)
        }
        #[inline(always)]
        pub fn step(&self) {}
        #[inline(always)]
        pub fn assert_alive(&self) {}
    }

    /// The content of a word that no other thread can reach any more.
    pub fn last(word: &mut AtomicPtr) -> *mut () {
        *word.get_mut()
    }
}
