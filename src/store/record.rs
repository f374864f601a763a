//! The record of one key.

use super::envelope;
use super::lease::{Epoch, Origin, Token};

/// The first word of an encoded record: a name and the version of the layout.
const MAGIC: u64 = u64::from_be_bytes(*b"EVFREC\0\x02");

/// The words at the beginning of an encoded record. The processes that failed follow, then the
/// payload.
const WORDS: usize = 8;
const HEADER: usize = WORDS * 8;

/// The limit on the processes that a cool-down names. If so many have failed, the origin is to
/// blame, and no other process tries.
pub(super) const NAMED: usize = 16;

/// The record that a [`RecordStore`](crate::store::RecordStore) keeps for one key: a payload and a
/// lease, each with the moment at which it ends.
///
/// [`Records`](crate::store::Records) keep it as it is or as [bytes](Self::to_bytes). The default
/// is the record of a key without a payload and a lease.
///
/// # Example
///
/// ```
/// use everfresh::store::Record;
///
/// let nothing = Record::from_bytes(Vec::new());
/// assert!(nothing.is_empty() && !nothing.is_changed());
/// assert!(Record::from_bytes(nothing.to_bytes()).is_empty());
/// ```
#[derive(Debug, Default)]
pub struct Record {
    pub(super) payload: Option<Payload>,
    pub(super) lease: Option<RecordLease>,
    pub(super) changed: bool,
    /// Whether a step stored a payload, or removed it even though there was none.
    #[cfg(feature = "file")]
    pub(super) has_new_payload: bool,
}

#[derive(Debug)]
pub(super) struct Payload {
    pub bytes: Vec<u8>,
    pub until: u64,
}

#[derive(Debug)]
pub(super) struct RecordLease {
    /// The attempt that holds the lease; `None` during the cool-down after a failed load.
    pub holder: Option<Token>,
    /// The processes whose loads failed one after the other, at most [`NAMED`].
    pub failed: Vec<Origin>,
    /// `None` once another load was published over this base.
    pub base: Option<Epoch>,
    pub until: u64,
}

impl RecordLease {
    /// Whether a load of this process failed.
    pub fn names(&self, origin: Origin) -> bool {
        self.failed.contains(&origin)
    }
}

impl Record {
    /// Reads a record that [`to_bytes`](Self::to_bytes) wrote. Any other bytes are an empty record,
    /// which the next load replaces.
    pub fn from_bytes(mut bytes: Vec<u8>) -> Self {
        let mut read = bytes.chunks_exact(8).map(|chunk| {
            let fold = |word, byte: &u8| word << 8 | u64::from(*byte);
            chunk.iter().fold(0_u64, fold)
        });
        let words: Vec<u64> = read.by_ref().take(WORDS).collect();
        let [
            magic,
            payload_until,
            lease_until,
            held,
            origin,
            serial,
            base,
            failed,
        ] = words[..]
        else {
            return Record::default();
        };
        let failed: Vec<_> = read.take(failed.min(NAMED as u64) as usize).collect();
        let header = HEADER + 8 * failed.len();
        if magic != MAGIC || words[WORDS - 1] != failed.len() as u64 {
            return Record::default();
        }
        let payload = (payload_until > 0).then(|| Payload {
            bytes: bytes.split_off(header),
            until: payload_until,
        });
        let origin = Origin(origin);
        let lease = (lease_until > 0).then(|| RecordLease {
            holder: (held == 1).then_some(Token { origin, serial }),
            failed: failed.into_iter().map(Origin).collect(),
            base: Epoch::from_micros(base),
            until: lease_until,
        });
        Record {
            payload,
            lease,
            ..Record::default()
        }
    }

    /// Writes the record as bytes, which are 64 more than its payload, and at most 192 more after
    /// loads that failed. The layout is the same in every process.
    pub fn to_bytes(&self) -> Vec<u8> {
        let lease = self.lease.as_ref();
        let holder = lease.and_then(|lease| lease.holder);
        let failed = lease.map_or(&[][..], |lease| &lease.failed);
        let words: [u64; WORDS] = [
            MAGIC,
            self.payload.as_ref().map_or(0, |payload| payload.until),
            lease.map_or(0, |lease| lease.until),
            u64::from(holder.is_some()),
            holder.map_or(0, |holder| holder.origin.0),
            holder.map_or(0, |holder| holder.serial),
            lease.and_then(|lease| lease.base).map_or(0, Epoch::micros),
            failed.len() as u64,
        ];
        let failed = failed.iter().map(|origin| origin.0);
        let words: Vec<_> = words.into_iter().chain(failed).collect();
        let payload = self.payload.as_ref();
        let payload = payload.map_or(&[][..], |payload| &payload.bytes);
        let words = words.into_iter().flat_map(u64::to_be_bytes);
        words.chain(payload.iter().copied()).collect()
    }

