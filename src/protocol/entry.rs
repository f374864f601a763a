//! One published value, or the placeholder of a value that is being loaded.
//!
//! An entry never changes, except for its claim word, its use count with the second chance, its
//! generation before it is in the table, and the flight of the attempt that is under way. The epoch
//! *is* the entry: a new value is a new entry.

use crate::protocol::claim::{ClaimToken, ClaimWord};
use crate::protocol::compact::Weight;
use crate::protocol::fifo::Generation;
use crate::protocol::flight::Flight;
use crate::protocol::groups::{Cell, Groups, Stamp};
use crate::protocol::times::{Early, EarlyFrom, OtherTimes, Times};
use crate::protocol::uses::Uses;
use crate::sync::{AtomicU8, CountedSlot, Ordering, StrongArc};
use crate::time::clock::Tick;

/// Laid out by hand: what a hit reads (the key, the head, a small value) is adjacent, in one cache
/// line for most addresses, and there is no padding before a value.
#[repr(C)]
pub struct Entry<K, V> {
    pub key: K,
    content: Content<V>,
    others: OtherTimes,
    weight: Weight,
    generation: AtomicU8,
    pub claim_word: ClaimWord,
    /// The attempt to replace this entry: under way, last failed, or closed (see `flight`).
    pub flight: CountedSlot<Flight<K, V>>,
}

/// The compiler puts the discriminant before the head, because both are made of single bytes.
/// Together they take eight, so a value follows without padding.
enum Content<V> {
    /// A value without groups, or with one.
    Value(Head, V),
    /// A value with several groups.
    Listed(Head, Box<Listed<V>>),
    /// A placeholder or a tombstone.
    Nothing(Head),
}

struct Listed<V> {
    value: V,
    stamps: Vec<Stamp>,
}

impl<V> Content<V> {
    /// Out of line, so that only values with several groups are copied in its frame.
    #[inline(never)]
    fn listed(head: Head, value: &mut Option<V>, stamps: Vec<Stamp>) -> Self {
        match value.take() {
            Some(value) => Content::Listed(head, Box::new(Listed { value, stamps })),
            None => Content::Nothing(head),
        }
    }
}

struct Head {
    uses: AtomicU8,
    early_from: EarlyFrom,
}

#[cfg(all(target_pointer_width = "64", not(all(loom, feature = "loom"))))]
const _: () = assert!(
    size_of::<Entry<u64, u64>>() == 64,
    "a key, a value and 48 bytes"
);

impl Head {
    fn new(uses: u8, early_from: EarlyFrom) -> Self {
        Head {
            uses: AtomicU8::new(Uses::seen(uses).word()),
            early_from,
        }
    }
}

/// The state of a value in eviction.
#[derive(Clone, Copy)]
pub struct EvictionState {
    pub uses: u8,
    pub generation: Generation,
    pub weight: Weight,
}

impl<K, V> Entry<K, V> {
    pub fn ready(
        key: K,
        value: V,
        times: Times,
        stamps: Vec<Stamp>,
        eviction_state: EvictionState,
    ) -> Self {
        Self::made(key, &mut Some(value), times, stamps, eviction_state)
    }

