//! The keys that left the small queue not long ago.

use crate::protocol::shadows::MOST_GHOSTS;
use crate::sync::{AtomicU16, Ordering};

/// Fingerprints of keys that left the small queue, in buckets that each forget their oldest. There
/// are as many for each resident value as the setting of eviction says; older ones would promote
/// keys that are hardly used.
///
/// A key is identified by its name (see `fifo`), of which a bucket keeps sixteen bits.
pub struct Ghosts {
    cells: Box<[AtomicU16]>,
}

/// Cells in a bucket.
///
/// One under the model checker, because every order of every cell would be too much to explore.
const BUCKET: usize = if cfg!(all(loom, feature = "loom")) {
    1
} else {
    16 * MOST_GHOSTS
};

impl Ghosts {
    pub fn new(capacity: usize) -> Self {
        let cells = (capacity * MOST_GHOSTS).next_multiple_of(BUCKET);
        Ghosts {
            cells: (0..cells).map(|_| AtomicU16::new(0)).collect(),
        }
    }

    /// The cells in use of a key's bucket, if there are `each` ghosts for every resident value, and
    /// its fingerprint, which is never zero.
    fn bucket(&self, name: u64, resident: usize, each: usize) -> (&[AtomicU16], u16) {
        let mixed = name.wrapping_mul(0xd6e8_feb8_6659_fd93);
        let cells = self.cells.len();
        // With few entries one bucket in 2^n is in use, and stands for those after it. So half of
        // the ghosts stay known when n changes.
        let n = (cells / (resident * MOST_GHOSTS).clamp(1, cells)).ilog2();
        let number = ((u128::from(mixed) * (cells / BUCKET) as u128) >> 64) as usize >> n << n;
        let used = (BUCKET * resident * each)
            .div_ceil(cells >> n)
            .clamp(1, BUCKET);
        let bucket = &self.cells[number * BUCKET..];
        (&bucket[..used], (mixed >> 8) as u16 | 1)
    }

    // Relaxed throughout: a ghost is a hint, and a lost ghost costs one turn in the small queue.
    pub fn add(&self, name: u64, resident: usize, each: usize) {
        let (bucket, print) = self.bucket(name, resident, each);
        bucket.iter().fold(print, |newer, cell| {
            let older = cell.load(Ordering::Relaxed);
            cell.store(newer, Ordering::Relaxed);
            older
        });
    }

    pub fn take(&self, name: u64, resident: usize, each: usize) -> bool {
        let (bucket, print) = self.bucket(name, resident, each);
        let known = bucket
            .iter()
            .find(|cell| cell.load(Ordering::Relaxed) == print);
        known
            .inspect(|cell| cell.store(0, Ordering::Relaxed))
            .is_some()
    }
}
