//! Where the loads of a cache run, and on which threads a caller must not wait for them.
//!
//! A load of tokio runs on the runtime that is current where the load begins, because the runtime
//! in which the cache was built may be gone: a test has one of its own, and a `static` cache
//! outlives it. Only without a current runtime does the load run on that of `build`.
//!
//! A read may begin its cold load itself, where it waits: the first poll of a future in the task of
//! the caller, or a whole computation on the thread of the caller. A refresh never does.
//!
//! A thread that drives a runtime cannot wait for a load on the same runtime. If the runtime has
//! many threads, another one does the work of this thread meanwhile. If it has one, the wait is
//! refused at once.

use crate::load::admission::RunsOn;
use crate::load::runner::Spawner;
use crate::protocol::wait_graph::WaitNode;
use crate::sync::future::BoxFuture;
use crate::sync::runtime::{Runtime, Thread, in_place, this_thread};

/// How the caller of a cold load waits for it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Caller {
    /// It blocks this thread.
    Blocks,
    /// Its task awaits the load.
    Awaits,
    /// It begins other loads before it waits, or has a value.
    GoesOn,
}

/// Where the loads of a cache run.
pub(crate) enum Home {
    /// On a pool with so many threads and stacks of this size. No other thread keeps them from
    /// running.
    Pool {
        threads: usize,
        stack_size: usize,
        /// Whether a caller that blocks its thread runs its cold load there.
        run_on_caller: bool,
    },
    /// Where a function of the user puts them.
    Spawner(Spawner),
    /// On the runtime that is current where a load begins, else on this one of `build`.
    Runtime(Option<Runtime>),
}

impl Home {
    /// Where loads run, as far as it matters for how many run at once.
    pub(crate) fn runs_on(&self) -> RunsOn {
        match self {
            Home::Pool {
                threads,
                run_on_caller,
                ..
            } => RunsOn::Pool {
                threads: *threads,
                or_caller: *run_on_caller,
            },
            Home::Spawner(_) | Home::Runtime(_) => RunsOn::Runtime,
        }
    }

    /// The runtime of a load that begins on this thread, if it needs one and there is one; and
    /// whether it begins here, where its caller waits for it.
    pub(crate) fn of_load(&self, caller: Caller) -> (Option<Runtime>, bool) {
        match self {
            Home::Pool { .. } => (None, self.runs_for(caller)),
            Home::Spawner(_) => (None, false),
            Home::Runtime(built) => match Runtime::current() {
                Some(current) => (Some(current), is_task_outside_loads(caller)),
                None => (built.clone(), false),
            },
        }
    }

    /// The same for a load that runs the function of its caller, which waits or computes.
    pub(crate) fn of_call(&self, waits: bool, caller: Caller) -> (Option<Runtime>, bool) {
        match (self, waits) {
            (Home::Pool { .. }, true) => match Runtime::current() {
                Some(current) => (Some(current), is_task_outside_loads(caller)),
                None => (None, false),
            },
            (Home::Spawner(_) | Home::Runtime(_), false) => (None, false),
            _ => self.of_load(caller),
        }
    }

    /// Whether this thread runs the whole cold load of this caller, if it need not wait.
    pub(crate) fn runs_for(&self, caller: Caller) -> bool {
        let runs = matches!(
            self,
            Home::Pool {
                run_on_caller: true,
                ..
            }
        );
        runs && caller == Caller::Blocks
    }

    /// Whether a load with this runtime has a place to run.
    pub(crate) fn can_spawn(&self, runtime: Option<&Runtime>) -> bool {
        matches!(self, Home::Spawner(_)) || runtime.is_some()
    }

    /// Runs a load, which is dropped if its runtime has ended.
    pub(crate) fn spawn(&self, runtime: Option<Runtime>, load: BoxFuture) {
        match (self, runtime) {
            (Home::Spawner(spawn), _) => spawn(load),
            (_, Some(runtime)) => runtime.spawn(load),
            (_, None) => {}
        }
    }

    /// Runs a function that waits for a load; does not run it if the load would wait for this
    /// thread. `stored` says that a store takes part in the load, `by_call` that the caller brings
    /// a function that waits.
    pub(crate) fn wait(&self, stored: bool, by_call: bool, wait: &mut dyn FnMut()) {
        let on_pool = matches!(self, Home::Pool { .. });
        let is_free = on_pool && !stored && !by_call;
        match if is_free { Thread::Free } else { this_thread() } {
            Thread::OneOfMany => in_place(wait),
            // A store never runs on such a runtime, and where a function of the user puts a load is
            // not known.
            Thread::Only if matches!(self, Home::Runtime(_)) || (on_pool && by_call) => {}
            Thread::Only | Thread::Free => wait(),
        }
    }
}

/// Whether the first poll of a load may be made in the task of its caller: not inside another load,
/// because a chain of loads would grow the stack of a thread of the runtime.
fn is_task_outside_loads(caller: Caller) -> bool {
    caller == Caller::Awaits && WaitNode::current_depth() == 0
}
