//! A store in one file: values that outlive the process, without a server.
//!
//! The records are in memory, and each change of a payload is appended to the file by one thread
//! ([`writer`]). [`log`] has the layout, [`state`] the records.

mod error;
mod log;
mod state;
#[cfg(test)]
mod tests;
mod writer;

use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};
use std::time::UNIX_EPOCH;

pub use error::{FileError, FileErrorKind};

use self::log::{End, Log, MAGIC, Part};
use self::state::{Batch, State};
use self::writer::{Writer, beside};
use super::error::{ErrorClass, StoreError};
use super::key::{Namespace, StoreKey};
use super::record::Record;
use super::record_store::{RecordStore, Records};
use crate::sync::Arc;
use crate::sync::event::Event;
use crate::sync::plain::{Condvar, Mutex, lock};
use crate::time::clock::Clock;

/// The name of a record.
type FileKey = (Namespace, u128);

/// A [`Store`](crate::store::Store) in one file: values, with their ages and costs, outlive the
/// process, without a server.
///
/// All values are also in memory, up to a bound; the values that were stored first leave first. A
/// read of the store does not touch the disk. One thread writes, and an operation that changes a
/// value ends once its change is written. So a process that is killed loses no change that has
/// ended. A power failure can lose the changes of the last second.
///
/// One store at a time uses a file, until the last cache of the store is
/// [closed](crate::Cache::close) or dropped. Leases and cool-downs end with the store. The feature
/// `file` needs Rust 1.89.
///
/// # Example
///
/// ```
/// use std::sync::Arc;
/// use std::time::Duration;
/// use everfresh::store::FileStore;
/// use everfresh::{Cache, SecondLevel};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = std::env::temp_dir().join(format!("everfresh-doc-{}", std::process::id()));
/// # std::fs::create_dir_all(&folder)?;
/// let store = FileStore::open(folder.join("squares"), 64 << 20)?; // 64 MiB
/// let squares: Cache<u64, u64> = Cache::builder()
///     .fresh_for(Duration::from_secs(60))
///     .store(SecondLevel::new(Arc::new(store), "squares:v1")?)
///     .compute(|n: &u64| n * n)
///     .build()?;
/// assert_eq!(*squares.get_blocking(&12)?, 144);
/// # drop(squares);
/// # std::fs::remove_dir_all(&folder)?;
/// # Ok(())
/// # }
/// ```
pub type FileStore = RecordStore<FileRecords>;

/// The records of a [`FileStore`]: in memory, and written to a file.
///
/// Dropping them waits until the file is written.
pub struct FileRecords {
    shared: Arc<Shared>,
    recovery: Recovery,
    thread: Option<JoinHandle<()>>,
}

/// The content of its file that a [`FileStore`] could use, and could not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovery {
    /// The values that it can serve.
    pub values: u64,
    /// The values that were not taken because their time was over.
    pub expired: u64,
    /// The bytes at the end that a killed process had not finished.
    pub torn: u64,
    /// The bytes that could not be trusted, because they were damaged, or because they precede a
    /// damage that may have been their removal. Their keys are loaded again.
    pub damaged: u64,
}

struct Shared {
    clock: Clock,
    /// The time of the clock's zero, in microseconds since 1970.
    zero: u64,
    state: Mutex<State>,
    /// Notified when the thread has work.
    work: Condvar,
    /// Notified when a batch has ended.
    saved: Event,
}

impl FileStore {
    /// Opens a file, or makes it, for a store that keeps at most `max_bytes` of payloads, each of
    /// which counts 256 more than its length.
    ///
    /// Reads the whole file, so call it before the program serves. The file grows to twice the
    /// bound and 1 MiB; it is then rewritten beside itself, which needs the space once more. Two
    /// more files lie beside it, with the endings `.lock` and `.new`.
    ///
    /// The clock of the machine is read here. Later the store counts the time by a clock that is
    /// never set, and that goes on while the machine is suspended. If the clock of the machine was
    /// set back between two runs, the age of a value that seems to come from the future is unknown:
    /// such a value is stale, and refreshed by its first reader.
    ///
    /// # Errors
    ///
    /// If another store uses the file, if it was not written by everfresh, or if the system refuses
    /// an operation.
    pub fn open(path: impl AsRef<Path>, max_bytes: u64) -> Result<Self, FileError> {
        let clock = Clock::boottime();
        let wall = UNIX_EPOCH.elapsed().map_or(0, |now| now.as_micros());
        let wall = u64::try_from(wall).unwrap_or(u64::MAX);
        let zero = wall.saturating_sub(clock.exact() / 1_000);
        Self::at(path.as_ref(), max_bytes, clock, zero)
    }

    /// Opens a file for a store whose time is that of this clock, which began in 2023.
    #[cfg(any(test, feature = "test-util"))]
    pub fn open_with_clock(
        path: impl AsRef<Path>,
        max_bytes: u64,
        clock: impl Into<Clock>,
    ) -> Result<Self, FileError> {
        Self::at(
            path.as_ref(),
            max_bytes,
            clock.into(),
            super::memory::YEAR_2023,
        )
    }

    /// The values and the damage that [`open`](Self::open) found in the file.
    pub fn recovery(&self) -> Recovery {
        self.records.recovery
    }

