//! The store in Redis or Valkey.

mod builder;
mod classify;
mod dial;
mod line;
mod messages;
mod scripts;

use std::fmt;
use std::time::Duration;

use redis::Value;
use tokio::runtime::Handle;
use tokio::sync::Notify;

pub use builder::RedisBuilder;

use self::classify::Trouble;
use self::dial::Ear;
use self::line::{Duty, Line, Link};
use self::scripts::{Keys, Scripts, Verb};
use super::envelope;
use super::error::{ErrorClass, StoreError};
use super::followers::Followers;
use super::key::{Namespace, StoreKey};
use super::lease::{Acquire, Acquired, Epoch, Origin, Publish, Stored, Token};
use super::stats::{StoreCounters, StoreStats};
use super::{ChangeKind, Follower, Reply, Store, StoreState};
use crate::clock::Clock;
use crate::loader::BoxFuture;
use crate::sync::{Arc, AtomicBool, AtomicU64, Mutex, Ordering, Weak, lock};

/// How many keys are asked for in one go.
const TOGETHER: usize = 512;

/// A [`Store`] in Redis (6 or later) or Valkey: standalone, or behind sentinels.
///
/// It owns one thread, which keeps two connections: one for reads, one for everything else and for changes. It may be used from any runtime and
/// from plain threads. A connection that is lost is made again for as long as the store lives; meanwhile every operation fails
/// at once. None waits longer than the store's [`timeout`](RedisBuilder::timeout).
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
    runtime: Handle,
    /// Ends the thread.
    closed: Arc<Notify>,
}

struct Shared {
    reads: Line,
    scripts: Line,
    verbs: Scripts,
    /// The largest payload.
    limit: usize,
    clock: Clock,
    /// What to add to our monotonic clock to get the server's, in microseconds.
    offset: Mutex<Offset>,
    offset_known: AtomicBool,
    offset_micros: AtomicU64,
    generation: AtomicU64,
    followers: Arc<Followers>,
    /// What the connection for changes is subscribed to.
    subscribed: Mutex<Vec<Namespace>>,
    counters: Arc<StoreCounters>,
}

/// The best of the last measurements of the server's clock.
#[derive(Default)]
struct Offset {
    /// How long the best one took, in microseconds: twice its error at most.
    took: u64,
    /// How many there were since.
    age: u32,
}

impl RedisStore {
    /// Starts to configure a store at a URL: `redis://user:password@host:6379/0`, `rediss://` with the feature `redis-tls`, or
    /// `unix:///path`.
    pub fn builder(url: impl Into<String>) -> RedisBuilder {
        RedisBuilder::new(vec![url.into()], None)
    }

    /// Starts to configure a store at the master of this name, which the sentinels at these URLs know.
    ///
    /// User and password in the URLs are those of the sentinels; those of the master are set with
    /// [`login`](RedisBuilder::login). With `rediss://` both are encrypted.
    pub fn behind_sentinels<U: Into<String>>(
        sentinels: impl IntoIterator<Item = U>,
        master: impl Into<String>,
    ) -> RedisBuilder {
        let sentinels = sentinels.into_iter().map(Into::into).collect();
        RedisBuilder::new(sentinels, Some(master.into()))
    }
}

impl Drop for RedisStore {
    fn drop(&mut self) {
        self.closed.notify_one();
    }
}

/// The connection for reads.
struct Reads(Arc<Shared>);

/// The connection for everything else.
struct Writes(Arc<Shared>);

impl Duty for Reads {
    fn ear(&self) -> Option<Ear> {
        None
    }

    async fn prepare(&self, _: &Link) -> Result<(), Trouble> {
        Ok(())
    }

    fn is_up(&self) {
        self.0.counters.connected();
    }

    async fn beat(&self, link: &Link) -> Result<(), Trouble> {
        self.0.measure(link).await
    }
}

impl Duty for Writes {
    fn ear(&self) -> Option<Ear> {
        // Not the whole: it would keep itself alive through its own connection.
        let (followers, counters) = (self.0.followers.clone(), self.0.counters.clone());
        // A connection starts without subscriptions.
        lock(&self.0.subscribed).clear();
        Some(Arc::new(move |push| {
            messages::tell(&push, &followers, &counters);
        }))
    }

