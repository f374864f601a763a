//! An event that can happen many times, and the callers that wait for it.
//!
//! A waker is foreign code: it may panic, may be slow, or may drop the last handle to a task that
//! waits here itself. So it is cloned, called and dropped without the lock, and each call is
//! isolated from the next.
//!
//! Invariants:
//!
//! 1. A waiter listens before it checks its condition, and a notifier changes the condition before
//!    it notifies. Both take the lock. If the notifier is first, the waiter's check sees the
//!    change; otherwise the notification reaches the waiter (P3).
//! 2. A waker that panics loses its own call; all the others are called (P5).

use std::collections::BTreeMap;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use crate::panics::isolated;
use crate::sync::{Mutex, lock};

pub struct Event(Mutex<Waiting>);

struct Waiting {
    /// How many times the event has happened.
    times: u64,
    /// The number of the next waker; no number is used twice.
    next: u64,
    wakers: BTreeMap<u64, Waker>,
}

impl Event {
    pub fn new() -> Self {
        Event(Mutex::new(Waiting {
            times: 0,
            next: 0,
            wakers: BTreeMap::new(),
        }))
    }

    /// Returns a future that is ready once this has happened again.
    pub fn listen(&self) -> Listener<'_> {
        self.listen_since(self.times())
    }

    /// How many times this has happened.
    pub(crate) fn times(&self) -> u64 {
        self.with(|waiting| waiting.times)
    }

    /// Returns a future that is ready once this has happened more than so many times.
    pub(crate) fn listen_since(&self, times: u64) -> Listener<'_> {
        Listener {
            event: self,
            times,
            waker: None,
        }
    }

    /// Wakes every caller that listens.
    pub fn notify_all(&self) {
        let wakers = self.with(|waiting| {
            waiting.times += 1;
            std::mem::take(&mut waiting.wakers)
        });
        for waker in wakers.into_values() {
            isolated(|| waker.wake());
        }
    }

    fn with<R>(&self, change: impl FnOnce(&mut Waiting) -> R) -> R {
        change(&mut lock(&self.0))
    }
}

impl Default for Event {
    fn default() -> Self {
        Self::new()
    }
}

/// Dropping it only removes this waiter.
pub struct Listener<'a> {
    event: &'a Event,
    /// How many times the event had happened when this began to listen.
    times: u64,
    /// The number of its waker, while the waker is in the list or was taken out to be called.
    waker: Option<u64>,
}

impl Future for Listener<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let waker = cx.waker().clone();
        let (poll, unused) = this.event.with(|waiting| {
            if waiting.times != this.times {
                return (Poll::Ready(()), Some(waker));
            }
            let number = *this.waker.get_or_insert_with(|| {
                waiting.next += 1;
                waiting.next
            });
            (Poll::Pending, waiting.wakers.insert(number, waker))
        });
        drop(unused);
        poll
    }
}

impl Drop for Listener<'_> {
    fn drop(&mut self) {
        if let Some(number) = self.waker {
            let waker = self.event.with(|waiting| waiting.wakers.remove(&number));
            // Its drop may run user code, perhaps while this future unwinds.
            isolated(|| drop(waker));
        }
    }
}
