//! Where a loader runs: on a pool, or on an async runtime.

use std::fmt::Debug;
use std::num::NonZero;

use crate::error::BuildError;
use crate::load::pool::Pool;
use crate::sync::Arc;
use crate::sync::future::BoxFuture;

/// Each thread of the pool occupies a core, and few machines have more cores.
const MAX_THREADS: usize = 1_024;

const QUEUE: usize = 65_536;

pub(crate) type Spawner = Box<dyn Fn(BoxFuture) + Send + Sync>;

/// The settings of the place where a loader runs.
pub(crate) struct Runner {
    pub(crate) name: String,
    pub(crate) threads: Option<usize>,
    pub(crate) thread_name: Option<String>,
    pub(crate) queue: Option<usize>,
    pub(crate) spawner: Option<Spawner>,
    pub(crate) keep_late_loads: Option<bool>,
}

impl Runner {
    pub(crate) fn pool(self) -> Result<Arc<Pool>, BuildError> {
        if self.spawner.is_some() {
            return Err(BuildError::setting(
                "`spawner` has no effect on `compute`, which runs on threads of its own; give the \
                 loader with `load`, or leave `spawner` out",
            ));
        }
        if let Some(keep) = self.keep_late_loads {
            return Err(BuildError::setting(format!(
                "`keep_late_loads` is {keep}; it has no effect on `compute`, which always goes on \
                 after its deadline; give the loader with `load`, or leave `keep_late_loads` out"
            )));
        }
        let cores = || std::thread::available_parallelism().map_or(1, NonZero::get);
        let threads = self.threads.unwrap_or_else(|| cores().min(max_threads()));
        let name = self.thread_name.unwrap_or(self.name);
        Pool::new(threads, self.queue.unwrap_or(QUEUE), &name).map(Arc::new)
    }

    pub(crate) fn spawner(self) -> Result<Spawner, BuildError> {
        let given: [(&str, Option<&dyn Debug>); 3] = [
            ("threads", self.threads.as_ref().map(|threads| threads as _)),
            ("queue", self.queue.as_ref().map(|jobs| jobs as _)),
            (
                "thread_name",
                self.thread_name.as_ref().map(|name| name as _),
            ),
        ];
        for (setting, value) in given {
            if let Some(value) = value {
                return Err(BuildError::setting(format!(
                    "`{setting}` is {value:?}; it has no effect on `load`, which runs on a \
                     runtime; give the loader with `compute`, or leave `{setting}` out"
                )));
            }
        }
        match self.spawner {
            Some(spawner) => Ok(spawner),
            None => current_runtime(),
        }
    }
}

/// The largest number of threads of a pool; smaller on 32-bit systems.
pub(crate) fn max_threads() -> usize {
    MAX_THREADS.min(rayon::max_num_threads())
}

#[cfg(feature = "tokio")]
fn current_runtime() -> Result<Spawner, BuildError> {
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => Ok(Box::new(move |future| drop(runtime.spawn(future)))),
        Err(_) => Err(BuildError::setting(
            "an async loader needs a runtime: call `build` inside one, or give a `spawner`",
        )),
    }
}

#[cfg(not(feature = "tokio"))]
fn current_runtime() -> Result<Spawner, BuildError> {
    Err(BuildError::setting(
        "an async loader needs a runtime: give a `spawner`, or turn on the feature `tokio`",
    ))
}
