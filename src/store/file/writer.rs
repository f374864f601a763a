//! The thread that writes the file. No other thread touches the disk once the store is open.
//!
//! Races that it survives:
//!
//! 1. A step changes a record while the thread encodes or writes. Both happen under the lock of the
//!    state, so a frame is whole, and the key is dirty again for the next batch.
//! 2. A step changes a record while the file is rewritten. Each batch goes to both files, after
//!    what was read before it and before what is read after it. So the last frame of a key is the
//!    same in both.
//! 3. A caller waits for a batch that ends at this moment. It listens before it looks, and the
//!    thread ends the batch before it notifies.
//! 4. A caller that is woken drops the last handle to the store, on this thread. The thread is not
//!    joined then, and ends by itself.
//! 5. The process is killed. The file has a torn end at most. A new file takes the place of the old
//!    one in one step, once it is whole and synced.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::Shared;
use super::log::{Log, MAGIC};
use crate::sync::Arc;
use crate::sync::plain::{PoisonError, lock};

/// A power failure loses the changes of this time at most. Also the pause between two attempts on a
/// disk that takes no writes.
const SYNC_EVERY: Duration = Duration::from_secs(1);

/// How many bytes are encoded under one lock, and written together.
const PIECE: usize = 1 << 20;

/// A file is rewritten when it has this many bytes more than twice the memory of the store.
const SPARE: u64 = 1 << 20;

pub(super) struct Writer {
    shared: Arc<Shared>,
    log: Log,
    path: PathBuf,
    rewrite: Option<Rewrite>,
    /// The file is rewritten once it has this length, whatever its content.
    rewrite_at: u64,
    /// The length from which it is rewritten for its size.
    rewrite_from: u64,
    /// When the changes that are not synced began.
    unsynced: Option<Instant>,
    /// Locked until the thread ends.
    lock: File,
}

/// A new file that is being written.
struct Rewrite {
    log: Log,
    /// The next place in the order of the records.
    next: u64,
}

pub(super) fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, log: Log, path: PathBuf, lock: File) -> Self {
        Writer {
            shared,
            log,
            path,
            rewrite: None,
            rewrite_at: u64::MAX,
            rewrite_from: 0,
            unsynced: None,
            lock,
        }
    }

    pub(super) fn run(mut self) {
        loop {
            let is_closed = self.wait();
            self.save();
            if is_closed {
                break;
            }
            if self
                .unsynced
                .is_some_and(|since| since.elapsed() >= SYNC_EVERY)
            {
                self.sync();
            }
            self.rewrite();
        }
        self.sync();
        if self.rewrite.take().is_some() {
            let _ = fs::remove_file(beside(&self.path, ".new"));
        }
        // Closing it is not enough: a child that is being started has a copy for a moment.
        #[allow(clippy::incompatible_msrv, reason = "a lock on a file needs Rust 1.89")]
        let _ = self.lock.unlock();
    }

    /// Waits for work; whether the store is closed.
    fn wait(&self) -> bool {
        let mut state = lock(&self.shared.state);
        while !state.is_awaited && !state.is_closed && self.rewrite.is_none() {
            let work = &self.shared.work;
            if self.unsynced.is_none() && !state.is_dirty() {
                state = work.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let waited = work.wait_timeout(state, SYNC_EVERY);
            return waited.unwrap_or_else(PoisonError::into_inner).0.is_closed;
        }
        state.is_closed
    }

    /// Writes what changed.
    fn save(&mut self) {
        let keys = {
            let mut state = lock(&self.shared.state);
            if !state.is_dirty() {
                return;
            }
            state.begin()
        };
        let result = self.write(&keys);
        lock(&self.shared.state).end(result.err().map(|error| error.kind()));
        self.shared.saved.notify_all();
    }

    fn write(&mut self, keys: &[super::FileKey]) -> io::Result<()> {
        if lock(&self.shared.state).is_given_up {
            // The file lacks removals that are not remembered, so none of it may come back.
            self.log.clear()?;
            lock(&self.shared.state).is_given_up = false;
            self.rewrite_at = 0;
        }
        let mut keys = keys.iter();
        let mut frames = Vec::new();
        loop {
            {
                let state = lock(&self.shared.state);
                while frames.len() < PIECE {
                    let Some(key) = keys.next() else { break };
                    state.frame(key, &mut frames);
                }
            }
            if frames.is_empty() {
                return Ok(());
            }
            self.unsynced.get_or_insert_with(Instant::now);
            self.log.append(&mut frames)?;
            if let Some(rewrite) = &mut self.rewrite {
                if rewrite.log.append(&mut frames).is_err() {
                    self.abandon();
                }
            }
            frames.clear();
        }
    }

    fn sync(&mut self) {
        if self.unsynced.take().is_some() && self.log.sync().is_err() {
            // The system may have forgotten what it could not write. Only a new file is sure.
            self.rewrite_at = 0;
        }
    }

    /// Begins a new file if the old one is too long, or writes one piece of it.
    fn rewrite(&mut self) {
        let result = match self.rewrite {
            Some(_) => self.piece(),
            None => {
                let length = self.log.length;
                let most = lock(&self.shared.state).bytes * 2 + SPARE;
                if length < self.rewrite_at && (length <= most || length < self.rewrite_from) {
                    return;
                }
                self.begin()
            }
        };
        if result.is_err() {
            self.abandon();
        }
    }

    fn begin(&mut self) -> io::Result<()> {
        let new = beside(&self.path, ".new");
        let log = create(&new)?;
        self.rewrite = Some(Rewrite { log, next: 0 });
        Ok(())
    }

    fn piece(&mut self) -> io::Result<()> {
        let Some(rewrite) = &mut self.rewrite else {
            return Ok(());
        };
        let mut frames = Vec::new();
        let now = self.shared.now();
        let next = lock(&self.shared.state).frames(rewrite.next, now, PIECE, &mut frames);
        rewrite.log.append(&mut frames)?;
        rewrite.log.sync()?;
        if let Some(next) = next {
            rewrite.next = next;
            return Ok(());
        }
        fs::rename(beside(&self.path, ".new"), &self.path)?;
        if let Some(rewrite) = self.rewrite.take() {
            self.log = rewrite.log;
        }
        self.unsynced = None;
        self.rewrite_at = u64::MAX;
        self.rewrite_from = 0;
        sync_folder(&self.path);
        Ok(())
    }

    /// Gives a new file up, until the old one is twice as long.
    fn abandon(&mut self) {
        self.rewrite = None;
        let _ = fs::remove_file(beside(&self.path, ".new"));
        self.rewrite_from = self.log.length * 2;
        if self.rewrite_at < u64::MAX {
            self.rewrite_at = self.rewrite_from;
        }
    }
}

/// Makes a file without frames.
pub(super) fn create(path: &Path) -> io::Result<Log> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)?;
    file.write_all(MAGIC)?;
    drop(file);
    let file = OpenOptions::new().append(true).open(path)?;
    Ok(Log::new(file, MAGIC.len() as u64, false))
}

/// Keeps a new name over a power failure, where the system can do that.
fn sync_folder(path: &Path) {
    if let Some(folder) = path.parent() {
        let folder = match folder.as_os_str().is_empty() {
            true => Path::new("."),
            false => folder,
        };
        let _ = File::open(folder).and_then(|folder| folder.sync_all());
    }
}
