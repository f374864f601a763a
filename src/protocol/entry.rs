//! One published value, or the placeholder of one that is being loaded.
//!
//! An entry never changes, except for its claim, its use count and the flight of the attempt that
//! is under way. The epoch *is* the entry: a new value is a new entry.

use crate::protocol::claim::{ClaimToken, ClaimWord};
use crate::protocol::compact::Weight;
use crate::protocol::fifo::Generation;
use crate::protocol::flight::Flight;
use crate::protocol::times::Times;
use crate::sync::{Arc, AtomicU8, Ordering, Slot};
use crate::time::clock::Tick;

/// How often an entry can be seen used; a saturated count writes nothing any more.
pub const USES_MAX: u8 = 3;

/// Where an entry is for eviction: in the small queue at first, in the main queue, there and spared once since its last use although it
/// had none (see `fifo`), or in neither because its successor is in the table.
const PROMOTED: u8 = 1;
const SECOND_CHANCE_TAKEN: u8 = 2;
const SUCCEEDED: u8 = 3;

/// Laid out by hand: what a hit looks at (the end of `times`, `uses`, `key`, a small `value`) lies together, in one cache line for
/// most addresses, and nothing before the value is padding.
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
    pub claims: ClaimWord,
    /// The attempt to replace this entry: under way, failed last, or closed (see `flight`).
    pub flight: Slot<Flight<K, V>>,
}

/// What eviction knows of a value.
#[derive(Clone, Copy)]
pub struct EvictionState {
    pub uses: u8,
    pub promoted: bool,
    pub generation: Generation,
    pub weight: Weight,
}

impl<K, V> Entry<K, V> {
    pub fn ready(key: K, value: V, times: Times, eviction_state: EvictionState) -> Self {
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
            value: Some(value),
            times,
            claims: ClaimWord::idle(),
            flight: Slot::new(None),
            uses: AtomicU8::new(uses.min(USES_MAX)),
            mark: AtomicU8::new(promoted.into()),
        }
    }

    /// The placeholder of a load, born claimed, with the flight its callers will wait for.
    pub fn loading(
        key: K,
        generation: Generation,
        failures: u32,
        now: Tick,
        timeout: Tick,
    ) -> (Self, ClaimToken, Arc<Flight<K, V>>) {
        let (claims, token) = ClaimWord::claimed(now, timeout, failures);
        let flight = Arc::new(Flight::new(token));
        let entry = Entry {
            generation,
            weight: Weight::ZERO,
            key,
            value: None,
            times: Times::placeholder(),
            claims,
            flight: Slot::new(Some(flight.clone())),
            uses: AtomicU8::new(0),
            mark: AtomicU8::new(0),
        };
        (entry, token, flight)
    }

    /// Stands for a moment where a value was that leaves without a successor; `flight` says why. Nobody can claim it.
    pub fn tombstone(key: K, flight: Arc<Flight<K, V>>) -> Self {
        Entry {
            generation: 0,
            weight: Weight::ZERO,
            key,
            value: None,
            times: Times::placeholder(),
            claims: ClaimWord::spent(),
            flight: Slot::new(Some(flight)),
            uses: AtomicU8::new(0),
            mark: AtomicU8::new(0),
        }
    }

    /// What a successor starts with; its weight is its own.
    pub fn eviction_state(&self, weight: Weight) -> EvictionState {
        EvictionState {
            uses: self.uses(),
            promoted: self.is_promoted(),
            generation: self.generation,
            weight,
        }
    }

    /// Takes over the standing of the value that this one overwrites.
    pub fn succeed(&mut self, old: &Self) {
        let eviction_state = old.eviction_state(self.weight);
        self.uses = AtomicU8::new(eviction_state.uses);
        self.mark = AtomicU8::new(eviction_state.promoted.into());
        self.generation = eviction_state.generation;
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
        self.uses.load(Ordering::Relaxed)
    }

    /// Whether it is in the main queue.
    pub fn is_promoted(&self) -> bool {
        is_in_main(self.mark.load(Ordering::Relaxed))
    }

    /// Puts it into the main queue with this many uses; false if it has a successor, which is then to be promoted.
    pub fn promote(&self, uses: u8) -> bool {
        let alone = self.move_on();
        self.uses.store(uses, Ordering::Relaxed);
        alone
    }

    /// Puts it into the main queue with the uses it has; false as in [`promote`](Self::promote).
    pub fn move_on(&self) -> bool {
        // Acquire pairs with the release in `retire`: who comes after it finds the successor in the table.
        self.mark.swap(PROMOTED, Ordering::AcqRel) != SUCCEEDED
    }

    /// Says that its successor is in the table; returns whether it was promoted before.
    ///
    /// Of this exchange and that in `move_on` one is the later, and sees the other.
    pub fn retire(&self) -> bool {
        is_in_main(self.mark.swap(SUCCEEDED, Ordering::AcqRel))
    }

    /// What eviction leaves of the uses when it spares the value. A use at the same moment may be lost.
    pub fn set_uses(&self, uses: u8) {
        self.uses.store(uses, Ordering::Relaxed);
        // The look first, because nearly always there is nothing to change.
        if self.mark.load(Ordering::Relaxed) == SECOND_CHANCE_TAKEN {
            self.exchange_mark(SECOND_CHANCE_TAKEN, PROMOTED);
        }
    }

    /// Takes the one turn that a value of the main queue may have without a use; false if it had it since its last use.
    pub fn take_second_chance(&self) -> bool {
        self.exchange_mark(PROMOTED, SECOND_CHANCE_TAKEN)
    }

    /// An exchange, so that it never hides a successor. Relaxed: neither mark says anything about the table.
    fn exchange_mark(&self, from: u8, to: u8) -> bool {
        self.mark
            .compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    }

    /// Remembers a use for eviction.
    ///
    /// A plain store, so two readers may count as one, and none at all once saturated: a hot entry's
    /// cache line is written by no hit. Relaxed, because nothing is published by it.
    #[inline]
    pub fn touch(&self) {
        let uses = self.uses.load(Ordering::Relaxed);
        if uses < USES_MAX {
            self.uses.store(uses + 1, Ordering::Relaxed);
        }
    }
}

fn is_in_main(mark: u8) -> bool {
    matches!(mark, PROMOTED | SECOND_CHANCE_TAKEN)
}
