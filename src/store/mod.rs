//! The second level: a store of bytes that outlives the process, shared by a fleet.
//!
//! A [`Store`] keeps one *payload* for each key, and one *lease*: the right to refresh it, for the whole fleet. Every payload it
//! keeps has an [`Epoch`], given by the store, never reused, later than any before it. The contracts:
//!
//! - **acquire** returns a payload the caller has not seen, else grants the lease if it is free or already the caller's, and
//!   names the epoch that is stored: the base.
//! - **publish** stores if the stored epoch is exactly the base, or if nothing usable is stored and the lease still belongs to the
//!   publisher, with this base. "Nothing" is never a base by itself: nothing now and nothing then may have had an invalidation between
//!   them. So a lease that is granted over nothing has the moment as its base, and remembers it: an attempt that is repeated, and arrives
//!   once more after the invalidation, is another lease.
//! - **set** and **invalidate** take the lease away, so that what was being loaded before them is not published after them.
//! - Every change is told to all change_listeners, with its epoch, in the same step as the change.
//!
//! What follows from them, within one history of the store: (A) at most one successor of each stored epoch; (B) nothing
//! loaded before an `invalidate` or `set` is published after it; (C) unless a failover, a flush or eviction loses the lease, one loader in the fleet.
//!
//! Leases after Nishtala et al., "Scaling Memcache at Facebook", NSDI 2013.

mod background;
mod change_listeners;
#[cfg(any(test, feature = "test-util"))]
mod chaos;
mod codec;
pub mod envelope;
mod error;
#[cfg(any(feature = "metrics", feature = "tracing"))]
mod instrumented;
mod key;
mod lease;
mod memory;
mod payload_error;
#[cfg(feature = "redis")]
mod redis;
mod stats;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

#[cfg(feature = "redis")]
pub use self::redis::{RedisBuilder, RedisStore};
pub use background::Background;
pub use change_listeners::ChangeListeners;
#[cfg(any(test, feature = "test-util"))]
pub use chaos::{ChaosStore, Fault, Op};
#[cfg(feature = "json")]
pub use codec::Json;
#[cfg(feature = "msgpack")]
pub use codec::MessagePack;
#[cfg(feature = "postcard")]
pub use codec::Postcard;
pub use codec::{Codec, Rejected};
pub use envelope::{Format, Opened, Terms};
pub use error::{ErrorClass, StoreError};
pub use key::{Namespace, StoreKey};
pub use lease::{Acquire, Acquired, Epoch, Origin, Publish, Stored, Token};
pub use memory::MemoryStore;
pub use payload_error::PayloadError;
pub use stats::{StoreCounters, StoreStats};

use crate::sync::future::BoxFuture;
use crate::sync::{Arc, Weak};
use crate::time::clock::Clock;

