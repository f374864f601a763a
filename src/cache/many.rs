//! Reads of many keys, whose loads and whose questions to a store run together.

use std::future::poll_fn;
use std::hash::{BuildHasher, Hash};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use crate::cache::Cache;
use crate::cache::cached::{Cached, Kept};
use crate::cache::lookup::Lookup;
use crate::cache::read::Core;
use crate::error::Error;
use crate::fleet::Paused;
use crate::load::runtime::Caller;
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
        let (mut answers, waiting) = self.0.begin_many(keys);
        for (at, read) in waiting {
            answers[at] = Some(read.await.map(Cached::from));
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
        let (mut answers, waiting) = core.begin_many(keys);
        for (at, read) in waiting {
            let kept = core.block_on(read);
            let kept = kept.unwrap_or_else(|| Err(core.not_waited()));
            answers[at] = Some(kept.map(Cached::from));
        }
        answers.into_iter().flatten().collect()
    }
}

/// The answers that are there, and the reads to wait for with their places among the answers.
type Begun<K, V, R> = (Vec<Option<Result<Cached<K, V>, Error>>>, Vec<(usize, R)>);

impl<K, V, S> Core<K, V, S>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher,
{
    /// Reads many keys without waiting.
    ///
    /// The reads to wait for come from the last to the first, because loads mostly end in their
    /// order: when the last one has ended, the others have too, and the caller was woken once.
    fn begin_many<'a, Q>(
        &'a self,
        keys: &'a [Q],
    ) -> Begun<K, V, impl Future<Output = Result<Kept<K, V>, Error>> + Unpin + 'a>
    where
        Q: Lookup<K>,
    {
        let mut answers = Vec::with_capacity(keys.len());
        let mut waiting = Vec::new();
        // All loads begin before the first is waited for.
        let together = self.fleet.as_deref().map(Paused::new);
        for (at, key) in keys.iter().enumerate() {
            let hash = self.hasher.hash_one(key);
            answers.push(match self.read(key, hash, Caller::GoesOn) {
                Ok(cached) => Some(Ok(cached)),
                Err(unserved) => {
                    let mut read = self.finish_boxed(key, hash, unserved, Caller::GoesOn);
                    // This poll only begins the load. It needs no waker, because each read is
                    // polled again later.
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
        waiting.reverse();
        (answers, waiting)
    }
}

impl<K, V, S> Core<K, V, S> {
    /// Blocks this thread until the future is ready. `None` if the future would wait for a load
    /// that this thread keeps from running; it has been polled once then.
    ///
    /// The caller may be user code that a read of many keys runs while it collects its jobs. Then
    /// no other call starts the jobs that this future waits for.
    pub(crate) fn block_on<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        let mut future = pin!(future);
        let polled = poll_fn(|cx| {
            let polled = future.as_mut().poll(cx);
            if let (Poll::Pending, Some(level)) = (&polled, self.fleet.as_deref()) {
                // The end of a pause starts the jobs of all pauses.
                drop(Paused::new(level));
            }
            polled
        });
        let stored = self.fleet.is_some();
        block_on_where(polled, |wait| self.state.home.wait(stored, wait))
    }
}