    /// Whether the step changed the record. An unchanged record need not be written.
    pub fn is_changed(&self) -> bool {
        self.changed
    }

    /// Whether the record holds nothing. An empty record need not be kept.
    pub fn is_empty(&self) -> bool {
        self.payload.is_none() && self.lease.is_none()
    }

    /// The moment from which the record need not be kept, by the clock of
    /// [`Records::now`](crate::store::Records::now).
    pub fn expires(&self) -> u64 {
        let payload = self.payload.as_ref().map_or(0, |payload| payload.until);
        let lease = self.lease.as_ref().map_or(0, |lease| lease.until);
        payload.max(lease)
    }

    /// Removes a payload and a lease that have expired.
    pub(super) fn expire(&mut self, now: u64) {
        if self
            .payload
            .as_ref()
            .is_some_and(|payload| now >= payload.until)
        {
            self.set_payload(None);
        }
        if self.lease.as_ref().is_some_and(|lease| now >= lease.until) {
            self.set_lease(None);
        }
    }

    pub(super) fn set_payload(&mut self, payload: Option<Payload>) {
        self.changed |= self.payload.is_some() || payload.is_some();
        #[cfg(feature = "file")]
        {
            self.has_new_payload = true;
        }
        self.payload = payload;
    }

    pub(super) fn set_lease(&mut self, lease: Option<RecordLease>) {
        self.changed |= self.lease.is_some() || lease.is_some();
        self.lease = lease;
    }

    /// The epoch of the stored payload, if it is valid.
    pub(super) fn epoch(&self) -> Option<Epoch> {
        let payload = self.payload.as_ref()?;
        envelope::epoch(&payload.bytes)
    }

    pub(super) fn is_held_by(&self, token: Token) -> bool {
        let lease = self.lease.as_ref();
        lease.is_some_and(|lease| lease.holder == Some(token))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> Record {
        let origin = Origin(u64::MAX);
        Record {
            payload: Some(Payload {
                bytes: b"any bytes".to_vec(),
                until: u64::MAX,
            }),
            lease: Some(RecordLease {
                holder: Some(Token { origin, serial: 7 }),
                failed: vec![Origin(3), Origin(4)],
                base: Epoch::from_micros(12),
                until: 5,
            }),
            changed: true,
            ..Record::default()
        }
    }

    #[test]
    fn a_record_is_the_same_after_its_bytes() {
        let bytes = full().to_bytes();
        let read = Record::from_bytes(bytes.clone());
        assert!(!read.is_changed());
        assert_eq!(read.to_bytes(), bytes);
        assert_eq!(read.expires(), u64::MAX);
        let origin = Origin(u64::MAX);
        assert!(read.is_held_by(Token { origin, serial: 7 }));

        let cooling = Record {
            payload: None,
            lease: Some(RecordLease {
                holder: None,
                failed: vec![Origin(3)],
                base: None,
                until: 5,
            }),
            changed: true,
            ..Record::default()
        };
        let read = Record::from_bytes(cooling.to_bytes());
        assert!(read.payload.is_none());
        let names = |lease: RecordLease| lease.holder.is_none() && lease.names(Origin(3));
        assert!(read.lease.is_some_and(names));
    }

    #[test]
    fn other_bytes_are_an_empty_record() {
        let bytes = full().to_bytes();
        for length in 0..HEADER + 2 * 8 {
            assert!(Record::from_bytes(bytes[..length].to_vec()).is_empty());
        }
        for at in 0..8 {
            let mut other = bytes.clone();
            other[at] ^= 1;
            assert!(Record::from_bytes(other).is_empty());
        }
    }

    #[test]
    fn a_record_expires_in_its_parts() {
        let mut record = full();
        record.changed = false;
        record.expire(4);
        assert!(!record.is_changed());
        record.expire(5);
        assert!(record.is_changed() && record.lease.is_none() && record.payload.is_some());
        record.expire(u64::MAX);
        assert!(record.is_empty());
    }
}
