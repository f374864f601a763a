//! A store in Redis or Valkey.

mod acquire;
mod builder;
mod classify;
mod cluster;
mod dial;
mod greeting;
mod limited_stream;
mod messages;
mod node;
mod outage_log;
mod runtime;
mod scripts;
mod shared;
mod slots;
mod supervisor;
#[cfg(feature = "redis-tls")]
mod tls;
mod url;
mod wire;

use std::fmt;
use std::time::Duration;

use self::builder::Kind;
pub use self::builder::RedisBuilder;

use self::runtime::Runtime;
use self::scripts::Script;
use self::shared::Shared;
use self::wire::{millis, seen, stored, token_bytes, yes};
use super::error::StoreError;
use super::head::Head;
use super::key::{Namespace, StoreKey};
use super::lease::{Acquire, Acquired, Birth, Publish, Stored, Token};
use super::stats::StoreStats;
use super::{ChangeKind, ChangeListener, Reply, Store, StoreState};
use crate::sync::future::BoxFuture;
use crate::sync::{Arc, Weak};

/// A [`Store`] in Redis (6 or later) or Valkey: standalone, behind sentinels, or a cluster.
///
/// The store keeps two connections (in a cluster, two to each master): one for reads, and one for
/// everything else and for changes. It works on the runtime on which it is made if that runtime has
/// several threads, and otherwise on a thread of its own. Any runtime and any thread may use it.
///
/// As long as the store lives, it reconnects after a lost connection. Until then every operation
/// fails at once. While the server is silent, no operation waits longer than the
/// [`timeout`](RedisBuilder::timeout) of the store.
///
/// The store's user on the server needs these rights, here for namespaces that begin with `shop:`:
///
/// ```text
/// -@all +ping +select +get +getrange +mget +set +setrange +del +pttl +pexpire +strlen
/// +time +eval +evalsha +publish +subscribe
/// resetkeys ~shop:* resetchannels &shop:*
/// ```
///
/// With database 0 the right `+select` is not used. With the right `+info` as well, the store
/// finds out that a single server has come back without its data. Caches then store their fresh
/// values again, instead of loading them.
///
/// # Example
///
/// ```no_run
/// use everfresh::store::{RedisStore, Store};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let store = RedisStore::builder("redis://127.0.0.1/").connect().await?;
/// assert!(store.state().is_up());
/// # Ok(())
/// # }
/// ```
pub struct RedisStore {
    shared: Arc<Shared>,
    runtime: Runtime,
}

impl RedisStore {
    /// Configures a store at one URL.
    ///
    /// The URL has the form `redis://user:password@host:6379/0` or `unix:///path`, or begins with
    /// `rediss://` (TLS), which needs the feature `redis-tls`. In user and password the characters
    /// `:`, `/`, `?`, `#` and `%` are written as `%3A`, `%2F`, `%3F`, `%23` and `%25`.
    pub fn builder(url: impl Into<String>) -> RedisBuilder {
        RedisBuilder::new(vec![url.into()], Kind::Standalone)
    }

    /// Configures a store at the master of this name, whose address the sentinels at these URLs
    /// report.
    ///
    /// User and password in the URLs are for the sentinels; set those for the master with
    /// [`login`](RedisBuilder::login). With `rediss://` the connections to the sentinels and to the
    /// master are encrypted.
    ///
    /// # Example
    ///
    /// ```no_run
    /// use everfresh::store::RedisStore;
    ///
    /// let sentinels = ["redis://10.0.0.1:26379", "redis://10.0.0.2:26379"];
    /// let store = RedisStore::behind_sentinels(sentinels, "mymaster").start()?;
    /// # Ok::<(), everfresh::store::StoreError>(())
    /// ```
    pub fn behind_sentinels<U: Into<String>>(
        sentinels: impl IntoIterator<Item = U>,
        master: impl Into<String>,
    ) -> RedisBuilder {
        let sentinels = sentinels.into_iter().map(Into::into).collect();
        RedisBuilder::new(sentinels, Kind::Sentinels(master.into()))
    }

