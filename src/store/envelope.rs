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
//! 77    1   flags: 1 is lz4, 2 is written by a caller, 4 is "not found": there is no value
//! 78    8   only if written by a caller: the moment of the write, microseconds
//!           the encoded value
//! ```
//!
//! Numbers are big-endian. The first 20 bytes have this meaning in every version, so that a store
//! can read the epoch of a payload that is newer than itself. The store writes the epoch after the
//! checksum was made, so a second copy guards the epoch instead.
//!
//! A payload is not trusted. Sizes are checked before memory is allocated for them, and the
//! checksum before the codec reads a byte. (Each codec accepted 5 to 23 % of the payloads with
//! random bytes changed.) The checksum finds accidents. It does not protect against a program that
//! may write to the store.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::codec::{Codec, Rejected};
use super::key::StoreKey;
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
const VERSION: u8 = 1;
const CHECKED_FROM: usize = 28;
const LZ4: u8 = 1;
const WRITTEN: u8 = 2;
const NOT_FOUND: u8 = 4;

/// The offset of the flags and of the moment of a write, which follows them.
pub(crate) const FLAGS_AT: usize = HEADER - 1;

/// The default limit of a store: a payload whose value is as large as the default limit of a
/// [`Format`].
pub(crate) const LONGEST: usize = longest(DEFAULT_LIMIT);

const DEFAULT_LIMIT: u32 = 8 << 20;

/// Data that cannot be compressed grows by less than this.
const fn longest(limit: u32) -> usize {
    HEADER + limit as usize + limit as usize / 128 + 64
}

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

/// The way in which the values of one cache are written and read.
///
/// # Example
///
/// ```
/// # #[cfg(feature = "json")] {
/// use std::time::Duration;
/// use everfresh::store::{Format, Json, Namespace, StoreKey, Terms};
///
/// let format: Format<u64> = Format::new(Json).schema(1);
/// let key = StoreKey::new(&Namespace::new("squares:v1").unwrap(), b"12");
/// let second = Duration::from_secs(1);
/// let terms = Terms {
///     fresh_for: second,
///     stale_for: second,
///     stale_if_error_for: second,
///     cost: second,
/// };
/// let payload = format.seal(&key, &144, &terms).unwrap();
/// // The store has yet to write the epoch.
/// assert!(format.open(&key, &payload).is_err());
/// # }
/// ```
pub struct Format<V> {
    codec: Box<dyn Codec<V>>,
    schema: u32,
    limit: u32,
    #[cfg(feature = "lz4")]
    compress_from: Option<usize>,
}

