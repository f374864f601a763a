//! Why a payload could not be read or made.

use std::error::Error as StdError;
use std::fmt;

/// Why a payload could not be read, or made. For a cache it is as if nothing were stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PayloadError {
    /// It ends before its header does.
    Short,
    /// It is not a payload of a cache.
    Foreign,
    /// It is of a version that this one does not know.
    Version,
    /// Its epoch is damaged, or was never written.
    Epoch,
    /// It belongs to another key whose hash is the same.
    Key,
    /// It is damaged.
    Checksum,
    /// Its schema is another.
    Schema,
    /// Its length is not what it says.
    Length,
    /// It is larger than the limit.
    TooLarge,
    /// It is compressed, and the feature `lz4` is off.
    Compressed,
    /// The codec rejected it, or it is another codec's.
    Codec,
    /// The codec panicked.
    Panicked,
}

impl PayloadError {
    /// All of them, for counters.
    pub const ALL: [PayloadError; 12] = [
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
        PayloadError::Codec,
        PayloadError::Panicked,
    ];

    /// A word for it, for labels of metrics.
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
            PayloadError::Codec => "codec",
            PayloadError::Panicked => "panicked",
        }
    }
}

impl fmt::Display for PayloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PayloadError::Short => "the payload is cut off",
            PayloadError::Foreign => "what is stored is not a payload; give every use of the store a namespace of its own",
            PayloadError::Version => "the payload was written by a version that this one does not know; give each a namespace of its own",
            PayloadError::Epoch => "the payload has no valid epoch",
            PayloadError::Key => "the payload belongs to another key",
            PayloadError::Checksum => "the payload is damaged",
            PayloadError::Schema => "the payload has another schema; give each schema a namespace of its own",
            PayloadError::Length => "the payload is not as long as it says",
            PayloadError::TooLarge => "the value is larger than the limit; raise it or store less",
            PayloadError::Compressed => "the payload is compressed; turn on the feature `lz4`",
            PayloadError::Codec => "the codec cannot read or write the value; after a change of the type, take a new namespace",
            PayloadError::Panicked => "the codec panicked",
        })
    }
}

impl StdError for PayloadError {}
