//! Whole caches whose loads a model runs.

use std::future::Future;
use std::hash::Hasher;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use everfresh::BoxFuture;
use loom::thread::Builder;

/// The same hash in every execution, and never the tag of an empty way.
#[derive(Clone, Copy, Default)]
pub struct Fixed(u64);

impl Hasher for Fixed {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().map(|byte| u64::from(*byte) + 1).sum();
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Four times as many as a model's thread has.
const WORDS_OF_STACK: usize = 1 << 14;

/// Loads that were started and wait for the model to run them.
#[derive(Clone, Default)]
pub struct Loads(Arc<Mutex<(usize, Vec<BoxFuture>)>>);

impl Loads {
    /// The spawner of a cache.
    pub fn spawner(&self) -> impl Fn(BoxFuture) + Send + Sync + 'static {
        let loads = self.0.clone();
        move |load| {
            let mut loads = loads.lock().unwrap();
            loads.0 += 1;
            loads.1.push(load);
        }
    }

    pub fn started(&self) -> usize {
        self.0.lock().unwrap().0
    }

    pub fn is_any(&self) -> bool {
        !self.0.lock().unwrap().1.is_empty()
    }

    pub fn take(&self) -> BoxFuture {
        self.0.lock().unwrap().1.pop().expect("a load was started")
    }
}

/// Runs a load to its end. The load never waits.
pub fn run(mut load: BoxFuture) {
    assert!(poll(load.as_mut()).is_ready());
}

pub fn poll<F: Future + ?Sized>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Builds a cache on a larger stack than that of a model's thread: without optimizations, as seeded
/// faults are built, the settings are copied again and again.
pub fn on_a_large_stack<T: Send + 'static>(build: impl FnOnce() -> T + Send + 'static) -> T {
    let builder = Builder::new().stack_size(WORDS_OF_STACK);
    builder.spawn(build).unwrap().join().unwrap()
}
