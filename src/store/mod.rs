//! The second level: a store of bytes that outlives the process, shared by a fleet.
//!
//! For each key a [`Store`] keeps one *payload* and one *lease*. The lease is the right to load the
//! key, for the whole fleet. Each payload has an [`Epoch`], which the store gives it. Each epoch of
//! a key is later than those before it, unless the clock of the store is set back: see
//! [Clocks](#clocks).
//!
//! # The contracts
//!
//! - **acquire** returns the payload if the caller has not seen it. Otherwise it grants the lease,
//!   if the lease is free or already belongs to this attempt. The grant names the *base*: the epoch
//!   that is stored, or a new epoch if nothing is stored.
//! - **publish** stores a result in two cases only: the stored epoch is exactly the base; or
//!   nothing usable is stored, and the lease still belongs to the publisher, with this base.
//!   Therefore a result that was loaded before an invalidation is refused, even if nothing was
//!   stored before it and nothing is stored after it.
//! - **publish** uses its base up. Another attempt may hold the lease with the same base, because
//!   the lease was lost and granted again. It keeps the lease, so that no third load starts, but
//!   its own `publish` is refused, even if the stored payload is lost before it.
//! - **set** and **invalidate** end the lease, so that a load that began before them is not
//!   published after them. They follow the order of writes below.
//! - The store notifies every listener of a namespace of each change in it, with its epoch, in the
//!   order of the changes.
//!
//! Within one history of the store, three promises follow:
//!
//! - (A) Each stored epoch has at most one successor.
//! - (B) A value whose load began before an `invalidate` or a `set` is not published after it.
//! - (C) At most one process of the fleet loads a key at a time, unless a failover, a flush or an
//!   eviction loses the lease.
//!
//! # The order of writes
//!
//! A write may reach the store late, so it comes with its [`Birth`]. It is *later* than what is
//! stored in four cases: nothing is stored; the writer has seen the stored epoch; its birth is not
//! before that of the stored value, which is [`envelope::born`] for a value that was written, and
//! the epoch for a value that was loaded; or the stored epoch is ahead of the clock by more than a
//! second.
//!
//! - A write that is not later than a stored write of another caller is refused, and changes
//!   nothing.
//! - An invalidation removes a loaded value in any case, because the value may have been loaded
//!   before the write, and stored after it.
//! - For the same reason a set replaces every loaded value while the set is at most one second old.
//!   An older set is refused and removes a younger loaded value, because either of the two may be
//!   out of date.
//!
//! Leases follow Nishtala et al., "Scaling Memcache at Facebook", NSDI 2013.
//!
//! # Clocks
//!
//! An epoch is the time of the store. If the stored epoch is ahead of the clock by more than a
//! second, the clock was set back, and the next epoch is the present time, not the next number. The
//! promises do not need the order of epochs, because a publication compares its base for equality
//! only. A store in which this can happen counts its [timelines](Store::timeline).
//!
//! # A store of your own
//!
//! Any database that can read and write one record in an atomic step can be a store. Implement
//! [`Records`], which are two methods: one runs a step on the [`Record`] of a key, the other is the
//! clock. [`RecordStore`] makes them a store: it contains the lease protocol, and tells the
//! listeners of its own process. `examples/file_store.rs` is such a store over plain files;
//! [`MemoryStore`] is one too.
//!
//! Implement [`Store`] itself if the database should run the protocol, as [Redis does
//! it](crate::docs::store), or tells its changes to other processes. Then you need:
//!
//! - [`envelope::stamp`] and [`envelope::epoch`], which write and read the epoch of a payload. A
//!   store looks at no other part of it.
//! - [`StoreCounters`], which count for [`Store::stats`]: the answers of each read, each change
//!   that is told, and each error.
//! - [`ChangeListeners`], which keep the listeners for [`Store::subscribe`].
//! - [`Background`], a thread for [`Store::spawn`], if you have no runtime.
//!
//! For both, `testing::store_contract`, with the feature `test-util`, has one check for each
//! contract. The macro `store_contract_tests!` writes a test for each of them.

mod background;
mod change_listeners;
pub(crate) mod change_queue;
#[cfg(any(test, feature = "test-util"))]
mod chaos;
mod codec;
mod compression;
#[cfg(feature = "encryption")]
mod encryption;
pub mod envelope;
mod error;
#[cfg(feature = "file")]
mod file;
pub(crate) mod format;
pub(crate) mod head;
#[cfg(any(feature = "metrics", feature = "tracing"))]
mod instrumented;
mod key;
pub(crate) mod lease;
mod memory;
mod payload_error;
mod record;
mod record_store;
#[cfg(feature = "redis")]
mod redis;
mod stats;
mod step;
mod timelines;

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
#[cfg(feature = "encryption")]
pub use encryption::EncryptionKeys;
pub use envelope::{Head, Opened, Terms};
pub use error::{ErrorClass, StoreError};
#[cfg(feature = "file")]
pub use file::{FileError, FileErrorKind, FileRecords, FileStore, Recovery};
pub use format::Format;
pub use key::{Namespace, StoreKey};
pub use lease::{Acquire, Acquired, Birth, Epoch, Origin, Publish, Stored, Token};
pub use memory::{MemoryRecords, MemoryStore};
pub use payload_error::PayloadError;
pub use record::Record;
pub use record_store::{RecordStore, Records};
pub use stats::{StoreCounters, StoreStats};

