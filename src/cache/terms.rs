//! The terms of one read.

use std::error::Error as StdError;
use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use foldhash::quality::RandomState;

use crate::cache::Cache;
use crate::cache::cached::{Cached, Kept};
use crate::cache::call::CallTerms;
use crate::cache::lookup::Lookup;
use crate::cache::read::{Core, Missed};
use crate::cache::read_fn::{Boxed, Function, NoFunction, ReadFn};
use crate::error::Error;
use crate::load::call::CallFn;
use crate::load::loader::{Loaded, boxed, boxed_value};
use crate::load::runtime::Caller;
use crate::protocol::entry::Entry;
use crate::protocol::times::OLDEST;
use crate::time::clock::{Tick, ticks};

impl<K, V, S> Cache<K, V, S>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher + Send + Sync,
{
    /// A read on terms of its own: set them, then await it, or end with
    /// [`blocking`](ReadTerms::blocking).
    ///
    /// Without any term it is the same as [`get`](Self::get). All terms, with their use:
    /// [`docs::terms`](crate::docs::terms).
    ///
    /// # Cost
    ///
    /// For a hit that of `get`, and a comparison of its age. A read that has to wait allocates its
    /// future.
    ///
    /// # Example
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use everfresh::Cache;
    /// # futures_lite::future::block_on(async {
    /// let prices: Cache<u64, u64> = Cache::builder().compute(|id: &u64| id * 100).build()?;
    /// // For the checkout: at most ten seconds old, and there within a second.
    /// let price = prices
    ///     .read(&7)
    ///     .max_age(Duration::from_secs(10))
    ///     .wait_at_most(Duration::from_secs(1))
    ///     .await?;
    /// assert_eq!(*price, 700);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    #[inline]
    pub fn read<'a, Q>(&'a self, key: &'a Q) -> ReadTerms<'a, K, V, S, Q>
    where
        Q: Lookup<K> + ?Sized,
    {
        ReadTerms {
            core: &self.0,
            key,
            max_age: OLDEST,
            wait: Tick::MAX,
            refreshes: true,
            function: NoFunction,
        }
    }
}

/// One read and its terms: made by [`Cache::read`] and [`Fresh::read`](crate::Fresh::read).
///
/// It does nothing until it is awaited, or until [`blocking`](Self::blocking) is called. A term
/// that is set twice counts as set last. A function can be given once.
///
/// # Errors
///
/// Those of [`Cache::get`], and those that the terms name.
///
/// # Panics
///
/// As [`Cache::get`].
///
/// # Cancel safety
///
/// As [`Cache::get`]: the load goes on, with the function of this read if it began with that.
#[must_use = "a read does nothing unless it is awaited or `blocking` is called"]
pub struct ReadTerms<'a, K, V, S = RandomState, Q: ?Sized = K, F = NoFunction> {
    core: &'a Core<K, V, S>,
    key: &'a Q,
    max_age: Tick,
    /// `Tick::MAX` is no limit.
    wait: Tick,
    refreshes: bool,
    function: F,
}

