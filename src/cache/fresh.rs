//! One value kept fresh, without a map.

use std::fmt;

use foldhash::quality::RandomState;

use crate::cache::Cache;
use crate::cache::builder::Builder;
use crate::cache::cached::Cached;
use crate::cache::close::CloseError;
use crate::cache::reader::Pinned;
use crate::cache::terms::ReadTerms;
use crate::error::{BuildError, Error};
use crate::load::loader::Loaded;
use crate::observe::stats::Stats;

/// One value kept fresh: signing keys, a configuration, feature flags.
///
/// A cheap handle like [`Cache`], with the same promises: it is a cache of one key, `()`, and
/// [`cache`](Self::cache) gives that cache for everything that has no method here. Made by
/// [`Fresh::builder`] and [`Builder::build_fresh`]. A thread or task that reads it all the time
/// holds a [`pin`](Self::pin).
///
/// # Cost
///
/// A read needs no hash and compares no key. An empty one takes about six kilobytes, mostly for the
/// statistics.
///
/// # Example
///
/// ```
/// use std::time::Duration;
/// use everfresh::Fresh;
///
/// let keys: Fresh<Vec<u8>> = Fresh::builder()
///     .fresh_for(Duration::from_secs(300))
///     .compute(|&()| vec![1, 2, 3])
///     .build_fresh()?;
/// assert_eq!(keys.get_blocking()?.len(), 3);
///
/// let mut pinned = keys.pin(); // one for each thread
/// assert_eq!(pinned.get_blocking()?.len(), 3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Fresh<V>(Cache<(), V>);

impl<V: Send + Sync + 'static> Fresh<V> {
    /// Starts to configure a value. The settings are those of a cache, and the loader gets the key
    /// `()`.
    pub fn builder() -> Builder<(), V> {
        Cache::builder().capacity(1)
    }

    /// Reads the value from a task, loading it if it is missing; the same as [`Cache::get`].
    ///
    /// # Errors
    ///
    /// As [`Cache::get`].
    ///
    /// # Cancel safety
    ///
    /// As [`Cache::get`].
    #[inline(always)]
    pub fn get(&self) -> impl Future<Output = Result<Cached<(), V>, Error>> {
        self.0.get(&())
    }

    /// Reads the value from a thread, loading it if it is missing; the same as
    /// [`Cache::get_blocking`].
    ///
    /// # Errors
    ///
    /// As [`Cache::get`].
    #[inline]
    pub fn get_blocking(&self) -> Result<Cached<(), V>, Error> {
        self.0.get_blocking(&())
    }

    /// Reads the value if there is one that may be served; the same as [`Cache::get_if_present`].
    #[inline]
    pub fn get_if_present(&self) -> Option<Cached<(), V>> {
        self.0.get_if_present(&())
    }

    /// Looks at the value without counting a read; the same as [`Cache::peek`].
    pub fn peek(&self) -> Option<Cached<(), V>> {
        self.0.peek(&())
    }

    /// Whether there is a value that may be served; the same as [`Cache::contains_key`].
    pub fn is_set(&self) -> bool {
        self.0.contains_key(&())
    }

    /// A read on terms of its own; the same as [`Cache::read`].
    ///
    /// # Example
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use everfresh::Fresh;
    /// let level: Fresh<u8> = Fresh::builder().compute(|&()| 1).build_fresh()?;
    /// assert_eq!(*level.read().max_age(Duration::from_secs(10)).blocking()?, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn read(&self) -> ReadTerms<'_, (), V> {
        self.0.read(&())
    }

    /// Keeps the value fresh from now on, whether or not it is read.
    ///
    /// A missing value is loaded at once, also after [`invalidate`](Self::invalidate). A value is
    /// refreshed shortly before it is stale: by three times the time that its load takes, times
    /// [`beta`](Builder::beta), and by at most half of its fresh time. After a failure the next
    /// attempt follows the [`backoff`](Builder::backoff). So the first reader after a quiet hour
    /// gets a fresh value, where it would get the old one otherwise.
    ///
    /// It ends with the last handle, and when the value is [closed](Self::close). To call it again
    /// changes nothing, except that async loads then run on the runtime of the last call.
    ///
    /// # Under races
    ///
    /// Each load is one like any other: at most one at a time, and never one for a value that has
    /// a successor.
    ///
    /// # Cost
    ///
    /// One load in each fresh time, and an alarm for it. It needs no thread of its own, only the
    /// one that rings all alarms of the process. With a [`spawner`](Builder::spawner), that thread
    /// calls the spawner, which therefore must hand the load on to another one.
    ///
    /// A load does not follow at once upon one whose result is not kept, or is not fresh for a
    /// moment: the first time of the backoff lies between them. Where there is no loader, it does
    /// nothing. In a child process made by `fork` it ends, until it is called there.
    ///
    /// # Example
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use everfresh::{Fresh, Freshness};
    /// let flags: Fresh<Vec<String>> = Fresh::builder()
    ///     .fresh_for(Duration::from_secs(30))
    ///     .compute(|&()| vec!["dark-mode".to_owned()])
    ///     .build_fresh()?;
    /// flags.keep_fresh();
    /// assert!(flags.get_blocking()?.freshness().is_fresh());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn keep_fresh(&self) {
        self.0.0.keep_fresh();
    }

    /// A handle for one thread or task, with the cheapest read there is.
    pub fn pin(&self) -> Pinned<(), V> {
        self.0.pin(())
    }

    /// Puts a value in; the same as [`Cache::insert`].
    ///
    /// # Example
    ///
    /// ```
    /// # use everfresh::Fresh;
    /// let level: Fresh<u8> = Fresh::builder().compute(|&()| 1).build_fresh()?;
    /// level.set(2); // a message said so, before the next refresh
    /// assert_eq!(*level.get_blocking()?, 2);
    /// level.invalidate();
    /// assert_eq!(*level.get_blocking()?, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set(&self, value: impl Into<Loaded<V>>) {
        self.0.insert((), value);
    }

    /// Removes the value; the same as [`Cache::invalidate`].
    pub fn invalidate(&self) -> bool {
        self.0.invalidate(&())
    }

    /// Replaces the value now, from a task; the same as [`Cache::refresh`].
    ///
    /// # Errors
    ///
    /// As [`Cache::refresh`].
    ///
    /// # Cancel safety
    ///
    /// As [`Cache::refresh`].
    pub async fn refresh(&self) -> Result<Cached<(), V>, Error> {
        self.0.refresh(&()).await
    }

    /// Replaces the value now, from a thread; the same as [`Cache::refresh_blocking`].
    ///
    /// # Errors
    ///
    /// As [`Cache::refresh`].
    pub fn refresh_blocking(&self) -> Result<Cached<(), V>, Error> {
        self.0.refresh_blocking(&())
    }

    /// Replaces a value that the caller has read, if it is still the one, from a task; the same as
    /// [`Cache::refresh_if`].
    ///
    /// # Errors
    ///
    /// As [`Cache::refresh_if`].
    ///
    /// # Cancel safety
    ///
    /// As [`Cache::refresh_if`].
    ///
    /// # Example
    ///
    /// ```
    /// # use std::sync::atomic::{AtomicU64, Ordering};
    /// # use everfresh::Fresh;
    /// # futures_lite::future::block_on(async {
    /// let issued = AtomicU64::new(0);
    /// let token: Fresh<u64> = Fresh::builder()
    ///     .compute(move |&()| issued.fetch_add(1, Ordering::Relaxed))
    ///     .build_fresh()?;
    /// let refused = token.get().await?; // by the server, which says so to two callers
    /// assert_eq!(*token.refresh_if(&refused).await?, 1);
    /// assert_eq!(*token.refresh_if(&refused).await?, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    pub async fn refresh_if(&self, seen: &Cached<(), V>) -> Result<Cached<(), V>, Error> {
        self.0.refresh_if(seen).await
    }

    /// Replaces a value that the caller has read, if it is still the one, from a thread; the same
    /// as [`Cache::refresh_if_blocking`].
    ///
    /// # Errors
    ///
    /// As [`Cache::refresh_if`].
    pub fn refresh_if_blocking(&self, seen: &Cached<(), V>) -> Result<Cached<(), V>, Error> {
        self.0.refresh_if_blocking(seen)
    }
}