use crate::sync::future::{BoxFuture, all};
use crate::sync::{Arc, Weak};
use crate::time::clock::Clock;

/// The answer of a store, on its way.
pub type Reply<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A second level: payloads and leases, shared by every process that uses the same store.
///
/// [`envelope`] makes and reads payloads; a store looks only at their epochs. No operation waits
/// longer than the time limit of the store, even if its server hangs. All operations may be called
/// from any thread, on any runtime or on none. An operation is one atomic step for all processes.
///
/// The [contracts](self#the-contracts) are those of the module. `testing::store_contract` checks an
/// implementation.
///
/// # Cancel safety
///
/// A reply that is dropped may still take effect. So may one that ended with
/// [`ErrorClass::TimedOut`] or [`ErrorClass::Unavailable`], because the caller cannot know how far
/// the request came. Every operation may be repeated.
pub trait Store: fmt::Debug + Send + Sync + 'static {
    /// Reads the payloads of these keys together: one answer for each key, in their order.
    ///
    /// Data above the size limit of the store are an error of class [`ErrorClass::TooLarge`]. Data
    /// that everfresh did not write are an error of class [`ErrorClass::Foreign`], or bytes that
    /// are no payload. The caller treats each of them as if nothing were stored.
    fn read<'a>(
        &'a self,
        keys: &'a [StoreKey],
    ) -> Reply<'a, Vec<Result<Option<Vec<u8>>, StoreError>>>;

    /// Reads the heads of the payloads of these keys: one answer for each key, in their order;
    /// `None` where no usable payload is stored.
    ///
    /// Of large payloads a store transfers only the head, if it can.
    fn heads<'a>(
        &'a self,
        keys: &'a [StoreKey],
    ) -> Reply<'a, Vec<Result<Option<Head>, StoreError>>> {
        Box::pin(async move {
            let answers = self.read(keys).await.into_iter();
            let head = |payload: Option<Vec<u8>>| payload.as_deref().and_then(envelope::head);
            answers.map(|answer| answer.map(head)).collect()
        })
    }

    /// Asks for the right to load a key, or for the payload that another caller stored meanwhile.
    fn acquire<'a>(
        &'a self,
        key: &'a StoreKey,
        ask: Acquire,
    ) -> Reply<'a, Result<Acquired, StoreError>>;

    /// Asks for the leases of several keys together: one answer for each question, in their order.
    ///
    /// Each is the answer that [`acquire`](Self::acquire) would give, and an atomic step of its
    /// own. Default: asks for each of them, all at the same time. A store whose server is far away
    /// sends them together.
    fn acquire_many<'a>(
        &'a self,
        asks: &'a [(StoreKey, Acquire)],
    ) -> Reply<'a, Vec<Result<Acquired, StoreError>>> {
        let asks = asks.iter().map(|(key, ask)| self.acquire(key, *ask));
        Box::pin(all(asks))
    }

    /// Stores a value that was loaded under a lease, unless another change came first.
    ///
    /// [`Stored::Refused`] means that the value may be out of date. The caller keeps it only if
    /// [`tells_everything`](Self::tells_everything) and no later set or removal is known. Either
    /// way the lease of this attempt ends.
    fn publish<'a>(
        &'a self,
        key: &'a StoreKey,
        publish: Publish,
    ) -> Reply<'a, Result<Stored, StoreError>>;

    /// Extends a lease from now on; false if it no longer belongs to this token.
    fn renew<'a>(
        &'a self,
        key: &'a StoreKey,
        token: Token,
        lease: Duration,
    ) -> Reply<'a, Result<bool, StoreError>>;

    /// Gives a lease back without a result; false if it no longer belonged to this token.
    ///
    /// With a `cool_down` of zero the load ended, and its result cannot be stored. Listeners get
    /// the change [`ChangeKind::NotStored`], because callers need not wait for the result.
    ///
    /// With a longer `cool_down` the load failed. The [`origin`](Token::origin) of the token is
    /// granted no lease of this key for that time. Other origins may try at once, each once: one
    /// that fails too is named beside those that failed before. A publication, a `set` and an
    /// `invalidate` end the cool-down. Once 16 origins have failed, none is granted the lease until
    /// the cool-down ends.
    fn release<'a>(
        &'a self,
        key: &'a StoreKey,
        token: Token,
        cool_down: Option<Duration>,
    ) -> Reply<'a, Result<bool, StoreError>>;

    /// Replaces the payload and ends the lease, unless what is stored is later than the birth of
    /// this write; see [the order of writes](self#the-order-of-writes).
    fn set<'a>(
        &'a self,
        key: &'a StoreKey,
        payload: Vec<u8>,
        ttl: Duration,
        birth: Birth,
    ) -> Reply<'a, Result<Stored, StoreError>>;

    /// Removes the payload and ends the lease, unless a later write is stored. The epoch of the
    /// removal is later than that of the payload.
    fn invalidate<'a>(
        &'a self,
        key: &'a StoreKey,
        birth: Birth,
    ) -> Reply<'a, Result<Stored, StoreError>>;

    /// The time by the clock of the store, in microseconds, comparable with [`Epoch::micros`];
    /// `None` before the first connection.
    ///
    /// Costs no round trip: a store estimates it from an earlier reading and the monotonic clock of
    /// this machine.
    fn now(&self) -> Option<u64>;

    /// How often changes may have been missed so far: raised after every reconnection, once changes
    /// arrive again.
    ///
    /// A payload that was read before a gap may be out of date although no listener was notified.
    fn gaps(&self) -> u64;

    /// The number of the history of the store, as far as this process can tell. Default: 0, for a
    /// store that never begins a new one.
    ///
    /// Raised, before listeners are told of the gap, if the store came back without being the one
    /// that was there before or its successor. A payload from before is then missing because it was
    /// lost, and not because its key was invalidated.
    fn history(&self) -> u64 {
        0
    }

    /// The number of the timeline: epochs of one timeline are ordered, epochs of two are not
    /// compared. Default: the number of the [history](Self::history).
    ///
    /// Raised, before listeners are told of a gap, when a new history begins, and when the clock of
    /// the store is behind what it was before, by more than a second: it was set back, or a server
    /// with a slower clock took the place of its predecessor. Not raised by a clock that is set
    /// ahead, but that is a gap too, unless [`now`](Self::now) follows at once.
    fn timeline(&self) -> u64 {
        self.history()
    }

    /// Whether the listeners of this process are told every change of every process, or that there
    /// was a [gap](Self::gaps). Default: false.
    ///
    /// A publication is also refused if its lease was lost and nothing is stored. If every change
    /// is told and no later one is known, the value is good, and the process that loaded it keeps
    /// it.
    fn tells_everything(&self) -> bool {
        false
    }

    /// Whether the store can be used now.
    fn state(&self) -> StoreState;

    /// The counts so far.
    fn stats(&self) -> StoreStats;

    /// Notifies a listener of every change in a namespace, until the listener is dropped.
    ///
    /// The store calls [`ChangeListener::reconnected`] once changes arrive, the first time as well;
    /// it may do so during this call.
    fn subscribe(&self, namespace: &Namespace, listener: Weak<dyn ChangeListener>);

    /// Runs background work of a cache, which waits but does not compute, until it ends or the
    /// store is dropped.
    fn spawn(&self, work: BoxFuture);
}

