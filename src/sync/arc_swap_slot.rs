//! The cell of the slot table over `arc_swap`, in place of [`slot`](super::slot): the reference on
//! which the tests run too, and a row of the benches (feature `arc-swap-slots`).
//!
//! Its writes visit every thread that ever ran. An exchange that fails may drop the value that it
//! found, if another thread takes that out at this moment.

use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::ptr;

use arc_swap::{ArcSwapOption, Guard};

use super::Arc;
use super::Ordering;
use super::side::fence;

/// Here the notes are those of `arc_swap`, one set for all tables.
pub struct Lanes<T>(PhantomData<fn() -> T>);

impl<T> Default for Lanes<T> {
    fn default() -> Self {
        Lanes(PhantomData)
    }
}

/// A cell that holds an `Arc` or nothing; leaks what it holds when it is dropped.
pub struct Slot<T>(ManuallyDrop<ArcSwapOption<T>>);

/// The content of a [`Slot`] when it was loaded, kept alive without counting.
pub struct Held<T>(Guard<Option<Arc<T>>>);

impl<T> Slot<T> {
    pub fn empty() -> Self {
        Slot(ManuallyDrop::new(ArcSwapOption::empty()))
    }

    #[inline]
    pub fn load(&self, _: &Lanes<T>) -> Option<Held<T>> {
        let guard = self.0.load();
        guard.is_some().then_some(Held(guard))
    }

    pub fn compare_exchange(
        &self,
        current: Option<&Arc<T>>,
        new: Option<Arc<T>>,
        _: &Lanes<T>,
    ) -> bool {
        let expected = current.map_or(ptr::null(), Arc::as_ptr);
        let found = self.0.compare_and_swap(expected, new);
        found.as_ref().map_or(ptr::null(), Arc::as_ptr) == expected
    }

    pub fn swap(&self, new: Option<Arc<T>>, _: &Lanes<T>) -> Option<Arc<T>> {
        self.0.swap(new)
    }

    #[inline]
    pub fn renew(&self, seen: &mut Option<Arc<T>>, lanes: &Lanes<T>) {
        let now = self.load(lanes);
        let is_seen = match (&now, &*seen) {
            (Some(now), Some(seen)) => Arc::ptr_eq(now.arc(), seen),
            (None, None) => true,
            _ => false,
        };
        if !is_seen {
            *seen = now.map(Held::into_arc);
        }
        // As in `slot`.
        fence(Ordering::Acquire);
    }
}

impl<T> Held<T> {
    pub fn owned(value: Arc<T>) -> Self {
        Held(Guard::from_inner(Some(value)))
    }

    pub fn into_arc(self) -> Arc<T> {
        match Guard::into_inner(self.0) {
            Some(arc) => arc,
            None => unreachable!("a Held is only built from a slot that held something"),
        }
    }

    #[inline]
    pub fn arc(&self) -> &Arc<T> {
        match &*self.0 {
            Some(arc) => arc,
            None => unreachable!("a Held is only built from a slot that held something"),
        }
    }
}

impl<T> Deref for Held<T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        self.arc()
    }
}
