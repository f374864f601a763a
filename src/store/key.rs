//! Names of keys in a store: bounded in length, the same for ever, and revealing nothing of the
//! key.

use std::fmt;

use xxhash_rust::xxh3::{xxh3_64_with_seed, xxh3_128};

use crate::error::BuildError;
use crate::sync::Arc;

/// The seed of the second hash, which every payload carries.
const CHECK_SEED: u64 = 0x6576_6572_6672_6573;

/// The first 14 bytes of the hash of a group cell, whose number is in the last two. So a change
/// message tells the cell, and needs no table of names.
const CELL_PREFIX: [u8; 16] = *b"everfresh/cell\0\0";

/// The part of a store that holds one kind of values.
///
/// Its name stands for the schema: give values of another type, or of another version of the type,
/// another namespace. Two versions of a program can then run side by side.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Namespace(Arc<str>);

impl Namespace {
    /// The longest name, in bytes.
    pub const LONGEST: usize = 100;

    /// Makes a namespace from a name of 1 to 100 ASCII letters, digits and `. _ - :`.
    ///
    /// # Errors
    ///
    /// The name is empty, too long, or has other characters.
    ///
    /// # Example
    ///
    /// ```
    /// use everfresh::store::Namespace;
    ///
    /// assert_eq!(Namespace::new("shop:predictions:v3")?.as_str(), "shop:predictions:v3");
    /// assert!(Namespace::new("shop predictions").is_err());
    /// # Ok::<(), everfresh::BuildError>(())
    /// ```
    pub fn new(name: &str) -> Result<Self, BuildError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:".contains(&byte);
        if name.is_empty() || name.len() > Self::LONGEST || !name.bytes().all(allowed) {
            return Err(BuildError::setting(
                "a namespace must have 1 to 100 characters: ASCII letters, digits and . _ - :",
            ));
        }
        Ok(Namespace(name.into()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Namespace({})", self.0)
    }
}

/// A key in a store: its namespace and two hashes of its encoded bytes.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct StoreKey {
    namespace: Namespace,
    hash: u128,
    check: u64,
}

impl StoreKey {
    /// Makes the key for these encoded bytes.
    ///
    /// The encoding must give the same bytes in every process and version of the program, and other
    /// bytes for every other key.
    pub fn new(namespace: &Namespace, encoded: &[u8]) -> Self {
        StoreKey {
            namespace: namespace.clone(),
            hash: xxh3_128(encoded),
            check: xxh3_64_with_seed(encoded, CHECK_SEED),
        }
    }

    /// The key under which a namespace keeps the epoch of a group cell: of the last invalidation of
    /// a group in this cell. No encoded key has its hash, except by a collision of 112 bits, which
    /// would invalidate more than was asked for.
    pub(crate) fn of_cell(namespace: &Namespace, cell: u16) -> Self {
        let mut hash = CELL_PREFIX;
        hash[14..].copy_from_slice(&cell.to_be_bytes());
        StoreKey {
            namespace: namespace.clone(),
            hash: u128::from_be_bytes(hash),
            check: xxh3_64_with_seed(&hash, CHECK_SEED),
        }
    }

    /// The cell whose key has this hash.
    pub(crate) fn cell_of(hash: u128) -> Option<u16> {
        let bytes = hash.to_be_bytes();
        let (prefix, cell) = bytes.split_last_chunk()?;
        (*prefix == CELL_PREFIX[..14]).then(|| u16::from_be_bytes(*cell))
    }

    /// The namespace of the key.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The hash that names the key within its namespace.
    ///
    /// One key has the same hash in every namespace, so a store keeps payloads and leases by the
    /// namespace and the hash.
    pub fn hash(&self) -> u128 {
        self.hash
    }

    /// A second, independent hash, which the payload carries and every read compares.
    pub fn check(&self) -> u64 {
        self.check
    }
}

// Omits even the hash, because a reader of the log could compare it with guessed keys.
impl fmt::Debug for StoreKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreKey")
            .field("namespace", &self.namespace.as_str())
            .finish_non_exhaustive()
    }
}
