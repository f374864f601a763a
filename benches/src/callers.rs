//! The contenders that load: one call reads a key, and loads it if needed.

use std::convert::Infallible;
use std::ops::Range;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use amalgam::{EagerThreshold, EntryOptions};
use cacheflight::{CacheFlight, HasSwrExpiry, MemoryCache, NoXfetch};
use quick_cache::sync::Cache as QuickCache;

use crate::contender::Value;
use crate::ours;

pub type Bytes = Arc<[u8; 64]>;
pub type Call = Pin<Box<dyn Future<Output = u8> + Send>>;

/// How a loader spends its time.
#[derive(Clone, Copy, PartialEq)]
enum Spends {
    Sleeping,
    /// Sleeping, but nothing until [`Loader::now_slow`].
    SleepingLater,
    /// Working. Nothing is recorded.
    Working,
}

/// A loader that records when it runs.
pub struct Loader {
    pub takes: Duration,
    spends: Spends,
    is_slow: AtomicBool,
    /// Begin and end of each finished load.
    pub done: Mutex<Vec<(Instant, Instant)>>,
}

/// Works for this time.
pub fn spin(takes: Duration) {
    if takes.is_zero() {
        return;
    }
    let since = Instant::now();
    while since.elapsed() < takes {
        std::hint::spin_loop();
    }
}

impl Loader {
    pub fn new(takes: Duration) -> Arc<Self> {
        Self::that_spends(takes, Spends::Sleeping)
    }

    pub fn free_at_first(takes: Duration) -> Arc<Self> {
        Self::that_spends(takes, Spends::SleepingLater)
    }

    pub fn spinning(takes: Duration) -> Arc<Self> {
        Self::that_spends(takes, Spends::Working)
    }

    fn that_spends(takes: Duration, spends: Spends) -> Arc<Self> {
        Arc::new(Loader {
            takes,
            spends,
            is_slow: AtomicBool::new(spends == Spends::Sleeping),
            done: Mutex::default(),
        })
    }

    /// Ends the time of a loader that is free at first, and forgets what it recorded.
    pub fn now_slow(&self) {
        self.is_slow.store(true, Ordering::Relaxed);
        self.take();
    }

    pub async fn load(&self) -> Bytes {
        if self.spends == Spends::Working {
            spin(self.takes);
            return Bytes::make(1);
        }
        let begun = Instant::now();
        if !self.takes.is_zero() && self.is_slow.load(Ordering::Relaxed) {
            tokio::time::sleep(self.takes).await;
        }
        let mut done = self.done.lock().expect("no panic occurs under the lock");
        done.push((begun, Instant::now()));
        Bytes::make(1)
    }

    pub fn take(&self) -> Vec<(Instant, Instant)> {
        std::mem::take(&mut *self.done.lock().expect("no panic occurs under the lock"))
    }
}

#[derive(Clone, Copy)]
pub struct Windows {
    pub capacity: usize,
    pub fresh: Duration,
    pub stale: Duration,
}

pub trait Caller: Send + Sync + 'static {
    type Key: Send + Sync;

    fn key(n: u64) -> Self::Key;
    fn call(&self, key: &Self::Key) -> impl Future<Output = u8> + Send;

    /// Reads a resident key. A cache without a plain read uses the call that may load.
    fn hit(&self, key: &Self::Key) -> impl Future<Output = Option<u8>> + Send {
        async { Some(self.call(key).await) }
    }
}

/// A caller with its loops, as a trait object so that a bench can hold all callers.
pub trait AnyCaller: Send + Sync {
    fn call(self: Arc<Self>, n: u64) -> Call;
    /// Polls one read of each key once. Returns nanoseconds per read, and how many were not ready.
    fn poll_hits(&self, keys: &[u64]) -> (f64, u64);
    /// Reads consecutive keys for at most this time. Returns nanoseconds per read.
    fn colds(
        self: Arc<Self>,
        keys: Range<u64>,
        longest: Duration,
    ) -> Pin<Box<dyn Future<Output = f64> + Send>>;
}

impl<C: Caller> AnyCaller for C {
    fn call(self: Arc<Self>, n: u64) -> Call {
        Box::pin(async move { Caller::call(&*self, &C::key(n)).await })
    }

    fn poll_hits(&self, keys: &[u64]) -> (f64, u64) {
        use std::task::{Context, Poll, Waker};
        let keys: Vec<C::Key> = keys.iter().map(|&n| C::key(n)).collect();
        let mut context = Context::from_waker(Waker::noop());
        let mut not_ready = 0;
        let since = Instant::now();
        for key in &keys {
            let mut read = std::pin::pin!(self.hit(key));
            match read.as_mut().poll(&mut context) {
                Poll::Ready(Some(byte)) => _ = std::hint::black_box(byte),
                _ => not_ready += 1,
            }
        }
        (
            crate::contender::per_operation(since, keys.len()),
            not_ready,
        )
    }

