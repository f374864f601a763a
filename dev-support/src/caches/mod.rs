//! Caches whose clock moves by hand and whose loads are run step by step.

#[cfg(feature = "encryption")]
pub mod encrypted;
pub mod gates;
pub mod tasks;

use std::future::Future;
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use everfresh::{Builder, Cache, Cached, CountingLoader, Error, ManualClock};

use crate::until;
pub use gates::Gates;
pub use tasks::Tasks;

pub type Reading<V, K = u64> = Pin<Box<dyn Future<Output = Result<Cached<K, V>, Error>> + Send>>;

pub const NANO: Duration = Duration::from_nanos(1);

/// Puts all keys into one set of the table, whatever its size.
pub type OneSet = BuildHasherDefault<Constant>;

/// The hasher of [`OneSet`].
#[derive(Default)]
pub struct Constant;

impl Hasher for Constant {
    fn write(&mut self, _: &[u8]) {}

    fn finish(&self) -> u64 {
        0
    }
}

pub fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub fn millis(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// Fresh for 10 s, stale for 20 s, without early refreshes, so that every limit is exact.
pub fn builder<V>(clock: &ManualClock) -> Builder<u64, V> {
    let builder = Cache::builder()
        .clock(clock)
        .fresh_for(secs(10))
        .stale_for(secs(20))
        .beta(0.0);
    // An interpreter takes minutes to make and drop a table of the default capacity.
    match cfg!(miri) {
        true => builder.capacity(20),
        false => builder,
    }
}

/// A cache that computes with `loader`.
pub fn computing<V: Send + Sync + 'static>(
    builder: Builder<u64, V>,
    loader: &CountingLoader<u64, V>,
) -> Cache<u64, V> {
    let loader = loader.clone();
    builder
        .try_compute(move |key: &u64| loader.compute(key))
        .build()
        .unwrap()
}

/// A cache whose loads the test runs and ends, step by step.
pub fn by_hand<S: BuildHasher + Send + Sync + 'static>(
    builder: Builder<u64, u64, S>,
) -> (Cache<u64, u64, S>, Tasks, Gates<u64>) {
    let (tasks, gates) = (Tasks::default(), Gates::default());
    let cache = gates.cache(builder.spawner(tasks.spawner()));
    (cache, tasks, gates)
}

pub fn get<K, V, S>(cache: &Cache<K, V, S>, key: K) -> Reading<V, K>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher + Send + Sync + 'static,
{
    let cache = cache.clone();
    Box::pin(async move { cache.get(&key).await })
}

pub fn refresh<K, V>(cache: &Cache<K, V>, key: K) -> Reading<V, K>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    let cache = cache.clone();
    Box::pin(async move { cache.refresh(&key).await })
}

pub fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// Returns the output of a future that must be ready.
pub fn ready<F: Future + Unpin>(mut future: F) -> F::Output {
    match poll(&mut future) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("the future is not ready"),
    }
}

/// Returns the output of a future that another thread makes ready soon.
pub fn wait<F: Future + Unpin>(mut future: F) -> F::Output {
    let mut output = None;
    until("the future is ready", || match poll(&mut future) {
        Poll::Ready(ready) => {
            output = Some(ready);
            true
        }
        Poll::Pending => false,
    });
    output.unwrap()
}

pub fn is_pending<F: Future + Unpin>(future: &mut F) -> bool {
    poll(future).is_pending()
}
