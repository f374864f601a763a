//! The future of [`Cache::get`](crate::Cache::get).

use std::hash::{BuildHasher, Hash};
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::cache::cached::{Cached, Kept};
use crate::cache::lookup::Lookup;
use crate::cache::read::{Core, Missed, Unserved};
use crate::error::Error;
use crate::load::runtime::Caller;
use crate::sync::future::poll_out_of_line;

/// A read from a task.
///
/// Not the future of an `async fn`: that is no longer inlined where a program awaits it in several
/// places, and then its result is copied from memory, which takes half as long as a hit.
struct Get<'a, K, V, S, Q: ?Sized, F, W> {
    core: &'a Core<K, V, S>,
    key: &'a Q,
    hash: u64,
    /// [`Core::finish_boxed`], whose result has no name.
    finish: F,
    waits: Option<W>,
}

impl<K, V, S> Core<K, V, S>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher,
{
    /// [`Cache::get`](crate::Cache::get) of a key whose hash is known.
    #[inline(always)]
    pub(super) fn get<'a, Q>(
        &'a self,
        key: &'a Q,
        hash: u64,
    ) -> impl Future<Output = Result<Cached<K, V>, Error>>
    where
        Q: Lookup<K> + ?Sized,
    {
        Get {
            core: self,
            key,
            hash,
            finish: Self::finish_boxed::<Q>,
            waits: None,
        }
    }
}

impl<'a, K, V, S, Q, F, W> Get<'a, K, V, S, Q, F, W>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher,
    Q: Lookup<K> + ?Sized,
    F: Fn(&'a Core<K, V, S>, &'a Q, u64, Unserved<K, V>, Caller) -> W,
    W: Future<Output = Result<Kept<K, V>, Error>> + Unpin,
{
    /// A read that could not just take a value.
    #[inline(never)]
    fn begin(
        &mut self,
        missed: Missed<K, V>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Kept<K, V>, Error>> {
        match self.core.classify(missed, &Caller::Awaits.into()) {
            Ok(kept) => Poll::Ready(Ok(kept)),
            Err(unserved) => {
                let wait = (self.finish)(self.core, self.key, self.hash, unserved, Caller::Awaits);
                poll_out_of_line(Pin::new(self.waits.insert(wait)), cx)
            }
        }
    }
}

impl<'a, K, V, S, Q, F, W> Future for Get<'a, K, V, S, Q, F, W>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher,
    Q: Lookup<K> + ?Sized,
    F: Fn(&'a Core<K, V, S>, &'a Q, u64, Unserved<K, V>, Caller) -> W + Unpin,
    W: Future<Output = Result<Kept<K, V>, Error>> + Unpin,
{
    type Output = Result<Cached<K, V>, Error>;

    // Not a call: it would write a hit to memory.
    #[inline(always)]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let cached = |kept: Result<Kept<K, V>, Error>| kept.map(Cached::from);
        if let Some(waits) = &mut this.waits {
            return poll_out_of_line(Pin::new(waits), cx).map(cached);
        }
        let (core, key, hash) = (this.core, this.key, this.hash);
        let hit = |cached| Poll::Ready(Ok(cached));
        let miss = |missed| this.begin(missed, cx).map(cached);
        core.lookup(key, hash, |_, _, _| true, hit, miss)
    }
}
