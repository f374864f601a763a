//! Values that left the cache, on their way to the user's listener.
//!
//! A call that removes a value only queues it. The listener runs later, from the end of an
//! operation, when no claim, permit or reservation is held: it may call the cache.
//!
//! Invariants:
//!
//! 1. Each value in the queue is taken out by one thread, which tells of it once.
//! 2. A call tells of as many values as it queued, whichever they are, or finds the queue empty. So
//!    there are never more in the queue than the calls under way will tell, and a slow listener
//!    delays only callers that remove something.
//! 3. Values that the listener's own calls remove are told by the loop that called it, up to
//!    [`RELAPSES`] of them: the loop ends although a listener removes a value at every call.
//! 4. Each loop tells of one more than it has to. Values that the third rule leaves in the queue,
//!    or a call that panicked before it told of them, are told by later calls that way.

use std::cell::RefCell;
use std::mem::ManuallyDrop;

use crate::panics::isolated;
use crate::protocol::entry::Entry;
use crate::sync::{Arc, SegQueue, thread_local};
use crate::time::clock::Tick;

/// Why a value left the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// It was evicted: the cache or its set was full, or the refreshed value of its key was heavier
    /// than the cache. A value that is too heavy itself is never reported, because it is never kept.
    Size,
    /// It was past its hard limit.
    Expired,
    /// A refresh or an `insert` replaced it, also an `insert` of a value that was too heavy to be
    /// kept: the key has no value then.
    Replaced,
    /// `invalidate`, `invalidate_all` or an inserted `Loaded::not_found()` removed it, or a refresh
    /// found that the key has no value.
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

/// How many values that the listener's own calls removed are told by the loop that called it.
const RELAPSES: usize = 64;

/// What this thread queued for one cache and has not told yet.
struct Debt {
    cache: usize,
    values: usize,
    /// The loop of this cache runs on this thread, and calls the listener.
    telling: bool,
}

thread_local! {
    // Emptied by every loop, so nothing is left to drop; and without a destructor it can be used
    // until the thread's very end.
    static DEBTS: RefCell<ManuallyDrop<Vec<Debt>>> =
        const { RefCell::new(ManuallyDrop::new(Vec::new())) };
}

/// No user code runs inside. `None` if the thread has no debts because its thread-locals are gone;
/// then its calls tell of nothing, and the next ones of other threads do.
fn with_debts<R>(change: impl FnOnce(&mut Vec<Debt>) -> R) -> Option<R> {
    DEBTS.try_with(|debts| change(&mut debts.borrow_mut())).ok()
}

/// One cache's loop on this thread, until dropped: a value's own `Drop` may panic between two calls.
struct WriteState {
    cache: usize,
    /// What the thread owed when the loop began.
    owed: usize,
    told: usize,
}

impl WriteState {
    /// `None` if this thread owes nothing, or its loop of this cache is running already.
    fn begin(cache: usize) -> Option<Self> {
        let begun = with_debts(|debts| {
            let debt = debts.iter_mut().find(|debt| debt.cache == cache)?;
            let new = !std::mem::replace(&mut debt.telling, true);
            let owed = debt.values;
            // Made only then: dropping one ends the loop.
            new.then(|| WriteState {
                cache,
                owed,
                told: 0,
            })
        });
        begun.flatten()
    }

    /// Whether the loop may go on, and counts it.
    fn tells_another(&mut self) -> bool {
        let owed = with_debts(|debts| {
            let debt = debts.iter().find(|debt| debt.cache == self.cache);
            debt.map_or(0, |debt| debt.values)
        });
        let relapses = owed.unwrap_or(0).saturating_sub(self.owed);
        self.told += 1;
        self.told <= self.owed + relapses.min(RELAPSES) + 1
    }
}

impl Drop for WriteState {
    fn drop(&mut self) {
        with_debts(|debts| {
            let Some(at) = debts.iter().position(|debt| debt.cache == self.cache) else {
                return;
            };
            let debt = &mut debts[at];
            debt.telling = false;
            debt.values = debt.values.saturating_sub(self.told);
            // What a panic cut off is told by this thread's next call.
            if debt.values == 0 || !std::thread::panicking() {
                debts.swap_remove(at);
            }
            if debts.is_empty() {
                drop(std::mem::take(debts));
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

    /// Tells the caches of a thread apart.
    fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    pub fn push(&self, entry: &Arc<Entry<K, V>>, cause: Cause) {
        if self.listener.is_some() && !entry.is_loading() {
            self.waiting.push((entry.clone(), cause));
            let cache = self.address();
            with_debts(
                |debts| match debts.iter_mut().find(|debt| debt.cache == cache) {
                    Some(debt) => debt.values += 1,
                    None => debts.push(Debt {
                        cache,
                        values: 1,
                        telling: false,
                    }),
                },
            );
        }
    }

    /// Calls the listener for as many values as this thread queued. A listener that panics loses
    /// its call, nothing else.
    pub fn deliver(&self) {
        let Some(listener) = &self.listener else {
            return;
        };
        let Some(mut telling) = WriteState::begin(self.address()) else {
            return;
        };
        while telling.tells_another() {
            let Some((entry, cause)) = self.waiting.pop() else {
                return;
            };
            if let Some(value) = entry.value() {
                isolated(|| listener(&entry.key, value, cause));
            }
        }
    }
}
