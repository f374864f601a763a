//! The executor: one thread, and the seed decides which of the tasks that are ready runs next.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use everfresh::{BoxFuture, ManualClock};

use crate::random::Random;
use crate::world::{Process, World};

/// The tasks of one run. Each belongs to a process, with which it pauses and dies.
pub struct Tasks {
    tasks: Vec<Option<Task>>,
    woken: Arc<Woken>,
    runnable: Vec<usize>,
    /// Tasks that are ready, of processes that are paused.
    held: Vec<usize>,
}

struct Task {
    future: BoxFuture,
    process: Process,
    wake: Arc<WakeTask>,
}

#[derive(Default)]
struct Woken(Mutex<Vec<usize>>);

struct WakeTask {
    task: usize,
    is_woken: AtomicBool,
    woken: Arc<Woken>,
}

impl Wake for WakeTask {
    fn wake(self: Arc<Self>) {
        if !self.is_woken.swap(true, Ordering::Relaxed) {
            self.woken.lock().push(self.task);
        }
    }
}

impl Woken {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tasks {
    pub fn new() -> Self {
        Tasks {
            tasks: Vec::new(),
            woken: Arc::default(),
            runnable: Vec::new(),
            held: Vec::new(),
        }
    }

    /// Runs tasks until none is ready.
    pub fn run(&mut self, world: &World, random: &mut Random) {
        loop {
            for (process, future) in world.take_spawned() {
                self.add(process, future);
            }
            let woken = std::mem::take(&mut *self.woken.lock());
            for task in woken {
                let process = self.tasks[task].as_ref().map(|task| task.process);
                match process {
                    Some(process) if world.is_paused(process) => self.held.push(task),
                    Some(_) => self.runnable.push(task),
                    None => {}
                }
            }
            if self.runnable.is_empty() {
                return;
            }
            let next = random.index(self.runnable.len());
            let task = self.runnable.swap_remove(next);
            self.poll(task);
        }
    }

    fn add(&mut self, process: Process, future: BoxFuture) {
        let wake = Arc::new(WakeTask {
            task: self.tasks.len(),
            is_woken: AtomicBool::new(false),
            woken: self.woken.clone(),
        });
        wake.clone().wake();
        self.tasks.push(Some(Task {
            future,
            process,
            wake,
        }));
    }

    fn poll(&mut self, at: usize) {
        let Some(mut task) = self.tasks[at].take() else {
            return;
        };
        task.wake.is_woken.store(false, Ordering::Relaxed);
        let waker = Waker::from(task.wake.clone());
        let polled = task.future.as_mut().poll(&mut Context::from_waker(&waker));
        if polled == Poll::Pending {
            self.tasks[at] = Some(task);
        }
    }

    /// Lets the tasks of processes that were paused run again.
    pub fn resume(&mut self) {
        self.woken.lock().append(&mut self.held);
    }

    /// Drops the tasks of a process that is dead.
    ///
    /// A task that is dropped may start another one, as if its runtime had ended and not its
    /// process. That one runs until it finds that the cache is gone.
    pub fn kill(&mut self, world: &World, process: Process, clock: &ManualClock) {
        for task in &mut self.tasks {
            drop(task.take_if(|task| task.process == process));
        }
        for round in 0..100 {
            for (process, future) in world.take_spawned() {
                self.add(process, future);
            }
            let is_left =
                |task: &Option<Task>| task.as_ref().is_some_and(|task| task.process == process);
            let left: Vec<_> = (0..self.tasks.len())
                .filter(|at| is_left(&self.tasks[*at]))
                .collect();
            if left.is_empty() {
                return;
            }
            for task in left {
                match round < 50 {
                    true => self.poll(task),
                    // It waits for an answer, and the answers to a dead process are lost.
                    false => drop(self.tasks[task].take()),
                }
            }
            clock.advance(Duration::from_secs(10));
        }
        unreachable!("a task of a dead process does not end");
    }
}
