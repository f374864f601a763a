//! Where the work of a store runs: on the runtime on which it was made, or on a thread of its own.
//!
//! On the caller's runtime a read switches no threads, and such a switch would be its largest cost
//! after the network. If that runtime ends before the store does, or has no network or no timers, a
//! thread of the store's own takes over. A runtime with one thread is never used, because a caller
//! that blocks its thread would wait for itself.
//!
//! Work that a foreign runtime drops is not lost (P4, P5), because it can be a pending write or the
//! only task that batches reads. It is kept until the store has moved, and continues there. The
//! handle and the kept work change in one step, so work is either kept before the move or finds the
//! new handle after it. No work may depend on the runtime on which it began.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::{Builder, Handle, RuntimeFlavor};
use tokio::sync::{Notify, oneshot};

use crate::sync::future::{BoxFuture, block_on, or};
use crate::sync::{Arc, Mutex, Weak, lock};

pub(super) struct Runtime(Arc<RuntimeState>);

struct RuntimeState {
    /// Makes the future that keeps the connections up, for ever.
    keep_up: Box<dyn Fn() -> BoxFuture + Send + Sync>,
    place: Mutex<RuntimePlace>,
    closed: Notify,
}

enum RuntimePlace {
    /// On a foreign runtime, with the work that this runtime has dropped.
    Guest(Handle, Vec<BoxFuture>),
    /// On a thread of its own.
    Own(Handle),
    /// The system could not start a thread.
    Nowhere,
}

/// Moves the store to its own thread when a foreign runtime drops the task that keeps the
/// connections up.
struct Guest(Weak<RuntimeState>);

/// Work on a foreign runtime.
struct GuestTask {
    /// `None` once it is done and while it is polled, so that work that panicked is not polled
    /// again.
    work: Option<BoxFuture>,
    state: Weak<RuntimeState>,
}

impl Runtime {
    /// Keeps the connections up from now on.
    pub(super) fn start(
        keep_up: impl Fn() -> BoxFuture + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let state = Arc::new(RuntimeState {
            keep_up: Box::new(keep_up),
            place: Mutex::new(RuntimePlace::Nowhere),
            closed: Notify::new(),
        });
        match Handle::try_current() {
            Ok(handle) if handle.runtime_flavor() == RuntimeFlavor::MultiThread => {
                *lock(&state.place) = RuntimePlace::Guest(handle.clone(), Vec::new());
                let guest = Guest(Arc::downgrade(&state));
                let run = state.clone();
                handle.spawn(async move {
                    run.run().await;
                    guest.disarm();
                });
            }
            _ => state.move_out()?,
        }
        Ok(Runtime(state))
    }

    /// Runs work.
    pub(super) fn spawn(&self, work: BoxFuture) {
        // Spawn after the lock is released: a runtime that has ended drops the work, and that can
        // run any code.
        let (handle, is_guest) = match &*lock(&self.0.place) {
            RuntimePlace::Guest(handle, _) => (handle.clone(), true),
            RuntimePlace::Own(handle) => (handle.clone(), false),
            RuntimePlace::Nowhere => return,
        };
        match is_guest {
            true => {
                let task = GuestTask {
                    work: Some(work),
                    state: Arc::downgrade(&self.0),
                };
                handle.spawn(task);
            }
            false => drop(handle.spawn(work)),
        }
    }

    /// Ends the connections.
    pub(super) fn close(&self) {
        self.0.closed.notify_one();
    }
}

impl RuntimeState {
    async fn run(&self) {
        or((self.keep_up)(), self.closed.notified()).await;
    }

    /// Moves to a thread of its own, with the work that was kept.
    fn move_out(self: &Arc<Self>) -> io::Result<()> {
        let state = self.clone();
        let (sender, receiver) = oneshot::channel();
        std::thread::Builder::new()
            .name("everfresh-redis".to_owned())
            .spawn(
                move || match Builder::new_current_thread().enable_all().build() {
                    Ok(runtime) => {
                        let _ = sender.send(Ok(runtime.handle().clone()));
                        runtime.block_on(state.run());
                    }
                    Err(error) => {
                        let _ = sender.send(Err(error));
                    }
                },
            )?;
        let handle = block_on(receiver).map_err(io::Error::other)??;
        for work in self.replace_place(RuntimePlace::Own(handle.clone())) {
            handle.spawn(work);
        }
        Ok(())
    }

    /// Sets the new place, and returns the work that was kept.
    fn replace_place(&self, place: RuntimePlace) -> Vec<BoxFuture> {
        match std::mem::replace(&mut *lock(&self.place), place) {
            RuntimePlace::Guest(_, kept) => kept,
            RuntimePlace::Own(_) | RuntimePlace::Nowhere => Vec::new(),
        }
    }
}

impl Guest {
    /// Does nothing more, because the store has ended and not the runtime.
    fn disarm(mut self) {
        self.0 = Weak::new();
    }
}

impl Drop for Guest {
    /// Finds a store only if the runtime ended before the store.
    fn drop(&mut self) {
        if let Some(state) = self.0.upgrade() {
            // If the system cannot start a thread, the store stays disconnected and its work is
            // dropped.
            if state.move_out().is_err() {
                drop(state.replace_place(RuntimePlace::Nowhere));
            }
        }
    }
}

impl Future for GuestTask {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(mut work) = self.work.take() else {
            return Poll::Ready(());
        };
        let polled = work.as_mut().poll(cx);
        if polled.is_pending() {
            self.work = Some(work);
        }
        polled
    }
}

impl Drop for GuestTask {
    fn drop(&mut self) {
        let (Some(work), Some(state)) = (self.work.take(), self.state.upgrade()) else {
            return;
        };
        let handle = match &mut *lock(&state.place) {
            RuntimePlace::Guest(_, kept) => return kept.push(work),
            RuntimePlace::Own(handle) => handle.clone(),
            RuntimePlace::Nowhere => return,
        };
        handle.spawn(work);
    }
}
