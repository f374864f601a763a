//! A store of your own: values that outlive the process, in plain files of one folder.
//!
//! `cargo run --example file_store`; `cargo test --example file_store` runs the contracts of every
//! store on it. In your `Cargo.toml`: `everfresh = { version = "0.1", features = ["postcard"] }`,
//! and under `[dev-dependencies]` the same with the feature `test-util`.
//!
//! All processes that use the folder share values and leases. A process hears only of the changes
//! that it made itself, so it serves a value that another process replaced until it is stale.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use everfresh::store::{
    Acquire, Acquired, Background, Change, ChangeKind, ChangeListener, ChangeListeners, Epoch,
    ErrorClass, Namespace, Origin, Publish, Reply, Store, StoreCounters, StoreError, StoreKey,
    StoreState, StoreStats, Stored, Token, envelope,
};
use everfresh::{BoxFuture, Cache, SecondLevel, Source};

/// Two files for each key: one for its payload, one for its lease. Each begins with the moment at
/// which it expires.
struct FileStore {
    folder: PathBuf,
    /// The largest payload, in bytes.
    limit: usize,
    listeners: Arc<ChangeListeners>,
    counters: Arc<StoreCounters>,
    background: Background,
}

type Done<T> = Result<T, StoreError>;

struct Lease {
    until: u64,
    /// `None` after a failed load, while no caller may try.
    holder: Option<Token>,
    /// `None` after another load of the same base was published.
    base: Option<Epoch>,
}

fn done<T>(result: io::Result<T>) -> Done<T> {
    result.map_err(|error| StoreError::new(ErrorClass::Other, error.kind().to_string()))
}

