//! S3-FIFO (Yang et al., "FIFO queues are all you need for cache eviction", SOSP 2023) over the
//! slot table.
//!
//! New values enter the *small* queue, which is a queue of tokens. A value that is used again
//! before its token reaches the head is promoted. The others are evicted, and their fingerprints
//! stay for a while as *ghosts*. A key that comes back as a ghost is promoted at once.
//!
//! Promoted values are in the *main* queue, which is the table itself. A hand moves round its ways,
//! takes one use off each promoted value that it meets, and evicts the first one without uses. A
//! queue with reinsertion is a clock; this one needs no memory for its order.
//!
//! Before the cache is full nothing is evicted, so the small queue would grow to all of it. Instead
//! its overflow moves to the main queue without a use. This bounds the tokens to an eighth of the
//! values. It also keeps part of a loop resident that is larger than the cache, of which the
//! original S3-FIFO keeps nothing. On other traces it costs less than half a percentage point.
//!
//! A value that is costly to load, by the measured cost of its last loads, gets a second chance
//! from the hand after its uses are gone.
//!
//! A token names "the value of this generation in this way". A removed value leaves a dead token
//! behind. A value that is refreshed or overwritten keeps its generation and its eviction state,
//! and therefore its token. Queue and table never change in one step: every step may find a dead
//! token or a missing value, and no step relies on the opposite.

use crate::protocol::drop_later::DropLater;
use crate::protocol::entries::Entries;
use crate::protocol::entry::Entry;
use crate::protocol::eviction::Permit;
use crate::protocol::removal::Cause;
use crate::protocol::table::{Membership, Place, WAYS};
use crate::sync::{ArrayQueue, AtomicU16, AtomicU64, AtomicUsize, Held, Ordering};
use crate::time::clock::Tick;

/// The small queue holds one value in this many.
const SMALL_SHARE: usize = 8;

/// A value with at least this many uses is promoted.
const PROMOTE_AT: u8 = 2;

/// The number of values that one eviction spares. The next value is evicted whatever its uses.
const PATIENCE: usize = 16;

/// The length of one walk of the hand, in multiples of the sets that hold one value on average.
const WALK: usize = 2 * PATIENCE;

/// A value is costly if its load costs more than this many times the mean. Each cost moves the mean
/// by a fraction of itself.
const COSTLY: u64 = 2;
const MEAN_OVER: u64 = 64;

/// By how much the small queue may exceed its share.
const SLACK: usize = if cfg!(all(loom, feature = "loom")) {
    2
} else {
    16
};

/// Distinguishes the generations of a key in its way, with few collisions. A dead token that
/// matches by collision only costs a value one turn.
pub type Generation = u8;

/// Derived from the arguments, because all inserts would write the cache line of a counter.
pub fn generation(hash: u64, now: Tick) -> Generation {
    // The coarse clock moves in steps of some milliseconds, which are some 2^20 ticks.
    (hash ^ (now >> 20)) as Generation
}

#[derive(Clone, Copy)]
struct QueueToken {
    place: Place,
    generation: Generation,
}

/// How many of this many values belong in the small queue.
fn small_share(values: usize) -> usize {
    (values / SMALL_SHARE).max(1)
}

pub struct Queues {
    small: ArrayQueue<QueueToken>,
    hand: AtomicUsize,
    ghosts: Ghosts,
    mean_cost: AtomicU64,
}

impl Queues {
    pub fn new(capacity: usize) -> Self {
        Queues {
            small: ArrayQueue::new(small_share(capacity) + SLACK),
            hand: AtomicUsize::new(0),
            ghosts: Ghosts::new(capacity),
            mean_cost: AtomicU64::new(0),
        }
    }

    // Relaxed, by load and store: a cost that is lost to another thread changes the mean by nearly
    // nothing.
    fn count_cost(&self, cost: Tick) {
        if cost > 0 {
            let mean = match self.mean_cost.load(Ordering::Relaxed) {
                0 => cost,
                mean => mean - mean / MEAN_OVER + cost / MEAN_OVER,
            };
            self.mean_cost.store(mean, Ordering::Relaxed);
        }
    }

    fn is_costly(&self, cost: Tick) -> bool {
        cost > COSTLY * self.mean_cost.load(Ordering::Relaxed)
    }
}

impl<K, V> Entries<K, V> {
    /// Enqueues a value that has just become resident.
    pub fn enqueue(&self, place: Place, entry: &Entry<K, V>) {
        let queues = &self.queues;
        queues.count_cost(entry.times.cost());
        let token = QueueToken {
            place,
            generation: entry.generation,
        };
        let (tag, resident) = (self.table.tag_at(place), self.limit.entries());
        if queues.ghosts.take(place.set(), tag, resident) {
            return self.promote(token, entry);
        }
        // Before the cache is full nothing is evicted. The oldest value moves on anyway, so that
        // the queue stays short.
        if let Some(oldest) = queues.small.force_push(token) {
            self.move_on(oldest);
        }
        // Two, so that a queue that is too long for the values resident now becomes shorter.
        let longest = small_share(resident) + SLACK;
        for _ in 0..2 {
            let oldest = (queues.small.len() > longest).then(|| queues.small.pop());
            if let Some(oldest) = oldest.flatten() {
                self.move_on(oldest);
            }
        }
    }

