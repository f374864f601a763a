//! S3-FIFO (Yang et al., "FIFO queues are all you need for cache eviction", SOSP 2023) on queues of tokens.
//!
//! A token says "the value that lives in this way under this residency". The table decides what it is worth: a value that
//! was removed leaves a dead token behind, a value that was refreshed or overwritten keeps its residency, its use
//! count and so its token. Queues and table are never locked together, so every step may find a token dead, and
//! none relies on the opposite.
//!
//! New values enter the *small* queue. Those used again before they reach its head move to the *main* queue; the others leave, and
//! their fingerprints stay for a while as *ghosts*: a key that comes back as a ghost enters the main queue at once.

use crossbeam::queue::SegQueue;

use crate::clock::Tick;
use crate::entry::Entry;
use crate::removal::Cause;
use crate::residents::Residents;
use crate::sync::{AtomicU32, Ordering};
use crate::table::Place;

/// The small queue's share of the capacity.
const SMALL_SHARE: usize = 10;

/// A value with at least this many uses leaves the small queue for the main one.
const PROMOTE_AT: u8 = 2;

/// Tokens one eviction looks at before it takes the next live one whatever its uses.
const PATIENCE: usize = 64;

/// Tokens one enrolment looks at when dead ones pile up.
const TIDY: usize = 4;

#[derive(Clone, Copy)]
struct Token {
    place: Place,
    residency: Residency,
}

/// Names one stay of a key in its way; 24 bits, so that it fits where an entry has room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Residency([u8; 3]);

impl Residency {
    fn new(number: u32) -> Self {
        let [a, b, c, _] = number.to_le_bytes();
        Residency([a, b, c])
    }
}

pub struct Queues {
    small: SegQueue<Token>,
    main: SegQueue<Token>,
    ghosts: Ghosts,
    next: AtomicU32,
    small_target: usize,
    tokens_bound: usize,
}

impl Queues {
    pub fn new(capacity: usize) -> Self {
        Queues {
            small: SegQueue::new(),
            main: SegQueue::new(),
            ghosts: Ghosts::new(capacity),
            next: AtomicU32::new(0),
            small_target: (capacity / SMALL_SHARE).max(1),
            tokens_bound: capacity.saturating_mul(2).max(64),
        }
    }

    /// A name for a new stay. It comes round after 16 million; a dead token that then matches only costs its value a turn.
    pub fn next_residency(&self) -> Residency {
        Residency::new(self.next.fetch_add(1, Ordering::Relaxed))
    }
}

impl<K, V> Residents<K, V> {
    /// Queues a value that has just become resident.
    pub fn enrol(&self, place: Place, residency: Residency) {
        let token = Token { place, residency };
        let queues = &self.queues;
        match queues.ghosts.take(place.set(), self.table.tag_at(place)) {
            true => queues.main.push(token),
            false => queues.small.push(token),
        }
        // Values that are removed leave their tokens behind. Where nothing is evicted nobody would meet them.
        if queues.small.len() + queues.main.len() > queues.tokens_bound {
            self.tidy();
        }
    }

    /// Drops dead tokens at the heads of the queues, and sends live ones to the back.
    fn tidy(&self) {
        for queue in [&self.queues.small, &self.queues.main] {
            for _ in 0..TIDY {
                let Some(token) = queue.pop() else { break };
                if self.value_of(token, |_| ()).is_some() {
                    queue.push(token);
                }
            }
        }
    }

    /// Evicts one value by S3-FIFO; false if the queues offered none.
    pub fn evict_by_queue(&self, now: Tick) -> bool {
        let queues = &self.queues;
        for step in 0.. {
            let patient = step < PATIENCE;
            let from_small = queues.small.len() >= queues.small_target || queues.main.is_empty();
            let popped = match from_small {
                true => queues.small.pop(),
                false => queues.main.pop(),
            };
            let Some(token) = popped else {
                // Another thread was faster. Both empty: what is resident is between table and queue.
                if queues.small.is_empty() && queues.main.is_empty() {
                    return false;
                }
                continue;
            };
            let kept = self.value_of(token, |entry| {
                let used = match from_small {
                    true => entry.uses() >= PROMOTE_AT,
                    false => entry.uses() > 0,
                };
                let kept = patient && used && entry.is_servable(now);
                if kept {
                    // A promoted value starts anew; one that comes round in the main queue has one use less.
                    entry.settle_uses(if from_small { 0 } else { entry.uses() - 1 });
                }
                kept
            });
            match kept {
                None => {}
                Some(true) => queues.main.push(token),
                Some(false) => {
                    let tag = self.table.tag_at(token.place);
                    let Some(held) = self.table.item_at(token.place) else {
                        continue;
                    };
                    if held.residency == token.residency
                        && self
                            .take_out(token.place, held.arc(), Cause::of(&held, now))
                            .is_some()
                    {
                        if from_small {
                            queues.ghosts.add(token.place.set(), tag);
                        }
                        return true;
                    }
                }
            }
        }
        false
    }