/// Microseconds since 1970.
fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, micros)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl FileStore {
    fn open(folder: impl Into<PathBuf>, limit: usize) -> io::Result<Self> {
        let folder = folder.into();
        fs::create_dir_all(&folder)?;
        Ok(FileStore {
            folder,
            limit,
            listeners: Arc::default(),
            counters: Arc::default(),
            background: Background::default(),
        })
    }

    /// Runs one operation, alone among all threads and processes that use the folder.
    ///
    /// The file system is quick here. Over a network the work belongs on a thread of its own, with
    /// a time limit.
    fn step<'a, T>(&'a self, step: impl FnOnce(u64) -> Done<T> + Send + 'a) -> Reply<'a, Done<T>> {
        Box::pin(async move {
            #[allow(clippy::incompatible_msrv, reason = "a lock on a file needs Rust 1.89")]
            let lock =
                File::create(self.folder.join("lock")).and_then(|file| file.lock().map(|()| file));
            // The lock ends with the file, which is closed at the end of this block.
            let result = done(lock).and_then(|_lock| step(now()));
            self.counters.result(result)
        })
    }

    fn path(&self, kind: &str, key: &StoreKey) -> PathBuf {
        let namespace = key.namespace().as_str();
        self.folder
            .join(format!("{namespace}.{kind}.{:032x}", key.hash()))
    }

    /// The moment at which a file expires, and its other bytes: at most one more than the limit.
    fn contents(&self, path: &Path) -> Done<Option<(u64, Vec<u8>)>> {
        let mut bytes = Vec::new();
        match File::open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            file => done(
                file.and_then(|file| file.take(self.limit as u64 + 9).read_to_end(&mut bytes)),
            )?,
        };
        let until = bytes.first_chunk().map(|first| u64::from_be_bytes(*first));
        Ok(until.map(|until| (until, bytes.split_off(8))))
    }

    fn write(&self, path: &Path, until: u64, bytes: &[u8]) -> Done<()> {
        done(fs::write(path, [&until.to_be_bytes(), bytes].concat()))
    }

    fn remove(&self, path: &Path) -> Done<()> {
        match fs::remove_file(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            removed => done(removed),
        }
    }

    fn payload(&self, key: &StoreKey, now: u64) -> Done<Option<Vec<u8>>> {
        let contents = self.contents(&self.path("d", key))?;
        Ok(contents.filter(|file| file.0 > now).map(|file| file.1))
    }

    /// The epoch that is stored, if a cache can use it.
    fn stored(&self, key: &StoreKey, now: u64) -> Done<Option<Epoch>> {
        let payload = self.payload(key, now)?;
        Ok(payload.and_then(|payload| envelope::epoch(&payload)))
    }

    fn lease(&self, key: &StoreKey, now: u64) -> Done<Option<Lease>> {
        let contents = self.contents(&self.path("l", key))?;
        let Some((until, bytes)) = contents.filter(|file| file.0 > now) else {
            return Ok(None);
        };
        let words: Vec<u64> = bytes
            .chunks_exact(8)
            .map(|word| u64::from_be_bytes(word.try_into().unwrap_or_default()))
            .collect();
        let [held, origin, serial, base] = words[..] else {
            return Ok(None);
        };
        let origin = Origin(origin);
        Ok(Some(Lease {
            until,
            holder: (held == 1).then_some(Token { origin, serial }),
            base: Epoch::from_micros(base),
        }))
    }

    fn write_lease(&self, key: &StoreKey, lease: &Lease) -> Done<()> {
        let words = [
            u64::from(lease.holder.is_some()),
            lease.holder.map_or(0, |holder| holder.origin.0),
            lease.holder.map_or(0, |holder| holder.serial),
            lease.base.map_or(0, Epoch::micros),
        ];
        let bytes = words.map(u64::to_be_bytes).concat();
        self.write(&self.path("l", key), lease.until, &bytes)
    }

    /// Later than the stored epoch of the key and than every epoch before.
    fn next_epoch(&self, key: &StoreKey, now: u64) -> Done<Epoch> {
        let path = self.folder.join("last");
        let last = self.contents(&path)?.map_or(0, |(last, _)| last);
        let stored = self.stored(key, now)?.map_or(0, Epoch::micros);
        let next = now.max(last.saturating_add(1)).max(stored + 1);
        self.write(&path, next, &[])?;
        Epoch::from_micros(next)
            .ok_or_else(|| StoreError::new(ErrorClass::Other, "the clock is past the year 2255"))
    }

    fn put(&self, key: &StoreKey, mut payload: Vec<u8>, ttl: Duration, now: u64) -> Done<Epoch> {
        let epoch = self.next_epoch(key, now)?;
        if payload.len() > self.limit {
            return Err(StoreError::new(ErrorClass::TooLarge, ""));
        }
        if !envelope::stamp(&mut payload, epoch) {
            return Err(StoreError::new(ErrorClass::Protocol, "not an envelope"));
        }
        let until = now.saturating_add(micros(ttl));
        self.write(&self.path("d", key), until, &payload)?;
        Ok(epoch)
    }

    /// Tells a change on the thread for background work, which keeps the order and holds no lock.
    fn tell(&self, key: &StoreKey, kind: ChangeKind, epoch: Option<Epoch>, origin: Origin) {
        let change = Change {
            kind,
            epoch,
            hash: key.hash(),
            origin,
        };
        let (listeners, counters) = (self.listeners.clone(), self.counters.clone());
        let namespace = key.namespace().clone();
        self.background.spawn(Box::pin(async move {
            counters.changed(true);
            listeners.notify(namespace.as_str(), &change);
        }));
    }
}

impl Store for FileStore {
    fn read<'a>(&'a self, keys: &'a [StoreKey]) -> Reply<'a, Vec<Done<Option<Vec<u8>>>>> {
        let one = |key, now| match self.payload(key, now)? {
            Some(payload) if payload.len() > self.limit => {
                Err(StoreError::new(ErrorClass::TooLarge, ""))
            }
            payload => Ok(payload),
        };
        let all = self.step(move |now| Ok(keys.iter().map(|key| one(key, now)).collect()));
        Box::pin(async move {
            let failed = |error: StoreError| keys.iter().map(|_| Err(error.clone())).collect();
            let answers: Vec<_> = all.await.unwrap_or_else(failed);
            self.counters.read(&answers);
            answers
        })
    }