    /// Moves the value of a token from the small queue into the main queue without a use.
    fn move_on(&self, token: QueueToken) {
        if let Some((entry, _)) = self.value_of(token) {
            self.mark(token, &entry, Entry::move_on);
        }
    }

    /// Evicts one value by S3-FIFO and passes its permit to the caller; `None` if it found no
    /// value.
    pub fn evict_by_queue(
        &self,
        now: Tick,
        drop_later: &mut DropLater<Entry<K, V>>,
    ) -> Option<Permit<'_>> {
        let queues = &self.queues;
        // A share of the resident values, not of the capacity, because the weight limit may allow
        // far fewer values.
        let share = small_share(self.limit.entries());
        // While the small queue has its share, the victim comes from it. Its promoted values make
        // the main queue longer.
        while queues.small.len() >= share {
            let Some(token) = queues.small.pop() else {
                break;
            };
            if let Some(freed) = self.evict_token(token, now, drop_later) {
                return Some(freed);
            }
        }
        if let Some(freed) = self.evict_by_hand(now, drop_later) {
            return Some(freed);
        }
        std::iter::from_fn(|| queues.small.pop())
            .find_map(|token| self.evict_token(token, now, drop_later))
    }

    /// Promotes or evicts the value of a token from the small queue; returns its permit if it was
    /// evicted.
    fn evict_token(
        &self,
        token: QueueToken,
        now: Tick,
        drop_later: &mut DropLater<Entry<K, V>>,
    ) -> Option<Permit<'_>> {
        // Repeats only if a key came to this set or left it.
        while let Some((entry, seen)) = self.value_of(token) {
            if entry.uses() >= PROMOTE_AT && entry.is_servable(now) {
                self.promote(token, &entry);
                return None;
            }
            let tag = self.table.tag_at(token.place);
            if let Some(freed) = self.evict(token.place, entry, seen, now, drop_later) {
                let resident = self.limit.entries();
                self.queues.ghosts.add(token.place.set(), tag, resident);
                return Some(freed);
            }
        }
        None
    }

    /// Moves the hand at most once round the table. If every value on the way was spared, the
    /// caller evicts the least used value of its own set.
    fn evict_by_hand(
        &self,
        now: Tick,
        drop_later: &mut DropLater<Entry<K, V>>,
    ) -> Option<Permit<'_>> {
        let sets = self.table.sets();
        // Two threads may walk over the same ways at once. The values there then lose two uses.
        let hand = self.queues.hand.load(Ordering::Relaxed);
        let (first_set, first_way) = (hand / WAYS, hand % WAYS);
        let mut spared = 0;
        // A full table never reaches this bound. In a nearly empty table, because the weight limit
        // allows few values, a walk must not pass the whole table only to find that no value is
        // promoted.
        let longest = sets.min((sets / self.limit.entries().max(1) + 1) * WALK);
        for step in 0..=longest {
            let places = self.table.occupied_in((first_set + step) % sets);
            let ahead = |place: &Place| match step {
                0 => place.way() >= first_way,
                _ if step == sets => place.way() < first_way,
                _ => true,
            };
            for place in places.filter(ahead) {
                let Some((entry, seen)) = self.table.seen_at(place) else {
                    continue;
                };
                if entry.is_loading() || !entry.is_promoted() {
                    continue;
                }
                if spared < PATIENCE && entry.is_servable(now) && self.spares(&entry) {
                    spared += 1;
                } else if let Some(freed) = self.evict(place, entry, seen, now, drop_later) {
                    let next = place.set() * WAYS + place.way() + 1;
                    self.queues
                        .hand
                        .store(next % (sets * WAYS), Ordering::Relaxed);
                    return Some(freed);
                }
            }
        }
        let next = (first_set + longest) % sets * WAYS;
        self.queues.hand.store(next, Ordering::Relaxed);
        None
    }

    /// Moves a value into the main queue, where its uses are counted anew.
    ///
    /// In a real queue a value would be examined after one round. The hand reaches it after half a
    /// round on average. So the values in the first half of the round get one more round, and the
    /// average is one round again.
    fn promote(&self, token: QueueToken, entry: &Entry<K, V>) {
        let QueueToken { place, .. } = token;
        let ways = self.table.sets() * WAYS;
        let hand = self.queues.hand.load(Ordering::Relaxed);
        let ahead = (place.set() * WAYS + place.way() + ways - hand) % ways;
        let uses = u8::from(ahead < ways / 2);
        self.mark(token, entry, |entry| entry.promote(uses));
    }

    /// Takes one use off a promoted value, or its second chance; false if it has neither.
    fn spares(&self, entry: &Entry<K, V>) -> bool {
        let uses = entry.uses();
        match uses {
            0 => self.queues.is_costly(entry.times.cost()) && entry.take_second_chance(),
            _ => {
                entry.set_uses(uses - 1);
                true
            }
        }
    }

    /// Removes a value, or its successor, if its set has not changed since it was seen; passes the
    /// permit to the caller.
    pub fn evict(
        &self,
        place: Place,
        entry: Held<Entry<K, V>>,
        seen: Membership,
        now: Tick,
        drop_later: &mut DropLater<Entry<K, V>>,
    ) -> Option<Permit<'_>> {
        let cause = Cause::of(&entry, now);
        // Drop the guard first, so that the remover need not count this reference when it empties
        // the way.
        drop(entry);
        let removed = self.table.remove_seen(place, seen)?;
        if removed.is_loading() {
            // This was a tombstone. The thread that put it there gives the permit of the value
            // back.
            return None;
        }
        let permit = Permit::inherit(&self.limit, removed.weight);
        self.removals.push(&removed, cause);
        drop_later.add(removed);
        Some(permit)
    }

    /// The value of a token, if it is still resident and not promoted already.
    fn value_of(&self, token: QueueToken) -> Option<(Held<Entry<K, V>>, Membership)> {
        let (held, seen) = self.table.seen_at(token.place)?;
        let live = !held.is_loading() && !held.is_promoted() && held.generation == token.generation;
        live.then_some((held, seen))
    }

    /// Moves the value of a token into the main queue, or its successor if that has replaced it.
    fn mark(&self, token: QueueToken, entry: &Entry<K, V>, put: impl Fn(&Entry<K, V>) -> bool) {
        let mut done = put(entry);
        while !done {
            done = self.value_of(token).is_none_or(|(entry, _)| put(&entry));
        }
    }

    /// A successor that is in the table takes over the eviction state of a value in the queues.
    ///
    /// The successor was created with the eviction state known when its load ended. A promotion
    /// since then has used up the token.
    pub fn hand_over(&self, place: Place, old: &Entry<K, V>, new: &Entry<K, V>) {
        if old.retire() && !new.is_promoted() {
            let generation = new.generation;
            let token = QueueToken { place, generation };
            self.mark(token, new, |entry| entry.promote(0));
        }
    }
}

