//! One published value, or the placeholder of a value that is being loaded.
//!
//! An entry never changes, except for its claim word, its use count, its eviction marks and the
//! flight of the attempt that is under way. The epoch *is* the entry: a new value is a new entry.

use crate::protocol::claim::{ClaimToken, ClaimWord};
use crate::protocol::compact::Weight;
use crate::protocol::fifo::Generation;
use crate::protocol::flight::Flight;
use crate::protocol::times::Times;
use crate::sync::{Arc, AtomicU8, Held, Ordering, Slot};
use crate::time::clock::Tick;

/// The largest use count, and the bits that hold it. A hit on a saturated count writes nothing.
pub const USES_MAX: u8 = 3;

/// The place of the uses, in the same byte, that the shadows of eviction have seen (see `adapt`).
const SEEN: u8 = 2;

/// The place of an entry in eviction. An entry starts in the small queue and may move to the main
/// queue. There it may have used the second chance that it has without a use (see `fifo`). It is in
/// neither queue once its successor is in the table.
const PROMOTED: u8 = 1;
const SECOND_CHANCE_TAKEN: u8 = 2;
const SUCCEEDED: u8 = 3;

/// Laid out by hand: what a hit reads (the end of `times`, `uses`, `key`, a small `value`) is
/// adjacent, in one cache line for most addresses, and there is no padding before the value.
#[repr(C)]
pub struct Entry<K, V> {
    pub times: Times,
    uses: AtomicU8,
    mark: AtomicU8,
    pub generation: Generation,
    pub weight: Weight,
    pub key: K,
    /// `None` marks the placeholder of a load.
    value: Option<V>,
    pub claim_word: ClaimWord,
    /// The attempt to replace this entry: under way, last failed, or closed (see `flight`).
    pub flight: Slot<Flight<K, V>>,
}

/// The state of a value in eviction.
#[derive(Clone, Copy)]
pub struct EvictionState {
    pub uses: u8,
    pub promoted: bool,
    pub generation: Generation,
    pub weight: Weight,
}

impl<K, V> Entry<K, V> {
    pub fn ready(key: K, value: V, times: Times, eviction_state: EvictionState) -> Self {
        Self::made(key, Some(value), times, eviction_state)
    }

    /// The entry of a value that was just made; `value` has one.
    pub fn made(key: K, value: Option<V>, times: Times, eviction_state: EvictionState) -> Self {
        let EvictionState {
            uses,
            promoted,
            generation,
            weight,
        } = eviction_state;
        Entry {
            generation,
            weight,
            key,
            value,
            times,
            claim_word: ClaimWord::idle(),
            flight: Slot::new(None),
            uses: AtomicU8::new(seen(uses.min(USES_MAX))),
            mark: AtomicU8::new(promoted.into()),
        }
    }

    /// The placeholder of a load. It starts as claimed, with the flight for which its callers will
    /// wait.
    pub fn loading(
        key: K,
        generation: Generation,
        failures: u32,
        now: Tick,
        timeout: Tick,
    ) -> (Arc<Self>, ClaimToken, Arc<Flight<K, V>>) {
        let (claim_word, token) = ClaimWord::claimed(now, timeout, failures);
        let flight = Flight::start(token);
        // In the call, because an entry may be large and would be copied on the stack.
        let entry = Arc::new(Entry {
            generation,
            weight: Weight::ZERO,
            key,
            value: None,
            times: Times::placeholder(),
            claim_word,
            flight: Slot::new(Some(flight.clone())),
            uses: AtomicU8::new(0),
            mark: AtomicU8::new(0),
        });
        (entry, token, flight)
    }

    /// The tombstone of a value that leaves without a successor. It replaces that value for a
    /// moment; `flight` says why. No caller can claim it.
    pub fn tombstone(key: K, flight: Arc<Flight<K, V>>) -> Self {
        Entry {
            generation: 0,
            weight: Weight::ZERO,
            key,
            value: None,
            times: Times::placeholder(),
            claim_word: ClaimWord::spent(),
            flight: Slot::new(Some(flight)),
            uses: AtomicU8::new(0),
            mark: AtomicU8::new(0),
        }
    }

    /// The eviction state with which a successor starts; its weight is its own.
    pub fn eviction_state(&self, weight: Weight) -> EvictionState {
        EvictionState {
            uses: self.uses(),
            promoted: self.is_promoted(),
            generation: self.generation,
            weight,
        }
    }

    /// Takes over the eviction state of the value that this one overwrites.
    pub fn succeed(&mut self, old: &Self) {
        let eviction_state = old.eviction_state(self.weight);
        self.uses = AtomicU8::new(seen(eviction_state.uses));
        self.mark = AtomicU8::new(eviction_state.promoted.into());
        self.generation = eviction_state.generation;
    }

