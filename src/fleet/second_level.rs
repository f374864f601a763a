//! The settings of a second level.

use std::fmt;
use std::time::Duration;

use crate::store::{Codec, Format, Namespace, Store};
use crate::sync::Arc;

/// The default duration of a lease.
const LEASE: Duration = Duration::from_secs(3);

/// A second level for one cache: a store, a namespace in it, and the formats of keys and values.
///
/// # Example
///
/// ```
/// # #[cfg(feature = "postcard")] {
/// use std::sync::Arc;
/// use everfresh::store::MemoryStore;
/// use everfresh::SecondLevel;
/// use everfresh::Cache;
///
/// let store = Arc::new(MemoryStore::new());
/// let squares: Cache<u64, u64> = Cache::builder()
///     .store(SecondLevel::new(store, "squares:v1").unwrap())
///     .compute(|n: &u64| n * n)
///     .build()
///     .unwrap();
/// assert_eq!(*squares.get_blocking(&12).unwrap(), 144);
/// # }
/// ```
pub struct SecondLevel<K, V> {
    pub(super) store: Arc<dyn Store>,
    pub(super) namespace: Namespace,
    pub(super) format: Format<V>,
    pub(super) keys: Box<dyn Codec<K>>,
    pub(super) lease: Duration,
}

impl<K, V> SecondLevel<K, V> {
    /// A second level whose keys and values are encoded by [`Postcard`](crate::store::Postcard).
    ///
    /// # Errors
    ///
    /// If `namespace` is not a valid namespace: see [`Namespace::new`].
    #[cfg(feature = "postcard")]
    pub fn new(store: Arc<impl Store>, namespace: &str) -> Result<Self, crate::error::BuildError>
    where
        K: serde::Serialize + serde::de::DeserializeOwned,
        V: serde::Serialize + serde::de::DeserializeOwned + 'static,
    {
        use crate::store::Postcard;
        let namespace = Namespace::new(namespace)?;
        Ok(Self::with(
            store,
            namespace,
            Format::new(Postcard),
            Postcard,
        ))
    }

    /// A second level with this format for values and this codec for keys.
    ///
    /// Two keys are the same key in the store if their encoded bytes are equal.
    ///
    /// # Example
    ///
    /// ```
    /// # #[cfg(all(feature = "json", feature = "postcard"))] {
    /// # use std::sync::Arc;
    /// use everfresh::SecondLevel;
    /// use everfresh::store::{Format, Json, MemoryStore, Namespace, Postcard};
    ///
    /// let store = Arc::new(MemoryStore::new());
    /// let namespace = Namespace::new("shop:users:v1").unwrap();
    /// let values = Format::new(Json).schema(2);
    /// let level: SecondLevel<u64, String> = SecondLevel::with(store, namespace, values, Postcard);
    /// # }
    /// ```
    pub fn with(
        store: Arc<impl Store>,
        namespace: Namespace,
        format: Format<V>,
        keys: impl Codec<K>,
    ) -> Self {
        SecondLevel {
            store,
            namespace,
            format,
            keys: Box::new(keys),
            lease: LEASE,
        }
    }

    /// How long the fleet waits for a process that died while it loaded a key. Default: 3 s. A
    /// shorter duration than 100 ms counts as 100 ms.
    ///
    /// A process that lives renews its lease at a third of this duration, however long its loader
    /// takes.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease.max(Duration::from_millis(100));
        self
    }
}

impl<K, V> fmt::Debug for SecondLevel<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecondLevel")
            .field("namespace", &self.namespace)
            .field("lease", &self.lease)
            .finish_non_exhaustive()
    }
}
