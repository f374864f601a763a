//! The runtimes of tokio, as the crate uses them; without the feature `tokio` there is none.

use crate::sync::future::block_on_where;

#[cfg(feature = "tokio")]
pub(crate) use self::with_tokio::{Runtime, this_thread};
#[cfg(not(feature = "tokio"))]
pub(crate) use self::without_tokio::{Runtime, this_thread};

/// The part that a thread has in a runtime.
#[cfg_attr(not(feature = "tokio"), expect(dead_code))]
pub(crate) enum Thread {
    /// None: it may wait for work on any runtime.
    Free,
    /// It is one of the threads of a runtime with many.
    OneOfMany,
    /// It is the only thread of its runtime.
    Only,
}

/// Blocks this thread until a future is ready that needs no runtime with one thread, such as work
/// of a store.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let done = block_on_where(future, |wait| match this_thread() {
        Thread::OneOfMany => in_place(wait),
        Thread::Only | Thread::Free => wait(),
    });
    match done {
        Some(output) => output,
        None => unreachable!("every branch above waits"),
    }
}

/// Runs a function that blocks a thread of a runtime with many, while another one does the work of
/// this thread.
pub(crate) fn in_place(wait: &mut dyn FnMut()) {
    #[cfg(all(feature = "tokio", not(target_family = "wasm")))]
    tokio::task::block_in_place(wait);
    #[cfg(not(all(feature = "tokio", not(target_family = "wasm"))))]
    wait();
}

#[cfg(feature = "tokio")]
mod with_tokio {
    use std::pin::pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::{Context, Wake, Waker};

    use tokio::runtime::{Handle, RuntimeFlavor};

    use super::Thread;
    use crate::sync::future::BoxFuture;

    /// A runtime of tokio.
    #[derive(Clone)]
    pub(crate) struct Runtime(Handle);

    impl Runtime {
        pub(crate) fn current() -> Option<Self> {
            Handle::try_current().ok().map(Runtime)
        }

        pub(crate) fn spawn(self, work: BoxFuture) {
            drop(self.0.spawn(work));
        }
    }

    /// The part that this thread has in the current runtime.
    ///
    /// A thread may know a runtime without driving it: a thread for blocking work does, and one
    /// that has entered the runtime by a guard. tokio tells the two apart where a task yields. A
    /// thread that drives a runtime keeps the waker until it has polled other tasks; any other
    /// thread wakes it at once.
    pub(crate) fn this_thread() -> Thread {
        let Ok(runtime) = Handle::try_current() else {
            return Thread::Free;
        };
        let woken = Arc::new(Woken(AtomicBool::new(false)));
        let waker = Waker::from(woken.clone());
        let yielding = pin!(tokio::task::yield_now());
        let _ = yielding.poll(&mut Context::from_waker(&waker));
        if woken.0.load(Ordering::Relaxed) {
            return Thread::Free;
        }
        match runtime.runtime_flavor() {
            RuntimeFlavor::MultiThread => Thread::OneOfMany,
            _ => Thread::Only,
        }
    }

    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}

#[cfg(not(feature = "tokio"))]
mod without_tokio {
    use super::Thread;
    use crate::sync::future::BoxFuture;

    #[derive(Clone)]
    pub(crate) enum Runtime {}

    impl Runtime {
        pub(crate) fn current() -> Option<Self> {
            None
        }

        pub(crate) fn spawn(self, _: BoxFuture) {
            match self {}
        }
    }

    pub(crate) fn this_thread() -> Thread {
        Thread::Free
    }
}
