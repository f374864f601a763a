//! The part of a cache that its loads share.

use std::any::Any;
use std::hash::Hash;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::error::Error;
use crate::load::admission::Admission;
use crate::load::negative::NegativeCache;
use crate::load::policy::Policy;
use crate::load::runtime::Home;
use crate::load::workers::{Overdue, Workers};
use crate::observe::stats::{Counters, Stats};
use crate::observe::trace;
use crate::panics::discard;
use crate::protocol::compact::Weight;
use crate::protocol::flight::Flight;
use crate::protocol::publish::{Answer, ClaimGuard};
use crate::protocol::wait_graph::WaitNode;
use crate::sync::{Arc, OnceLock, Weak};
use crate::time::clock::{Clock, Tick};

/// The part of a cache that its jobs share. It is not the cache itself, because that may be dropped
/// while jobs run.
pub(crate) struct CacheState<K, V> {
    pub(crate) name: Arc<str>,
    pub(crate) policy: Policy,
    pub(crate) clock: Clock,
    pub(crate) counters: Counters,
    pub(crate) weigher: Option<Weigher<K, V>>,
    pub(crate) negative: NegativeCache<K>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) home: Arc<Home>,
    /// The cache itself, with its hasher's type left out, for loaders that read it; set by `build`.
    pub(crate) cache: OnceLock<Weak<dyn Any + Send + Sync>>,
    /// The largest number of loads that wait one for another.
    pub(crate) max_depth: usize,
}

pub(crate) type Weigher<K, V> = Box<dyn Fn(&K, &V) -> u32 + Send + Sync>;

impl<K: Hash + Eq + Clone + Send + Sync + 'static, V> CacheState<K, V> {
    /// Ends a claim without a value, and writes a negative entry with the cause. Returns whether
    /// this ended the entry.
    pub(crate) fn remember(
        &self,
        claim: ClaimGuard<K, V>,
        answer: Answer,
        error: Error,
        now: Tick,
        rest: Tick,
        failures: u32,
    ) -> bool {
        let until = now.saturating_add(rest);
        // The late failure of an overtaken load must not replace the negative entry of a later
        // load.
        let effective = claim.is_effective(answer);
        // A key that panics is not remembered, but its callers still learn that the load ended.
        let key = || claim.entry().key.clone();
        let write = || {
            effective.then(|| {
                self.negative
                    .write(key(), error.clone(), until, now, failures)
            })
        };
        let entry = catch_unwind(AssertUnwindSafe(write)).unwrap_or_else(|panic| {
            discard(panic);
            None
        });
        let mut removed = false;
        claim.remove(error, answer, |left| {
            removed = left;
            if let Some(entry) = entry {
                entry.commit(left);
            }
        });
        self.negative.drop_content();
        removed
    }
}

impl<K, V> CacheState<K, V> {
    /// The counts since the last reset, and what is under way now.
    pub(crate) fn stats(&self) -> Stats {
        let mut stats = self.counters.snapshot();
        stats.show(self.admission.gauges());
        stats
    }

    /// The depth of the load that runs on this thread, 0 outside a load; an error if that load must
    /// not wait for another one.
    pub(crate) fn depth(&self) -> Result<u64, Error> {
        let depth = WaitNode::current_depth();
        match depth < self.max_depth as u64 {
            true => Ok(depth),
            false => Err(Error::too_deep(self.max_depth)),
        }
    }

    /// Records that the load that runs on this thread, if any, waits for an attempt that starts.
    pub(crate) fn deepen(&self, flight: &Flight<K, V>) -> Result<(), Error> {
        let depth = self.depth()?;
        if depth > 0 {
            flight.wait_node().below(depth);
        }
        Ok(())
    }

    /// Replaces the worker of a load that is past its deadline, until the guard is dropped.
    pub(crate) fn replace_worker(&self, pool: &Arc<Workers>) -> Option<Overdue> {
        let overdue = pool.overdue();
        if overdue.is_some() {
            self.counters.replaced_worker();
        }
        trace::overdue(&self.name, overdue.is_some());
        overdue
    }

    pub(crate) fn weigh(&self, key: &K, value: &V) -> Weight {
        let weigher = self.weigher.as_ref();
        weigher.map_or(Weight::ZERO, |weigh| Weight::new(weigh(key, value)))
    }
}
