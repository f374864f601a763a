//! The memory of a cache beyond its keys and values, measured by a counting allocator.
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use dev_support::allocator::Live;
use dev_support::report::{Check, grouped};
use everfresh::{BuildError, Cache};
use serde_json::{Value, json};

use crate::report::Part;

const KEYS: usize = 1_000;
/// The limit for each thousand keys.
const LIMIT: usize = 100_000;

type Bytes = Arc<[u8; 64]>;

pub struct Memory {
    pub full: Held,
    /// The same cache with room for one key: the part that does not depend on the number of keys.
    pub single: Held,
}

/// The memory of one cache, in bytes.
pub struct Held {
    pub keys: usize,
    /// Before the first key: table, pool, counters.
    pub empty: usize,
    /// With all its keys, beyond keys and values.
    pub bookkeeping: usize,
}

/// Nothing else may run meanwhile, because its memory would be counted too.
pub fn measure() -> Result<Memory, BuildError> {
    Live::start();
    // A first cache makes the process allocate the parts that all caches share. All caches are
    // dropped at the end, because the threads of a dropped pool free their memory at some later
    // time, which would make another cache seem smaller.
    let (_first, _) = fill(1)?;
    let (_second, single) = fill(1)?;
    let (_third, full) = fill(KEYS)?;
    Ok(Memory { full, single })
}

/// Fills a cache to its capacity by loads.
fn fill(capacity: usize) -> Result<(Cache<u64, Bytes>, Held), BuildError> {
    let before = live();
    let cache: Cache<u64, Bytes> = Cache::builder()
        .name("memory")
        .capacity(capacity)
        .fresh_for(Duration::from_secs(60))
        .threads(1)
        .compute(|_: &u64| Arc::new([7; 64]))
        .build()?;
    let empty = (live() - before) as usize;
    for key in 0..capacity as u64 {
        let _ = cache.get_blocking(&key);
    }
    let full = (live() - before) as usize;
    let keys = cache.len();
    // A value has its handle in the entry, and two counts and its bytes on the heap.
    let value = size_of::<Bytes>() + 2 * size_of::<usize>() + size_of::<[u8; 64]>();
    let held = Held {
        keys,
        empty,
        bookkeeping: full - keys * (size_of::<u64>() + value),
    };
    Ok((cache, held))
}

/// The allocated bytes, read when no other thread is beginning or ending.
fn live() -> isize {
    let mut seen = Live::bytes();
    let mut steady = 0;
    while steady < 5 {
        thread::sleep(Duration::from_millis(5));
        let now = Live::bytes();
        steady = if now == seen { steady + 1 } else { 0 };
        seen = now;
    }
    seen
}

impl Memory {
    /// The share of one key in the difference between the full cache and the other.
    fn a_key(&self, bytes: impl Fn(&Held) -> usize) -> f64 {
        let more = bytes(&self.full).saturating_sub(bytes(&self.single));
        more as f64 / (self.full.keys - self.single.keys).max(1) as f64
    }

    fn a_thousand(&self) -> usize {
        (1_000.0 * self.a_key(|held| held.bookkeeping)).round() as usize
    }

    fn check(&self) -> Check {
        Check {
            figure: "bookkeeping per 1 000 keys",
            measured: format!("{} bytes", grouped(self.a_thousand())),
            control: None,
            target: format!("under {} bytes", grouped(LIMIT)),
            pass: self.a_thousand() < LIMIT,
        }
    }

    pub fn pass(&self) -> bool {
        self.check().pass
    }

    pub fn part(&self) -> Part {
        let table = self.a_key(|held| held.empty);
        let all = self.a_key(|held| held.bookkeeping);
        let title = format!(
            "Memory beyond keys (u64) and values (Arc<[u8; 64]>), {} keys loaded, capacity {}",
            grouped(self.full.keys),
            grouped(KEYS),
        );
        Part {
            notes: vec![
                format!(
                    "{all:.1} bytes a key: {table:.1} for the table, {:.1} for the entry",
                    all - table
                ),
                format!(
                    "plus {} bytes at any capacity: a pool of one thread, counters",
                    grouped(self.single.bookkeeping)
                ),
            ],
            ..Part::checked(title, &[self.check()])
        }
    }

    pub fn json(&self) -> Value {
        json!({
            "keys": self.full.keys,
            "bytes_per_1000_keys": self.a_thousand(),
            "limit_bytes": LIMIT,
            "bytes_per_key": self.a_key(|held| held.bookkeeping),
            "table_bytes_per_key": self.a_key(|held| held.empty),
            "fixed_bytes": self.single.bookkeeping,
            "all_bytes": self.full.bookkeeping,
            "pass": self.pass(),
        })
    }
}
