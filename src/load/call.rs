//! The function that a caller brings for one call, which loads in the place of the cache's loader.
//!
//! Races that this must survive:
//!
//! 1. Many callers of a missing key bring a function. Each load is begun by one claim, and runs the
//!    function of the caller that claimed. The others drop theirs, outside of all locks.
//! 2. The load ends untried, for example because the key was invalidated while the load waited for
//!    its turn. The function is taken only when it runs, so the caller still has it, and the next
//!    load that this call begins runs it.
//! 3. The caller goes away while its load waits for its turn. The load shares the function.
//! 4. A load that was overtaken and the next load of the same call run at once. Only one of them
//!    gets the function.

use std::pin::Pin;

use crate::error::Error;
use crate::load::loader::{Load, Request, Returned};
use crate::sync::{Arc, Mutex, lock};

/// A function that runs at most once, shared by a call and its load.
pub struct Once<F>(Mutex<Option<F>>);

impl<F> Once<F> {
    pub fn new(function: F) -> Self {
        Once(Mutex::new(Some(function)))
    }

    /// The function, for the first caller of this.
    pub fn take(&self) -> Option<F> {
        lock(&self.0).take()
    }
}

/// What a function of a call returns, once it is polled to its end.
pub(crate) type BoxReturned<V> = Pin<Box<dyn Future<Output = Returned<V>> + Send>>;

/// The function of one call.
pub(crate) enum CallFn<V> {
    /// It computes, on a pool.
    Compute(Once<Box<dyn FnOnce() -> Returned<V> + Send>>),
    /// It waits, on a runtime.
    Load(Once<Box<dyn FnOnce() -> BoxReturned<V> + Send>>),
}

impl<V> CallFn<V> {
    pub(crate) fn compute(f: impl FnOnce() -> Returned<V> + Send + 'static) -> Arc<Self> {
        Arc::new(CallFn::Compute(Once::new(Box::new(f))))
    }

    pub(crate) fn load(f: impl FnOnce() -> BoxReturned<V> + Send + 'static) -> Arc<Self> {
        Arc::new(CallFn::Load(Once::new(Box::new(f))))
    }

    /// Whether it waits, and so needs a runtime.
    pub(crate) fn waits(&self) -> bool {
        matches!(self, CallFn::Load(_))
    }

    /// Runs a function that computes.
    pub(super) fn computed(&self) -> Returned<V> {
        let CallFn::Compute(f) = self else {
            unreachable!("a function that waits is given to a runtime");
        };
        f.take().map_or_else(has_run, |f| f())
    }
}

/// A function that waits, in the place of a loader.
pub(super) struct ByCall<V>(pub(super) Arc<CallFn<V>>);

impl<K, V> Load<K, V> for ByCall<V>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    async fn returned(&self, _: &Request<K, V>) -> Returned<V> {
        let CallFn::Load(f) = &*self.0 else {
            unreachable!("a function that computes is given to a pool");
        };
        match f.take() {
            Some(f) => f().await,
            None => has_run(),
        }
    }
}

/// Another load of the same call has taken the function.
fn has_run<V>() -> Returned<V> {
    Err(Box::new(Error::without_loader()))
}