/// The answer of a store, on its way.
pub type Reply<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A second level: payloads and leases, shared by every process that uses the same one.
///
/// Payloads are made and read by [`envelope`]; a store looks only at the epoch in them. No operation waits longer than the
/// store's own time limit, whatever happens to its server. All of them may be called from any thread, on any runtime or on
/// none.
///
/// # Cancel safety
///
/// A reply that is dropped may still take effect, as may one that ended with [`ErrorClass::TimedOut`] or
/// [`ErrorClass::Unavailable`]: the caller cannot know. Every operation may be repeated.
pub trait Store: fmt::Debug + Send + Sync + 'static {
    /// The payloads of these keys: one answer for each, in their order, read together.
    ///
    /// If something is stored that no cache can use, an answer is an error of class [`ErrorClass::TooLarge`] or
    /// [`ErrorClass::Foreign`], or nothing; treat all of them as nothing.
    fn read<'a>(
        &'a self,
        keys: &'a [StoreKey],
    ) -> Reply<'a, Vec<Result<Option<Vec<u8>>, StoreError>>>;

    /// Asks for the right to load a key, or for what somebody else loaded meanwhile.
    fn acquire<'a>(
        &'a self,
        key: &'a StoreKey,
        ask: Acquire,
    ) -> Reply<'a, Result<Acquired, StoreError>>;

    /// Stores what was loaded under a lease, unless something else came first.
    ///
    /// [`Stored::Refused`] means that the value is out of date: its loader must not keep it either.
    fn publish<'a>(
        &'a self,
        key: &'a StoreKey,
        publish: Publish,
    ) -> Reply<'a, Result<Stored, StoreError>>;

    /// Extends a lease from now on; false if it is no longer this token's.
    fn renew<'a>(
        &'a self,
        key: &'a StoreKey,
        token: Token,
        lease: Duration,
    ) -> Reply<'a, Result<bool, StoreError>>;

    /// Gives a lease back without a result; false if it was no longer this token's.
    ///
    /// With `cool_down` nobody is granted it for so long, so that a fleet does not hammer an origin that fails.
    fn release<'a>(
        &'a self,
        key: &'a StoreKey,
        token: Token,
        cool_down: Option<Duration>,
    ) -> Reply<'a, Result<bool, StoreError>>;

    /// Stores a payload whatever is there, and returns its epoch.
    fn set<'a>(
        &'a self,
        key: &'a StoreKey,
        payload: Vec<u8>,
        ttl: Duration,
        origin: Origin,
    ) -> Reply<'a, Result<Epoch, StoreError>>;

    /// Removes a payload, and returns the epoch of the removal: later than what it removed.
    fn invalidate<'a>(
        &'a self,
        key: &'a StoreKey,
        origin: Origin,
    ) -> Reply<'a, Result<Epoch, StoreError>>;

    /// The time by the store's clock, in microseconds, comparable with [`Epoch::micros`]; `None` before the first connection.
    ///
    /// An estimate from an earlier reading and this machine's monotonic clock; costs no round trip.
    fn now(&self) -> Option<u64>;

    /// How often changes may have been missed so far: raised after every reconnection, once changes arrive again.
    ///
    /// What was read before an earlier gap may be out of date without anyone having been told.
    fn gaps(&self) -> u64;

    /// Whether it can be used now.
    fn state(&self) -> StoreState;

    /// What it has done so far.
    fn stats(&self) -> StoreStats;

    /// Tells a listener of every change in a namespace, until the listener is dropped.
    ///
    /// [`ChangeListener::reconnected`] is called once changes arrive, the first time as well; it may be during this call.
    fn subscribe(&self, namespace: &Namespace, listener: Weak<dyn ChangeListener>);

    /// Runs background work of a cache, where the store works: work that waits, never work that computes. It goes on until it ends, or the store is dropped.
    fn spawn(&self, work: BoxFuture);
}

/// A store as one cache is to see it: timed and traced, if a feature wants that.
#[cfg_attr(
    not(any(feature = "metrics", feature = "tracing")),
    expect(unused_variables)
)]
pub(crate) fn instrumented(
    store: Arc<dyn Store>,
    cache: &Arc<str>,
    clock: &Clock,
) -> Arc<dyn Store> {
    #[cfg(any(feature = "metrics", feature = "tracing"))]
    let store = Arc::new(instrumented::Instrumented {
        store,
        cache: cache.clone(),
        clock: clock.clone(),
    });
    store
}

/// Whether a store can be used.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum StoreState {
    /// Not yet connected for the first time.
    Connecting,
    /// Connected.
    Up,
    /// Not usable, and why; it goes on trying by itself.
    Down(StoreError),
}

impl StoreState {
    /// Whether it can be used.
    pub fn is_up(&self) -> bool {
        matches!(self, StoreState::Up)
    }
}

/// Who is told of changes in a store.
///
/// Called on the store's thread, in the order of the changes; must be quick and must not wait.
pub trait ChangeListener: Send + Sync {
    /// A key changed.
    fn changed(&self, change: &Change);

    /// Changes may have been missed before this moment, and arrive from now on.
    fn reconnected(&self, gaps: u64);
}

/// A change of one key, told to the fleet by whoever made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// What happened.
    pub kind: ChangeKind,
    /// The epoch it has; entries of the key with an earlier one are out of date. `None` if nothing is stored by it.
    pub epoch: Option<Epoch>,
    /// The hash of the key: [`StoreKey::hash`].
    pub hash: u128,
    /// Who did it, to know one's own echo.
    pub origin: Origin,
}

/// What a [`Change`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChangeKind {
    /// A load was published.
    Refreshed,
    /// A value was set.
    Set,
    /// The key was invalidated.
    Invalidated,
    /// A lease was given back without a result: who waits for it may try.
    Released,
}
