//! The threads of a pool: `rayon`'s, so that the parallel parts of a load use them too.
//!
//! A worker starts a load only where nothing else is on its stack. A load may wait for parallel
//! parts of its own, by `rayon::join` for example. Meanwhile `rayon` gives its thread other jobs,
//! also parts of other loads, which in turn may wait. A load that was started there could wait for
//! the one below it, and neither would ever end.
//!
//! A hung load keeps its worker. While it is overdue, the pool has a spare worker in its place.

use std::cell::Cell;
use std::fmt;
use std::hint::black_box;
use std::ptr;

use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::error::BuildError;
use crate::load::pool::{Jobs, Task};
use crate::load::stack::{become_worker, on_worker};
use crate::load::wakes::{Deferred, Wakes};
use crate::observe::reason::LoadReason;
use crate::protocol::flight::Help;
use crate::protocol::wait_graph::WaitNode;
use crate::sync::plain::{Mutex, lock};
use crate::sync::{Arc, AtomicU8, AtomicUsize, Ordering, Weak};
use crate::time::alarm::{self, Sleeper};
use crate::time::clock::{Clock, Tick};

/// After this time a deferred wake tries again, if the workers have not taken all jobs by then.
const DEFERRED_FOR: Tick = 10_000_000;

/// How the threads of a pool are made.
#[derive(Clone, Debug)]
pub(crate) struct Threading {
    pub(crate) threads: usize,
    pub(crate) stack_size: usize,
    pub(crate) name: String,
}

/// The workers of a pool and their jobs.
pub(crate) struct Workers {
    myself: Weak<Workers>,
    threading: Threading,
    jobs: Jobs,
    deferred: Deferred,
    main: Arc<Team>,
    spares: Mutex<Spares>,
    /// The number of spares, so that a wake takes no lock while there are none.
    spare: AtomicUsize,
}

#[derive(Default)]
struct Spares {
    serving: Vec<Arc<Team>>,
    /// Those that go, until they have ended their last job. It may hang for ever.
    retired: Vec<Weak<Team>>,
}

/// Some threads that take jobs: those of the pool, or one spare.
struct Team {
    threads: ThreadPool,
    wakes: Wakes,
    /// How deep the stack of a worker is when `rayon` runs a job on it and nothing else lies below;
    /// 0 until the first job.
    depth: AtomicUsize,
    /// 1 once the load that a spare replaced has returned.
    retired: AtomicU8,
}

thread_local! {
    /// The position of the stack before the first job; `None` if positions say nothing.
    static BASE: Cell<Option<usize>> = const { Cell::new(None) };
}

/// The position of the stack at this call.
#[inline(never)]
fn position() -> usize {
    let here = 0_u8;
    ptr::from_ref(black_box(&here)).addr()
}

impl Team {
    fn new(threading: &Threading, threads: usize, first: usize) -> Result<Self, BuildError> {
        let (name, stack_size) = (threading.name.clone(), threading.stack_size);
        let pool = ThreadPoolBuilder::new()
            .num_threads(threads)
            .stack_size(stack_size)
            .thread_name(move |number| format!("{name}-{}", first + number))
            .start_handler(move |_| {
                become_worker(stack_size);
                // A sanitizer may keep variables elsewhere, at another place in each call. Then a
                // load may start on top of a part of another one, and wait for it until its
                // time-out.
                let (one, two) = (position(), position());
                BASE.set((one == two).then_some(one));
            })
            .panic_handler(|_| {})
            .build()
            .map_err(|error| BuildError::pool(threads, stack_size, error))?;
        Ok(Team {
            threads: pool,
            wakes: Wakes::new(threads),
            depth: AtomicUsize::new(0),
            retired: AtomicU8::new(0),
        })
    }

    fn is_retired(&self) -> bool {
        // Relaxed: a spare that sees it late runs one more job.
        self.retired.load(Ordering::Relaxed) == 1
    }

    fn wake(self: &Arc<Self>, workers: &Weak<Workers>) {
        // `None` in the drop of the pool, which has no jobs.
        let Some(workers) = workers.upgrade() else {
            return;
        };
        if self.wakes.announce() {
            let team = self.clone();
            self.threads.spawn(move || workers.run(&team));
        }
    }
}

impl Workers {
    pub(crate) fn new(threading: Threading) -> Result<Arc<Self>, BuildError> {
        let main = Team::new(&threading, threading.threads, 0)?;
        Ok(Arc::new_cyclic(|myself| Workers {
            myself: myself.clone(),
            jobs: Jobs::new(threading.threads),
            deferred: Deferred::default(),
            main: Arc::new(main),
            spares: Mutex::default(),
            spare: AtomicUsize::new(0),
            threading,
        }))
    }

    /// The number of threads without the spares.
    pub(crate) fn threads(&self) -> usize {
        self.threading.threads
    }

    pub(crate) fn stack_size(&self) -> usize {
        self.threading.stack_size
    }