impl<V: 'static> Format<V> {
    /// A format with this codec.
    pub fn new(codec: impl Codec<V>) -> Self {
        Format {
            codec: Box::new(codec),
            schema: 0,
            limit: DEFAULT_LIMIT,
            #[cfg(feature = "lz4")]
            compress_from: None,
        }
    }

    /// Sets a number for the meaning of the fields of the value. Payloads with another number are
    /// not read. Default: 0.
    pub fn schema(mut self, schema: u32) -> Self {
        self.schema = schema;
        self
    }

    /// Sets the largest encoded value, in bytes before compression. Larger values are neither
    /// written nor read. Default: 8 MiB. The store has a limit of its own.
    pub fn limit(mut self, bytes: u32) -> Self {
        self.limit = bytes;
        self
    }

    /// Compresses encoded values of at least this size, for example 1 KiB. Default: no compression.
    ///
    /// Compressed payloads are always read.
    #[cfg(feature = "lz4")]
    pub fn compress_from(mut self, bytes: usize) -> Self {
        self.compress_from = Some(bytes);
        self
    }

    /// Makes the payload of a value that was loaded, without an epoch, which the store writes.
    ///
    /// # Errors
    ///
    /// If the codec fails or panics, or the encoded value is too large.
    pub fn seal(&self, key: &StoreKey, value: &V, terms: &Terms) -> Result<Vec<u8>, PayloadError> {
        self.sealed(key, Some(value), terms, None)
    }

    /// Makes a payload without an epoch and without a value: the origin has none for this key.
    pub(crate) fn seal_not_found(
        &self,
        key: &StoreKey,
        terms: &Terms,
    ) -> Result<Vec<u8>, PayloadError> {
        self.sealed(key, None, terms, None)
    }

    /// Makes the payload of a value that a caller wrote at this moment, in microseconds by the
    /// clock of the store; see [`Birth`](crate::store::Birth).
    ///
    /// # Errors
    ///
    /// As [`seal`](Self::seal).
    pub fn seal_written(
        &self,
        key: &StoreKey,
        value: &V,
        terms: &Terms,
        born: u64,
    ) -> Result<Vec<u8>, PayloadError> {
        self.sealed(key, Some(value), terms, Some(born))
    }

    fn sealed(
        &self,
        key: &StoreKey,
        value: Option<&V>,
        terms: &Terms,
        born: Option<u64>,
    ) -> Result<Vec<u8>, PayloadError> {
        let body = HEADER + born.map_or(0, |_| 8);
        let mut payload = vec![0; body];
        let encode = |value| self.codec.encode(value, &mut payload);
        let encoded = catch_unwind(AssertUnwindSafe(|| value.map_or(Ok(()), encode)));
        accepted(encoded)?;
        // A codec may do anything with the buffer it is given.
        let length = payload.len().checked_sub(body).ok_or(PayloadError::Codec)?;
        let length = u32::try_from(length).map_err(|_| PayloadError::TooLarge)?;
        if length > self.limit {
            return Err(PayloadError::TooLarge);
        }
        let kind = match value {
            Some(_) => self.compress(&mut payload, body),
            None => NOT_FOUND,
        };
        let flags = kind | born.map_or(0, |_| WRITTEN);
        let mut header = Writer(&mut payload, 0);
        header.put(MAGIC);
        header.put(&[VERSION]);
        header.put(&[0; CHECKED_FROM - EPOCH_AT]);
        header.put(&key.check().to_be_bytes());
        for time in [
            terms.fresh_for,
            terms.stale_for,
            terms.stale_if_error_for,
            terms.cost,
        ] {
            header.put(&micros(time).to_be_bytes());
        }
        header.put(&self.schema.to_be_bytes());
        header.put(&length.to_be_bytes());
        header.put(&[self.codec.id(), flags]);
        if let Some(born) = born {
            header.put(&born.to_be_bytes());
        }
        let sum = checksum(&payload);
        Writer(&mut payload, PREFIX).put(&sum.to_be_bytes());
        Ok(payload)
    }

    /// Reads a payload. No bytes make it panic, or allocate more than the limit.
    ///
    /// # Errors
    ///
    /// If it is not exactly what [`seal`](Self::seal) made for this key, with an epoch written into
    /// it, or the codec cannot read it. Then it is as if nothing were stored; [`epoch`] may still
    /// read its epoch. A payload by which a cache says that the origin has no value is an error of
    /// the kind [`PayloadError::Version`].
    pub fn open(&self, key: &StoreKey, payload: &[u8]) -> Result<Opened<V>, PayloadError> {
        let opened = self.open_answer(key, payload)?;
        Ok(Opened {
            value: opened.value.ok_or(PayloadError::Version)?,
            epoch: opened.epoch,
            terms: opened.terms,
        })
    }

    /// Reads a payload, whose value is `None` if the origin has none for this key.
    pub(crate) fn open_answer(
        &self,
        key: &StoreKey,
        payload: &[u8],
    ) -> Result<Opened<Option<V>>, PayloadError> {
        if payload.len() > longest(self.limit) {
            return Err(PayloadError::TooLarge);
        }
        let mut header = ByteReader(payload);
        if header.take::<3>()? != *MAGIC {
            return Err(PayloadError::Foreign);
        }
        if header.take::<1>()? != [VERSION] {
            return Err(PayloadError::Version);
        }
        if payload.len() < HEADER {
            return Err(PayloadError::Short);
        }
        let epoch = epoch(payload).ok_or(PayloadError::Epoch)?;
        header.take::<16>()?;
        let sum = header.u64()?;
        let check = header.u64()?;
        let terms = Terms {
            fresh_for: duration(header.u64()?),
            stale_for: duration(header.u64()?),
            stale_if_error_for: duration(header.u64()?),
            cost: duration(header.u64()?),
        };
        let schema = header.u32()?;
        let length = header.u32()?;
        let [codec, flags] = header.take()?;
        if flags & WRITTEN != 0 {
            header.u64()?;
        }
        if check != key.check() {
            return Err(PayloadError::Key);
        }
        if sum != checksum(payload) {
            return Err(PayloadError::Checksum);
        }
        if schema != self.schema {
            return Err(PayloadError::Schema);
        }
        if codec != self.codec.id() {
            return Err(PayloadError::Codec);
        }
        if length > self.limit {
            return Err(PayloadError::TooLarge);
        }
        let value = match flags {
            NOT_FOUND if header.0.is_empty() => None,
            _ => {
                let decode = || self.decode(header.0, length as usize, flags & !WRITTEN);
                let value = catch_unwind(AssertUnwindSafe(decode));
                Some(value.unwrap_or(Err(PayloadError::Panicked))?)
            }
        };
        Ok(Opened {
            value,
            epoch,
            terms,
        })
    }

    fn decode(&self, body: &[u8], length: usize, flags: u8) -> Result<V, PayloadError> {
        let codec = |bytes: &[u8]| self.codec.decode(bytes).map_err(|_| PayloadError::Codec);
        match flags {
            0 if body.len() == length => codec(body),
            0 => Err(PayloadError::Length),
            LZ4 => codec(&decompress(body, length)?),
            _ => Err(PayloadError::Version),
        }
    }

    #[cfg(feature = "lz4")]
    fn compress(&self, payload: &mut Vec<u8>, from: usize) -> u8 {
        let body = &payload[from..];
        if self.compress_from.is_none_or(|from| body.len() < from) {
            return 0;
        }
        let compressed = lz4_flex::block::compress(body);
        if compressed.len() >= body.len() {
            return 0;
        }
        payload.truncate(from);
        payload.extend_from_slice(&compressed);
        LZ4
    }

    #[cfg(not(feature = "lz4"))]
    fn compress(&self, _: &mut Vec<u8>, _: usize) -> u8 {
        0
    }
}