    fn colds(
        self: Arc<Self>,
        keys: Range<u64>,
        longest: Duration,
    ) -> Pin<Box<dyn Future<Output = f64> + Send>> {
        Box::pin(async move {
            let since = Instant::now();
            let mut done = 0;
            for n in keys {
                std::hint::black_box(Caller::call(&*self, &C::key(n)).await);
                done += 1;
                if done % 16 == 0 && since.elapsed() > longest {
                    break;
                }
            }
            crate::contender::per_operation(since, done)
        })
    }
}

pub struct LoadingPeer {
    pub name: &'static str,
    /// The behaviour of a cache at a value past its soft limit.
    pub when_stale: WhenStale,
    pub build: fn(Windows, Arc<Loader>) -> Arc<dyn AnyCaller>,
}

#[derive(Clone, Copy, PartialEq)]
pub enum WhenStale {
    Serves,
    /// Callers wait for the load.
    Blocks,
    /// The cache has no expiry.
    Never,
}

/// All peers, everfresh first. The caller must build and call them within a tokio runtime.
pub fn all() -> Vec<LoadingPeer> {
    use WhenStale::{Blocks, Never, Serves};
    let peer = |name, when_stale, build| LoadingPeer {
        name,
        when_stale,
        build,
    };
    vec![
        peer(ours::NAME, Serves, everfresh),
        peer("moka", Blocks, moka),
        peer("quick_cache", Never, quick),
        peer("foyer", Never, foyer),
        peer("fibre_cache", Serves, fibre),
        peer("cacheflight", Serves, cacheflight),
        peer("amalgam-cache", Serves, amalgam),
        peer("mini-moka", Blocks, mini_moka),
    ]
}

/// everfresh with at most eight loads at once.
pub fn bounded() -> LoadingPeer {
    LoadingPeer {
        name: ours::BOUNDED,
        when_stale: WhenStale::Serves,
        build: |windows, loader| everfresh_with(windows, loader, |builder| builder.max_loads(8)),
    }
}

struct Ours(everfresh::Cache<u64, Bytes>);

fn everfresh(windows: Windows, loader: Arc<Loader>) -> Arc<dyn AnyCaller> {
    everfresh_with(windows, loader, |builder| builder)
}

type Builder = everfresh::Builder<u64, Bytes>;

/// X-Fetch is off, so that a refresh is due at a known time.
fn everfresh_with(
    windows: Windows,
    loader: Arc<Loader>,
    with: fn(Builder) -> Builder,
) -> Arc<dyn AnyCaller> {
    let cache = with(everfresh::Cache::builder())
        .capacity(windows.capacity)
        .fresh_for(windows.fresh)
        .stale_for(windows.stale)
        .beta(0.0)
        .load_on(loader, async |loader: &Arc<Loader>, _: &u64| {
            loader.load().await
        })
        .build();
    Arc::new(Ours(cache.expect("the settings are valid")))
}

impl Caller for Ours {
    type Key = u64;

    fn key(n: u64) -> u64 {
        n
    }

    #[inline]
    async fn call(&self, key: &u64) -> u8 {
        self.0.get(key).await.map_or(0, |cached| cached.first())
    }
}

struct AsyncMoka(moka::future::Cache<u64, Bytes>, Arc<Loader>);

fn moka(windows: Windows, loader: Arc<Loader>) -> Arc<dyn AnyCaller> {
    let builder = moka::future::Cache::builder()
        .max_capacity(windows.capacity as u64)
        .time_to_live(windows.fresh);
    Arc::new(AsyncMoka(builder.build(), loader))
}

impl Caller for AsyncMoka {
    type Key = u64;

    fn key(n: u64) -> u64 {
        n
    }

    async fn call(&self, key: &u64) -> u8 {
        self.0.get_with(*key, self.1.load()).await.first()
    }

    async fn hit(&self, key: &u64) -> Option<u8> {
        Some(self.0.get(key).await?.first())
    }
}

struct AsyncQuick(QuickCache<u64, Bytes>, Arc<Loader>);

fn quick(windows: Windows, loader: Arc<Loader>) -> Arc<dyn AnyCaller> {
    Arc::new(AsyncQuick(QuickCache::new(windows.capacity), loader))
}

impl Caller for AsyncQuick {
    type Key = u64;

    fn key(n: u64) -> u64 {
        n
    }

    async fn call(&self, key: &u64) -> u8 {
        let load = async { Ok::<_, Infallible>(self.1.load().await) };
        match self.0.get_or_insert_async(key, load).await {
            Ok(value) => value.first(),
        }
    }
}

struct AsyncFoyer(foyer_memory::Cache<u64, Bytes>, Arc<Loader>);

