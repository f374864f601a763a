//! One published value, or the placeholder of one that is being loaded.
//!
//! An entry never changes, except for its claim, its use count and the flight of the attempt that
//! is under way. The epoch *is* the entry: a new value is a new entry.

use std::time::Duration;

use crate::claim::{Claims, Right};
use crate::clock::Tick;
use crate::compact::{Cost, Span, Weight};
use crate::fifo::Residency;
use crate::flight::Flight;
use crate::store::Terms;
use crate::sync::{Arc, AtomicU8, Ordering, Slot};

/// How often an entry can be seen used; a saturated count writes nothing any more.
pub const USES_MAX: u8 = 3;

/// Where an entry is for eviction: in the small queue at first, in the main queue, there and spared once since its last use although it
/// had none (see `fifo`), or in neither because its successor is in the table.
const PROMOTED: u8 = 1;
const FREE_TURN_TAKEN: u8 = 2;
const SUCCEEDED: u8 = 3;

/// Laid out by hand: what a hit looks at (the end of `times`, `uses`, `key`, a small `value`) lies together, in one cache line for
/// most addresses, and nothing before the value is padding.
#[repr(C)]
pub struct Entry<K, V> {
    pub times: Times,
    uses: AtomicU8,
    mark: AtomicU8,
    pub residency: Residency,
    pub weight: Weight,
    pub key: K,
    /// `None` marks the placeholder of a load.
    value: Option<V>,
    pub claims: Claims,
    /// The attempt to replace this entry: under way, failed last, or closed (see `flight`).
    pub flight: Slot<Flight<K, V>>,
}

/// What eviction knows of a value.
#[derive(Clone, Copy)]
pub struct Standing {
    pub uses: u8,
    pub promoted: bool,
    pub residency: Residency,
    pub weight: Weight,
}

/// When an entry is fresh, stale and expired.
///
/// One absolute time and four distances from it, in 26 bytes.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Times {
    since_created: Span,
    until_stale: Span,
    stale_for: Span,
    error_for: Span,
    cost: Cost,
    /// A `Tick` as bytes, so that it needs no alignment and no padding behind it.
    early_from: [u8; 8],
}

/// What the times of a new entry are made from; durations in ticks.
#[derive(Clone, Copy)]
pub struct Lifetime {
    pub created: Tick,
    pub fresh_for: Tick,
    /// After `fresh_for`: served while a refresh runs (stale-while-revalidate).
    pub stale_for: Tick,
    /// After `fresh_for`: served when refreshing fails (stale-if-error).
    pub error_for: Tick,
    /// How long before the soft limit a draw could matter.
    pub early_for: Tick,
    /// The moving average of the load time.
    pub cost: Tick,
}

impl Times {
    pub fn new(life: Lifetime) -> Self {
        let lead = life.fresh_for.saturating_sub(life.early_for);
        // Never "for ever", so that `created` can be told from `early_from`.
        let since_created = Span::new(lead.min(Span::LONGEST));
        Times {
            // From the rounded distance, so that `created` comes back exactly.
            early_from: life
                .created
                .saturating_add(since_created.ticks())
                .to_ne_bytes(),
            since_created,
            until_stale: Span::new(life.fresh_for - since_created.ticks()),
            stale_for: Span::new(life.stale_for),
            error_for: Span::new(life.error_for),
            cost: Cost::new(life.cost),
        }
    }

    /// A placeholder has no value to be fresh, so every reader takes the slow path.
    fn placeholder() -> Self {
        let zero = Span::ZERO;
        Times {
            early_from: [0; 8],
            since_created: zero,
            until_stale: zero,
            stale_for: zero,
            error_for: zero,
            cost: Cost::ZERO,
        }
    }

    /// From here on an X-Fetch draw could say "refresh now", or the entry is stale. A hit compares this with the
    /// clock and, nearly always, nothing else.
    #[inline]
    pub fn early_from(&self) -> Tick {
        Tick::from_ne_bytes(self.early_from)
    }

    pub fn created(&self) -> Tick {
        self.early_from().saturating_sub(self.since_created.ticks())
    }

    /// The soft limit.
    #[inline]
    pub fn fresh_until(&self) -> Tick {
        self.early_from().saturating_add(self.until_stale.ticks())
    }

