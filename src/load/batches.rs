//! The jobs of a cache whose loader takes many keys: collected, and started as batches.
//!
//! [`collector`](super::collector) says when a batch leaves. Nothing is started with its lock held.
//!
//! A waiter of a collected key finds the *ticket* of its batch in the flight. A caller from outside
//! makes the batch leave as soon as nothing else is under way. A load makes it leave at once and
//! without a permit, because the batch under way may be the one that waits (P3). So does a thread
//! that itself adds keys: user code that runs there may read a key that it has added.

use std::cell::Cell;
use std::hash::Hash;

use crate::load::admission::is_inside_a_load;
use crate::load::collector::{Collector, Leaving};
use crate::load::job::Job;
use crate::load::party::{Batch, Party};
use crate::observe::reason::LoadReason;
use crate::panics::isolated;
use crate::protocol::flight::Help;
use crate::sync::{Arc, OnceLock, SetOnce, Weak};
use crate::time::alarm::{self, Sleeper};
use crate::time::clock::{Clock, Tick};

/// Starts the jobs of a batch.
type Start<K, V> = dyn Fn(Party<K, V>) + Send + Sync;

/// A batch that leaves, or none.
type Left<K, V> = Option<Leaving<Job<K, V>, Ticket>>;

/// The collected jobs of one cache.
pub(crate) struct Batches<K, V> {
    this: Weak<Self>,
    collector: Collector<Job<K, V>, Ticket>,
    start: Box<Start<K, V>>,
    /// That of the cache, known from the first job on.
    clock: OnceLock<Clock>,
}

/// One batch, as the waiters of its keys see it.
pub(crate) struct Ticket {
    batches: Weak<dyn Collects>,
    /// What helps the batch after it has left.
    next: SetOnce<Arc<dyn Help>>,
}

/// A batch that has left and not ended, until dropped.
pub(super) struct UnderWay(Arc<dyn Collects>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.ended();
    }
}

thread_local! {
    /// The holds of this thread.
    static HOLDS: Cell<usize> = const { Cell::new(0) };
}

fn count_hold(change: impl FnOnce(usize) -> usize) {
    // Without a thread-local the thread ends, and adds no further keys.
    let _ = HOLDS.try_with(|holds| holds.set(change(holds.get())));
}

/// What the other parts of a cache ask of its batches, whatever the types of key and value.
pub(crate) trait Collects: Send + Sync {
    fn max_keys(&self) -> usize;
    fn hold(&self);
    fn release(&self);
    /// Starts what is collected, because the cache closes.
    fn leave_all(&self);
    /// A batch that left has ended.
    fn ended(&self);
    /// A waiter needs a key of this batch.
    fn help(&self, ticket: &Ticket);
}

/// A caller that adds keys. They leave together when it is dropped.
pub(crate) struct Hold<'a>(&'a dyn Collects);

impl<'a> Hold<'a> {
    pub(crate) fn of(batches: &'a Arc<dyn Collects>) -> Self {
        batches.hold();
        count_hold(|holds| holds + 1);
        Hold(&**batches)
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        count_hold(|holds| holds.saturating_sub(1));
        self.0.release();
    }
}

impl<K, V> Batches<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    pub(crate) fn new(
        max_keys: usize,
        longest_wait: Tick,
        start: impl Fn(Party<K, V>) + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new_cyclic(|this| Batches {
            this: this.clone(),
            collector: Collector::new(max_keys, longest_wait),
            start: Box::new(start),
            clock: OnceLock::new(),
        })
    }

    /// Adds a job to the batch that collects. One with a function of its caller starts alone.
    pub(crate) fn add(&self, mut job: Job<K, V>) {
        if job.call.is_some() {
            return (self.start)(Party::alone(job));
        }
        job.begins_here = false;
        let (flight, state) = (job.flight().clone(), job.state.clone());
        let (clock, process) = (&state.clock, alarm::process());
        self.clock.get_or_init(|| clock.clone());
        let is_wanted = job.reason == LoadReason::Cold;
        let this: Weak<dyn Collects> = self.this.clone();
        let ticket = || {
            Arc::new(Ticket {
                batches: this.clone(),
                next: SetOnce::new(),
            })
        };
        let set_alarm = |at| {
            let sleeper: Weak<Self> = self.this.clone();
            clock.wake_at(process, at, sleeper);
        };
        let now = || clock.now();
        let (ticket, leaving) =
            (self.collector).add(job, is_wanted, process, ticket, now, set_alarm);
        // A load that waits already may have found no help.
        flight.waits_for(ticket);
        self.start(leaving);
        if !state.lifecycle.is_open() {
            // The close may have looked here before the job was added.
            self.start(self.collector.leave_all());
        }
    }

    fn start(&self, leaving: Left<K, V>) {
        self.start_with(leaving, |_| {});
    }

    fn start_with(&self, leaving: Left<K, V>, prepare: impl FnOnce(&mut Party<K, V>)) {
        let (Some(Leaving { keys, ticket }), Some(this)) = (leaving, self.this.upgrade()) else {
            return;
        };
        let batch = Batch {
            ticket,
            _under_way: UnderWay(this),
        };
        // A spawner that panics harms only this batch.
        isolated(|| {
            if let Some(mut party) = Party::of(keys, batch) {
                prepare(&mut party);
                (self.start)(party);
            }
        });
    }
}

impl<K, V> Drop for Batches<K, V> {
    fn drop(&mut self) {
        if let Some(clock) = self.clock.get() {
            clock.dropped();
        }
    }
}

impl<K, V> Collects for Batches<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    fn max_keys(&self) -> usize {
        self.collector.max_keys()
    }

    fn hold(&self) {
        self.collector.hold(alarm::process());
    }

    fn release(&self) {
        self.start(self.collector.release());
    }

    fn leave_all(&self) {
        self.start(self.collector.leave_all());
    }

    fn ended(&self) {
        self.start(self.collector.ended());
    }

    fn help(&self, ticket: &Ticket) {
        let collector = &self.collector;
        if is_inside_a_load() {
            self.start_with(collector.leave(ticket), |party| party.lead.pass.free());
        } else if HOLDS.try_with(Cell::get).is_ok_and(|holds| holds > 0) {
            self.start(collector.leave(ticket));
        } else {
            self.start(collector.wanted(ticket));
        }
    }
}

impl<K, V> Sleeper for Batches<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    fn wake(&self) {
        if let Some(clock) = self.clock.get() {
            self.start(self.collector.due(clock.now()));
        }
    }
}

impl Ticket {
    /// Sets what helps the batch from here on.
    pub(super) fn goes_on_as(&self, next: Arc<dyn Help>) {
        let _ = self.next.set(next);
    }
}

impl Help for Ticket {
    fn help(&self) {
        if self.next.get().is_none() {
            if let Some(batches) = self.batches.upgrade() {
                batches.help(self);
            }
        }
        if let Some(next) = self.next.get() {
            next.help();
        }
    }
}
