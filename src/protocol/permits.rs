//! The limits on entries and weight, and the permits under them.
//!
//! Every resident value holds a permit for one entry and its weight. A value takes its permit
//! before it becomes visible, and its remover gives the permit back or passes it on. So both limits
//! hold at every moment (placeholders of loads hold no permit).
//!
//! Each shard of the table has a part of both limits. A permit comes out of the part of its key's
//! shard. If too little is free there, the free parts of other shards move to it. So a cache is
//! full before it evicts anything, but for a free part that is on its way at that moment, and one
//! value may be as heavy as the whole cache. What is free is never written while each insert uses
//! the permit of its victim.
//!
//! Races that this must survive:
//!
//! 1. Two threads take the last free part. One exchange decides.
//! 2. A free part moves between shards, or a permit does. It leaves the one before it enters the
//!    other, so the limit holds, and no part is counted twice. A thread that finds too little
//!    meanwhile evicts a value or looks again.
//! 3. Two heavy values need what several shards have free, and each of the two threads moves it to
//!    its own shard. They could take it from one another for ever. So the last attempt of a thread
//!    that finds nothing to evict gathers it in the first shard, whatever the key.
//! 4. A thread finds a shard empty while another one gives a permit back to it. The hint that the
//!    shard has room may get lost then. Inserts of that shard use the room nevertheless, and so
//!    does the last attempt, which does not rely on hints.

use crate::protocol::compact::Weight;
use crate::protocol::control::bits;
use crate::protocol::shards::Shards;
use crate::sync::{AtomicU64, Ordering};

pub struct Limit {
    entries: Count,
    weight: Count,
}

/// A limit, in parts.
struct Count {
    limit: u64,
    /// The shards with more room than they keep for themselves, as bits. In a full cache no bit is
    /// set, and no thread writes this line.
    roomy: AtomicU64,
    /// The room that a shard keeps for itself.
    keeps: u64,
    parts: Box<[Part]>,
}

/// The part of one shard.
#[repr(align(128))]
struct Part {
    /// The room that no permit holds. A thread subtracts before it adds elsewhere, and never below
    /// zero.
    free: AtomicU64,
    /// The room that the permits of this shard hold. It is not derived from what is free, because
    /// a thread that adds the parts up while free room moves would miss values that are resident.
    taken: AtomicU64,
}

// Relaxed throughout: the counts guard no other memory.
impl Count {
    fn new(limit: u64, keeps: u64, shards: Shards) -> Self {
        let number = shards.number() as u64;
        let parts: Box<[Part]> = (0..number)
            .map(|shard| limit / number + u64::from(shard < limit % number))
            .map(|part| Part {
                free: AtomicU64::new(part),
                taken: AtomicU64::new(0),
            })
            .collect();
        Count {
            limit,
            roomy: AtomicU64::new(u64::MAX >> (u64::BITS as u64 - number)),
            keeps,
            parts,
        }
    }

    /// The free room of a shard.
    fn free(&self, shard: usize) -> u64 {
        self.parts[shard].free.load(Ordering::Relaxed)
    }

    /// The room that the permits of a shard hold.
    fn taken_in(&self, shard: usize) -> u64 {
        self.parts[shard].taken.load(Ordering::Relaxed)
    }

    /// The room that all permits hold; never more than the limit.
    fn taken(&self) -> u64 {
        let shards = 0..self.parts.len();
        // A permit that moves to another shard at this moment may be counted twice.
        let taken = shards.fold(0u64, |sum, shard| sum.saturating_add(self.taken_in(shard)));
        taken.min(self.limit)
    }

    /// Takes a permit for a key of a shard.
    #[inline]
    fn take(&self, shard: usize, more: u64) -> bool {
        more == 0
            || self.take_from(shard, more)
            || (self.draw(shard, more) && self.take_from(shard, more))
    }

    fn take_from(&self, shard: usize, more: u64) -> bool {
        let taken = self.subtract(shard, |free| (more <= free).then_some(more)) == more;
        if taken {
            self.count(shard, more);
        }
        taken
    }

