use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};

use everfresh::BoxFuture;

/// A runtime that does nothing by itself: every step is a call of the test.
#[derive(Clone, Default)]
pub struct Tasks(Arc<Mutex<Vec<Option<BoxFuture>>>>);

impl Tasks {
    pub fn spawner(&self) -> impl Fn(BoxFuture) + Send + Sync + 'static {
        let tasks = self.clone();
        move |future| tasks.0.lock().unwrap().push(Some(future))
    }

    /// How many loads were ever handed in.
    pub fn spawned(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    /// Polls a task unless it has ended; returns whether it has now.
    pub fn poll(&self, task: usize) -> bool {
        // Taken out meanwhile: a load may spawn others.
        let taken = self.0.lock().unwrap()[task].take();
        let Some(mut future) = taken else { return true };
        let mut context = Context::from_waker(Waker::noop());
        let ended = future.as_mut().poll(&mut context).is_ready();
        if !ended {
            self.0.lock().unwrap()[task] = Some(future);
        }
        ended
    }

    /// Polls every task once, those spawned meanwhile too.
    pub fn poll_all(&self) {
        let mut task = 0;
        while task < self.spawned() {
            self.poll(task);
            task += 1;
        }
    }

    /// DropAll a task as a runtime that shuts down does; false if it had ended.
    pub fn abort(&self, task: usize) -> bool {
        let taken = self.0.lock().unwrap()[task].take();
        taken.is_some()
    }
}
