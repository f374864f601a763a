//! Where the work of a store runs: on the runtime of whoever made it, or on a thread of its own.
//!
//! On its maker's runtime a read changes no threads, which is most of what it would cost beside the network. If that
//! runtime ends before the store does, or turns out to have no network or no timers, a thread of the store's own takes over. A runtime of one thread is
//! never used: a caller that blocks it would wait for itself.

use std::io;

use futures_lite::future::{block_on, or};
use tokio::runtime::{Builder, Handle, RuntimeFlavor};
use tokio::sync::{Notify, oneshot};
use tokio::task::yield_now;

use crate::loader::BoxFuture;
use crate::sync::{Arc, Mutex, Weak, lock};

pub(super) struct Runtime(Arc<Shared>);

struct Shared {
    /// Makes the future that keeps the connections up, for ever.
    keep_up: Box<dyn Fn() -> BoxFuture + Send + Sync>,
    /// Where work is spawned; `None` if there was no thread left.
    handle: Mutex<Option<Handle>>,
    closed: Notify,
}

/// On a runtime that is not ours.
struct Guest(Weak<Shared>);

impl Runtime {
    /// Keeps the connections up from now on.
    pub(super) fn start(
        keep_up: impl Fn() -> BoxFuture + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            keep_up: Box::new(keep_up),
            handle: Mutex::new(None),
            closed: Notify::new(),
        });
        match Handle::try_current() {
            Ok(handle) if handle.runtime_flavor() == RuntimeFlavor::MultiThread => {
                *lock(&shared.handle) = Some(handle.clone());
                let guest = Guest(Arc::downgrade(&shared));
                let run = shared.clone();
                handle.spawn(async move {
                    run.run().await;
                    guest.leave();
                });
            }
            _ => shared.move_out()?,
        }
        Ok(Runtime(shared))
    }

    /// Runs work, after all that is ready now: what is brought at the same time can then be done together.
    pub(super) fn spawn(&self, work: BoxFuture) {
        // Not under the lock: a runtime that has ended drops the work, and that may do anything.
        let handle = lock(&self.0.handle).clone();
        if let Some(handle) = handle {
            handle.spawn(async move {
                yield_now().await;
                work.await;
            });
        }
    }

    /// Ends the connections.
    pub(super) fn close(&self) {
        self.0.closed.notify_one();
    }
}

impl Shared {
    async fn run(&self) {
        or((self.keep_up)(), self.closed.notified()).await;
    }

    /// To a thread of its own.
    fn move_out(self: &Arc<Self>) -> io::Result<()> {
        let shared = self.clone();
        let (tell, told) = oneshot::channel();
        std::thread::Builder::new()
            .name("everfresh-redis".to_owned())
            .spawn(
                move || match Builder::new_current_thread().enable_all().build() {
                    Ok(runtime) => {
                        let _ = tell.send(Ok(runtime.handle().clone()));
                        runtime.block_on(shared.run());
                    }
                    Err(error) => {
                        let _ = tell.send(Err(error));
                    }
                },
            )?;
        let handle = block_on(told).map_err(io::Error::other)??;
        *lock(&self.handle) = Some(handle);
        Ok(())
    }
}

impl Guest {
    /// The store has ended, not the runtime.
    fn leave(mut self) {
        self.0 = Weak::new();
    }
}

impl Drop for Guest {
    /// The runtime has ended, not the store.
    fn drop(&mut self) {
        if let Some(shared) = self.0.upgrade() {
            // Without a thread left the store stays as it is when its connections are lost.
            if shared.move_out().is_err() {
                lock(&shared.handle).take();
            }
        }
    }
}
