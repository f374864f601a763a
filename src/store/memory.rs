//! A store in memory: the contracts of [`Store`](super::Store) without a server.

use std::collections::HashMap;
use std::fmt;
#[cfg(any(test, feature = "test-util"))]
use std::time::Duration;

use super::error::StoreError;
use super::key::StoreKey;
use super::record::Record;
use super::record_store::{RecordStore, Records};
#[cfg(any(test, feature = "test-util"))]
use crate::sync::{Counter, Ordering};
use crate::sync::{Mutex, lock};
use crate::time::clock::Clock;

/// Added to the clock of a store in memory, so that its epochs look like a server's: a day in 2023.
pub(super) const YEAR_2023: u64 = 1_700_000_000_000_000;

/// A [`Store`](crate::store::Store) in this process: several caches that share one store behave
/// like a fleet.
///
/// Made for tests, and for programs that want the second level's encoding and fencing without a
/// server. It keeps every payload until its hard limit; the number of payloads is not bounded.
/// Listeners are notified before the operation that made the change returns.
pub type MemoryStore = RecordStore<MemoryRecords>;

/// The records of a [`MemoryStore`]: a map in this process.
pub struct MemoryRecords {
    clock: Clock,
    /// Added to the clock by tests that set it.
    #[cfg(any(test, feature = "test-util"))]
    shift: Counter,
    state: Mutex<MemoryState>,
}

#[derive(Default)]
struct MemoryState {
    records: HashMap<StoreKey, Record>,
    /// The number of records at which the expired ones are swept.
    sweep_at: usize,
}

impl MemoryStore {
    /// Makes an empty store.
    pub fn new() -> Self {
        Self::with_clock(Clock::precise())
    }

    /// Makes an empty store that takes its time from this clock.
    pub fn with_clock(clock: impl Into<Clock>) -> Self {
        let mut store = RecordStore::over(MemoryRecords {
            clock: clock.into(),
            #[cfg(any(test, feature = "test-util"))]
            shift: Counter::new(0),
            state: Mutex::default(),
        });
        store.is_local = true;
        store
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl Records for MemoryRecords {
    async fn update<T: Send>(
        &self,
        key: &StoreKey,
        step: impl FnOnce(&mut Record) -> T + Send,
    ) -> Result<T, StoreError> {
        let mut state = lock(&self.state);
        state.sweep(self);
        let Some(record) = state.records.get_mut(key) else {
            let mut record = Record::default();
            let result = step(&mut record);
            if !record.is_empty() {
                state.records.insert(key.clone(), record);
            }
            return Ok(result);
        };
        let result = step(record);
        if record.is_empty() {
            state.records.remove(key);
        }
        Ok(result)
    }

    fn now(&self) -> u64 {
        let now = YEAR_2023 + self.clock.exact() / 1_000;
        #[cfg(any(test, feature = "test-util"))]
        let now = now.wrapping_add(self.shift.load(Ordering::SeqCst));
        now
    }
}

impl MemoryState {
    /// Removes everything that has expired, but only once the store has grown enough to pay for it.
    fn sweep(&mut self, clock: &MemoryRecords) {
        if self.records.len() >= self.sweep_at {
            let now = clock.now();
            self.records.retain(|_, record| {
                record.expire(now);
                !record.is_empty()
            });
            self.sweep_at = self.records.len() * 2 + 64;
        }
    }
}

impl fmt::Debug for MemoryRecords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryRecords").finish_non_exhaustive()
    }
}

/// Faults of servers, for tests.
#[cfg(any(test, feature = "test-util"))]
impl MemoryStore {
    /// The number of payloads, including expired ones that were not yet removed.
    pub fn len(&self) -> usize {
        let state = lock(&self.records.state);
        let payloads = state.records.values().filter(|r| r.payload.is_some());
        payloads.count()
    }

    /// Whether the store holds no payload.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Drops everything without notifying listeners.
    pub fn flush(&self) {
        lock(&self.records.state).records.clear();
    }

    /// Sets the clock of the store ahead. The clocks of caches do not change.
    pub fn set_clock_ahead(&self, by: Duration) {
        let shift = by.as_micros() as u64;
        self.records.shift.fetch_add(shift, Ordering::SeqCst);
    }

    /// Sets the clock of the store back, as a failover to a server with a slower clock does. The
    /// clocks of caches do not change.
    pub fn set_clock_back(&self, by: Duration) {
        let shift = by.as_micros() as u64;
        self.records.shift.fetch_sub(shift, Ordering::SeqCst);
    }
}