fn foyer(windows: Windows, loader: Arc<Loader>) -> Arc<dyn AnyCaller> {
    let builder = foyer_memory::CacheBuilder::new(windows.capacity)
        .with_eviction_config(foyer_memory::S3FifoConfig::default());
    Arc::new(AsyncFoyer(builder.build(), loader))
}

impl Caller for AsyncFoyer {
    type Key = u64;

    fn key(n: u64) -> u64 {
        n
    }

    async fn call(&self, key: &u64) -> u8 {
        let loader = self.1.clone();
        let load = || async move { Ok::<Bytes, anyhow::Error>(loader.load().await) };
        let entry = self.0.get_or_fetch(key, load).await;
        entry.map_or(0, |entry| entry.value().first())
    }
}

struct AsyncFibre(fibre_cache::AsyncCache<u64, Bytes>);

fn fibre(windows: Windows, loader: Arc<Loader>) -> Arc<dyn AnyCaller> {
    let cache = fibre_cache::CacheBuilder::default()
        .capacity(windows.capacity as u64)
        .time_to_live(windows.fresh)
        .stale_while_revalidate(windows.stale)
        .async_loader(move |_: u64| {
            let loader = loader.clone();
            async move { (loader.load().await, 1) }
        })
        .build_async();
    Arc::new(AsyncFibre(cache.expect("the settings are valid")))
}

impl Caller for AsyncFibre {
    type Key = u64;

    fn key(n: u64) -> u64 {
        n
    }

    async fn call(&self, key: &u64) -> u8 {
        self.0.fetch_with(key).await.first()
    }
}

/// Cacheflight stores bytes under string keys.
struct Flight(
    CacheFlight<MemoryCache, HasSwrExpiry, NoXfetch>,
    Arc<Loader>,
);

fn cacheflight(windows: Windows, loader: Arc<Loader>) -> Arc<dyn AnyCaller> {
    let cache = CacheFlight::new(MemoryCache::new());
    let cache = cache.stale_while_revalidate(windows.fresh, windows.stale);
    Arc::new(Flight(cache, loader))
}

impl Caller for Flight {
    type Key = String;

    fn key(n: u64) -> String {
        n.to_string()
    }

    async fn call(&self, key: &String) -> u8 {
        let loader = self.1.clone();
        let load = move || {
            let loader = loader.clone();
            async move { Ok(loader.load().await.to_vec()) }
        };
        let found = self.0.run(key.as_str(), load).await;
        found.map_or(0, |found| found.value()[0])
    }
}

/// Its keys are strings. It serves the old value while it refreshes before the expiry ("eager
/// refresh"). So its values expire at the end of the stale window, and the threshold is set to the
/// beginning of that window.
struct AsyncAmalgam(amalgam::Cache<Bytes>, Arc<Loader>);

fn amalgam(windows: Windows, loader: Arc<Loader>) -> Arc<dyn AnyCaller> {
    let all = windows.fresh + windows.stale;
    let threshold = EagerThreshold::new(windows.fresh.as_secs_f32() / all.as_secs_f32());
    let options = EntryOptions::new(all).with_eager_refresh(threshold);
    let builder = amalgam::Cache::builder()
        .default_options(options)
        .max_capacity(windows.capacity as u64);
    let cache = builder.try_build().expect("the settings are valid");
    Arc::new(AsyncAmalgam(cache, loader))
}

impl Caller for AsyncAmalgam {
    type Key = String;

    fn key(n: u64) -> String {
        n.to_string()
    }

    async fn call(&self, key: &String) -> u8 {
        let loader = self.1.clone();
        let load = |_| async move { Ok::<_, Infallible>(loader.load().await) };
        let found = self.0.get_or_set(key, load).await;
        found.map_or(0, |value| value.first())
    }

    async fn hit(&self, key: &String) -> Option<u8> {
        Some(self.0.try_get(key).await.ok()??.first())
    }
}

/// mini-moka has no call that loads, so each caller loads for itself.
struct AsyncMiniMoka(mini_moka::sync::Cache<u64, Bytes>, Arc<Loader>);

fn mini_moka(windows: Windows, loader: Arc<Loader>) -> Arc<dyn AnyCaller> {
    let builder = mini_moka::sync::Cache::builder()
        .max_capacity(windows.capacity as u64)
        .time_to_live(windows.fresh);
    Arc::new(AsyncMiniMoka(builder.build(), loader))
}

impl Caller for AsyncMiniMoka {
    type Key = u64;

    fn key(n: u64) -> u64 {
        n
    }

    async fn call(&self, key: &u64) -> u8 {
        if let Some(value) = self.0.get(key) {
            return value.first();
        }
        let value = self.1.load().await;
        self.0.insert(*key, value.clone());
        value.first()
    }
}
