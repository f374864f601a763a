//! A loader for tests of code that uses a cache.

use std::collections::HashMap;
use std::error::Error as StdError;
use std::fmt;
use std::hash::Hash;

use crate::sync::event::Event;
use crate::sync::future::block_on;
use crate::sync::{Arc, Mutex, lock};

/// A loader that counts its calls, and waits, fails or panics on request.
///
/// Clones share one state: give one clone to the cache and keep another. Nothing in it sleeps or
/// depends on time: a test holds the loader, waits until the expected calls have begun, examines
/// the cache, and releases the loader.
///
/// # Example
///
/// ```
/// use everfresh::{Cache, CountingLoader};
///
/// let loader = CountingLoader::new(|n: &u64| n * n);
/// let cache: Cache<u64, u64> = Cache::builder()
///     .try_compute({
///         let loader = loader.clone();
///         move |n: &u64| loader.compute(n)
///     })
///     .build()?;
///
/// loader.hold();
/// std::thread::scope(|scope| {
///     let callers = [(); 3].map(|()| scope.spawn(|| *cache.get_blocking(&7).unwrap()));
///     loader.wait_for_calls(1);
///     loader.release();
///     for caller in callers {
///         assert_eq!(caller.join().unwrap(), 49);
///     }
/// });
/// assert_eq!(loader.calls_for(&7), 1);
///
/// loader.fail_next(1);
/// assert!(cache.get_blocking(&8).unwrap_err().is_load_failure());
/// assert!(cache.get_blocking(&8).is_err()); // a failure rests before the next attempt
/// assert_eq!(loader.calls_for(&8), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct CountingLoader<K, V>(Arc<SharedLoader<K, V>>);

struct SharedLoader<K, V> {
    value: Box<dyn Fn(&K) -> V + Send + Sync>,
    state: Mutex<CallState<K>>,
    changed: Event,
}

struct CallState<K> {
    calls: HashMap<K, usize>,
    running: usize,
    held: bool,
    /// Counts the releases, so that a release frees the calls before it even if the loader is held
    /// again at once.
    releases: u64,
    failures: usize,
    panics: usize,
}

impl<K> CallState<K> {
    fn calls(&self) -> usize {
        self.calls.values().sum()
    }
}

/// How a call ends when it is released.
enum CallOutcome {
    Succeed,
    Fail,
    Panic,
}

/// The error of a call that [`CountingLoader::fail_next`] chose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InjectedFailure;

impl fmt::Display for InjectedFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the counting loader fails on request")
    }
}

impl StdError for InjectedFailure {}

impl<K: Hash + Eq + Clone, V> CountingLoader<K, V> {
    /// A loader whose calls return `value(key)`.
    pub fn new(value: impl Fn(&K) -> V + Send + Sync + 'static) -> Self {
        CountingLoader(Arc::new(SharedLoader {
            value: Box::new(value),
            state: Mutex::new(CallState {
                calls: HashMap::new(),
                running: 0,
                held: false,
                releases: 0,
                failures: 0,
                panics: 0,
            }),
            changed: Event::new(),
        }))
    }

    /// One call, for [`Builder::try_compute`](crate::Builder::try_compute); blocks while the loader
    /// is held.
    ///
    /// # Errors
    ///
    /// If [`fail_next`](Self::fail_next) chose this call.
    ///
    /// # Panics
    ///
    /// If [`panic_next`](Self::panic_next) chose this call.
    pub fn compute(&self, key: &K) -> Result<V, InjectedFailure> {
        block_on(self.load(key))
    }

