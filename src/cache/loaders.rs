//! The loaders that a builder takes. Each comes down to one of two shapes: a function on the pool,
//! or a [`Loader`] on a runtime.

use std::error::Error as StdError;
use std::hash::Hash;

use crate::cache::builder::{Builder, Made};
use crate::load::engine::{Places, by_calls, computing, loading};
use crate::load::loader::{
    ByType, Load, LoadFn, LoadOnFn, Loaded, Loader, OnKey, OnState, Request, Returned, boxed,
    boxed_value,
};
use crate::load::pool_builder::Place;
use crate::sync::Arc;

/// # The loader
///
/// Every loader returns a value, an `Option` whose `None` says that the key has no value at the
/// origin, or a [`Loaded`] with times of its own. A key without a value is remembered for
/// [`not_found_for`](Self::not_found_for), and its callers get an error that
/// [`is_not_found`](crate::Error::is_not_found).
///
/// A closure names the type of its parameter, which is a reference to the key type: `|id: &u64|`,
/// or `|name: &String|` for keys of type `String`. With `|name: &str|` the compiler takes `str` for
/// the key type, and reports that `str` is not `Clone`. A closure that never returns also names its
/// result: `|_: &u64| -> u64 { todo!() }`.
impl<K, V, S> Builder<K, V, S>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// Loads with a CPU-bound function of the key that always succeeds.
    ///
    /// It runs on a thread of the [`pool`](Self::pool), once for each load, and for different keys
    /// at the same time. `rayon::join` and parallel iterators in it run on that pool too.
    ///
    /// # Panics
    ///
    /// A panic of the function is caught. Its callers get an error that
    /// [`is_panic`](crate::Error::is_panic).
    ///
    /// # Example
    ///
    /// ```
    /// use everfresh::Cache;
    ///
    /// let squares = Cache::<u64, u64>::builder()
    ///     .compute(|n: &u64| n * n)
    ///     .build()?;
    /// assert_eq!(*squares.get_blocking(&12)?, 144);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// With an `Option`, some keys have no value:
    ///
    /// ```
    /// use std::collections::HashMap;
    /// use everfresh::Cache;
    ///
    /// # fn table() -> &'static HashMap<u64, String> {
    /// #     Box::leak(Box::new(HashMap::from([(7, "seven".to_owned())])))
    /// # }
    /// let table: &'static HashMap<u64, String> = table();
    /// let names: Cache<u64, String> = Cache::builder()
    ///     .compute(|id: &u64| table.get(id).cloned())
    ///     .build()?;
    /// assert_eq!(*names.get_blocking(&7)?, "seven");
    /// assert!(names.get_blocking(&8).is_err_and(|error| error.is_not_found()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn compute<F, L>(self, f: F) -> Self
    where
        F: Fn(&K) -> L + Send + Sync + 'static,
        L: Into<Loaded<V>>,
    {
        self.computing(move |request| boxed_value(f(request.key())))
    }

    /// Loads with a CPU-bound function of the key that may fail.
    ///
    /// It runs as with [`compute`](Self::compute).
    ///
    /// # Errors
    ///
    /// All callers that wait for the load get the function's error, as the source of their own:
    /// [`Error::downcast_ref`](crate::Error::downcast_ref) finds it. The key then rests for
    /// [`backoff`](Self::backoff).
    ///
    /// # Panics
    ///
    /// As with [`compute`](Self::compute).
    ///
    /// # Example
    ///
    /// ```
    /// use std::num::ParseIntError;
    /// use everfresh::Cache;
    ///
    /// let numbers: Cache<String, u64> = Cache::builder()
    ///     .try_compute(|text: &String| text.parse::<u64>())
    ///     .build()?;
    /// assert_eq!(*numbers.get_blocking("12")?, 12);
    /// let error = numbers.get_blocking("twelve").unwrap_err();
    /// assert!(error.downcast_ref::<ParseIntError>().is_some());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn try_compute<F, L, E>(self, f: F) -> Self
    where
        F: Fn(&K) -> Result<L, E> + Send + Sync + 'static,
        L: Into<Loaded<V>>,
        E: Into<Box<dyn StdError + Send + Sync>>,
    {
        self.computing(move |request| boxed(f(request.key())))
    }

    /// Loads with a CPU-bound function of the [`Request`], which has the previous value and
    /// [the cache](Request::cache) beside the key.
    ///
    /// It runs as with [`compute`](Self::compute), and fails as with
    /// [`try_compute`](Self::try_compute).
    ///
    /// # Example
    ///
    /// ```
    /// use std::convert::Infallible;
    /// use std::time::Duration;
    /// use everfresh::{Cache, Loaded, Request};
    ///
    /// // A value that did not change is fresh for longer.
    /// let cache: Cache<u64, u64> = Cache::builder()
    ///     .compute_with(|request: &Request<u64, u64>| {
    ///         let value = request.key() / 10;
    ///         let steady = request.previous() == Some(&value);
    ///         let fresh_for = Duration::from_secs(if steady { 600 } else { 60 });
    ///         Ok::<_, Infallible>(Loaded::new(value).fresh_for(fresh_for))
    ///     })
    ///     .build()?;
    /// assert_eq!(*cache.get_blocking(&42)?, 4);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn compute_with<F, L, E>(self, f: F) -> Self
    where
        F: Fn(&Request<K, V>) -> Result<L, E> + Send + Sync + 'static,
        L: Into<Loaded<V>>,
        E: Into<Box<dyn StdError + Send + Sync>>,
    {
        self.computing(move |request| boxed(f(request)))
    }

    /// Loads with an async function of the key that always succeeds.
    ///
    /// Its future runs on the [`spawner`](Self::spawner), or on the tokio runtime that is current
    /// where the load begins, else on that in which [`build`](Self::build) was called. On tokio, a
    /// task that awaits a missing value polls the future once itself, and spawns it only if it is
    /// not ready then; see [`docs::loads`](crate::docs::loads).
    ///
    /// The compiler refuses an async closure that captures a value, because its future would borrow
    /// from the closure: give the value to [`load_on`](Self::load_on).
    ///
    /// # Panics
    ///
    /// A panic of the function or its future is caught. Its callers get an error that
    /// [`is_panic`](crate::Error::is_panic).
    ///
    /// # Cancel safety
    ///
    /// The future is dropped at the [`load_timeout`](Self::load_timeout), unless
    /// [`keep_late_loads`](Self::keep_late_loads) is set, and when its runtime shuts down. Its
    /// callers then get an error that [`is_timeout`](crate::Error::is_timeout) or
    /// [`is_cancelled`](crate::Error::is_cancelled). It is not dropped when its callers give up.
    ///
    /// # Example
    ///
    /// ```
    /// use everfresh::Cache;
    ///
    /// # type Key = u64;
    /// # type Value = String;
    /// async fn fetch(key: &Key) -> Value {
    ///     format!("page {key}") // it would ask a server
    /// }
    ///
    /// # #[cfg(feature = "tokio")]
    /// # tokio::runtime::Runtime::new()?.block_on(async {
    /// let pages: Cache<Key, Value> = Cache::builder()
    ///     .load(fetch)
    ///     .build()?;
    /// assert_eq!(*pages.get(&7).await?, "page 7");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn load<F, L>(self, f: F) -> Self
    where
        F: AsyncFn(&K) -> L + for<'a> LoadFn<'a, K, L, Future: Send> + Send + Sync + 'static,
        L: Into<Loaded<V>> + 'static,
    {
        self.loading(OnKey(f, boxed_value))
    }

    /// Loads with an async function of the key that may fail.
    ///
    /// It runs as with [`load`](Self::load), and fails as with [`try_compute`](Self::try_compute).
    /// An async closure that needs a client or another value gets it from
    /// [`try_load_on`](Self::try_load_on).
    ///
    /// # Example
    ///
    /// ```
    /// use std::io::Error;
    /// use everfresh::Cache;
    ///
    /// # #[cfg(feature = "tokio")]
    /// # tokio::runtime::Runtime::new()?.block_on(async {
    /// let names: Cache<u64, String> = Cache::builder()
    ///     .try_load(async |id: &u64| Ok::<_, Error>((*id < 100).then(|| format!("user {id}"))))
    ///     .build()?;
    /// assert_eq!(*names.get(&7).await?, "user 7");
    /// assert!(names.get(&700).await.is_err_and(|error| error.is_not_found()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn try_load<F, L, E>(self, f: F) -> Self
    where
        F: AsyncFn(&K) -> Result<L, E>
            + for<'a> LoadFn<'a, K, Result<L, E>, Future: Send>
            + Send
            + Sync
            + 'static,
        L: Into<Loaded<V>> + 'static,
        E: Into<Box<dyn StdError + Send + Sync>> + 'static,
    {
        self.loading(OnKey(f, boxed))
    }

    /// Loads with an async function of some state and the key that always succeeds.
    ///
    /// The cache keeps the state and lends it to each call, so nothing is cloned. The state is
    /// dropped with the cache, or with the last load that outlives the cache. Otherwise it runs as
    /// with [`load`](Self::load).
    ///
    /// # Example
    ///
    /// ```
    /// use everfresh::Cache;
    ///
    /// # struct Client;
    /// # impl Client { async fn page(&self, path: &str) -> String { format!("the page {path}") } }
    /// # #[cfg(feature = "tokio")]
    /// # tokio::runtime::Runtime::new()?.block_on(async {
    /// let client = Client;
    /// let pages: Cache<String, String> = Cache::builder()
    ///     .load_on(client, async |client: &Client, path: &String| client.page(path).await)
    ///     .build()?;
    /// assert_eq!(*pages.get("/").await?, "the page /");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn load_on<T, F, L>(self, state: T, f: F) -> Self
    where
        T: Send + Sync + 'static,
        F: AsyncFn(&T, &K) -> L
            + for<'a> LoadOnFn<'a, T, K, L, Future: Send>
            + Send
            + Sync
            + 'static,
        L: Into<Loaded<V>> + 'static,
    {
        self.loading(OnState(state, f, boxed_value))
    }

    /// Loads with an async function of some state and the key that may fail: the usual loader of a
    /// cache in front of a database or a service.
    ///
    /// It runs as with [`load_on`](Self::load_on), and fails as with
    /// [`try_compute`](Self::try_compute). Several things make a tuple:
    /// `.try_load_on((db, config), async |(db, config): &(Db, Config), id: &UserId| ..)`.
    ///
    /// # Example
    ///
    /// ```
    /// use everfresh::Cache;
    ///
    /// # type UserId = u64;
    /// # struct User(String);
    /// # struct Pool;
    /// # impl Pool { fn connect() -> Pool { Pool } }
    /// # type DbError = std::io::Error;
    /// # async fn find(_: &Pool, id: UserId) -> Result<Option<User>, DbError> {
    /// #     Ok((id < 100).then(|| User(format!("user {id}"))))
    /// # }
    /// // async fn find(pool: &Pool, id: UserId) -> Result<Option<User>, DbError>
    ///
    /// # #[cfg(feature = "tokio")]
    /// # tokio::runtime::Runtime::new()?.block_on(async {
    /// let pool = Pool::connect();
    /// let users: Cache<UserId, User> = Cache::builder()
    ///     .try_load_on(pool, async |pool: &Pool, id: &UserId| find(pool, *id).await)
    ///     .build()?;
    /// assert_eq!(users.get(&7).await?.0, "user 7");
    /// assert!(users.get(&700).await.is_err_and(|error| error.is_not_found()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn try_load_on<T, F, L, E>(self, state: T, f: F) -> Self
    where
        T: Send + Sync + 'static,
        F: AsyncFn(&T, &K) -> Result<L, E>
            + for<'a> LoadOnFn<'a, T, K, Result<L, E>, Future: Send>
            + Send
            + Sync
            + 'static,
        L: Into<Loaded<V>> + 'static,
        E: Into<Box<dyn StdError + Send + Sync>> + 'static,
    {
        self.loading(OnState(state, f, boxed))
    }

    /// Loads with a [`Loader`], which has fields of its own and sees the [`Request`].
    ///
    /// It runs as with [`load`](Self::load), and fails as with [`try_compute`](Self::try_compute).
    ///
    /// # Example
    ///
    /// ```
    /// use everfresh::{Cache, Loader, Request};
    /// # type UserId = u64;
    /// # struct User(String);
    /// # type DbError = std::io::Error;
    /// # struct Database;
    /// # impl Database {
    /// #     async fn find(&self, id: UserId) -> Result<Option<User>, DbError> {
    /// #         Ok((id < 100).then(|| User(format!("user {id}"))))
    /// #     }
    /// # }
    /// struct Users {
    ///     db: Database,
    /// }
    ///
    /// impl Loader<UserId, User> for Users {
    ///     type Value = Option<User>; // or `User`, or `Loaded<User>`
    ///     type Error = DbError;
    ///
    ///     async fn load(&self, request: &Request<UserId, User>) -> Result<Option<User>, DbError> {
    ///         self.db.find(*request.key()).await
    ///     }
    /// }
    ///
    /// # #[cfg(feature = "tokio")]
    /// # tokio::runtime::Runtime::new()?.block_on(async {
    /// # let db = Database;
    /// let users: Cache<UserId, User> = Cache::builder()
    ///     .loader(Users { db })
    ///     .build()?;
    /// assert_eq!(users.get(&7).await?.0, "user 7");
    /// assert!(users.get(&700).await.is_err_and(|error| error.is_not_found()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn loader(self, loader: impl Loader<K, V>) -> Self {
        self.loading(ByType(loader))
    }

    /// No loader: each read that may have to load brings a function, with
    /// [`or_load`](crate::ReadTerms::or_load), [`or_compute`](crate::ReadTerms::or_compute) or
    /// their variants that may fail.
    ///
    /// For values that can be made only from what the caller has at hand: a connection of the
    /// request, the rights of a user. Callers of a missing key share one load all the same, and the
    /// first caller's function runs for all of them. A stale value is served, and the function of
    /// the caller that found it stale refreshes it in the background.
    ///
    /// A read without a function serves what is there, also a stale value to its hard limit. If the
    /// key is missing, it gets an error that
    /// [`is_without_loader`](crate::Error::is_without_loader), unless a load of another caller is
    /// under way or the [`store`](Self::store) has a value. `refresh` and its variants get that
    /// error too.
    ///
    /// Functions that compute run on the pool. Functions that wait run on the runtime that is
    /// current where the read begins, or on the [`spawner`](Self::spawner). With a spawner, a
    /// blocking read on the only thread of a runtime is the caller's risk, as described at
    /// [`get_blocking`](crate::Cache::get_blocking).
    ///
    /// # Example
    ///
    /// ```
    /// # use everfresh::Cache;
    /// let pages: Cache<u64, String> = Cache::builder().without_loader().build()?;
    /// let title = "News".to_owned(); // of this request
    /// let page = pages.read(&7).or_compute(move || format!("<h1>{title}</h1>")).blocking()?;
    /// assert_eq!(*page, "<h1>News</h1>");
    /// assert_eq!(*pages.get_blocking(&7)?, "<h1>News</h1>");
    /// assert!(pages.get_blocking(&8).unwrap_err().is_without_loader());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn without_loader(mut self) -> Self {
        self.settings.has_loader = false;
        self.loader = Some(Box::new(|runner| {
            let (pool, home) = runner.both()?;
            let home = Arc::new(home);
            let places = Places {
                pool,
                home: home.clone(),
            };
            Ok(Made {
                start: by_calls(places),
                home,
                batches: None,
            })
        }));
        self
    }

    fn loading(mut self, loader: impl Load<K, V>) -> Self {
        self.settings.has_loader = true;
        self.loader = Some(Box::new(|runner| {
            let home = Arc::new(runner.home()?);
            let places = Places {
                pool: Place::shared(),
                home: home.clone(),
            };
            Ok(Made {
                start: loading(places, loader),
                home,
                batches: None,
            })
        }));
        self
    }

    fn computing(
        mut self,
        f: impl Fn(&Request<K, V>) -> Returned<V> + Send + Sync + 'static,
    ) -> Self {
        self.settings.has_loader = true;
        self.loader = Some(Box::new(|runner| {
            let run_on_caller = runner.run_on_caller.unwrap_or(false);
            let pool = runner.place()?;
            let home = Arc::new(pool.home(run_on_caller));
            let places = Places {
                pool,
                home: home.clone(),
            };
            Ok(Made {
                start: computing(places, f),
                home,
                batches: None,
            })
        }));
        self
    }
}
