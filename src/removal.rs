//! Values that left the cache, on their way to the user's listener.
//!
//! Whoever removes a value only queues it. The listener runs later, from the end of an operation, when no
//! claim, permit or reservation is held: it may call the cache.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::clock::Tick;
use crate::entry::Entry;
use crate::sync::{Arc, SegQueue};

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
    /// The caches whose listener this thread is calling; what that removes from one of them is delivered by the loop that
    /// is already running.
    static DELIVERING: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

/// One cache's loop on this thread, until dropped: a value's own `Drop` may panic between two calls.
struct Delivering;

impl Delivering {
    /// `None` if the loop of this cache is running already.
    fn begin(cache: usize) -> Option<Self> {
        DELIVERING.with_borrow_mut(|caches| {
            let new = !caches.contains(&cache);
            new.then(|| caches.push(cache)).map(|()| Delivering)
        })
    }
}

impl Drop for Delivering {
    fn drop(&mut self) {
        // Loops end in the reverse of the order in which they began.
        DELIVERING.with_borrow_mut(|caches| caches.pop());
    }
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
        if self.waiting.is_empty() {
            return;
        }
        let Some(_delivering) = Delivering::begin(std::ptr::from_ref(self).addr()) else {
            return;
        };
        while let Some((entry, cause)) = self.waiting.pop() {
            if let Some(value) = entry.value() {
                let _ = catch_unwind(AssertUnwindSafe(|| listener(&entry.key, value, cause)));
            }
        }
    }
}
