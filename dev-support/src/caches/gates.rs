use std::future::poll_fn;
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex};
use std::task::Poll;

use everfresh::{Builder, Cache, CountingLoader, InjectedFailure, Loaded, Loader, Request};

/// How the test ends a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End<V> {
    Value(V),
    /// A value, and a group of it that only the loader knows.
    Grouped(V, u64),
    NotFound,
    Fail,
    Panic,
}

struct Call<V> {
    key: u64,
    previous: Option<V>,
    end: Option<End<V>>,
}

/// An async loader in which every call waits until the test ends it. Calls are numbered as they
/// begin.
pub struct Gates<V>(Arc<Mutex<Vec<Call<V>>>>);

impl<V: Copy + Send + Sync + 'static> Gates<V> {
    /// Gives the cache this loader.
    pub fn cache<S>(&self, builder: Builder<u64, V, S>) -> Cache<u64, V, S>
    where
        S: BuildHasher + Send + Sync + 'static,
    {
        builder.loader(self.clone()).build().unwrap()
    }

    /// The number of calls that have begun.
    pub fn calls(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    pub fn key(&self, call: usize) -> u64 {
        self.0.lock().unwrap()[call].key
    }

    pub fn previous(&self, call: usize) -> Option<V> {
        self.0.lock().unwrap()[call].previous
    }

    /// Decides how a call ends; it ends at its next poll.
    pub fn end(&self, call: usize, end: End<V>) {
        self.0.lock().unwrap()[call].end = Some(end);
    }
}

impl<V: Copy + Send + Sync + 'static> Loader<u64, V> for Gates<V> {
    type Value = Loaded<V>;
    type Error = InjectedFailure;

    async fn load(&self, request: &Request<u64, V>) -> Result<Loaded<V>, InjectedFailure> {
        let number = {
            let mut calls = self.0.lock().unwrap();
            calls.push(Call {
                key: *request.key(),
                previous: request.previous().copied(),
                end: None,
            });
            calls.len() - 1
        };
        let end = poll_fn(|_| match self.0.lock().unwrap()[number].end {
            Some(end) => Poll::Ready(end),
            None => Poll::Pending,
        });
        match end.await {
            End::Value(value) => Ok(Loaded::new(value)),
            End::Grouped(value, group) => Ok(Loaded::new(value).group(group)),
            End::NotFound => Ok(Loaded::not_found()),
            End::Fail => Err(InjectedFailure),
            End::Panic => panic!("the gate was set to panic"),
        }
    }
}

impl<V> Clone for Gates<V> {
    fn clone(&self) -> Self {
        Gates(self.0.clone())
    }
}

impl<V> Default for Gates<V> {
    fn default() -> Self {
        Gates(Arc::default())
    }
}

/// A loader that returns 1, 2, 3 and so on, for any key.
pub fn numbering() -> CountingLoader<u64, u64> {
    let next = std::sync::atomic::AtomicU64::new(1);
    CountingLoader::new(move |_| next.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
}
