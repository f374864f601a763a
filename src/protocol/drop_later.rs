//! Entries that leave the table during an operation, and are dropped after it has released
//! everything.
//!
//! Dropping the last reference to an entry runs the user's code. That code may call the cache and
//! may panic, so it must not run while the operation holds a permit: another insert on the same
//! thread could wait for that permit.
//!
//! An operation creates its `DropLater` before it takes a permit. Rust drops the two in the reverse
//! order, also when the operation unwinds.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use crate::panics::discard;
use crate::sync::StrongArc;

pub struct DropLater<T> {
    /// Separate from the list, because most operations have at most one and then do not allocate.
    first: Option<StrongArc<T>>,
    more: Vec<StrongArc<T>>,
}

impl<T> DropLater<T> {
    pub fn new() -> Self {
        DropLater {
            first: None,
            more: Vec::new(),
        }
    }

    pub fn add(&mut self, entry: StrongArc<T>) {
        match self.first {
            None => self.first = Some(entry),
            Some(_) => self.more.push(entry),
        }
    }
}

impl<T> Default for DropLater<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Drop for DropLater<T> {
    fn drop(&mut self) {
        let mut drops = DropAll::default();
        if let Some(entry) = self.first.take() {
            drops.drop_one(entry);
        }
        for entry in self.more.drain(..) {
            drops.drop_one(entry);
        }
    }
}

/// Drops items one by one, and continues if one of them panics. The first panic resumes when this
/// is dropped.
#[derive(Default)]
pub struct DropAll(Option<Box<dyn Any + Send>>);

impl DropAll {
    pub fn drop_one<T>(&mut self, entry: T) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(entry))) {
            match self.0 {
                None => self.0 = Some(panic),
                Some(_) => discard(panic),
            }
        }
    }
}

impl Drop for DropAll {
    fn drop(&mut self) {
        match self.0.take() {
            Some(panic) if std::thread::panicking() => discard(panic),
            Some(panic) => resume_unwind(panic),
            None => {}
        }
    }
}
