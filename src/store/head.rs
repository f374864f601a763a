//! The head of a payload.

use super::envelope::{self, PREFIX};
use super::lease::Epoch;

/// The size of the part that [`head`] reads.
#[cfg(feature = "redis")]
pub(crate) const HEAD: usize = PREFIX + 8;

/// The beginning of a payload, by which a cache finds out whether it has that payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The moment at which the payload was stored, by the clock of the store.
    pub epoch: Epoch,
    /// The checksum in the payload, which does not cover the epoch. If the epochs of two payloads
    /// of one key cannot be compared, equal checksums mean that the payloads are the same.
    pub checksum: u64,
}

/// Reads the head of a payload.
///
/// `None` where [`envelope::epoch`] returns `None`.
pub fn head(payload: &[u8]) -> Option<Head> {
    Some(Head {
        epoch: envelope::epoch(payload)?,
        checksum: checksum(payload),
    })
}

/// The checksum in a payload. 0 if the payload has another version and is too short for it.
pub(crate) fn checksum(payload: &[u8]) -> u64 {
    let rest = payload.get(PREFIX..).unwrap_or_default();
    rest.first_chunk().map_or(0, |sum| u64::from_be_bytes(*sum))
}