impl<'a, K, V, S, Q: ?Sized, F> ReadTerms<'a, K, V, S, Q, F> {
    /// Accepts no value older than this: an older one is replaced, and the read waits for that.
    ///
    /// The age counts from the end of the load, or from the insert. The load is that of the cache's
    /// other readers: it is joined if it is under way, and other readers get the old value
    /// meanwhile. If it fails, this read gets the error, and the next such read gets it too, until
    /// the key's [`backoff`](crate::Builder::backoff) is over. Other readers still get the old
    /// value.
    ///
    /// With [`forced_at_most_every`](crate::Builder::forced_at_most_every) a value that was loaded
    /// within that time is young enough, whatever this limit says.
    ///
    /// With zero, every value is too old that was made in an earlier step of the
    /// [`Clock`](crate::Clock). A load that began before the read may be joined; to exclude that
    /// use [`refresh_from_now`](Cache::refresh_from_now).
    ///
    /// # Example
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use everfresh::{Cache, ManualClock};
    /// let clock = ManualClock::new();
    /// let cache: Cache<u64, u64> = Cache::builder()
    ///     .clock(&clock)
    ///     .compute(|n: &u64| n * n)
    ///     .build()?;
    /// cache.insert(3, 8);
    /// clock.advance(Duration::from_secs(20));
    /// assert_eq!(*cache.get_blocking(&3)?, 8); // fresh for a minute
    /// assert_eq!(*cache.read(&3).max_age(Duration::from_secs(10)).blocking()?, 9);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn max_age(mut self, age: Duration) -> Self {
        self.max_age = ticks(age).min(OLDEST);
        self
    }

    /// Waits at most this long for a load.
    ///
    /// Then the read gets the value that may still be served: a stale one, one past its
    /// `stale_for` and inside its [`stale_if_error_for`](crate::Builder::stale_if_error_for), but
    /// none older than [`max_age`](Self::max_age). If there is none, it gets an error that
    /// [`is_timeout`](Error::is_timeout). The load goes on in any case, for the other readers, and
    /// its result is kept.
    ///
    /// The time goes by the [`Clock`](crate::Clock) of the cache. It never ends early, and late by
    /// at most two of its steps. With zero the read never waits. A computation that reads inside a
    /// load is an exception: its worker runs the load itself, to the end.
    ///
    /// # Example
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use everfresh::Cache;
    /// let cache: Cache<u64, u64> = Cache::builder().compute(|n: &u64| n * n).build()?;
    /// if let Err(error) = cache.read(&3).wait_at_most(Duration::ZERO).blocking() {
    ///     assert!(error.is_timeout()); // the load has begun
    /// }
    /// assert_eq!(*cache.get_blocking(&3)?, 9);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn wait_at_most(mut self, wait: Duration) -> Self {
        self.wait = ticks(wait);
        self
    }

    /// Takes what is there without a refresh: an early or a stale value, also one past its
    /// `stale_for` and inside its [`stale_if_error_for`](crate::Builder::stale_if_error_for).
    ///
    /// For readers that must not cause work, such as a page that shows all values. A missing key is
    /// loaded, and so is a value older than [`max_age`](Self::max_age). To load nothing at all use
    /// [`get_if_present`](Cache::get_if_present).
    #[inline]
    pub fn no_refresh(mut self) -> Self {
        self.refreshes = false;
        self
    }
}

impl<'a, K, V, S, Q: ?Sized> ReadTerms<'a, K, V, S, Q> {
    /// A function that waits, for this read: it loads the key if this read has to wait for a load.
    ///
    /// It returns what a loader returns: a value, an `Option`, or a [`Loaded`] with times. It is
    /// subject to everything that a load of the cache is subject to: one at a time for each key,
    /// the limits on loads, the time-out, the store and its lease. Its panic is an error of this
    /// load.
    ///
    /// Of several callers that wait for one key, the function of the first runs for all of them.
    /// Those of the others are dropped. A refresh for which no caller waits is made by the cache's
    /// own loader; in a cache [without one](crate::Builder::without_loader), by the function of the
    /// reader that found the value stale.
    ///
    /// It runs on the runtime that is current here, or on the
    /// [`spawner`](crate::Builder::spawner), also in a cache whose own loader computes.
    ///
    /// # Errors
    ///
    /// Also an error that [`is_without_runtime`](Error::is_without_runtime): there is neither.
    ///
    /// # Example
    ///
    /// ```
    /// # #[cfg(feature = "tokio")] {
    /// # use everfresh::Cache;
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let users: Cache<u64, String> = Cache::builder().without_loader().build()?;
    /// let session = "s-17".to_owned(); // of this request
    /// let user = users.read(&7).or_load(async move || format!("7 as seen by {session}")).await?;
    /// assert_eq!(*user, "7 as seen by s-17");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// # }
    /// ```
    #[inline]
    pub fn or_load<F, Fut, L>(self, f: F) -> ReadTerms<'a, K, V, S, Q, Function<F, V>>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = L> + Send + 'static,
        L: Into<Loaded<V>> + 'static,
        V: 'static,
    {
        self.with(f, true, |f| {
            let load = || Box::pin(async move { boxed_value(f().await) }) as _;
            Boxed(Some(CallFn::load(load)))
        })
    }

