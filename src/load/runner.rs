//! Where a loader runs: on a pool, or on an async runtime.

use std::fmt::Debug;
use std::time::Duration;

use crate::error::BuildError;
use crate::load::pool_builder::{Place, Pool};
use crate::load::runtime::Home;
use crate::sync::future::BoxFuture;
use crate::sync::runtime::Runtime;

pub(crate) type Spawner = Box<dyn Fn(BoxFuture) + Send + Sync>;

/// The settings of the place where a loader runs.
pub(crate) struct Runner {
    pub(crate) name: String,
    pub(crate) pool: Option<Pool>,
    pub(crate) threads: Option<usize>,
    pub(crate) thread_name: Option<String>,
    pub(crate) spawner: Option<Spawner>,
    pub(crate) keep_late_loads: Option<bool>,
    pub(crate) run_on_caller: Option<bool>,
    pub(crate) batch: Option<BatchSettings>,
}

/// When the batches of a loader that takes many keys leave.
#[derive(Clone, Copy)]
pub(crate) struct BatchSettings {
    pub(crate) max_keys: usize,
    pub(crate) longest_wait: Duration,
}

/// Without `batch`.
const BATCH: BatchSettings = BatchSettings {
    max_keys: 100,
    longest_wait: Duration::from_millis(1),
};

/// The most keys of a batch.
const MOST_KEYS: usize = 1 << 16;

impl BatchSettings {
    pub(crate) fn check(self, load_timeout: Duration) -> Result<(), BuildError> {
        let BatchSettings {
            max_keys,
            longest_wait,
        } = self;
        if !(1..=MOST_KEYS).contains(&max_keys) {
            let rule = "must have 1 to 65 536 keys";
            return Err(BuildError::value("batch", &max_keys, rule));
        }
        if longest_wait.is_zero() {
            let rule = "must have a longest wait above zero";
            return Err(BuildError::value("batch", &longest_wait, rule));
        }
        if longest_wait >= load_timeout {
            let rule = format!(
                "must have a longest wait below `load_timeout`, {load_timeout:?}, or its keys may \
                 time out before they are asked for"
            );
            return Err(BuildError::value("batch", &longest_wait, &rule));
        }
        Ok(())
    }
}

impl Runner {
    /// For a loader of many keys: how they become batches.
    pub(crate) fn batches(&mut self) -> Result<BatchSettings, BuildError> {
        match self.run_on_caller {
            Some(run) => Err(BuildError::setting(format!(
                "`run_on_caller` is {run}; it has no effect on `compute_many`, whose batches are \
                 made for many callers; give the loader with `compute`, or leave `run_on_caller` \
                 out"
            ))),
            None => Ok(self.batch.take().unwrap_or(BATCH)),
        }
    }

    /// `batch` has no effect on a loader of one key.
    fn has_no_batch(&self) -> Result<(), BuildError> {
        match self.batch {
            Some(BatchSettings { max_keys, .. }) => Err(BuildError::setting(format!(
                "`batch` is {max_keys} keys; it has no effect on a loader of one key; give the \
                 loader with `load_many` or `compute_many`, or leave `batch` out"
            ))),
            None => Ok(()),
        }
    }

    pub(crate) fn place(self) -> Result<Place, BuildError> {
        self.has_no_batch()?;
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
            return Ok(Place::of(pool));
        }
        if self.threads.is_none() && self.thread_name.is_none() {
            return Ok(Place::shared());
        }
        let mut private = Pool::builder().name(self.thread_name.unwrap_or(self.name));
        if let Some(threads) = self.threads {
            private = private.threads(threads);
        }
        Ok(Place::of(private.build()?))
    }

    /// The places of functions that compute and of functions that wait.
    pub(crate) fn both(mut self) -> Result<(Place, Home), BuildError> {
        let (spawner, run_on_caller) = (self.spawner.take(), self.run_on_caller.unwrap_or(false));
        // A setting of functions that wait.
        self.keep_late_loads = None;
        let pool = self.place()?;
        let home = match spawner {
            Some(spawner) => Home::Spawner(spawner),
            None => pool.home(run_on_caller),
        };
        Ok((pool, home))
    }

    pub(crate) fn home(self) -> Result<Home, BuildError> {
        self.has_no_batch()?;
        let given: [(&str, Option<&dyn Debug>); 4] = [
            ("pool", self.pool.as_ref().map(|pool| pool as _)),
            ("threads", self.threads.as_ref().map(|threads| threads as _)),
            (
                "thread_name",
                self.thread_name.as_ref().map(|name| name as _),
            ),
            (
                "run_on_caller",
                self.run_on_caller.as_ref().map(|run| run as _),
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
            Some(spawner) => Ok(Home::Spawner(spawner)),
            None if cfg!(feature = "tokio") => Ok(Home::Runtime(Runtime::current())),
            None => Err(BuildError::setting(
                "an async loader needs a runtime: give a `spawner`, or turn on the feature `tokio`",
            )),
        }
    }
}
