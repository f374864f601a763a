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
//! Queue, hand and mean cost lie in shards (see `shards`), each with the order of its own values.
//! The victim of a full cache comes from the shard of the new value, so no line is written by all
//! inserts. A shard without a victim passes the search on to the next one. At first all shards have
//! one queue together; they split and join with the number of values (see `joins`).
//!
//! Before the cache is full nothing is evicted, so the small queue would grow to all of it. Instead
//! its overflow moves to the main queue without a use. This bounds the tokens to an eighth of the
//! values. It also keeps part of a loop resident that is larger than the cache, of which the
//! original S3-FIFO keeps nothing. On other traces it costs less than half a percentage point.
//!
//! How long the small queue is, when a value is promoted and how many ghosts there are follows the
//! pattern of accesses (see `adapt`).
//!
//! A value that is costly to load, by the measured cost of its last loads, gets a second chance
//! from the hand after its uses are gone.
//!
//! A token names "the value of this generation in this way". A removed value leaves a dead token
//! behind. A value that is refreshed or overwritten keeps its generation, and therefore its token.
//! Queue and table never change in one step: every step may find a dead token or a missing value,
//! and no step relies on the opposite.
//!
//! Each resident value must be in one of the two queues, or it would never be evicted. A thread
//! that has taken a token out of the queue therefore goes on until the value is promoted, is
//! evicted or has left. A promotion is a bit in `control` of the set and not a mark of the entry,
//! so it belongs to the way whatever entry a refresh or an overwrite puts there at that moment.

use std::ops::Range;

use crate::protocol::adapt::Adaptive;
use crate::protocol::drop_later::DropLater;
use crate::protocol::entries::Entries;
use crate::protocol::entry::Entry;
use crate::protocol::ghosts::Ghosts;
use crate::protocol::permits::Permit;
use crate::protocol::removal::Cause;
use crate::protocol::shadows::{LARGEST_SHARE, SETTINGS, Setting};
use crate::protocol::shards::Shards;
use crate::protocol::table::{Membership, Place, Table, WAYS};
use crate::sync::{ArrayQueue, AtomicU64, AtomicUsize, Held, OnceLock, Ordering};
use crate::time::clock::Tick;

/// The length of one walk of the hand, in multiples of the sets that hold one value on average.
const WALK: usize = 32;

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

/// Distinguishes the values that were in the same way one after the other. A dead token that
/// matches by collision only costs a value one turn.
///
/// Five bits are a part of the hash that neither the set nor the tag has. So the three together
/// name a key well enough for ghosts and shadows. The other bits are from the time.
pub type Generation = u8;

const OF_HASH: Generation = 31;

/// Derived from the arguments, because all inserts would write the cache line of a counter.
pub fn generation(hash: u64, now: Tick) -> Generation {
    // The coarse clock moves in steps of some milliseconds, which are some 2^20 ticks.
    Table::<()>::rest_of(hash) & OF_HASH | ((now >> 20) as Generation) << OF_HASH.trailing_ones()
}

#[derive(Clone, Copy)]
pub(super) struct QueueToken {
    place: Place,
    generation: Generation,
}

pub struct Queues {
    pub shards: Shards,
    /// The logarithm of the number of shards that have a queue together (see `joins`).
    pub(super) joined: AtomicU64,
    /// By the first shard of each queue.
    pub(super) queues: Box<[Queue]>,
    /// From the first eviction on, as the shadows of `adaptive`.
    ghosts: OnceLock<Ghosts>,
    pub adaptive: Adaptive,
    capacity: usize,
}

/// The queues of one shard.
#[repr(align(128))]
pub(super) struct Queue {
    pub(super) small: ArrayQueue<QueueToken>,
    /// The next way of the hand, counted from the first one of the first shard.
    hand: AtomicUsize,
    mean_cost: AtomicU64,
    /// The largest share of the small queue: that of a shard which holds a quarter more values than
    /// its part of the capacity, because the keys do not spread evenly.
    largest_share: usize,
}

