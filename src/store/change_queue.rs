//! Changes between the step that made them and their listeners.
//!
//! Invariants:
//!
//! 1. Listeners get the changes in the order of their steps, one at a time, each after its step has
//!    ended (P4).
//! 2. A caller that ends a step delivers its change, or another caller that is delivering looks
//!    again after it has stopped (P3: no change is left behind).

use std::collections::VecDeque;

use crate::panics::isolated;
use crate::sync::{AtomicU8, Mutex, Ordering, lock};

pub struct ChangeQueue<T> {
    state: Mutex<QueueState<T>>,
    /// 1 while a caller delivers.
    busy: AtomicU8,
}

struct QueueState<T> {
    queued: VecDeque<Queued<T>>,
    next: u64,
}

struct Queued<T> {
    number: u64,
    has_ended: bool,
    change: T,
}

/// The place of one step in the queue. Dropping it says that the step has ended.
pub struct QueuePlace<'a, T> {
    queue: &'a ChangeQueue<T>,
    number: Option<u64>,
}

impl<T> QueuePlace<'_, T> {
    /// Queues the change of the step, within the step.
    pub fn take(&mut self, change: T) {
        let mut state = lock(&self.queue.state);
        let number = state.next;
        state.next += 1;
        state.queued.push_back(Queued {
            number,
            has_ended: false,
            change,
        });
        self.number = Some(number);
    }
}

impl<T> Drop for QueuePlace<'_, T> {
    fn drop(&mut self) {
        let Some(number) = self.number else { return };
        let mut state = lock(&self.queue.state);
        // Also after an error or a cancellation, because the step may have taken effect. A
        // notification too many only costs a read.
        let ours = state.queued.iter_mut().find(|item| item.number == number);
        if let Some(item) = ours {
            item.has_ended = true;
        }
    }
}

impl<T> ChangeQueue<T> {
    pub fn place(&self) -> QueuePlace<'_, T> {
        QueuePlace {
            queue: self,
            number: None,
        }
    }

    /// Delivers each change whose step, and every step before it, has ended. It holds no lock that
    /// a step takes, so a listener may call the store.
    pub fn deliver(&self, mut notify: impl FnMut(T)) {
        while lock(&self.state).is_ready() {
            // Acquire pairs with the release below: deliveries follow each other.
            if self.busy.swap(1, Ordering::Acquire) == 1 {
                return;
            }
            while let Some(change) = self.pop() {
                // A listener drops values of users. A panic there must not stop later deliveries.
                isolated(|| notify(change));
            }
            // Release, and an exchange: of this one and that of a caller above the later sees the
            // earlier. A caller that read 1 had ended its step before, and the next look finds it.
            self.busy.swap(0, Ordering::Release);
        }
    }

    fn pop(&self) -> Option<T> {
        let mut state = lock(&self.state);
        match state.is_ready() {
            true => state.queued.pop_front().map(|item| item.change),
            false => None,
        }
    }
}

impl<T> Default for ChangeQueue<T> {
    fn default() -> Self {
        ChangeQueue {
            state: Mutex::new(QueueState {
                queued: VecDeque::new(),
                next: 0,
            }),
            busy: AtomicU8::new(0),
        }
    }
}

impl<T> QueueState<T> {
    fn is_ready(&self) -> bool {
        self.queued.front().is_some_and(|item| item.has_ended)
    }
}
