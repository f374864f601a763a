//! A loader for tests of code that uses a cache.

use std::collections::HashMap;
use std::error::Error as StdError;
use std::fmt;
use std::hash::Hash;

use crate::sync::event::Event;
use crate::sync::future::block_on;
use crate::sync::{Arc, Mutex, lock};

/// A loader that counts its calls, and can be held, told to fail, and told to panic.
///
/// Clones are one loader: give one to the cache and keep one. Nothing in it sleeps or depends on
/// time: a test holds the loader, waits until the calls it expects are there, looks at what the
/// cache does meanwhile, and releases it.
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
pub struct CountingLoader<K, V>(Arc<Shared<K, V>>);

struct Shared<K, V> {
    value: Box<dyn Fn(&K) -> V + Send + Sync>,
    state: Mutex<State<K>>,
    changed: Event,
}

struct State<K> {
    calls: HashMap<K, usize>,
    running: usize,
    held: bool,
    /// Counts the releases, so that a call held before one is free after it, also if others are
    /// held again.
    releases: u64,
    failures: usize,
    panics: usize,
}

impl<K> State<K> {
    fn calls(&self) -> usize {
        self.calls.values().sum()
    }
}

/// What a call does when it is let go.
enum Closed {
    Succeed,
    Fail,
    Panic,
}

/// The error of a [`CountingLoader`] that was told to fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InjectedFailure;

impl fmt::Display for InjectedFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the counting loader was told to fail")
    }
}

impl StdError for InjectedFailure {}

impl<K: Hash + Eq + Clone, V> CountingLoader<K, V> {
    /// A loader whose calls return `value(key)`.
    pub fn new(value: impl Fn(&K) -> V + Send + Sync + 'static) -> Self {
        CountingLoader(Arc::new(Shared {
            value: Box::new(value),
            state: Mutex::new(State {
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
    /// If the loader was told to fail.
    ///
    /// # Panics
    ///
    /// If the loader was told to.
    pub fn compute(&self, key: &K) -> Result<V, InjectedFailure> {
        block_on(self.load(key))
    }

    /// One call, for [`Builder::try_load_on`](crate::Builder::try_load_on); waits while the loader
    /// is held.
    ///
    /// # Errors
    ///
    /// If the loader was told to fail.
    ///
    /// # Panics
    ///
    /// If the loader was told to.
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
        let (fate, releases, _running) = self.begin(key);
        self.wait_until(|state| !state.held || state.releases > releases)
            .await;
        match fate {
            Closed::Succeed => Ok((self.0.value)(key)),
            Closed::Fail => Err(InjectedFailure),
            Closed::Panic => panic!("the counting loader was told to panic"),
        }
    }

    fn begin(&self, key: &K) -> (Closed, u64, Running<'_, K, V>) {
        let key = key.clone();
        let mut state = lock(&self.0.state);
        *state.calls.entry(key).or_default() += 1;
        state.running += 1;
        let fate = if state.panics > 0 {
            state.panics -= 1;
            Closed::Panic
        } else if state.failures > 0 {
            state.failures -= 1;
            Closed::Fail
        } else {
            Closed::Succeed
        };
        let releases = state.releases;
        drop(state);
        self.0.changed.notify_all();
        (fate, releases, Running(&self.0))
    }

    /// From now on calls do not return before [`release`](Self::release).
    pub fn hold(&self) {
        lock(&self.0.state).held = true;
    }

    /// Lets every held call go, and those that come.
    pub fn release(&self) {
        self.change(|state| {
            state.held = false;
            state.releases += 1;
        });
    }

    /// The next so many calls fail with [`InjectedFailure`]; which ones is decided as they begin.
    pub fn fail_next(&self, calls: usize) {
        lock(&self.0.state).failures = calls;
    }

    /// The next so many calls panic, before any that fail.
    pub fn panic_next(&self, calls: usize) {
        lock(&self.0.state).panics = calls;
    }

    /// How many calls have begun.
    pub fn calls(&self) -> usize {
        lock(&self.0.state).calls()
    }

    /// How many calls for this key have begun.
    pub fn calls_for(&self, key: &K) -> usize {
        lock(&self.0.state).calls.get(key).copied().unwrap_or(0)
    }

    /// How many calls have begun and not ended.
    pub fn running(&self) -> usize {
        lock(&self.0.state).running
    }

    /// Blocks this thread until so many calls have begun since the loader was made.
    pub fn wait_for_calls(&self, calls: usize) {
        block_on(self.wait_until(|state| state.calls() >= calls));
    }

    /// Blocks this thread until no call is running.
    ///
    /// The cache may not have published the result of the last call yet.
    pub fn wait_until_idle(&self) {
        block_on(self.wait_until(|state| state.running == 0));
    }

    async fn wait_until(&self, holds: impl Fn(&State<K>) -> bool) {
        while !holds(&lock(&self.0.state)) {
            let changed = self.0.changed.listen();
            if holds(&lock(&self.0.state)) {
                return;
            }
            changed.await;
        }
    }

    fn change(&self, change: impl FnOnce(&mut State<K>)) {
        change(&mut lock(&self.0.state));
        self.0.changed.notify_all();
    }
}

/// A call that has begun, until it returns, panics or is dropped.
struct Running<'a, K, V>(&'a Shared<K, V>);

impl<K, V> Drop for Running<'_, K, V> {
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
