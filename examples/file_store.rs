//! A store of your own: values that outlive the process, in plain files of one folder.
//!
//! It shows how little a store needs. `FileStore`, with the feature `file`, is the ready one for
//! the values of one process: it survives kills and damage, has a bound, and writes on its own
//! thread.
//!
//! `cargo run --example file_store`; `cargo test --example file_store` runs the contracts of every
//! store on it. In your `Cargo.toml`: `everfresh = { version = "0.1", features = ["postcard"] }`,
//! and under `[dev-dependencies]` the same with the feature `test-util`.
//!
//! All processes that use the folder share values and leases. A process gets notifications
//! of its own changes only, so it serves a value that another process replaced until it is stale.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use everfresh::store::{ErrorClass, Record, RecordStore, Records, StoreError, StoreKey};
use everfresh::{Cache, SecondLevel, Source};

/// One file for each key.
#[derive(Debug)]
struct Files {
    folder: PathBuf,
}

impl Files {
    fn open(folder: impl Into<PathBuf>) -> io::Result<Self> {
        let folder = folder.into();
        fs::create_dir_all(&folder)?;
        Ok(Files { folder })
    }

    /// Runs one step, alone among all threads and processes that use the folder.
    fn locked<T>(&self, key: &StoreKey, step: impl FnOnce(&mut Record) -> T) -> io::Result<T> {
        // The lock ends with the file, which is closed at the end of this function.
        let lock = File::create(self.folder.join("lock"))?;
        #[allow(clippy::incompatible_msrv, reason = "a lock on a file needs Rust 1.89")]
        lock.lock()?;

        let (namespace, hash) = (key.namespace().as_str(), key.hash());
        let path = self.folder.join(format!("{namespace}.{hash:032x}"));
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            read => read?,
        };
        let mut record = Record::from_bytes(bytes);
        let result = step(&mut record);
        match (record.is_changed(), record.is_empty()) {
            (false, _) => {}
            (true, false) => fs::write(&path, record.to_bytes())?,
            (true, true) => fs::remove_file(&path)?,
        }
        Ok(result)
    }
}

impl Records for Files {
    /// The file system is quick here. Over a network the work belongs on a thread of its own, with
    /// a time limit.
    async fn update<T: Send>(
        &self,
        key: &StoreKey,
        step: impl FnOnce(&mut Record) -> T + Send,
    ) -> Result<T, StoreError> {
        self.locked(key, step)
            .map_err(|error| StoreError::new(ErrorClass::Other, error.kind().to_string()))
    }

    fn now(&self) -> u64 {
        UNIX_EPOCH.elapsed().map_or(0, |now| now.as_micros() as u64)
    }
}

fn squares(folder: &Path) -> Result<Cache<u64, u64>, Box<dyn std::error::Error>> {
    let store = Arc::new(RecordStore::over(Files::open(folder)?));
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
    // The value goes to the store in the background; a close waits for that.
    first.close_blocking()?;

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

    use everfresh::testing::store_contract::LIMIT;

    use super::*;

    impl Drop for Files {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }

    /// A store in a folder of its own.
    fn in_folder() -> RecordStore<Files> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("everfresh-file-store-{}-{number}", std::process::id());
        let files = Files::open(std::env::temp_dir().join(name)).unwrap();
        RecordStore::over(files).limit(LIMIT)
    }

    everfresh::store_contract_tests!(in_folder());
}
