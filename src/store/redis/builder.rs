//! The builder of a store in Redis.

use std::fmt;
use std::time::Duration;

use tokio::sync::Notify;

use super::RedisStore;
use super::cluster::Cluster;
use super::dial::{Endpoint, Login, Security, Target, setting};
use super::limited_stream::StreamLimit;
use super::messages;
use super::node::Node;
use super::runtime::Runtime;
use super::scripts::Scripts;
use super::shared::Shared;
use super::slots::Slots;
use super::supervisor::Limits;
use crate::store::change_listeners::ChangeListeners;
use crate::store::error::{ErrorClass, StoreError};
use crate::store::stats::StoreCounters;
use crate::store::{Store, StoreState, envelope};
use crate::sync::event::Event;
use crate::sync::runtime::block_on;
use crate::sync::{Arc, ArcCell, AtomicU64, Mutex};
use crate::time::clock::Clock;

/// Configures a [`RedisStore`]; made by [`RedisStore::builder`].
///
/// # Example
///
/// ```no_run
/// use std::time::Duration;
///
/// use everfresh::store::RedisStore;
///
/// // `start` does not wait for the server; `connect` and `connect_blocking` do.
/// let store = RedisStore::builder("redis://127.0.0.1:6379")
///     .login("shop", "secret")
///     .database(2)
///     .timeout(Duration::from_millis(500))
///     .limit(1 << 20)
///     .start()?;
/// # Ok::<(), everfresh::store::StoreError>(())
/// ```
pub struct RedisBuilder {
    urls: Vec<String>,
    kind: Kind,
    user: Option<String>,
    password: Option<String>,
    database: Option<u32>,
    timeout: Duration,
    connect_timeout: Duration,
    limit: usize,
    #[cfg(feature = "redis-tls")]
    authority: Option<Vec<u8>>,
    #[cfg(feature = "redis-tls")]
    identity: Option<super::tls::Identity>,
}

/// The kind of servers at the URLs.
pub(super) enum Kind {
    Standalone,
    /// Sentinels that report the address of the master of this name.
    Sentinels(String),
    Cluster,
}

/// The servers to stay connected to.
enum Deployment {
    Single(Target),
    Cluster(Cluster),
}

impl Deployment {
    /// The number of the database.
    fn database(&self) -> u32 {
        match self {
            Deployment::Single(Target::Standalone(endpoint)) => endpoint.login.database,
            Deployment::Single(Target::Sentinel { login, .. }) => login.database,
            Deployment::Single(Target::ClusterMaster(_)) | Deployment::Cluster(_) => 0,
        }
    }

    /// Keeps the connections up, for ever.
    async fn keep(&self, shared: Arc<Shared>, limits: Limits) {
        match self {
            Deployment::Single(target) => {
                let node = Arc::new(Node::new(
                    Default::default(),
                    target.name(),
                    &shared.changed,
                ));
                let slots = Slots::single(node.clone());
                shared.slots.swap(Some(Arc::new(slots)));
                node.keep(shared, target, limits).await;
            }
            Deployment::Cluster(cluster) => cluster.keep(&shared).await,
        }
    }
}

impl RedisBuilder {
    pub(super) fn new(urls: Vec<String>, kind: Kind) -> Self {
        RedisBuilder {
            urls,
            kind,
            user: None,
            password: None,
            database: None,
            timeout: Duration::from_secs(1),
            connect_timeout: Duration::from_secs(10),
            limit: envelope::LONGEST,
            #[cfg(feature = "redis-tls")]
            authority: None,
            #[cfg(feature = "redis-tls")]
            identity: None,
        }
    }

    /// Sets user and password, in place of those in the URL. An empty name means the default user.
    pub fn login(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        self.user = Some(user.into()).filter(|user| !user.is_empty());
        self.password = Some(password.into());
        self
    }

    /// Sets the number of the database, in place of that in the URL. Default: 0.
    pub fn database(mut self, number: u32) -> Self {
        self.database = Some(number);
        self
    }

    /// Limits how long an operation waits. At least 10 ms. Default: 1 s.
    ///
    /// A heartbeat is sent every third of this time. If nothing arrives on the connection for two
    /// thirds of it, the server hangs, and all operations on the connection fail. On a line that is
    /// slow but works, an operation waits for its turn, and may take longer than this limit.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Limits how long an attempt to connect takes. At least 10 ms. Default: 10 s.
    ///
    /// An attempt takes four round trips; with TLS two more, and behind sentinels two for each
    /// sentinel that is asked. An attempt that fails is repeated without an end, unless it is that
    /// of [`connect`](Self::connect).
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Sets the largest payload that is written or read, in bytes. Default: room for an encoded
    /// value of 8 MiB.
    pub fn limit(mut self, bytes: usize) -> Self {
        self.limit = bytes;
        self
    }

    /// Trusts the CA certificates in this PEM text, in place of those of the system.
    #[cfg(feature = "redis-tls")]
    pub fn authority(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.authority = Some(pem.into());
        self
    }

