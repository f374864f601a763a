//! The layout of a payload: a header of fixed size, then the encoded value.
//!
//! ```text
//! at  bytes
//!  0    3   "EVF"
//!  3    1   version, 1
//!  4    8   epoch                      written by the store
//! 12    8   2^53 - 1 - epoch           written by the store
//! 20    8   checksum: xxh3-64 of everything after it, seeded with the first four bytes
//! 28    8   key check: a second hash of the key
//! 36    8   fresh for, microseconds    all ones: for ever
//! 44    8   stale for
//! 52    8   stale for, when refreshing fails
//! 60    8   cost: the moving average of the load time, microseconds
//! 68    4   schema
//! 72    4   length of the encoded value, before compression
//! 76    1   codec
//! 77    1   flags: 1 is lz4, 2 is written by a caller, 4 is "not found": there is no value, 8 is
//!           zstd, 16 is encrypted, 32 has groups
//! 78    8   only if written by a caller: the moment of the write, microseconds
//!           only if it has groups: their number, 2 bytes; for each group 2 bytes cell and 8 bytes
//!           epoch, that of the last invalidation of the cell before the load began
//!           the encoded value, after compression and encryption
//!           only if encrypted: 16 bytes tag, 24 bytes nonce, 4 bytes number of the secret key
//! ```
//!
//! Numbers are big-endian. The first 20 bytes have this meaning in every version, so that a store
//! can read the epoch of a payload that is newer than itself. The store writes the epoch after the
//! checksum was made, so a second copy guards the epoch instead.
//!
//! A payload is not trusted. Sizes are checked before memory is allocated for them, and the
//! checksum before the codec reads a byte. (Each codec accepted 5 to 23 % of the payloads with
//! random bytes changed.) The checksum finds accidents. It does not protect against a program that
//! may write to the store; [encryption](crate::docs::store#encryption) does.

use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::lease::Epoch;
use super::payload_error::PayloadError;

pub use super::head::{Head, head};

/// The size of the shortest payload, in bytes.
pub const HEADER: usize = 78;

/// The size of the part that is the same in every version: up to the second copy of the epoch.
pub(crate) const PREFIX: usize = 20;

/// The offset of the epoch and its second copy.
pub(crate) const EPOCH_AT: usize = 4;

pub(crate) const MAGIC: &[u8; 3] = b"EVF";
pub(super) const VERSION: u8 = 1;
pub(super) const CHECKED_FROM: usize = 28;
pub(super) const WRITTEN: u8 = 2;
pub(super) const NOT_FOUND: u8 = 4;
pub(super) const ENCRYPTED: u8 = 16;
pub(super) const GROUPS: u8 = 32;

/// A value in more cells than this is not stored.
pub(crate) const MOST_CELLS: usize = 1_000;

/// The offset of the flags and of the moment of a write, which follows them.
pub(crate) const FLAGS_AT: usize = HEADER - 1;

/// The default limit of a store: a payload whose value is as large as the default limit of a
/// [`Format`](crate::store::Format).
pub(crate) const LONGEST: usize = longest(DEFAULT_LIMIT);

pub(super) const DEFAULT_LIMIT: u32 = 8 << 20;

/// Compression makes no value larger, the moment of a write takes 8 bytes, and encryption 44.
pub(super) const fn longest(limit: u32) -> usize {
    HEADER + limit as usize + limit as usize / 128 + 64 + cells_size(MOST_CELLS)
}

/// The size of the part that tells the cells of a value.
pub(super) const fn cells_size(cells: usize) -> usize {
    match cells {
        0 => 0,
        _ => 2 + CELL * cells,
    }
}

/// The size of a cell and its epoch.
const CELL: usize = 10;

/// The times of a value, which travel with it: how long it may be used, and what it cost.
///
/// In whole microseconds; [`Duration::MAX`] means for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The soft limit, from the epoch on.
    pub fresh_for: Duration,
    /// The time after the soft limit in which the value is served while a refresh runs.
    pub stale_for: Duration,
    /// The time after the soft limit in which the value is served when a refresh fails.
    pub stale_if_error_for: Duration,
    /// The moving average of the load time.
    pub cost: Duration,
}

impl Terms {
    /// The hard limit, from the epoch on: how long a store keeps the payload.
    pub fn ttl(&self) -> Duration {
        let longest = self.stale_for.max(self.stale_if_error_for);
        self.fresh_for.saturating_add(longest)
    }
}

/// A cell of groups to which a value belongs, and its epoch when the load of the value began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CellEpoch {
    pub(crate) cell: u16,
    pub(crate) epoch: Epoch,
}

/// A payload that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened<V> {
    /// The value.
    pub value: V,
    /// The moment at which the value was stored, by the clock of the store.
    pub epoch: Epoch,
    /// The times of the value.
    pub terms: Terms,
}

/// Reads the epoch of a payload.
///
/// `None` if the bytes are no payload, the payload was never stored, or the epoch is damaged: a
/// store treats all of these as if nothing were stored. The payload may be of any version.
pub fn epoch(payload: &[u8]) -> Option<Epoch> {
    let mut prefix = ByteReader(payload);
    if prefix.take::<3>().ok()? != *MAGIC {
        return None;
    }
    prefix.take::<1>().ok()?;
    let (micros, inverse) = (prefix.u64().ok()?, prefix.u64().ok()?);
    let epoch = Epoch::from_micros(micros)?;
    (Epoch::MAX - micros == inverse).then_some(epoch)
}

