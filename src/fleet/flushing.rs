//! The task that flushes pending writes, and the one that probes a store that failed.

use std::hash::Hash;

use super::outbox::{Flushed, Queued};
use super::{Fleet, PAUSES};
use crate::protocol::groups::Cell;
use crate::rng::with_rng;
use crate::store::{Birth, ErrorClass, StoreError};
use crate::sync::Arc;
use crate::sync::future::or;

/// A task that flushes writes. If it is dropped before its end, with a runtime or by a panic of
/// user code, others do its work.
pub(super) struct Task<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    fleet: Arc<Fleet<K, V>>,
    is_probe: bool,
    /// What the attempt that is under way flushes.
    at: Option<Queued>,
    has_ended: bool,
}

impl<K, V> Task<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    pub(super) fn new(fleet: &Arc<Fleet<K, V>>, is_probe: bool) -> Self {
        Task {
            fleet: fleet.clone(),
            is_probe,
            at: None,
            has_ended: false,
        }
    }

    /// Flushes the writes that are ready, until none is.
    pub(super) async fn run(mut self) {
        while let Some(next) = self.fleet.queue.next() {
            self.flush(next).await;
        }
        self.has_ended = true;
    }

    /// Tries one write after each pause, until none waits.
    pub(super) async fn probe(mut self) {
        let mut pause = PAUSES.0;
        loop {
            let clock = &self.fleet.state.clock;
            let wait = with_rng(|rng| pause - rand::RngExt::random_range(rng, 0..pause / 2));
            let ends = clock.sleep_until(clock.now().saturating_add(wait));
            let is_woken = or(
                async {
                    self.fleet.queue.woken().await;
                    true
                },
                async {
                    ends.await;
                    false
                },
            );
            pause = match is_woken.await {
                true => PAUSES.0,
                false => (2 * pause).min(PAUSES.1),
            };
            // As long as writes succeed there is no pause.
            loop {
                // Without the cache no value is left.
                let is_over = self.fleet.entries.strong_count() == 0;
                let next = self.fleet.queue.retry().filter(|_| !is_over);
                let Some(next) = next else {
                    self.has_ended = true;
                    return;
                };
                if !self.flush(next).await {
                    break;
                }
                pause = PAUSES.0;
            }
        }
    }

    /// Flushes the writes of one key, or the invalidations of one cell, until none is left. Returns
    /// false if one failed.
    async fn flush(&mut self, queued: Queued) -> bool {
        self.fleet.is_taken(&queued);
        match queued.cell {
            Some(cell) => self.flush_cell(cell, queued).await,
            None => self.flush_key(queued).await,
        }
    }

    async fn flush_cell(&mut self, cell: Cell, queued: Queued) -> bool {
        let fleet = self.fleet.clone();
        while let Some(call) = fleet.cells.attempt(cell) {
            self.at = Some(queued.clone());
            // No clock of a process takes part: it is later than whatever is stored.
            let birth = Birth::latest(fleet.origin);
            let stored = fleet.store_cell(&queued.name, birth).await;
            self.at = None;
            match stored {
                Ok(epoch) => {
                    self.succeeded();
                    fleet.cell_sent(cell, call, epoch);
                }
                Err(error) => {
                    fleet.counters.retried.add();
                    if !fleet.state.lifecycle.is_closed() {
                        fleet.wait_for_probe(queued, &error);
                        return false;
                    }
                    fleet.give_up_cell(cell, call, error);
                }
            }
        }
        true
    }

    /// The store is back, so all writes may be tried.
    fn succeeded(&self) {
        for _ in 0..self.fleet.queue.succeeded() {
            self.fleet.start_task();
        }
    }

    async fn flush_key(&mut self, queued: Queued) -> bool {
        let fleet = self.fleet.clone();
        let hash = queued.name.hash();
        while let Some(mut attempt) = fleet.attempt(hash) {
            self.at = Some(queued.clone());
            fleet.find_value(hash, &mut attempt);
            let flushed = fleet.flush_one(&queued.name, &attempt).await;
            self.at = None;
            if let Err(error) = flushed {
                fleet.counters.retried.add();
                if fleet.is_full() || fleet.state.lifecycle.is_closed() {
                    fleet.give_up(hash, &attempt, error);
                } else if fleet.versions.failed(hash, &attempt) {
                    fleet.wait_for_probe(queued, &error);
                    return false;
                }
                continue;
            }
            self.succeeded();
            match flushed {
                Ok(Flushed::Superseded) => fleet.superseded(hash, &attempt),
                Ok(Flushed::Stored { stamp, has_value }) => {
                    fleet.stored(hash, &attempt, stamp, has_value);
                }
                Err(_) => {}
            }
        }
        true
    }
}

impl<K, V> Drop for Task<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    fn drop(&mut self) {
        let fleet = &self.fleet;
        if let Some(queued) = self.at.take() {
            let error = StoreError::new(ErrorClass::Unavailable, "the attempt was interrupted");
            fleet.wait_for_probe(queued, &error);
        }
        match (self.has_ended, self.is_probe) {
            (true, _) => {}
            // No task would start.
            _ if fleet.store.has_ended() => {}
            (false, true) => {
                if fleet.queue.probe_dropped() {
                    fleet.start_probe();
                }
            }
            (false, false) => {
                if fleet.queue.task_dropped() {
                    fleet.start_task();
                }
            }
        }
    }
}
