//! The format of values: codec, compression, encryption, and the envelope around them.

use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::codec::{Codec, Rejected};
use super::compression::{Compression, decompress};
#[cfg(feature = "encryption")]
use super::encryption::EncryptionKeys;
use super::envelope::{
    ByteReader, CHECKED_FROM, CellEpoch, DEFAULT_LIMIT, ENCRYPTED, EPOCH_AT, GROUPS, HEADER, MAGIC,
    MOST_CELLS, NOT_FOUND, Opened, PREFIX, Terms, VERSION, WRITTEN, Writer, cells_size, checksum,
    duration, epoch, longest, micros,
};
use super::key::StoreKey;
use super::lease::Epoch;
use super::payload_error::PayloadError;

/// The longest time that a store can keep a payload: the epochs of cells have no limit of their
/// own. One that is lost makes every value of its cell invalid.
const FOR_EVER: Terms = Terms {
    fresh_for: Duration::MAX,
    stale_for: Duration::ZERO,
    stale_if_error_for: Duration::ZERO,
    cost: Duration::ZERO,
};

/// A value to be written, or the answer that there is none.
pub(crate) struct Sealed<'a, V> {
    pub(crate) value: Option<&'a V>,
    pub(crate) terms: &'a Terms,
    /// The moment of the write, if a caller wrote it.
    pub(crate) born: Option<u64>,
    pub(crate) cells: &'a [CellEpoch],
}

/// A payload that was read. It has no value if the origin has none for its key.
pub(crate) struct Answer<V> {
    pub(crate) value: Option<V>,
    pub(crate) epoch: Epoch,
    pub(crate) terms: Terms,
    pub(crate) cells: Vec<CellEpoch>,
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
    compression: Option<Compression>,
    #[cfg(feature = "encryption")]
    keys: Option<EncryptionKeys>,
}

impl<'a, V> Sealed<'a, V> {
    /// A value that was loaded, without groups.
    pub(crate) fn loaded(value: &'a V, terms: &'a Terms) -> Self {
        Sealed {
            value: Some(value),
            terms,
            born: None,
            cells: &[],
        }
    }
}

