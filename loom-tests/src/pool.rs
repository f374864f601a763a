//! The jobs of a pool, without its threads: a thread of a model stands for one wake-up of a worker.

use std::sync::Arc;

use everfresh::model::{
    AtomicUsize, ClaimToken, Deferred, Flight, Jobs, LoadReason, Outcome, Task, Wakes,
    all_on_worker,
};
use loom::thread::{JoinHandle, spawn};
use std::sync::atomic::Ordering::Relaxed;

use crate::Threads::{Three, Two, TwoBusy};
use crate::fixture::wait;
use crate::run_model;

fn flight() -> Arc<Flight<u8, u64>> {
    Arc::new(Flight::new(ClaimToken::NEVER))
}

/// Queues a job as the loader does, and wakes a worker for it.
fn start(jobs: &Arc<Jobs>, reason: LoadReason, task: Arc<Task>) -> JoinHandle<()> {
    assert!(jobs.admits(reason), "it may wait");
    let mut worker = None;
    jobs.queue(reason, task, || {
        let jobs = jobs.clone();
        worker = Some(spawn(move || while jobs.run_next() {}));
    });
    worker.expect("a worker is woken")
}

/// A job that counts how often it ran.
fn counting(ran: &Arc<AtomicUsize>) -> Arc<Task> {
    let ran = ran.clone();
    Arc::new(Task::new(move || {
        ran.fetch_add(1, Relaxed);
    }))
}

/// P3: a worker that is woken for a job finds it, and leaves the pool idle.
#[test]
fn a_job_against_its_worker() {
    run_model(Two, || {
        let jobs = Arc::new(Jobs::new(1));
        let ran = Arc::new(AtomicUsize::new(0));
        start(&jobs, LoadReason::Cold, counting(&ran))
            .join()
            .unwrap();
        assert_eq!(ran.fetch_add(0, Relaxed), 1, "a job did not run");
        assert!(
            jobs.admits(LoadReason::Early),
            "an idle pool counts as busy"
        );
    });
}

/// P3: the worker of either job may take the other one. Both jobs run once.
#[test]
fn two_jobs_and_two_workers() {
    run_model(Three, || {
        let jobs = Arc::new(Jobs::new(1));
        let ran = Arc::new(AtomicUsize::new(0));
        let workers = [LoadReason::Stale, LoadReason::Cold]
            .map(|reason| start(&jobs, reason, counting(&ran)));
        for worker in workers {
            worker.join().unwrap();
        }
        assert_eq!(ran.fetch_add(0, Relaxed), 2, "a job did not run");
        assert!(
            jobs.admits(LoadReason::Early),
            "an idle pool counts as busy"
        );
    });
}

/// P3: a refused refresh keeps no place, even if another one asks at the same moment.
#[test]
fn two_early_refreshes_ask_for_one_worker() {
    run_model(Two, || {
        let jobs = Arc::new(Jobs::new(1));
        let other = spawn({
            let jobs = jobs.clone();
            move || jobs.admits(LoadReason::Early)
        });
        let admitted = [jobs.admits(LoadReason::Early), other.join().unwrap()];
        assert_eq!(admitted.iter().filter(|it| **it).count(), 1, "one worker");
        jobs.queue(LoadReason::Early, Arc::new(Task::new(|| {})), || {});
        jobs.run_next();
        assert!(
            jobs.admits(LoadReason::Early),
            "an idle pool counts as busy"
        );
    });
}

/// P3: a worker that needs a load runs its job itself, even if that is queued only at this moment.
#[test]
fn a_waiting_worker_against_its_job() {
    run_model(Two, || {
        all_on_worker();
        let flight = flight();
        let caller = spawn({
            let flight = flight.clone();
            move || {
                let ended = flight.clone();
                let job = move || ended.deliver(Outcome::Superseded);
                flight.waits_for(Arc::new(Task::new(job)));
            }
        });
        assert!(matches!(wait(&flight), Outcome::Superseded));
        caller.join().unwrap();
    });
}

/// P3: a job that two workers try to run runs once.
#[test]
fn two_run_one_job() {
    run_model(Two, || {
        let ran = Arc::new(AtomicUsize::new(0));
        let task = counting(&ran);
        let other = spawn({
            let task = task.clone();
            move || task.run()
        });
        task.run();
        other.join().unwrap();
        assert_eq!(ran.fetch_add(0, Relaxed), 1, "a job ran twice, or not");
    });
}

