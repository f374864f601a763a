//! Watches whether a value that a guard borrows is alive.
//!
//! A `Weak` keeps the memory of a freed value, so a model finds out that the value is gone and
//! reads no memory that belongs to another one.

use super::super::{Arc, Weak};
use super::{Hidden, open};

/// What was ever put into the slots of one table.
pub struct Watched<T>(Hidden<Vec<Weak<T>>>);

/// The value of one guard, unless it was in its slot from the beginning.
pub struct Watch<T>(Option<Weak<T>>);

impl<T> Watched<T> {
    pub fn new() -> Self {
        Watched(Hidden::new(Vec::new()))
    }

    /// Before a value is put into a slot.
    pub fn add(&self, value: Option<&Arc<T>>) {
        if let Some(value) = value {
            let mut all = open(&self.0);
            if !all.iter().any(|known| known.as_ptr() == Arc::as_ptr(value)) {
                all.push(Arc::downgrade(value));
            }
        }
    }

    /// After a value left a slot that got no other, or never was in it: its owner may have the only
    /// reference again, and be sure of it.
    pub fn left(&self, value: &Arc<T>, returns: bool) {
        // One is the caller's, and one was the slot's.
        if returns && Arc::strong_count(value) == 2 {
            open(&self.0).retain(|known| known.as_ptr() != Arc::as_ptr(value));
        }
    }

    pub fn watch(&self, pointer: *mut ()) -> Watch<T> {
        let all = open(&self.0);
        let known = all
            .iter()
            .find(|known| known.as_ptr().cast() == pointer.cast_const());
        let watch = Watch(known.cloned());
        drop(all);
        watch.assert_alive();
        watch
    }
}

impl<T> Watch<T> {
    pub fn of(value: &Arc<T>) -> Self {
        Watch(Some(Arc::downgrade(value)))
    }

    pub fn assert_alive(&self) {
        let freed = self
            .0
            .as_ref()
            .is_some_and(|value| value.strong_count() == 0);
        assert!(!freed, "a borrowed value was freed");
    }
}
