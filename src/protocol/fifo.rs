//! S3-FIFO (Yang et al., "FIFO queues are all you need for cache eviction", SOSP 2023) over the slot table.
//!
//! New values enter the *small* queue, which is a queue of tokens. Those used again before their token reaches the head are
//! promoted; the others leave, and their fingerprints stay for a while as *ghosts*. A key that comes back as a ghost is promoted at once.
//!
//! Promoted values are in the *main* queue, which is the table itself: a hand goes round its ways, takes one use off each promoted value it
//! meets, and evicts one that has none left. A queue with reinsertion is a clock; this one needs no memory for its order.
//!
//! Before the cache is full nothing is evicted, and the small queue would grow to all of it. It gives its overflow to the main queue instead,
//! unproven. That bounds the tokens to an eighth of the values. It also keeps part of a loop resident that is larger than the cache,
//! where S3-FIFO proper keeps nothing, and costs less than half a point elsewhere.
//!
//! A value that is dear to load, by the measured cost of its last loads, is spared by the hand once more than its uses say.
//!
//! A token says "the value that lives in this way under this generation". A value that was removed leaves a dead token behind, one that
//! was refreshed or overwritten keeps its generation, its standing and so its token. Queue and table never change together: every step
//! may find a token dead or a value gone, and none relies on the opposite.

use crate::protocol::drop_later::DropLater;
use crate::protocol::entries::Entries;
use crate::protocol::entry::Entry;
use crate::protocol::eviction::Permit;
use crate::protocol::removal::Cause;
use crate::protocol::table::{Membership, Place, WAYS};
use crate::sync::{ArrayQueue, AtomicU16, AtomicU64, AtomicUsize, Held, Ordering};
use crate::time::clock::Tick;

/// The small queue holds one value in so many.
const SMALL_SHARE: usize = 8;

/// A value with at least this many uses is promoted.
const PROMOTE_AT: u8 = 2;

/// Values one eviction spares before it takes the next one whatever its uses.
const PATIENCE: usize = 16;

/// How many times the sets that hold one value on average the hand passes in one eviction.
const WALK: usize = 2 * PATIENCE;

/// A value is dear if its load costs more than this many times the mean; the mean moves by a part of each cost.
const COSTLY: u64 = 2;
const MEAN_OVER: u64 = 64;

/// How much longer than its share the small queue may be.
const SLACK: usize = if cfg!(all(loom, feature = "loom")) {
    2
} else {
    16
};

/// Names one stay of a key in its way, nearly always; a dead token that matches all the same only costs a value a turn.
pub type Generation = u8;

/// Made of what is at hand: a counter would be a line that all inserts write.
pub fn generation(hash: u64, now: Tick) -> Generation {
    // The coarse clock moves in steps of some milliseconds, which are some 2^20 ticks.
    (hash ^ (now >> 20)) as Generation
}

#[derive(Clone, Copy)]
struct QueueToken {
    place: Place,
    generation: Generation,
}