    async fn prepare(&self, link: &Link) -> Result<(), Trouble> {
        self.0.subscribe(link).await
    }

    fn is_up(&self) {
        self.0.counters.connected();
        // Release: who sees the generation sees that changes arrive.
        let generation = self.0.generation.fetch_add(1, Ordering::AcqRel) + 1;
        self.0.followers.reconnected(generation);
    }

    async fn beat(&self, link: &Link) -> Result<(), Trouble> {
        self.0.measure(link).await
    }
}

impl Shared {
    /// Subscribes to what is followed and not yet heard.
    async fn subscribe(&self, link: &Link) -> Result<(), Trouble> {
        let wanted = {
            let subscribed = lock(&self.subscribed);
            let mut wanted = self.followers.namespaces();
            wanted.retain(|namespace| !subscribed.contains(namespace));
            wanted
        };
        if !wanted.is_empty() {
            let channels = wanted.iter();
            let channels = channels.map(|namespace| messages::channel(namespace.as_str()));
            link.subscribe(channels.collect()).await?;
            lock(&self.subscribed).extend(wanted);
        }
        if let Ok(current) = self.scripts.link() {
            // Those that came while the connection was up; the others are told when it is.
            if std::ptr::eq(&*current, link) {
                self.followers.greet(self.generation());
            }
        }
        Ok(())
    }

    fn generation(&self) -> u64 {
        // Acquire: the other side of its increment.
        self.generation.load(Ordering::Acquire)
    }

    /// Asks for the server's time, and how far it is from ours.
    async fn measure(&self, link: &Link) -> Result<(), Trouble> {
        let before = self.clock.exact() / 1_000;
        let (seconds, micros) = match link.send(&redis::cmd("TIME")).await? {
            Value::ServerError(error) => return Err(classify::server(&error)),
            Value::Array(parts) => match &parts[..] {
                [seconds, micros] => number(seconds).zip(number(micros)),
                _ => None,
            }
            .ok_or_else(classify::nonsense)?,
            _ => return Err(classify::nonsense()),
        };
        let after = self.clock.exact() / 1_000;
        let took = after.saturating_sub(before);
        let time = seconds.saturating_mul(1_000_000).saturating_add(micros);
        let mut offset = lock(&self.offset);
        offset.age += 1;
        // A slow answer says little; but clocks drift, so after a while the best one says less.
        if offset.age > 20 || took <= offset.took || !self.offset_known.load(Ordering::Relaxed) {
            *offset = Offset { took, age: 0 };
            let ours = before + took / 2;
            self.offset_micros
                .store(time.wrapping_sub(ours), Ordering::Relaxed);
            self.offset_known.store(true, Ordering::Release);
        }
        Ok(())
    }

    async fn read_some(
        &self,
        keys: &[StoreKey],
        answers: &mut Vec<Result<Option<Vec<u8>>, StoreError>>,
    ) {
        let link = match self.reads.link() {
            Ok(link) => link,
            Err(error) => return answers.extend(keys.iter().map(|_| Err(error.clone()))),
        };
        // One byte more than allowed tells that there is more, however much it is.
        let get = |key: &StoreKey| {
            let mut command = redis::Cmd::with_capacity(4, 64);
            command
                .arg("GETRANGE")
                .arg(data(key))
                .arg(0)
                .arg(self.limit);
            command
        };
        let replies = match keys {
            [key] => link.send(&get(key)).await.map(|reply| vec![reply]),
            _ => {
                let mut pipeline = redis::Pipeline::with_capacity(keys.len());
                for key in keys {
                    pipeline.add_command(get(key));
                }
                link.send_all(&pipeline).await
            }
        };
        match replies {
            Ok(replies) if replies.len() == keys.len() => {
                let replies = replies.into_iter();
                answers.extend(replies.map(|reply| self.payload(&link, reply)));
            }
            Ok(_) => {
                let error = link.report(classify::nonsense());
                answers.extend(keys.iter().map(|_| Err(error.clone())));
            }
            Err(trouble) => {
                let error = link.report(trouble);
                answers.extend(keys.iter().map(|_| Err(error.clone())));
            }
        }
    }