    /// Looks at the value of a token, if it is still the resident one.
    fn value_of<R>(&self, token: Token, look: impl FnOnce(&Entry<K, V>) -> R) -> Option<R> {
        let held = self.table.item_at(token.place)?;
        (!held.is_loading() && held.residency == token.residency).then(|| look(&held))
    }
}

/// Fingerprints of keys that left the small queue, in a fixed array of one cell for each entry of capacity.
///
/// A key is its set and its tag: one ghost in sixty is taken for another, and nothing else need be stored. A ghost fades
/// when as many as the capacity have come after it, or when its bucket has more than it can hold.
struct Ghosts {
    cells: Box<[AtomicU32]>,
    added: AtomicU32,
    /// Right shift that makes `added` count in steps that fit an age.
    step: u32,
    lifetime: u32,
}

/// Cells in a bucket.
const BUCKET: usize = 8;

/// The low bits of a cell, which say when it was written; the others are the fingerprint.
const AGE_BITS: u32 = 14;
const AGE: u32 = (1 << AGE_BITS) - 1;

impl Ghosts {
    fn new(capacity: usize) -> Self {
        // The lifetime takes at most half the range of ages, or an old ghost would look young again.
        let bits = usize::BITS - capacity.leading_zeros();
        let step = bits.saturating_sub(AGE_BITS - 1);
        Ghosts {
            cells: (0..capacity.next_multiple_of(BUCKET))
                .map(|_| AtomicU32::new(0))
                .collect(),
            added: AtomicU32::new(0),
            step,
            lifetime: (capacity >> step) as u32,
        }
    }

    /// The bucket of a key, and its fingerprint, which is never zero.
    fn bucket(&self, set: usize, tag: u8) -> (&[AtomicU32], u32) {
        let key = (set as u64) << 8 | u64::from(tag);
        let mixed = key.wrapping_mul(0xd6e8_feb8_6659_fd93);
        let buckets = self.cells.len() / BUCKET;
        let from = ((u128::from(mixed) * buckets as u128) >> 64) as usize * BUCKET;
        let print = ((mixed >> 8) as u32 | 1 << AGE_BITS) & !AGE;
        (&self.cells[from..from + BUCKET], print)
    }

    fn now(&self) -> u32 {
        self.added.load(Ordering::Relaxed) >> self.step & AGE
    }

    fn age(&self, cell: u32) -> u32 {
        self.now().wrapping_sub(cell) & AGE
    }

    // Relaxed throughout: a ghost is a hint, and a lost one costs one turn in the small queue.
    fn add(&self, set: usize, tag: u8) {
        let (bucket, print) = self.bucket(set, tag);
        let oldest = bucket
            .iter()
            .max_by_key(|cell| match cell.load(Ordering::Relaxed) {
                0 => u32::MAX,
                cell => self.age(cell),
            });
        if let Some(cell) = oldest {
            cell.store(print | self.now(), Ordering::Relaxed);
        }
        self.added.fetch_add(1, Ordering::Relaxed);
    }

    fn take(&self, set: usize, tag: u8) -> bool {
        let (bucket, print) = self.bucket(set, tag);
        let known = bucket.iter().find_map(|cell| {
            let found = cell.load(Ordering::Relaxed);
            (found & !AGE == print).then_some((cell, found))
        });
        known.is_some_and(|(cell, found)| {
            cell.store(0, Ordering::Relaxed);
            self.age(found) <= self.lifetime
        })
    }
}