    fn count(&self, shard: usize, taken: u64) {
        self.parts[shard].taken.fetch_add(taken, Ordering::Relaxed);
    }

    fn discount(&self, shard: usize, taken: u64) {
        self.parts[shard].taken.fetch_sub(taken, Ordering::Relaxed);
    }

    /// Subtracts from what is free in a shard; returns how much. `pick` gets what is free.
    fn subtract(&self, shard: usize, pick: impl Fn(u64) -> Option<u64>) -> u64 {
        let part = &self.parts[shard].free;
        let mut free = part.load(Ordering::Relaxed);
        while let Some(less) = pick(free) {
            let left = free - less;
            match part.compare_exchange(free, left, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return less,
                Err(now) => free = now,
            }
        }
        0
    }

    #[inline]
    fn release(&self, shard: usize, less: u64) {
        if less > 0 {
            self.discount(shard, less);
            self.put(shard, less);
        }
    }

    /// Adds to what is free in a shard.
    fn put(&self, shard: usize, less: u64) {
        let free = self.parts[shard].free.fetch_add(less, Ordering::Relaxed) + less;
        self.show_room(shard, free);
    }

    fn show_room(&self, shard: usize, free: u64) {
        let bit = 1 << shard;
        if free > self.keeps && self.roomy.load(Ordering::Relaxed) & bit == 0 {
            self.roomy.fetch_or(bit, Ordering::Relaxed);
        }
    }

    /// Moves what a shard lacks from the shards with room; false if they have too little.
    ///
    /// Then what they have goes to the first shard, so that the next thread looks at one only.
    fn draw(&self, shard: usize, more: u64) -> bool {
        let own = 1 << shard;
        let mut roomy = self.roomy.load(Ordering::Relaxed) & !own;
        if roomy == 0 {
            return false;
        }
        let mut found = self.free(shard);
        for other in bits(roomy) {
            let (free, bit) = (self.free(other), 1 << other);
            if free > self.keeps || free >= more {
                found = found.saturating_add(free);
                continue;
            }
            roomy &= !bit;
            self.roomy.fetch_and(!bit, Ordering::Relaxed);
            // Again, because there may be room by now.
            self.show_room(other, self.free(other));
        }
        if found < more {
            self.collect(0, u64::MAX, bits(roomy));
            return false;
        }
        // From the next shard on, so that not all threads draw on the same one.
        let before = roomy & (own - 1);
        self.collect(shard, more, bits(roomy & !before).chain(bits(before)));
        true
    }

    /// Moves what a shard lacks from others.
    fn collect(&self, shard: usize, more: u64, others: impl Iterator<Item = usize>) {
        for other in others.filter(|other| *other != shard) {
            let lacks = more.saturating_sub(self.free(shard));
            if lacks == 0 {
                return;
            }
            let some = |free: u64| Some(free.min(lacks)).filter(|some| *some > 0);
            let moved = self.subtract(other, some);
            if moved > 0 {
                self.put(shard, moved);
            }
        }
    }

    /// Room that was taken in one shard counts as taken in the other from now on.
    fn transfer(&self, from: usize, to: usize, taken: u64) {
        if taken > 0 && from != to {
            self.discount(from, taken);
            self.count(to, taken);
        }
    }

    /// Takes a permit from what is free in all shards, wherever it is.
    fn take_anywhere(&self, shard: usize, more: u64) -> bool {
        if more == 0 {
            return true;
        }
        self.collect(0, more, 0..self.parts.len());
        let taken = self.take_from(0, more);
        if taken {
            self.transfer(0, shard, more);
        }
        taken
    }
}

/// A shard keeps this part of its weight for itself. Values leave some weight free, and all inserts
/// would write the same lines to make use of the last thousandth.
const KEPT_WEIGHT: u64 = 1_024;

impl Limit {
    pub fn new(entries: usize, weight: u64, shards: Shards) -> Self {
        let keeps = match shards.number() as u64 {
            1 => 0,
            number => weight / number / KEPT_WEIGHT,
        };
        Limit {
            entries: Count::new(entries as u64, 0, shards),
            weight: Count::new(weight, keeps, shards),
        }
    }

