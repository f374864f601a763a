//! Refreshes that a caller asks for.

use std::hash::{BuildHasher, Hash};
use std::ptr;

use crate::cache::Cache;
use crate::cache::cached::{Cached, Kept, Source};
use crate::cache::call::CallTerms;
use crate::cache::finish::Unread;
use crate::cache::lookup::Lookup;
use crate::cache::read::{Core, Unserved};
use crate::error::Error;
use crate::load::runtime::Caller;
use crate::protocol::entries::Claimed;
use crate::protocol::entry::Entry;
use crate::protocol::flight::{Made, Outcome};

/// The refresh that a caller asks for.
enum Wanted<'a, K, V> {
    /// Any that ends after the call.
    Any,
    /// One that replaces this value, if it is still the one.
    Of(&'a Entry<K, V>),
    /// One that begins after the call.
    FromNow,
}

impl<K, V, S> Core<K, V, S>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher,
{
    async fn refresh<Q>(&self, key: &Q, wanted: Wanted<'_, K, V>) -> Result<Kept<K, V>, Error>
    where
        Q: Lookup<K> + ?Sized,
    {
        if !self.state.has_loader {
            return Err(Error::without_loader());
        }
        let hash = self.hasher.hash_one(key);
        // An attempt that another caller began may end untried, because it was less urgent. Then
        // this caller tries for itself, once.
        let mut may_try_again = true;
        // At the first look, the load that is under way may have begun before this call. An attempt
        // that a later look finds began after the first look: it claims another entry, or claims
        // this one after the first attempt ended.
        let mut has_looked = false;
        let mut terms = CallTerms::from(Caller::GoesOn);
        loop {
            let now = self.state.clock.now();
            let unserved = match self.find(key, hash) {
                Some((place, entry)) if self.remove_if_outdated(place, &entry) => continue,
                Some((place, entry)) => {
                    let claimed = match wanted {
                        Wanted::Of(old) => {
                            let newer = (!ptr::eq(&*entry, old))
                                .then(|| self.peek_state(&entry, now))
                                .flatten();
                            if let Some(condition) = newer {
                                return Ok(Kept::new(entry.into_arc(), now, condition.into()));
                            }
                            if let Some(at_hand) = self.too_soon(&entry, now) {
                                return at_hand;
                            }
                            match self.entries.claim_if_due(place, &entry, now) {
                                Err(error) if !error.is_refusal() => return Err(error),
                                Err(_) => self.force(place, &entry, now),
                                Ok(claimed) => Ok(claimed),
                            }
                        }
                        Wanted::Any => self.force(place, &entry, now),
                        Wanted::FromNow => Ok(self.entries.claim_now(place, &entry, now)),
                    };
                    let claimed = match claimed {
                        Ok(claimed) => claimed,
                        Err(at_hand) => return at_hand,
                    };
                    match claimed {
                        Claimed::Ours(claim) => self.lead(claim, None, &terms),
                        Claimed::Theirs(flight) => Unserved::Wait(flight, None, Source::Coalesced),
                        Claimed::Changed => continue,
                    }
                }
                None => {
                    // A caller that asks for a new answer does not accept a remembered one, unless
                    // that is too young to be asked for again.
                    match wanted {
                        Wanted::Of(_) => {}
                        Wanted::Any if self.state.policy.forced_every > 0 => terms.forced = true,
                        Wanted::Any | Wanted::FromNow => self.forget(key),
                    }
                    Unserved::Missing
                }
            };
            let joined = matches!(unserved, Unserved::Wait(_, _, Source::Coalesced));
            let (error, was_tried) = match wanted {
                Wanted::Any | Wanted::Of(_) => {
                    match self.load_or_wait(key, hash, unserved, &terms).await {
                        Ok(kept) => return Ok(kept),
                        Err(Unread { error, .. }) => {
                            let was_tried = !error.is_refusal();
                            (error, was_tried)
                        }
                    }
                }
                Wanted::FromNow => {
                    let (flight, source) = match self.begun(key, hash, unserved).await? {
                        Some(begun) => begun,
                        None => continue,
                    };
                    let is_too_old = joined && !has_looked && flight.has_begun();
                    has_looked = true;
                    match self.wait(&flight, source).await? {
                        _ if is_too_old => continue,
                        // Another process may have made this value before the call. A load that
                        // began before it, and passed its deadline, may have this result.
                        Outcome::Published(_, Made::Elsewhere | Made::Earlier)
                        | Outcome::Earlier(_)
                        | Outcome::Superseded => continue,
                        // Another process found no value, perhaps before the call.
                        Outcome::Failed(error) if error.is_not_found() && !flight.has_begun() => {
                            continue;
                        }
                        Outcome::Published(entry, Made::Here) => {
                            match self.hand_over(entry, source) {
                                Some(kept) => return Ok(kept),
                                None => continue,
                            }
                        }
                        Outcome::Failed(error) => (error, flight.has_begun()),
                    }
                }
            };
            if was_tried || !(joined && may_try_again) {
                return Err(error);
            }
            may_try_again = false;
        }
    }
}

impl<K, V, S> Cache<K, V, S>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher,
{
    /// Replaces the value of a key now, from a task, and returns the new one; loads a missing key.
    ///
    /// It joins the refresh that is running, if there is one. Other callers read the old value
    /// meanwhile. A failure is returned, and the old value stays. It starts at once, also during
    /// the backoff after a failure, if the breaker is closed. It waits for a permit as other loads
    /// do.
    ///
    /// With [`forced_at_most_every`](crate::Builder::forced_at_most_every) a call that comes too
    /// soon after the last load or attempt starts none. It gets the value at hand, or the
    /// remembered error.
    ///
    /// Two other forms ask for less or for more:
    ///
    /// - [`refresh_if`](Self::refresh_if) replaces a value that the caller has seen, and does
    ///   nothing if it was replaced already. Use it if many callers find out at once that a value
    ///   is bad.
    /// - [`refresh_from_now`](Self::refresh_from_now) joins no refresh that began before the call.
    ///   Use it after a write to the origin.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get), and also when there is an old value.
    ///
    /// # Panics
    ///
    /// As [`get`](Self::get).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the refresh running.
    ///
    /// # Example
    ///
    /// ```
    /// # use everfresh::Cache;
    /// # futures_lite::future::block_on(async {
    /// let cache: Cache<u64, u64> = Cache::builder().compute(|n: &u64| n * n).build()?;
    /// cache.insert(3, 10);
    /// assert_eq!(*cache.refresh(&3).await?, 9);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    pub async fn refresh<Q>(&self, key: &Q) -> Result<Cached<K, V>, Error>
    where
        Q: Lookup<K> + ?Sized,
    {
        let kept = self.0.refresh(key, Wanted::Any).await;
        kept.map(Cached::from)
    }

