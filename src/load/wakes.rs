//! The wake-ups of the workers of a pool.
//!
//! A wake is a job of `rayon`, and `rayon` decides which worker runs it and when. A worker that
//! waits for parallel parts of a load runs other jobs of `rayon` meanwhile, so a wake may reach a
//! worker that must not start a load, because that load would lie on top of a half-done one. Such a
//! worker defers the wake.
//!
//! Invariants, and the races that they must survive:
//!
//! 1. For each queued job there is a wake on its way, a worker that looks for jobs after its
//!    present one, or a deferred wake (P3: no job is stranded). A wake is announced after its job
//!    was queued, and a worker takes back the announcement before it looks for jobs. So if a caller
//!    relies on a wake of another caller, the worker of that wake sees the job.
//! 2. A deferred wake comes back by an alarm. The alarm clears the mark before it looks for jobs. A
//!    worker that defers a second wake therefore relies on an alarm that sees its job, or sets an
//!    alarm itself.

use crate::load::pool::Jobs;
use crate::sync::{AtomicU8, AtomicUsize, Ordering};

/// The wakes of some workers that are on their way. As many as there are workers are enough for any
/// number of jobs, because each worker goes on until no job is queued.
pub struct Wakes {
    enough: usize,
    announced: AtomicUsize,
}

impl Wakes {
    pub fn new(workers: usize) -> Self {
        Wakes {
            enough: workers,
            announced: AtomicUsize::new(0),
        }
    }

    /// Announces a wake for a job that was queued before; false if there are enough.
    pub fn announce(&self) -> bool {
        let mut announced = self.announced.load(Ordering::Relaxed);
        loop {
            let enough = announced >= self.enough;
            let after = announced + usize::from(!enough);
            // An exchange also where nothing changes. Release, and Acquire in `arrive`: if this
            // caller relies on a wake, its worker comes later in the order of exchanges, and sees
            // the job.
            match (self.announced).compare_exchange(
                announced,
                after,
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_) => return !enough,
                Err(now) => announced = now,
            }
        }
    }

    /// Runs jobs while there are any and `goes_on` holds; a wake has reached a worker that may.
    pub fn run(&self, jobs: &Jobs, goes_on: impl Fn() -> bool) {
        self.take_back();
        while goes_on() && jobs.run_next() {}
    }

    /// Takes back the announcement of a wake that has reached its worker, which looks for jobs from
    /// now on.
    fn take_back(&self) {
        self.announced.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Whether a wake waits for the alarm, because it reached a worker that must not start a load.
#[derive(Default)]
pub struct Deferred(AtomicU8);

impl Deferred {
    /// Defers a wake that has reached a worker which must not start a load; true if the caller has
    /// to set the alarm.
    pub fn defer(&self, wakes: &Wakes, jobs: &Jobs) -> bool {
        wakes.take_back();
        // Release, and Acquire in `ring`: the alarm sees the job of this wake.
        !jobs.is_empty() && self.0.swap(1, Ordering::AcqRel) == 0
    }

    /// The alarm rings; true if the caller has to wake the workers.
    pub fn ring(&self, jobs: &Jobs) -> bool {
        self.0.swap(0, Ordering::AcqRel);
        !jobs.is_empty()
    }
}