    /// The same as [`or_load`](Self::or_load), for a function that may fail.
    #[inline]
    pub fn or_try_load<F, Fut, L, E>(self, f: F) -> ReadTerms<'a, K, V, S, Q, Function<F, V>>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<L, E>> + Send + 'static,
        L: Into<Loaded<V>> + 'static,
        E: Into<Box<dyn StdError + Send + Sync>> + 'static,
        V: 'static,
    {
        self.with(f, true, |f| {
            let load = || Box::pin(async move { boxed(f().await) }) as _;
            Boxed(Some(CallFn::load(load)))
        })
    }

    /// A function that computes, for this read; everything else as for [`or_load`](Self::or_load).
    ///
    /// It runs on the cache's [`pool`](crate::Builder::pool), also in a cache whose own loader
    /// waits: then on the pool that all caches share.
    ///
    /// # Example
    ///
    /// ```
    /// # use everfresh::Cache;
    /// let cache: Cache<u64, u64> = Cache::builder().compute(|n: &u64| n * n).build()?;
    /// // This caller has the value at hand, should the cache need it.
    /// assert_eq!(*cache.read(&3).or_compute(|| 9).blocking()?, 9);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn or_compute<F, L>(self, f: F) -> ReadTerms<'a, K, V, S, Q, Function<F, V>>
    where
        F: FnOnce() -> L + Send + 'static,
        L: Into<Loaded<V>>,
    {
        self.with(f, false, |f| {
            Boxed(Some(CallFn::compute(|| boxed_value(f()))))
        })
    }

    /// The same as [`or_compute`](Self::or_compute), for a function that may fail.
    #[inline]
    pub fn or_try_compute<F, L, E>(self, f: F) -> ReadTerms<'a, K, V, S, Q, Function<F, V>>
    where
        F: FnOnce() -> Result<L, E> + Send + 'static,
        L: Into<Loaded<V>>,
        E: Into<Box<dyn StdError + Send + Sync>>,
    {
        self.with(f, false, |f| Boxed(Some(CallFn::compute(|| boxed(f())))))
    }

    #[inline]
    fn with<F>(
        self,
        function: F,
        waits: bool,
        boxed: fn(F) -> Boxed<V>,
    ) -> ReadTerms<'a, K, V, S, Q, Function<F, V>> {
        ReadTerms {
            core: self.core,
            key: self.key,
            max_age: self.max_age,
            wait: self.wait,
            refreshes: self.refreshes,
            function: Function {
                function,
                waits,
                boxed,
            },
        }
    }
}

impl<'a, K, V, S, Q, F> ReadTerms<'a, K, V, S, Q, F>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher + Send + Sync,
    Q: Lookup<K> + Sync + ?Sized,
    F: ReadFn<V>,
{
    /// Reads from a thread, on these terms.
    ///
    /// Not for tasks: as [`Cache::get_blocking`], with the same exceptions on the threads of a
    /// runtime.
    ///
    /// # Errors
    ///
    /// As [`Cache::get_blocking`]. With [`or_load`](Self::or_load) it is an error on the only
    /// thread of a runtime, also in a cache whose own loader computes, because the function would
    /// run there.
    // Not a call: it would pass the terms in memory, and copy the hit.
    #[inline(always)]
    pub fn blocking(self) -> Result<Cached<K, V>, Error> {
        let (core, key, max_age) = (self.core, self.key, self.max_age);
        let hash = core.hasher.hash_one(key);
        let miss = |missed| self.block(hash, missed).map(Cached::from);
        let is_young = |entry: &Entry<K, V>, early, now| entry.is_young(early, max_age, now);
        core.lookup(key, hash, is_young, Ok, miss)
    }

    #[inline(never)]
    fn block(self, hash: u64, missed: Missed<K, V>) -> Result<Kept<K, V>, Error> {
        let (core, key, max_age, wait) = (self.core, self.key, self.max_age, self.wait);
        let by_call = self.function.waits();
        let finish = match self.start(hash, missed, Caller::Blocks) {
            Ok(kept) => return Ok(kept),
            Err(finish) => finish,
        };
        if let Some(finished) = core.block_on_by(by_call, finish) {
            return finished;
        }
        // This thread must not wait.
        let present = match wait {
            Tick::MAX => None,
            _ => core.present(key, hash, max_age),
        };
        present.ok_or_else(|| core.not_waited())
    }

    /// A read that could not just take a value: begins the load or refresh.
    #[inline(never)]
    fn start(
        self,
        hash: u64,
        missed: Missed<K, V>,
        caller: Caller,
    ) -> Result<Kept<K, V>, Finish<'a, K, V>> {
        let (core, key, now) = (self.core, self.key, missed.now);
        let terms = CallTerms {
            // A load that begins here could keep the caller for longer than it waits.
            caller: match self.wait {
                Tick::MAX => caller,
                _ => Caller::GoesOn,
            },
            call: self.function.boxed().0,
            max_age: self.max_age,
            since: now,
            refreshes: self.refreshes,
            forced: false,
        };
        match core.classify(missed, &terms) {
            Ok(kept) => Ok(kept),
            Err(unserved) => {
                let finish = core.finish_in_time(key, hash, unserved, terms, self.wait, now);
                Err(Box::pin(finish))
            }
        }
    }
}

