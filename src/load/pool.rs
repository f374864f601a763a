//! The queued jobs of a pool, and which of them runs next.
//!
//! There are three queues, one per reason. A worker always takes from the most urgent queue that is
//! not empty, and goes on until all are empty. A job is queued before a worker is woken for it.

use crate::load::stack::{on_worker, run_here};
use crate::observe::reason::LoadReason;
use crate::panics::isolated;
use crate::protocol::flight::Help;
use crate::sync::{Arc, AtomicUsize, Mutex, Ordering, SegQueue, lock};

/// A queued job that runs once, on a worker of the pool or on a worker that waits for it.
pub struct Task(Mutex<Option<Box<dyn FnOnce() + Send>>>);

impl Task {
    pub fn new(run: impl FnOnce() + Send + 'static) -> Self {
        Task(Mutex::new(Some(Box::new(run))))
    }

    /// Whether no thread has taken the job.
    pub fn is_queued(&self) -> bool {
        lock(&self.0).is_some()
    }

    /// Runs the job unless another thread runs it or has run it.
    pub fn run(&self) {
        let run = lock(&self.0).take();
        if let Some(run) = run {
            run();
        }
    }
}

impl Help for Task {
    fn help(&self) {
        if on_worker() {
            // What panics here is the `Drop` of a user's value, which is no concern of the load
            // that waits.
            isolated(|| run_here(&mut || self.run()));
        }
    }
}

/// The choice of the next job: everything of a pool except its threads, so that the models can
/// explore it.
pub struct Jobs {
    size: usize,
    queues: [SegQueue<Arc<Task>>; 3],
    queued: AtomicUsize,
    running: AtomicUsize,
}

impl Jobs {
    pub fn new(size: usize) -> Self {
        Jobs {
            size,
            queues: std::array::from_fn(|_| SegQueue::new()),
            queued: AtomicUsize::new(0),
            running: AtomicUsize::new(0),
        }
    }

    /// Takes a place in the queue for a job that follows at once; false for an early refresh if no
    /// worker is idle. How many others wait is bounded where they come from.
    pub fn admits(&self, reason: LoadReason) -> bool {
        // Relaxed counts: they guard no memory. The queue synchronises.
        let queued = self.queued.fetch_add(1, Ordering::Relaxed);
        let accepted = reason != LoadReason::Early
            || queued + self.running.load(Ordering::Relaxed) < self.size;
        if !accepted {
            self.queued.fetch_sub(1, Ordering::Relaxed);
        }
        accepted
    }

    /// Queues a task that was admitted, and wakes a worker for it.
    pub fn queue(&self, reason: LoadReason, task: Arc<Task>, wake: impl FnOnce()) {
        self.queues[reason as usize].push(task);
        // After the push: a worker that finds no job sleeps again, and there is only one wake for
        // this task.
        wake();
    }

    /// Runs the most urgent task in the queue; false if there is none.
    pub fn run_next(&self) -> bool {
        let Some(task) = self.queues.iter().find_map(SegQueue::pop) else {
            return false;
        };
        self.running.fetch_add(1, Ordering::Relaxed);
        self.queued.fetch_sub(1, Ordering::Relaxed);
        // The loader's panics are caught and reported where it is called. Only panics of a user's
        // `Drop` arrive here, and must not keep this worker from the next job.
        isolated(|| task.run());
        self.running.fetch_sub(1, Ordering::Relaxed);
        true
    }

    /// Whether no task is queued at this moment.
    pub fn is_empty(&self) -> bool {
        self.queues.iter().all(SegQueue::is_empty)
    }

    /// Whether no worker runs a task that it took from the queue.
    pub(crate) fn none_runs(&self) -> bool {
        self.running.load(Ordering::Relaxed) == 0
    }
}
