//! The loader: what it is given, what it returns, and the shapes that it may have.

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::time::Duration;

use crate::load::state::CacheState;
use crate::protocol::entry::Entry;
use crate::sync::{Arc, StrongArc};

/// The request to a loader: the key, the value that the result will replace, and the cache.
///
/// Given to the function of [`Builder::compute_with`](crate::Builder::compute_with) and to a
/// [`Loader`]. The other loaders get only the key. [`cache`](Self::cache) is the cache for which
/// the load runs, for a loader that reads other keys of it.
///
/// # Example
///
/// ```
/// use std::convert::Infallible;
/// use everfresh::{Cache, Request};
///
/// // Counts its own refreshes: each load sees what it replaces.
/// fn next(request: &Request<(), u64>) -> Result<u64, Infallible> {
///     Ok(request.previous().map_or(0, |before| before + 1))
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
    pub(crate) entry: StrongArc<Entry<K, V>>,
    pub(crate) state: Arc<CacheState<K, V>>,
}

impl<K, V> Request<K, V> {
    /// The key whose value is wanted.
    pub fn key(&self) -> &K {
        &self.entry.key
    }

    /// The value that the result will replace, for a conditional or incremental load.
    ///
    /// `None` for a key that was missing. A value past its hard limit is shown here as well, though
    /// no reader gets it any more. A value of an invalidated group is not.
    pub fn previous(&self) -> Option<&V> {
        let value = self.entry.value();
        value.filter(|_| self.entry.is_current(&self.state.groups))
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

/// The answer of a loader: a value or none, with times of its own if they differ from the cache's.
///
/// Loaders return anything that becomes a `Loaded` by [`Into`]: a value, an `Option` of one whose
/// `None` is [`not_found`](Self::not_found), or a `Loaded`.
///
/// # Example
///
/// ```
/// use std::time::Duration;
/// use everfresh::Loaded;
///
/// // A token that says itself how long it is valid.
/// let token = Loaded::new("token")
///     .fresh_for(Duration::from_secs(50))
///     .stale_for(Duration::from_secs(10));
/// assert_eq!(token.value(), Some(&"token"));
/// assert!(Loaded::<&str>::from(None).value().is_none());
/// ```
#[derive(Clone, Debug)]
pub struct Loaded<V> {
    pub(crate) value: Option<V>,
    pub(crate) fresh_for: Option<Duration>,
    pub(crate) stale_for: Option<Duration>,
    pub(crate) stale_if_error_for: Option<Duration>,
    pub(crate) groups: Vec<u64>,
}

/// The times that a [`Loaded`] gives itself.
#[derive(Clone, Copy)]
pub(crate) struct Given {
    pub(crate) fresh_for: Option<Duration>,
    pub(crate) stale_for: Option<Duration>,
    pub(crate) stale_if_error_for: Option<Duration>,
}

impl<V> Loaded<V> {
    /// A value with the times of the cache.
    pub fn new(value: V) -> Self {
        Loaded::of(Some(value))
    }

    /// No value: the key does not exist at the origin.
    ///
    /// Callers get an error that [`is_not_found`](crate::Error::is_not_found). The loader is not
    /// asked again for the cache's [`not_found_for`](crate::Builder::not_found_for), or for the
    /// [`fresh_for`](Self::fresh_for) of this answer.
    ///
    /// Inserted, it is the same as an `invalidate`.
    ///
    /// # Example
    ///
    /// ```
    /// use std::time::Duration;
    /// use everfresh::{Cache, Loaded};
    ///
    /// let names: Cache<u64, &str> = Cache::builder()
    ///     .compute(|id: &u64| match id {
    ///         1 => Loaded::new("one"),
    ///         _ => Loaded::not_found().fresh_for(Duration::from_secs(600)),
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
            groups: Vec::new(),
        }
    }

    /// How long this value is fresh, instead of the cache's
    /// [`fresh_for`](crate::Builder::fresh_for).
    ///
    /// A value with zero is stale at once, one with [`Duration::MAX`] never.
    pub fn fresh_for(mut self, duration: Duration) -> Self {
        self.fresh_for = Some(duration);
        self
    }