    fn payload(&self, link: &Link, reply: Value) -> Result<Option<Vec<u8>>, StoreError> {
        match reply {
            Value::BulkString(bytes) if bytes.is_empty() => Ok(None),
            Value::BulkString(bytes) if bytes.len() > self.limit => {
                Err(StoreError::new(ErrorClass::TooLarge, ""))
            }
            Value::BulkString(bytes) => Ok(Some(bytes)),
            Value::Nil => Ok(None),
            Value::ServerError(error) => Err(link.report(classify::server(&error))),
            _ => Err(link.report(classify::nonsense())),
        }
    }

    /// Runs a script, and understands its answer.
    async fn run<T>(
        &self,
        verb: &Verb,
        key: &StoreKey,
        arguments: &[&[u8]],
        understand: impl FnOnce(Value) -> Option<T>,
    ) -> Result<T, StoreError> {
        let result = async {
            let link = self.scripts.link()?;
            let keys = Keys {
                data: data(key),
                lease: lease(key),
            };
            match verb.run(&link, &keys, arguments).await {
                Ok(value) => understand(value).ok_or_else(|| link.report(classify::nonsense())),
                Err(trouble) => Err(link.report(trouble)),
            }
        };
        self.counters.result(result.await)
    }

    /// That a payload can be stored.
    fn check(&self, payload: &[u8]) -> Result<(), StoreError> {
        let error = if payload.len() > self.limit {
            StoreError::new(ErrorClass::TooLarge, "")
        } else if payload.len() < envelope::HEADER || !payload.starts_with(envelope::MAGIC) {
            StoreError::new(ErrorClass::Protocol, "not an envelope")
        } else {
            return Ok(());
        };
        self.counters.result(Err(error))
    }
}

fn data(key: &StoreKey) -> String {
    format!("{}:d:{{{:032x}}}", key.namespace().as_str(), key.hash())
}

fn lease(key: &StoreKey) -> String {
    format!("{}:l:{{{:032x}}}", key.namespace().as_str(), key.hash())
}

fn token_bytes(token: Token) -> [u8; 16] {
    (u128::from(token.origin.0) << 64 | u128::from(token.serial)).to_be_bytes()
}

/// Milliseconds for a server: at least one, at most a century.
fn millis(duration: Duration) -> String {
    const CENTURY: u128 = 3_155_760_000_000;
    duration.as_millis().clamp(1, CENTURY).to_string()
}

fn seen(epoch: Option<Epoch>) -> String {
    epoch.map_or(0, Epoch::micros).to_string()
}

fn number(value: &Value) -> Option<u64> {
    match value {
        Value::Int(number) => u64::try_from(*number).ok(),
        Value::BulkString(digits) => std::str::from_utf8(digits).ok()?.parse().ok(),
        _ => None,
    }
}

fn epoch(value: Value) -> Option<Epoch> {
    number(&value).and_then(Epoch::from_micros)
}

fn yes(value: Value) -> Option<bool> {
    number(&value).map(|number| number != 0)
}

fn acquired(value: Value) -> Option<Acquired> {
    let parts = match value {
        Value::BulkString(payload) => return Some(Acquired::Stored(payload)),
        Value::Array(parts) => parts,
        _ => return None,
    };
    let [kind, number_of] = &parts[..] else {
        return None;
    };
    let number_of = number(number_of)?;
    let left = Duration::from_millis(number_of);
    match number(kind)? {
        0 => Some(Acquired::Granted {
            base: Epoch::from_micros(number_of),
        }),
        1 => Some(Acquired::Held { left }),
        2 => Some(Acquired::Cooling { left }),
        _ => None,
    }
}