    pub fn entries(&self) -> usize {
        self.entries.taken() as usize
    }

    /// How many values are resident in a shard.
    pub fn entries_in(&self, shard: usize) -> usize {
        self.entries.taken_in(shard) as usize
    }

    /// Whether a value of this weight could ever be resident.
    pub fn allows(&self, weight: Weight) -> bool {
        weight.get() <= self.weight.limit
    }

    pub fn weight(&self) -> u64 {
        self.weight.taken()
    }

    #[cfg(feature = "metrics")]
    pub fn max_entries(&self) -> u64 {
        self.entries.limit
    }

    /// `None` if the weight is not limited.
    #[cfg(feature = "metrics")]
    pub fn max_weight(&self) -> Option<u64> {
        (self.weight.limit < u64::MAX).then_some(self.weight.limit)
    }

    /// Takes a permit for a key of this shard; `None` if the cache is full.
    pub fn take(&self, shard: usize, need: Need) -> Option<Permit<'_>> {
        self.take_by(Count::take, shard, need)
    }

    /// As [`take`](Self::take), after a search in all shards. For a thread that finds nothing to
    /// evict.
    pub fn take_anywhere(&self, shard: usize, need: Need) -> Option<Permit<'_>> {
        self.take_by(Count::take_anywhere, shard, need)
    }

    #[inline(always)]
    fn take_by(
        &self,
        take: impl Fn(&Count, usize, u64) -> bool,
        shard: usize,
        need: Need,
    ) -> Option<Permit<'_>> {
        // The weight first: where it is limited it runs out first as a rule, and then nothing is
        // written.
        if !take(&self.weight, shard, need.weight) {
            return None;
        }
        if !take(&self.entries, shard, need.entries) {
            self.weight.release(shard, need.weight);
            return None;
        }
        Some(Permit::new(self, shard, need))
    }

    /// Gives the permit of a removed value back to its shard, or a part of it.
    pub fn release(&self, shard: usize, need: Need) {
        self.entries.release(shard, need.entries);
        self.weight.release(shard, need.weight);
    }
}

/// The room that a value needs to be resident.
#[derive(Clone, Copy)]
pub struct Need {
    entries: u64,
    weight: u64,
}

impl Need {
    /// For a value whose key has none yet.
    pub fn entry(weight: Weight) -> Self {
        Need {
            entries: 1,
            weight: weight.get(),
        }
    }

    /// The room that a value needs in addition to the value that it replaces.
    pub fn beyond(weight: Weight, old: Weight) -> Self {
        Need {
            entries: 0,
            weight: weight.get().saturating_sub(old.get()),
        }
    }
}

/// The right to make a value of one shard resident; given back when dropped.
pub struct Permit<'a> {
    limit: &'a Limit,
    shard: usize,
    need: Option<Need>,
}

impl<'a> Permit<'a> {
    fn new(limit: &'a Limit, shard: usize, need: Need) -> Self {
        Permit {
            limit,
            shard,
            need: Some(need),
        }
    }

    /// The permit of a value that was removed from this shard, which now belongs to the remover.
    pub fn inherit(limit: &'a Limit, shard: usize, removed: Weight) -> Self {
        Permit::new(limit, shard, Need::entry(removed))
    }

    /// Turns this into a permit for `need` in this shard and gives the rest back, or all of it if
    /// it is too small.
    pub fn reuse(mut self, shard: usize, need: Need) -> Option<Self> {
        let has = self.need?;
        if self.shard != shard {
            // Also if it is too small, so that the permits of several victims come together.
            (self.limit.entries).transfer(self.shard, shard, has.entries);
            (self.limit.weight).transfer(self.shard, shard, has.weight);
            self.shard = shard;
        }
        let left = Need {
            entries: has.entries.checked_sub(need.entries)?,
            weight: has.weight.checked_sub(need.weight)?,
        };
        self.limit.release(shard, left);
        self.need = Some(need);
        Some(self)
    }

    /// The value is in the table. From now on its remover gives the permit back.
    pub fn keep(mut self) {
        self.need = None;
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if let Some(need) = self.need {
            self.limit.release(self.shard, need);
        }
    }
}