/// A store as one cache sees it: timed and traced, if the features for that are on.
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
    /// Not usable, and why. The store keeps trying by itself.
    Down(StoreError),
}

impl StoreState {
    /// Whether the store can be used.
    pub fn is_up(&self) -> bool {
        matches!(self, StoreState::Up)
    }
}

/// Receives the changes in a store.
///
/// Called on a thread of the store, in the order of the changes. It must be quick and must not
/// wait.
pub trait ChangeListener: Send + Sync {
    /// A key changed.
    fn changed(&self, change: &Change);

    /// Changes may have been missed before this moment, and arrive from now on.
    fn reconnected(&self, gaps: u64);
}

/// A change of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The kind of the change.
    pub kind: ChangeKind,
    /// The epoch of the change: entries of the key with an earlier epoch are out of date. `None` if
    /// the change stores and removes nothing.
    pub epoch: Option<Epoch>,
    /// The hash of the key: [`StoreKey::hash`].
    pub hash: u128,
    /// The cache that made the change, so that it can ignore its own changes.
    pub origin: Origin,
}

impl ChangeKind {
    /// The change when a lease is given back; see [`Store::release`].
    pub(crate) fn released(cool_down: Option<Duration>) -> Self {
        match cool_down {
            Some(Duration::ZERO) => ChangeKind::NotStored,
            _ => ChangeKind::Released,
        }
    }
}

/// The kind of a [`Change`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChangeKind {
    /// A load was published.
    Refreshed,
    /// A value was set.
    Set,
    /// The key was invalidated.
    Invalidated,
    /// A lease was given back without a result: callers that wait for it may try.
    Released,
    /// A load ended, and its result could not be stored: callers that wait for it load for
    /// themselves.
    NotStored,
}
