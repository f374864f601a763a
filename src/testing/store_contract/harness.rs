//! The tools of the checks besides the store itself.

use std::time::{Duration, Instant};

use super::StoreUnderTest;
use crate::store::{
    Acquire, Acquired, Birth, Change, ChangeListener, Codec, Epoch, Format, Namespace, Origin,
    Publish, Rejected, Store, StoreError, StoreKey, Stored, Terms, Token,
};
use crate::sync::future::block_on;
use crate::sync::{Arc, Mutex, lock};

/// One hour: how long a [`Caller`] has its payloads stored.
pub const HOUR: Duration = Duration::from_secs(3600);

/// One minute: the lease that a [`Caller`] asks for.
pub const MINUTE: Duration = Duration::from_secs(60);

/// A limit that suits [`StoreUnderTest::limit`]: 4096 bytes.
pub const LIMIT: usize = 4096;

/// A codec that leaves bytes as they are.
#[derive(Clone, Copy, Debug)]
pub struct Raw;

impl Codec<Vec<u8>> for Raw {
    fn id(&self) -> u8 {
        200
    }

    fn encode(&self, value: &Vec<u8>, out: &mut Vec<u8>) -> Result<(), Rejected> {
        out.extend_from_slice(value);
        Ok(())
    }

    fn decode(&self, bytes: &[u8]) -> Result<Vec<u8>, Rejected> {
        Ok(bytes.to_vec())
    }
}

/// The format of the values in the checks.
pub fn raw() -> Format<Vec<u8>> {
    Format::new(Raw)
}

/// The times that every payload in the checks has.
pub fn terms() -> Terms {
    Terms {
        fresh_for: MINUTE,
        stale_for: MINUTE,
        stale_if_error_for: HOUR,
        cost: Duration::from_millis(3),
    }
}

/// The namespace of the keys in the checks: `test:v1`.
pub fn namespace() -> Namespace {
    Namespace::new("test:v1").unwrap()
}

/// The key of this name.
pub fn key(name: &str) -> StoreKey {
    StoreKey::new(&namespace(), name.as_bytes())
}

/// A payload with this value, as a cache makes it.
pub fn payload(key: &StoreKey, value: &[u8]) -> Vec<u8> {
    raw().seal(key, &value.to_vec(), &terms()).unwrap()
}

/// The value of a payload that was read.
///
/// # Panics
///
/// If the payload cannot be opened.
pub fn value(key: &StoreKey, payload: &[u8]) -> Vec<u8> {
    raw().open(key, payload).unwrap().value
}

/// A caller of a store: one cache of a fleet with one attempt to load.
///
/// Its methods block and panic on errors, except those that begin with `try`.
#[derive(Clone, Copy)]
pub struct Caller<'a> {
    subject: &'a dyn StoreUnderTest,
    /// Its attempt.
    pub token: Token,
}

/// The caller of this number.
pub fn caller(subject: &dyn StoreUnderTest, number: u64) -> Caller<'_> {
    let token = Token {
        origin: Origin(number),
        serial: number ^ 0xffff,
    };
    Caller { subject, token }
}