#[cfg(feature = "lz4")]
fn decompress(body: &[u8], length: usize) -> Result<Vec<u8>, PayloadError> {
    match lz4_flex::block::decompress(body, length) {
        Ok(raw) if raw.len() == length => Ok(raw),
        _ => Err(PayloadError::Length),
    }
}

#[cfg(not(feature = "lz4"))]
fn decompress(_: &[u8], _: usize) -> Result<Vec<u8>, PayloadError> {
    Err(PayloadError::Compressed)
}

impl<V: 'static> std::fmt::Debug for Format<V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Format")
            .field("codec", &self.codec.id())
            .field("schema", &self.schema)
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

fn accepted(result: std::thread::Result<Result<(), Rejected>>) -> Result<(), PayloadError> {
    match result {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(PayloadError::Codec),
        Err(_) => Err(PayloadError::Panicked),
    }
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

fn checksum(payload: &[u8]) -> u64 {
    let seed = payload[..4]
        .iter()
        .fold(0, |seed, byte| seed << 8 | u64::from(*byte));
    xxh3_64_with_seed(&payload[CHECKED_FROM..], seed)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn duration(micros: u64) -> Duration {
    match micros {
        u64::MAX => Duration::MAX,
        _ => Duration::from_micros(micros),
    }
}

/// Takes fields off the front of what was read.
struct ByteReader<'a>(&'a [u8]);

impl ByteReader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], PayloadError> {
        let (field, rest) = self.0.split_first_chunk().ok_or(PayloadError::Short)?;
        self.0 = rest;
        Ok(*field)
    }

    fn u64(&mut self) -> Result<u64, PayloadError> {
        self.take().map(u64::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, PayloadError> {
        self.take().map(u32::from_be_bytes)
    }
}

/// Writes fields into a header whose room is there.
struct Writer<'a>(&'a mut [u8], usize);

impl Writer<'_> {
    fn put(&mut self, field: &[u8]) {
        self.0[self.1..][..field.len()].copy_from_slice(field);
        self.1 += field.len();
    }
}
