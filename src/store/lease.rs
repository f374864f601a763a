//! The types of the lease protocol.

use std::fmt;
use std::num::NonZeroU64;
use std::time::Duration;

use rand::RngExt;

use crate::rng::with_rng;

/// The time at which a payload was stored, by the store's clock; it also identifies the payload.
///
/// No two payloads of a key have the same epoch. The store assigns `max(stored + 1, now)`, in
/// microseconds, so that a later epoch is greater even if the clock is set back.
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

/// The outcome of a publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// The payload is stored.
    Yes {
        /// The epoch assigned to the payload.
        epoch: Epoch,
    },
    /// Another payload was stored, or the key was invalidated, after the lease was granted.
    Refused,
}
