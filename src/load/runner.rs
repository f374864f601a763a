//! Where a loader runs: on a pool, or on an async runtime.

use std::fmt::Debug;

use crate::error::BuildError;
use crate::load::pool_builder::{Place, Pool};
use crate::sync::future::BoxFuture;

const QUEUE: usize = 65_536;

pub(crate) type Spawner = Box<dyn Fn(BoxFuture) + Send + Sync>;

/// The settings of the place where a loader runs.
pub(crate) struct Runner {
    pub(crate) name: String,
    pub(crate) pool: Option<Pool>,
    pub(crate) threads: Option<usize>,
    pub(crate) thread_name: Option<String>,
    pub(crate) queue: Option<usize>,
    pub(crate) spawner: Option<Spawner>,
    pub(crate) keep_late_loads: Option<bool>,
}

impl Runner {
    pub(crate) fn place(self) -> Result<Place, BuildError> {
        if self.spawner.is_some() {
            return Err(BuildError::setting(
                "`spawner` has no effect on `compute`, which runs on threads of a pool; give the \
                 loader with `load`, or leave `spawner` out",
            ));
        }
        if let Some(keep) = self.keep_late_loads {
            return Err(BuildError::setting(format!(
                "`keep_late_loads` is {keep}; it has no effect on `compute`, which always goes on \
                 after its deadline; give the loader with `load`, or leave `keep_late_loads` out"
            )));
        }
        let queue = self.queue.unwrap_or(QUEUE);
        if let Some(pool) = self.pool {
            let given = [
                ("threads", self.threads.map(|threads| threads.to_string())),
                (
                    "thread_name",
                    self.thread_name.map(|name| format!("{name:?}")),
                ),
            ];
            for (setting, value) in given {
                if let Some(value) = value {
                    return Err(BuildError::setting(format!(
                        "`{setting}` is {value}; it makes a pool of the cache's own, but `pool` is \
                         {pool:?}; leave one of them out"
                    )));
                }
            }
            return Ok(Place::of(pool, queue));
        }
        if self.threads.is_none() && self.thread_name.is_none() {
            return Ok(Place::shared(queue));
        }
        let mut private = Pool::builder().name(self.thread_name.unwrap_or(self.name));
        if let Some(threads) = self.threads {
            private = private.threads(threads);
        }
        Ok(Place::of(private.build()?, queue))
    }

    pub(crate) fn spawner(self) -> Result<Spawner, BuildError> {
        let given: [(&str, Option<&dyn Debug>); 4] = [
            ("pool", self.pool.as_ref().map(|pool| pool as _)),
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