    /// Replaces the value of a key now, from a thread; the same as [`refresh`](Self::refresh).
    ///
    /// Not for tasks: it blocks the runtime's thread.
    ///
    /// # Errors
    ///
    /// As [`refresh`](Self::refresh), and as [`get_blocking`](Self::get_blocking).
    ///
    /// # Panics
    ///
    /// As [`get`](Self::get).
    ///
    /// # Example
    ///
    /// ```
    /// # use everfresh::Cache;
    /// let cache: Cache<u64, u64> = Cache::builder().compute(|n: &u64| n * n).build()?;
    /// cache.insert(3, 10);
    /// assert_eq!(*cache.refresh_blocking(&3)?, 9);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn refresh_blocking<Q>(&self, key: &Q) -> Result<Cached<K, V>, Error>
    where
        Q: Lookup<K> + ?Sized,
    {
        self.blocking(self.refresh(key))
    }

    /// Replaces a value that the caller has read, if it is still the one, from a task.
    ///
    /// For callers that find out that a value is bad: a server refuses a token, a peer has moved.
    /// All callers that saw one value share one load, however far apart they come:
    ///
    /// - The value is still the one: it is refreshed now, whatever its age. A refresh that runs
    ///   already is joined.
    /// - The value was replaced: the newer one is returned at once, and nothing is loaded. Not
    ///   counted as a read.
    /// - The key is gone: it is loaded, as by [`get`](Self::get). So are a newer value past its
    ///   hard limit, and a value that was never resident because there was no room for it.
    ///
    /// With [`forced_at_most_every`](crate::Builder::forced_at_most_every) callers that come too
    /// soon after the last load get the value at hand, also the one that they have read.
    ///
    /// After a refresh that failed, callers get its error until the
    /// [`backoff`](crate::Builder::backoff) is over, and the old value stays. Other callers read
    /// the old value all the time. To stop that, use [`invalidate`](Self::invalidate).
    ///
    /// # Errors
    ///
    /// As [`refresh`](Self::refresh).
    ///
    /// # Panics
    ///
    /// As [`get`](Self::get).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the refresh running.
    ///
    /// # Example
    ///
    /// ```
    /// # use std::sync::atomic::{AtomicU64, Ordering};
    /// # use everfresh::Cache;
    /// # futures_lite::future::block_on(async {
    /// let issued = AtomicU64::new(0);
    /// let tokens: Cache<(), u64> = Cache::builder()
    ///     .compute(move |&()| issued.fetch_add(1, Ordering::Relaxed))
    ///     .build()?;
    /// let token = tokens.get(&()).await?;
    /// // The server refuses the token, and two callers say so.
    /// assert_eq!(*tokens.refresh_if(&token).await?, 1);
    /// assert_eq!(*tokens.refresh_if(&token).await?, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    pub async fn refresh_if(&self, seen: &Cached<K, V>) -> Result<Cached<K, V>, Error> {
        let (old, _) = seen.parts();
        let kept = self.0.refresh(&old.key, Wanted::Of(old)).await;
        kept.map(Cached::from)
    }

