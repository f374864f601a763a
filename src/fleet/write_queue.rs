//! The order in which pending writes go to the store, and the tasks that take them there.
//!
//! A bounded number of tasks flush the writes that are ready. A write whose attempt failed waits
//! in a second queue, from which one task, the probe, tries one write after each pause. So a store
//! that is down costs one attempt at a time, however many writes wait. Once a write succeeds again,
//! all that wait become ready.
//!
//! Invariants, each a step under the one lock:
//!
//! 1. While a write is ready, a task runs, or the caller that made it ready was told to start one.
//!    A task ends in the step in which it finds no ready write (P4).
//! 2. While a failed write waits, the probe runs, or the caller was told to start it.
//! 3. A wake between two steps of the probe is seen by the next one.

use std::collections::VecDeque;

use crate::sync::event::Event;
use crate::sync::{Mutex, MutexGuard, lock};

/// The limit on tasks that flush writes at one time. In models one task, so that a write meets its
/// end.
const TASKS: usize = if cfg!(all(loom, feature = "loom")) {
    1
} else {
    64
};

pub struct WriteQueue<T> {
    queued: Mutex<Queued<T>>,
    woken: Event,
}

struct Queued<T> {
    ready: VecDeque<T>,
    failed: VecDeque<T>,
    tasks: usize,
    is_probing: bool,
    /// Whether the probe must not wait for the end of its pause.
    is_woken: bool,
    /// Attempts that failed since the last one that succeeded.
    failures: usize,
}

/// The effects of a failed attempt.
pub struct AfterFailure<T> {
    /// Whether the caller must start the probe.
    pub start_probe: bool,
    /// Writes that were ready. The caller lets them wait for the probe too.
    pub put_off: VecDeque<T>,
}

impl<T> Default for WriteQueue<T> {
    fn default() -> Self {
        WriteQueue {
            queued: Mutex::new(Queued {
                ready: VecDeque::new(),
                failed: VecDeque::new(),
                tasks: 0,
                is_probing: false,
                is_woken: false,
                failures: 0,
            }),
            woken: Event::new(),
        }
    }
}

impl<T> WriteQueue<T> {
    fn queued(&self) -> MutexGuard<'_, Queued<T>> {
        lock(&self.queued)
    }

    /// Adds a write that is ready. Returns true if the caller must start a task.
    #[must_use]
    pub fn push(&self, key: T) -> bool {
        let mut queued = self.queued();
        queued.ready.push_back(key);
        let starts = queued.tasks < TASKS;
        queued.tasks += usize::from(starts);
        starts
    }

    /// The next write for a task; `None` ends the task.
    pub fn next(&self) -> Option<T> {
        let mut queued = self.queued();
        let next = queued.ready.pop_front();
        queued.tasks -= usize::from(next.is_none());
        next
    }

    /// A task ends without a look for its next write. Returns true if the caller must start
    /// another.
    #[must_use]
    pub fn task_dropped(&self) -> bool {
        let mut queued = self.queued();
        let starts = !queued.ready.is_empty();
        queued.tasks -= usize::from(!starts);
        starts
    }

    /// An attempt succeeded. Returns how many tasks the caller must start.
    #[must_use]
    pub fn succeeded(&self) -> usize {
        let mut queued = self.queued();
        if std::mem::take(&mut queued.failures) == 0 {
            return 0;
        }
        let failed = std::mem::take(&mut queued.failed);
        queued.ready.extend(failed);
        let starts = queued.ready.len().min(TASKS - queued.tasks);
        queued.tasks += starts;
        starts
    }

    /// An attempt failed, whose write now waits for the probe, if it does not already. `is_down`
    /// says that the store could not be reached, so that other attempts are likely to fail as well.
    pub fn failed(&self, key: Option<T>, is_down: bool) -> AfterFailure<T> {
        let mut queued = self.queued();
        queued.failed.extend(key);
        queued.failures += usize::from(is_down);
        let put_off = match is_down && queued.failures >= TASKS {
            true => std::mem::take(&mut queued.ready),
            false => VecDeque::new(),
        };
        let start_probe = !(queued.is_probing || queued.failed.is_empty());
        queued.is_probing |= start_probe;
        AfterFailure {
            start_probe,
            put_off,
        }
    }

    /// The next write for the probe; `None` ends the probe.
    pub fn retry(&self) -> Option<T> {
        let mut queued = self.queued();
        let next = queued.failed.pop_front();
        queued.is_probing = next.is_some();
        queued.is_woken &= next.is_some();
        next
    }

    /// The probe ends without a look for its next write. Returns true if the caller must start
    /// another.
    #[must_use]
    pub fn probe_dropped(&self) -> bool {
        let mut queued = self.queued();
        queued.is_probing = !queued.failed.is_empty();
        queued.is_probing
    }

    /// Takes every write that waits.
    pub fn take_all(&self) -> VecDeque<T> {
        let mut queued = self.queued();
        let mut all = std::mem::take(&mut queued.ready);
        all.append(&mut queued.failed);
        all
    }

    /// Ends the pause of the probe. Returns true if the caller must start the probe.
    #[must_use]
    pub fn wake(&self) -> bool {
        let starts = {
            let mut queued = self.queued();
            let starts = !queued.is_probing && !queued.failed.is_empty();
            queued.is_probing |= starts;
            queued.is_woken |= queued.is_probing;
            starts
        };
        self.woken.notify_all();
        starts
    }

    /// Waits for a wake.
    pub async fn woken(&self) {
        let woken = self.woken.listen();
        if !self.take_woken() {
            woken.await;
            self.take_woken();
        }
    }

    fn take_woken(&self) -> bool {
        std::mem::take(&mut self.queued().is_woken)
    }

    /// Whether the last attempt found no store.
    pub fn is_down(&self) -> bool {
        self.queued().failures > 0
    }

    /// Whether a write that is added now may wait for its first attempt.
    pub fn is_crowded(&self) -> bool {
        let queued = self.queued();
        queued.failures > 0 || queued.tasks >= TASKS
    }
}
