//! The clean end of a cache.

use std::error::Error as StdError;
use std::fmt;
use std::hash::{BuildHasher, Hash};

use crate::cache::Cache;
use crate::cache::read::Core;
use crate::load::admission::is_inside_a_load;
use crate::load::lifecycle::Left;
use crate::sync::future::or;
use crate::time::clock::Tick;

/// After the limit of a close, how long it waits for the last answers of the store.
const LAST_ANSWERS: Tick = 1_000_000_000;

/// Why a [close](Cache::close) did not end as it should.
#[derive(Clone, PartialEq, Eq)]
pub struct CloseError(CloseCause);

#[derive(Clone, Debug, PartialEq, Eq)]
enum CloseCause {
    Left(Left),
    InsideALoad,
    WouldBlock,
}

impl CloseError {
    /// The counts of unfinished work when the limit had passed, all 0 if the call did not wait.
    pub fn left(&self) -> Left {
        match self.0 {
            CloseCause::Left(left) => left,
            CloseCause::InsideALoad | CloseCause::WouldBlock => Left::default(),
        }
    }

    /// The call came from a load, or from a worker of a pool, and would have waited for itself. It
    /// did nothing.
    pub fn is_inside_a_load(&self) -> bool {
        self.0 == CloseCause::InsideALoad
    }

    /// The call would have blocked the only thread of the runtime on which the loads run. The close
    /// has begun, but no call waits for its end. Use `close().await`.
    pub fn is_would_block(&self) -> bool {
        self.0 == CloseCause::WouldBlock
    }
}

impl fmt::Display for CloseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            CloseCause::Left(left) => write!(f, "the cache was closed at its limit: {left}"),
            CloseCause::InsideALoad => f.write_str(
                "a load cannot close a cache, because the close would wait for that load; close it \
                 from outside",
            ),
            CloseCause::WouldBlock => f.write_str(
                "this thread runs the loads that the close would wait for; use `close().await`",
            ),
        }
    }
}

impl fmt::Debug for CloseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl StdError for CloseError {}

impl<K, V, S> Core<K, V, S> {
    async fn close(&self) -> Result<(), CloseError> {
        if is_inside_a_load() {
            return Err(CloseError(CloseCause::InsideALoad));
        }
        let (lifecycle, clock) = (&*self.state.lifecycle, &self.state.clock);
        let limit =
            lifecycle.begin_close(|| clock.now().saturating_add(self.state.common.close_for));
        if let Some(level) = &self.fleet {
            level.closing();
        }
        self.state.start_batches();
        let idle = lifecycle.until(|lifecycle| lifecycle.close_if_idle());
        or(idle, clock.sleep_until(limit)).await;
        lifecycle.close();
        self.state.admission.close();
        self.state.start_batches();
        let mut pending = 0;
        if let Some(level) = &self.fleet {
            level.end(clock.now().saturating_add(LAST_ANSWERS)).await;
            pending = level.stats().pending;
        }
        match lifecycle.outcome(pending) {
            left if left == Left::default() => Ok(()),
            left => Err(CloseError(CloseCause::Left(left))),
        }
    }
}

impl<K, V, S> Cache<K, V, S>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher,
{
    /// Ends the cache cleanly, from a task: nothing that is under way is lost.
    ///
    /// No load starts from now on. The loads under way may end, and so may the loads that they wait
    /// for. Their results go to the store, and so do pending writes; leases are given back. All
    /// this takes at most [`close_timeout`](crate::Builder::close_timeout). At the limit, loads
    /// that still run give their leases back, so that other processes load these keys at once, and
    /// loads that have not begun end with an error that [`is_closed`](crate::Error::is_closed).
    ///
    /// Then the cache drops its reference to the [store](crate::SecondLevel). Other caches can go
    /// on using the store. If this was its last user, its connections end, or its file is written
    /// and can be opened again.
    ///
    /// Without a store it only waits for the loads. Dropping the last handle, without a close,
    /// gives the leases back, and waits for nothing.
    ///
    /// # A closed cache
    ///
    /// - A read gets the value that is resident, up to its hard limit, and starts no refresh.
    ///   Without one it gets an error that [`is_closed`](crate::Error::is_closed), at once.
    /// - `insert` and `invalidate` act in this process only. `insert_everywhere` and
    ///   `invalidate_everywhere` also return an error of class
    ///   [`Closed`](crate::store::ErrorClass::Closed).
    ///
    /// A read or write that races with a close counts as before it or as after it. If it counts as
    /// before, the close waits for its load, or until the store has the write. A second call waits
    /// for the end of the same close, and returns the same result.
    ///
    /// # Errors
    ///
    /// - The limit passed first: [`CloseError::left`] counts what was lost.
    /// - [`CloseError::is_inside_a_load`]: a loader, or another function on a thread of the pool,
    ///   must not wait for itself.
    ///
    /// # Cancel safety
    ///
    /// The first poll begins the close, and nothing undoes that. Dropping the future stops only the
    /// wait, and the cache keeps its store. Another call continues the close.
    ///
    /// # Example
    ///
    /// ```
    /// # use everfresh::Cache;
    /// # futures_lite::future::block_on(async {
    /// let squares: Cache<u64, u64> = Cache::builder().compute(|n: &u64| n * n).build()?;
    /// assert_eq!(*squares.get(&3).await?, 9);
    /// if let Err(error) = squares.close().await {
    ///     eprintln!("{error}");
    /// }
    /// assert_eq!(*squares.get(&3).await?, 9);
    /// assert!(squares.get(&4).await.is_err_and(|error| error.is_closed()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    pub async fn close(&self) -> Result<(), CloseError> {
        self.0.close().await
    }

    /// Ends the cache cleanly, from a thread; the same as [`close`](Self::close).
    ///
    /// Not for tasks: it blocks the runtime's thread, as [`get_blocking`](Self::get_blocking) does
    /// on a miss.
    ///
    /// # Errors
    ///
    /// As [`close`](Self::close), and [`CloseError::is_would_block`].
    ///
    /// # Example
    ///
    /// ```
    /// # use everfresh::Cache;
    /// let squares: Cache<u64, u64> = Cache::builder().compute(|n: &u64| n * n).build()?;
    /// assert_eq!(*squares.get_blocking(&3)?, 9);
    /// squares.close_blocking()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn close_blocking(&self) -> Result<(), CloseError> {
        let closed = self.0.block_on(self.0.close());
        closed.unwrap_or(Err(CloseError(CloseCause::WouldBlock)))
    }
}