    /// Replaces a value that the caller has read, if it is still the one, from a thread; the same
    /// as [`refresh_if`](Self::refresh_if).
    ///
    /// Not for tasks: it blocks the runtime's thread.
    ///
    /// # Errors
    ///
    /// As [`refresh_blocking`](Self::refresh_blocking).
    ///
    /// # Panics
    ///
    /// As [`get`](Self::get).
    pub fn refresh_if_blocking(&self, seen: &Cached<K, V>) -> Result<Cached<K, V>, Error> {
        self.blocking(self.refresh_if(seen))
    }

    /// Replaces the value of a key by the result of a load that begins after this call, from a
    /// task.
    ///
    /// For a caller that has just written to the origin. A load that is running may have read the
    /// origin before that write, so this call waits for its end and then starts another. Callers
    /// that wait together share that one. A load that still waits for its turn is joined, because
    /// it reads the origin later. Other callers read the old value meanwhile, and may see
    /// the result of the earlier load for a moment. To stop both, use
    /// [`invalidate`](Self::invalidate), because no load from before it outlives it.
    ///
    /// [`forced_at_most_every`](crate::Builder::forced_at_most_every) does not limit it.
    ///
    /// It starts at once if no load runs, even if the last refresh failed. With a store, a value
    /// that another process has put there is not enough: this process loads.
    ///
    /// # Cost
    ///
    /// At most the rest of the running load and one load.
    ///
    /// # Errors
    ///
    /// As [`refresh`](Self::refresh). The earlier load may fail; only the later one counts.
    ///
    /// # Panics
    ///
    /// As [`get`](Self::get).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future before its load has begun starts none; after it, the load runs on.
    ///
    /// # Example
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use std::sync::atomic::{AtomicU64, Ordering};
    /// # use everfresh::Cache;
    /// # futures_lite::future::block_on(async {
    /// let origin = Arc::new(AtomicU64::new(1));
    /// let read = origin.clone();
    /// let cache: Cache<(), u64> = Cache::builder()
    ///     .compute(move |&()| read.load(Ordering::Relaxed))
    ///     .build()?;
    /// assert_eq!(*cache.get(&()).await?, 1);
    /// origin.store(2, Ordering::Relaxed);
    /// assert_eq!(*cache.refresh_from_now(&()).await?, 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    pub async fn refresh_from_now<Q>(&self, key: &Q) -> Result<Cached<K, V>, Error>
    where
        Q: Lookup<K> + ?Sized,
    {
        let kept = self.0.refresh(key, Wanted::FromNow).await;
        kept.map(Cached::from)
    }

    /// Replaces the value of a key by the result of a load that begins after this call, from a
    /// thread; the same as [`refresh_from_now`](Self::refresh_from_now).
    ///
    /// Not for tasks: it blocks the runtime's thread.
    ///
    /// # Errors
    ///
    /// As [`refresh_blocking`](Self::refresh_blocking).
    ///
    /// # Panics
    ///
    /// As [`get`](Self::get).
    pub fn refresh_from_now_blocking<Q>(&self, key: &Q) -> Result<Cached<K, V>, Error>
    where
        Q: Lookup<K> + ?Sized,
    {
        self.blocking(self.refresh_from_now(key))
    }

    fn blocking(
        &self,
        refresh: impl Future<Output = Result<Cached<K, V>, Error>>,
    ) -> Result<Cached<K, V>, Error> {
        let refreshed = self.0.block_on(refresh);
        refreshed.unwrap_or_else(|| Err(Error::would_block()))
    }
}