    /// How long this value is served after its fresh time, both while a refresh runs and after one
    /// failed, instead of the cache's [`stale_for`](crate::Builder::stale_for) and
    /// [`stale_if_error_for`](crate::Builder::stale_if_error_for).
    ///
    /// A value with [`Duration::MAX`] is served for ever.
    pub fn stale_for(mut self, duration: Duration) -> Self {
        self.stale_for = Some(duration);
        self.stale_if_error_for = Some(duration);
        self
    }

    /// How long this value is served after its fresh time when refreshing fails, instead of the
    /// cache's [`stale_if_error_for`](crate::Builder::stale_if_error_for).
    ///
    /// Give it after [`stale_for`](Self::stale_for), which sets it as well.
    pub fn stale_if_error_for(mut self, duration: Duration) -> Self {
        self.stale_if_error_for = Some(duration);
        self
    }

    /// The value belongs to this group as well: it leaves the cache when
    /// [`Cache::invalidate_group`](crate::Cache::invalidate_group) is called with it.
    ///
    /// For groups that only the loader knows, such as the products that a page shows. Groups that
    /// follow from the key are given with [`Builder::group_by`](crate::Builder::group_by); a value
    /// belongs to those and to these. See [`docs::groups`](crate::docs::groups).
    ///
    /// # Example
    ///
    /// ```
    /// use everfresh::{Cache, Loaded};
    ///
    /// # struct Page { products: Vec<u64> }
    /// # let render = |_: &str| Page { products: vec![9, 12] };
    /// let pages: Cache<String, Page> = Cache::builder()
    ///     .compute(move |path: &String| {
    ///         let page = render(path);
    ///         let products = page.products.clone();
    ///         Loaded::new(page).groups(products)
    ///     })
    ///     .build()?;
    /// pages.get_blocking("/sale")?;
    /// pages.invalidate_group(9); // every page that shows product 9
    /// assert!(!pages.contains_key("/sale"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn group(mut self, group: u64) -> Self {
        self.groups.push(group);
        self
    }

    /// As [`group`](Self::group), for each of these groups.
    pub fn groups(mut self, groups: impl IntoIterator<Item = u64>) -> Self {
        self.groups.extend(groups);
        self
    }

    pub(crate) fn given(&self) -> Given {
        Given {
            fresh_for: self.fresh_for,
            stale_for: self.stale_for,
            stale_if_error_for: self.stale_if_error_for,
        }
    }

    /// The value, unless there is none.
    pub fn value(&self) -> Option<&V> {
        self.value.as_ref()
    }
}

impl<V> From<V> for Loaded<V> {
    // Built here and not by `new`, because each call would be a copy of the value.
    fn from(value: V) -> Self {
        Loaded {
            value: Some(value),
            fresh_for: None,
            stale_for: None,
            stale_if_error_for: None,
            groups: Vec::new(),
        }
    }
}

impl<V> From<Option<V>> for Loaded<V> {
    fn from(value: Option<V>) -> Self {
        Loaded::of(value)
    }
}