impl Queues {
    pub fn new(capacity: usize, shards: Shards) -> Self {
        let queues = Queues {
            shards,
            joined: AtomicU64::new(shards.number().ilog2().into()),
            queues: (0..shards.number())
                .map(|_| Queue::new(capacity.div_ceil(shards.number())))
                .collect(),
            ghosts: OnceLock::new(),
            adaptive: Adaptive::new(),
            capacity,
        };
        // A model does not see the order that a `OnceLock` makes.
        if cfg!(all(loom, feature = "loom")) {
            queues.prepare();
        }
        queues
    }

    /// Allocates what only eviction needs, so that a cache that never fills does without it. No
    /// thread waits: if two come at once, each makes its own, and one of these is used.
    fn prepare(&self) {
        if self.ghosts.get().is_none() {
            self.adaptive.start(self.capacity);
            let _ = self.ghosts.set(Ghosts::new(self.capacity));
        }
    }

    /// The queue of a shard, with all the shards that have it.
    fn group(&self, shard: usize) -> Group<'_> {
        // Relaxed: a thread may use the queue from before a split at any time.
        self.group_under(self.joined.load(Ordering::Relaxed), shard)
    }

    fn group_under(&self, joined: u64, shard: usize) -> Group<'_> {
        let (first, number) = (shard >> joined << joined, 1 << joined);
        Group {
            queue: &self.queues[first],
            shards: first..first + number,
            joined,
        }
    }

    fn group_of(&self, place: Place) -> Group<'_> {
        self.group(self.shards.of(place.set()))
    }
}

/// A queue and its shards.
pub(super) struct Group<'a> {
    queue: &'a Queue,
    shards: Range<usize>,
    pub(super) joined: u64,
}

impl Queue {
    fn new(capacity: usize) -> Self {
        let largest_share = ((capacity + capacity / 4) / LARGEST_SHARE).max(1);
        Queue {
            small: ArrayQueue::new(largest_share + SLACK),
            hand: AtomicUsize::new(0),
            mean_cost: AtomicU64::new(0),
            largest_share,
        }
    }

    /// How many of the resident values of this shard belong in the small queue.
    fn share(&self, resident: usize, setting: Setting) -> usize {
        (resident / setting.small).clamp(1, self.largest_share)
    }

    // Relaxed, by load and store: a cost that is lost to another thread changes the mean by nearly
    // nothing.
    fn count_cost(&self, cost: Tick) {
        if cost > 0 {
            let old = self.mean_cost.load(Ordering::Relaxed);
            let mean = match old {
                0 => cost,
                mean => mean - mean / MEAN_OVER + cost / MEAN_OVER,
            };
            if mean != old {
                self.mean_cost.store(mean, Ordering::Relaxed);
            }
        }
    }

    fn is_costly(&self, cost: Tick) -> bool {
        cost > COSTLY * self.mean_cost.load(Ordering::Relaxed)
    }

    /// Takes one use off a promoted value, or its second chance; false if it has neither.
    fn spares<K, V>(&self, entry: &Entry<K, V>) -> bool {
        entry.spend_use() || self.is_costly(entry.times().cost()) && entry.take_second_chance()
    }
}

impl<K, V> Entries<K, V> {
    /// Enqueues a value that has just become resident.
    pub fn enqueue(&self, place: Place, entry: &Entry<K, V>) {
        let group = self.queues.group_of(place);
        let queue = group.queue;
        queue.count_cost(entry.times().cost());
        let token = QueueToken {
            place,
            generation: entry.generation(),
        };
        let resident = self.values_in(&group);
        self.split_or_join(&group, resident);
        let setting = self.queues.adaptive.setting();
        let (name, all) = (
            self.name_of(place, entry),
            self.values_in_all(&group, resident),
        );
        let ghosts = self.queues.ghosts.get();
        if ghosts.is_some_and(|ghosts| ghosts.take(name, all, setting.ghosts)) {
            while let Some((entry, seen)) = self.value_of(token) {
                if self.promote(place, &entry, seen) {
                    break;
                }
            }
            return self.observe(place, entry, all);
        }
        // Before the cache is full nothing is evicted. The oldest value moves on anyway, so that
        // the queue stays short.
        if let Some(oldest) = queue.small.force_push(token) {
            self.move_on(oldest);
        }
        // Two, so that a queue that is too long for the values resident now becomes shorter.
        let longest = queue.share(resident, setting) + SLACK;
        for _ in 0..2 {
            let oldest = (queue.small.len() > longest).then(|| queue.small.pop());
            if let Some(oldest) = oldest.flatten() {
                self.move_on(oldest);
            }
        }
        self.gather(group.joined);
        self.observe(place, entry, all);
    }

