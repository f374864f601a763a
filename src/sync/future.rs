//! Waiting for a future on a thread, and for the first of two.
//!
//! [`block_on`] uses neither a thread-local nor `std::thread::park`. Both fail in a destructor of a
//! thread-local, where a caller may read the cache too, and the token of `park` belongs to the
//! user's own code.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Wake, Waker};

use crate::sync::plain::{Condvar, Mutex, lock};
use crate::sync::{Arc, PoisonError};

/// A future that is handed to a runtime.
pub type BoxFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

#[derive(Default)]
struct Parker {
    woken: Mutex<bool>,
    bell: Condvar,
}

impl Parker {
    fn park(&self) {
        let mut woken = lock(&self.woken);
        while !std::mem::take(&mut *woken) {
            woken = self
                .bell
                .wait(woken)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Wake for Parker {
    fn wake(self: Arc<Self>) {
        *lock(&self.woken) = true;
        self.bell.notify_one();
    }
}

/// Blocks this thread until the future is ready.
#[cfg(any(test, feature = "test-util", feature = "redis"))]
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    match block_on_where(future, |wait| wait()) {
        Some(output) => output,
        None => unreachable!("it waits for the output"),
    }
}

/// Blocks this thread until the future is ready, inside of `wait`; `None` if that does not wait.
pub(crate) fn block_on_where<T>(
    future: impl Future<Output = T>,
    wait: impl Fn(&mut dyn FnMut()),
) -> Option<T> {
    block_on_pinned(pin!(future), &wait)
}

/// Behind a vtable: a future that is also awaited somewhere is then compiled once, not twice.
#[inline(never)]
fn block_on_pinned<T>(
    mut future: Pin<&mut dyn Future<Output = T>>,
    wait: &dyn Fn(&mut dyn FnMut()),
) -> Option<T> {
    let parker = Arc::new(Parker::default());
    let waker = Waker::from(parker.clone());
    let mut context = Context::from_waker(&waker);
    let mut polled = future.as_mut().poll(&mut context);
    if polled.is_pending() {
        wait(&mut || {
            while polled.is_pending() {
                parker.park();
                polled = future.as_mut().poll(&mut context);
            }
        });
    }
    match polled {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

/// Polls a future that threads and tasks wait for: its code is then compiled once, not for each of
/// them.
#[inline(never)]
pub(crate) fn poll_out_of_line<F: Future>(
    future: Pin<&mut F>,
    context: &mut Context<'_>,
) -> Poll<F::Output> {
    future.poll(context)
}

/// Waits for all futures at the same time; usually there is only one.
pub(crate) async fn all<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut waiting: Vec<_> = futures.map(|future| (Box::pin(future), None)).collect();
    poll_fn(|context| {
        let mut done = true;
        for (future, output) in &mut waiting {
            if output.is_none() {
                match future.as_mut().poll(context) {
                    Poll::Ready(ready) => *output = Some(ready),
                    Poll::Pending => done = false,
                }
            }
        }
        match done {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    })
    .await;
    waiting
        .into_iter()
        .filter_map(|(_, output)| output)
        .collect()
}

/// The output of the future that is ready first, or of `first` if both are.
pub(crate) async fn or<T>(first: impl Future<Output = T>, second: impl Future<Output = T>) -> T {
    let (mut first, mut second) = (pin!(first), pin!(second));
    poll_fn(|cx| match first.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(output),
        Poll::Pending => second.as_mut().poll(cx),
    })
    .await
}

/// Lets the other tasks that are ready on this thread run first.
pub(crate) async fn yield_now() {
    let mut yielded = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