/// A loader as a type of its own, for [`Builder::loader`](crate::Builder::loader).
///
/// Implement it where a function is not enough: the loader has fields, sees the whole [`Request`]
/// with the previous value, or is named in another type. `load` may be written as an `async fn`,
/// which borrows `self` and the request for as long as it runs.
///
/// The cache calls `load` once for each load or refresh, from its runtime, and at most once at a
/// time for one key within [`load_timeout`](crate::Builder::load_timeout). Loads of different keys
/// run at the same time.
///
/// # Example
///
/// ```
/// # use std::sync::Arc;
/// use everfresh::{Cache, Loader, Request};
///
/// # struct Page { etag: u64, body: String }
/// # struct Client;
/// # impl Client {
/// #     async fn get_if_changed(
/// #         &self, path: &str, etag: Option<u64>,
/// #     ) -> Result<Option<Page>, std::io::Error> {
/// #         Ok(etag.is_none().then(|| Page { etag: 1, body: format!("the page {path}") }))
/// #     }
/// # }
/// struct Pages {
///     client: Client,
/// }
///
/// impl Loader<String, Arc<Page>> for Pages {
///     type Value = Option<Arc<Page>>;
///     type Error = std::io::Error;
///
///     // Keeps the previous page unless the server has another.
///     async fn load(
///         &self,
///         request: &Request<String, Arc<Page>>,
///     ) -> Result<Self::Value, Self::Error> {
///         let previous = request.previous();
///         let etag = previous.map(|page| page.etag);
///         let changed = self.client.get_if_changed(request.key(), etag).await?;
///         Ok(changed.map(Arc::new).or(previous.cloned()))
///     }
/// }
///
/// # #[cfg(feature = "tokio")]
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// # let client = Client;
/// let pages: Cache<String, Arc<Page>> = Cache::builder().loader(Pages { client }).build()?;
/// assert_eq!(pages.get("/").await?.body, "the page /");
/// assert_eq!(pages.refresh("/").await?.body, "the page /");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a `Loader` for keys `{K}` and values `{V}`",
    label = "does not implement `Loader<{K}, {V}>`",
    note = "a function of the key is given with `load` or `try_load`, and one of some state and \
            the key with `load_on` or `try_load_on`"
)]
pub trait Loader<K, V>: Send + Sync + 'static {
    /// The result of a load: a `V`, an `Option<V>` whose `None` means "not found", or a
    /// [`Loaded<V>`](Loaded) with its own times.
    type Value: Into<Loaded<V>>;

    /// Why a load fails; [`Infallible`](std::convert::Infallible) if it never does. Callers get it
    /// as the source of an [`Error`](crate::Error).
    type Error: Into<Box<dyn StdError + Send + Sync>>;

    /// Loads the value of `request`'s key.
    ///
    /// # Errors
    ///
    /// All callers that wait for this load get its error. The key then rests for
    /// [`backoff`](crate::Builder::backoff), and a stale value is served meanwhile.
    ///
    /// # Panics
    ///
    /// A panic is caught and becomes an error ([`Error::is_panic`](crate::Error::is_panic)).
    ///
    /// # Cancel safety
    ///
    /// The future is dropped at the [`load_timeout`](crate::Builder::load_timeout), unless
    /// [`keep_late_loads`](crate::Builder::keep_late_loads) is set, and when its runtime shuts
    /// down. It is not dropped when its callers give up.
    fn load(
        &self,
        request: &Request<K, V>,
    ) -> impl Future<Output = Result<Self::Value, Self::Error>> + Send;
}

/// An async function of a reference, whose future borrows from nothing but that reference.
///
/// Never implemented by hand: async functions, async closures that capture nothing, and closures
/// that return a future implement it. It exists because the standard [`AsyncFn`] gives no name to
/// its future, so that a caller cannot demand that it is `Send`.
///
/// An async closure that captures something does not implement it, because its future borrows what
/// the closure captured. Give that to [`Builder::load_on`](crate::Builder::load_on) or
/// [`Builder::try_load_on`](crate::Builder::try_load_on) instead, which lend it to the closure.
#[diagnostic::on_unimplemented(
    message = "the future of this loader borrows what the closure captures",
    label = "an async closure that captures something",
    note = "let the cache lend it to the closure, with `load_on` or `try_load_on`: \
            `.try_load_on(db, async |db: &Db, key: &Key| db.find(key).await)`",
    note = "or implement `Loader` for a type that has it as a field, and give it with `loader`"
)]
pub trait LoadFn<'a, A: 'a, R>: Fn(&'a A) -> Self::Future {
    /// The future that loads.
    type Future: Future<Output = R> + 'a;
}

