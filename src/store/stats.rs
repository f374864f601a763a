//! The counters of a store.

use super::error::{ErrorClass, StoreError};
use crate::sync::{Counter, Ordering};

/// The counts of a store since it was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreStats {
    /// Keys that were read.
    pub reads: u64,
    /// Of those, the keys that were stored.
    pub found: u64,
    /// Connections made, the first among them.
    pub connections: u64,
    /// Changes that were received.
    pub changes: u64,
    /// Changes that were received and could not be understood, for example of a newer version.
    pub changes_foreign: u64,
    /// Errors that were returned, by class.
    errors: [u64; ErrorClass::ALL.len()],
}

impl StoreStats {
    /// How many errors of a class were returned.
    pub fn errors(&self, class: ErrorClass) -> u64 {
        self.errors[class as usize]
    }

    /// Each class of errors with how many were returned.
    pub fn errors_by_class(&self) -> impl Iterator<Item = (ErrorClass, u64)> + '_ {
        ErrorClass::ALL
            .into_iter()
            .map(|class| (class, self.errors(class)))
    }
}

/// The counters behind [`StoreStats`], for implementations of [`Store`](crate::store::Store).
///
/// A store keeps one, counts in it, and answers [`Store::stats`](crate::store::Store::stats) with a
/// [`snapshot`](Self::snapshot). Counting never blocks.
///
/// # Example
///
/// ```
/// use everfresh::store::{ErrorClass, StoreCounters, StoreError};
///
/// let counters = StoreCounters::default();
/// counters.read(&[Ok(Some(vec![1])), Ok(None)]);
/// let full: Result<(), _> = Err(StoreError::new(ErrorClass::Refused, "the disk is full"));
/// assert!(counters.result(full).is_err());
///
/// let stats = counters.snapshot();
/// assert_eq!((stats.reads, stats.found), (2, 1));
/// assert_eq!(stats.errors(ErrorClass::Refused), 1);
/// ```
#[derive(Debug, Default)]
pub struct StoreCounters {
    // Relaxed throughout: a counter orders nothing.
    reads: Counter,
    found: Counter,
    connections: Counter,
    changes: Counter,
    changes_foreign: Counter,
    errors: [Counter; ErrorClass::ALL.len()],
}

impl StoreCounters {
    /// Counts the answers of one [`Store::read`](crate::store::Store::read), their errors too.
    pub fn read(&self, answers: &[Result<Option<Vec<u8>>, StoreError>]) {
        let found = answers
            .iter()
            .filter(|answer| matches!(answer, Ok(Some(_))));
        let found = found.count() as u64;
        self.reads
            .fetch_add(answers.len() as u64, Ordering::Relaxed);
        if found > 0 {
            self.found.fetch_add(found, Ordering::Relaxed);
        }
        for error in answers.iter().filter_map(|answer| answer.as_ref().err()) {
            self.failed(error);
        }
    }

    /// Counts a connection that was made.
    pub fn connected(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a change that was received, and whether it could be understood.
    pub fn changed(&self, understood: bool) {
        let counter = match understood {
            true => &self.changes,
            false => &self.changes_foreign,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an error.
    pub fn failed(&self, error: &StoreError) {
        self.errors[error.class() as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts the error of a result, if it is one, and returns the result.
    ///
    /// # Errors
    ///
    /// The error of the result.
    pub fn result<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        result.inspect_err(|error| self.failed(error))
    }

    /// The counts so far.
    pub fn snapshot(&self) -> StoreStats {
        let read = |counter: &Counter| counter.load(Ordering::Relaxed);
        StoreStats {
            reads: read(&self.reads),
            found: read(&self.found),
            connections: read(&self.connections),
            changes: read(&self.changes),
            changes_foreign: read(&self.changes_foreign),
            errors: std::array::from_fn(|class| read(&self.errors[class])),
        }
    }
}
