//! One thread that runs futures, for stores without a runtime of their own.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::{Context, Poll, Wake, Waker};

use crate::sync::future::BoxFuture;
use crate::sync::on_demand::OnDemand;
use crate::sync::{Arc, AtomicU8, Mutex, Ordering, SegQueue, lock};

/// One thread that runs the background work of caches, for implementations of
/// [`Store`](crate::store::Store) that have no runtime.
///
/// A store keeps one and passes [`Store::spawn`](crate::store::Store::spawn) on to it. The thread
/// starts with the first future and ends when this is dropped, and so do the futures.
///
/// # Example
///
/// ```
/// use everfresh::store::Background;
///
/// let background = Background::default();
/// let (done, is_done) = std::sync::mpsc::channel();
/// background.spawn(Box::pin(async move {
///     let _ = done.send(12);
/// }));
/// assert_eq!(is_done.recv(), Ok(12));
/// ```
#[derive(Default)]
pub struct Background(Arc<Queue>);

#[derive(Default)]
struct Queue {
    ready: SegQueue<Arc<BackgroundTask>>,
    /// If the system cannot start a thread, the futures wait until a later `spawn` starts one.
    thread: OnDemand,
    /// 1 once the owner is dropped and the thread must end.
    closed: AtomicU8,
}

struct BackgroundTask {
    future: Mutex<Option<BoxFuture>>,
    queue: Arc<Queue>,
}

impl Background {
    /// Runs a future, which must wait and not compute. A panic ends only this future.
    pub fn spawn(&self, future: BoxFuture) {
        let queue = &self.0;
        queue.ready.push(Arc::new(BackgroundTask {
            future: Mutex::new(Some(future)),
            queue: queue.clone(),
        }));
        let run = queue.clone();
        let thread = (queue.thread).get_or_start("everfresh-store", move || run.run());
        thread.inspect(|thread| thread.unpark());
    }
}

impl fmt::Debug for Background {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Background").finish_non_exhaustive()
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // Release: the thread that reads the 1 also sees every task pushed before.
        self.0.closed.store(1, Ordering::Release);
        self.0.thread.get().inspect(|thread| thread.unpark());
    }
}

impl Queue {
    fn run(&self) {
        while self.closed.load(Ordering::Acquire) == 0 {
            match self.ready.pop() {
                Some(task) => task.poll(),
                // A push is followed by an unpark, so a task pushed right now is not overlooked.
                None => std::thread::park(),
            }
        }
        // Empty the queue, because tasks and queue refer to each other and would leak.
        while self.ready.pop().is_some() {}
    }
}

impl BackgroundTask {
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

impl Wake for BackgroundTask {
    fn wake(self: Arc<Self>) {
        let queue = self.queue.clone();
        queue.ready.push(self);
        queue.thread.get().inspect(|thread| thread.unpark());
    }
}