    /// The entry of a value that was just made, with the stamps of its groups; `value` has one.
    ///
    /// It takes the value out of its place only here, because each move of a large one is a copy on
    /// the stack.
    pub fn made(
        key: K,
        value: &mut Option<V>,
        times: Times,
        stamps: Vec<Stamp>,
        eviction_state: EvictionState,
    ) -> Self {
        let (early_from, others) = match stamps.first() {
            None => times.split(),
            // Of several, the list holds them all.
            Some(stamp) => times.split_with_groups(*stamp),
        };
        let head = Head::new(eviction_state.uses, early_from);
        Entry {
            key,
            content: match stamps.len() {
                0 | 1 => match value.take() {
                    Some(value) => Content::Value(head, value),
                    None => Content::Nothing(head),
                },
                _ => Content::listed(head, value, stamps),
            },
            others,
            weight: eviction_state.weight,
            generation: AtomicU8::new(eviction_state.generation),
            claim_word: ClaimWord::idle(),
            flight: CountedSlot::new(None),
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
    ) -> (StrongArc<Self>, ClaimToken, StrongArc<Flight<K, V>>) {
        let (claim_word, token) = ClaimWord::claimed(now, timeout, failures);
        let flight = Flight::start(token);
        let (early_from, others) = Times::placeholder().split();
        // In the call, because an entry may be large and would be copied on the stack.
        let entry = StrongArc::new(Entry {
            key,
            content: Content::Nothing(Head::new(0, early_from)),
            others,
            weight: Weight::ZERO,
            generation: AtomicU8::new(generation),
            claim_word,
            flight: CountedSlot::new(Some(flight.clone())),
        });
        (entry, token, flight)
    }

    /// The tombstone of a value that leaves without a successor. It replaces that value for a
    /// moment; `flight` says why. No caller can claim it.
    pub fn tombstone(key: K, flight: StrongArc<Flight<K, V>>) -> Self {
        let (early_from, others) = Times::placeholder().split();
        Entry {
            key,
            content: Content::Nothing(Head::new(0, early_from)),
            others,
            weight: Weight::ZERO,
            generation: AtomicU8::new(0),
            claim_word: ClaimWord::spent(),
            flight: CountedSlot::new(Some(flight)),
        }
    }

    #[inline(always)]
    fn head(&self) -> &Head {
        match &self.content {
            Content::Value(head, _) | Content::Listed(head, _) | Content::Nothing(head) => head,
        }
    }

    /// From here on a hit needs more than this.
    #[inline(always)]
    pub fn early_from(&self) -> Early {
        self.head().early_from.joined()
    }

    #[inline]
    pub fn times(&self) -> Times {
        Times::of_parts(self.head().early_from, self.others)
    }

    pub fn weight(&self) -> Weight {
        self.weight
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

    #[inline]
    pub fn value(&self) -> Option<&V> {
        match &self.content {
            Content::Value(_, value) => Some(value),
            _ => self.listed().map(|listed| &listed.value),
        }
    }

    /// Out of line, so that the value of most entries costs one comparison.
    #[cold]
    #[inline(never)]
    fn listed(&self) -> Option<&Listed<V>> {
        match &self.content {
            Content::Listed(_, listed) => Some(listed),
            Content::Value(..) | Content::Nothing(_) => None,
        }
    }

    #[inline]
    pub fn is_loading(&self) -> bool {
        self.value().is_none()
    }

    /// Whether the value was made longer ago than this.
    #[inline(never)]
    pub fn is_older_than(&self, age: Tick, now: Tick) -> bool {
        now.saturating_sub(self.times().created()) > age
    }

    /// The same for hits. Exact only near the limit, which costs more.
    #[inline(always)]
    pub fn is_young(&self, early_from: Early, age: Tick, now: Tick) -> bool {
        let surely = self.others.is_young(early_from, age, now);
        surely || !self.is_older_than(age, now)
    }

    /// Whether this is a value before its hard limit. It may be served if it is
    /// [current](Self::is_current) as well.
    pub fn is_unexpired(&self, now: Tick) -> bool {
        !self.is_loading() && now < self.times().expires()
    }

    /// Whether none of the value's groups was invalidated since its load began. True without
    /// groups.
    #[inline(always)]
    pub fn is_current(&self, groups: &Groups) -> bool {
        !self.early_from().has_groups() || self.has_current_groups(groups)
    }

    /// The same for a value that has groups.
    #[inline(always)]
    pub fn has_current_groups(&self, groups: &Groups) -> bool {
        match &self.content {
            Content::Value(..) => groups.is_current(self.others.stamp()),
            _ => self.lists_current_groups(groups),
        }
    }

    /// The cells of the value's groups.
    pub fn cells(&self) -> impl Iterator<Item = Cell> + '_ {
        let (one, listed): (_, &[Stamp]) = match &self.content {
            Content::Value(..) if self.early_from().has_groups() => {
                (Some(self.others.stamp()), &[])
            }
            Content::Listed(_, listed) => (None, &listed.stamps),
            Content::Value(..) | Content::Nothing(_) => (None, &[]),
        };
        one.into_iter()
            .chain(listed.iter().copied())
            .map(Stamp::cell)
    }

    #[inline(never)]
    fn lists_current_groups(&self, groups: &Groups) -> bool {
        match &self.content {
            Content::Listed(_, listed) => groups.are_current(&listed.stamps),
            Content::Value(..) | Content::Nothing(_) => true,
        }
    }

    pub fn uses(&self) -> u8 {
        Uses::of(self.head().uses.load(Ordering::Relaxed)).number
    }

    /// The uses since the last call, as far as they raised the count.
    pub fn take_new_uses(&self) -> u8 {
        self.change_uses(Uses::take_new)
    }

    /// Sets the uses of a value that enters the main queue.
    pub fn set_uses(&self, uses: u8) {
        self.change_uses(|all| *all = Uses::seen(uses));
    }

    /// Takes off a use, because eviction spares the value; false if it has none.
    pub fn spend_use(&self) -> bool {
        self.change_uses(Uses::spend)
    }

    /// Takes the second chance that a value of the main queue has without a use; false if the value
    /// took it already since its last use. Two threads at once may both take it.
    pub fn take_second_chance(&self) -> bool {
        self.change_uses(Uses::take_second_chance)
    }

    /// A change at the same moment may be lost. Nothing is stored unless something changes.
    fn change_uses<R>(&self, change: impl FnOnce(&mut Uses) -> R) -> R {
        let word = self.head().uses.load(Ordering::Relaxed);
        let mut uses = Uses::of(word);
        let result = change(&mut uses);
        if uses.word() != word {
            self.head().uses.store(uses.word(), Ordering::Relaxed);
        }
        result
    }

    /// Records a use for eviction.
    ///
    /// A plain store, so two readers may count as one. A saturated count is not written, so no hit
    /// writes the cache line of a hot entry. Relaxed, because it publishes nothing.
    #[inline]
    pub fn touch(&self) {
        if let Some(raised) = Uses::raised(self.head().uses.load(Ordering::Relaxed)) {
            self.head().uses.store(raised, Ordering::Relaxed);
        }
    }
}