    /// The name of a key without the key. Two keys hardly ever have the same one.
    pub fn name_of(&self, place: Place, entry: &Entry<K, V>) -> u64 {
        let (tag, rest) = (self.table.tag_at(place), entry.generation() & OF_HASH);
        (place.set() as u64) << 16 | u64::from(tag) << 8 | u64::from(rest)
    }

    /// How many values the shards of a queue have.
    fn values_in(&self, group: &Group) -> usize {
        let shards = group.shards.clone();
        shards.map(|shard| self.limit.entries_in(shard)).sum()
    }

    /// How many values there are, if each queue has as many as this one.
    fn values_in_all(&self, group: &Group, resident: usize) -> usize {
        resident * (self.queues.shards.number() >> group.joined)
    }

    /// Moves the value of a token from the small queue into the main queue without a use.
    pub(super) fn move_on(&self, token: QueueToken) {
        // Repeats only if another value of this set came, left or was promoted.
        while let Some((_, seen)) = self.value_of(token) {
            if self.table.promote(token.place, seen) {
                break;
            }
        }
    }

    /// Evicts one value by S3-FIFO, from this shard or the next one that has a victim, and passes
    /// its permit to the caller; `None` if it found no value.
    pub fn evict_by_queue(
        &self,
        shard: usize,
        now: Tick,
        drop_later: &mut DropLater<Entry<K, V>>,
    ) -> Option<Permit<'_>> {
        self.queues.prepare();
        let shards = self.queues.shards.number();
        // Once, so that a split on the way hides no queue.
        let joined = self.queues.joined.load(Ordering::Relaxed);
        (0..shards).step_by(1 << joined).find_map(|n| {
            let group = self.queues.group_under(joined, (shard + n) % shards);
            self.evict_in(&group, now, drop_later)
        })
    }

    fn evict_in(
        &self,
        group: &Group,
        now: Tick,
        drop_later: &mut DropLater<Entry<K, V>>,
    ) -> Option<Permit<'_>> {
        let queue = group.queue;
        // A share of the resident values, not of the capacity, because the weight limit may allow
        // far fewer values.
        let resident = self.values_in(group);
        let setting = self.queues.adaptive.setting();
        let share = queue.share(resident, setting);
        // While the small queue has its share, the victim comes from it. Its promoted values make
        // the main queue longer.
        while queue.small.len() >= share {
            let Some(token) = queue.small.pop() else {
                break;
            };
            if let Some(freed) = self.evict_token(group, resident, token, setting, now, drop_later)
            {
                return Some(freed);
            }
        }
        if let Some(freed) = self.evict_by_hand(group, resident, now, drop_later) {
            return Some(freed);
        }
        std::iter::from_fn(|| queue.small.pop()).find_map(|token| {
            self.evict_token(group, resident, token, SETTINGS[0], now, drop_later)
        })
    }

    /// Promotes or evicts the value of a token from this small queue; returns its permit if it was
    /// evicted.
    fn evict_token(
        &self,
        group: &Group,
        resident: usize,
        token: QueueToken,
        setting: Setting,
        now: Tick,
        drop_later: &mut DropLater<Entry<K, V>>,
    ) -> Option<Permit<'_>> {
        // Repeats only if another value of this set came, left or was promoted.
        while let Some((entry, seen)) = self.value_of(token) {
            if entry.uses() >= setting.promote_at && self.is_servable(&entry, now) {
                let moved = match setting.promote_at {
                    0 => self.pass_on(token.place, &entry, seen),
                    _ => self.promote(token.place, &entry, seen),
                };
                match moved {
                    true => return None,
                    false => continue,
                }
            }
            let name = self.name_of(token.place, &entry);
            if let Some(freed) = self.evict(token.place, entry, seen, now, drop_later) {
                let all = self.values_in_all(group, resident);
                if let Some(ghosts) = self.queues.ghosts.get() {
                    ghosts.add(name, all, setting.ghosts);
                }
                return Some(freed);
            }
        }
        None
    }

    /// Moves the hand at most once round the sets of its queue. If every value on the way was
    /// spared, the caller evicts the least used value of its own set.
    fn evict_by_hand(
        &self,
        group: &Group,
        resident: usize,
        now: Tick,
        drop_later: &mut DropLater<Entry<K, V>>,
    ) -> Option<Permit<'_>> {
        let queue = group.queue;
        let range = self.queues.shards.sets(group.shards.clone());
        let sets = range.len();
        // Two threads may walk over the same ways at once. The values there then lose two uses.
        let hand = queue.hand.load(Ordering::Relaxed);
        let (first_set, first_way) = (hand / WAYS, hand % WAYS);
        // A full table never reaches this bound. In a nearly empty one, because the weight limit
        // allows few values, a walk must not pass all sets only to find that no value is promoted.
        let longest = match resident {
            0 => 0,
            _ => sets.min((sets / resident + 1) * WALK),
        };
        for step in 0..=longest {
            let places = (self.table).promoted_in(range.start + (first_set + step) % sets);
            let ahead = |place: &Place| match step {
                0 => place.way() >= first_way,
                _ if step == sets => place.way() < first_way,
                _ => true,
            };
            for place in places.filter(ahead) {
                let Some((entry, seen)) = self.table.seen_at(place) else {
                    continue;
                };
                if entry.is_loading() || !seen.is_promoted(place) {
                    continue;
                }
                if self.is_servable(&entry, now) && queue.spares(&entry) {
                    continue;
                }
                if let Some(freed) = self.evict(place, entry, seen, now, drop_later) {
                    let next = (place.set() - range.start) * WAYS + place.way() + 1;
                    queue.hand.store(next % (sets * WAYS), Ordering::Relaxed);
                    return Some(freed);
                }
            }
        }
        let next = (first_set + longest) % sets * WAYS;
        queue.hand.store(next, Ordering::Relaxed);
        None
    }

    /// Moves a value into the main queue, where its uses are counted anew; false if its set has
    /// changed since it was seen.
    fn promote(&self, place: Place, entry: &Entry<K, V>, seen: Membership) -> bool {
        let promoted = self.table.promote(place, seen);
        if promoted {
            entry.set_uses(0);
        }
        promoted
    }

    /// Moves a value into the main queue with its uses, to stay there for a round; false as in
    /// [`promote`](Self::promote).
    ///
    /// The hand reaches a value after half a round on average. So the values in the first half of
    /// the round get one use more, and the average is one round.
    fn pass_on(&self, place: Place, entry: &Entry<K, V>, seen: Membership) -> bool {
        let group = self.queues.group_of(place);
        let sets = self.queues.shards.sets(group.shards);
        let ways = sets.len() * WAYS;
        // Before a split the hand was in a larger range.
        let hand = group.queue.hand.load(Ordering::Relaxed) % ways;
        let way = (place.set() - sets.start) * WAYS + place.way();
        let ahead = (way + ways - hand) % ways;
        let promoted = self.table.promote(place, seen);
        if promoted && ahead < ways / 2 {
            entry.set_uses(entry.uses() + 1);
        }
        promoted
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
        let cause = Cause::of(&entry, &self.groups, now);
        // Drop the guard first, so that the remover need not count this reference when it empties
        // the way.
        drop(entry);
        let removed = self.table.remove_seen(place, seen)?;
        if removed.is_loading() {
            // This was a tombstone. The thread that put it there gives the permit of the value
            // back.
            return None;
        }
        let shard = self.queues.shards.of(place.set());
        let permit = Permit::inherit(&self.limit, shard, removed.weight());
        self.removals.push(&removed, cause);
        drop_later.add(removed);
        Some(permit)
    }

    /// The value of a token, if it is still resident and not promoted already.
    fn value_of(&self, token: QueueToken) -> Option<(Held<Entry<K, V>>, Membership)> {
        let (held, seen) = self.table.seen_at(token.place)?;
        let waits = !held.is_loading() && !seen.is_promoted(token.place);
        (waits && held.generation() == token.generation).then_some((held, seen))
    }
}