/// Reads the moment at which a caller wrote the value of a payload, in microseconds by the clock of
/// the store.
///
/// `None` if the value was loaded, or the payload cannot be read.
pub fn born(payload: &[u8]) -> Option<u64> {
    let is_ours = payload.starts_with(MAGIC) && payload.get(MAGIC.len()) == Some(&VERSION);
    let (flags, rest) = payload.get(FLAGS_AT..)?.split_first()?;
    let born = rest.first_chunk().map(|born| u64::from_be_bytes(*born))?;
    (is_ours && flags & WRITTEN != 0).then_some(born)
}

/// Reads the cells of a payload, before its checksum is compared. Empty if they cannot be read.
pub(crate) fn cells(payload: &[u8]) -> Vec<CellEpoch> {
    let is_ours = payload.starts_with(MAGIC) && payload.get(MAGIC.len()) == Some(&VERSION);
    let flags = payload.get(FLAGS_AT).copied().unwrap_or_default();
    if !is_ours || flags & GROUPS == 0 {
        return Vec::new();
    }
    let born = usize::from(flags & WRITTEN != 0) * 8;
    let rest = payload.get(HEADER + born..).unwrap_or_default();
    ByteReader(rest).cells().unwrap_or_default()
}

/// Writes an epoch into a payload: what a [`Store`](crate::store::Store) does with each payload
/// that it stores.
///
/// Returns false, and changes nothing, if the bytes are no payload. The store then answers with an
/// error of class [`ErrorClass::Protocol`](crate::store::ErrorClass::Protocol).
///
/// # Example
///
/// ```
/// use everfresh::store::{Epoch, envelope};
///
/// let mut payload = b"EVF\x01".to_vec();
/// payload.resize(envelope::HEADER, 0);
/// let epoch = Epoch::from_micros(1_700_000_000_000_000).unwrap();
/// assert_eq!(envelope::epoch(&payload), None);
/// assert!(envelope::stamp(&mut payload, epoch));
/// assert_eq!(envelope::epoch(&payload), Some(epoch));
/// assert!(!envelope::stamp(&mut [0; 200], epoch));
/// ```
pub fn stamp(payload: &mut [u8], epoch: Epoch) -> bool {
    if payload.len() < HEADER || !payload.starts_with(MAGIC) {
        return false;
    }
    let mut prefix = Writer(payload, EPOCH_AT);
    prefix.put(&epoch.micros().to_be_bytes());
    prefix.put(&(Epoch::MAX - epoch.micros()).to_be_bytes());
    true
}

pub(super) fn checksum(payload: &[u8]) -> u64 {
    let seed = payload[..4]
        .iter()
        .fold(0, |seed, byte| seed << 8 | u64::from(*byte));
    xxh3_64_with_seed(&payload[CHECKED_FROM..], seed)
}

pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

pub(super) fn duration(micros: u64) -> Duration {
    match micros {
        u64::MAX => Duration::MAX,
        _ => Duration::from_micros(micros),
    }
}

/// Takes fields off the front of what was read.
pub(super) struct ByteReader<'a>(pub(super) &'a [u8]);

impl ByteReader<'_> {
    pub(super) fn take<const N: usize>(&mut self) -> Result<[u8; N], PayloadError> {
        let (field, rest) = self.0.split_first_chunk().ok_or(PayloadError::Short)?;
        self.0 = rest;
        Ok(*field)
    }

    pub(super) fn u64(&mut self) -> Result<u64, PayloadError> {
        self.take().map(u64::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, PayloadError> {
        self.take().map(u32::from_be_bytes)
    }

    fn u16(&mut self) -> Result<u16, PayloadError> {
        self.take().map(u16::from_be_bytes)
    }

    /// The cells of a value. Memory is allocated only for those that are there.
    pub(super) fn cells(&mut self) -> Result<Vec<CellEpoch>, PayloadError> {
        let number = usize::from(self.u16()?);
        if number > MOST_CELLS || self.0.len() < number * CELL {
            return Err(PayloadError::Length);
        }
        (0..number).map(|_| self.cell()).collect()
    }

    fn cell(&mut self) -> Result<CellEpoch, PayloadError> {
        let cell = self.u16()?;
        let epoch = Epoch::from_micros(self.u64()?).ok_or(PayloadError::Epoch)?;
        Ok(CellEpoch { cell, epoch })
    }
}

/// Writes fields into a header whose room is there.
pub(super) struct Writer<'a>(pub(super) &'a mut [u8], pub(super) usize);

impl Writer<'_> {
    pub(super) fn put(&mut self, field: &[u8]) {
        self.0[self.1..][..field.len()].copy_from_slice(field);
        self.1 += field.len();
    }

    pub(super) fn put_cells(&mut self, cells: &[CellEpoch]) {
        if !cells.is_empty() {
            self.put(&(cells.len() as u16).to_be_bytes());
        }
        for CellEpoch { cell, epoch } in cells {
            self.put(&cell.to_be_bytes());
            self.put(&epoch.micros().to_be_bytes());
        }
    }
}