    /// Proves this client to the server by a certificate, with the chain up to its authority, and
    /// its private key; both in PEM format.
    ///
    /// A Redis with TLS asks for one, unless its setting `tls-auth-clients` is `no` or `optional`.
    #[cfg(feature = "redis-tls")]
    pub fn identity(
        mut self,
        certificates: impl Into<Vec<u8>>,
        private_key: impl Into<Vec<u8>>,
    ) -> Self {
        self.identity = Some((certificates.into(), private_key.into()));
        self
    }

    /// Starts the store without waiting for the server, which may come up later.
    ///
    /// If the caller runs on a tokio runtime with several threads, the store works on that runtime,
    /// and a read then needs no switch of threads. Otherwise, and after that runtime has ended, the
    /// store works on a thread of its own.
    ///
    /// # Errors
    ///
    /// A setting is wrong, or the system cannot start a thread.
    pub fn start(self) -> Result<RedisStore, StoreError> {
        if self.timeout.min(self.connect_timeout) < Duration::from_millis(10) {
            return Err(setting("a timeout must be 10 ms or more"));
        }
        let (limit, limits) = (self.limit, self.limits());
        let deployment = self.deployment()?;
        let shared = Arc::new(Shared {
            slots: ArcCell::empty(),
            discovery_error: Mutex::default(),
            recheck: Notify::new(),
            changed: Arc::new(Event::new()),
            scripts: Scripts::new(),
            limit,
            // One byte more, because reads ask for it to learn that a payload is longer.
            stream_limit: StreamLimit::new(limit.saturating_add(1)),
            typical_size: Default::default(),
            clock: Clock::precise(),
            gaps: AtomicU64::new(0),
            histories: AtomicU64::new(0),
            timelines: AtomicU64::new(0),
            channel_suffix: messages::suffix(deployment.database()),
            change_listeners: ChangeListeners::default(),
            counters: StoreCounters::default(),
        });
        let (state, deployment) = (shared.clone(), Arc::new(deployment));
        let runtime = Runtime::start(move || {
            let (state, deployment) = (state.clone(), deployment.clone());
            Box::pin(async move { deployment.keep(state, limits).await })
        });
        let runtime = runtime.map_err(|error| {
            StoreError::new(ErrorClass::Setting, format!("no thread: {}", error.kind()))
        })?;
        Ok(RedisStore { shared, runtime })
    }

    /// Starts the store, and waits for the first attempt to connect.
    ///
    /// # Errors
    ///
    /// The errors of [`start`](Self::start), and the failure of that attempt. The store is then
    /// stopped.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the store is stopped.
    pub async fn connect(self) -> Result<RedisStore, StoreError> {
        let store = self.start()?;
        let event = store.shared.changed.clone();
        loop {
            let changed = event.listen();
            match store.state() {
                StoreState::Up => return Ok(store),
                StoreState::Down(error) => return Err(error),
                StoreState::Connecting => changed.await,
            }
        }
    }

    /// Does the same as [`connect`](Self::connect), and blocks the thread.
    ///
    /// # Errors
    ///
    /// The errors of [`connect`](Self::connect).
    pub fn connect_blocking(self) -> Result<RedisStore, StoreError> {
        block_on(self.connect())
    }

    #[cfg(feature = "redis-tls")]
    fn encrypted(&self) -> Result<Security, StoreError> {
        let tls = super::tls::Tls::new(self.authority.as_deref(), self.identity.as_ref());
        tls.map(Security::Tls)
    }

    #[cfg(not(feature = "redis-tls"))]
    fn encrypted(&self) -> Result<Security, StoreError> {
        Err(setting("rediss:// needs the feature `redis-tls`"))
    }

    fn limits(&self) -> Limits {
        Limits {
            operation: self.timeout,
            connect: self.connect_timeout,
        }
    }

    fn deployment(self) -> Result<Deployment, StoreError> {
        let limits = self.limits();
        let endpoints = self.urls.iter();
        let endpoints = endpoints.map(|url| Endpoint::parse(url, || self.encrypted()));
        let mut endpoints = endpoints.collect::<Result<Vec<_>, _>>()?;
        let with_overrides = |mut login: Login| {
            if self.user.is_some() {
                login.user = self.user.clone();
            }
            if self.password.is_some() {
                login.password = self.password.clone();
            }
            login.database = self.database.unwrap_or(login.database);
            login
        };
        let Some(first) = endpoints.first_mut() else {
            return Err(setting("at least one URL must be given"));
        };
        Ok(match self.kind {
            Kind::Standalone => {
                first.login = with_overrides(first.login.clone());
                Deployment::Single(Target::Standalone(endpoints.swap_remove(0)))
            }
            Kind::Sentinels(master) => Deployment::Single(Target::Sentinel {
                master,
                login: with_overrides(Login::default()),
                security: first.security.clone(),
                sentinels: endpoints,
            }),
            Kind::Cluster => {
                let login = with_overrides(first.login.clone());
                if login.database != 0 {
                    return Err(setting("a cluster has database 0 only"));
                }
                let security = first.security.clone();
                for seed in &mut endpoints {
                    seed.login = login.clone();
                }
                Deployment::Cluster(Cluster {
                    seeds: endpoints,
                    login,
                    security,
                    limits,
                })
            }
        })
    }
}

// Omits the URLs, because they can contain a password.
impl fmt::Debug for RedisBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisBuilder")
            .field("timeout", &self.timeout)
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}
