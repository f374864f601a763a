//! The private `rayon` pool for CPU-bound loads.
//!
//! It has three queues, one per reason. A worker always takes from the most urgent queue that is
//! not empty. A job is queued before its worker is woken, so there are never fewer wake-ups than
//! jobs.

use std::cell::Cell;
use std::fmt;

use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::error::BuildError;
use crate::observe::reason::LoadReason;
use crate::protocol::flight::Help;
use crate::protocol::wait_graph::WaitNode;
use crate::sync::{Arc, AtomicUsize, Mutex, Ordering, SegQueue, lock};

/// A queued job that runs once, on a worker of the pool or on a worker that waits for it.
pub struct Task(Mutex<Option<Box<dyn FnOnce() + Send>>>);

impl Task {
    pub fn new(run: impl FnOnce() + Send + 'static) -> Self {
        Task(Mutex::new(Some(Box::new(run))))
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
            self.run();
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
    bound: usize,
}

pub(crate) struct Pool {
    threads: ThreadPool,
    jobs: Jobs,
}

thread_local! {
    static ON_WORKER: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread belongs to the pool of some cache, and so must not wait for a queued job.
pub(crate) fn on_worker() -> bool {
    ON_WORKER.try_with(Cell::get).unwrap_or(false)
}

/// Makes the threads of a model workers. They share the thread-locals of one real thread, so either
/// all of them are workers or none.
#[cfg(all(loom, feature = "loom"))]
pub fn all_on_worker() {
    ON_WORKER.set(true);
}

impl Pool {
    pub(crate) fn new(size: usize, bound: usize, name: &str) -> Result<Self, BuildError> {
        let name = name.to_owned();
        let threads = ThreadPoolBuilder::new()
            .num_threads(size)
            .thread_name(move |number| format!("{name}-{number}"))
            .start_handler(|_| ON_WORKER.set(true))
            // The loader's panics are caught and reported where it is called. Only panics of a
            // user's `Drop` arrive here; `rayon` would abort the process on them.
            .panic_handler(|_| {})
            .build()
            .map_err(|error| BuildError::pool(size, error))?;
        Ok(Pool {
            threads,
            jobs: Jobs::new(size, bound),
        })
    }

    /// The number of jobs that run at once.
    pub(crate) fn threads(&self) -> usize {
        self.jobs.size
    }

    /// See [`Jobs::admits`].
    pub(crate) fn admits(&self, reason: LoadReason) -> bool {
        self.jobs.admits(reason)
    }

    /// Queues a task that was admitted.
    pub(crate) fn queue(self: &Arc<Self>, reason: LoadReason, task: Arc<Task>) {
        self.jobs.queue(reason, task, || self.wake());
    }

    fn wake(self: &Arc<Self>) {
        let pool = self.clone();
        self.threads.spawn(move || pool.run_next());
    }

    fn run_next(self: &Arc<Self>) {
        if WaitNode::current().is_some() {
            // While a load waits for parallel parts of its own, `rayon` gives this thread other
            // jobs of the pool. None of them may be a load, because that load could wait for the
            // one below it on this very stack.
            std::thread::yield_now();
            return self.wake();
        }
        self.jobs.run_next();
    }
}

impl Jobs {
    pub fn new(size: usize, bound: usize) -> Self {
        Jobs {
            size,
            queues: std::array::from_fn(|_| SegQueue::new()),
            queued: AtomicUsize::new(0),
            running: AtomicUsize::new(0),
            bound,
        }
    }

    /// Takes a place in the queue for a job that follows at once; false if there is none for its
    /// reason.
    ///
    /// An early refresh is refused as soon as no worker is idle. A load that a worker needs for the
    /// load it is running is always accepted. There are at most as many of these as workers, and
    /// that worker runs it itself.
    pub fn admits(&self, reason: LoadReason) -> bool {
        // Relaxed counts: they limit the queue and guard no memory. The queue synchronises.
        let queued = self.queued.fetch_add(1, Ordering::Relaxed);
        let accepted = match reason {
            LoadReason::Early => queued + self.running.load(Ordering::Relaxed) < self.size,
            LoadReason::Stale => queued < self.bound,
            LoadReason::Cold => queued < self.bound || on_worker(),
        };
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

    /// Runs the most urgent task in the queue; a worker calls this once for each wake.
    pub fn run_next(&self) {
        let Some(task) = self.queues.iter().find_map(SegQueue::pop) else {
            return;
        };
        self.running.fetch_add(1, Ordering::Relaxed);
        self.queued.fetch_sub(1, Ordering::Relaxed);
        let _running = RunningCount(&self.running);
        task.run();
    }
}

/// Counts a job as running until dropped, even by a panic.
struct RunningCount<'a>(&'a AtomicUsize);

impl Drop for RunningCount<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("size", &self.jobs.size)
            .finish_non_exhaustive()
    }
}
