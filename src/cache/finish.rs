//! The end of a read that was not served at once: it waits, and is counted.

use std::future::poll_fn;
use std::hash::{BuildHasher, Hash};
use std::pin::pin;

use crate::cache::cached::{Kept, Source};
use crate::cache::call::CallTerms;
use crate::cache::lookup::Lookup;
use crate::cache::read::{Core, Missed, Unserved};
use crate::error::Error;
use crate::load::runtime::Caller;
use crate::sync::future::poll_out_of_line;

/// The error of a read that got no value.
pub(crate) struct Unread {
    pub(crate) error: Error,
    /// Whether it was remembered: nothing was loaded for this read.
    pub(super) negative: bool,
}

impl From<Error> for Unread {
    fn from(error: Error) -> Self {
        Unread {
            error,
            negative: false,
        }
    }
}

impl<K, V, S> Core<K, V, S>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher,
{
    /// Finishes a read that could not be served at once, and counts it.
    pub(super) async fn finish<Q>(
        &self,
        key: &Q,
        hash: u64,
        mut unserved: Unserved<K, V>,
        terms: CallTerms<V>,
    ) -> Result<Kept<K, V>, Error>
    where
        Q: Lookup<K> + ?Sized,
    {
        let mut joined = matches!(unserved, Unserved::Wait(_, _, Source::Coalesced));
        let result = loop {
            let result = self.load_or_wait(key, hash, unserved, &terms).await;
            let is_refused = |Unread { error, .. }: &Unread| {
                // Or the load that this caller joined was taken over by one without a function.
                error.is_overloaded() || error.is_without_loader()
            };
            if !(joined && result.as_ref().is_err_and(is_refused)) {
                break result;
            }
            // The value expired during its refresh, which was then put off. There may be room for a
            // load by now, so this caller tries for itself, once.
            joined = false;
            unserved = match self.read_kept(&key.to_key(), hash, &terms) {
                Ok(kept) => break Ok(kept),
                Err(unserved) => unserved,
            };
        };
        let waited = |kept: &Kept<K, V>| {
            matches!(
                kept.source(),
                Source::Loaded | Source::Coalesced | Source::Store
            )
        };
        match &result {
            Ok(kept) if !waited(kept) => {}
            Err(unread) if unread.negative => self.state.counters.negative(),
            _ => self.state.counters.missed(),
        }
        result.map_err(|unread| unread.error)
    }

    /// [`read`](Self::read) after a wait, out of line: the code of a hit is not repeated for it.
    #[inline(never)]
    pub(super) fn read_kept(
        &self,
        key: &K,
        hash: u64,
        terms: &CallTerms<V>,
    ) -> Result<Kept<K, V>, Unserved<K, V>> {
        let now = self.state.clock.now();
        let found = self.entries.resident(hash, key);
        let young = found
            .as_ref()
            .filter(|(_, entry)| !terms.is_too_old(entry, now));
        if let Some((_, entry)) = young {
            let count_fresh = || self.state.counters.fresh(1);
            if let Some(source) = self.take(entry, entry.early_from(), now, count_fresh) {
                return Ok(Kept::new(entry.arc().clone(), now, source));
            }
        }
        self.classify(Missed { found, now }, terms)
    }

    /// The value of a key whose load this thread ran past its deadline, if it was published.
    pub(super) fn late(&self, key: &K, hash: u64, caller: Caller) -> Option<Kept<K, V>> {
        if !self.state.home.runs_for(caller) {
            return None;
        }
        let now = self.state.clock.now();
        let (_, entry) = self.entries.resident(hash, key)?;
        let served = self.entries.is_servable(&entry, now);
        served.then(|| Kept::new(entry.into_arc(), now, Source::Loaded))
    }

    /// [`finish`](Self::finish) for threads, out of line: a hit does not pay for the frame of a
    /// wait.
    #[inline(never)]
    pub(super) fn finish_blocking<Q>(
        &self,
        key: &Q,
        hash: u64,
        missed: Missed<K, V>,
    ) -> Result<Kept<K, V>, Error>
    where
        Q: Lookup<K> + ?Sized,
    {
        let terms = CallTerms::from(Caller::Blocks);
        match self.classify(missed, &terms) {
            Ok(kept) => Ok(kept),
            Err(unserved) => {
                let mut finish = pin!(self.finish(key, hash, unserved, terms));
                let finished = self.block_on(poll_fn(|cx| poll_out_of_line(finish.as_mut(), cx)));
                finished.unwrap_or_else(|| Err(self.not_waited()))
            }
        }
    }

    /// The error of a read that must not wait on this thread, and counts it.
    pub(crate) fn not_waited(&self) -> Error {
        self.state.counters.missed();
        Error::would_block()
    }

    /// [`finish`](Self::finish) of many reads, one after the other, in one box.
    #[inline(never)]
    pub(crate) fn finish_many<'a, Q>(
        &'a self,
        keys: &'a [Q],
        waiting: Vec<(usize, u64, Unserved<K, V>)>,
        mut answer: impl FnMut(usize, Result<Kept<K, V>, Error>) + 'a,
    ) -> impl Future<Output = ()> + Unpin + 'a
    where
        Q: Lookup<K>,
    {
        let mut finish = Box::pin(async move {
            for (at, hash, unserved) in waiting {
                let kept = self.finish(&keys[at], hash, unserved, Caller::GoesOn.into());
                answer(at, kept.await);
            }
        });
        poll_fn(move |cx| poll_out_of_line(finish.as_mut(), cx))
    }

    /// [`finish`](Self::finish) for tasks, out of line and boxed: the future of a hit stays small.
    #[inline(never)]
    pub(crate) fn finish_boxed<'a, Q>(
        &'a self,
        key: &'a Q,
        hash: u64,
        unserved: Unserved<K, V>,
        caller: Caller,
    ) -> impl Future<Output = Result<Kept<K, V>, Error>> + Unpin + 'a
    where
        Q: Lookup<K> + ?Sized,
    {
        let mut finish = Box::pin(self.finish(key, hash, unserved, caller.into()));
        poll_fn(move |cx| poll_out_of_line(finish.as_mut(), cx))
    }
}
