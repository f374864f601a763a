//! Values that left the cache, on their way to the user's listener.
//!
//! Whoever removes a value only queues it. The listener runs later, from the end of an operation, when no
//! claim, permit or reservation is held: it may call the cache.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crossbeam::queue::SegQueue;

use crate::clock::Tick;
use crate::entry::Entry;
use crate::sync::Arc;

/// Why a value left the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// It was evicted: the cache, or its set, was full, or it was heavier than the cache.
    Size,
    /// It was past its hard limit.
    Expired,
    /// A refresh or an `insert` put another value in its place.
    Replaced,
    /// `invalidate` or `invalidate_all` removed it.
    Invalidated,
}

impl Cause {
    /// Why an evicted value leaves: for space, unless it was good for nothing any more.
    pub(crate) fn of<K, V>(entry: &Entry<K, V>, now: Tick) -> Self {
        match entry.is_servable(now) {
            true => Cause::Size,
            false => Cause::Expired,
        }
    }
}

pub type Listener<K, V> = Box<dyn Fn(&K, &V, Cause) + Send + Sync>;

pub struct Removals<K, V> {
    listener: Option<Listener<K, V>>,
    waiting: SegQueue<(Arc<Entry<K, V>>, Cause)>,
}

thread_local! {
    /// This thread is calling a listener; what that removes is delivered by the loop that is already running.
    static DELIVERING: Cell<bool> = const { Cell::new(false) };
}

impl<K, V> Removals<K, V> {
    pub fn new(listener: Option<Listener<K, V>>) -> Self {
        Removals {
            listener,
            waiting: SegQueue::new(),
        }
    }

    pub fn push(&self, entry: &Arc<Entry<K, V>>, cause: Cause) {
        if self.listener.is_some() && !entry.is_loading() {
            self.waiting.push((entry.clone(), cause));
        }
    }

    /// Calls the listener for everything that waits. A listener that panics loses its call, nothing else.
    pub fn deliver(&self) {
        let Some(listener) = &self.listener else {
            return;
        };
        if self.waiting.is_empty() || DELIVERING.replace(true) {
            return;
        }
        while let Some((entry, cause)) = self.waiting.pop() {
            if let Some(value) = entry.value() {
                let _ = catch_unwind(AssertUnwindSafe(|| listener(&entry.key, value, cause)));
            }
        }
        DELIVERING.set(false);
    }
}