// Without this attribute the compiler complains about this impl's `Fn` instead, and names no cure.
#[diagnostic::do_not_recommend]
impl<'a, A: 'a, R, F, Fut> LoadFn<'a, A, R> for F
where
    F: Fn(&'a A) -> Fut,
    Fut: Future<Output = R> + 'a,
{
    type Future = Fut;
}

/// An async function of two references, whose future borrows from nothing but those.
///
/// Never implemented by hand. It is to [`Builder::load_on`](crate::Builder::load_on) what
/// [`LoadFn`] is to [`Builder::load`](crate::Builder::load).
#[diagnostic::on_unimplemented(
    message = "the future of this loader borrows what the closure captures",
    label = "an async closure that captures something beside its state `{T}`",
    note = "make it a part of the state that the cache lends to the closure: \
            `.try_load_on((db, config), async |(db, config): &(Db, Config), key: &Key| ..)`",
    note = "or implement `Loader` for a type that has it as a field, and give it with `loader`"
)]
pub trait LoadOnFn<'a, T: 'a, A: 'a, R>: Fn(&'a T, &'a A) -> Self::Future {
    /// The future that loads.
    type Future: Future<Output = R> + 'a;
}

#[diagnostic::do_not_recommend]
impl<'a, T: 'a, A: 'a, R, F, Fut> LoadOnFn<'a, T, A, R> for F
where
    F: Fn(&'a T, &'a A) -> Fut,
    Fut: Future<Output = R> + 'a,
{
    type Future = Fut;
}

/// The one shape to which all loaders are reduced. Boxed at once, because the value may be large,
/// and the frames between the loader and the end of the load would each have room for it.
pub(crate) type Returned<V> = Result<Box<Loaded<V>>, Boxed>;

type Boxed = Box<dyn StdError + Send + Sync>;

/// Moves the result of a loader off the stack.
///
/// Never inlined: the frame of the caller stays while the loader runs, and has room for one copy of
/// the value, but not for those that are made here.
#[inline(never)]
pub(crate) fn boxed<V, L, E>(result: Result<L, E>) -> Returned<V>
where
    L: Into<Loaded<V>>,
    E: Into<Boxed>,
{
    match result {
        Ok(loaded) => Ok(Box::new(loaded.into())),
        Err(error) => Err(error.into()),
    }
}

/// As [`boxed`], for a loader that always succeeds.
#[inline(never)]
pub(crate) fn boxed_value<V>(value: impl Into<Loaded<V>>) -> Returned<V> {
    Ok(Box::new(value.into()))
}

/// An async loader, reduced to the one shape.
pub(crate) trait Load<K, V>: Send + Sync + 'static {
    fn returned(&self, request: &Request<K, V>) -> impl Future<Output = Returned<V>> + Send;
}

/// A [`Loader`].
pub(crate) struct ByType<L>(pub(crate) L);

impl<K, V, L> Load<K, V> for ByType<L>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
    L: Loader<K, V>,
{
    async fn returned(&self, request: &Request<K, V>) -> Returned<V> {
        boxed(self.0.load(request).await)
    }
}

/// An async function of the key, and how its result is read.
pub(crate) struct OnKey<F, R, V>(pub(crate) F, pub(crate) fn(R) -> Returned<V>);

impl<K, V, F, R> Load<K, V> for OnKey<F, R, V>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
    R: 'static,
    F: for<'a> LoadFn<'a, K, R, Future: Send> + Send + Sync + 'static,
{
    async fn returned(&self, request: &Request<K, V>) -> Returned<V> {
        let OnKey(f, read) = self;
        read(f(request.key()).await)
    }
}

/// Some state, an async function of it and the key, and how its result is read.
pub(crate) struct OnState<T, F, R, V>(pub(crate) T, pub(crate) F, pub(crate) fn(R) -> Returned<V>);

impl<K, V, T, F, R> Load<K, V> for OnState<T, F, R, V>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
    T: Send + Sync + 'static,
    R: 'static,
    F: for<'a> LoadOnFn<'a, T, K, R, Future: Send> + Send + Sync + 'static,
{
    async fn returned(&self, request: &Request<K, V>) -> Returned<V> {
        let OnState(state, f, read) = self;
        read(f(state, request.key()).await)
    }
}
