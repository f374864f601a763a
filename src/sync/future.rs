//! Waiting for a future on a thread.
//!
//! It uses neither a thread-local nor `std::thread::park`. Both fail in a destructor of a
//! thread-local, where a caller may read the cache too, and the token of `park` belongs to the
//! user's own code.

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
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let parker = Arc::new(Parker::default());
    let waker = Waker::from(parker.clone());
    let mut context = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        parker.park();
    }
}
