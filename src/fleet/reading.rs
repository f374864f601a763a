//! Jobs whose keys the task of their caller reads from the store.
//!
//! A caller that sends its command itself and installs the answers itself changes threads as rarely
//! as a caller of the bare client, and callers on several cores do not wait for each other. See
//! `handover` for what happens when other callers need the same keys.

use std::hash::Hash;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use super::Level;
use super::handover::Handover;
use crate::load::job::Job;
use crate::panics::isolated;
use crate::protocol::flight::Help;
use crate::sync::future::BoxFuture;
use crate::sync::{Arc, Weak};

/// The jobs of one call. As a future it reads their keys, and is ready once it has done so, or once
/// another task does. Dropping it leaves the jobs running.
pub(crate) struct Reading<K: 'static, V: 'static>(Arc<Shared<K, V>>);

struct Shared<K, V> {
    level: Arc<dyn Level<K, V>>,
    work: Handover<Work<K, V>>,
}

enum Work<K, V> {
    Jobs(Vec<Job<K, V>>),
    Started(BoxFuture),
}

impl<K, V> Reading<K, V> {
    pub(crate) fn new(level: Arc<dyn Level<K, V>>) -> Self
    where
        K: Send + Sync,
        V: Send + Sync,
    {
        let work = Handover::new(Work::Jobs(Vec::new()));
        let reading = Reading(Arc::new(Shared { level, work }));
        let shared: Weak<Shared<K, V>> = Arc::downgrade(&reading.0);
        if !reading.0.level.reading_begins(reading.address(), shared) {
            reading.0.help();
        }
        reading
    }

    fn address(&self) -> usize {
        Arc::as_ptr(&self.0) as usize
    }

    /// Adds a job. User code that runs before this is polled may wait for the job.
    pub(crate) fn push(&self, job: Job<K, V>)
    where
        K: Hash + Eq + Clone + Send + Sync,
        V: Send + Sync,
    {
        let flight = job.flight().clone();
        let mut jobs = match self.0.work.take() {
            Some(Work::Jobs(jobs)) => jobs,
            // User code waited for an earlier job, so the earlier jobs were handed over.
            _ => Vec::new(),
        };
        jobs.push(job);
        self.0.put_back(Work::Jobs(jobs), None);
        flight.is_read_by(self.0.clone());
    }
}

impl<K, V> Shared<K, V> {
    /// Returns whether the work was handed over.
    fn put_back(&self, work: Work<K, V>, waker: Option<Waker>) -> bool {
        let wanted = self.work.put_back(work, waker);
        wanted.map(|work| self.hand_over(work)).is_some()
    }

    fn hand_over(&self, work: Work<K, V>) {
        if let Some(started) = self.start(work) {
            self.level.spawn(started);
        }
    }

    fn start(&self, work: Work<K, V>) -> Option<BoxFuture> {
        match work {
            Work::Started(started) => Some(started),
            Work::Jobs(jobs) => (!jobs.is_empty()).then(|| self.level.read_together(jobs)),
        }
    }
}

impl<K: Send + Sync, V: Send + Sync> Help for Shared<K, V> {
    fn help(&self) {
        if let Some((work, first)) = self.work.ask() {
            self.hand_over(work);
            // A waker that panics is not the fault of this caller.
            isolated(|| first.into_iter().for_each(Waker::wake));
        }
    }
}

impl<K, V> Future for Reading<K, V> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let shared = &self.0;
        let Some(mut started) = shared.work.take().and_then(|work| shared.start(work)) else {
            return Poll::Ready(());
        };
        let mut polled = Poll::Ready(());
        // A store's panic ends the jobs, and does not reach the caller.
        isolated(|| polled = started.as_mut().poll(cx));
        let goes_on = polled.is_pending() && {
            let waker = Some(cx.waker().clone());
            !shared.put_back(Work::Started(started), waker)
        };
        match goes_on {
            true => Poll::Pending,
            false => Poll::Ready(()),
        }
    }
}

impl<K, V> Drop for Reading<K, V> {
    fn drop(&mut self) {
        self.0.level.reading_ends(self.address());
        if let Some((work, _)) = self.0.work.ask() {
            self.0.hand_over(work);
        }
    }
}
