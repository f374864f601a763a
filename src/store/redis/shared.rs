//! What keeps the two connections, and what goes over them.

use redis::Value;

use super::classify::{self, Trouble};
use super::dial::Ear;
use super::line::{Duty, Line, Link};
use super::messages;
use super::scripts::{Keys, Scripts, Verb};
use super::wire;
use crate::clock::Clock;
use crate::store::envelope;
use crate::store::error::{ErrorClass, StoreError};
use crate::store::followers::Followers;
use crate::store::key::{Namespace, StoreKey};
use crate::store::stats::StoreCounters;
use crate::sync::{Arc, AtomicU64, Mutex, Ordering, lock};

/// How many keys are asked for in one go.
const TOGETHER: usize = 512;

pub(super) struct Shared {
    pub(super) reads: Line,
    pub(super) scripts: Line,
    pub(super) verbs: Scripts,
    /// The largest payload.
    pub(super) limit: usize,
    pub(super) clock: Clock,
    /// How good the offset is.
    pub(super) offset: Mutex<Offset>,
    /// What to add to our monotonic clock to get the server's, in microseconds; 0 before it is known.
    pub(super) offset_micros: AtomicU64,
    pub(super) generation: AtomicU64,
    pub(super) followers: Arc<Followers>,
    /// What the connection for changes is subscribed to.
    pub(super) subscribed: Mutex<Vec<Namespace>>,
    pub(super) counters: Arc<StoreCounters>,
}

/// The best of the last measurements of the server's clock.
#[derive(Default)]
pub(super) struct Offset {
    /// How long the best one took, in microseconds: twice its error at most.
    took: u64,
    /// How many there were since.
    age: u32,
}

/// The connection for reads.
pub(super) struct Reads(pub(super) Arc<Shared>);

/// The connection for everything else.
pub(super) struct Writes(pub(super) Arc<Shared>);

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
        let subscribed = lock(&self.0.subscribed).clone();
        let arrives = |namespace: &Namespace| subscribed.contains(namespace);
        self.0.followers.reconnected(generation, arrives);
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
        // Those that came while the connection was up; the others are told when it is.
        if self
            .scripts
            .link()
            .is_ok_and(|current| std::ptr::eq(&*current, link))
        {
            let subscribed = lock(&self.subscribed).clone();
            let arrives = |namespace: &Namespace| subscribed.contains(namespace);
            self.followers.greet(self.generation(), arrives);
        }
        Ok(())
    }

    pub(super) fn generation(&self) -> u64 {
        // Acquire: the other side of its increment.
        self.generation.load(Ordering::Acquire)
    }

    /// Asks for the server's time, and how far it is from ours.
    async fn measure(&self, link: &Link) -> Result<(), Trouble> {
        let before = self.clock.exact() / 1_000;
        let (seconds, micros) = match link.send(&redis::cmd("TIME")).await? {
            Value::ServerError(error) => return Err(classify::server(&error)),
            Value::Array(parts) => match &parts[..] {
                [seconds, micros] => wire::number(seconds).zip(wire::number(micros)),
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
        if offset.age > 20 || took <= offset.took || self.offset_micros.load(Ordering::Relaxed) == 0
        {
            *offset = Offset { took, age: 0 };
            let ours = before + took / 2;
            self.offset_micros
                .store(time.wrapping_sub(ours).max(1), Ordering::Relaxed);
        }
        Ok(())
    }

    pub(super) async fn read(&self, keys: &[StoreKey]) -> Vec<Result<Option<Vec<u8>>, StoreError>> {
        let mut answers = Vec::with_capacity(keys.len());
        for keys in keys.chunks(TOGETHER) {
            self.read_some(keys, &mut answers).await;
        }
        self.counters.read(&answers);
        answers
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
                .arg(wire::data(key))
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
    pub(super) async fn run<T>(
        &self,
        verb: &Verb,
        key: &StoreKey,
        arguments: &[&[u8]],
        understand: impl FnOnce(Value) -> Option<T>,
    ) -> Result<T, StoreError> {
        let result = async {
            let link = self.scripts.link()?;
            let keys = Keys {
                data: wire::data(key),
                lease: wire::lease(key),
            };
            match verb.run(&link, &keys, arguments).await {
                Ok(value) => understand(value).ok_or_else(|| link.report(classify::nonsense())),
                Err(trouble) => Err(link.report(trouble)),
            }
        };
        self.counters.result(result.await)
    }

    /// That a payload can be stored.
    pub(super) fn check(&self, payload: &[u8]) -> Result<(), StoreError> {
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