/// How many of so many values the small queue holds.
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

    // Relaxed, by load and store: a cost that is lost to another thread's changes a mean by nothing.
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
    /// Queues a value that has just become resident.
    pub fn enrol(&self, place: Place, entry: &Entry<K, V>) {
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
        // Before the cache is full nothing is evicted: what has had its turn moves on all the same, so that the queue stays short.
        if let Some(oldest) = queues.small.force_push(token) {
            self.move_on(oldest);
        }
        // Two, so that the queue becomes shorter where it is too long for what is resident now.
        let longest = small_share(resident) + SLACK;
        for _ in 0..2 {
            let oldest = (queues.small.len() > longest).then(|| queues.small.pop());
            if let Some(oldest) = oldest.flatten() {
                self.move_on(oldest);
            }
        }
    }

    /// Puts the value of a token from the small queue into the main queue, unproven.
    fn move_on(&self, token: QueueToken) {
        if let Some((entry, _)) = self.value_of(token) {
            self.mark(token, &entry, Entry::move_on);
        }
    }

    /// Evicts one value by S3-FIFO, whose permit passes to the caller; `None` if it found none.
    pub fn evict_by_queue(
        &self,
        now: Tick,
        drop_later: &mut DropLater<Entry<K, V>>,
    ) -> Option<Permit<'_>> {
        let queues = &self.queues;
        // Of what is resident, not of the capacity: the weight may allow far fewer values.
        let share = small_share(self.limit.entries());
        // As long as the small queue has its share, the victim comes from there; its promoted ones make the main queue longer.
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

    /// Promotes or evicts the value of a token from the small queue; its permit if it left.
    fn evict_token(
        &self,
        token: QueueToken,
        now: Tick,
        drop_later: &mut DropLater<Entry<K, V>>,
    ) -> Option<Permit<'_>> {
        // Again only after a key came to this set or left it.
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

    /// Goes once round the table at most. Where every value on the way was spared, whoever asked takes the least used of its own set.
    fn evict_by_hand(
        &self,
        now: Tick,
        drop_later: &mut DropLater<Entry<K, V>>,
    ) -> Option<Permit<'_>> {
        let sets = self.table.sets();
        // Two threads may go over the same ground at once; the values there then lose two uses.
        let hand = self.queues.hand.load(Ordering::Relaxed);
        let (first_set, first_way) = (hand / WAYS, hand % WAYS);
        let mut spared = 0;
        // In a full table this is never reached. In one that is nearly empty, because the weight
        // allows few values, a walk must not pass all of it to find that none is promoted.
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

    /// Puts a value into the main queue, where its uses count anew.
    ///
    /// In a queue it would be met after one round. The hand meets it after half a round on average; those that it would meet in the
    /// first half get one more round, so the average is one round again.
    fn promote(&self, token: QueueToken, entry: &Entry<K, V>) {
        let QueueToken { place, .. } = token;
        let ways = self.table.sets() * WAYS;
        let hand = self.queues.hand.load(Ordering::Relaxed);
        let ahead = (place.set() * WAYS + place.way() + ways - hand) % ways;
        let uses = u8::from(ahead < ways / 2);
        self.mark(token, entry, |entry| entry.promote(uses));
    }

    /// Takes a use off a promoted value, or its free turn; false if there is neither.
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

    /// Removes a value, or its successor, if its set has not changed since it was seen; the permit passes to the caller.
    fn evict(
        &self,
        place: Place,
        entry: Held<Entry<K, V>>,
        seen: Membership,
        now: Tick,
        drop_later: &mut DropLater<Entry<K, V>>,
    ) -> Option<Permit<'_>> {
        let cause = Cause::of(&entry, now);
        // Not held while it leaves, or whoever empties the way would have to count this reference.
        drop(entry);
        let removed = self.table.remove_seen(place, seen)?;
        if removed.is_loading() {
            // The value was about to leave without a successor, and who made it leave gives its permit back.
            return None;
        }
        let permit = Permit::inherit(&self.limit, removed.weight);
        self.removals.push(&removed, cause);
        drop_later.add(removed);
        Some(permit)
    }

    /// The value of a token, if it is still the resident one and not promoted already.
    fn value_of(&self, token: QueueToken) -> Option<(Held<Entry<K, V>>, Membership)> {
        let (held, seen) = self.table.seen_at(token.place)?;
        let live = !held.is_loading() && !held.is_promoted() && held.generation == token.generation;
        live.then_some((held, seen))
    }

    /// Puts the value of a token into the main queue, or its successor where that took its place meanwhile.
    fn mark(&self, token: QueueToken, entry: &Entry<K, V>, put: impl Fn(&Entry<K, V>) -> bool) {
        let mut done = put(entry);
        while !done {
            done = self.value_of(token).is_none_or(|(entry, _)| put(&entry));
        }
    }

    /// A successor that is in the table takes over the standing of a value in the queues.
    ///
    /// It was made with what was known when its load ended; a promotion since then has used up the token.
    pub fn hand_over(&self, place: Place, old: &Entry<K, V>, new: &Entry<K, V>) {
        if old.retire() && !new.is_promoted() {
            let generation = new.generation;
            let token = QueueToken { place, generation };
            self.mark(token, new, |entry| entry.promote(0));
        }
    }
}

/// Fingerprints of keys that left the small queue, as many as values are resident, in buckets that
/// each forget their oldest. Older ghosts would promote keys that are hardly used.
///
/// A key is its set and its tag: one ghost in a hundred is taken for another, and nothing else need be stored.
struct Ghosts {
    cells: Box<[AtomicU16]>,
}

/// Cells in a bucket.
///
/// Under the model checker there is one: every order of every cell would be too much.
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

    /// The cells of a key's bucket that are in use, and its fingerprint, which is never zero.
    fn bucket(&self, set: usize, tag: u8, resident: usize) -> (&[AtomicU16], u16) {
        let key = (set as u64) << 8 | u64::from(tag);
        let mixed = key.wrapping_mul(0xd6e8_feb8_6659_fd93);
        let cells = self.cells.len();
        // With few entries one bucket in 2^n is in use, and stands for those after it. So half
        // of the ghosts stay known when n changes.
        let n = (cells / resident.clamp(1, cells)).ilog2();
        let number = ((u128::from(mixed) * (cells / BUCKET) as u128) >> 64) as usize >> n << n;
        let used = (BUCKET * resident).div_ceil(cells >> n).clamp(1, BUCKET);
        let bucket = &self.cells[number * BUCKET..];
        (&bucket[..used], (mixed >> 8) as u16 | 1)
    }

    // Relaxed throughout: a ghost is a hint, and a lost one costs one turn in the small queue.
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
