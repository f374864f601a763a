//! The pending writes in the version index: what this process has written, and the store does not
//! know yet.
//!
//! A later write of a key replaces a pending one. The rules of their order are in `outbox`, the
//! queue in which they wait is `write_queue`.

use super::version::{Stamp, Version};
use super::version_index::VersionIndex;
use crate::protocol::entry::Entry;
use crate::protocol::groups::Moment;
use crate::store::StoreError;
use crate::store::lease::CLOCK_ERROR;
use crate::sync::StrongArc;
use crate::time::clock::Tick;

/// A write that the store must learn of.
pub(super) enum Write<K, V> {
    Set(StrongArc<Entry<K, V>>),
    /// A set whose value is in the table, at this address, or has left it. An address identifies
    /// the value only together with the moment of the write.
    SetResident(usize),
    Invalidate,
}

impl<K, V> Write<K, V> {
    /// Leaves the value to the table.
    fn let_go(&mut self) -> Option<StrongArc<Entry<K, V>>> {
        let Write::Set(entry) = self else {
            return None;
        };
        let address = address(entry);
        match std::mem::replace(self, Write::SetResident(address)) {
            Write::Set(entry) => Some(entry),
            _ => None,
        }
    }
}

/// When a write was made, by the clock of this process and as the groups count.
#[derive(Clone, Copy)]
pub(super) struct Made {
    pub(super) at: Tick,
    pub(super) began: Moment,
}

/// Where a value lies.
pub(super) fn address<K, V>(entry: &Entry<K, V>) -> usize {
    std::ptr::from_ref(entry).addr()
}

impl<K, V> Clone for Write<K, V> {
    fn clone(&self) -> Self {
        match self {
            Write::Set(entry) => Write::Set(entry.clone()),
            Write::SetResident(address) => Write::SetResident(*address),
            Write::Invalidate => Write::Invalidate,
        }
    }
}

/// A write that was recorded.
pub(super) struct Recorded {
    pub(super) number: u64,
    /// Whether it replaced no pending write.
    pub(super) is_first: bool,
    /// Whether it must be queued: it is not ready yet, and no task is at the key.
    pub(super) is_ready: bool,
}

/// The end of an attempt that is not repeated.
pub(super) struct Ended {
    /// Whether no write of the key is pending now.
    pub(super) is_last: bool,
    /// Whether no later change of another process is known.
    pub(super) is_latest: bool,
}

impl Ended {
    /// Drops the rest, which may hold a value, without a lock.
    fn of<T>(ended: Option<(bool, bool, T)>) -> Self {
        let (is_last, is_latest) = ended.map_or((false, true), |(last, latest, _)| (last, latest));
        Ended { is_last, is_latest }
    }
}

/// One attempt to flush a write.
pub(super) struct Attempt<K, V> {
    pub(super) number: u64,
    pub(super) write: Write<K, V>,
    /// When the write was made, in microseconds of the store's clock. `None` before the first
    /// connection.
    pub(super) born: Option<u64>,
    /// The same by the clock of this process.
    pub(super) made: Made,
    /// The latest version that the write replaces, whatever the clocks say.
    pub(super) seen: Option<Version>,
}

impl<K, V> Attempt<K, V> {
    fn is_set(&self) -> bool {
        !matches!(self.write, Write::Invalidate)
    }
}

pub(super) struct UnflushedWrite<K, V> {
    write: Write<K, V>,
    made: Made,
    /// The same by the store's clock, once it is known. Each attempt gives the same moment, so that
    /// the store knows a repeated write, unless that clock was set since.
    born: Option<u64>,
    /// The latest version that this process knew when it made the write, or that its own earlier
    /// writes were given since.
    seen: Option<Version>,
    /// Why the last attempt failed; `None` while a task flushes the write.
    failed: Option<StoreError>,
}

/// The state of the latest write of this process.
pub(super) enum WriteState {
    /// The store knows it, or a later one.
    Flushed,
    /// A task flushes it, or will.
    InFlight,
    /// The last attempt failed. The write is tried again, or it was given up.
    Failed(StoreError),
}

impl<K: Clone, V> VersionIndex<K, V> {
    /// Records a write over a pending one.
    pub(super) fn write(&self, hash: u128, write: Write<K, V>, made: Made) -> Option<Recorded> {
        let (number, is_ready, before) = self.with(hash, |known| {
            known.writes += 1;
            let before = known.pending.replace(Box::new(UnflushedWrite {
                write,
                made,
                born: None,
                seen: known.latest,
                failed: None,
            }));
            let is_ready = !(known.is_flushing || known.is_ready);
            known.is_ready |= is_ready;
            (known.writes, is_ready, before)
        })?;
        // `before` is dropped here and not under the lock, because it may drop a value.
        Some(Recorded {
            number,
            is_first: before.is_none(),
            is_ready,
        })
    }

    /// Begins an attempt to flush the pending write, unless another task has begun one. `born` is
    /// the moment of a write by the store's clock.
    pub(super) fn attempt(
        &self,
        hash: u128,
        born: impl FnOnce(Tick) -> Option<u64>,
    ) -> Option<Attempt<K, V>> {
        self.with(hash, |known| {
            let pending = known.pending.as_mut().filter(|_| !known.is_flushing)?;
            known.is_flushing = true;
            let present = born(pending.made.at);
            let holds = |known: &u64| present.is_none_or(|now| now.abs_diff(*known) <= CLOCK_ERROR);
            pending.born = pending.born.filter(holds).or(present);
            Some(Attempt {
                number: known.writes,
                write: pending.write.clone(),
                born: pending.born,
                made: pending.made,
                seen: pending.seen,
            })
        })
        .flatten()
    }

