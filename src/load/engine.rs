//! How a cache starts its loads: on the pool or on a runtime.

use std::hash::Hash;

use crate::load::job::Job;
use crate::load::loader::{Loader, Request, Returned};
use crate::load::pool::Task;
use crate::load::pool_builder::Place;
use crate::sync::Arc;
use crate::sync::future::BoxFuture;

/// How a loader runs jobs.
pub(crate) type RunJob<K, V> = Box<dyn Fn(Job<K, V>) + Send + Sync>;

/// A loader for CPU-bound work, on the pool.
pub(crate) fn computing<K, V>(
    place: Place,
    f: impl Fn(&Request<K, V>) -> Returned<V> + Send + Sync + 'static,
) -> RunJob<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    let f = Arc::new(f);
    Box::new(move |job: Job<K, V>| {
        let pool = match place.workers() {
            Ok(pool) => pool,
            Err(error) => return job.not_started(error),
        };
        let reason = job.reason;
        if !pool.admits(reason, place.queue) {
            return job.shed();
        }
        let (f, flight) = (f.clone(), job.claim.flight().clone());
        // Weak, because the pool holds its queued tasks.
        let workers = Arc::downgrade(pool);
        let task = Arc::new(Task::new(move || {
            job.compute(|request| f(request), workers);
        }));
        flight.waits_for(task.clone());
        pool.queue(reason, task);
    })
}

/// A loader for I/O-bound work, on a runtime.
pub(crate) fn loading<K, V>(
    spawn: impl Fn(BoxFuture) + Send + Sync + 'static,
    loader: impl Loader<K, V>,
) -> RunJob<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    let loader = Arc::new(loader);
    Box::new(move |job: Job<K, V>| spawn(Box::pin(job.load(loader.clone()))))
}