    /// See [`Jobs::admits`].
    pub(crate) fn admits(&self, reason: LoadReason) -> bool {
        self.jobs.admits(reason)
    }

    /// Queues a task that was admitted.
    pub(crate) fn queue(&self, reason: LoadReason, task: Arc<Task>) {
        self.jobs.queue(reason, task, || self.wake_workers());
    }

    /// What helps a queued task for which another thread waits.
    pub(crate) fn help(&self, reason: LoadReason, task: Arc<Task>) -> Arc<dyn Help> {
        match reason {
            LoadReason::Cold => task,
            LoadReason::Stale | LoadReason::Early => Arc::new(Refresh {
                task,
                workers: self.myself.clone(),
                promoted: AtomicU8::new(0),
            }),
        }
    }

    fn wake_workers(&self) {
        self.main.wake(&self.myself);
        // Relaxed: a spare that starts now wakes itself.
        if self.spare.load(Ordering::Relaxed) > 0 {
            let spares = lock(&self.spares).serving.clone();
            for spare in spares {
                spare.wake(&self.myself);
            }
        }
    }

    /// Runs jobs until none is queued; a wake has reached a worker of `team`.
    fn run(&self, team: &Team) {
        if !self.has_empty_stack(team) {
            return self.defer(team);
        }
        team.wakes.run(&self.jobs, || !team.is_retired());
        if team.is_retired() {
            // Its jobs are those of the other workers now.
            self.wake_workers();
        }
    }

    /// Whether nothing lies below the job that this worker runs.
    fn has_empty_stack(&self, team: &Team) -> bool {
        if WaitNode::current().is_some() {
            return false;
        }
        let Some(base) = BASE.get() else {
            return true;
        };
        let depth = base.wrapping_sub(position());
        // The first job of a team finds an empty stack, because only loads have parts. Relaxed: a
        // worker that runs a part of a load comes after the job that set the depth.
        let found = team
            .depth
            .compare_exchange(0, depth, Ordering::Relaxed, Ordering::Relaxed);
        found.map_or_else(|known| known == depth, |_| true) || self.jobs.none_runs()
    }

    /// Hands a wake on that reached a worker which must not start a load.
    ///
    /// The idle workers take it now. A worker that runs a part of a load looks for no jobs when the
    /// part ends, so an alarm tries again, which is rare and far cheaper than to try all the time.
    fn defer(&self, team: &Team) {
        if !self.deferred.defer(&team.wakes, &self.jobs) {
            return;
        }
        let (team, workers) = (self.main.clone(), self.myself.clone());
        (self.main.threads).spawn_broadcast(move |_| team.wake(&workers));
        let at = Clock::coarse().now().saturating_add(DEFERRED_FOR);
        alarm::set(alarm::process(), at, self.myself.clone());
    }
}

/// A queued refresh. It becomes a cold load when a caller without a value waits for it.
struct Refresh {
    task: Arc<Task>,
    workers: Weak<Workers>,
    /// 1 once it was queued as a cold load as well.
    promoted: AtomicU8,
}

impl Help for Refresh {
    fn help(&self) {
        if on_worker() {
            return self.task.help();
        }
        // Relaxed: twice in the queue would do no harm, because it runs once.
        if self.promoted.swap(1, Ordering::Relaxed) == 0 && self.task.is_queued() {
            if let Some(workers) = self.workers.upgrade() {
                workers.admits(LoadReason::Cold);
                workers.queue(LoadReason::Cold, self.task.clone());
            }
        }
    }
}

impl Sleeper for Workers {
    fn wake(&self) {
        if self.deferred.ring(&self.jobs) {
            self.wake_workers();
        }
    }
}

/// A load that is past its deadline and keeps its worker, from the moment at which a spare worker
/// took its place until the load returns.
pub(crate) struct Overdue(Arc<Workers>);

impl Workers {
    /// Adds a spare worker for a load that is past its deadline and keeps its worker; the spare
    /// goes when the load returns, which drops the guard.
    ///
    /// `None` if there are as many spares as threads, or twice as many with those that hang after
    /// they were to go, or if the system has no thread left. Jobs then wait until a load returns.
    pub(crate) fn overdue(self: &Arc<Self>) -> Option<Overdue> {
        let spare = {
            let mut spares = lock(&self.spares);
            spares.retired.retain(|spare| spare.strong_count() > 0);
            let (count, threads) = (spares.serving.len(), self.threading.threads);
            if count >= threads || count + spares.retired.len() >= 2 * threads {
                return None;
            }
            let spare = Arc::new(Team::new(&self.threading, 1, threads + count).ok()?);
            spares.serving.push(spare.clone());
            self.spare.store(count + 1, Ordering::Relaxed);
            spare
        };
        spare.wake(&self.myself);
        Some(Overdue(self.clone()))
    }

