//! The threads that run computations, and the room on their stacks.
//!
//! A computation that waits for another load runs it on its own stack, if it is still queued: all
//! workers may be waiting for this very computation. The stack of a worker has room for that, if
//! all loads of the chain belong to caches of its pool. The stack of a caller that runs its load,
//! or of another pool, may be much smaller, so a long chain of loads goes on in a thread of its
//! own.

use std::cell::Cell;
use std::thread;

use crate::panics::discard;

/// Enough for loads that read the cache, one within another, up to the default depth. The system
/// takes memory for a stack only as far as it is used.
pub(crate) const STACK_SIZE: usize = 8 << 20;

/// The part of a stack that each of the loads on it may use.
pub(crate) const STACK_PER_LOAD: usize = 64 << 10;

/// The loads that run one within another on the stack of a caller. It leaves 128 KiB for each on
/// the usual stack of 2 MiB.
const ON_CALLER: usize = 16;

thread_local! {
    /// How many further loads have room on the stack; `None` while this thread computes nothing.
    static ROOM: Cell<Option<usize>> = const { Cell::new(None) };
}

fn exchange(room: Option<usize>) -> Option<usize> {
    ROOM.try_with(|cell| cell.replace(room)).ok().flatten()
}

fn room() -> Option<usize> {
    ROOM.try_with(Cell::get).ok().flatten()
}

/// Whether this thread is a worker or runs a load of its caller, and so must not wait for a queued
/// job.
pub(crate) fn on_worker() -> bool {
    room().is_some()
}

/// Makes this thread, whose stack has this size, a worker.
pub(crate) fn become_worker(stack_size: usize) {
    // One of the loads is the lowest on the stack.
    exchange(Some((stack_size / STACK_PER_LOAD).saturating_sub(1)));
}

/// Makes the threads of a model workers. They share the thread-locals of one real thread, so either
/// all of them are workers or none.
#[cfg(all(loom, feature = "loom"))]
pub fn all_on_worker() {
    become_worker(usize::MAX);
}

/// Runs a computation for which this thread waits.
pub(crate) fn run_here(compute: &mut (dyn FnMut() + Send)) {
    if let Some(left) = room().unwrap_or(ON_CALLER).checked_sub(1) {
        let _outer = Outer(exchange(Some(left)));
        return compute();
    }
    let on_an_empty_stack = || {
        become_worker(STACK_SIZE);
        compute();
    };
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .name("everfresh-deep".to_owned())
            .stack_size(STACK_SIZE);
        // Without a thread the job is dropped, and its callers get an error. A panic of a user's
        // `Drop` ends with the thread.
        if let Ok(running) = thread.spawn_scoped(scope, on_an_empty_stack) {
            let _ = running.join().map_err(discard);
        }
    });
}

/// Restores the room that the thread had before.
struct Outer(Option<usize>);

impl Drop for Outer {
    fn drop(&mut self) {
        exchange(self.0);
    }
}