    /// Configures a store in the cluster whose nodes are at these URLs.
    ///
    /// One URL is enough; the others are used while the first node is down. User and password come
    /// from the first URL, or from [`login`](RedisBuilder::login). With `rediss://` the certificate
    /// of every node must contain the host name that the cluster announces for the node.
    ///
    /// The store asks the cluster for its masters once per [`timeout`](RedisBuilder::timeout) and
    /// after every error, so the user needs the rights `+cluster|info +cluster|slots` as well.
    /// While a slot moves or its master is replaced, operations on its keys fail with
    /// [`ErrorClass::Busy`](super::ErrorClass::Busy) or
    /// [`ErrorClass::Unavailable`](super::ErrorClass::Unavailable); they are not redirected.
    ///
    /// The epochs of a key come from the clock of its own master. The store's [`now`](Store::now)
    /// comes from the master whose clock is furthest ahead, so values can look older by the
    /// difference of the clocks, and never younger.
    ///
    /// # Example
    ///
    /// ```no_run
    /// use everfresh::store::RedisStore;
    ///
    /// let nodes = ["redis://10.0.0.1:6379", "redis://10.0.0.2:6379"];
    /// let store = RedisStore::cluster(nodes).start()?;
    /// # Ok::<(), everfresh::store::StoreError>(())
    /// ```
    pub fn cluster<U: Into<String>>(nodes: impl IntoIterator<Item = U>) -> RedisBuilder {
        let nodes = nodes.into_iter().map(Into::into).collect();
        RedisBuilder::new(nodes, Kind::Cluster)
    }
}

impl Drop for RedisStore {
    fn drop(&mut self) {
        self.runtime.close();
    }
}

impl RedisStore {
    /// Runs a script that changes the payload of a key.
    async fn store(
        &self,
        script: &Script,
        key: &StoreKey,
        arguments: &[&[u8]],
    ) -> Result<Stored, StoreError> {
        let before = self.shared.clock.exact() / 1_000;
        let result = self.shared.run(script, key, arguments, stored).await?;
        if let (Some(epoch), Ok(node)) = (result.epoch(), self.shared.node(key)) {
            node.check_time(&self.shared, epoch, before).await;
        }
        Ok(result)
    }
}

