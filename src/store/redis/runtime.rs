//! Where the work of a store runs: on the runtime of whoever made it, or on a thread of its own.
//!
//! On its maker's runtime a read changes no threads, which is most of what it would cost beside the network. If that
//! runtime ends before the store does, or turns out to have no network or no timers, a thread of the store's own takes over. A runtime of one thread is
//! never used: a caller that blocks it would wait for itself.
//!
//! Work that a runtime of somebody else drops is not lost (P4, P5: it may be a write to tell, or the one task that gathers): it is kept until the store has moved,
//! and goes on there. The connections, the kept work and the handle change in one step, so work is either kept before it or finds the new
//! handle after it. None of the work may depend on the runtime it began on.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::{Builder, Handle, RuntimeFlavor};
use tokio::sync::{Notify, oneshot};

use crate::sync::future::{BoxFuture, block_on, or};
use crate::sync::{Arc, Mutex, Weak, lock};

pub(super) struct Runtime(Arc<Shared>);

struct Shared {
    /// Makes the future that keeps the connections up, for ever.
    keep_up: Box<dyn Fn() -> BoxFuture + Send + Sync>,
    place: Mutex<Place>,
    closed: Notify,
}

enum Place {
    /// On a runtime that is not ours, with the work that it has dropped.
    Guest(Handle, Vec<BoxFuture>),
    /// On a thread of its own.
    Own(Handle),
    /// There was no thread left.
    Nowhere,
}

/// Keeps the connections up on a runtime that is not ours.
struct Guest(Weak<Shared>);

/// Work on a runtime that is not ours.
struct Visit {
    /// `None` when it is done, or while it is polled: work that panicked is not polled again.
    work: Option<BoxFuture>,
    shared: Weak<Shared>,
}

impl Runtime {
    /// Keeps the connections up from now on.
    pub(super) fn start(
        keep_up: impl Fn() -> BoxFuture + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            keep_up: Box::new(keep_up),
            place: Mutex::new(Place::Nowhere),
            closed: Notify::new(),
        });
        match Handle::try_current() {
            Ok(handle) if handle.runtime_flavor() == RuntimeFlavor::MultiThread => {
                *lock(&shared.place) = Place::Guest(handle.clone(), Vec::new());
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

    /// Runs work.
    pub(super) fn spawn(&self, work: BoxFuture) {
        // Not under the lock: a runtime that has ended drops the work, and that may do anything.
        let (handle, visits) = match &*lock(&self.0.place) {
            Place::Guest(handle, _) => (handle.clone(), true),
            Place::Own(handle) => (handle.clone(), false),
            Place::Nowhere => return,
        };
        match visits {
            true => {
                let visit = Visit {
                    work: Some(work),
                    shared: Arc::downgrade(&self.0),
                };
                handle.spawn(visit);
            }
            false => drop(handle.spawn(work)),
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

    /// To a thread of its own, with the work that was kept.
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
        for work in self.settle(Place::Own(handle.clone())) {
            handle.spawn(work);
        }
        Ok(())
    }

    /// From here on it is there; returns what was kept.
    fn settle(&self, place: Place) -> Vec<BoxFuture> {
        match std::mem::replace(&mut *lock(&self.place), place) {
            Place::Guest(_, kept) => kept,
            Place::Own(_) | Place::Nowhere => Vec::new(),
        }
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
            // Without a thread left the store stays as it is when its connections are lost, and its work is dropped.
            if shared.move_out().is_err() {
                drop(shared.settle(Place::Nowhere));
            }
        }
    }
}

impl Future for Visit {
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

impl Drop for Visit {
    fn drop(&mut self) {
        let (Some(work), Some(shared)) = (self.work.take(), self.shared.upgrade()) else {
            return;
        };
        let handle = match &mut *lock(&shared.place) {
            Place::Guest(_, kept) => return kept.push(work),
            Place::Own(handle) => handle.clone(),
            Place::Nowhere => return,
        };
        handle.spawn(work);
    }
}
