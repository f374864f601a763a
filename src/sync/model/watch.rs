//! The values of a slot and the guards that borrow them, as a model sees them.
//!
//! The models of the slot itself ([`explore_slots`]) take its steps apart. There a guard checks
//! that its value is alive whenever it is read, counted or dropped. To count or to drop is a step
//! that comes before or after the end of a write. A `Weak` keeps the memory of a freed value, so
//! nothing reads memory that belongs to another one.
//!
//! In all other models a load is one step, and they would be too large otherwise. It counts what it
//! returns, and leaves no note:
//!
//! - It may read an older pointer, as `Acquire` allows. The slot keeps the values that were
//!   replaced until the execution ends, so the load gets that value. The real slot returns no value
//!   that a finished write has taken out, so these models are no weaker.
//! - A value that was taken back without a replacement (an undone reservation) is let go, so its
//!   owner holds the only reference again, unless a thread has loaded it before. A load that reads
//!   its pointer later gets the latest value.

use std::cell::Cell;

use loom::sync::atomic::AtomicUsize;

use super::super::{Arc, Ordering, Weak};
use super::{AtomicPtr, Hidden, open};

std::thread_local! {
    /// All threads of an execution run on one thread of the system.
    static EXPLORED: Cell<bool> = const { Cell::new(false) };
}

/// From here on this model explores the steps inside the slots.
pub fn explore_slots() {
    EXPLORED.set(true);
}

pub(super) fn explores_slots() -> bool {
    EXPLORED.get()
}

/// The values that were ever in a slot.
pub struct Watched<T> {
    values: Hidden<Vec<Kept<T>>>,
    /// Guards and writers touch it, if this model explores the slots.
    steps: Option<Arc<AtomicUsize>>,
}

/// A reference to a value that is in a slot, or was.
pub enum Kept<T> {
    Alive(Arc<T>),
    Watched(Weak<T>),
}

/// The value of a guard, if this model explores the slots.
pub struct Watch<T> {
    value: Option<Weak<T>>,
    steps: Option<Arc<AtomicUsize>>,
}

impl<T> Kept<T> {
    fn new(value: &Arc<T>) -> Self {
        match explores_slots() {
            true => Kept::Watched(Arc::downgrade(value)),
            false => Kept::Alive(value.clone()),
        }
    }

    fn pointer(&self) -> *const T {
        match self {
            Kept::Alive(value) => Arc::as_ptr(value),
            Kept::Watched(value) => value.as_ptr(),
        }
    }
}

impl<T> Watched<T> {
    pub fn new(value: Option<&Arc<T>>) -> Self {
        Watched {
            values: Hidden::new(value.map(Kept::new).into_iter().collect()),
            steps: explores_slots().then(|| Arc::new(AtomicUsize::new(0))),
        }
    }

    /// A load as one step; `None` if this model explores the slots.
    pub fn load(&self, pointer: &AtomicPtr) -> Option<Option<Arc<T>>> {
        if explores_slots() {
            return None;
        }
        let loaded = self.kept(pointer.load(Ordering::Acquire));
        Some(loaded.unwrap_or_else(|| self.kept(pointer.newest()).flatten()))
    }

    /// The value at this address; `None` if it was let go.
    fn kept(&self, pointer: *mut ()) -> Option<Option<Arc<T>>> {
        if pointer.is_null() {
            return Some(None);
        }
        let values = open(&self.values);
        values.iter().find_map(|kept| match kept {
            Kept::Alive(value) if Arc::as_ptr(value).cast() == pointer.cast_const() => {
                Some(Some(value.clone()))
            }
            _ => None,
        })
    }

    /// A reference to a value that an exchange is about to put into the slot.
    pub fn keep(&self, value: Option<&Arc<T>>) -> Option<Kept<T>> {
        value.map(Kept::new)
    }

    /// The exchange did. No other thread comes in between, because it could only do so before an
    /// operation that loom knows.
    pub fn put(&self, kept: Option<Kept<T>>) {
        let Some(kept) = kept else {
            return;
        };
        let mut values = open(&self.values);
        let known = values.iter().any(|value| value.pointer() == kept.pointer());
        if !known {
            values.push(kept);
            return;
        }
        drop(values);
        // Not while the list is open, although another reference to the value is in it.
        drop(kept);
    }

    /// The end of a write that took a value out of the slot, and put another one there unless
    /// `emptied`.
    pub fn left(&self, value: &Arc<T>, emptied: bool) {
        assert!(Arc::strong_count(value) > 0, "a borrowed value was freed");
        // In an explored slot one reference is the caller's and one was the slot's.
        let alone = !explores_slots() || Arc::strong_count(value) == 2;
        if emptied && alone {
            let is_it = |kept: &Kept<T>| kept.pointer() == Arc::as_ptr(value);
            let mut values = open(&self.values);
            let at = values.iter().position(is_it);
            let gone = at.map(|at| values.swap_remove(at));
            drop(values);
            drop(gone);
        }
        step(&self.steps);
    }

    pub fn watch(&self, pointer: *mut ()) -> Watch<T> {
        let values = open(&self.values);
        let known = values.iter().find_map(|kept| match kept {
            Kept::Watched(value) if value.as_ptr().cast() == pointer.cast_const() => Some(value),
            _ => None,
        });
        let watch = Watch {
            value: known.cloned(),
            steps: self.steps.clone(),
        };
        drop(values);
        watch.assert_alive();
        watch
    }
}

/// A step that comes before or after those of the same slot.
fn step(steps: &Option<Arc<AtomicUsize>>) {
    if let Some(steps) = steps {
        steps.fetch_add(1, Ordering::Relaxed);
    }
}

impl<T> Watch<T> {
    pub fn of(value: &Arc<T>) -> Self {
        Watch {
            value: explores_slots().then(|| Arc::downgrade(value)),
            steps: None,
        }
    }

    /// A step of a guard's holder, which needs the value.
    pub fn step(&self) {
        step(&self.steps);
        if !std::thread::panicking() {
            self.assert_alive();
        }
    }

    pub fn assert_alive(&self) {
        let freed = (self.value.as_ref()).is_some_and(|value| value.strong_count() == 0);
        assert!(!freed, "a borrowed value was freed");
    }
}
