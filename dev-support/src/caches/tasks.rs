use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};

use everfresh::BoxFuture;

/// A runtime that does nothing by itself: the test requests every step.
#[derive(Clone, Default)]
pub struct Tasks(Arc<Mutex<Vec<Option<BoxFuture>>>>);

impl Tasks {
    pub fn spawner(&self) -> impl Fn(BoxFuture) + Send + Sync + 'static {
        let tasks = self.clone();
        move |future| tasks.0.lock().unwrap().push(Some(future))
    }

    /// The number of tasks ever spawned.
    pub fn spawned(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    /// The number of tasks that have not ended.
    pub fn running(&self) -> usize {
        self.0.lock().unwrap().iter().flatten().count()
    }

    /// Polls a task unless it has ended; returns whether it has ended now.
    pub fn poll(&self, task: usize) -> bool {
        // Takes the task out while it is polled, because a load may spawn others.
        let taken = self.0.lock().unwrap()[task].take();
        let Some(mut future) = taken else { return true };
        let mut context = Context::from_waker(Waker::noop());
        let ended = future.as_mut().poll(&mut context).is_ready();
        if !ended {
            self.0.lock().unwrap()[task] = Some(future);
        }
        ended
    }

    /// Polls every task once, including those spawned meanwhile.
    pub fn poll_all(&self) {
        let mut task = 0;
        while task < self.spawned() {
            self.poll(task);
            task += 1;
        }
    }

    /// Drops a task, as a runtime does when it shuts down. Returns false if the task had ended.
    pub fn abort(&self, task: usize) -> bool {
        let taken = self.0.lock().unwrap()[task].take();
        taken.is_some()
    }
}