    fn back(&self) {
        let spare = {
            let mut spares = lock(&self.spares);
            let spare = spares.serving.pop();
            spares.retired.extend(spare.as_ref().map(Arc::downgrade));
            self.spare.store(spares.serving.len(), Ordering::Relaxed);
            spare
        };
        if let Some(spare) = spare {
            spare.retired.store(1, Ordering::Relaxed);
            // A wake of the spare may have been the only one for a job.
            self.wake_workers();
        }
    }
}

impl Drop for Overdue {
    fn drop(&mut self) {
        self.0.back();
    }
}

impl fmt::Debug for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Threading {
            threads,
            stack_size,
            name,
        } = &self.threading;
        f.debug_struct("Pool")
            .field("name", name)
            .field("threads", threads)
            .field("stack_size", stack_size)
            .finish()
    }
}

#[cfg(all(test, not(all(loom, feature = "loom"))))]
#[allow(clippy::expect_used, reason = "a panic is the result of a test")]
mod tests {
    use std::time::Duration;

    use rayon::Yield;

    use super::{Arc, LoadReason, Mutex, Task, Threading, Workers, lock};
    use crate::sync::plain::{Sender, channel};

    fn workers(threads: usize) -> Arc<Workers> {
        let threading = Threading {
            threads,
            stack_size: 1 << 20,
            name: "worker".to_owned(),
        };
        Workers::new(threading).expect("the system has some threads")
    }

    fn queue(workers: &Workers, run: impl FnOnce() + Send + 'static) {
        workers.queue(LoadReason::Cold, Arc::new(Task::new(run)));
    }

    /// Long enough that only a fault reaches it.
    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_job_whose_wake_reached_a_worker_inside_a_part_of_another_runs_soon() {
        let workers = workers(2);
        let (ran, has_run) = channel();
        let (parted, is_parted) = channel();
        let jobs = workers.clone();
        queue(&workers, move || {
            rayon::join(
                // Keeps this worker without a job of `rayon` until the other job has run.
                move || {
                    is_parted.recv().expect("the other half runs");
                    has_run.recv_timeout(LONG).expect("the job is not stranded");
                },
                move || {
                    // On the other worker.
                    parted.send(()).expect("the first half waits");
                    queue(&jobs, move || ran.send(()).expect("the first half waits"));
                    // Takes the wake of the job, and what comes of it, inside this part.
                    while rayon::yield_local() == Some(Yield::Executed) {}
                },
            );
        });
        let (done, is_done) = channel();
        queue(&workers, move || done.send(()).expect("the test waits"));
        is_done.recv_timeout(LONG).expect("the pool works");
    }

    /// Queues a job that hangs until something is sent to it, or its sender is dropped.
    fn hang(workers: &Workers) -> Sender<()> {
        let (started, has_started) = channel();
        let (release, released) = channel::<()>();
        queue(workers, move || {
            started.send(()).expect("the test waits");
            let _ = released.recv();
        });
        has_started.recv_timeout(LONG).expect("a worker is free");
        release
    }

    #[test]
    fn a_spare_worker_takes_the_place_of_a_hung_one_until_that_returns() {
        let workers = workers(2);
        let hung = [hang(&workers), hang(&workers)];
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (ran, has_run) = channel();
        let job = |number: u32| {
            let (seen, ran) = (seen.clone(), ran.clone());
            queue(&workers, move || {
                let name = std::thread::current().name().map(str::to_owned);
                lock(&seen).push((number, name));
                ran.send(()).expect("the test waits");
            });
        };
        job(1);
        let one = workers.overdue().expect("the pool has no spare yet");
        has_run
            .recv_timeout(LONG)
            .expect("the spare runs the job that waits");
        let two = workers.overdue().expect("as many spares as threads");
        assert!(workers.overdue().is_none(), "more spares than threads");
        job(2);
        has_run.recv_timeout(LONG).expect("a spare runs a new job");
        for (_, name) in lock(&seen).iter() {
            let name = name.as_deref().unwrap_or_default();
            assert!(["worker-2", "worker-3"].contains(&name), "{name}");
        }
        // One load returns: its spare goes, and its worker works again.
        drop(hung);
        drop((one, two));
        assert!(lock(&workers.spares).serving.is_empty());
        for number in 3..20 {
            job(number);
            has_run.recv_timeout(LONG).expect("the pool works");
        }
        let last = lock(&seen).last().and_then(|(_, name)| name.clone());
        let last = last.unwrap_or_default();
        assert!(["worker-0", "worker-1"].contains(&last.as_str()), "{last}");
    }

    #[test]
    fn spares_that_hang_for_ever_are_bounded_too() {
        let workers = workers(1);
        let mut for_ever = Vec::new();
        let rounds = (0..10).take_while(|_| {
            let returns = hang(&workers);
            let Some(overdue) = workers.overdue() else {
                return false;
            };
            // The spare hangs as well, and there is none for it.
            for_ever.push(hang(&workers));
            assert!(workers.overdue().is_none(), "more spares than threads");
            drop((returns, overdue));
            true
        });
        assert_eq!(rounds.count(), 2, "rounds with a spare");
        drop(for_ever);
    }
}