impl Caller<'_> {
    /// The store that it calls.
    pub fn store(&self) -> &dyn Store {
        self.subject.store()
    }

    /// Asks for a lease of one [`MINUTE`].
    pub fn acquire(&self, key: &StoreKey, seen: Option<Epoch>) -> Acquired {
        let ask = Acquire {
            seen,
            token: self.token,
            lease: MINUTE,
        };
        block_on(self.store().acquire(key, ask)).unwrap()
    }

    /// Asks for many leases together.
    pub fn acquire_many(&self, keys: &[StoreKey]) -> Vec<Acquired> {
        let ask = Acquire {
            seen: None,
            token: self.token,
            lease: MINUTE,
        };
        let asks: Vec<_> = keys.iter().map(|key| (key.clone(), ask)).collect();
        let answers = block_on(self.store().acquire_many(&asks)).into_iter();
        answers.map(Result::unwrap).collect()
    }

    /// The base of a lease that must be granted.
    pub fn granted(&self, key: &StoreKey, seen: Option<Epoch>) -> Epoch {
        match self.acquire(key, seen) {
            Acquired::Granted { base } => base,
            other => panic!("not granted: {other:?}"),
        }
    }

    /// The base of a lease that must be granted while nothing is stored: the present moment.
    pub fn granted_over_nothing(&self, key: &StoreKey) -> Epoch {
        let before = self.store().now().expect("connected");
        let base = self.granted(key, None);
        assert!(base.micros() + 1_000_000 > before, "{base:?} is not now");
        base
    }

    /// Whether another caller has the lease.
    pub fn is_held(&self, key: &StoreKey, seen: Option<Epoch>) -> bool {
        match self.acquire(key, seen) {
            Acquired::Held { left } => {
                assert!(left <= MINUTE && left > Duration::ZERO, "{left:?}");
                true
            }
            _ => false,
        }
    }

    /// Publishes a value for one [`HOUR`].
    pub fn publish(&self, key: &StoreKey, base: Epoch, value: &[u8]) -> Stored {
        self.try_publish(key, base, payload(key, value)).unwrap()
    }

    /// Publishes any bytes for one [`HOUR`].
    ///
    /// # Errors
    ///
    /// Those of the store.
    pub fn try_publish(
        &self,
        key: &StoreKey,
        base: Epoch,
        payload: Vec<u8>,
    ) -> Result<Stored, StoreError> {
        let publish = Publish {
            base,
            token: self.token,
            payload,
            ttl: HOUR,
        };
        block_on(self.store().publish(key, publish))
    }

    /// The epoch of a value whose publication must be accepted.
    pub fn published(&self, key: &StoreKey, base: Epoch, value: &[u8]) -> Epoch {
        match self.publish(key, base, value) {
            Stored::Yes { epoch } => epoch,
            Stored::Refused => panic!("refused"),
        }
    }

    /// Sets a value for one [`HOUR`].
    pub fn set(&self, key: &StoreKey, value: &[u8]) -> Epoch {
        let stored = self.try_set(key, payload(key, value), Birth::latest(self.token.origin));
        stored.unwrap().epoch().unwrap()
    }

    /// Removes the value.
    pub fn invalidate(&self, key: &StoreKey) -> Epoch {
        let birth = Birth::latest(self.token.origin);
        block_on(self.store().invalidate(key, birth))
            .unwrap()
            .epoch()
            .unwrap()
    }

    /// Sets any bytes for one [`HOUR`], as a write of this birth.
    ///
    /// # Errors
    ///
    /// Those of the store.
    pub fn try_set(
        &self,
        key: &StoreKey,
        payload: Vec<u8>,
        birth: Birth,
    ) -> Result<Stored, StoreError> {
        block_on(self.store().set(key, payload, HOUR, birth))
    }

    /// Sets a value that was written at this moment, by a caller that has seen this epoch.
    pub fn set_born(
        &self,
        key: &StoreKey,
        value: &[u8],
        micros: u64,
        seen: Option<Epoch>,
    ) -> Stored {
        let payload = raw().seal_written(key, &value.to_vec(), &terms(), micros);
        self.try_set(key, payload.unwrap(), self.birth(micros, seen))
            .unwrap()
    }

    /// Removes the value, as a write of this moment by a caller that has seen this epoch.
    pub fn invalidate_born(&self, key: &StoreKey, micros: u64, seen: Option<Epoch>) -> Stored {
        block_on(self.store().invalidate(key, self.birth(micros, seen))).unwrap()
    }

    fn birth(&self, micros: u64, seen: Option<Epoch>) -> Birth {
        Birth {
            origin: self.token.origin,
            micros,
            seen,
        }
    }

    /// Extends the lease; false if another caller has it.
    pub fn renew(&self, key: &StoreKey, lease: Duration) -> bool {
        block_on(self.store().renew(key, self.token, lease)).unwrap()
    }

    /// Gives the lease back; false if another caller has it.
    pub fn release(&self, key: &StoreKey, cool_down: Option<Duration>) -> bool {
        block_on(self.store().release(key, self.token, cool_down)).unwrap()
    }

    /// The bytes that are stored.
    ///
    /// # Errors
    ///
    /// Those of the store.
    pub fn try_read(&self, key: &StoreKey) -> Result<Option<Vec<u8>>, StoreError> {
        let mut answers = block_on(self.store().read(std::slice::from_ref(key)));
        assert_eq!(answers.len(), 1);
        answers.remove(0)
    }

    /// The value that is stored, and its epoch.
    pub fn read(&self, key: &StoreKey) -> Option<(Vec<u8>, Epoch)> {
        let payload = self.try_read(key).unwrap()?;
        let opened = raw().open(key, &payload).unwrap();
        assert_eq!(opened.terms, terms());
        Some((opened.value, opened.epoch))
    }
}

impl std::fmt::Debug for Caller<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Caller").field(&self.token).finish()
    }
}

/// A [`ChangeListener`] that records.
#[derive(Debug, Default)]
pub struct Recording {
    changes: Mutex<Vec<Change>>,
    gaps: Mutex<Vec<u64>>,
}

impl Recording {
    /// Records the changes of a namespace from now on.
    pub fn of(store: &dyn Store, namespace: &Namespace) -> Arc<Self> {
        let recording = Arc::new(Recording::default());
        let listener: Arc<dyn ChangeListener> = recording.clone();
        store.subscribe(namespace, Arc::downgrade(&listener));
        until("changes arrive", || !recording.gaps().is_empty());
        lock(&recording.gaps).clear();
        recording
    }

    /// The changes so far.
    pub fn changes(&self) -> Vec<Change> {
        lock(&self.changes).clone()
    }

    /// The reconnections so far, by the number of gaps after each.
    pub fn gaps(&self) -> Vec<u64> {
        lock(&self.gaps).clone()
    }

    /// Waits until so many changes are recorded, and returns them.
    ///
    /// # Panics
    ///
    /// If they do not come within one [`MINUTE`].
    pub fn wait_for(&self, changes: usize) -> Vec<Change> {
        until("the changes arrive", || self.changes().len() >= changes);
        self.changes()
    }
}

impl ChangeListener for Recording {
    fn changed(&self, change: &Change) {
        lock(&self.changes).push(*change);
    }

    fn reconnected(&self, gaps: u64) {
        lock(&self.gaps).push(gaps);
    }
}

/// Waits for other threads. The limit only turns a hang into a failure.
pub(super) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < MINUTE, "never: {what}");
        std::thread::park_timeout(Duration::from_micros(200));
    }
}
