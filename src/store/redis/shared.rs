//! The commands of the store, and the master to which each goes.

use std::pin::Pin;

use redis::Value;
use tokio::sync::Notify;

use super::classify::{self, Failure};
use super::limited_stream::StreamLimit;
use super::node::Node;
use super::scripts::{Keys, Script, Scripts};
use super::slots::Slots;
use super::supervisor::Link;
use super::wire;
use crate::store::StoreState;
use crate::store::change_listeners::ChangeListeners;
use crate::store::envelope::{self, Head};
use crate::store::error::{ErrorClass, StoreError};
use crate::store::head::HEAD;
use crate::store::key::{Namespace, StoreKey};
use crate::store::stats::StoreCounters;
use crate::sync::event::Event;
use crate::sync::future::all;
use crate::sync::{Arc, ArcCell, AtomicU64, Mutex, Ordering, lock};
use crate::time::clock::Clock;

/// The most keys in one request.
const MAX_KEYS: usize = 512;

/// The bytes that one request is expected to return at most. On a slow line each request is then
/// answered soon, and a lost connection loses few answers.
const BATCH: u64 = 1 << 20;

/// The size of a payload that is expected before any was read.
const FIRST_SIZE: u64 = 16 << 10;

/// The part of payloads that is read.
#[derive(Clone, Copy)]
enum Part {
    Whole,
    /// The part that contains the epoch and the checksum.
    Head,
}

/// A size that follows larger ones at once and smaller ones slowly.
pub(super) struct TypicalSize(AtomicU64);

impl Default for TypicalSize {
    fn default() -> Self {
        TypicalSize(AtomicU64::new(FIRST_SIZE))
    }
}

impl TypicalSize {
    /// The number of keys to read with one request.
    fn keys(&self) -> usize {
        // Relaxed: a value that is out of date makes a request larger or smaller than the best.
        let size = self.0.load(Ordering::Relaxed);
        usize::try_from(BATCH / size.max(1)).map_or(MAX_KEYS, |keys| keys.clamp(1, MAX_KEYS))
    }

    fn learn(&self, answers: &[Payload]) {
        let payloads = answers
            .iter()
            .filter_map(|answer| answer.as_ref().ok()?.as_ref());
        let (count, bytes) = payloads.fold((0, 0_u64), |(count, bytes), payload| {
            (count + 1, bytes + payload.len() as u64)
        });
        if let Some(mean) = bytes.checked_div(count) {
            let before = self.0.load(Ordering::Relaxed);
            let slowly = before - before / 8 + mean / 8;
            self.0.store(slowly.max(mean), Ordering::Relaxed);
        }
    }
}

type Payload = Result<Option<Vec<u8>>, StoreError>;

pub(super) struct Shared {
    /// Which master owns which slots; empty until the cluster has reported its masters.
    pub(super) slots: ArcCell<Slots>,
    /// The last error of asking the cluster, until the first success.
    pub(super) discovery_error: Mutex<Option<StoreError>>,
    /// Notified when the masters of the cluster may have changed.
    pub(super) recheck: Notify,
    /// Notified when the state may have changed.
    pub(super) changed: Arc<Event>,
    pub(super) scripts: Scripts,
    /// The largest payload, in bytes.
    pub(super) limit: usize,
    /// The same limit for the connections; strict once a payload was larger.
    pub(super) stream_limit: Arc<StreamLimit>,
    /// The size of payloads that were read lately, on average.
    pub(super) typical_size: TypicalSize,
    pub(super) clock: Clock,
    pub(super) gaps: AtomicU64,
    pub(super) histories: AtomicU64,
    pub(super) timelines: AtomicU64,
    /// The end of the names of the channels of the database.
    pub(super) channel_suffix: String,
    pub(super) change_listeners: ChangeListeners,
    pub(super) counters: StoreCounters,
}

impl Shared {
    /// The channel of a namespace.
    pub(super) fn channel(&self, namespace: &Namespace) -> String {
        [namespace.as_str(), &self.channel_suffix].concat()
    }

    pub(super) fn gaps(&self) -> u64 {
        // Acquire: pairs with the increment in `gap`.
        self.gaps.load(Ordering::Acquire)
    }

    pub(super) fn history(&self) -> u64 {
        // Acquire: pairs with the increment in `begin_history`.
        self.histories.load(Ordering::Acquire)
    }