    /// The store has made the change of an attempt, or needs none. `has_value` says whether it has
    /// the value of a set now.
    pub(super) fn flushed(
        &self,
        hash: u128,
        attempt: &Attempt<K, V>,
        stamp: Option<Stamp>,
        has_value: bool,
    ) -> Ended {
        let history = self.history();
        let version = stamp.map(|stamp| stamp.version);
        let ended = self.with(hash, |known| {
            known.is_flushing = false;
            let latest = known.latest;
            known.latest = latest.max(version);
            known.removed = known.removed.max(version);
            if known.writes != attempt.number {
                if let Some(pending) = &mut known.pending {
                    pending.seen = pending.seen.max(version);
                }
                return (false, true, None);
            }
            known.installed = version.filter(|_| attempt.is_set());
            known.checksum = stamp.map_or(0, |stamp| stamp.checksum);
            known.history = history;
            // The store compares the births of a set and of the writes of others. If it was told of
            // a removal instead, because it cannot hold the value, this process compares them.
            let written_later = |other: Version| {
                Some(other) > attempt.seen && Some(other.epoch.micros()) > attempt.born
            };
            let is_later = !has_value && known.removed_by_other.is_some_and(written_later);
            let is_latest = latest <= version.or(latest) && !is_later;
            (true, is_latest, known.pending.take())
        });
        self.notify(hash);
        Ended::of(ended)
    }

    /// The store never takes the write of an attempt, unless a later write of the key succeeds.
    pub(super) fn end(&self, hash: u128, attempt: &Attempt<K, V>, error: StoreError) -> Ended {
        let ended = self.with(hash, |known| {
            known.is_flushing = false;
            known.ended = Some(Box::new((attempt.number, error)));
            if known.writes != attempt.number {
                return (false, true, None);
            }
            known.installed = None;
            let is_latest = known.latest <= attempt.seen;
            (true, is_latest, known.pending.take())
        });
        self.notify(hash);
        Ended::of(ended)
    }

    /// Whether this process has made no later write of the key.
    pub(super) fn is_last(&self, hash: u128, attempt: &Attempt<K, V>) -> bool {
        self.with(hash, |known| known.writes == attempt.number)
            .unwrap_or(false)
    }

    /// A task takes the key from one of the two queues.
    pub(super) fn is_taken(&self, hash: u128, had_failed: bool) {
        self.with(hash, |known| match had_failed {
            true => known.has_failed = false,
            false => known.is_ready = false,
        });
    }

    /// An attempt failed. Returns false if there is a later write, which was not tried yet.
    pub(super) fn failed(&self, hash: u128, attempt: &Attempt<K, V>) -> bool {
        let is_last = self.with(hash, |known| {
            known.is_flushing &= known.writes == attempt.number;
            known.is_flushing
        });
        is_last.unwrap_or(false)
    }

    /// The pending write waits for the probe. Returns whether the key must be queued for that.
    pub(super) fn put_off(&self, hash: u128, error: &StoreError, was_flushing: bool) -> bool {
        let put_off = self.with(hash, |known| {
            known.is_flushing &= !was_flushing;
            let pending = known.pending.as_mut().filter(|_| !known.is_flushing)?;
            pending.failed = Some(error.clone());
            let is_queued = std::mem::replace(&mut known.has_failed, true);
            Some((!is_queued, pending.write.let_go()))
        });
        self.notify(hash);
        put_off.flatten().is_some_and(|(must_queue, _)| must_queue)
    }

    /// Leaves the value of a write to the table.
    pub(super) fn let_go(&self, hash: u128, number: u64) {
        let value = self.with(hash, |known| {
            let pending = known.pending.as_mut().filter(|_| known.writes == number)?;
            pending.write.let_go()
        });
        drop(value);
    }

    /// Whether a write of this process is pending.
    pub(super) fn is_pending(&self, hash: u128) -> bool {
        self.with(hash, |known| known.pending.is_some())
            .unwrap_or(false)
    }

    /// Whether this is the value of a pending set.
    pub(super) fn is_pending_set(&self, hash: u128, entry: &Entry<K, V>) -> bool {
        let is_it = self.with(hash, |known| {
            let set = match &known.pending.as_ref()?.write {
                Write::Set(set) => address(set),
                Write::SetResident(at) => *at,
                Write::Invalidate => return None,
            };
            Some(set == address(entry))
        });
        is_it.flatten().unwrap_or(false)
    }

    /// The state of the latest write, which replaces every write before it.
    pub(super) fn write_state(&self, hash: u128) -> WriteState {
        let write_state = self.with(hash, |known| match &known.pending {
            None => WriteState::Flushed,
            Some(pending) => match &pending.failed {
                None => WriteState::InFlight,
                Some(error) => WriteState::Failed(error.clone()),
            },
        });
        write_state.unwrap_or(WriteState::Flushed)
    }

    /// Why the store will never take write `number`, if it will not.
    pub(super) fn ended(&self, hash: u128, number: u64) -> Option<StoreError> {
        self.with(hash, |known| {
            let (last, error) = known.ended.as_deref()?;
            (*last == number).then(|| error.clone())
        })
        .flatten()
    }
}
