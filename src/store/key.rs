//! Names of keys in a store: bounded, stable for ever, and nothing of the key to be read in them.

use std::fmt;

use xxhash_rust::xxh3::{xxh3_64_with_seed, xxh3_128};

use crate::error::BuildError;
use crate::sync::Arc;

/// The seed of the second hash, which payloads carry.
const CHECK: u64 = 0x6576_6572_6672_6573;

/// The part of a store that belongs to one kind of values.
///
/// It carries the schema: values of another type, or of another version of it, need another namespace, so that two versions of
/// a program can run side by side.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Namespace(Arc<str>);

impl Namespace {
    /// Longest allowed, in bytes.
    pub const LONGEST: usize = 100;

    /// For example `"shop:predictions:v3"`: letters, digits and `. _ - :`, at most 100 of them.
    ///
    /// # Errors
    ///
    /// If it is empty, too long, or has other characters.
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
                "a namespace must have 1 to 100 characters, each of them a letter or digit of ASCII or one of . _ - :",
            ));
        }
        Ok(Namespace(name.into()))
    }

    /// Its name.
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
    /// The key that `encoded` stands for: the same bytes in every process and every version of it, and other bytes for every other key.
    pub fn new(namespace: &Namespace, encoded: &[u8]) -> Self {
        StoreKey {
            namespace: namespace.clone(),
            hash: xxh3_128(encoded),
            check: xxh3_64_with_seed(encoded, CHECK),
        }
    }

    /// The namespace it is in.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// What it is stored under.
    pub fn hash(&self) -> u128 {
        self.hash
    }

    /// A second, independent hash: in the payload, and compared when it is read.
    pub fn check(&self) -> u64 {
        self.check
    }
}

// Not even the hash: who can guess keys could recognise one.
impl fmt::Debug for StoreKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreKey")
            .field("namespace", &self.namespace.as_str())
            .finish_non_exhaustive()
    }
}
