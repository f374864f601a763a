//! Reads of many keys, whose loads and whose questions to a store run together.

use std::future::poll_fn;
use std::hash::{BuildHasher, Hash};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use crate::cache::Cache;
use crate::cache::cached::Cached;
use crate::cache::lookup::Lookup;
use crate::cache::read::Core;
use crate::error::Error;
use crate::fleet::Paused;
use crate::sync::future::block_on;

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
    /// Each answer as in [`get`](Self::get); one error changes no other answer.
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
        let mut answers = Vec::with_capacity(keys.len());
        let mut waiting = Vec::new();
        // All loads begin before the first is waited for.
        let together = core.fleet.as_deref().map(Paused::new);
        for (at, key) in keys.iter().enumerate() {
            let hash = core.hasher.hash_one(key);
            answers.push(match core.read(key, hash) {
                Ok(cached) => Some(Ok(cached)),
                Err(unserved) => {
                    let mut read = core.finish_boxed(key, hash, unserved);
                    // This poll only begins the load. It needs no waker, because each read is
                    // polled again below.
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
        // From the end, because loads mostly end in their order: when the last one has ended, the
        // others have too, and the task was woken once.
        for (at, read) in waiting.into_iter().rev() {
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
        self.0.block_on(self.get_many(keys))
    }
}

impl<K, V, S> Core<K, V, S> {
    /// Blocks this thread until the future is ready.
    ///
    /// The caller may be user code that a read of many keys runs while it collects its jobs. Then
    /// no other call starts the jobs that this future waits for.
    pub(crate) fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        block_on(poll_fn(|cx| {
            let polled = future.as_mut().poll(cx);
            if let (Poll::Pending, Some(level)) = (&polled, self.fleet.as_deref()) {
                // The end of a pause starts the jobs of all pauses.
                drop(Paused::new(level));
            }
            polled
        }))
    }
}
