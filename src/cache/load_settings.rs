//! The settings that say where the loads of a cache run, and how many at once.

use super::builder::Builder;
use crate::load::admission::breaker::Breaker;
use crate::load::admission::budget::Budget;
use crate::load::pool_builder::Pool;
use crate::sync::future::BoxFuture;

impl<K, V, S> Builder<K, V, S> {
    /// The pool on which `compute` runs. Default: one pool for all caches of the process.
    ///
    /// The default pool has a thread for each core and starts with the first load. Give several
    /// caches one [`Pool`] of their own to bound how many of their loads run at once. `build`
    /// refuses this setting with `load`, where it would have no effect, and together with
    /// [`threads`](Self::threads) or [`thread_name`](Self::thread_name), which make another pool.
    pub fn pool(mut self, pool: &Pool) -> Self {
        self.settings.runner.pool = Some(pool.clone());
        self
    }

    /// Gives the cache a pool of its own with so many threads, 1 to 1 024. Default: none; the cache
    /// shares the [`pool`](Self::pool) of the process.
    ///
    /// All of them start at [`build`](Self::build), and end when the cache is dropped and its loads
    /// have ended. If only [`thread_name`](Self::thread_name) is set, the pool has one for each
    /// core. A load that hangs keeps its thread. With `load` this setting would have no effect, so
    /// `build` refuses it.
    pub fn threads(mut self, threads: usize) -> Self {
        self.settings.runner.threads = Some(threads);
        self
    }

    /// Gives the cache a pool of its own whose threads have this name, to which a number is added.
    /// Default: the name of the cache, if [`threads`](Self::threads) is set.
    ///
    /// It must not contain a NUL character. With `load` this setting would have no effect, so
    /// `build` refuses it.
    pub fn thread_name(mut self, prefix: impl Into<String>) -> Self {
        self.settings.runner.thread_name = Some(prefix.into());
        self
    }

