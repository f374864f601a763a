//! One published value, or the placeholder of a value that is being loaded.
//!
//! An entry never changes, except for its claim word, its use count with the second chance, its
//! generation before it is in the table, and the flight of the attempt that is under way. The epoch
//! *is* the entry: a new value is a new entry.

use crate::protocol::claim::{ClaimToken, ClaimWord};
use crate::protocol::compact::Weight;
use crate::protocol::fifo::Generation;
use crate::protocol::flight::Flight;
use crate::protocol::times::Times;
use crate::protocol::uses::Uses;
use crate::sync::{Arc, AtomicU8, Held, Ordering, Slot};
use crate::time::clock::Tick;

/// Laid out by hand: what a hit reads (the end of `times`, `uses`, `key`, a small `value`) is
/// adjacent, in one cache line for most addresses, and there is no padding before the value.
#[repr(C)]
pub struct Entry<K, V> {
    pub times: Times,
    uses: AtomicU8,
    /// 1 after the value took the second chance that it has without a use (see `fifo`).
    second_chance_taken: AtomicU8,
    generation: AtomicU8,
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
            generation,
            weight,
        } = eviction_state;
        Entry {
            generation: AtomicU8::new(generation),
            weight,
            key,
            value,
            times,
            claim_word: ClaimWord::idle(),
            flight: Slot::new(None),
            uses: AtomicU8::new(Uses::seen(uses).word()),
            second_chance_taken: AtomicU8::new(0),
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
            generation: AtomicU8::new(generation),
            weight: Weight::ZERO,
            key,
            value: None,
            times: Times::placeholder(),
            claim_word,
            flight: Slot::new(Some(flight.clone())),
            uses: AtomicU8::new(0),
            second_chance_taken: AtomicU8::new(0),
        });
        (entry, token, flight)
    }

    /// The tombstone of a value that leaves without a successor. It replaces that value for a
    /// moment; `flight` says why. No caller can claim it.
    pub fn tombstone(key: K, flight: Arc<Flight<K, V>>) -> Self {
        Entry {
            generation: AtomicU8::new(0),
            weight: Weight::ZERO,
            key,
            value: None,
            times: Times::placeholder(),
            claim_word: ClaimWord::spent(),
            flight: Slot::new(Some(flight)),
            uses: AtomicU8::new(0),
            second_chance_taken: AtomicU8::new(0),
        }
    }

    /// The eviction state with which a successor starts; its weight is its own.
    pub fn eviction_state(&self, weight: Weight) -> EvictionState {
        EvictionState {
            uses: self.uses(),
            generation: self.generation(),
            weight,
        }
    }

    /// Takes over the eviction state of the value that this one is about to overwrite.
    ///
    /// Relaxed: the exchange of the slot releases it. A reader that met this entry while it was
    /// reserved does not ask for it.
    pub fn succeed(&self, old: &Self) {
        self.set_uses(old.uses());
        self.generation.store(old.generation(), Ordering::Relaxed);
    }

    pub fn generation(&self) -> Generation {
        self.generation.load(Ordering::Relaxed)
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
        Uses::of(self.uses.load(Ordering::Relaxed)).number
    }

    /// The uses since the last call, as far as they raised the count. A use at the same moment may
    /// be lost.
    pub fn take_new_uses(&self) -> u8 {
        let word = self.uses.load(Ordering::Relaxed);
        let mut uses = Uses::of(word);
        let new = uses.take_new();
        if uses.word() != word {
            self.uses.store(uses.word(), Ordering::Relaxed);
        }
        new
    }

    /// Sets the uses of a value that enters the main queue. A use at the same moment may be lost.
    pub fn set_uses(&self, uses: u8) {
        self.uses.store(Uses::seen(uses).word(), Ordering::Relaxed);
    }

    /// Takes off a use, because eviction spares the value; false if it has none. A use at the same
    /// moment may be lost.
    pub fn spend_use(&self) -> bool {
        let mut uses = Uses::of(self.uses.load(Ordering::Relaxed));
        if uses.number == 0 {
            return false;
        }
        uses.spend();
        self.uses.store(uses.word(), Ordering::Relaxed);
        // The load comes first, because nearly always there is nothing to change.
        if self.second_chance_taken.load(Ordering::Relaxed) != 0 {
            self.second_chance_taken.store(0, Ordering::Relaxed);
        }
        true
    }

    /// Takes the second chance that a value of the main queue has without a use; false if the value
    /// took it already since its last use. Two threads at once may both take it.
    pub fn take_second_chance(&self) -> bool {
        let taken = self.second_chance_taken.load(Ordering::Relaxed) != 0;
        if !taken {
            self.second_chance_taken.store(1, Ordering::Relaxed);
        }
        !taken
    }

    /// Records a use for eviction.
    ///
    /// A plain store, so two readers may count as one. A saturated count is not written, so no hit
    /// writes the cache line of a hot entry. Relaxed, because it publishes nothing.
    #[inline]
    pub fn touch(&self) {
        if let Some(raised) = Uses::raised(self.uses.load(Ordering::Relaxed)) {
            self.uses.store(raised, Ordering::Relaxed);
        }
    }
}
