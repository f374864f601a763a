//! Where the loads of a cache run, and on which threads a caller must not wait for them.
//!
//! A load of tokio runs on the runtime that is current where the load begins, because the runtime
//! in which the cache was built may be gone: a test has one of its own, and a `static` cache
//! outlives it. Only without a current runtime does the load run on that of `build`.
//!
//! A thread that drives a runtime cannot wait for a load on the same runtime. If the runtime has
//! many threads, another one does the work of this thread meanwhile. If it has one, the wait is
//! refused at once.

use crate::load::admission::RunsOn;
use crate::load::runner::Spawner;
use crate::sync::future::BoxFuture;
use crate::sync::runtime::{Runtime, Thread, in_place, this_thread};

/// Where the loads of a cache run.
pub(crate) enum Home {
    /// On a pool with so many threads. No other thread keeps them from running.
    Pool(usize),
    /// Where a function of the user puts them.
    Spawner(Spawner),
    /// On the runtime that is current where a load begins, else on this one of `build`.
    Runtime(Option<Runtime>),
}

impl Home {
    /// Where loads run, as far as it matters for how many run at once.
    pub(crate) fn runs_on(&self) -> RunsOn {
        match self {
            Home::Pool(threads) => RunsOn::Pool(*threads),
            Home::Spawner(_) | Home::Runtime(_) => RunsOn::Runtime,
        }
    }

    /// The runtime of a load that begins on this thread, if it needs one and there is one.
    pub(crate) fn runtime(&self) -> Option<Runtime> {
        match self {
            Home::Pool(_) | Home::Spawner(_) => None,
            Home::Runtime(built) => Runtime::current().or_else(|| built.clone()),
        }
    }

    /// Whether a load with this runtime has a place to run.
    pub(crate) fn can_spawn(&self, runtime: Option<&Runtime>) -> bool {
        !matches!(self, Home::Runtime(_)) || runtime.is_some()
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
    /// thread. `stored` says that a store takes part in the load.
    pub(crate) fn wait(&self, stored: bool, wait: &mut dyn FnMut()) {
        let on_pool = matches!(self, Home::Pool(_)) && !stored;
        match if on_pool { Thread::Free } else { this_thread() } {
            Thread::OneOfMany => in_place(wait),
            // A store never runs on such a runtime, and where a function of the user puts a load is
            // not known.
            Thread::Only if matches!(self, Home::Runtime(_)) => {}
            Thread::Only | Thread::Free => wait(),
        }
    }
}