    fn acquire<'a>(&'a self, key: &'a StoreKey, ask: Acquire) -> Reply<'a, Done<Acquired>> {
        self.step(move |now| {
            let payload = self.payload(key, now)?.unwrap_or_default();
            let stored = envelope::epoch(&payload);
            // A payload that is too large to be read is to be replaced.
            if stored.is_some() && stored != ask.seen && payload.len() <= self.limit {
                return Ok(Acquired::Stored(payload));
            }
            let mut base = stored;
            if let Some(lease) = self.lease(key, now)? {
                let left = Duration::from_micros(lease.until - now);
                match lease.holder {
                    Some(holder) if holder == ask.token => base = base.or(lease.base),
                    Some(_) => return Ok(Acquired::Held { left }),
                    None => return Ok(Acquired::Cooling { left }),
                }
            }
            let base = match base {
                Some(base) => base,
                None => self.next_epoch(key, now)?,
            };
            let lease = Lease {
                until: now.saturating_add(micros(ask.lease)),
                holder: Some(ask.token),
                base: Some(base),
            };
            self.write_lease(key, &lease)?;
            Ok(Acquired::Granted { base })
        })
    }

    fn publish<'a>(&'a self, key: &'a StoreKey, publish: Publish) -> Reply<'a, Done<Stored>> {
        self.step(move |now| {
            let lease = self.lease(key, now)?;
            let holder = lease.as_ref().and_then(|lease| lease.holder);
            let ours = holder == Some(publish.token);
            let accepted = match self.stored(key, now)? {
                Some(stored) => stored == publish.base,
                None => ours && lease.as_ref().and_then(|lease| lease.base) == Some(publish.base),
            };
            let mut stored = Stored::Refused;
            if accepted {
                let epoch = self.put(key, publish.payload, publish.ttl, now)?;
                self.tell(
                    key,
                    ChangeKind::Refreshed,
                    Some(epoch),
                    publish.token.origin,
                );
                stored = Stored::Yes { epoch };
            }
            match lease {
                _ if ours => self.remove(&self.path("l", key))?,
                // The overtaken holder keeps its lease, but its result will be refused.
                Some(lease) if accepted && holder.is_some() => {
                    self.write_lease(
                        key,
                        &Lease {
                            base: None,
                            ..lease
                        },
                    )?;
                }
                _ => {}
            }
            Ok(stored)
        })
    }

    fn renew<'a>(
        &'a self,
        key: &'a StoreKey,
        token: Token,
        lease: Duration,
    ) -> Reply<'a, Done<bool>> {
        self.step(move |now| match self.lease(key, now)? {
            Some(held) if held.holder == Some(token) => {
                let until = now.saturating_add(micros(lease));
                self.write_lease(key, &Lease { until, ..held })?;
                Ok(true)
            }
            _ => Ok(false),
        })
    }

    fn release<'a>(
        &'a self,
        key: &'a StoreKey,
        token: Token,
        cool_down: Option<Duration>,
    ) -> Reply<'a, Done<bool>> {
        self.step(move |now| {
            let lease = self.lease(key, now)?;
            if lease.and_then(|lease| lease.holder) != Some(token) {
                return Ok(false);
            }
            match cool_down {
                None => self.remove(&self.path("l", key))?,
                Some(cool_down) => {
                    let cooling = Lease {
                        until: now.saturating_add(micros(cool_down)),
                        holder: None,
                        base: None,
                    };
                    self.write_lease(key, &cooling)?;
                }
            }
            self.tell(key, ChangeKind::Released, None, token.origin);
            Ok(true)
        })
    }

    fn set<'a>(
        &'a self,
        key: &'a StoreKey,
        payload: Vec<u8>,
        ttl: Duration,
        origin: Origin,
    ) -> Reply<'a, Done<Epoch>> {
        self.step(move |now| {
            let epoch = self.put(key, payload, ttl, now)?;
            self.remove(&self.path("l", key))?;
            self.tell(key, ChangeKind::Set, Some(epoch), origin);
            Ok(epoch)
        })
    }

    fn invalidate<'a>(&'a self, key: &'a StoreKey, origin: Origin) -> Reply<'a, Done<Epoch>> {
        self.step(move |now| {
            let epoch = self.next_epoch(key, now)?;
            self.remove(&self.path("d", key))?;
            self.remove(&self.path("l", key))?;
            self.tell(key, ChangeKind::Invalidated, Some(epoch), origin);
            Ok(epoch)
        })
    }

    fn now(&self) -> Option<u64> {
        Some(now())
    }

    fn gaps(&self) -> u64 {
        1 // there is no connection that could break
    }

    fn state(&self) -> StoreState {
        StoreState::Up
    }

    fn stats(&self) -> StoreStats {
        self.counters.snapshot()
    }

    fn subscribe(&self, namespace: &Namespace, listener: Weak<dyn ChangeListener>) {
        self.listeners.add(namespace, listener);
        self.listeners.greet(self.gaps(), |_| true);
    }

    fn spawn(&self, work: BoxFuture) {
        self.background.spawn(work);
    }
}

