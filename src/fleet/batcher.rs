//! Work that is collected and done together by one task at a time, without a lock and without a task that waits.
//!
//! Whoever brings work starts the task if there is none; the task takes all there is, and when there is no more says that it stops, and
//! looks once more. Either it then sees what was brought meanwhile, or who brought it sees that the task has stopped: nothing is left lying.

use crate::sync::{AtomicU8, AtomicUsize, Ordering, SegQueue};

pub struct Batcher<T> {
    waiting: SegQueue<T>,
    /// 1 while a task is at work.
    busy: AtomicU8,
    /// Callers that are about to push more.
    held: AtomicUsize,
}

impl<T> Default for Batcher<T> {
    fn default() -> Self {
        Batcher {
            waiting: SegQueue::new(),
            busy: AtomicU8::new(0),
            held: AtomicUsize::new(0),
        }
    }
}

impl<T> Batcher<T> {
    /// Brings work; true if the caller is to start the task.
    #[must_use]
    pub fn push(&self, work: T) -> bool {
        self.waiting.push(work);
        // SeqCst, as everywhere here, because each side writes one thing and then reads another. Whoever holds sees the work when it lets go.
        self.held.load(Ordering::SeqCst) == 0 && self.wake()
    }

    /// Until [`resume`](Self::resume), work is only collected.
    pub fn pause(&self) {
        self.held.fetch_add(1, Ordering::SeqCst);
    }

    /// True if the caller is to start the task: also for what others, who still pause, have collected.
    #[must_use]
    pub fn resume(&self) -> bool {
        self.held.fetch_sub(1, Ordering::SeqCst);
        self.wake()
    }

    fn wake(&self) -> bool {
        !self.waiting.is_empty() && self.busy.swap(1, Ordering::SeqCst) == 0
    }

    /// How much waits, about.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// For the task: what is to be done.
    pub fn next(&self) -> Option<T> {
        self.waiting.pop()
    }

    /// For the task that found nothing more; false if it has to go on all the same.
    #[must_use]
    pub fn stops(&self) -> bool {
        // An exchange: of this one and that in `wake` the later sees the earlier.
        self.busy.swap(0, Ordering::SeqCst);
        !self.wake()
    }
}
