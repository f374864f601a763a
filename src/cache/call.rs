//! What a read accepts and what it brings, and the wait of a read that is limited in time.

use std::hash::{BuildHasher, Hash};
use std::time::Duration;

use crate::cache::cached::{Cached, Kept};
use crate::cache::lookup::Lookup;
use crate::cache::read::{Core, Missed, Unserved};
use crate::error::Error;
use crate::load::call::CallFn;
use crate::load::runtime::Caller;
use crate::protocol::entry::Entry;
use crate::protocol::flight::Made;
use crate::protocol::times::OLDEST;
use crate::sync::Arc;
use crate::sync::future::or;
use crate::time::clock::Tick;

/// The terms of one read that found no value which it could just take.
pub(crate) struct CallTerms<V> {
    pub(super) caller: Caller,
    /// A function that loads in the place of the cache's loader.
    pub(super) call: Option<Arc<CallFn<V>>>,
    /// A value older than this is loaded again. [`OLDEST`] is no limit.
    pub(super) max_age: Tick,
    /// When the read began; only with `max_age`.
    pub(super) since: Tick,
    /// Whether a value that is served may be refreshed.
    pub(super) refreshes: bool,
    /// Whether a remembered error counts only within `forced_at_most_every`.
    pub(super) forced: bool,
}

impl<V> From<Caller> for CallTerms<V> {
    fn from(caller: Caller) -> Self {
        CallTerms {
            caller,
            call: None,
            max_age: OLDEST,
            since: 0,
            refreshes: true,
            forced: false,
        }
    }
}

impl<V> CallTerms<V> {
    /// Whether a value is older than this read accepts.
    pub(super) fn is_too_old<K>(&self, entry: &Entry<K, V>, now: Tick) -> bool {
        self.max_age != OLDEST && !entry.is_loading() && entry.is_older_than(self.max_age, now)
    }

    /// Whether this read accepts the value for which it waited. The store may hold one that is
    /// newer than the value here, and too old all the same.
    pub(super) fn accepts<K>(&self, entry: &Entry<K, V>, made: Made, now: Tick) -> bool {
        made != Made::Elsewhere
            || !self.is_too_old(entry, now)
            || entry.times().created() >= self.since
    }
}

impl<K, V, S> Core<K, V, S>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher,
{
    /// [`lookup`](Self::lookup) that takes no value older than this.
    #[inline(always)]
    pub(super) fn lookup_within<Q, R>(
        &self,
        key: &Q,
        hash: u64,
        max_age: Tick,
        hit: impl FnOnce(Cached<K, V>) -> R,
        miss: impl FnOnce(Missed<K, V>) -> R,
    ) -> R
    where
        Q: Lookup<K> + ?Sized,
    {
        let now = self.state.clock.now();
        let found = match self.find(key, hash) {
            Some((place, entry)) => {
                if entry.is_young(max_age, now) {
                    if let Some(source) = self.take(&entry, now, || self.state.counters.fresh(1)) {
                        return hit(Cached::new(entry, now, source));
                    }
                }
                Some((place, entry))
            }
            None => None,
        };
        // In one place, so that it is inlined. As a call it would write its result where a hit is
        // built, which would keep the hit in memory.
        miss(Missed { found, now })
    }

    /// [`finish`](Self::finish), at most until the read has waited for so long.
    pub(super) async fn finish_in_time<Q>(
        &self,
        key: &Q,
        hash: u64,
        unserved: Unserved<K, V>,
        terms: CallTerms<V>,
        wait: Tick,
        began: Tick,
    ) -> Result<Kept<K, V>, Error>
    where
        Q: Lookup<K> + ?Sized,
    {
        let max_age = terms.max_age;
        let finished = self.finish(key, hash, unserved, terms);
        if wait == Tick::MAX {
            return finished.await;
        }
        let clock = &self.state.clock;
        let over = async {
            if wait > 0 {
                // The beginning may lag by one step, and the wait must not end early.
                let step = clock.step();
                let until = began.saturating_add(wait).saturating_add(step);
                clock.sleep_until(until).await;
            }
            None
        };
        if let Some(finished) = or(async { Some(finished.await) }, over).await {
            return finished;
        }
        self.present(key, hash, max_age).ok_or_else(|| {
            self.state.counters.missed();
            Error::still_loading(Duration::from_nanos(wait))
        })
    }

    /// The value that may be served without a wait, if it is not older than this.
    pub(super) fn present<Q>(&self, key: &Q, hash: u64, max_age: Tick) -> Option<Kept<K, V>>
    where
        Q: Lookup<K> + ?Sized,
    {
        let now = self.state.clock.now();
        let (_, entry) = self.find(key, hash)?;
        let condition = self.peek_state(&entry, now)?;
        (!entry.is_older_than(max_age, now)).then(|| self.serve(entry, now, condition))
    }
}
