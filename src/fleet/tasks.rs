//! The tasks that use the store of one cache, and their end.
//!
//! Race that this must survive: a task starts while the end begins. Both change one word, so either
//! the task is counted first, and the end waits for it, or it is refused.

use crate::sync::event::Event;
use crate::sync::{AtomicUsize, Ordering};

/// No task starts.
const ENDED: usize = 1 << (usize::BITS - 1);

pub struct Tasks {
    /// The count of tasks, and [`ENDED`].
    word: AtomicUsize,
    /// Notified when a task has ended after the end.
    changed: Event,
}

impl Default for Tasks {
    fn default() -> Self {
        Tasks {
            word: AtomicUsize::new(0),
            changed: Event::new(),
        }
    }
}

impl Tasks {
    /// Counts a task; false after the end. The task ends by [`leave`](Self::leave) in either case.
    #[must_use]
    pub fn enter(&self) -> bool {
        // AcqRel, as everywhere here: of two changes the later one sees everything from before the
        // earlier one.
        self.word.fetch_add(1, Ordering::AcqRel) < ENDED
    }

    pub fn leave(&self) {
        if self.word.fetch_sub(1, Ordering::AcqRel) > ENDED {
            self.changed.notify_all();
        }
    }

    /// From now on no task starts.
    pub fn end(&self) {
        self.word.fetch_or(ENDED, Ordering::AcqRel);
    }

    pub fn have_ended(&self) -> bool {
        self.word.load(Ordering::Acquire) >= ENDED
    }

    /// Waits until no task is left, after the end.
    pub async fn idle(&self) {
        loop {
            let changed = self.changed.listen();
            if self.word.load(Ordering::Acquire) == ENDED {
                return;
            }
            changed.await;
        }
    }
}
