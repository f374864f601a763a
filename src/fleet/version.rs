//! The order of the changes of one key, as far as a process can know it.
//!
//! Epochs are ordered within one timeline of the store. After its clock was set back, or another
//! server with a slower clock took its place, a later change has a smaller epoch. So a process
//! orders changes by their timeline first. An epoch later than the time of the store is from before
//! the present timeline, whenever it is seen.

use super::Fleet;
use super::cells::Basis;
use crate::store::Epoch;
use crate::time::clock::Tick;

/// The place of a payload or a removal in the order of the changes of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version {
    pub(super) timeline: u64,
    pub(super) epoch: Epoch,
}

/// A version and the checksum of its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) version: Version,
    pub(super) checksum: u64,
}

/// The time of the store when it answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    /// Why the cells of the answer were in sync with the store; `None` if it had none.
    pub(super) basis: Option<Basis>,
    /// The timeline in which the request was sent. A change after that has the same timeline or a
    /// later one, so an answer that a change overtakes does not count as later than the change.
    timeline: u64,
    time: Option<u64>,
}

impl Moment {
    /// The version of an epoch that the store has returned, or has sent with a change.
    pub(super) fn version(self, epoch: Epoch) -> Version {
        let is_old = self.time.is_some_and(|time| epoch.is_ahead_of(time));
        Version {
            // The first timeline is 1, so there is one before it.
            timeline: self.timeline - u64::from(is_old),
            epoch,
        }
    }

    pub(super) fn with(self, basis: Option<Basis>) -> Self {
        Moment { basis, ..self }
    }

    /// The age of a payload; `None` if it is unknown. By the clock of the store, not by that of
    /// this machine.
    pub(super) fn age(self, epoch: Epoch) -> Option<Tick> {
        let time = self.time.filter(|time| !epoch.is_ahead_of(*time))?;
        let age = time.saturating_sub(epoch.micros());
        Some(age.saturating_mul(1_000))
    }
}

impl<K, V> Fleet<K, V> {
    /// The present timeline of the store.
    pub(super) fn timeline(&self) -> u64 {
        self.store.timeline().saturating_add(1)
    }

    /// The moment of an answer that has just come, to a request that was sent in this timeline.
    pub(super) fn answered_in(&self, timeline: u64) -> Moment {
        Moment {
            basis: None,
            timeline,
            time: self.store.now(),
        }
    }

    /// The same answer, seen later.
    pub(super) fn later(&self, moment: Moment) -> Moment {
        Moment {
            time: self.store.now(),
            ..moment
        }
    }

    /// The version of an epoch that the store has just returned, or has sent with a change.
    pub(super) fn version(&self, epoch: Epoch) -> Version {
        self.answered_in(self.timeline()).version(epoch)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a panic is the result of a test")]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_ahead_of_the_store_is_old_and_of_unknown_age() {
        let moment = Moment {
            basis: None,
            timeline: 1,
            time: Some(9_000_000),
        };
        let epoch = |micros| Epoch::from_micros(micros).unwrap();
        let (before, now, soon) = (epoch(7_000_000), epoch(9_000_000), epoch(10_000_000));
        let ahead = epoch(10_000_001);
        let versions = [ahead, before, now, soon].map(|epoch| moment.version(epoch));
        assert!(versions.is_sorted());
        assert_eq!(moment.age(before), Some(2_000_000_000));
        assert_eq!((moment.age(now), moment.age(soon)), (Some(0), Some(0)));
        assert_eq!(moment.age(ahead), None);
    }
}
