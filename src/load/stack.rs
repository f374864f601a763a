//! The threads that run computations, and the room on their stacks.
//!
//! A computation that waits for another load runs it on its own stack, if it is still queued: all
//! workers may be waiting for this very computation. The stack of a worker has room for that. The
//! stack of a caller that runs its load may be much smaller, so a long chain of loads goes on in a
//! thread of its own.

use std::cell::Cell;
use std::thread;

use crate::panics::discard;

/// Enough for loads that read the cache, one within another, up to the default depth. The system
/// takes memory for a stack only as far as it is used.
pub(crate) const STACK_SIZE: usize = 8 << 20;

/// The loads that run one within another on the stack of a caller. It leaves 128 KiB for each on
/// the usual stack of 2 MiB.
const ON_CALLER: u8 = 16;

/// What a thread computes.
#[derive(Clone, Copy)]
enum Computes {
    Nothing,
    /// So many loads of its callers, one within another.
    OnCaller(u8),
    /// It is a worker.
    Always,
}

thread_local! {
    static COMPUTES: Cell<Computes> = const { Cell::new(Computes::Nothing) };
}

fn exchange(computes: Computes) -> Computes {
    let exchanged = COMPUTES.try_with(|cell| cell.replace(computes));
    exchanged.unwrap_or(Computes::Nothing)
}

fn computes() -> Computes {
    COMPUTES.try_with(Cell::get).unwrap_or(Computes::Nothing)
}

/// Whether this thread is a worker or runs a load of its caller, and so must not wait for a queued
/// job.
pub(crate) fn on_worker() -> bool {
    !matches!(computes(), Computes::Nothing)
}

/// Makes this thread a worker.
pub(crate) fn become_worker() {
    exchange(Computes::Always);
}

/// Makes the threads of a model workers. They share the thread-locals of one real thread, so either
/// all of them are workers or none.
#[cfg(all(loom, feature = "loom"))]
pub fn all_on_worker() {
    become_worker();
}

/// Runs a computation for which this thread waits.
pub(crate) fn run_here(compute: &mut (dyn FnMut() + Send)) {
    let loads = match computes() {
        Computes::Nothing => 0,
        Computes::OnCaller(loads) => loads,
        Computes::Always => return compute(),
    };
    if loads < ON_CALLER {
        let _outer = Outer(exchange(Computes::OnCaller(loads + 1)));
        return compute();
    }
    let on_a_larger_stack = || {
        become_worker();
        compute();
    };
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .name("everfresh-deep".to_owned())
            .stack_size(STACK_SIZE);
        // Without a thread the job is dropped, and its callers get an error. A panic of a user's
        // `Drop` ends with the thread.
        if let Ok(running) = thread.spawn_scoped(scope, on_a_larger_stack) {
            let _ = running.join().map_err(discard);
        }
    });
}

/// Restores what the thread computed before.
struct Outer(Computes);

impl Drop for Outer {
    fn drop(&mut self) {
        exchange(self.0);
    }
}
