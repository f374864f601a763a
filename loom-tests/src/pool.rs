//! The jobs of a pool, without its threads: a thread of a model stands for one wake-up of a worker.

use std::sync::Arc;

use everfresh::model::{
    AtomicUsize, ClaimToken, Flight, Jobs, LoadReason, Outcome, Task, all_on_worker,
};
use loom::thread::{JoinHandle, spawn};
use std::sync::atomic::Ordering::Relaxed;

use crate::Threads::{Three, Two, TwoBusy};
use crate::fixture::wait;
use crate::run_model;

/// The places of a queue that is long enough.
const PLACES: usize = 2;

fn flight() -> Arc<Flight<u8, u64>> {
    Arc::new(Flight::new(ClaimToken::NEVER))
}

/// Queues a job as the loader does, and wakes a worker for it.
fn start(jobs: &Arc<Jobs>, reason: LoadReason, task: Arc<Task>) -> JoinHandle<()> {
    assert!(jobs.admits(reason, PLACES), "there is room for it");
    let mut worker = None;
    jobs.queue(reason, task, || {
        let jobs = jobs.clone();
        worker = Some(spawn(move || jobs.run_next()));
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
            jobs.admits(LoadReason::Early, PLACES),
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
            jobs.admits(LoadReason::Early, PLACES),
            "an idle pool counts as busy"
        );
    });
}

/// P3: a refused job keeps no place, even if another one asks at the same moment.
#[test]
fn two_ask_for_the_last_place() {
    run_model(Two, || {
        let jobs = Arc::new(Jobs::new(1));
        let other = spawn({
            let jobs = jobs.clone();
            move || jobs.admits(LoadReason::Stale, 1)
        });
        let admitted = [jobs.admits(LoadReason::Cold, 1), other.join().unwrap()];
        assert_eq!(admitted.iter().filter(|it| **it).count(), 1, "one place");
        jobs.queue(LoadReason::Cold, Arc::new(Task::new(|| {})), || {});
        jobs.run_next();
        assert!(
            jobs.admits(LoadReason::Early, PLACES),
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
