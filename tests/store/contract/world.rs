//! What the contracts need besides the store itself.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use everfresh::store::{
    Acquire, Acquired, Change, ChangeListener, Codec, Epoch, Format, Namespace, Origin, Publish,
    Rejected, Store, StoreError, StoreKey, Stored, Terms, Token,
};
use futures_lite::future::block_on;

pub const HOUR: Duration = Duration::from_secs(3600);
pub const MINUTE: Duration = Duration::from_secs(60);

/// The largest payload that the stores under test take.
pub const LIMIT: usize = 4096;

/// A store, and what happens to it.
pub trait World: Sync {
    fn store(&self) -> &dyn Store;
    /// The lease is gone, as if its time had passed.
    fn lose_lease(&self, key: &StoreKey);
    /// The payload is gone, as if it had been evicted.
    fn lose_data(&self, key: &StoreKey);
    /// Somebody put these bytes there.
    fn plant(&self, key: &StoreKey, bytes: Vec<u8>);
    /// How long the lease and the payload will live.
    fn lease_left(&self, key: &StoreKey) -> Option<Duration>;
    fn data_left(&self, key: &StoreKey) -> Option<Duration>;
}

/// Bytes as they are.
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

pub fn raw() -> Format<Vec<u8>> {
    Format::new(Raw)
}

pub fn terms() -> Terms {
    Terms {
        fresh_for: MINUTE,
        stale_for: MINUTE,
        stale_if_error_for: HOUR,
        cost: Duration::from_millis(3),
    }
}

pub fn namespace() -> Namespace {
    Namespace::new("test:v1").unwrap()
}

pub fn key(name: &str) -> StoreKey {
    StoreKey::new(&namespace(), name.as_bytes())
}

pub fn payload(key: &StoreKey, value: &[u8]) -> Vec<u8> {
    raw().seal(key, &value.to_vec(), &terms()).unwrap()
}

pub fn value(key: &StoreKey, payload: &[u8]) -> Vec<u8> {
    raw().open(key, payload).unwrap().value
}

/// A caller of a store, a process among others.
#[derive(Clone, Copy)]
pub struct Caller<'a> {
    pub world: &'a dyn World,
    pub token: Token,
}

/// The caller of this number.
pub fn caller(world: &dyn World, number: u64) -> Caller<'_> {
    let token = Token {
        origin: Origin(number),
        serial: number ^ 0xffff,
    };
    Caller { world, token }
}

impl Caller<'_> {
    pub fn store(&self) -> &dyn Store {
        self.world.store()
    }

    pub fn acquire(&self, key: &StoreKey, seen: Option<Epoch>) -> Acquired {
        block_on(self.store().acquire(
            key,
            Acquire {
                seen,
                token: self.token,
                lease: MINUTE,
            },
        ))
        .unwrap()
    }

    /// The base of a lease that must be granted.
    pub fn granted(&self, key: &StoreKey, seen: Option<Epoch>) -> Epoch {
        match self.acquire(key, seen) {
            Acquired::Granted { base } => base,
            other => panic!("not granted: {other:?}"),
        }
    }

    /// The base of a lease that must be granted over nothing: now, and nothing that was stored.
    pub fn granted_over_nothing(&self, key: &StoreKey) -> Epoch {
        let before = self.store().now().expect("connected");
        let base = self.granted(key, None);
        assert!(base.micros() + 1_000_000 > before, "{base:?} is not now");
        base
    }

    pub fn is_held(&self, key: &StoreKey, seen: Option<Epoch>) -> bool {
        match self.acquire(key, seen) {
            Acquired::Held { left } => {
                assert!(left <= MINUTE && left > Duration::ZERO, "{left:?}");
                true
            }
            _ => false,
        }
    }

    pub fn publish(&self, key: &StoreKey, base: Epoch, value: &[u8]) -> Stored {
        self.try_publish(key, base, payload(key, value)).unwrap()
    }

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

    /// The epoch of a publish that must be accepted.
    pub fn published(&self, key: &StoreKey, base: Epoch, value: &[u8]) -> Epoch {
        match self.publish(key, base, value) {
            Stored::Yes { epoch } => epoch,
            Stored::Refused => panic!("refused"),
        }
    }

    pub fn set(&self, key: &StoreKey, value: &[u8]) -> Epoch {
        let payload = payload(key, value);
        block_on(self.store().set(key, payload, HOUR, self.token.origin)).unwrap()
    }

    pub fn invalidate(&self, key: &StoreKey) -> Epoch {
        block_on(self.store().invalidate(key, self.token.origin)).unwrap()
    }

    pub fn renew(&self, key: &StoreKey, lease: Duration) -> bool {
        block_on(self.store().renew(key, self.token, lease)).unwrap()
    }

    pub fn release(&self, key: &StoreKey, cool_down: Option<Duration>) -> bool {
        block_on(self.store().release(key, self.token, cool_down)).unwrap()
    }

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

/// A listener that remembers.
#[derive(Default)]
pub struct Heard {
    pub changes: Mutex<Vec<Change>>,
    pub gaps: Mutex<Vec<u64>>,
}

impl Heard {
    pub fn of(store: &dyn Store, namespace: &Namespace) -> Arc<Self> {
        let heard = Arc::new(Heard::default());
        let listener: Arc<dyn ChangeListener> = heard.clone();
        store.subscribe(namespace, Arc::downgrade(&listener));
        until("changes arrive", || !heard.gaps().is_empty());
        heard.gaps.lock().unwrap().clear();
        heard
    }

    pub fn changes(&self) -> Vec<Change> {
        self.changes.lock().unwrap().clone()
    }

    pub fn gaps(&self) -> Vec<u64> {
        self.gaps.lock().unwrap().clone()
    }

    /// Waits until so many changes were heard.
    pub fn wait_for(&self, changes: usize) -> Vec<Change> {
        until("the changes are told", || self.changes().len() >= changes);
        self.changes()
    }
}

impl ChangeListener for Heard {
    fn changed(&self, change: &Change) {
        self.changes.lock().unwrap().push(*change);
    }

    fn reconnected(&self, gaps: u64) {
        self.gaps.lock().unwrap().push(gaps);
    }
}

/// Waits for other threads. The limit only turns a hang into a failure.
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < MINUTE, "never: {what}");
        std::thread::park_timeout(Duration::from_micros(200));
    }
}
