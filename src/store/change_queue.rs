//! Changes between the step that made them and their listeners.

use std::collections::VecDeque;

use super::change_listeners::ChangeListeners;
use super::key::Namespace;
use super::stats::StoreCounters;
use super::{Change, StoreKey};
use crate::panics::isolated;
use crate::sync::{Mutex, lock};

/// Keeps the order of the steps, and notifies of a change only after its step is stored.
#[derive(Default)]
pub(super) struct ChangeQueue {
    state: Mutex<QueueState>,
    /// Held while changes are delivered, one after the other, in their order.
    delivery: Mutex<()>,
}

#[derive(Default)]
struct QueueState {
    queued: VecDeque<Queued>,
    next: u64,
}

struct Queued {
    number: u64,
    is_stored: bool,
    namespace: Namespace,
    change: Change,
}

/// The place of one step in the queue. If it is dropped, the step has ended.
pub(super) struct QueuePlace<'a> {
    queue: &'a ChangeQueue,
    number: Option<u64>,
}

impl QueuePlace<'_> {
    /// Takes the place, within the step.
    pub fn take(&mut self, key: &StoreKey, change: Change) {
        let mut state = lock(&self.queue.state);
        let number = state.next;
        state.next += 1;
        state.queued.push_back(Queued {
            number,
            is_stored: false,
            namespace: key.namespace().clone(),
            change,
        });
        self.number = Some(number);
    }
}

impl Drop for QueuePlace<'_> {
    fn drop(&mut self) {
        let Some(number) = self.number else { return };
        let mut state = lock(&self.queue.state);
        // Also after an error or a cancellation, because the step may have taken effect. A
        // notification too many only costs a read.
        let ours = state.queued.iter_mut().find(|item| item.number == number);
        if let Some(item) = ours {
            item.is_stored = true;
        }
    }
}

impl ChangeQueue {
    pub fn place(&self) -> QueuePlace<'_> {
        QueuePlace {
            queue: self,
            number: None,
        }
    }

    /// Notifies of each change that is stored. It holds no lock that a step takes, so a listener
    /// may call the store.
    pub fn deliver(&self, listeners: &ChangeListeners, counters: &StoreCounters) {
        // Another thread that is delivering looks again after it releases the lock.
        while lock(&self.state).is_ready() {
            let Ok(_delivery) = self.delivery.try_lock() else {
                return;
            };
            while let Some(item) = self.pop() {
                // A listener drops values of users. A panic there must not stop later deliveries.
                isolated(|| listeners.notify(item.namespace.as_str(), &item.change));
                counters.changed(true);
            }
        }
    }

    fn pop(&self) -> Option<Queued> {
        let mut state = lock(&self.state);
        match state.is_ready() {
            true => state.queued.pop_front(),
            false => None,
        }
    }
}

impl QueueState {
    fn is_ready(&self) -> bool {
        self.queued.front().is_some_and(|item| item.is_stored)
    }
}
