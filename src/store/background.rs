//! One thread that runs futures which wait, for stores without a runtime of their own.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

use crate::loader::BoxFuture;
use crate::sync::{Arc, Mutex, OnceLock, lock};

/// Runs futures on a thread that starts with the first of them and ends with this.
#[derive(Default)]
pub(crate) struct Background(Arc<Shared>);

#[derive(Default)]
struct Shared {
    ready: Mutex<VecDeque<Arc<Task>>>,
    /// `None` if the system has no thread left; the futures then wait for ever, as they may.
    thread: OnceLock<Option<Thread>>,
    /// Set when it is to end.
    closed: OnceLock<()>,
}

struct Task {
    future: Mutex<Option<BoxFuture>>,
    shared: Arc<Shared>,
}

impl Background {
    pub(crate) fn spawn(&self, future: BoxFuture) {
        let shared = &self.0;
        shared.push(Arc::new(Task {
            future: Mutex::new(Some(future)),
            shared: shared.clone(),
        }));
        let thread = shared.thread.get_or_init(|| {
            let shared = shared.clone();
            let thread = std::thread::Builder::new().name("everfresh-store".to_owned());
            let thread = thread.spawn(move || shared.run());
            thread.ok().map(|thread| thread.thread().clone())
        });
        thread.iter().for_each(Thread::unpark);
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.0.closed.set(());
        if let Some(Some(thread)) = self.0.thread.get() {
            thread.unpark();
        }
    }
}

impl Shared {
    fn push(&self, task: Arc<Task>) {
        // After its end it would stay in the queue, which it refers to, for ever.
        if self.closed.get().is_none() {
            lock(&self.ready).push_back(task);
        }
    }

    fn pop(&self) -> Option<Arc<Task>> {
        lock(&self.ready).pop_front()
    }

    fn run(&self) {
        while self.closed.get().is_none() {
            match self.pop() {
                Some(task) => task.poll(),
                // Whoever pushes unparks after it, so nothing that is pushed now is slept over.
                None => std::thread::park(),
            }
        }
        // A task refers to the queue and the queue to the task; so nothing may stay in it.
        while let Some(task) = self.pop() {
            drop(task);
        }
    }
}

impl Task {
    fn poll(self: Arc<Self>) {
        let waker = Waker::from(self.clone());
        let mut slot = lock(&self.future);
        let Some(future) = slot.as_mut() else { return };
        let mut context = Context::from_waker(&waker);
        let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(&mut context)));
        if !matches!(polled, Ok(Poll::Pending)) {
            *slot = None;
        }
    }
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        let shared = self.shared.clone();
        shared.push(self);
        if let Some(Some(thread)) = shared.thread.get() {
            thread.unpark();
        }
    }
}