    /// The server is not the one that was there before, and not its successor.
    pub(super) fn begin_history(&self) {
        // Release: a caller that reads the new count works with the new server.
        self.histories.fetch_add(1, Ordering::AcqRel);
        self.begin_timeline();
    }

    pub(super) fn timeline(&self) -> u64 {
        // Acquire: pairs with the increment in `begin_timeline`.
        self.timelines.load(Ordering::Acquire)
    }

    /// The clock of a server is behind what it was.
    pub(super) fn begin_timeline(&self) {
        // Release: as above.
        self.timelines.fetch_add(1, Ordering::AcqRel);
    }

    /// The known masters.
    pub(super) fn nodes(&self) -> Vec<Arc<Node>> {
        let slots = self.slots.load();
        (slots.as_ref()).map_or(Vec::new(), |slots| slots.nodes().to_vec())
    }

    /// Notifies listeners that changes may have been missed and arrive again now. `node` is a
    /// master whose connection is about to become visible to callers.
    pub(super) fn gap(&self, node: Option<&Node>) {
        // Release: a caller that reads the new count also sees that changes arrive.
        let gaps = self.gaps.fetch_add(1, Ordering::AcqRel) + 1;
        let nodes = self.nodes();
        self.change_listeners.reconnected(gaps, |namespace| {
            node.is_none_or(|node| node.is_subscribed(namespace)) && arrives(&nodes, namespace)
        });
    }

    /// Notifies the listeners that were not notified yet that their changes arrive.
    pub(super) fn greet(&self) {
        let nodes = self.nodes();
        let arrives = |namespace: &Namespace| arrives(&nodes, namespace);
        self.change_listeners.greet(self.gaps(), arrives);
    }

    /// The time of the store: of several masters the latest, so that no age is underestimated.
    pub(super) fn now(&self) -> Option<u64> {
        let nodes = self.nodes();
        let offset = nodes.iter().filter_map(|node| node.offset()).max()?;
        Some((self.clock.exact() / 1_000).wrapping_add(offset))
    }

    pub(super) fn state(&self) -> StoreState {
        let nodes = self.nodes();
        let unknown = lock(&self.discovery_error).clone();
        let mut state = match (nodes.is_empty(), unknown) {
            (true, Some(error)) => return StoreState::Down(error),
            (true, None) => return StoreState::Connecting,
            _ => StoreState::Up,
        };
        for supervisor in nodes.iter().flat_map(|node| [&node.reads, &node.scripts]) {
            state = match (state, supervisor.state()) {
                (StoreState::Down(error), _) | (_, StoreState::Down(error)) => {
                    return StoreState::Down(error);
                }
                (StoreState::Up, StoreState::Up) => StoreState::Up,
                _ => StoreState::Connecting,
            };
        }
        state
    }

    /// The master that owns a key.
    pub(super) fn node(&self, key: &StoreKey) -> Result<Arc<Node>, StoreError> {
        let slots = self.slots.load();
        let Some(slots) = &*slots else {
            let unknown = lock(&self.discovery_error).clone();
            return Err(unknown
                .unwrap_or_else(|| StoreError::new(ErrorClass::Unavailable, "not connected yet")));
        };
        let node = slots.owner(key.hash()).cloned();
        node.ok_or_else(|| StoreError::new(ErrorClass::Unavailable, "no master has the slot"))
    }

    /// Reacts to errors which show that a key may have moved, or that payloads above the limit
    /// exist.
    pub(super) fn note_error(&self, error: &StoreError) {
        match error.class() {
            ErrorClass::Busy | ErrorClass::Unavailable => self.recheck.notify_one(),
            ErrorClass::TooLarge => self.stream_limit.set_strict(),
            _ => {}
        }
    }

    /// Reads keys with one round trip for each master, all at the same time.
    pub(super) async fn read(&self, keys: &[StoreKey]) -> Vec<Payload> {
        let slots = self.slots.load().as_ref().cloned();
        let only_master = slots.and_then(|slots| slots.only_master().cloned());
        let answers = match only_master {
            Some(node) if keys.len() <= MAX_KEYS => {
                self.read_some(
                    &node,
                    keys.iter(),
                    Part::Whole,
                    !self.stream_limit.is_strict(),
                )
                .await
            }
            _ => self.read_apart(keys, Part::Whole).await,
        };
        let errors = answers.iter().filter_map(|answer| answer.as_ref().err());
        errors.for_each(|error| self.note_error(error));
        self.counters.read(&answers);
        answers
    }

