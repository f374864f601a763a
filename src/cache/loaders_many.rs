//! The loaders of a builder that take many keys.

use std::hash::Hash;
use std::time::Duration;

use crate::cache::builder::{Builder, Made};
use crate::load::batches::Batches;
use crate::load::engine::{Places, computing_many, loading_many};
use crate::load::load_many::{LoadMany, ManyAnswers, OnKeys, OnStateAndKeys, ReturnedMany};
use crate::load::loader::{LoadFn, LoadOnFn};
use crate::load::party::Party;
use crate::load::pool_builder::Place;
use crate::load::runner::BatchSettings;
use crate::load::runtime::Home;
use crate::sync::Arc;
use crate::time::clock::{Tick, ticks};

impl<K, V, S> Builder<K, V, S> {
    /// How many keys a batch has at most, 1 to 65 536, and how long its oldest key waits at most.
    /// Default: 100 keys, 1 ms.
    ///
    /// For a loader that takes many keys. A batch leaves when it is full, when its oldest key has
    /// waited so long, or when a caller waits for one of its keys and no other batch of the cache
    /// is under way. So a single read that misses waits for nothing, and reads that miss while a
    /// batch runs share the next one. The keys of one [`get_many`](crate::Cache::get_many) leave
    /// together, unless adding them takes longer than that. A refresh, for which no caller waits,
    /// waits for company.
    ///
    /// `build` refuses a longest wait of zero or of [`load_timeout`](Self::load_timeout) and above,
    /// and this setting with a loader of one key, where it has no effect.
    ///
    /// # Example
    ///
    /// ```
    /// use std::time::Duration;
    /// use everfresh::Cache;
    ///
    /// let squares: Cache<u64, u64> = Cache::builder()
    ///     .batch(500, Duration::from_millis(5))
    ///     .compute_many(|numbers: &[u64]| numbers.iter().map(|n| (*n, n * n)).collect::<Vec<_>>())
    ///     .build()?;
    /// assert_eq!(*squares.get_blocking(&12)?, 144);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn batch(mut self, max_keys: usize, longest_wait: Duration) -> Self {
        self.settings.runner.batch = Some(BatchSettings {
            max_keys,
            longest_wait,
        });
        self
    }
}

