//! One thread that runs futures which wait, for stores without a runtime of their own.

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
pub struct Background(Arc<Shared>);

#[derive(Default)]
struct Shared {
    ready: SegQueue<Arc<Task>>,
    /// If the system has no thread left, the futures wait until a later one starts it.
    thread: OnDemand,
    /// 0 until it is to end.
    closed: AtomicU8,
}

struct Task {
    future: Mutex<Option<BoxFuture>>,
    shared: Arc<Shared>,
}

impl Background {
    /// Runs a future, which must wait and not compute; a panic ends only this future.
    pub fn spawn(&self, future: BoxFuture) {
        let shared = &self.0;
        shared.ready.push(Arc::new(Task {
            future: Mutex::new(Some(future)),
            shared: shared.clone(),
        }));
        let run = shared.clone();
        let thread = (shared.thread).get_or_start("everfresh-store", move || run.run());
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
        // Release: what was pushed before is seen by the thread that sees this.
        self.0.closed.store(1, Ordering::Release);
        self.0.thread.get().inspect(|thread| thread.unpark());
    }
}

impl Shared {
    fn run(&self) {
        while self.closed.load(Ordering::Acquire) == 0 {
            match self.ready.pop() {
                Some(task) => task.poll(),
                // A push is followed by an unpark, so the thread does not sleep over it.
                None => std::thread::park(),
            }
        }
        // A task refers to the queue and the queue to the task; so nothing may stay in it.
        while self.ready.pop().is_some() {}
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
        shared.ready.push(self);
        shared.thread.get().inspect(|thread| thread.unpark());
    }
}
