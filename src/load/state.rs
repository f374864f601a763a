//! The part of a cache that its loads share.

use std::any::Any;
use std::hash::Hash;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use crate::error::Error;
use crate::load::admission::Admission;
use crate::load::batches::{Collects, Hold};
use crate::load::lifecycle::Lifecycle;
use crate::load::negative::{Because, NegativeCache};
use crate::load::policy::Policy;
use crate::load::runtime::Home;
use crate::load::workers::{Overdue, Workers};
use crate::observe::reason::LoadReason;
use crate::observe::stats::{Counters, Stats};
use crate::observe::trace;
use crate::panics::discard;
use crate::protocol::compact::Weight;
use crate::protocol::flight::Flight;
use crate::protocol::groups::{Groups, Moment, Stamp};
use crate::protocol::publish::{Answer, ClaimGuard};
use crate::protocol::wait_graph::WaitNode;
use crate::sync::{Arc, OnceLock, Weak};
use crate::time::clock::{Clock, Tick};

/// Keeps a value fresh without readers.
pub(crate) trait Keep: Send + Sync {
    /// A caller asks for it.
    fn begins(&self);
    /// The value has changed, or a load of it has ended. A load may start here, unless one has just
    /// ended.
    fn look(&self, may_start: bool);
}

/// The part of a cache that its jobs share. It is not the cache itself, because that may be dropped
/// while jobs run.
pub(crate) struct CacheState<K, V> {
    pub(crate) common: Common,
    pub(crate) weigher: Option<Weigher<K, V>>,
    pub(crate) group_by: Option<GroupBy<K>>,
    /// Those of the entries.
    pub(crate) groups: Arc<Groups>,
    pub(crate) negative: NegativeCache<K>,
}

/// The part that does not depend on the types of key and value. Its code is compiled once, not for
/// each cache.
pub(crate) struct Common {
    pub(crate) name: Arc<str>,
    pub(crate) policy: Policy,
    pub(crate) clock: Clock,
    pub(crate) counters: Counters,
    pub(crate) admission: Arc<Admission>,
    pub(crate) lifecycle: Arc<Lifecycle>,
    /// How long a close waits.
    pub(crate) close_for: Tick,
    pub(crate) home: Arc<Home>,
    /// What collects the keys of a loader that takes many.
    pub(crate) batches: Option<Arc<dyn Collects>>,
    /// Without a loader, only functions that callers bring load.
    pub(crate) has_loader: bool,
    /// The cache itself, with its hasher's type left out, for loaders that read it; set by `build`.
    pub(crate) cache: OnceLock<Weak<dyn Any + Send + Sync>>,
    /// Looks after the value, if that is kept fresh.
    pub(crate) keeper: OnceLock<Arc<dyn Keep>>,
    /// The largest number of loads that wait one for another.
    pub(crate) max_depth: usize,
}

impl<K, V> Deref for CacheState<K, V> {
    type Target = Common;

    #[inline]
    fn deref(&self) -> &Common {
        &self.common
    }
}

/// Adds the groups of a key.
pub(crate) type GroupBy<K> = Box<dyn Fn(&K, &mut Vec<u64>) + Send + Sync>;

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
                let stamps = self.stamps(&claim.entry().key, Vec::new(), claim.flight().began());
                let because = Because {
                    error: error.clone(),
                    failures,
                    stamps,
                    since: claim.began().unwrap_or(now),
                };
                self.negative.write(key(), because, until, now)
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
    /// Records that the load that runs on this thread, if any, waits for an attempt that starts.
    pub(crate) fn deepen(&self, flight: &Flight<K, V>) -> Result<(), Error> {
        let depth = self.depth()?;
        if depth > 0 {
            flight.wait_node().below(depth);
        }
        Ok(())
    }

    /// The groups that follow from a key. Runs a function of the user.
    pub(crate) fn groups_of(&self, key: &K, mut groups: Vec<u64>) -> Vec<u64> {
        if let Some(group_by) = &self.group_by {
            group_by(key, &mut groups);
        }
        groups
    }

    /// The stamps of a value of this key that was made with these groups by a load which began at
    /// `began`. Runs a function of the user.
    pub(crate) fn stamps(&self, key: &K, groups: Vec<u64>, began: Moment) -> Vec<Stamp> {
        self.groups.stamps(self.groups_of(key, groups), began)
    }

    pub(crate) fn weigh(&self, key: &K, value: &V) -> Weight {
        let weigher = self.weigher.as_ref();
        weigher.map_or(Weight::ZERO, |weigh| Weight::new(weigh(key, value)))
    }
}

impl Common {
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

    /// Holds the batch that collects until dropped, so that keys which are added meanwhile leave
    /// together.
    pub(crate) fn hold(&self) -> Option<Hold<'_>> {
        self.batches.as_ref().map(Hold::of)
    }

    /// Starts the batch that collects, because the cache closes.
    pub(crate) fn start_batches(&self) {
        if let Some(batches) = &self.batches {
            batches.leave_all();
        }
    }

    /// The table has changed, or a load has ended.
    #[inline]
    pub(crate) fn look(&self, may_start: bool) {
        if let Some(keeper) = self.keeper.get() {
            keeper.look(may_start);
        }
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

    /// Counts a load that failed after so many failures; returns how long its key rests.
    pub(super) fn failed(&self, reason: LoadReason, panicked: bool, failures: u32) -> Tick {
        self.counters.failed();
        let rest = self.policy.draw_backoff(failures);
        let pause = Duration::from_nanos(rest);
        trace::load_failed(&self.name, reason, panicked, failures + 1, pause);
        rest
    }

    /// The same for a load that passed its deadline.
    pub(super) fn timed_out(&self, reason: LoadReason, failures: u32) -> Tick {
        self.counters.timed_out();
        let rest = self.policy.draw_backoff(failures);
        trace::load_timed_out(&self.name, reason, failures + 1, Duration::from_nanos(rest));
        rest
    }

    /// The same for a load that its runtime dropped.
    pub(super) fn dropped(&self, reason: LoadReason, failures: u32) -> Tick {
        self.counters.dropped();
        let rest = self.policy.draw_backoff(failures);
        trace::load_dropped(&self.name, reason, Duration::from_nanos(rest));
        rest
    }

    /// The same for a load that was not tried.
    pub(super) fn postponed(&self, reason: LoadReason) -> Tick {
        self.counters.shed(reason);
        trace::not_tried(&self.name, reason);
        self.policy.draw_backoff(0)
    }
}