    /// How long stale-while-revalidate lasts.
    pub fn stale_for(&self) -> Tick {
        self.stale_for.ticks()
    }

    /// The end of stale-while-revalidate.
    pub fn stale_until(&self) -> Tick {
        self.fresh_until().saturating_add(self.stale_for())
    }

    /// The hard limit: the later of both stale windows.
    pub fn expires(&self) -> Tick {
        let longest = self.stale_for.ticks().max(self.error_for.ticks());
        self.fresh_until().saturating_add(longest)
    }

    /// The same for a store, whose clock is another.
    pub fn terms(&self) -> Terms {
        let duration = |ticks: Tick| match ticks {
            Tick::MAX => Duration::MAX,
            _ => Duration::from_nanos(ticks),
        };
        let fresh_for = match self.fresh_until() {
            Tick::MAX => Tick::MAX,
            until => until.saturating_sub(self.created()),
        };
        Terms {
            fresh_for: duration(fresh_for),
            stale_for: duration(self.stale_for.ticks()),
            stale_if_error_for: duration(self.error_for.ticks()),
            cost: duration(self.cost()),
        }
    }

    pub fn age(&self, now: Tick) -> Duration {
        Duration::from_nanos(now.saturating_sub(self.created()))
    }

    pub fn cost(&self) -> Tick {
        self.cost.ticks()
    }
}

impl<K, V> Entry<K, V> {
    pub fn ready(key: K, value: V, times: Times, standing: Standing) -> Self {
        let Standing {
            uses,
            promoted,
            residency,
            weight,
        } = standing;
        Entry {
            residency,
            weight,
            key,
            value: Some(value),
            times,
            claims: Claims::idle(),
            flight: Slot::new(None),
            uses: AtomicU8::new(uses.min(USES_MAX)),
            mark: AtomicU8::new(promoted.into()),
        }
    }

    /// The placeholder of a load, born claimed, with the flight its callers will wait for.
    pub fn loading(
        key: K,
        residency: Residency,
        failures: u32,
        now: Tick,
        timeout: Tick,
    ) -> (Self, Right, Arc<Flight<K, V>>) {
        let (claims, right) = Claims::claimed(now, timeout, failures);
        let flight = Arc::new(Flight::new(right));
        let entry = Entry {
            residency,
            weight: Weight::ZERO,
            key,
            value: None,
            times: Times::placeholder(),
            claims,
            flight: Slot::new(Some(flight.clone())),
            uses: AtomicU8::new(0),
            mark: AtomicU8::new(0),
        };
        (entry, right, flight)
    }

    /// Stands for a moment where a value was that leaves without a successor; `flight` says why. Nobody can claim it.
    pub fn vacant(key: K, flight: Arc<Flight<K, V>>) -> Self {
        Entry {
            residency: 0,
            weight: Weight::ZERO,
            key,
            value: None,
            times: Times::placeholder(),
            claims: Claims::spent(),
            flight: Slot::new(Some(flight)),
            uses: AtomicU8::new(0),
            mark: AtomicU8::new(0),
        }
    }

    /// What a successor starts with; its weight is its own.
    pub fn standing(&self, weight: Weight) -> Standing {
        Standing {
            uses: self.uses(),
            promoted: self.is_promoted(),
            residency: self.residency,
            weight,
        }
    }

    /// Takes over the standing of the value that this one overwrites.
    pub fn succeed(&mut self, old: &Self) {
        let standing = old.standing(self.weight);
        self.uses = AtomicU8::new(standing.uses);
        self.mark = AtomicU8::new(standing.promoted.into());
        self.residency = standing.residency;
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
    pub fn settle_uses(&self, uses: u8) {
        self.uses.store(uses, Ordering::Relaxed);
        // The look first, because nearly always there is nothing to change.
        if self.mark.load(Ordering::Relaxed) == FREE_TURN_TAKEN {
            self.exchange_mark(FREE_TURN_TAKEN, PROMOTED);
        }
    }

    /// Takes the one turn that a value of the main queue may have without a use; false if it had it since its last use.
    pub fn take_free_turn(&self) -> bool {
        self.exchange_mark(PROMOTED, FREE_TURN_TAKEN)
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
    matches!(mark, PROMOTED | FREE_TURN_TAKEN)
}
