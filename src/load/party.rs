//! What passes the gates as one load: one job, or the jobs of a batch.

use std::hash::Hash;

use crate::load::batches::{Ticket, UnderWay};
use crate::load::job::Job;
use crate::protocol::flight::{Flight, Help};
use crate::protocol::publish::Answer;
use crate::sync::runtime::Runtime;
use crate::sync::{Arc, StrongArc};

/// The jobs of one call of a loader. A job that is alone allocates nothing.
pub(crate) struct Party<K, V> {
    /// The most urgent of them. Its pass is that of the call.
    pub(super) lead: Job<K, V>,
    pub(super) rest: Vec<Job<K, V>>,
    pub(super) batch: Option<Batch>,
}

/// What a party has that left as a batch.
pub(super) struct Batch {
    pub(super) ticket: Arc<Ticket>,
    pub(super) _under_way: UnderWay,
}

/// The flights of a party, for the loads that wait for it.
pub(super) struct Flights<K, V> {
    lead: StrongArc<Flight<K, V>>,
    rest: Vec<StrongArc<Flight<K, V>>>,
    ticket: Option<Arc<Ticket>>,
}

impl<K, V> Party<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    pub(super) fn alone(job: Job<K, V>) -> Self {
        Party {
            lead: job,
            rest: Vec::new(),
            batch: None,
        }
    }

    /// The party of a batch; `None` without jobs.
    pub(super) fn of(mut jobs: Vec<Job<K, V>>, batch: Batch) -> Option<Self> {
        // A load that another load waits for needs no permit, and then its batch needs none.
        let urgency = |job: &Job<K, V>| (!job.pass.is_free(), job.reason as usize);
        let (at, _) = (jobs.iter().enumerate()).min_by_key(|(_, job)| urgency(job))?;
        let lead = jobs.remove(at);
        Some(Party {
            lead,
            rest: jobs,
            batch: Some(batch),
        })
    }

    /// Ends all jobs in the same way.
    pub(super) fn end(self, end: impl Fn(Job<K, V>)) {
        let Party { lead, rest, batch } = self;
        end(lead);
        rest.into_iter().for_each(end);
        drop(batch);
    }

    /// Whether the result of one of the jobs could still be published.
    pub(super) fn is_effective(&self) -> bool {
        let is_effective = |job: &Job<K, V>| job.claim.is_effective(Answer::Failed);
        is_effective(&self.lead) || self.rest.iter().any(is_effective)
    }

    pub(super) fn begins_elsewhere(&mut self) {
        self.lead.begins_here = false;
    }

    /// Takes the runtime of the first job that has one.
    pub(super) fn take_runtime(&mut self) -> Option<Runtime> {
        let runtime = self.lead.runtime.take();
        runtime.or_else(|| self.rest.iter_mut().find_map(|job| job.runtime.take()))
    }

    pub(super) fn flights(&self) -> Flights<K, V> {
        let flight = |job: &Job<K, V>| job.claim.flight().clone();
        Flights {
            lead: flight(&self.lead),
            rest: self.rest.iter().map(flight).collect(),
            ticket: self.batch.as_ref().map(|batch| batch.ticket.clone()),
        }
    }
}

impl<K, V> Flights<K, V> {
    pub(super) fn lead(&self) -> &Flight<K, V> {
        &self.lead
    }

    /// Sets what helps the party from here on, and wakes the loads that wait.
    pub(super) fn wait_for(&self, help: Arc<dyn Help>) {
        if let Some(ticket) = &self.ticket {
            ticket.goes_on_as(help.clone());
        }
        // The flight keeps the first of them. In any case it wakes the loads that wait.
        self.lead.waits_for(help);
        for flight in &self.rest {
            flight.wake_waiters();
        }
    }
}