/// The end of a read that waits.
type Finish<'a, K, V> = Pin<Box<dyn Future<Output = Result<Kept<K, V>, Error>> + Send + 'a>>;

impl<'a, K, V, S, Q, F> IntoFuture for ReadTerms<'a, K, V, S, Q, F>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher + Send + Sync,
    Q: Lookup<K> + Sync + ?Sized,
    F: ReadFn<V>,
{
    type Output = Result<Cached<K, V>, Error>;
    type IntoFuture = ReadFuture<'a, K, V, S, Q, F>;

    #[inline(always)]
    fn into_future(self) -> Self::IntoFuture {
        ReadFuture {
            begins: Some(self),
            waits: None,
        }
    }
}

/// The future of a read on terms of its own.
pub struct ReadFuture<'a, K, V, S, Q: ?Sized, F> {
    /// Until the read has to wait. A hit leaves it in its place, and so moves nothing.
    begins: Option<ReadTerms<'a, K, V, S, Q, F>>,
    waits: Option<Finish<'a, K, V>>,
}

/// No part of it is pinned in its place.
impl<K, V, S, Q: ?Sized, F> Unpin for ReadFuture<'_, K, V, S, Q, F> {}

impl<K, V, S, Q, F> ReadFuture<'_, K, V, S, Q, F>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher + Send + Sync,
    Q: Lookup<K> + Sync + ?Sized,
    F: ReadFn<V>,
{
    #[inline(never)]
    fn begin(
        &mut self,
        hash: u64,
        missed: Missed<K, V>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Kept<K, V>, Error>> {
        if let Some(terms) = self.begins.take() {
            match terms.start(hash, missed, Caller::Awaits) {
                Ok(kept) => return Poll::Ready(Ok(kept)),
                Err(finish) => self.waits = Some(finish),
            }
        }
        self.wait(cx)
    }

    #[inline(never)]
    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<Result<Kept<K, V>, Error>> {
        match &mut self.waits {
            Some(finish) => finish.as_mut().poll(cx),
            None => unreachable!("a future that is ready is polled no more"),
        }
    }
}

impl<K, V, S, Q, F> Future for ReadFuture<'_, K, V, S, Q, F>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher + Send + Sync,
    Q: Lookup<K> + Sync + ?Sized,
    F: ReadFn<V>,
{
    type Output = Result<Cached<K, V>, Error>;

    // As for `blocking`.
    #[inline(always)]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let Some(terms) = &this.begins else {
            return this.wait(cx).map(|kept| kept.map(Cached::from));
        };
        let (core, key, max_age) = (terms.core, terms.key, terms.max_age);
        let hash = core.hasher.hash_one(key);
        let is_young = |entry: &Entry<K, V>, early, now| entry.is_young(early, max_age, now);
        let hit = |cached| Poll::Ready(Ok(cached));
        core.lookup(key, hash, is_young, hit, |missed| {
            let kept = this.begin(hash, missed, cx);
            kept.map(|kept| kept.map(Cached::from))
        })
    }
}

impl<K, V, S, Q: ?Sized, F> fmt::Debug for ReadTerms<'_, K, V, S, Q, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let limited = |ticks, none| (ticks != none).then(|| Duration::from_nanos(ticks));
        f.debug_struct("ReadTerms")
            .field("max_age", &limited(self.max_age, OLDEST))
            .field("wait_at_most", &limited(self.wait, Tick::MAX))
            .field("refreshes", &self.refreshes)
            .finish_non_exhaustive()
    }
}