    /// How many loads of this cache run at once, 1 to 1 048 576. Default: with `compute` as many as
    /// the pool has [`threads`](Self::threads), with `load` 256.
    ///
    /// Above it loads wait: first those for which a caller waits, then refreshes of stale values,
    /// each in the order in which they were claimed. No reader of a stale value waits: only its
    /// refresh does. An early refresh that finds no free permit is put off, which counts in
    /// [`Stats::shed_early`](crate::Stats::shed_early) and is no error.
    ///
    /// A load that another load waits for takes no permit, so loads that read other keys or caches
    /// cannot block each other. A load that reads a cache from a thread or task of its own counts
    /// as a caller from outside.
    ///
    /// An async load keeps its permit until it has ended or its future was dropped at the deadline.
    /// A computation gives it back at its deadline, because a spare worker takes its place there.
    ///
    /// # Cost
    ///
    /// One exchange of an atomic word for each load while no load waits, a short lock otherwise.
    ///
    /// # Example
    ///
    /// ```
    /// use everfresh::Cache;
    ///
    /// // Never more than eight reports at once, however many become stale together.
    /// let reports: Cache<u64, String> = Cache::builder()
    ///     .max_loads(8)
    ///     .compute(|id: &u64| format!("report {id}"))
    ///     .build()?;
    /// assert_eq!(*reports.get_blocking(&7)?, "report 7");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn max_loads(mut self, loads: usize) -> Self {
        self.settings.admission.limits.loads = Some(loads);
        self
    }

    /// How many loads may wait for their start, 1 to 1 048 576. Default: 65 536.
    ///
    /// When so many loads wait, further refreshes of stale values are put off. Refreshes take no
    /// place from a missing key: its callers get an error that
    /// [`is_overloaded`](crate::Error::is_overloaded) only when so many loads wait for which
    /// callers wait. So at most twice as many wait in all.
    pub fn queue(mut self, loads: usize) -> Self {
        self.settings.admission.queue = Some(loads);
        self
    }

    /// How many loads of this cache start in a second, 1 to 1 000 000. Default: no limit.
    ///
    /// Loads wait for their start as they do for a permit of [`max_loads`](Self::max_loads), in the
    /// same order. They start evenly. After a pause a tenth of them may start at once, so a single
    /// second has at most a tenth more. The limit also holds for loads that begin inside a load.
    ///
    /// With `compute`, `max_loads` is then at most the number of threads, because a load that has
    /// its start must not wait for a thread.
    ///
    /// # Example
    ///
    /// ```
    /// use everfresh::Cache;
    ///
    /// // The provider allows 50 requests a second.
    /// let rates: Cache<String, f64> = Cache::builder()
    ///     .load_rate(50)
    ///     .compute(|_: &String| 1.0)
    ///     .build()?;
    /// assert_eq!(*rates.get_blocking("EUR")?, 1.0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn load_rate(mut self, loads_per_second: u32) -> Self {
        self.settings.admission.limits.per_second = Some(loads_per_second);
        self
    }

    /// When the origin of this cache counts as down. Default: never.
    ///
    /// While it does, loads do not start, except for one probe at a time: see [`Breaker`].
    pub fn breaker(mut self, breaker: Breaker) -> Self {
        self.settings.admission.limits.breaker = Some(breaker);
        self
    }

    /// The limits of an origin that several caches share. Default: none.
    ///
    /// A load needs the permits of both the cache and the budget. If the budget has a limit on
    /// loads and this cache has no [`max_loads`](Self::max_loads), only the budget limits it, so
    /// that its loads wait in one order with those of the other caches. See [`Budget`].
    ///
    /// With `compute` and a budget of more loads than the pool has threads, `max_loads` is at most
    /// the number of threads, because a load that has a permit must not wait for a thread.
    pub fn budget(mut self, budget: &Budget) -> Self {
        self.settings.admission.budget = Some(budget.clone());
        self
    }

    /// How many loads may wait one for another, in a chain that ends with a load of this cache.
    /// Default: 128.
    ///
    /// A load that reads a cache waits for the load of that key, which may read another key in
    /// turn. A worker of a pool runs the load for which it waits on its own stack. A chain that is
    /// too long would overflow that stack and end the process, so the read that would make it
    /// longer gets an error that [`is_too_deep`](crate::Error::is_too_deep). The loads of all
    /// caches in the chain count.
    ///
    /// The stacks of the [`pool`](Self::pool) must have 64 KiB for each load of the chain, so
    /// `build` refuses a limit for which they are too small. A chain that goes on in a cache with
    /// larger stacks, or that a caller runs by [`run_on_caller`](Self::run_on_caller), moves to a
    /// thread that starts for it when the stack is full. Nested loads of values that take megabytes
    /// need more than 64 KiB each: put such values in a `Box` or an `Arc`.
    ///
    /// # Example
    ///
    /// ```
    /// use std::sync::LazyLock;
    /// use everfresh::{Cache, Error};
    ///
    /// static SUMS: LazyLock<Cache<u64, u64>> = LazyLock::new(|| {
    ///     let sum = |n: &u64| -> Result<u64, Error> {
    ///         Ok(if *n == 0 { 0 } else { n + *SUMS.get_blocking(&(n - 1))? })
    ///     };
    ///     Cache::builder().try_compute(sum).build().unwrap()
    /// });
    /// assert_eq!(*SUMS.get_blocking(&100)?, 5_050);
    /// assert!(SUMS.get_blocking(&3_000).unwrap_err().is_too_deep());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn max_depth(mut self, loads: usize) -> Self {
        self.settings.max_depth = loads;
        self
    }

    /// Lets the caller of a missing key run its `compute` itself, on its own thread, if a permit is
    /// free. Default: false, loads run on the [`pool`](Self::pool).
    ///
    /// For loaders that take less than some 100 µs: there the way to another thread and back is
    /// most of the cost of a miss. It holds for the blocking reads of one key, such as
    /// [`get_blocking`](crate::Cache::get_blocking). A caller that finds a load of its key under
    /// way waits for that, as always. Everything else runs on the pool: loads for tasks, refreshes,
    /// the keys of [`get_many_blocking`](crate::Cache::get_many_blocking), which load at the same
    /// time, loads for which no permit is free, and, with a [`store`](Self::store), every load. The
    /// pool starts with the first of these.
    ///
    /// [`max_loads`](Self::max_loads) bounds the loads of callers and pool together. Its default
    /// stays the number of threads that the pool has.
    ///
    /// # What is given up
    ///
    /// - The caller's time limit. At the [`load_timeout`](Self::load_timeout) all other callers get
    ///   their error, and the key rests, as after any time-out. But the caller that runs the load
    ///   cannot leave it: it gets the value late, or the error late.
    /// - The stack of the pool. A load that reads the cache runs the loads that it waits for on the
    ///   stack of the caller, up to 16 of them, one within another. A longer chain goes on in a
    ///   thread that starts for it.
    /// - The pool in the loader. `rayon::join` in it uses the global pool of `rayon`, and a part
    ///   that reads the cache counts there as a caller from outside.
    /// - The thread of a runtime, if the caller is on one: it runs no other task meanwhile.
    ///
    /// A panic of the loader becomes an error as always. With `load` this setting would have no
    /// effect, so `build` refuses it.
    ///
    /// # Example
    ///
    /// ```
    /// use std::thread;
    /// use everfresh::Cache;
    ///
    /// let cache: Cache<u64, bool> = Cache::builder()
    ///     .run_on_caller(true)
    ///     .compute({
    ///         let caller = thread::current().id();
    ///         move |_: &u64| thread::current().id() == caller
    ///     })
    ///     .build()?;
    /// assert!(*cache.get_blocking(&1)?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn run_on_caller(mut self, run: bool) -> Self {
        self.settings.runner.run_on_caller = Some(run);
        self
    }

    /// Where `load` runs its futures: any runtime's spawn function. It must return soon, because it
    /// also runs on the thread that ends all waits of the process in time.
    ///
    /// Default: with the feature `tokio`, the runtime that is current where a load begins; without
    /// one, the runtime in which [`build`](Self::build) was called; without either, the caller gets
    /// an error that [`is_without_runtime`](crate::Error::is_without_runtime). So a `static` cache
    /// serves any number of runtimes, one after the other or at the same time. A load that its
    /// runtime drops fails with an error that [`is_cancelled`](crate::Error::is_cancelled), and its
    /// key rests for the [`backoff`](Self::backoff).
    ///
    /// With `compute` this setting would have no effect, so `build` refuses it.
    ///
    /// # Example
    ///
    /// ```
    /// use everfresh::Cache;
    ///
    /// let cache: Cache<u64, String> = Cache::builder()
    ///     // A runtime in one line: a thread for each load.
    ///     .spawner(|load| { std::thread::spawn(|| futures_lite::future::block_on(load)); })
    ///     .load(async |id: &u64| format!("user {id}"))
    ///     .build()?;
    /// assert_eq!(*cache.get_blocking(&7)?, "user 7");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn spawner(mut self, spawn: impl Fn(BoxFuture) + Send + Sync + 'static) -> Self {
        self.settings.runner.spawner = Some(Box::new(spawn));
        self
    }
}