    /// Reads the heads of payloads.
    pub(super) async fn heads(&self, keys: &[StoreKey]) -> Vec<Result<Option<Head>, StoreError>> {
        let answers = self.read_apart(keys, Part::Head).await.into_iter();
        let heads = answers.map(|answer| match answer {
            Ok(head) => Ok(head.as_deref().and_then(envelope::head)),
            Err(error) => {
                self.note_error(&error);
                self.counters.result(Err(error))
            }
        });
        heads.collect()
    }

    /// Each master, and the places of its keys, at most as many as one request takes. `failed` gets
    /// the keys that have no master now.
    pub(super) fn parts<'a>(
        &self,
        keys: impl Iterator<Item = &'a StoreKey>,
        mut failed: impl FnMut(usize, StoreError),
    ) -> Vec<(Arc<Node>, Vec<usize>)> {
        let mut parts: Vec<(Arc<Node>, Vec<usize>)> = Vec::new();
        for (place, key) in keys.enumerate() {
            match self.node(key) {
                Err(error) => failed(place, error),
                Ok(node) => match parts
                    .iter_mut()
                    .find(|(known, places)| Arc::ptr_eq(known, &node) && places.len() < MAX_KEYS)
                {
                    Some((_, places)) => places.push(place),
                    None => parts.push((node, vec![place])),
                },
            }
        }
        parts
    }

    /// Reads from several masters, or more keys than fit one request, or heads only.
    async fn read_apart(&self, keys: &[StoreKey], part: Part) -> Vec<Payload> {
        let mut answers = vec![Ok(None); keys.len()];
        let parts = self.parts(keys.iter(), |place, error| answers[place] = Err(error));
        let reads = parts.iter().map(|(node, places)| async {
            let keys = places.iter().map(|place| &keys[*place]);
            let replies = self.read_some(node, keys, part, false).await;
            places.iter().copied().zip(replies).collect::<Vec<_>>()
        });
        for (place, answer) in all(reads).await.into_iter().flatten() {
            answers[place] = answer;
        }
        answers
    }

    /// Reads from one master, which owns all the keys, with as many requests as their sizes need.
    async fn read_some<'a>(
        &self,
        node: &Node,
        mut keys: impl ExactSizeIterator<Item = &'a StoreKey>,
        part: Part,
        one_command: bool,
    ) -> Vec<Payload> {
        let count = keys.len();
        let mut answers = Vec::with_capacity(count);
        while answers.len() < count {
            let link = match node.reads.link() {
                Ok(link) => link,
                Err(error) => {
                    answers.resize(count, Err(error));
                    break;
                }
            };
            let some = match part {
                Part::Whole => self.typical_size.keys(),
                Part::Head => MAX_KEYS,
            };
            let some = keys.by_ref().take(some);
            let read = self.read_batch(&link, some, part, one_command).await;
            if matches!(part, Part::Whole) {
                self.typical_size.learn(&read);
            }
            answers.extend(read);
        }
        answers
    }

    /// Reads with one request. Takes all the keys, whatever becomes of it.
    async fn read_batch<'a>(
        &self,
        link: &Link,
        keys: impl ExactSizeIterator<Item = &'a StoreKey>,
        part: Part,
        one_command: bool,
    ) -> Vec<Payload> {
        let count = keys.len();
        let failed = |error: StoreError| vec![Err(error); count];
        let replies = match part {
            Part::Whole if one_command && count > 1 => get_all(link, keys).await,
            // One byte above the limit shows that a payload is too large.
            Part::Whole => get_each(link, keys, self.limit).await,
            Part::Head => get_each(link, keys, HEAD - 1).await,
        };
        match replies {
            Ok(replies) if replies.len() == count => {
                let replies = replies.into_iter();
                replies.map(|reply| self.payload(link, reply)).collect()
            }
            Ok(_) => failed(link.report(classify::unexpected_reply())),
            Err(failure) => failed(link.report(failure)),
        }
    }

    fn payload(&self, link: &Link, reply: Value) -> Payload {
        match reply {
            Value::BulkString(bytes) if bytes.is_empty() => Ok(None),
            Value::BulkString(bytes) if bytes.len() > self.limit => {
                Err(StoreError::new(ErrorClass::TooLarge, ""))
            }
            Value::BulkString(bytes) => Ok(Some(bytes)),
            Value::Nil => Ok(None),
            Value::ServerError(error) => Err(link.report(classify::server(&error))),
            _ => Err(link.report(classify::unexpected_reply())),
        }
    }

    /// Runs a script, and decodes its reply.
    pub(super) async fn run<T>(
        &self,
        script: &Script,
        key: &StoreKey,
        arguments: &[&[u8]],
        decode: impl FnOnce(Value) -> Option<T>,
    ) -> Result<T, StoreError> {
        let result = async {
            let link = self.node(key)?.scripts.link()?;
            let keys = Keys {
                data: wire::data(key),
                lease: wire::lease(key),
            };
            match script.run(&link, &keys, arguments).await {
                Ok(value) => decode(value).ok_or_else(|| link.report(classify::unexpected_reply())),
                Err(failure) => Err(link.report(failure)),
            }
        };
        let result = result.await;
        if let Err(error) = &result {
            self.note_error(error);
        }
        self.counters.result(result)
    }

    /// Checks that a payload can be stored.
    pub(super) fn check(&self, payload: &[u8]) -> Result<(), StoreError> {
        let error = if payload.len() > self.limit {
            StoreError::new(ErrorClass::TooLarge, "")
        } else if payload.len() < envelope::HEADER || !payload.starts_with(envelope::MAGIC) {
            StoreError::new(ErrorClass::Protocol, "no envelope")
        } else {
            return Ok(());
        };
        self.counters.result(Err(error))
    }
}

