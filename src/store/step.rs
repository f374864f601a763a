//! The lease protocol: the effect of each operation of a store on the record of a key.

use std::time::Duration;

use super::ChangeKind;
use super::envelope;
use super::error::{ErrorClass, StoreError};
use super::lease::{Acquire, Acquired, Birth, Epoch, Origin, Publish, Stored, Token};
use super::record::{NAMED, Payload, Record, RecordLease};
use crate::sync::{Counter, Ordering};

/// A set of at most this age, in microseconds, replaces every loaded value.
pub(super) const AT_ONCE: u64 = 1_000_000;

/// One operation on one record, which no other operation interrupts.
pub(super) struct Step<'a> {
    record: &'a mut Record,
    now: u64,
    last: &'a Counter,
    limit: usize,
    /// The change of which listeners are notified once the record is stored.
    pub change: Option<(ChangeKind, Option<Epoch>, Origin)>,
}

/// The payload in a record, if it is later than a write.
enum Later {
    Nothing,
    /// A value that was loaded, perhaps before the write.
    Loaded,
    /// A write of a caller.
    Written,
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl<'a> Step<'a> {
    /// `last` is the last epoch given by this process.
    pub fn new(record: &'a mut Record, now: u64, last: &'a Counter, limit: usize) -> Self {
        record.expire(now);
        Step {
            record,
            now,
            last,
            limit,
            change: None,
        }
    }

    pub fn read(&self) -> Result<Option<Vec<u8>>, StoreError> {
        match &self.record.payload {
            Some(payload) if payload.bytes.len() > self.limit => {
                Err(StoreError::new(ErrorClass::TooLarge, ""))
            }
            payload => Ok(payload.as_ref().map(|payload| payload.bytes.clone())),
        }
    }

    pub fn acquire(&mut self, ask: Acquire) -> Result<Acquired, StoreError> {
        let stored = self.record.epoch();
        if let Some(payload) = &self.record.payload {
            // A payload above the limit cannot be returned, so the caller may replace it.
            if stored.is_some() && stored != ask.seen && payload.bytes.len() <= self.limit {
                return Ok(Acquired::Stored(payload.bytes.clone()));
            }
        }
        let (mut known, mut failed) = (stored, Vec::new());
        if let Some(lease) = &self.record.lease {
            let left = Duration::from_micros(lease.until - self.now);
            match lease.holder {
                Some(holder) if holder == ask.token => known = known.or(lease.base),
                Some(_) => return Ok(Acquired::Held { left }),
                // Each process may find out once for itself whether it can load the key.
                None if lease.names(ask.token.origin) || lease.failed.len() >= NAMED => {
                    return Ok(Acquired::Cooling { left });
                }
                None => {}
            }
            failed.clone_from(&lease.failed);
        }
        let base = match known {
            Some(base) => base,
            None => self.next_epoch()?,
        };
        self.record.set_lease(Some(RecordLease {
            holder: Some(ask.token),
            failed,
            base: Some(base),
            until: self.after(ask.lease),
        }));
        Ok(Acquired::Granted { base })
    }

    pub fn publish(&mut self, publish: Publish) -> Result<Stored, StoreError> {
        let ours = self.record.is_held_by(publish.token);
        let base = self.record.lease.as_ref().and_then(|lease| lease.base);
        let accepted = match self.record.epoch() {
            Some(stored) => publish.base == stored,
            None => ours && base == Some(publish.base),
        };
        let stored = match accepted {
            true => {
                let epoch = self.put(publish.payload, publish.ttl)?;
                self.changed(ChangeKind::Refreshed, Some(epoch), publish.token.origin);
                Stored::Yes { epoch }
            }
            false => Stored::Refused,
        };
        let cools = (self.record.lease.as_ref()).is_some_and(|lease| lease.holder.is_none());
        if ours || accepted && cools {
            self.record.set_lease(None);
        } else if accepted {
            // The overtaken holder keeps its lease so that no other process loads, but its result
            // is refused.
            if let Some(lease) = &mut self.record.lease {
                lease.base = None;
            }
        }
        Ok(stored)
    }

    pub fn renew(&mut self, token: Token, lease: Duration) -> bool {
        let until = self.after(lease);
        match &mut self.record.lease {
            Some(held) if held.holder == Some(token) => {
                held.until = until;
                self.record.changed = true;
                true
            }
            _ => false,
        }
    }

    pub fn release(&mut self, token: Token, cool_down: Option<Duration>) -> bool {
        if !self.record.is_held_by(token) {
            return false;
        }
        let lease = self.record.lease.take();
        let mut failed = lease.map_or(Vec::new(), |lease| lease.failed);
        failed.retain(|origin| *origin != token.origin);
        failed.push(token.origin);
        let cooling = cool_down.filter(|cool_down| !cool_down.is_zero());
        self.record.set_lease(cooling.map(|cool_down| RecordLease {
            holder: None,
            failed,
            base: None,
            until: self.after(cool_down),
        }));
        self.record.changed = true;
        self.changed(ChangeKind::released(cool_down), None, token.origin);
        true
    }

    pub fn set(
        &mut self,
        payload: Vec<u8>,
        ttl: Duration,
        birth: Birth,
    ) -> Result<Stored, StoreError> {
        match self.later_than(birth) {
            Later::Nothing => {}
            Later::Loaded if self.now.saturating_sub(birth.micros) <= AT_ONCE => {}
            Later::Loaded => {
                self.remove(birth.origin)?;
                return Ok(Stored::Refused);
            }
            Later::Written => return Ok(Stored::Refused),
        }
        let epoch = self.put(payload, ttl)?;
        self.record.set_lease(None);
        self.changed(ChangeKind::Set, Some(epoch), birth.origin);
        Ok(Stored::Yes { epoch })
    }

    pub fn invalidate(&mut self, birth: Birth) -> Result<Stored, StoreError> {
        match self.later_than(birth) {
            Later::Nothing | Later::Loaded => {
                let epoch = self.remove(birth.origin)?;
                Ok(Stored::Yes { epoch })
            }
            Later::Written => Ok(Stored::Refused),
        }
    }

    /// Whether the payload in the record is later than a write.
    fn later_than(&self, birth: Birth) -> Later {
        let payload = self.record.payload.as_ref();
        let Some((payload, epoch)) = payload.zip(self.record.epoch()) else {
            return Later::Nothing;
        };
        let stored_at = epoch.micros();
        // Only the same epoch, because the writer may have seen a later one before the clock was
        // set back.
        if epoch.is_ahead_of(self.now) || birth.seen == Some(epoch) {
            return Later::Nothing;
        }
        match envelope::born(&payload.bytes) {
            // No write is born after it is stored, whatever the clock of its process said.
            Some(born) if born.min(stored_at) > birth.micros => Later::Written,
            None if stored_at > birth.micros => Later::Loaded,
            _ => Later::Nothing,
        }
    }

    fn remove(&mut self, origin: Origin) -> Result<Epoch, StoreError> {
        let epoch = self.next_epoch()?;
        self.record.set_payload(None);
        self.record.set_lease(None);
        self.changed(ChangeKind::Invalidated, Some(epoch), origin);
        Ok(epoch)
    }

    /// Stores a payload with a new epoch. The lease is left to the caller.
    fn put(&mut self, mut bytes: Vec<u8>, ttl: Duration) -> Result<Epoch, StoreError> {
        let epoch = self.next_epoch()?;
        if bytes.len() > self.limit {
            return Err(StoreError::new(ErrorClass::TooLarge, ""));
        }
        if !envelope::stamp(&mut bytes, epoch) {
            return Err(StoreError::new(ErrorClass::Protocol, "no envelope"));
        }
        let until = self.after(ttl);
        self.record.set_payload(Some(Payload { bytes, until }));
        Ok(epoch)
    }

    /// Returns an epoch later than the stored one and than all that this process gave, even if the
    /// clock stands still.
    ///
    /// If those are ahead of the clock, because it was set back, the epoch is the present time.
    /// Otherwise each successor would be ahead too until the clock has caught up, and every reader
    /// would take it for old. The promises do not need the order. A publication over a payload is
    /// accepted if its base equals the stored epoch, and each epoch differs from the one before it.
    /// A publication over nothing needs a lease, which every write ends.
    fn next_epoch(&self) -> Result<Epoch, StoreError> {
        let next = |last: u64| {
            let is_ahead = Epoch::from_micros(last).is_some_and(|last| last.is_ahead_of(self.now));
            Epoch::from_micros(match is_ahead {
                true => self.now,
                false => self.now.max(last + 1),
            })
        };
        // Relaxed: the number orders nothing but itself.
        let last = self
            .last
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| {
                next(last).map(Epoch::micros)
            });
        // The stored epoch may be a second ahead. It must not push the epochs of other keys ahead
        // of the clock, so it does not count as the last one.
        let stored = self.record.epoch().map_or(0, Epoch::micros);
        last.ok()
            .and_then(next)
            .and_then(|epoch| Some(epoch.max(next(stored)?)))
            .ok_or_else(|| StoreError::new(ErrorClass::Other, "the clock is past the year 2255"))
    }

    fn changed(&mut self, kind: ChangeKind, epoch: Option<Epoch>, origin: Origin) {
        self.change = Some((kind, epoch, origin));
    }

    fn after(&self, duration: Duration) -> u64 {
        self.now.saturating_add(micros(duration))
    }
}
