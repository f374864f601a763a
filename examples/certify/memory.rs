//! What a cache takes beyond its keys and values, by an allocator that counts.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use everfresh::{BuildError, Cache};
use serde_json::{Value, json};

use crate::report::{self, Check, grouped};

/// The system's allocator, with a count of the bytes that are allocated and not yet freed.
pub struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on to the system's allocator unchanged, which keeps the contract.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: `at` came from `alloc` above with this layout, so from the system's allocator.
        unsafe { System.dealloc(at, layout) }
    }
}

const KEYS: u64 = 1_000;
const LIMIT: usize = 100_000;

type Bytes = Arc<[u8; 64]>;

pub struct Memory {
    keys: usize,
    /// Everything that the cache and its pool hold after all keys were loaded.
    all: usize,
    /// Of that, what they held before the first.
    empty: usize,
    keys_and_values: usize,
}

/// Loads a thousand keys through a cache with room for a thousand.
pub fn measure() -> Result<Memory, BuildError> {
    let before = live();
    let cache: Cache<u64, Bytes> = Cache::builder()
        .name("memory")
        .capacity(KEYS as usize)
        .fresh_for(Duration::from_secs(60))
        .threads(1)
        .compute(|_: &u64| Arc::new([7; 64]))
        .build()?;
    let empty = live().saturating_sub(before);
    for key in 0..KEYS {
        let _ = cache.get_blocking(&key);
    }
    // The last value is served a moment before its load has let go of everything.
    std::thread::sleep(Duration::from_millis(50));
    let all = live().saturating_sub(before);
    let keys = cache.len();
    // Of a value: its handle in the entry, and on the heap two counts and the bytes.
    let value = size_of::<Bytes>() + 2 * size_of::<usize>() + 64;
    Ok(Memory {
        keys,
        all,
        empty,
        keys_and_values: keys * (size_of::<u64>() + value),
    })
}

fn live() -> usize {
    LIVE.load(Ordering::Relaxed)
}

impl Memory {
    fn bookkeeping(&self) -> usize {
        self.all.saturating_sub(self.keys_and_values)
    }

    fn check(&self) -> Check {
        Check {
            figure: "bookkeeping",
            measured: format!("{} bytes", grouped(self.bookkeeping())),
            target: format!("under {} bytes", grouped(LIMIT)),
            pass: self.bookkeeping() < LIMIT && self.keys == KEYS as usize,
        }
    }

    pub fn pass(&self) -> bool {
        self.check().pass
    }

    pub fn text(&self) -> String {
        format!(
            "Memory beyond keys and values: {} keys (u64) with values (Arc<[u8; 64]>), capacity {}\n{}  \
             {} bytes a key; {} bytes in all: {} of keys and values, {} of table and pool while empty\n",
            grouped(self.keys),
            grouped(KEYS as usize),
            report::checks(&[self.check()]),
            self.bookkeeping() / self.keys.max(1),
            grouped(self.all),
            grouped(self.keys_and_values),
            grouped(self.empty),
        )
    }

    pub fn json(&self) -> Value {
        json!({
            "keys": self.keys,
            "all_bytes": self.all,
            "empty_bytes": self.empty,
            "keys_and_values_bytes": self.keys_and_values,
            "bookkeeping_bytes": self.bookkeeping(),
            "limit_bytes": LIMIT,
            "pass": self.pass(),
        })
    }
}
