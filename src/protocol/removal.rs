//! Removed values, on their way to the user's listener.
//!
//! A call that removes a value only queues it. The listener runs later, at the end of an operation,
//! when no claim, permit or reservation is held, because it may call the cache.
//!
//! Invariants:
//!
//! 1. One thread takes each value out of the queue and delivers it once.
//! 2. A call delivers as many values as it queued, though perhaps others, or finds the queue empty.
//!    So the queue never holds more values than the calls under way will deliver, and a slow
//!    listener delays only callers that remove values.
//! 3. The loop that called the listener also delivers values that the listener's own calls removed,
//!    up to [`REENTRANT_MAX`] of them. So the loop ends even if a listener removes a value at every
//!    call.
//! 4. Each loop delivers one value more than it has to. In this way later calls deliver the values
//!    that the third rule leaves in the queue, and those of a call that panicked before it
//!    delivered them.

use std::cell::RefCell;
use std::mem::ManuallyDrop;

use crate::panics::isolated;
use crate::protocol::entry::Entry;
use crate::protocol::groups::Groups;
use crate::sync::{SegQueue, StrongArc, thread_local};
use crate::time::clock::Tick;

/// Why a value left the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// It was evicted: the cache or its set was full, or the refreshed value of its key was heavier
    /// than the cache. A value that is too heavy itself is never reported, because it is never
    /// kept.
    Size,
    /// It was past its hard limit.
    Expired,
    /// A refresh or an `insert` replaced it. This includes an `insert` of a value that was too
    /// heavy to be kept: the key has no value then.
    Replaced,
    /// `invalidate`, `invalidate_all` or an inserted `Loaded::not_found()` removed it, or a refresh
    /// found that the key has no value. Or `invalidate_group` outdated it: then it leaves when it
    /// is next read, or its place is needed.
    Invalidated,
}

impl Cause {
    /// The cause of an eviction: for space, unless the value may not be served any more.
    pub(crate) fn of<K, V>(entry: &Entry<K, V>, groups: &Groups, now: Tick) -> Self {
        match entry.is_unexpired(now) {
            _ if !entry.is_current(groups) => Cause::Invalidated,
            true => Cause::Size,
            false => Cause::Expired,
        }
    }
}

pub type Listener<K, V> = Box<dyn Fn(&K, &V, Cause) + Send + Sync>;

pub struct Removals<K, V> {
    listener: Option<Listener<K, V>>,
    waiting: SegQueue<(StrongArc<Entry<K, V>>, Cause)>,
}

/// How many values that the listener's own calls removed are delivered by the loop that called it.
const REENTRANT_MAX: usize = 64;

/// The values that this thread queued for one cache and has not delivered yet.
struct Pending {
    cache: usize,
    values: usize,
    /// The loop of this cache runs on this thread and calls the listener.
    delivering: bool,
}

thread_local! {
    // Every loop empties it, so nothing is left to drop. Without a destructor it can be used until
    // the thread's very end.
    static PENDING: RefCell<ManuallyDrop<Vec<Pending>>> =
        const { RefCell::new(ManuallyDrop::new(Vec::new())) };
}

/// Runs no user code inside. `None` if the thread-locals of this thread are gone. Its calls then
/// deliver nothing, and the next calls of other threads deliver its values.
fn with_pending<R>(change: impl FnOnce(&mut Vec<Pending>) -> R) -> Option<R> {
    PENDING
        .try_with(|pending| change(&mut pending.borrow_mut()))
        .ok()
}

/// One more value of a cache waits on this thread.
fn count_pending(cache: usize) {
    with_pending(
        |pending| match pending.iter_mut().find(|own| own.cache == cache) {
            Some(own) => own.values += 1,
            None => pending.push(Pending {
                cache,
                values: 1,
                delivering: false,
            }),
        },
    );
}

/// One cache's loop on this thread, until dropped: a value's own `Drop` may panic between two
/// calls.
struct Delivery {
    cache: usize,
    /// The values that the thread had to deliver when the loop began.
    queued: usize,
    delivered: usize,
}

impl Delivery {
    /// `None` if this thread has nothing to deliver, or its loop of this cache is running already.
    fn begin(cache: usize) -> Option<Self> {
        let begun = with_pending(|pending| {
            let own = pending.iter_mut().find(|own| own.cache == cache)?;
            let new = !std::mem::replace(&mut own.delivering, true);
            let queued = own.values;
            // Created only then, because dropping one ends the loop.
            new.then(|| Delivery {
                cache,
                queued,
                delivered: 0,
            })
        });
        begun.flatten()
    }

    /// Counts one more delivery; returns whether the loop may go on.
    fn delivers_another(&mut self) -> bool {
        let queued = with_pending(|pending| {
            let own = pending.iter().find(|own| own.cache == self.cache);
            own.map_or(0, |own| own.values)
        });
        let reentrant = queued.unwrap_or(0).saturating_sub(self.queued);
        self.delivered += 1;
        self.delivered <= self.queued + reentrant.min(REENTRANT_MAX) + 1
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        with_pending(|pending| {
            let Some(at) = pending.iter().position(|own| own.cache == self.cache) else {
                return;
            };
            let own = &mut pending[at];
            own.delivering = false;
            own.values = own.values.saturating_sub(self.delivered);
            // The next call of this thread delivers what a panic cut off.
            if own.values == 0 || !std::thread::panicking() {
                pending.swap_remove(at);
            }
            if pending.is_empty() {
                drop(std::mem::take(pending));
            }
        });
    }
}

impl<K, V> Removals<K, V> {
    pub fn new(listener: Option<Listener<K, V>>) -> Self {
        Removals {
            listener,
            waiting: SegQueue::new(),
        }
    }

    /// Identifies a cache among those of a thread.
    fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    pub fn push(&self, entry: &StrongArc<Entry<K, V>>, cause: Cause) {
        if self.listener.is_some() && !entry.is_loading() {
            self.waiting.push((entry.clone(), cause));
            count_pending(self.address());
        }
    }

    /// Calls the listener for as many values as this thread queued. If a listener panics, only that
    /// call is lost.
    pub fn deliver(&self) {
        let Some(listener) = &self.listener else {
            return;
        };
        let Some(mut delivering) = Delivery::begin(self.address()) else {
            return;
        };
        while delivering.delivers_another() {
            let Some((entry, cause)) = self.waiting.pop() else {
                return;
            };
            if let Some(value) = entry.value() {
                isolated(|| listener(&entry.key, value, cause));
            }
        }
    }
}
