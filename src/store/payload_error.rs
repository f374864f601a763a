//! The errors of payloads.

use std::error::Error as StdError;
use std::fmt;

/// The reason why a payload could not be decoded or encoded.
///
/// A cache treats an unreadable payload as missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PayloadError {
    /// The payload is shorter than its header.
    Short,
    /// The data was not written by everfresh.
    Foreign,
    /// The payload has a format version that this version of everfresh does not know.
    Version,
    /// The epoch is damaged, or was never written.
    Epoch,
    /// The payload belongs to another key with the same hash.
    Key,
    /// The payload is damaged.
    Checksum,
    /// The payload has another schema.
    Schema,
    /// The payload has another length than its header says.
    Length,
    /// The value is larger than the limit.
    TooLarge,
    /// The payload is compressed by lz4 or zstd, and the feature for that is off.
    Compressed,
    /// The payload is encrypted, and the format has no keys.
    Encrypted,
    /// The format has keys, and the payload is not encrypted.
    NotEncrypted,
    /// The payload is encrypted with a key that the format does not have.
    UnknownKey,
    /// The payload was changed, or moved here from another key or namespace, by a program that does
    /// not have the key.
    Forged,
    /// The system has no random numbers, so the value is not encrypted and not stored.
    NoRandom,
    /// The codec rejected the value, or another codec wrote it.
    Codec,
    /// The codec panicked.
    Panicked,
}

impl PayloadError {
    /// Every error, for counters.
    pub const ALL: [PayloadError; 17] = [
        PayloadError::Short,
        PayloadError::Foreign,
        PayloadError::Version,
        PayloadError::Epoch,
        PayloadError::Key,
        PayloadError::Checksum,
        PayloadError::Schema,
        PayloadError::Length,
        PayloadError::TooLarge,
        PayloadError::Compressed,
        PayloadError::Encrypted,
        PayloadError::NotEncrypted,
        PayloadError::UnknownKey,
        PayloadError::Forged,
        PayloadError::NoRandom,
        PayloadError::Codec,
        PayloadError::Panicked,
    ];

    /// A short name, for labels of metrics.
    pub fn name(self) -> &'static str {
        match self {
            PayloadError::Short => "short",
            PayloadError::Foreign => "foreign",
            PayloadError::Version => "version",
            PayloadError::Epoch => "epoch",
            PayloadError::Key => "key",
            PayloadError::Checksum => "checksum",
            PayloadError::Schema => "schema",
            PayloadError::Length => "length",
            PayloadError::TooLarge => "too_large",
            PayloadError::Compressed => "compressed",
            PayloadError::Encrypted => "encrypted",
            PayloadError::NotEncrypted => "not_encrypted",
            PayloadError::UnknownKey => "unknown_key",
            PayloadError::Forged => "forged",
            PayloadError::NoRandom => "no_random",
            PayloadError::Codec => "codec",
            PayloadError::Panicked => "panicked",
        }
    }
}

impl fmt::Display for PayloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PayloadError::Short => "the payload is truncated",
            PayloadError::Foreign => {
                "data not written by everfresh; give each use of the store its own namespace"
            }
            PayloadError::Version => {
                "the payload has an unknown format version; give each version its own namespace"
            }
            PayloadError::Epoch => "the payload has no valid epoch",
            PayloadError::Key => "the payload belongs to another key",
            PayloadError::Checksum => "the payload is damaged",
            PayloadError::Schema => {
                "the payload has another schema; give each schema its own namespace"
            }
            PayloadError::Length => "the length of the payload differs from its header",
            PayloadError::TooLarge => {
                "the value is larger than the limit; raise the limit or store less"
            }
            PayloadError::Compressed => {
                "the payload is compressed; turn on the feature `lz4` or `zstd`, as its writer has"
            }
            PayloadError::Encrypted => {
                "the payload is encrypted; give the format the keys (feature `encryption`)"
            }
            PayloadError::NotEncrypted => {
                "the payload is not encrypted, and this format reads encrypted ones only"
            }
            PayloadError::UnknownKey => {
                "the payload is encrypted with an unknown key; let the format decrypt with it too"
            }
            PayloadError::Forged => {
                "the payload was changed or moved; find out which program writes to the store"
            }
            PayloadError::NoRandom => "the system has no random numbers to encrypt with",
            PayloadError::Codec => {
                "the codec rejected the value; use a new namespace after a change of its type"
            }
            PayloadError::Panicked => "the codec panicked",
        })
    }
}

impl StdError for PayloadError {}
