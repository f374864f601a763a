//! The types of the lease protocol.

use std::fmt;
use std::num::NonZeroU64;
use std::time::Duration;

use rand::RngExt;

use crate::rng::with_rng;

/// How much a moment by the clock of the store may differ between two readings, in microseconds,
/// although no clock was set: a process estimates the time of the store, several changes can come
/// in one microsecond, and clocks are slewed.
pub(crate) const CLOCK_ERROR: u64 = 1_000_000;

/// The time at which a payload was stored, by the store's clock; it also identifies the payload.
///
/// The store assigns `max(stored + 1, now)`, in microseconds. So within one
/// [timeline](crate::store::Store::timeline) no two payloads of a key have the same epoch, and a
/// later epoch is greater. After the clock was set back, epochs begin again at its time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(NonZeroU64);

impl Epoch {
    /// The upper bound, in the year 2255: the largest integer that a Redis script represents
    /// exactly.
    pub(crate) const MAX: u64 = (1 << 53) - 1;

    /// Makes an epoch from microseconds; `None` for zero and for times past the year 2255.
    pub fn from_micros(micros: u64) -> Option<Self> {
        NonZeroU64::new(micros)
            .filter(|micros| micros.get() < Self::MAX)
            .map(Epoch)
    }

    /// Microseconds since 1970 by the store's clock.
    pub fn micros(self) -> u64 {
        self.0.get()
    }

    /// Whether a store whose clock shows this time gave the epoch before its clock was set back, or
    /// before another server with a slower clock took its place. The age of the payload is then
    /// unknown, and its epoch says nothing about the order of changes.
    pub(crate) fn is_ahead_of(self, time: u64) -> bool {
        self.micros() > time.saturating_add(CLOCK_ERROR)
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Epoch({})", self.0)
    }
}

/// Identifies a cache that writes: a random number, by which the cache recognises its own changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Origin(pub u64);

impl Origin {
    /// Makes a random origin.
    pub fn random() -> Self {
        Origin(with_rng(|rng| rng.random()))
    }
}

/// Identifies one attempt to load one key; never used for another attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token {
    /// The cache that makes the attempt.
    pub origin: Origin,
    /// The number of the attempt, counted by the origin.
    pub serial: u64,
}

/// The birth of a write of a caller, by which a store finds the later of two writes.
///
/// A write may reach the store long after it was made. Meanwhile another process may have written
/// the key, or loaded it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Birth {
    /// The cache that made the write.
    pub origin: Origin,
    /// The moment of the write, in microseconds by the clock of the store:
    /// [`Store::now`](crate::store::Store::now) less the age of the write.
    pub micros: u64,
    /// The latest epoch of the key that the writer knew. Its write is later than the payload with
    /// exactly this epoch, whatever the clocks say.
    pub seen: Option<Epoch>,
}

impl Birth {
    /// The birth of a write that is later than everything that is stored.
    pub fn latest(origin: Origin) -> Self {
        Birth {
            origin,
            micros: Epoch::MAX,
            seen: None,
        }
    }
}

/// A request for the lease of a key.
#[derive(Clone, Copy, Debug)]
pub struct Acquire {
    /// The epoch of the payload that the caller has seen or could not decode, and does not want
    /// again.
    pub seen: Option<Epoch>,
    /// The attempt; a request repeated after an error carries the same token.
    pub token: Token,
    /// How long the lease lasts unless it is renewed. At least 1 ms.
    pub lease: Duration,
}

/// The reply to a request for a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Acquired {
    /// Another process stored a payload that the caller has not seen, possibly an older one. No
    /// lease is granted.
    Stored(Vec<u8>),
    /// The caller holds the lease now.
    Granted {
        /// The epoch of the stored payload, which the result will replace. If none is stored, the
        /// current time, so that a later absence differs from this one.
        base: Epoch,
    },
    /// Another attempt holds the lease.
    Held {
        /// The time left, unless the lease is renewed.
        left: Duration,
    },
    /// The last load of the caller's origin failed, so the store grants it no lease for a while.
    Cooling {
        /// The time left.
        left: Duration,
    },
}

/// A loaded value to store.
#[derive(Clone, Debug)]
pub struct Publish {
    /// The base that [`Acquired::Granted`] returned; never any other epoch.
    pub base: Epoch,
    /// The attempt that was granted the lease.
    pub token: Token,
    /// An [`envelope`](crate::store::envelope); the store writes the epoch into it.
    pub payload: Vec<u8>,
    /// How long the store keeps the payload at most. At least 1 ms.
    pub ttl: Duration,
}

/// The outcome of a publish, or of a write of a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// The change is made.
    Yes {
        /// The epoch assigned to the payload or to the removal.
        epoch: Epoch,
    },
    /// For a publish: another payload was stored, or the key was invalidated, after the lease was
    /// granted. For a write: a later write is stored.
    Refused,
}

impl Stored {
    /// The epoch of the change, if it is made.
    pub fn epoch(self) -> Option<Epoch> {
        match self {
            Stored::Yes { epoch } => Some(epoch),
            Stored::Refused => None,
        }
    }
}