    fn at(path: &Path, most: u64, clock: Clock, zero: u64) -> Result<Self, FileError> {
        let lock = locked(path)?;
        let now = zero.saturating_add(clock.exact() / 1_000);
        let mut state = State::new(most);
        let (log, recovery) = recover(path, now, &mut state)?;
        let shared = Arc::new(Shared {
            clock,
            zero,
            state: Mutex::new(state),
            work: Condvar::new(),
            saved: Event::new(),
        });
        let writer = Writer::new(shared.clone(), log, path.to_owned(), lock);
        let thread = thread::Builder::new()
            .name("everfresh-file".to_owned())
            .spawn(move || writer.run())
            .map_err(|error| FileError::io(path, error))?;
        let mut store = RecordStore::over(FileRecords {
            shared,
            recovery,
            thread: Some(thread),
        });
        // The file has no other user.
        store.is_local = true;
        Ok(store)
    }
}

/// Takes the right to use a file. It ends with the file that is returned.
fn locked(path: &Path) -> Result<File, FileError> {
    let beside = beside(path, ".lock");
    let mut options = OpenOptions::new();
    let file = options
        .write(true)
        .create(true)
        .truncate(false)
        .open(&beside);
    let file = file.map_err(|error| FileError::io(&beside, error))?;
    #[allow(clippy::incompatible_msrv, reason = "a lock on a file needs Rust 1.89")]
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(FileError::new(FileErrorKind::InUse, path)),
        Err(TryLockError::Error(error)) => Err(FileError::io(beside, error)),
    }
}

/// Reads what a file has, and removes a torn end.
fn recover(path: &Path, now: u64, state: &mut State) -> Result<(Log, Recovery), FileError> {
    let io = |error| FileError::io(path, error);
    let new: PathBuf = beside(path, ".new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(FileError::io(new, error));
        }
        _ => {}
    }
    let mut options = OpenOptions::new();
    let file = options
        .read(true)
        .append(true)
        .create(true)
        .open(path)
        .map_err(io)?;
    let length = file.metadata().map_err(io)?.len();
    let mut magic = Vec::new();
    let mut start = Read::take(&file, MAGIC.len() as u64);
    start.read_to_end(&mut magic).map_err(io)?;
    if magic != MAGIC {
        return match MAGIC.starts_with(&magic) {
            // Its maker was killed at once.
            true => Ok((writer::create(path).map_err(io)?, Recovery::default())),
            false if magic.starts_with(&MAGIC[..MAGIC.len() - 1]) => {
                Err(FileError::new(FileErrorKind::Version, path))
            }
            false => Err(FileError::new(FileErrorKind::Foreign, path)),
        };
    }
    let (whole, recovery) = replay(&file, length, now, state).map_err(io)?;
    let mut log = Log::new(file, whole, whole < length);
    log.cut().map_err(io)?;
    Ok((log, recovery))
}

/// Takes what can be trusted of a file after its first bytes, and returns the length of that.
fn replay(
    file: impl Read,
    length: u64,
    now: u64,
    state: &mut State,
) -> io::Result<(u64, Recovery)> {
    let mut recovery = Recovery::default();
    let end = log::read(file, length, |part| match part {
        Part::Removed(key) => state.load(key, Record::default()),
        Part::Damaged(hash, bytes) => {
            state.forget(hash);
            recovery.damaged += bytes;
        }
        Part::Stored(key, payload) => {
            let mut record = Record::default();
            match payload.until <= now {
                true => recovery.expired += 1,
                false => record.set_payload(Some(payload)),
            }
            state.load(key, record);
        }
    });
    let mut whole = length;
    match end? {
        End::Whole => {}
        End::Torn(at) => {
            recovery.torn = length - at;
            whole = at;
        }
        End::Damaged => {
            state.clear();
            recovery = Recovery {
                damaged: length,
                ..Recovery::default()
            };
            whole = MAGIC.len() as u64;
        }
    }
    recovery.values = state.values();
    Ok((whole, recovery))
}

impl Shared {
    fn now(&self) -> u64 {
        self.zero.saturating_add(self.clock.exact() / 1_000)
    }

    /// Waits until a batch was written.
    async fn saved(&self, batch: Batch) -> Result<(), StoreError> {
        loop {
            let saved = self.saved.listen();
            let result = lock(&self.state).result(batch);
            match result {
                Some(Ok(())) => return Ok(()),
                Some(Err(kind)) => {
                    let detail = io::Error::from(kind).to_string();
                    return Err(StoreError::new(ErrorClass::Refused, detail));
                }
                None => saved.await,
            }
        }
    }
}

impl Records for FileRecords {
    async fn update<T: Send>(
        &self,
        key: &StoreKey,
        step: impl FnOnce(&mut Record) -> T + Send,
    ) -> Result<T, StoreError> {
        let name = (key.namespace().clone(), key.hash());
        let (result, batch) = lock(&self.shared.state).step(name, self.now(), step);
        if let Some(batch) = batch {
            self.shared.work.notify_one();
            self.shared.saved(batch).await?;
        }
        Ok(result)
    }

    fn now(&self) -> u64 {
        self.shared.now()
    }
}

impl Drop for FileRecords {
    fn drop(&mut self) {
        lock(&self.shared.state).is_closed = true;
        self.shared.work.notify_one();
        if let Some(thread) = self.thread.take() {
            // A caller that the thread woke may drop the store there.
            if thread.thread().id() != thread::current().id() {
                let _ = thread.join();
            }
        }
    }
}

impl fmt::Debug for FileRecords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileRecords").finish_non_exhaustive()
    }
}