    /// One call, for [`Builder::try_load_on`](crate::Builder::try_load_on); waits while the loader
    /// is held.
    ///
    /// # Errors
    ///
    /// If [`fail_next`](Self::fail_next) chose this call.
    ///
    /// # Panics
    ///
    /// If [`panic_next`](Self::panic_next) chose this call.
    ///
    /// # Cancel safety
    ///
    /// A dropped call stays counted and no longer runs.
    ///
    /// # Example
    ///
    /// ```
    /// use everfresh::{Cache, CountingLoader};
    ///
    /// # #[cfg(feature = "tokio")]
    /// # tokio::runtime::Runtime::new()?.block_on(async {
    /// let loader = CountingLoader::new(|n: &u64| n * n);
    /// let cache: Cache<u64, u64> = Cache::builder()
    ///     .try_load_on(loader.clone(), async |loader: &CountingLoader<u64, u64>, n: &u64| {
    ///         loader.load(n).await
    ///     })
    ///     .build()?;
    /// assert_eq!(*cache.get(&7).await?, 49);
    /// assert_eq!(loader.calls(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn load(&self, key: &K) -> Result<V, InjectedFailure> {
        let (outcome, releases, _running) = self.begin(key);
        self.wait_until(|state| !state.held || state.releases > releases)
            .await;
        match outcome {
            CallOutcome::Succeed => Ok((self.0.value)(key)),
            CallOutcome::Fail => Err(InjectedFailure),
            CallOutcome::Panic => panic!("the counting loader panics on request"),
        }
    }

    fn begin(&self, key: &K) -> (CallOutcome, u64, RunningCall<'_, K, V>) {
        let key = key.clone();
        let mut state = lock(&self.0.state);
        *state.calls.entry(key).or_default() += 1;
        state.running += 1;
        let outcome = if state.panics > 0 {
            state.panics -= 1;
            CallOutcome::Panic
        } else if state.failures > 0 {
            state.failures -= 1;
            CallOutcome::Fail
        } else {
            CallOutcome::Succeed
        };
        let releases = state.releases;
        drop(state);
        self.0.changed.notify_all();
        (outcome, releases, RunningCall(&self.0))
    }

    /// Makes calls wait for [`release`](Self::release) before they return.
    pub fn hold(&self) {
        lock(&self.0.state).held = true;
    }

    /// Lets the calls that wait return, and later calls return at once.
    pub fn release(&self) {
        self.change(|state| {
            state.held = false;
            state.releases += 1;
        });
    }

    /// Makes the next `calls` calls to begin fail with [`InjectedFailure`].
    pub fn fail_next(&self, calls: usize) {
        lock(&self.0.state).failures = calls;
    }

    /// Makes the next `calls` calls to begin panic. They come before those that fail.
    pub fn panic_next(&self, calls: usize) {
        lock(&self.0.state).panics = calls;
    }

    /// The number of calls that have begun.
    pub fn calls(&self) -> usize {
        lock(&self.0.state).calls()
    }

    /// The number of calls for this key that have begun.
    pub fn calls_for(&self, key: &K) -> usize {
        lock(&self.0.state).calls.get(key).copied().unwrap_or(0)
    }

    /// The number of calls that have begun and not ended.
    pub fn running(&self) -> usize {
        lock(&self.0.state).running
    }

    /// Blocks this thread until `calls` calls have begun since the loader was made.
    pub fn wait_for_calls(&self, calls: usize) {
        block_on(self.wait_until(|state| state.calls() >= calls));
    }

    /// Blocks this thread until no call is running.
    ///
    /// The cache may not have published the result of the last call yet.
    pub fn wait_until_idle(&self) {
        block_on(self.wait_until(|state| state.running == 0));
    }

    async fn wait_until(&self, holds: impl Fn(&CallState<K>) -> bool) {
        while !holds(&lock(&self.0.state)) {
            let changed = self.0.changed.listen();
            if holds(&lock(&self.0.state)) {
                return;
            }
            changed.await;
        }
    }

    fn change(&self, change: impl FnOnce(&mut CallState<K>)) {
        change(&mut lock(&self.0.state));
        self.0.changed.notify_all();
    }
}

/// A call that has begun, until it returns, panics or is dropped.
struct RunningCall<'a, K, V>(&'a SharedLoader<K, V>);

impl<K, V> Drop for RunningCall<'_, K, V> {
    fn drop(&mut self) {
        lock(&self.0.state).running -= 1;
        self.0.changed.notify_all();
    }
}

impl<K, V> Clone for CountingLoader<K, V> {
    fn clone(&self) -> Self {
        CountingLoader(self.0.clone())
    }
}

impl<K, V> fmt::Debug for CountingLoader<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = lock(&self.0.state);
        f.debug_struct("CountingLoader")
            .field("calls", &state.calls())
            .field("running", &state.running)
            .field("held", &state.held)
            .finish_non_exhaustive()
    }
}