/// # The loader, for many keys
///
/// These loaders take many keys in one call, for an origin that answers many at the price of one: a
/// query with `IN (..)`, a request with a list of ids, a model that runs on many inputs. Missing
/// keys and refreshes of the whole cache are collected into batches, as [`batch`](Self::batch)
/// says. Each key still has its own value, times, deadline and failure, and is asked for once.
///
/// The loader returns an iterator of pairs, for example a `Vec` or a map, plain or in a `Result`.
/// Each pair has a key and its answer: a value, an `Option` of one or a [`Loaded`](crate::Loaded),
/// plain or in a `Result`. Pairs may come in any order.
///
/// - A key without a pair is [not found](crate::Error::is_not_found).
/// - A key with an `Err` fails alone. If the call fails, panics or takes too long, all of its keys
///   do.
/// - Of several pairs with the same key the first counts. Keys that were not asked for are ignored.
///
/// More in [`docs::batches`](crate::docs::batches).
impl<K, V, S> Builder<K, V, S>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// Loads with an async function of many keys, on a runtime.
    ///
    /// It runs as with [`load`](Self::load), once for each batch.
    ///
    /// # Errors
    ///
    /// All keys of the call get the error of the call, as with [`try_load`](Self::try_load), and
    /// rest for [`backoff`](Self::backoff). A key with an `Err` of its own gets that one.
    ///
    /// # Panics
    ///
    /// A panic of the function is caught. All keys of the call get an error that
    /// [`is_panic`](crate::Error::is_panic).
    ///
    /// # Cancel safety
    ///
    /// The future is dropped when the deadlines of all its keys have passed, unless
    /// [`keep_late_loads`](Self::keep_late_loads) is set, and when its runtime shuts down. It is
    /// not dropped when its callers give up.
    ///
    /// # Example
    ///
    /// ```
    /// use std::collections::HashMap;
    /// use everfresh::Cache;
    ///
    /// # type DbError = std::io::Error;
    /// # #[derive(Clone)]
    /// # struct User(String);
    /// # async fn find_all(ids: &[u64]) -> Result<HashMap<u64, User>, DbError> {
    /// #     Ok(ids.iter().filter(|id| **id < 100).map(|id| (*id, User(id.to_string()))).collect())
    /// # }
    /// # #[cfg(feature = "tokio")]
    /// # tokio::runtime::Runtime::new()?.block_on(async {
    /// // async fn find_all(ids: &[u64]) -> Result<HashMap<u64, User>, DbError>
    /// let users: Cache<u64, User> = Cache::builder()
    ///     .load_many(async |ids: &[u64]| find_all(ids).await)
    ///     .build()?;
    ///
    /// let answers = users.get_many(&[7, 8, 700]).await;
    /// assert_eq!(answers[1].as_ref().unwrap().0, "8");
    /// assert!(answers[2].as_ref().is_err_and(|error| error.is_not_found()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn load_many<F, R, M>(self, f: F) -> Self
    where
        F: AsyncFn(&[K]) -> R + for<'a> LoadFn<'a, [K], R, Future: Send> + Send + Sync + 'static,
        R: ManyAnswers<K, V, M> + 'static,
    {
        self.loading_many(OnKeys(f, R::into_answers))
    }

    /// Loads with an async function of some state and many keys, on a runtime. The cache lends the
    /// state to it, for example a pool of connections.
    ///
    /// It runs, fails and is dropped as with [`load_many`](Self::load_many).
    ///
    /// # Example
    ///
    /// With a failure of one key, which leaves the others alone:
    ///
    /// ```
    /// use everfresh::Cache;
    ///
    /// # struct Row { id: u64, json: String }
    /// # struct Pool;
    /// # impl Pool {
    /// #     async fn rows(&self, ids: &[u64]) -> Result<Vec<Row>, std::io::Error> {
    /// #         let json = |id: u64| if id == 2 { "?".to_owned() } else { id.to_string() };
    /// #         Ok(ids.iter().map(|id| Row { id: *id, json: json(*id) }).collect())
    /// #     }
    /// # }
    /// # #[cfg(feature = "tokio")]
    /// # tokio::runtime::Runtime::new()?.block_on(async {
    /// # let pool = Pool;
    /// let numbers: Cache<u64, u64> = Cache::builder()
    ///     .load_many_on(pool, async |pool: &Pool, ids: &[u64]| {
    ///         let rows = pool.rows(ids).await?;
    ///         let number = |row: Row| (row.id, row.json.parse::<u64>());
    ///         Ok::<_, std::io::Error>(rows.into_iter().map(number))
    ///     })
    ///     .build()?;
    ///
    /// let answers = numbers.get_many(&[1, 2, 3]).await;
    /// assert!(answers[0].is_ok() && answers[1].is_err() && answers[2].is_ok());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn load_many_on<T, F, R, M>(self, state: T, f: F) -> Self
    where
        T: Send + Sync + 'static,
        F: AsyncFn(&T, &[K]) -> R
            + for<'a> LoadOnFn<'a, T, [K], R, Future: Send>
            + Send
            + Sync
            + 'static,
        R: ManyAnswers<K, V, M> + 'static,
    {
        self.loading_many(OnStateAndKeys(state, f, R::into_answers))
    }

    /// Loads with a CPU-bound function of many keys.
    ///
    /// It runs as with [`compute`](Self::compute), once for each batch. Different batches run at
    /// the same time.
    ///
    /// # Errors
    ///
    /// As with [`load_many`](Self::load_many).
    ///
    /// # Panics
    ///
    /// As with [`load_many`](Self::load_many).
    ///
    /// # Example
    ///
    /// ```
    /// use everfresh::Cache;
    ///
    /// let squares: Cache<u64, u64> = Cache::builder()
    ///     .compute_many(|numbers: &[u64]| numbers.iter().map(|n| (*n, n * n)).collect::<Vec<_>>())
    ///     .build()?;
    /// let answers = squares.get_many_blocking(&[3, 4, 5]);
    /// assert_eq!(answers.iter().flatten().map(|value| **value).sum::<u64>(), 50);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn compute_many<F, R, M>(mut self, f: F) -> Self
    where
        F: Fn(&[K]) -> R + Send + Sync + 'static,
        R: ManyAnswers<K, V, M>,
    {
        let f = move |keys: &[K]| -> ReturnedMany<K, V> { f(keys).into_answers() };
        self.settings.has_loader = true;
        self.loader = Some(Box::new(|mut runner| {
            let batch = runner.batches()?;
            let pool = runner.place()?;
            let home = Arc::new(pool.home(false));
            let places = Places {
                pool,
                home: home.clone(),
            };
            Ok(in_batches(batch, home, computing_many(places, f)))
        }));
        self
    }

    fn loading_many(mut self, loader: impl LoadMany<K, V>) -> Self {
        self.settings.has_loader = true;
        self.loader = Some(Box::new(|mut runner| {
            let batch = runner.batches()?;
            let home = Arc::new(runner.home()?);
            let places = Places {
                pool: Place::shared(),
                home: home.clone(),
            };
            Ok(in_batches(batch, home, loading_many(places, loader)))
        }));
        self
    }
}

/// Collects the jobs of a cache before they start.
fn in_batches<K, V>(
    batch: BatchSettings,
    home: Arc<Home>,
    start: impl Fn(Party<K, V>) + Send + Sync + 'static,
) -> Made<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    let longest_wait: Tick = ticks(batch.longest_wait);
    let batches = Batches::new(batch.max_keys, longest_wait, start);
    let collects = batches.clone();
    Made {
        start: Box::new(move |job| batches.add(job)),
        home,
        batches: Some(collects),
    }
}
