//! The user's function: what it is given, and what it returns.

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::time::Duration;

use crate::error::Error;
use crate::protocol::entry::Entry;
use crate::sync::Arc;

/// What a loader is asked for: the key, and the value it had.
///
/// Loaders that want more than the key take it with [`Builder::compute_with`](crate::Builder::compute_with) or
/// [`Builder::load_with`](crate::Builder::load_with).
///
/// # Example
///
/// ```
/// use std::convert::Infallible;
/// use everfresh::{Cache, Loaded, Request};
///
/// // Counts its own refreshes: each load sees what it replaces.
/// fn next(request: &Request<(), u64>) -> Result<Loaded<u64>, Infallible> {
///     Ok(Loaded::new(request.previous().map_or(0, |before| before + 1)))
/// }
///
/// let cache: Cache<(), u64> = Cache::builder().compute_with(next).build()?;
/// assert_eq!(*cache.get_blocking(&())?, 0);
/// # futures_lite::future::block_on(async {
/// assert_eq!(*cache.refresh(&()).await?, 1);
/// # Ok::<(), everfresh::Error>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Request<K, V> {
    pub(crate) entry: Arc<Entry<K, V>>,
}

impl<K, V> Request<K, V> {
    /// The key whose value is wanted.
    pub fn key(&self) -> &K {
        &self.entry.key
    }

    /// The value that the result will replace, for a conditional or incremental load.
    ///
    /// `None` when the key was absent. It may be past its hard limit, then nobody is served it.
    pub fn previous(&self) -> Option<&V> {
        self.entry.value()
    }
}

impl<K: fmt::Debug, V> fmt::Debug for Request<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("key", self.key())
            .field("has_previous", &self.previous().is_some())
            .finish()
    }
}

/// What a loader returns: a value, and its own times if they differ from the cache's.
///
/// # Example
///
/// ```
/// use std::time::Duration;
/// use everfresh::Loaded;
///
/// // A token that says itself how long it is valid.
/// let token = Loaded::new("token").fresh_for(Duration::from_secs(50)).stale_for(Duration::from_secs(10));
/// assert_eq!(token.value(), Some(&"token"));
/// ```
#[derive(Clone, Debug)]
pub struct Loaded<V> {
    pub(crate) value: Option<V>,
    pub(crate) fresh_for: Option<Duration>,
    pub(crate) stale_for: Option<Duration>,
    pub(crate) stale_if_error_for: Option<Duration>,
}

impl<V> Loaded<V> {
    /// A value with the times of the cache.
    pub fn new(value: V) -> Self {
        Loaded::of(Some(value))
    }

    /// No value: the key does not exist at the origin. Callers get [`Error::is_not_found`], and the loader is not asked
    /// again for the cache's [`not_found_for`](crate::Builder::not_found_for), or for `fresh_for` of this answer.
    ///
    /// Inserted, it is the same as an `invalidate`.
    ///
    /// # Example
    ///
    /// ```
    /// use std::convert::Infallible;
    /// use everfresh::{Cache, Loaded, Request};
    ///
    /// let names: Cache<u64, &str> = Cache::builder()
    ///     .compute_with(|request: &Request<u64, &str>| match request.key() {
    ///         1 => Ok::<_, Infallible>(Loaded::new("one")),
    ///         _ => Ok(Loaded::not_found()),
    ///     })
    ///     .build()?;
    /// assert!(names.get_blocking(&2).unwrap_err().is_not_found());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn not_found() -> Self {
        Loaded::of(None)
    }

    fn of(value: Option<V>) -> Self {
        Loaded {
            value,
            fresh_for: None,
            stale_for: None,
            stale_if_error_for: None,
        }
    }

    /// Fresh for this long instead. Zero is allowed: stale at once. [`Duration::MAX`] is for ever.
    pub fn fresh_for(mut self, duration: Duration) -> Self {
        self.fresh_for = Some(duration);
        self
    }

    /// After that, served while a refresh runs for this long instead (both stale windows).
    /// [`Duration::MAX`] is for ever.
    pub fn stale_for(mut self, duration: Duration) -> Self {
        self.stale_for = Some(duration);
        self.stale_if_error_for = Some(duration);
        self
    }

    /// After the fresh time, served when refreshing fails for this long instead.
    pub fn stale_if_error_for(mut self, duration: Duration) -> Self {
        self.stale_if_error_for = Some(duration);
        self
    }

    /// The value, unless there is none.
    pub fn value(&self) -> Option<&V> {
        self.value.as_ref()
    }
}

impl<V> From<V> for Loaded<V> {
    fn from(value: V) -> Self {
        Loaded::new(value)
    }
}

/// An async function of a reference, whose future may be sent to another thread.
///
/// You never implement it: async functions, async closures and closures that return a future do. It exists because the
/// standard [`AsyncFn`] cannot say that its future is `Send`. A closure that captures something its
/// future needs clones it first: `move |key: &Key| { let db = db.clone(); async move { .. } }`.
pub trait LoadFn<'a, A: 'a, R>: Send + Sync + Fn(&'a A) -> Self::Future {
    /// The future that loads.
    type Future: Future<Output = R> + Send + 'a;
}

impl<'a, A: 'a, R, F, Fut> LoadFn<'a, A, R> for F
where
    F: Send + Sync + Fn(&'a A) -> Fut,
    Fut: Future<Output = R> + Send + 'a,
{
    type Future = Fut;
}

/// What every loader comes down to.
pub(crate) type Returned<V> = Result<Loaded<V>, Error>;

/// The three shapes of an async loader.
pub(crate) trait AsyncLoader<K, V>: Send + Sync + 'static {
    fn load<'a>(
        &'a self,
        request: &'a Request<K, V>,
    ) -> impl Future<Output = Returned<V>> + Send + 'a;
}

/// Given the key, always succeeds.
pub(crate) struct Infallible<F>(pub(crate) F);

/// Given the key, may fail.
pub(crate) struct Fallible<F, E>(pub(crate) F, pub(crate) PhantomData<fn() -> E>);

/// Given the request, may fail, may set times.
pub(crate) struct Full<F, E>(pub(crate) F, pub(crate) PhantomData<fn() -> E>);

impl<K, V, F> AsyncLoader<K, V> for Infallible<F>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
    F: for<'a> LoadFn<'a, K, V> + 'static,
{
    async fn load<'a>(&'a self, request: &'a Request<K, V>) -> Returned<V> {
        Ok(Loaded::new((self.0)(request.key()).await))
    }
}

impl<K, V, F, E> AsyncLoader<K, V> for Fallible<F, E>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
    F: for<'a> LoadFn<'a, K, Result<V, E>> + 'static,
    E: Into<Box<dyn StdError + Send + Sync>> + 'static,
{
    async fn load<'a>(&'a self, request: &'a Request<K, V>) -> Returned<V> {
        let loaded = (self.0)(request.key()).await;
        loaded.map(Loaded::new).map_err(Error::failed)
    }
}

impl<K, V, F, E> AsyncLoader<K, V> for Full<F, E>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
    F: for<'a> LoadFn<'a, Request<K, V>, Result<Loaded<V>, E>> + 'static,
    E: Into<Box<dyn StdError + Send + Sync>> + 'static,
{
    async fn load<'a>(&'a self, request: &'a Request<K, V>) -> Returned<V> {
        (self.0)(request).await.map_err(Error::failed)
    }
}