impl std::fmt::Debug for FileStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("FileStore").field(&self.folder).finish()
    }
}

fn squares(folder: &Path) -> Result<Cache<u64, u64>, Box<dyn std::error::Error>> {
    let store = Arc::new(FileStore::open(folder, 1 << 20)?);
    let cache = Cache::<u64, u64>::builder()
        .fresh_for(Duration::from_secs(60))
        .store(SecondLevel::new(store, "squares:v1")?)
        .compute(|n: &u64| n * n)
        .build()?;
    Ok(cache)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::temp_dir().join(format!("everfresh-files-{}", std::process::id()));
    let first = squares(&folder)?;
    assert_eq!(first.get_blocking(&12)?.source(), Source::Loaded);
    while first.store_stats().is_some_and(|stats| stats.published < 1) {
        // The value goes to the store in the background.
        std::thread::sleep(Duration::from_millis(1));
    }
    drop(first);

    let second = squares(&folder)?;
    let value = second.get_blocking(&12)?;
    assert_eq!((*value, value.source()), (144, Source::Store));
    println!("12 squared is {}, from {}", *value, folder.display());
    fs::remove_dir_all(&folder)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use everfresh::testing::store_contract::{LIMIT, StoreUnderTest};

    use super::*;

    /// A store in a folder of its own.
    struct InFolder(FileStore);

    impl InFolder {
        fn new() -> Self {
            static NUMBER: AtomicU32 = AtomicU32::new(0);
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let name = format!("everfresh-file-store-{}-{number}", std::process::id());
            InFolder(FileStore::open(std::env::temp_dir().join(name), LIMIT).unwrap())
        }

        fn left(&self, kind: &str, key: &StoreKey) -> Option<Duration> {
            let (until, _) = self.0.contents(&self.0.path(kind, key)).unwrap()?;
            Some(Duration::from_micros(until.checked_sub(now())?))
        }
    }

    impl Drop for InFolder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0.folder);
        }
    }

    impl StoreUnderTest for InFolder {
        fn store(&self) -> &dyn Store {
            &self.0
        }

        fn limit(&self) -> usize {
            LIMIT
        }

        fn lose_lease(&self, key: &StoreKey) {
            self.0.remove(&self.0.path("l", key)).unwrap();
        }

        fn lose_data(&self, key: &StoreKey) {
            self.0.remove(&self.0.path("d", key)).unwrap();
        }

        fn plant(&self, key: &StoreKey, bytes: Vec<u8>) {
            self.0
                .write(&self.0.path("d", key), u64::MAX, &bytes)
                .unwrap();
        }

        fn lease_left(&self, key: &StoreKey) -> Option<Duration> {
            self.left("l", key)
        }

        fn data_left(&self, key: &StoreKey) -> Option<Duration> {
            self.left("d", key)
        }
    }

    everfresh::store_contract_tests!(InFolder::new());
}