/// Fingerprints of keys that left the small queue, as many as there are resident values, in buckets
/// that each forget their oldest. Older ghosts would promote keys that are hardly used.
///
/// A key is identified by its set and its tag. One ghost in a hundred is mistaken for another, but
/// no more memory is needed.
struct Ghosts {
    cells: Box<[AtomicU16]>,
}

/// Cells in a bucket.
///
/// One under the model checker, because every order of every cell would be too much to explore.
const BUCKET: usize = if cfg!(all(loom, feature = "loom")) {
    1
} else {
    16
};

impl Ghosts {
    fn new(capacity: usize) -> Self {
        let cells = capacity.next_multiple_of(BUCKET);
        Ghosts {
            cells: (0..cells).map(|_| AtomicU16::new(0)).collect(),
        }
    }

    /// The cells in use of a key's bucket, and its fingerprint, which is never zero.
    fn bucket(&self, set: usize, tag: u8, resident: usize) -> (&[AtomicU16], u16) {
        let key = (set as u64) << 8 | u64::from(tag);
        let mixed = key.wrapping_mul(0xd6e8_feb8_6659_fd93);
        let cells = self.cells.len();
        // With few entries one bucket in 2^n is in use, and stands for those after it. So half of
        // the ghosts stay known when n changes.
        let n = (cells / resident.clamp(1, cells)).ilog2();
        let number = ((u128::from(mixed) * (cells / BUCKET) as u128) >> 64) as usize >> n << n;
        let used = (BUCKET * resident).div_ceil(cells >> n).clamp(1, BUCKET);
        let bucket = &self.cells[number * BUCKET..];
        (&bucket[..used], (mixed >> 8) as u16 | 1)
    }

    // Relaxed throughout: a ghost is a hint, and a lost ghost costs one turn in the small queue.
    fn add(&self, set: usize, tag: u8, resident: usize) {
        let (bucket, print) = self.bucket(set, tag, resident);
        bucket.iter().fold(print, |newer, cell| {
            let older = cell.load(Ordering::Relaxed);
            cell.store(newer, Ordering::Relaxed);
            older
        });
    }

    fn take(&self, set: usize, tag: u8, resident: usize) -> bool {
        let (bucket, print) = self.bucket(set, tag, resident);
        let known = bucket
            .iter()
            .find(|cell| cell.load(Ordering::Relaxed) == print);
        known
            .inspect(|cell| cell.store(0, Ordering::Relaxed))
            .is_some()
    }
}
