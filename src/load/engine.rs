//! How a cache starts its loads: on the pool or on a runtime.

use std::hash::Hash;

use crate::error::Error;
use crate::load::job::Job;
use crate::load::loader::{Loader, Request, Returned};
use crate::load::pool::{Pool, Task};
use crate::load::runtime::Home;
use crate::sync::Arc;

/// How a loader runs jobs.
pub(crate) type RunJob<K, V> = Box<dyn Fn(Job<K, V>) + Send + Sync>;

/// A loader for CPU-bound work, on the pool.
pub(crate) fn computing<K, V>(
    pool: Arc<Pool>,
    f: impl Fn(&Request<K, V>) -> Returned<V> + Send + Sync + 'static,
) -> RunJob<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    let f = Arc::new(f);
    Box::new(move |job: Job<K, V>| {
        let reason = job.reason;
        if !pool.admits(reason) {
            return job.shed();
        }
        let (f, flight) = (f.clone(), job.claim.flight().clone());
        let task = Arc::new(Task::new(move || job.compute(|request| f(request))));
        flight.waits_for(task.clone());
        pool.queue(reason, task);
    })
}

/// A loader for I/O-bound work, on a runtime.
pub(crate) fn loading<K, V>(home: Arc<Home>, loader: impl Loader<K, V>) -> RunJob<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    let loader = Arc::new(loader);
    Box::new(move |mut job: Job<K, V>| {
        let runtime = job.runtime.take();
        match home.can_spawn(runtime.as_ref()) {
            true => home.spawn(runtime, Box::pin(job.load(loader.clone()))),
            false => job.refuse(Error::without_runtime()),
        }
    })
}