impl Store for RedisStore {
    fn read<'a>(
        &'a self,
        keys: &'a [StoreKey],
    ) -> Reply<'a, Vec<Result<Option<Vec<u8>>, StoreError>>> {
        Box::pin(async move {
            let mut answers = Vec::with_capacity(keys.len());
            for keys in keys.chunks(TOGETHER) {
                self.shared.read_some(keys, &mut answers).await;
            }
            self.shared.counters.read(&answers);
            answers
        })
    }

    fn acquire<'a>(
        &'a self,
        key: &'a StoreKey,
        ask: Acquire,
    ) -> Reply<'a, Result<Acquired, StoreError>> {
        Box::pin(async move {
            let shared = &self.shared;
            let (seen, token) = (seen(ask.seen), token_bytes(ask.token));
            let (lease, limit) = (millis(ask.lease), shared.limit.to_string());
            let arguments = [seen.as_bytes(), &token, lease.as_bytes(), limit.as_bytes()];
            let acquire = &shared.verbs.acquire;
            shared.run(acquire, key, &arguments, acquired).await
        })
    }

    fn publish<'a>(
        &'a self,
        key: &'a StoreKey,
        publish: Publish,
    ) -> Reply<'a, Result<Stored, StoreError>> {
        Box::pin(async move {
            let shared = &self.shared;
            shared.check(&publish.payload)?;
            let (base, token) = (seen(publish.base), token_bytes(publish.token));
            let (ttl, channel) = (
                millis(publish.ttl),
                messages::channel(key.namespace().as_str()),
            );
            let message = messages::message(ChangeKind::Refreshed, publish.token.origin, key);
            let arguments = [
                base.as_bytes(),
                &token,
                ttl.as_bytes(),
                &publish.payload,
                channel.as_bytes(),
                &message,
            ];
            let stored = |value| match value {
                Value::Nil => Some(Stored::Refused),
                value => epoch(value).map(|epoch| Stored::Yes { epoch }),
            };
            shared
                .run(&shared.verbs.publish, key, &arguments, stored)
                .await
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
            let renew = &self.shared.verbs.renew;
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
            let message = messages::message(ChangeKind::Released, token.origin, key);
            let channel = messages::channel(key.namespace().as_str());
            let (token, rest) = (token_bytes(token), cool_down.map_or("0".to_owned(), millis));
            let arguments: [&[u8]; 4] = [&token, rest.as_bytes(), channel.as_bytes(), &message];
            let release = &self.shared.verbs.release;
            self.shared.run(release, key, &arguments, yes).await
        })
    }

    fn set<'a>(
        &'a self,
        key: &'a StoreKey,
        payload: Vec<u8>,
        ttl: Duration,
        origin: Origin,
    ) -> Reply<'a, Result<Epoch, StoreError>> {
        Box::pin(async move {
            self.shared.check(&payload)?;
            let message = messages::message(ChangeKind::Set, origin, key);
            let channel = messages::channel(key.namespace().as_str());
            let ttl = millis(ttl);
            let arguments = [ttl.as_bytes(), &payload, channel.as_bytes(), &message];
            let set = &self.shared.verbs.set;
            self.shared.run(set, key, &arguments, epoch).await
        })
    }

    fn invalidate<'a>(
        &'a self,
        key: &'a StoreKey,
        origin: Origin,
    ) -> Reply<'a, Result<Epoch, StoreError>> {
        Box::pin(async move {
            let message = messages::message(ChangeKind::Invalidated, origin, key);
            let channel = messages::channel(key.namespace().as_str());
            let arguments: [&[u8]; 2] = [channel.as_bytes(), &message];
            let invalidate = &self.shared.verbs.invalidate;
            self.shared.run(invalidate, key, &arguments, epoch).await
        })
    }

    fn now(&self) -> Option<u64> {
        let shared = &self.shared;
        let ours = shared.clock.exact() / 1_000;
        // Acquire: the first offset is there if it is said to be.
        let known = shared.offset_known.load(Ordering::Acquire);
        known.then(|| ours.wrapping_add(shared.offset_micros.load(Ordering::Relaxed)))
    }

    fn generation(&self) -> u64 {
        self.shared.generation()
    }

    fn state(&self) -> StoreState {
        match (self.shared.reads.state(), self.shared.scripts.state()) {
            (StoreState::Up, other) | (other, StoreState::Up) => other,
            (StoreState::Down(error), _) | (_, StoreState::Down(error)) => StoreState::Down(error),
            _ => StoreState::Connecting,
        }
    }

    fn stats(&self) -> StoreStats {
        self.shared.counters.snapshot()
    }

    fn follow(&self, namespace: &Namespace, follower: Weak<dyn Follower>) {
        self.shared.followers.add(namespace, follower);
        self.shared.scripts.poke.notify_one();
    }

    fn spawn(&self, work: BoxFuture) {
        self.runtime.spawn(work);
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore")
            .field("state", &self.state())
            .field("generation", &self.generation())
            .finish_non_exhaustive()
    }
}
