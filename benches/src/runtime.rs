//! Tokio runtimes.

use tokio::runtime::{Builder, Runtime};

pub fn multi(threads: usize) -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()
        .expect("threads can be started")
}
