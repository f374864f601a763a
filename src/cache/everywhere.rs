//! What concerns the second level too: writes that wait for it, and reads of many keys in one request.

use std::borrow::Borrow;
use std::hash::{BuildHasher, Hash};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use super::Cache;
use crate::cache::cached::Cached;
use crate::error::Error;
use crate::fleet::FleetStats;
use crate::load::loader::Loaded;
use crate::store::StoreError;

impl<K, V, S> Cache<K, V, S>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher,
{
    /// [`insert`](Self::insert), and waits until the store, and with it the fleet, has been flushed.
    ///
    /// Without a store it is ready at once.
    ///
    /// # Errors
    ///
    /// The store could not be flushed yet. In this process the value is in; the store is flushed as soon as it can be, and until then this process does
    /// not read the key from it. If 65 536 other keys wait already it is not flushed later: see [`docs::store`](crate::docs::store).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future undoes nothing: the store is flushed all the same, if the future was polled once.
    ///
    /// # Example
    ///
    /// ```
    /// # #[cfg(feature = "postcard")]
    /// # futures_lite::future::block_on(async {
    /// # use std::sync::Arc;
    /// # use everfresh::{Cache, SecondLevel, store::MemoryStore};
    /// let store = Arc::new(MemoryStore::new());
    /// let cache: Cache<u64, u64> = Cache::builder()
    ///     .store(SecondLevel::new(store, "squares:v1")?)
    ///     .compute(|n: &u64| n * n)
    ///     .build()?;
    /// cache.insert_everywhere(3, 10).await?;
    /// assert!(cache.invalidate_everywhere(&3).await?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    pub async fn insert_everywhere(
        &self,
        key: K,
        value: impl Into<Loaded<V>>,
    ) -> Result<(), StoreError> {
        let flushed = self.put(key, value.into());
        match flushed {
            Some(flushed) => flushed.wait().await,
            None => Ok(()),
        }
    }

    /// [`invalidate`](Self::invalidate), and waits until the store, and with it the fleet, has been flushed.
    ///
    /// Other processes stop serving the value when they hear of it, some milliseconds later at most if they are connected.
    ///
    /// # Errors
    ///
    /// As [`insert_everywhere`](Self::insert_everywhere); in this process the key is gone.
    ///
    /// # Cancel safety
    ///
    /// As [`insert_everywhere`](Self::insert_everywhere).
    pub async fn invalidate_everywhere<Q>(&self, key: &Q) -> Result<bool, StoreError>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        let (had_a_value, flushed) = self.remove(key);
        match flushed {
            Some(flushed) => flushed.wait().await.map(|()| had_a_value),
            None => Ok(had_a_value),
        }
    }

    /// Reads many keys from a task, loading those that are absent; one answer for each, in their order.
    ///
    /// The loads run at the same time, and what is asked of a store travels together.
    ///
    /// # Errors
    ///
    /// Each answer as in [`get`](Self::get).
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
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K>,
    {
        let core = &*self.0;
        let mut answers = Vec::with_capacity(keys.len());
        let mut waiting = Vec::new();
        // What is absent is asked for first, and together; the answers are waited for after that.
        let together = core.fleet.as_ref().map(|fleet| fleet.pause());
        for (at, key) in keys.iter().enumerate() {
            let hash = core.hasher.hash_one(key);
            let miss = |missed| core.classify(missed).map(Cached::from);
            answers.push(match core.lookup(key, hash, Ok, miss) {
                Ok(cached) => Some(Ok(cached)),
                Err(looked) => {
                    let mut read = core.finish_boxed(key, hash, looked);
                    // Begins, and wakes nobody: the task waits for one at a time.
                    match Pin::new(&mut read).poll(&mut Context::from_waker(Waker::noop())) {
                        Poll::Ready(kept) => Some(kept.map(Cached::from)),
                        Poll::Pending => {
                            waiting.push((at, read));
                            None
                        }
                    }
                }
            });
        }
        drop(together);
        // From the end, for they are answered in their order: whoever has the last one mostly has them all, after one wake-up.
        for (at, read) in waiting.into_iter().rev() {
            answers[at] = Some(read.await.map(Cached::from));
        }
        // Each is answered: those that were not at once were waited for.
        answers.into_iter().flatten().collect()
    }

    /// What the second level has done so far; `None` without one.
    pub fn store_stats(&self) -> Option<FleetStats> {
        self.0.fleet.as_ref().map(|fleet| fleet.stats())
    }
}
