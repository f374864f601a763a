//! The settings of a store in Redis.

use std::fmt;
use std::time::Duration;

use tokio::sync::Notify;

use super::RedisStore;
use super::cluster::Cluster;
use super::dial::{Endpoint, Security, Target, login};
use super::limited_stream::StreamLimit;
use super::node::Node;
use super::runtime::Runtime;
use super::scripts::Scripts;
use super::shared::Shared;
use super::slots::Slots;
use crate::store::change_listeners::ChangeListeners;
use crate::store::error::{ErrorClass, StoreError};
use crate::store::stats::StoreCounters;
use crate::store::{Store, StoreState, envelope};
use crate::sync::event::Event;
use crate::sync::future::block_on;
use crate::sync::{Arc, AtomicU64, Mutex, Slot};
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
/// // Does not wait for the server; `connect` and `connect_blocking` do.
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
    database: Option<i64>,
    timeout: Duration,
    limit: usize,
    #[cfg(feature = "redis-tls")]
    authority: Option<Vec<u8>>,
}

/// What is at the URLs.
pub(super) enum Kind {
    Standalone,
    /// Sentinels, which know the master of this name.
    Sentinels(String),
    Cluster,
}

/// What is to be kept up.
enum Place {
    Single(Target),
    Cluster(Cluster),
}

impl Place {
    /// Keeps it up, for ever.
    async fn keep(&self, shared: Arc<Shared>, timeout: Duration) {
        match self {
            Place::Single(target) => {
                let node = Arc::new(Node::new(Default::default(), &shared.changed));
                let slots = Slots::single(node.clone());
                shared.slots.swap(Some(Arc::new(slots)));
                node.keep(shared, target, timeout).await;
            }
            Place::Cluster(cluster) => cluster.keep(&shared).await,
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
            limit: envelope::LONGEST,
            #[cfg(feature = "redis-tls")]
            authority: None,
        }
    }

    /// User and password, instead of those in the URL; an empty user is the default one.
    pub fn login(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        self.user = Some(user.into()).filter(|user| !user.is_empty());
        self.password = Some(password.into());
        self
    }

    /// The number of the database, instead of that in the URL. 0 if neither says.
    pub fn database(mut self, number: u32) -> Self {
        self.database = Some(number.into());
        self
    }

    /// The longest that any operation, or an attempt to connect, may wait. 1 s if not given, 10 ms at least.
    ///
    /// A third of it lies between heartbeats. A payload that takes longer than two thirds of it on the network looks like a
    /// server that hangs.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The largest payload that is written or read, in bytes. That of an encoded value of 8 MiB if not given.
    pub fn limit(mut self, bytes: usize) -> Self {
        self.limit = bytes;
        self
    }

    /// Trusts the certificates in this PEM text, instead of those that the system trusts.
    #[cfg(feature = "redis-tls")]
    pub fn authority(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.authority = Some(pem.into());
        self
    }

    /// Starts without waiting for the server: it may come up later.
    ///
    /// Called on a tokio runtime of several threads, the store works there: a read of an absent key then changes no threads. Elsewhere, and
    /// from the moment that runtime ends, it works on a thread of its own.
    ///
    /// # Errors
    ///
    /// If a setting is wrong, or the system has no thread left.
    pub fn start(self) -> Result<RedisStore, StoreError> {
        if self.timeout < Duration::from_millis(10) {
            let text = "the timeout must be 10 ms or more";
            return Err(StoreError::new(ErrorClass::Setting, text));
        }
        let (limit, timeout) = (self.limit, self.timeout);
        let place = self.place()?;
        let shared = Arc::new(Shared {
            slots: Slot::new(None),
            unknown: Mutex::default(),
            doubt: Notify::new(),
            changed: Arc::new(Event::new()),
            verbs: Scripts::new(),
            limit,
            // The one byte more that tells of more.
            cap: StreamLimit::new(limit.saturating_add(1)),
            clock: Clock::precise(),
            gaps: AtomicU64::new(0),
            change_listeners: ChangeListeners::default(),
            counters: StoreCounters::default(),
        });
        let (kept, place) = (shared.clone(), Arc::new(place));
        let runtime = Runtime::start(move || {
            let (kept, place) = (kept.clone(), place.clone());
            Box::pin(async move { place.keep(kept, timeout).await })
        });
        let runtime = runtime.map_err(|error| {
            StoreError::new(ErrorClass::Setting, format!("no thread: {}", error.kind()))
        })?;
        Ok(RedisStore { shared, runtime })
    }

    /// Starts, and waits for the first attempt to connect.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start), and if that attempt fails; nothing is left of it then.
    ///
    /// # Cancel safety
    ///
    /// Dropped, nothing is left of it.
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

    /// The same as [`connect`](Self::connect), from a thread.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect).
    pub fn connect_blocking(self) -> Result<RedisStore, StoreError> {
        block_on(self.connect())
    }

    #[cfg(feature = "redis-tls")]
    fn encrypted(&self) -> Result<Security, StoreError> {
        use super::tls::Tls;
        let tls = match &self.authority {
            Some(pem) => Tls::trusting(pem),
            None => Tls::system(),
        };
        tls.map(Security::Tls)
    }

    #[cfg(not(feature = "redis-tls"))]
    fn encrypted(&self) -> Result<Security, StoreError> {
        let text = "rediss:// needs the feature `redis-tls`";
        Err(StoreError::new(ErrorClass::Setting, text))
    }

    fn place(self) -> Result<Place, StoreError> {
        let endpoints = self.urls.iter();
        let endpoints = endpoints.map(|url| Endpoint::parse(url, || self.encrypted()));
        let mut endpoints = endpoints.collect::<Result<Vec<_>, _>>()?;
        let ours = |mut settings: redis::RedisConnectionInfo| {
            if let Some(user) = &self.user {
                settings = settings.set_username(user);
            }
            if let Some(password) = &self.password {
                settings = settings.set_password(password);
            }
            if let Some(database) = self.database {
                settings = settings.set_db(database);
            }
            login(settings)
        };
        let Some(first) = endpoints.first_mut() else {
            let text = "at least one URL must be given";
            return Err(StoreError::new(ErrorClass::Setting, text));
        };
        Ok(match self.kind {
            Kind::Standalone => {
                first.login = ours(first.login.clone());
                Place::Single(Target::Standalone(endpoints.swap_remove(0)))
            }
            Kind::Sentinels(master) => Place::Single(Target::Sentinel {
                master,
                login: ours(redis::RedisConnectionInfo::default()),
                security: first.security.clone(),
                sentinels: endpoints,
            }),
            Kind::Cluster => {
                let login = ours(first.login.clone());
                if login.db() != 0 {
                    let text = "a cluster has database 0 only";
                    return Err(StoreError::new(ErrorClass::Setting, text));
                }
                let security = first.security.clone();
                for seed in &mut endpoints {
                    seed.login = login.clone();
                }
                Place::Cluster(Cluster {
                    seeds: endpoints,
                    login,
                    security,
                    limit: self.timeout,
                })
            }
        })
    }
}

// No URL: there may be a password in it.
impl fmt::Debug for RedisBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisBuilder")
            .field("timeout", &self.timeout)
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}