impl<V: 'static> Format<V> {
    /// A format with this codec.
    pub fn new(codec: impl Codec<V>) -> Self {
        Format {
            codec: Box::new(codec),
            schema: 0,
            limit: DEFAULT_LIMIT,
            compression: None,
            #[cfg(feature = "encryption")]
            keys: None,
        }
    }

    /// Sets the version of the type of the values. A payload with another number is not decoded:
    /// the key is loaded, and [`PayloadError::Schema`] is counted. Default: 0.
    ///
    /// Raise it, or use a new [`Namespace`](crate::store::Namespace), if a codec could misread the
    /// values of the other version. `Postcard` does so when two fields of one type change places,
    /// and every codec when a field changes its meaning; no check can see either. See [what each
    /// codec tolerates](crate::docs::store#when-the-type-of-a-value-changes).
    ///
    /// While processes with two schemas run on one namespace, as in a rolling deployment, each
    /// replaces the values of the other, and loads for itself. A change message of the other schema
    /// causes a read, never a load. With two namespaces each version keeps its own values.
    ///
    /// # Example
    ///
    /// ```
    /// # #[cfg(feature = "postcard")] {
    /// use everfresh::store::{Format, Postcard};
    ///
    /// #[derive(serde::Serialize, serde::Deserialize)]
    /// struct Score {
    ///     away: u32, // version 1 had `home` first
    ///     home: u32,
    /// }
    /// let format: Format<Score> = Format::new(Postcard).schema(2);
    /// # }
    /// ```
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

    /// Compresses encoded values of at least this size, for example 1 KiB, by lz4, which takes
    /// little time. Default: no compression. If `zstd_from` is called too, the later call counts.
    ///
    /// A format reads payloads of every compression whose feature is on, whatever it writes.
    #[cfg(feature = "lz4")]
    pub fn lz4_from(mut self, bytes: usize) -> Self {
        self.compression = Some(Compression::lz4(bytes));
        self
    }

    /// Compresses encoded values of at least this size, for example 1 KiB, by zstd, which makes
    /// them smaller than lz4 does and takes longer: see
    /// [the measurements](crate::docs::performance#payloads). Default: no compression. If
    /// `lz4_from` is called too, the later call counts.
    ///
    /// A format reads payloads of every compression whose feature is on, whatever it writes.
    #[cfg(feature = "zstd")]
    pub fn zstd_from(mut self, bytes: usize) -> Self {
        self.compression = Some(Compression::zstd(bytes));
        self
    }

    /// Encrypts values, and reads only values that are encrypted with one of these keys, for
    /// exactly this key of the cache, this namespace and this header.
    ///
    /// Default: no encryption. [`docs::store`](crate::docs::store#encryption) says which parts of
    /// a payload stay readable, and what an attacker can still do.
    ///
    /// Values are compressed before they are encrypted, because encrypted bytes cannot be
    /// compressed. The length of a payload then tells how well its value could be compressed. Do
    /// not compress values that mix secrets with text that an attacker chooses: by trying texts the
    /// attacker learns the secrets, as in CRIME and BREACH.
    #[cfg(feature = "encryption")]
    pub fn encrypt_with(mut self, keys: EncryptionKeys) -> Self {
        self.keys = Some(keys);
        self
    }

    /// Makes the payload of a value that was loaded, without an epoch, which the store writes.
    ///
    /// # Errors
    ///
    /// If the codec fails or panics, or the encoded value is too large.
    pub fn seal(&self, key: &StoreKey, value: &V, terms: &Terms) -> Result<Vec<u8>, PayloadError> {
        self.seal_answer(key, Sealed::loaded(value, terms))
    }

    /// Makes the payload that keeps the epoch of a group cell. Everything that is stored later
    /// counts as a later write: see `fleet::groups`.
    pub(crate) fn seal_cell(&self, key: &StoreKey) -> Result<Vec<u8>, PayloadError> {
        let sealed = Sealed {
            value: None,
            terms: &FOR_EVER,
            born: Some(Epoch::MAX),
            cells: &[],
        };
        self.seal_answer(key, sealed)
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
        let loaded = Sealed::loaded(value, terms);
        let born = Some(born);
        self.seal_answer(key, Sealed { born, ..loaded })
    }

    pub(crate) fn seal_answer(
        &self,
        key: &StoreKey,
        sealed: Sealed<'_, V>,
    ) -> Result<Vec<u8>, PayloadError> {
        let Sealed {
            value,
            terms,
            born,
            cells,
        } = sealed;
        if cells.len() > MOST_CELLS {
            return Err(PayloadError::TooLarge);
        }
        let body = HEADER + born.map_or(0, |_| 8) + cells_size(cells.len());
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
        let kind = match (value, self.compression) {
            (Some(_), Some(compression)) => compression.compress(&mut payload, body),
            (Some(_), None) => 0,
            (None, _) => NOT_FOUND,
        };
        let groups = if cells.is_empty() { 0 } else { GROUPS };
        let flags = kind | born.map_or(0, |_| WRITTEN) | groups | self.encrypted();
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
        header.put_cells(cells);
        self.encrypt(&mut payload, body, key)?;
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
    ) -> Result<Answer<V>, PayloadError> {
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
        let cells = match flags & GROUPS {
            0 => Vec::new(),
            _ => header.cells()?,
        };
        let body = self.decrypt(payload, header.0, flags, key)?;
        let value = match flags & !(WRITTEN | ENCRYPTED | GROUPS) {
            NOT_FOUND if body.is_empty() && flags & WRITTEN == 0 => None,
            kind => {
                let decode = || self.decode(&body, length as usize, kind);
                let value = catch_unwind(AssertUnwindSafe(decode));
                Some(value.unwrap_or(Err(PayloadError::Panicked))?)
            }
        };
        Ok(Answer {
            value,
            epoch,
            terms,
            cells,
        })
    }

    fn decode(&self, body: &[u8], length: usize, kind: u8) -> Result<V, PayloadError> {
        let codec = |bytes: &[u8]| self.codec.decode(bytes).map_err(|_| PayloadError::Codec);
        match kind {
            0 if body.len() == length => codec(body),
            0 => Err(PayloadError::Length),
            _ => codec(&decompress(kind, body, length)?),
        }
    }
}

#[cfg(feature = "encryption")]
impl<V> Format<V> {
    /// The flag in every payload that this format writes and accepts.
    fn encrypted(&self) -> u8 {
        self.keys.as_ref().map_or(0, |_| ENCRYPTED)
    }

    fn encrypt(
        &self,
        payload: &mut Vec<u8>,
        header: usize,
        key: &StoreKey,
    ) -> Result<(), PayloadError> {
        let keys = self.keys.as_ref();
        keys.map_or(Ok(()), |keys| keys.seal(payload, header, key))
    }

    fn decrypt<'a>(
        &self,
        payload: &'a [u8],
        body: &'a [u8],
        flags: u8,
        key: &StoreKey,
    ) -> Result<Cow<'a, [u8]>, PayloadError> {
        match (&self.keys, flags & ENCRYPTED != 0) {
            (None, false) => Ok(body.into()),
            (None, true) => Err(PayloadError::Encrypted),
            // A program that has no key could have written it.
            (Some(_), false) => Err(PayloadError::NotEncrypted),
            (Some(keys), true) => {
                let header = payload.len() - body.len();
                keys.open(payload, header, key).map(Cow::from)
            }
        }
    }
}

#[cfg(not(feature = "encryption"))]
impl<V> Format<V> {
    fn encrypted(&self) -> u8 {
        0
    }

    fn encrypt(&self, _: &mut Vec<u8>, _: usize, _: &StoreKey) -> Result<(), PayloadError> {
        Ok(())
    }

    fn decrypt<'a>(
        &self,
        _: &'a [u8],
        body: &'a [u8],
        flags: u8,
        _: &StoreKey,
    ) -> Result<Cow<'a, [u8]>, PayloadError> {
        match flags & ENCRYPTED {
            0 => Ok(body.into()),
            _ => Err(PayloadError::Encrypted),
        }
    }
}

impl<V: 'static> std::fmt::Debug for Format<V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Format")
            .field("codec", &self.codec.id())
            .field("schema", &self.schema)
            .field("limit", &self.limit)
            .field("encrypted", &(self.encrypted() != 0))
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
