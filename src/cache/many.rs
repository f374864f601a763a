//! Reads of many keys, whose loads and whose questions to a store run together.

use std::cell::OnceCell;
use std::hash::{BuildHasher, Hash};

use crate::cache::Cache;
use crate::cache::cached::{Cached, Kept};
use crate::cache::lookup::Lookup;
use crate::cache::read::{Core, Unserved};
use crate::error::Error;
use crate::fleet::Reading;
use crate::load::job::Job;
use crate::load::runtime::Caller;
use crate::protocol::flight::Flight;
use crate::sync::StrongArc;
use crate::sync::future::block_on_where;

impl<K, V, S> Cache<K, V, S>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher,
{
    /// Reads many keys from a task, loading those that are missing; one answer for each, in the
    /// order of the keys.
    ///
    /// The loads run at the same time, and the store is asked for all missing keys in one request.
    /// A key that occurs twice is loaded once.
    ///
    /// The slice contains the keys themselves, for example `&[String]`, not `&[&str]`.
    ///
    /// # Cost
    ///
    /// A hit costs what it costs in [`get`](Self::get); a miss allocates its future.
    ///
    /// # Errors
    ///
    /// Each answer as in [`get`](Self::get); one error changes no other answer. If more keys are
    /// missing than [`max_loads`](crate::Builder::max_loads) and [`queue`](crate::Builder::queue)
    /// have room for, the rest get an error that [`is_overloaded`](Error::is_overloaded).
    ///
    /// # Panics
    ///
    /// As [`get`](Self::get).
    ///
    /// # Cancel safety
    ///
    /// As [`get`](Self::get).
    ///
    /// # Example
    ///
    /// ```
    /// # use everfresh::Cache;
    /// # futures_lite::future::block_on(async {
    /// let squares: Cache<u64, u64> = Cache::builder().compute(|n: &u64| n * n).build()?;
    /// let answers = squares.get_many(&[3, 4, 5]).await;
    /// assert_eq!(answers.iter().flatten().map(|value| **value).sum::<u64>(), 50);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    pub async fn get_many<Q>(&self, keys: &[Q]) -> Vec<Result<Cached<K, V>, Error>>
    where
        Q: Lookup<K>,
    {
        let core = &*self.0;
        let (mut answers, waiting, reading) = core.begin_many(keys);
        if let Some((reading, load)) = reading {
            core.read_store(reading, &load).await;
        }
        if !waiting.is_empty() {
            let answer = |at, kept: Result<Kept<K, V>, Error>| {
                answers[at] = Some(kept.map(Cached::from));
            };
            core.finish_many(keys, waiting, answer).await;
        }
        // Every answer is there by now.
        answers.into_iter().flatten().collect()
    }

    /// Reads many keys from a thread; the same as [`get_many`](Self::get_many).
    ///
    /// Not for tasks: on a miss it blocks the runtime's thread.
    ///
    /// # Errors
    ///
    /// Each answer as in [`get`](Self::get).
    ///
    /// # Panics
    ///
    /// As [`get`](Self::get).
    ///
    /// # Example
    ///
    /// ```
    /// # use everfresh::Cache;
    /// let squares: Cache<u64, u64> = Cache::builder().compute(|n: &u64| n * n).build()?;
    /// let answers: Result<Vec<_>, _> = squares.get_many_blocking(&[3, 4]).into_iter().collect();
    /// assert_eq!(*answers?[1], 16);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn get_many_blocking<Q>(&self, keys: &[Q]) -> Vec<Result<Cached<K, V>, Error>>
    where
        Q: Lookup<K>,
    {
        let core = &*self.0;
        let (mut answers, waiting, reading) = core.begin_many(keys);
        if let Some((reading, load)) = reading {
            // If this thread must not wait, the reads below say so.
            core.block_on(core.read_store(reading, &load));
        }
        for (at, hash, unserved) in waiting {
            let kept = core.block_on(core.finish_boxed(&keys[at], hash, unserved, Caller::GoesOn));
            let kept = kept.unwrap_or_else(|| Err(core.not_waited()));
            answers[at] = Some(kept.map(Cached::from));
        }
        answers.into_iter().flatten().collect()
    }
}

/// The answers that are there; for the others their places, hashes, and what to wait for; and what
/// this caller reads from the store, with one of the loads.
type Begun<K, V> = (
    Vec<Option<Result<Cached<K, V>, Error>>>,
    Vec<(usize, u64, Unserved<K, V>)>,
    Option<(Reading<K, V>, StrongArc<Flight<K, V>>)>,
);

impl<K, V, S> Core<K, V, S>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher,
{
    /// Reads many keys without waiting: all loads begin before the first is waited for.
    ///
    /// What to wait for comes from the last key to the first, because loads mostly end in their
    /// order: when the last one has ended, the others have too, and the caller was woken once.
    fn begin_many<Q>(&self, keys: &[Q]) -> Begun<K, V>
    where
        Q: Lookup<K>,
    {
        let mut answers = Vec::with_capacity(keys.len());
        let mut waiting = Vec::new();
        let reading = OnceCell::new();
        let start = |job: Job<K, V>| match &self.fleet {
            Some(level) => {
                let first = || (Reading::new(level.clone()), job.flight().clone());
                reading.get_or_init(first).0.push(job);
            }
            None => (self.start)(job),
        };
        let hold = self.state.hold();
        for (at, key) in keys.iter().enumerate() {
            let hash = self.hasher.hash_one(key);
            answers.push(match self.read(key, hash, Caller::GoesOn) {
                Ok(cached) => Some(Ok(cached)),
                Err(mut unserved) => {
                    if let Unserved::Missing = unserved {
                        // Otherwise the key's turn to wait begins its load, or finds its error.
                        if let Ok((Some(begun), _)) =
                            self.start_missing(&start, key, hash, &Caller::GoesOn.into())
                        {
                            unserved = begun;
                        }
                    }
                    waiting.push((at, hash, unserved));
                    None
                }
            });
        }
        drop(hold);
        waiting.reverse();
        (answers, waiting, reading.into_inner())
    }
}

impl<K, V, S> Core<K, V, S> {
    /// Blocks this thread until the future is ready. `None` if the future would wait for a load
    /// that this thread keeps from running; it has been polled once then.
    pub(crate) fn block_on<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        self.block_on_by(false, future)
    }

    /// The same for a caller that may bring a function that waits.
    pub(crate) fn block_on_by<T>(
        &self,
        by_call: bool,
        future: impl Future<Output = T>,
    ) -> Option<T> {
        let stored = self.fleet.is_some();
        block_on_where(future, |wait| self.state.home.wait(stored, by_call, wait))
    }
}