impl<V: Send + Sync + 'static> Fresh<V> {
    /// Ends it cleanly, from a task; the same as [`Cache::close`].
    ///
    /// # Errors
    ///
    /// As [`Cache::close`].
    ///
    /// # Cancel safety
    ///
    /// As [`Cache::close`].
    pub async fn close(&self) -> Result<(), CloseError> {
        self.0.close().await
    }

    /// Ends it cleanly, from a thread; the same as [`Cache::close_blocking`].
    ///
    /// # Errors
    ///
    /// As [`Cache::close_blocking`].
    pub fn close_blocking(&self) -> Result<(), CloseError> {
        self.0.close_blocking()
    }
}

impl<V> Fresh<V> {
    /// The cache behind it, whose only key is `()`.
    ///
    /// # Example
    ///
    /// ```
    /// # use everfresh::Fresh;
    /// # futures_lite::future::block_on(async {
    /// let level: Fresh<u8> = Fresh::builder().compute(|&()| 1).build_fresh()?;
    /// level.cache().insert_everywhere((), 2).await?; // for the whole fleet, with a store
    /// assert_eq!(*level.get().await?, 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    pub fn cache(&self) -> &Cache<(), V> {
        &self.0
    }

    /// The name given to the builder, for metrics and threads. Default: "everfresh".
    pub fn name(&self) -> &str {
        self.0.name()
    }

    /// The statistics of the reads and loads so far; the same as [`Cache::stats`].
    pub fn stats(&self) -> Stats {
        self.0.stats()
    }
}

impl<V: Send + Sync + 'static> Builder<(), V, RandomState> {
    /// Checks the settings and builds a single value kept fresh.
    ///
    /// # Errors
    ///
    /// As [`build`](Self::build).
    pub fn build_fresh(self) -> Result<Fresh<V>, BuildError> {
        self.build().map(Fresh)
    }
}

impl<V> Clone for Fresh<V> {
    fn clone(&self) -> Self {
        Fresh(self.0.clone())
    }
}

impl<V> fmt::Debug for Fresh<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Fresh").field(&self.0).finish()
    }
}
