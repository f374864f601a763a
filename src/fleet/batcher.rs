//! Collects work, which one task at a time takes and does together. No lock, and no idle task.
//!
//! A caller that pushes work starts the task if none is at work. The task takes all work there is.
//! When it finds no more, it marks itself as stopped and looks once more. Either the task then sees
//! the work that was pushed meanwhile, or the caller that pushed it sees the mark and starts a new
//! task. So no work is left behind.

use crate::sync::{AtomicU8, Ordering, SegQueue};

pub struct Batcher<T> {
    waiting: SegQueue<T>,
    /// 1 while a task is at work.
    busy: AtomicU8,
}

impl<T> Default for Batcher<T> {
    fn default() -> Self {
        Batcher {
            waiting: SegQueue::new(),
            busy: AtomicU8::new(0),
        }
    }
}

impl<T> Batcher<T> {
    /// Pushes work; returns true if the caller must start the task.
    #[must_use]
    pub fn push(&self, work: T) -> bool {
        self.waiting.push(work);
        self.wake()
    }

    fn wake(&self) -> bool {
        // SeqCst, as everywhere here, because each side writes one word and then reads another.
        !self.waiting.is_empty() && self.busy.swap(1, Ordering::SeqCst) == 0
    }

    /// About how much work waits.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The next piece of work, for the task.
    pub fn next(&self) -> Option<T> {
        self.waiting.pop()
    }

    /// Called by the task when it found no more work; returns false if the task must go on.
    #[must_use]
    pub fn stops(&self) -> bool {
        // An exchange, so that of this one and the one in `wake` the later sees the earlier.
        self.busy.swap(0, Ordering::SeqCst);
        !self.wake()
    }
}
