//! The words of the lease protocol.

use std::fmt;
use std::num::NonZeroU64;
use std::time::Duration;

use rand::RngExt;

use crate::rng::with_rng;

/// When a payload was stored, by the store's clock, and its identity: no two payloads of a key have the same.
///
/// The store gives `max(stored + 1, now)`, in microseconds, so that later ones are greater even if its clock is set back.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(NonZeroU64);

impl Epoch {
    /// The greatest one: what a script of Redis can count to exactly, in the year 2255.
    pub(crate) const MAX: u64 = (1 << 53) - 1;

    /// `None` for what no store gives: zero, or past the year 2255.
    pub fn from_micros(micros: u64) -> Option<Self> {
        NonZeroU64::new(micros)
            .filter(|micros| micros.get() < Self::MAX)
            .map(Epoch)
    }

    /// Microseconds by the store's clock.
    pub fn micros(self) -> u64 {
        self.0.get()
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Epoch({})", self.0)
    }
}

/// Who writes: a random number for each cache, so that it knows its own changes when it is told of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Origin(pub u64);

impl Origin {
    /// A new one, at random.
    pub fn random() -> Self {
        Origin(with_rng(|rng| rng.random()))
    }
}

/// One attempt to load one key: never used for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token {
    /// Whose attempt it is.
    pub origin: Origin,
    /// Which one; counted up by its origin.
    pub serial: u64,
}

/// What a caller that wants to load a key tells the store.
#[derive(Clone, Copy, Debug)]
pub struct Acquire {
    /// The epoch the caller already has, or could not read: not wanted again.
    pub seen: Option<Epoch>,
    /// The attempt, the same one if it is repeated after an error.
    pub token: Token,
    /// How long the lease is held unless renewed. At least a millisecond.
    pub lease: Duration,
}

/// What the store answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Acquired {
    /// Somebody else stored a payload that the caller has not seen, possibly an older one. No lease is granted.
    Stored(Vec<u8>),
    /// The lease is the caller's.
    Granted {
        /// What is stored now, and what the result will replace. If nothing is: the moment, so that this nothing is not taken
        /// for a later one.
        base: Epoch,
    },
    /// Somebody else has the lease.
    Held {
        /// How long at most, unless it is renewed.
        left: Duration,
    },
    /// The last load failed, and nobody is granted the lease for a while.
    Cooling {
        /// How long.
        left: Duration,
    },
}

/// What a caller that loaded a key wants to store.
#[derive(Clone, Debug)]
pub struct Publish {
    /// What was stored when the lease was granted: from [`Acquired::Granted`], never from anywhere else.
    pub base: Epoch,
    /// The attempt to which it was granted.
    pub token: Token,
    /// An [`envelope`](crate::store::envelope); the store writes the epoch into it.
    pub payload: Vec<u8>,
    /// The hard limit. At least a millisecond.
    pub ttl: Duration,
}

/// Whether a publish took place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// It did.
    Yes {
        /// The epoch it was given.
        epoch: Epoch,
    },
    /// Something else was stored or the key was invalidated since the lease was granted.
    Refused,
}