/// P3, P5: a worker that finds its job running on another thread does not wait for it. That job may
/// wait for this worker, and a job that hangs must not outlast its deadline.
#[test]
fn a_running_job_blocks_no_worker() {
    run_model(TwoBusy, || {
        let (started, needed) = (flight(), flight());
        let task = Arc::new(Task::new({
            let (started, needed) = (started.clone(), needed.clone());
            move || {
                started.deliver(Outcome::Superseded);
                wait(&needed);
            }
        }));
        let worker = spawn({
            let task = task.clone();
            move || task.run()
        });
        wait(&started);
        task.run();
        needed.deliver(Outcome::Superseded);
        worker.join().unwrap();
    });
}

/// A team of workers without its threads: the jobs, and the wakes that are on their way to them.
struct Team {
    jobs: Jobs,
    wakes: Wakes,
    deferred: Deferred,
}

impl Team {
    fn new(workers: usize) -> Arc<Self> {
        Arc::new(Team {
            jobs: Jobs::new(workers),
            wakes: Wakes::new(workers),
            deferred: Deferred::default(),
        })
    }

    /// Queues a job; true if a wake follows.
    fn queue(&self, task: Arc<Task>) -> bool {
        assert!(self.jobs.admits(LoadReason::Cold));
        let mut wake = false;
        self.jobs
            .queue(LoadReason::Cold, task, || wake = self.wakes.announce());
        wake
    }

    /// A wake reaches a worker that may start loads.
    fn run(&self) {
        self.wakes.run(&self.jobs, || true);
    }

    /// A wake reaches a worker that must not start a load; true if it sets the alarm.
    fn defer(&self) -> bool {
        self.deferred.defer(&self.wakes, &self.jobs)
    }

    /// The alarm rings; true if a wake follows.
    fn ring(&self) -> bool {
        self.deferred.ring(&self.jobs) && self.wakes.announce()
    }
}

/// P3: a caller that relies on the wake of an earlier job strands no job, even if that wake arrives
/// at this moment.
#[test]
fn a_job_against_the_wake_of_an_earlier_one() {
    run_model(Two, || {
        let (team, ran) = (Team::new(1), Arc::new(AtomicUsize::new(0)));
        assert!(team.queue(counting(&ran)), "there is no wake yet");
        let worker = spawn({
            let team = team.clone();
            move || team.run()
        });
        let woken = team.queue(counting(&ran));
        worker.join().unwrap();
        if woken {
            team.run();
        }
        assert_eq!(ran.fetch_add(0, Relaxed), 2, "a job is stranded");
    });
}

/// P3: two callers at once rely on each other's wake at most as far as that wake is sent.
#[test]
fn two_jobs_against_the_wake_of_an_earlier_one() {
    run_model(Three, || {
        let (team, ran) = (Team::new(1), Arc::new(AtomicUsize::new(0)));
        assert!(team.queue(counting(&ran)), "there is no wake yet");
        let worker = spawn({
            let team = team.clone();
            move || team.run()
        });
        let other = spawn({
            let (team, task) = (team.clone(), counting(&ran));
            move || team.queue(task)
        });
        let woken = [team.queue(counting(&ran)), other.join().unwrap()];
        worker.join().unwrap();
        for _ in woken.iter().filter(|woken| **woken) {
            team.run();
        }
        assert_eq!(ran.fetch_add(0, Relaxed), 3, "a job is stranded");
    });
}

/// P3: a wake that reaches a worker which must not start a load comes back, even if the alarm of an
/// earlier such wake rings at this moment.
#[test]
fn a_deferred_wake_against_the_alarm_of_an_earlier_one() {
    run_model(Two, || {
        let (team, ran) = (Team::new(1), Arc::new(AtomicUsize::new(0)));
        // The job of the earlier wake ran elsewhere meanwhile.
        assert!(team.queue(counting(&ran)));
        assert!(team.defer(), "this is the first one");
        assert!(team.jobs.run_next());
        let alarm = spawn({
            let team = team.clone();
            move || team.ring()
        });
        // Without a wake of its own, the job relies on that of the alarm.
        let sets_alarm = team.queue(counting(&ran)) && team.defer();
        let mut woken = alarm.join().unwrap();
        if sets_alarm {
            woken |= team.ring();
        }
        if woken {
            team.run();
        }
        assert_eq!(ran.fetch_add(0, Relaxed), 2, "a job is stranded");
    });
}
