//! A folder that ends with its test.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use everfresh::ManualClock;
use everfresh::store::FileStore;

/// More than any test stores, unless it says so.
pub const MUCH: u64 = 64 << 20;

pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("everfresh-file-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).unwrap();
        Folder(folder)
    }

    pub fn file(&self) -> PathBuf {
        self.0.join("values")
    }

    pub fn open(&self, clock: &ManualClock) -> FileStore {
        FileStore::open_with_clock(self.file(), MUCH, clock).unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