    /// The flight of its last attempt, out of line because a hit does not ask for it.
    #[inline(never)]
    pub fn last_flight(&self) -> Option<Held<Flight<K, V>>> {
        self.flight.load()
    }

    pub fn value(&self) -> Option<&V> {
        self.value.as_ref()
    }

    #[inline]
    pub fn is_loading(&self) -> bool {
        self.value.is_none()
    }

    /// Whether this is a value that may still be served.
    pub fn is_servable(&self, now: Tick) -> bool {
        self.value.is_some() && now < self.times.expires()
    }

    pub fn uses(&self) -> u8 {
        self.uses.load(Ordering::Relaxed) & USES_MAX
    }

    /// The uses since the last call, of those that eviction has left.
    pub fn take_new_uses(&self) -> u8 {
        let word = self.uses.load(Ordering::Relaxed);
        let (uses, old) = (word & USES_MAX, word >> SEEN);
        if uses > old {
            // A use at the same moment may be lost.
            self.uses.store(seen(uses), Ordering::Relaxed);
        }
        uses.saturating_sub(old)
    }

    /// Whether the value is in the main queue.
    pub fn is_promoted(&self) -> bool {
        is_in_main(self.mark.load(Ordering::Relaxed))
    }

    /// Moves the value into the main queue with this many uses; false if it has a successor, which
    /// the caller then promotes instead.
    pub fn promote(&self, uses: u8) -> bool {
        let alone = self.move_on();
        self.uses.store(seen(uses), Ordering::Relaxed);
        alone
    }

    /// Moves the value into the main queue with the uses it has; false as in
    /// [`promote`](Self::promote).
    pub fn move_on(&self) -> bool {
        // Acquire pairs with the release in `retire`: a promotion that comes after it finds the
        // successor in the table.
        self.mark.swap(PROMOTED, Ordering::AcqRel) != SUCCEEDED
    }

    /// Marks that the successor is in the table; returns whether the value was promoted before.
    ///
    /// This exchange and the one in `move_on` are ordered: the later one sees the earlier one.
    pub fn retire(&self) -> bool {
        is_in_main(self.mark.swap(SUCCEEDED, Ordering::AcqRel))
    }

    /// Takes off a use, because eviction spares the value; false if it has none. A use at the same
    /// moment may be lost.
    pub fn spend_use(&self) -> bool {
        let word = self.uses.load(Ordering::Relaxed);
        let (uses, old) = (word & USES_MAX, word >> SEEN);
        if uses == 0 {
            return false;
        }
        // The use that goes is the oldest.
        let old = old.saturating_sub(1);
        self.uses.store(uses - 1 | old << SEEN, Ordering::Relaxed);
        // The load comes first, because nearly always there is nothing to change.
        if self.mark.load(Ordering::Relaxed) == SECOND_CHANCE_TAKEN {
            self.exchange_mark(SECOND_CHANCE_TAKEN, PROMOTED);
        }
        true
    }

    /// Adds a use that is not a hit, if there is room for it. A use at the same moment may be lost.
    pub fn give_use(&self) {
        let word = self.uses.load(Ordering::Relaxed);
        if word & USES_MAX < USES_MAX {
            let (uses, old) = ((word & USES_MAX) + 1, ((word >> SEEN) + 1).min(USES_MAX));
            self.uses.store(uses | old << SEEN, Ordering::Relaxed);
        }
    }

    /// Takes the second chance that a value of the main queue has without a use; false if the value
    /// took it already since its last use.
    pub fn take_second_chance(&self) -> bool {
        self.exchange_mark(PROMOTED, SECOND_CHANCE_TAKEN)
    }

    /// An exchange, so that it never overwrites the mark of a successor. Relaxed: neither mark says
    /// anything about the table.
    fn exchange_mark(&self, from: u8, to: u8) -> bool {
        self.mark
            .compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    }

    /// Records a use for eviction.
    ///
    /// A plain store, so two readers may count as one. A saturated count is not written, so no hit
    /// writes the cache line of a hot entry. Relaxed, because it publishes nothing.
    #[inline]
    pub fn touch(&self) {
        let word = self.uses.load(Ordering::Relaxed);
        if word & USES_MAX < USES_MAX {
            self.uses.store(word + 1, Ordering::Relaxed);
        }
    }
}

/// So many uses, all of them seen.
fn seen(uses: u8) -> u8 {
    uses | uses << SEEN
}

fn is_in_main(mark: u8) -> bool {
    matches!(mark, PROMOTED | SECOND_CHANCE_TAKEN)
}
