//! Why a payload could not be read or made.

use std::error::Error as StdError;
use std::fmt;

/// Why a payload could not be read, or made. For a cache it is as if nothing were stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Unreadable {
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

impl Unreadable {
    /// All of them, for counters.
    pub const ALL: [Unreadable; 12] = [
        Unreadable::Short,
        Unreadable::Foreign,
        Unreadable::Version,
        Unreadable::Epoch,
        Unreadable::Key,
        Unreadable::Checksum,
        Unreadable::Schema,
        Unreadable::Length,
        Unreadable::TooLarge,
        Unreadable::Compressed,
        Unreadable::Codec,
        Unreadable::Panicked,
    ];

    /// A word for it, for labels of metrics.
    pub fn name(self) -> &'static str {
        match self {
            Unreadable::Short => "short",
            Unreadable::Foreign => "foreign",
            Unreadable::Version => "version",
            Unreadable::Epoch => "epoch",
            Unreadable::Key => "key",
            Unreadable::Checksum => "checksum",
            Unreadable::Schema => "schema",
            Unreadable::Length => "length",
            Unreadable::TooLarge => "too_large",
            Unreadable::Compressed => "compressed",
            Unreadable::Codec => "codec",
            Unreadable::Panicked => "panicked",
        }
    }
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Unreadable::Short => "the payload is cut off",
            Unreadable::Foreign => "what is stored is not a payload; give every use of the store a namespace of its own",
            Unreadable::Version => "the payload was written by a version that this one does not know; give each a namespace of its own",
            Unreadable::Epoch => "the payload has no valid epoch",
            Unreadable::Key => "the payload belongs to another key",
            Unreadable::Checksum => "the payload is damaged",
            Unreadable::Schema => "the payload has another schema; give each schema a namespace of its own",
            Unreadable::Length => "the payload is not as long as it says",
            Unreadable::TooLarge => "the value is larger than the limit; raise it or store less",
            Unreadable::Compressed => "the payload is compressed; turn on the feature `lz4`",
            Unreadable::Codec => "the codec cannot read or write the value; after a change of the type, take a new namespace",
            Unreadable::Panicked => "the codec panicked",
        })
    }
}

impl StdError for Unreadable {}
