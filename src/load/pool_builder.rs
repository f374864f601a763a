//! The pools on which `compute` runs: one for all caches of the process, or pools that the program
//! makes.

use std::fmt;
use std::num::NonZero;

use crate::error::{BuildError, grouped};
use crate::load::runtime::Home;
use crate::load::stack::{STACK_PER_LOAD, STACK_SIZE};
use crate::load::workers::{Threading, Workers};
use crate::sync::plain::{Mutex, lock};
use crate::sync::{Arc, OnceLock};

/// Each thread of a pool occupies a core, and few machines have more cores.
const MAX_THREADS: usize = 1_024;

/// Threads on which `compute` runs, for the caches that are built with this handle.
///
/// Without one, all caches of a process share a pool with a thread for each core, which starts with
/// the first load. A pool of its own bounds how many loads of some caches run at once, names their
/// threads, or gives them larger stacks. A clone is another handle to the same pool. Its threads
/// end when the last handle and the last cache with it are dropped and their loads have ended.
///
/// The threads are a `rayon` pool: `rayon::join` and parallel iterators in a loader run on them. A
/// worker that waits for parallel parts of its load runs parts of other loads meanwhile, but starts
/// no load. A worker that waits for another load of a cache runs that load if it is still queued,
/// and blocks otherwise.
///
/// # Example
///
/// ```
/// use everfresh::{Cache, Pool};
///
/// let models = Pool::builder().threads(2).name("models").build()?;
/// let builder = || Cache::<u64, u64>::builder().pool(&models);
/// let squares = builder().compute(|n: &u64| n * n).build()?;
/// let cubes = builder().compute(|n: &u64| n * n * n).build()?;
/// assert_eq!(*squares.get_blocking(&3)? + *cubes.get_blocking(&3)?, 36);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Pool(Arc<Workers>);

impl Pool {
    /// Starts to configure a pool: a thread for each core, stacks of 8 MiB.
    pub fn builder() -> PoolBuilder {
        PoolBuilder {
            threads: None,
            stack_size: STACK_SIZE,
            name: "everfresh".to_owned(),
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Configures a [`Pool`]; made by [`Pool::builder`].
#[derive(Clone, Debug)]
#[must_use]
pub struct PoolBuilder {
    threads: Option<usize>,
    stack_size: usize,
    name: String,
}

impl PoolBuilder {
    /// How many threads there are, and so how many loads run at once, 1 to 1 024. Default: one for
    /// each core.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = Some(threads);
        self
    }

    /// The size of each thread's stack in bytes, at least 65 536. Default: 8 MiB.
    ///
    /// A load that reads the cache may run another load on its stack, up to
    /// [`max_depth`](crate::Builder::max_depth) of them. The default leaves 64 KiB for each. With a
    /// smaller stack, set a smaller `max_depth`: each of its loads needs 64 KiB, and more if values
    /// are large. [`Builder::build`](crate::Builder::build) refuses a cache whose `max_depth` is
    /// too large for the stacks of its pool. The system takes memory for a stack only as far as it
    /// is used.
    pub fn stack_size(mut self, bytes: usize) -> Self {
        self.stack_size = bytes;
        self
    }

    /// The name of the threads, to which a number is added. Default: `"everfresh"`.
    ///
    /// It must not contain a NUL character.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Checks the settings and starts the threads.
    ///
    /// # Errors
    ///
    /// [`BuildError`] names the setting, its value and the values that are allowed, or says that
    /// the system cannot start so many threads.
    ///
    /// # Example
    ///
    /// ```
    /// # use everfresh::Pool;
    /// let error = Pool::builder().threads(0).build().unwrap_err();
    /// assert!(error.to_string().starts_with("`threads` is 0"));
    /// ```
    pub fn build(self) -> Result<Pool, BuildError> {
        let PoolBuilder {
            threads,
            stack_size,
            name,
        } = self;
        let threads = threads.unwrap_or_else(cores);
        check_threads(threads)?;
        if stack_size < STACK_PER_LOAD {
            let rule = "must be at least 65 536 bytes";
            return Err(BuildError::value("stack_size", &stack_size, rule));
        }
        if name.contains('\0') {
            let rule = "must not contain NUL, because threads are named after it";
            return Err(BuildError::value("name", &name, rule));
        }
        let threading = Threading {
            threads,
            stack_size,
            name,
        };
        Workers::new(threading).map(Pool)
    }
}

/// The cores that this process may use.
pub(crate) fn cores() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    cores.min(max_threads())
}

/// The largest number of threads of a pool; smaller on 32-bit systems.
fn max_threads() -> usize {
    MAX_THREADS.min(rayon::max_num_threads())
}

pub(crate) fn check_threads(threads: usize) -> Result<(), BuildError> {
    match (1..=max_threads()).contains(&threads) {
        true => Ok(()),
        false => {
            let rule = format!("must be 1 to {}", grouped(max_threads()));
            Err(BuildError::value("threads", &threads, &rule))
        }
    }
}

/// The pool of all caches that have no other, in this process. A child process made by `fork` has
/// none of its threads and starts its own.
static SHARED: Mutex<Option<(u32, Pool)>> = Mutex::new(None);

fn shared() -> Result<Pool, BuildError> {
    let process = std::process::id();
    let mut shared = lock(&SHARED);
    match &*shared {
        Some((of, pool)) if *of == process => Ok(pool.clone()),
        _ => {
            let pool = Pool::builder().build()?;
            let old = shared.replace((process, pool.clone()));
            // Never dropped: its threads are those of the parent.
            std::mem::forget(old);
            Ok(pool)
        }
    }
}

/// Where the loads of a cache run.
pub(crate) struct Place {
    /// The shared pool is found at the first load.
    pool: OnceLock<Pool>,
}

impl Place {
    /// The pool of all caches that have no other.
    pub(crate) fn shared() -> Self {
        Place {
            pool: OnceLock::new(),
        }
    }

    pub(super) fn of(pool: Pool) -> Self {
        Place {
            pool: OnceLock::from(pool),
        }
    }

    /// The home of a cache whose loads run here.
    pub(crate) fn home(&self, run_on_caller: bool) -> Home {
        Home::Pool {
            threads: self.threads(),
            stack_size: self.stack_size(),
            run_on_caller,
        }
    }

    /// How many loads the pool runs at once.
    fn threads(&self) -> usize {
        self.pool
            .get()
            .map_or_else(cores, |Pool(workers)| workers.threads())
    }

    /// The size of the stacks on which loads run.
    fn stack_size(&self) -> usize {
        self.pool
            .get()
            .map_or(STACK_SIZE, |Pool(workers)| workers.stack_size())
    }

    /// The workers, which are started if they do not run yet.
    pub(super) fn workers(&self) -> Result<&Arc<Workers>, BuildError> {
        match self.pool.get() {
            Some(Pool(workers)) => Ok(workers),
            None => {
                let pool = shared()?;
                let Pool(workers) = self.pool.get_or_init(|| pool);
                Ok(workers)
            }
        }
    }
}