/// Reads all keys with one command. Compared with one command for each key this saves the client
/// two fifths of the time and the server a quarter.
///
/// `MGET` reads a value of another type as missing. A payload above the limit ends the connection
/// (see `limited_stream`).
async fn get_all<'a>(
    link: &Link,
    keys: impl ExactSizeIterator<Item = &'a StoreKey>,
) -> Result<Vec<Value>, Failure> {
    let mut name = String::new();
    let mut command = redis::Cmd::with_capacity(keys.len() + 1, 64 * keys.len());
    command.arg("MGET");
    for key in keys {
        wire::write_data(&mut name, key);
        command.arg(&name);
    }
    match link.send(&command).await? {
        Value::Array(replies) => Ok(replies),
        Value::ServerError(error) => Err(classify::server(&error)),
        _ => Err(classify::unexpected_reply()),
    }
}

/// Reads the first bytes of each key, up to this index, with one command for each key. The keys may
/// be in several slots, and what lies behind is not transferred.
async fn get_each<'a>(
    link: &Link,
    keys: impl ExactSizeIterator<Item = &'a StoreKey>,
    last: usize,
) -> Result<Vec<Value>, Failure> {
    let mut name = String::new();
    let mut commands = keys.map(|key| {
        wire::write_data(&mut name, key);
        let mut command = redis::Cmd::with_capacity(4, name.len() + 32);
        command.arg("GETRANGE").arg(&name).arg(0).arg(last);
        command
    });
    match (commands.len(), commands.next()) {
        (1, Some(command)) => link.send(&command).await.map(|reply| vec![reply]),
        (count, first) => {
            let mut pipeline = redis::Pipeline::with_capacity(count);
            for command in first.into_iter().chain(commands) {
                pipeline.add_command(command);
            }
            link.send_all(&pipeline).await
        }
    }
}

/// Whether changes of a namespace arrive from all connected masters.
fn arrives(nodes: &[Arc<Node>], namespace: &Namespace) -> bool {
    nodes.iter().all(|node| node.receives(namespace))
}

/// Waits for two steps at the same time, which share their round trips.
pub(super) async fn both<E>(
    first: impl Future<Output = Result<(), E>> + Send,
    second: impl Future<Output = Result<(), E>> + Send,
) -> Result<(), E> {
    let steps: [Pin<Box<dyn Future<Output = _> + Send + '_>>; 2] =
        [Box::pin(first), Box::pin(second)];
    all(steps.into_iter()).await.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_for_as_many_keys_as_their_usual_size_allows() {
        let size = TypicalSize::default();
        assert_eq!(size.keys(), 64);
        size.learn(&[Ok(None)]);
        assert_eq!(size.keys(), 64);
        size.learn(&[Ok(Some(vec![0; 200 << 10])), Ok(None)]);
        assert_eq!(size.keys(), 5, "at once");
        size.learn(&[Ok(Some(vec![0; 3 << 20]))]);
        assert_eq!(size.keys(), 1);
        for _ in 0..100 {
            size.learn(&[Ok(Some(vec![0; 100])), Ok(Some(Vec::new()))]);
        }
        assert_eq!(size.keys(), MAX_KEYS);
    }
}