impl Store for RedisStore {
    fn read<'a>(
        &'a self,
        keys: &'a [StoreKey],
    ) -> Reply<'a, Vec<Result<Option<Vec<u8>>, StoreError>>> {
        Box::pin(self.shared.read(keys))
    }

    fn heads<'a>(
        &'a self,
        keys: &'a [StoreKey],
    ) -> Reply<'a, Vec<Result<Option<Head>, StoreError>>> {
        Box::pin(self.shared.heads(keys))
    }

    fn acquire<'a>(
        &'a self,
        key: &'a StoreKey,
        ask: Acquire,
    ) -> Reply<'a, Result<Acquired, StoreError>> {
        Box::pin(self.shared.acquire(key, ask))
    }

    fn acquire_many<'a>(
        &'a self,
        asks: &'a [(StoreKey, Acquire)],
    ) -> Reply<'a, Vec<Result<Acquired, StoreError>>> {
        Box::pin(self.shared.acquire_many(asks))
    }

    fn publish<'a>(
        &'a self,
        key: &'a StoreKey,
        publish: Publish,
    ) -> Reply<'a, Result<Stored, StoreError>> {
        Box::pin(async move {
            let shared = &self.shared;
            shared.check(&publish.payload)?;
            let (base, token) = (seen(Some(publish.base)), token_bytes(publish.token));
            let (ttl, channel) = (millis(publish.ttl), self.shared.channel(key.namespace()));
            let message = messages::message(ChangeKind::Refreshed, publish.token.origin, key);
            let arguments = [
                base.as_bytes(),
                &token,
                ttl.as_bytes(),
                &publish.payload,
                channel.as_bytes(),
                &message,
            ];
            self.store(&shared.scripts.publish, key, &arguments).await
        })
    }

    fn renew<'a>(
        &'a self,
        key: &'a StoreKey,
        token: Token,
        lease: Duration,
    ) -> Reply<'a, Result<bool, StoreError>> {
        Box::pin(async move {
            let (token, lease) = (token_bytes(token), millis(lease));
            let arguments: [&[u8]; 2] = [&token, lease.as_bytes()];
            let renew = &self.shared.scripts.renew;
            self.shared.run(renew, key, &arguments, yes).await
        })
    }

    fn release<'a>(
        &'a self,
        key: &'a StoreKey,
        token: Token,
        cool_down: Option<Duration>,
    ) -> Reply<'a, Result<bool, StoreError>> {
        Box::pin(async move {
            let message = messages::message(ChangeKind::released(cool_down), token.origin, key);
            let channel = self.shared.channel(key.namespace());
            let cooling = cool_down.filter(|cool_down| !cool_down.is_zero());
            let (token, rest) = (token_bytes(token), cooling.map_or("0".to_owned(), millis));
            let arguments: [&[u8]; 4] = [&token, rest.as_bytes(), channel.as_bytes(), &message];
            let release = &self.shared.scripts.release;
            self.shared.run(release, key, &arguments, yes).await
        })
    }

    fn set<'a>(
        &'a self,
        key: &'a StoreKey,
        payload: Vec<u8>,
        ttl: Duration,
        birth: Birth,
    ) -> Reply<'a, Result<Stored, StoreError>> {
        Box::pin(async move {
            self.shared.check(&payload)?;
            let message = messages::message(ChangeKind::Set, birth.origin, key);
            let removal = messages::message(ChangeKind::Invalidated, birth.origin, key);
            let channel = self.shared.channel(key.namespace());
            let (born, seen) = (birth.micros.to_string(), seen(birth.seen));
            let ttl = millis(ttl);
            let arguments = [
                born.as_bytes(),
                seen.as_bytes(),
                channel.as_bytes(),
                &message,
                ttl.as_bytes(),
                &payload,
                &removal,
            ];
            self.store(&self.shared.scripts.set, key, &arguments).await
        })
    }

    fn invalidate<'a>(
        &'a self,
        key: &'a StoreKey,
        birth: Birth,
    ) -> Reply<'a, Result<Stored, StoreError>> {
        Box::pin(async move {
            let message = messages::message(ChangeKind::Invalidated, birth.origin, key);
            let channel = self.shared.channel(key.namespace());
            let (born, seen) = (birth.micros.to_string(), seen(birth.seen));
            let arguments = [
                born.as_bytes(),
                seen.as_bytes(),
                channel.as_bytes(),
                &message,
            ];
            let invalidate = &self.shared.scripts.invalidate;
            self.store(invalidate, key, &arguments).await
        })
    }

    fn now(&self) -> Option<u64> {
        self.shared.now()
    }

    fn gaps(&self) -> u64 {
        self.shared.gaps()
    }

    fn history(&self) -> u64 {
        self.shared.history()
    }

    fn timeline(&self) -> u64 {
        self.shared.timeline()
    }

    /// The change messages of a key arrive on the connection on which its lease is asked for and
    /// its results are sent, so a refusal comes after the message of its cause.
    fn tells_everything(&self) -> bool {
        true
    }

    fn state(&self) -> StoreState {
        self.shared.state()
    }

    fn stats(&self) -> StoreStats {
        self.shared.counters.snapshot()
    }

    fn subscribe(&self, namespace: &Namespace, listener: Weak<dyn ChangeListener>) {
        self.shared.change_listeners.add(namespace, listener);
        for node in self.shared.nodes() {
            node.scripts.wake.notify_one();
        }
    }

    fn spawn(&self, work: BoxFuture) {
        self.runtime.spawn(work);
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore")
            .field("state", &self.state())
            .field("gaps", &self.gaps())
            .finish_non_exhaustive()
    }
}
