//! What goes over the connections, and to which master.

use redis::Value;
use tokio::sync::Notify;

use super::classify::{self, Trouble};
use super::limited_stream::StreamLimit;
use super::node::Node;
use super::scripts::{Keys, Script, Scripts};
use super::slots::Slots;
use super::supervisor::Link;
use super::wire;
use crate::store::StoreState;
use crate::store::change_listeners::ChangeListeners;
use crate::store::envelope;
use crate::store::error::{ErrorClass, StoreError};
use crate::store::key::{Namespace, StoreKey};
use crate::store::stats::StoreCounters;
use crate::sync::event::Event;
use crate::sync::{Arc, AtomicU64, Mutex, Ordering, Slot, lock};
use crate::time::clock::Clock;

/// How many keys are asked for in one go.
const TOGETHER: usize = 512;

type Payload = Result<Option<Vec<u8>>, StoreError>;

pub(super) struct Shared {
    /// Which master has which slots; of a cluster, nothing before it is known.
    pub(super) slots: Slot<Slots>,
    /// Why the cluster could not be asked, before the first time that it could.
    pub(super) unknown: Mutex<Option<StoreError>>,
    /// A cluster may have changed.
    pub(super) doubt: Notify,
    /// The state may have changed.
    pub(super) changed: Arc<Event>,
    pub(super) verbs: Scripts,
    /// The largest payload.
    pub(super) limit: usize,
    /// The same for the connections, which know once something was larger.
    pub(super) cap: Arc<StreamLimit>,
    pub(super) clock: Clock,
    pub(super) gaps: AtomicU64,
    pub(super) change_listeners: ChangeListeners,
    pub(super) counters: StoreCounters,
}

impl Shared {
    pub(super) fn gaps(&self) -> u64 {
        // Acquire: the other side of its increment.
        self.gaps.load(Ordering::Acquire)
    }

    /// The masters that are known.
    pub(super) fn nodes(&self) -> Vec<Arc<Node>> {
        let slots = self.slots.load();
        slots.map_or(Vec::new(), |slots| slots.nodes().to_vec())
    }

    /// Changes may have been missed and arrive now, from `node` as well, whose connection callers find right after.
    pub(super) fn gap(&self, node: Option<&Node>) {
        // Release: who sees the gaps sees that changes arrive.
        let gaps = self.gaps.fetch_add(1, Ordering::AcqRel) + 1;
        let nodes = self.nodes();
        self.change_listeners.reconnected(gaps, |namespace| {
            node.is_none_or(|node| node.is_subscribed(namespace)) && arrives(&nodes, namespace)
        });
    }

    /// Tells those that do not know yet that their changes arrive.
    pub(super) fn greet(&self) {
        let nodes = self.nodes();
        let arrives = |namespace: &Namespace| arrives(&nodes, namespace);
        self.change_listeners.greet(self.gaps(), arrives);
    }

    /// The time of the store. Of several masters that which is ahead, so that no age is underestimated.
    pub(super) fn now(&self) -> Option<u64> {
        let nodes = self.nodes();
        let offset = nodes.iter().filter_map(|node| node.offset()).max()?;
        Some((self.clock.exact() / 1_000).wrapping_add(offset))
    }

    pub(super) fn state(&self) -> StoreState {
        let nodes = self.nodes();
        let unknown = lock(&self.unknown).clone();
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

    /// The master that has a key.
    fn node(&self, key: &StoreKey) -> Result<Arc<Node>, StoreError> {
        let Some(slots) = self.slots.load() else {
            let unknown = lock(&self.unknown).clone();
            return Err(unknown
                .unwrap_or_else(|| StoreError::new(ErrorClass::Unavailable, "not connected yet")));
        };
        let node = slots.arc().owner(key.hash()).cloned();
        node.ok_or_else(|| StoreError::new(ErrorClass::Unavailable, "no master has the slot"))
    }

    /// An error that may mean that the key is elsewhere now, or that large values are to be expected.
    fn suspect(&self, error: &StoreError) {
        match error.class() {
            ErrorClass::Busy | ErrorClass::Unavailable => self.doubt.notify_one(),
            ErrorClass::TooLarge => self.cap.exceed(),
            _ => {}
        }
    }

    /// One round trip for each master that has some of the keys, all at the same time.
    pub(super) async fn read(&self, keys: &[StoreKey]) -> Vec<Payload> {
        let alone = self
            .slots
            .load()
            .and_then(|slots| slots.arc().alone().cloned());
        let answers = match alone {
            Some(node) if keys.len() <= TOGETHER => {
                self.read_some(&node, keys.iter(), !self.cap.is_strict())
                    .await
            }
            _ => self.read_apart(keys).await,
        };
        let errors = answers.iter().filter_map(|answer| answer.as_ref().err());
        errors.for_each(|error| self.suspect(error));
        self.counters.read(&answers);
        answers
    }

    /// From several masters, or more than travel in one go.
    async fn read_apart(&self, keys: &[StoreKey]) -> Vec<Payload> {
        let mut answers = vec![Ok(None); keys.len()];
        // Each master, and the places of its keys.
        let mut parts: Vec<(Arc<Node>, Vec<usize>)> = Vec::new();
        for (place, key) in keys.iter().enumerate() {
            match self.node(key) {
                Err(error) => answers[place] = Err(error),
                Ok(node) => match parts
                    .iter_mut()
                    .find(|(known, places)| Arc::ptr_eq(known, &node) && places.len() < TOGETHER)
                {
                    Some((_, places)) => places.push(place),
                    None => parts.push((node, vec![place])),
                },
            }
        }
        let reads = parts.iter().map(|(node, places)| async {
            let replies = self
                .read_some(node, places.iter().map(|place| &keys[*place]), false)
                .await;
            places.iter().copied().zip(replies).collect::<Vec<_>>()
        });
        for (place, answer) in all(reads).await.into_iter().flatten() {
            answers[place] = answer;
        }
        answers
    }

    /// From one master, which has all of the keys.
    async fn read_some<'a>(
        &self,
        node: &Node,
        keys: impl ExactSizeIterator<Item = &'a StoreKey>,
        one_command: bool,
    ) -> Vec<Payload> {
        let count = keys.len();
        let failed = |error: StoreError| vec![Err(error); count];
        let link = match node.reads.link() {
            Ok(link) => link,
            Err(error) => return failed(error),
        };
        let replies = match one_command && count > 1 {
            true => get_all(&link, keys).await,
            false => self.get_each(&link, keys).await,
        };
        match replies {
            Ok(replies) if replies.len() == count => {
                let replies = replies.into_iter();
                replies.map(|reply| self.payload(&link, reply)).collect()
            }
            Ok(_) => failed(link.report(classify::nonsense())),
            Err(trouble) => failed(link.report(trouble)),
        }
    }

    /// With a command for each: keys in several slots, and values that may be large without being fetched.
    async fn get_each<'a>(
        &self,
        link: &Link,
        keys: impl ExactSizeIterator<Item = &'a StoreKey>,
    ) -> Result<Vec<Value>, Trouble> {
        let mut name = String::new();
        let mut commands = keys.map(|key| {
            wire::write_data(&mut name, key);
            let mut command = redis::Cmd::with_capacity(4, name.len() + 32);
            // One byte more than allowed tells that there is more, however much it is.
            command.arg("GETRANGE").arg(&name).arg(0).arg(self.limit);
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

    fn payload(&self, link: &Link, reply: Value) -> Payload {
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
        verb: &Script,
        key: &StoreKey,
        arguments: &[&[u8]],
        understand: impl FnOnce(Value) -> Option<T>,
    ) -> Result<T, StoreError> {
        let result = async {
            let link = self.node(key)?.scripts.link()?;
            let keys = Keys {
                data: wire::data(key),
                lease: wire::lease(key),
            };
            match verb.run(&link, &keys, arguments).await {
                Ok(value) => understand(value).ok_or_else(|| link.report(classify::nonsense())),
                Err(trouble) => Err(link.report(trouble)),
            }
        };
        let result = result.await;
        if let Err(error) = &result {
            self.suspect(error);
        }
        self.counters.result(result)
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

/// With one command, which costs the client two fifths and the server a quarter less than one for each key.
///
/// What is no string is nothing to it, and what is too long ends the connection (see `limited_stream`).
async fn get_all<'a>(
    link: &Link,
    keys: impl ExactSizeIterator<Item = &'a StoreKey>,
) -> Result<Vec<Value>, Trouble> {
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
        _ => Err(classify::nonsense()),
    }
}

/// Whether changes of a namespace arrive from all masters that are connected.
fn arrives(nodes: &[Arc<Node>], namespace: &Namespace) -> bool {
    nodes.iter().all(|node| node.hears(namespace))
}

/// Waits for all of them at the same time; mostly it is one.
async fn all<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut waiting: Vec<_> = futures.map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|context| {
        let mut done = true;
        for (future, output) in &mut waiting {
            if output.is_none() {
                match future.as_mut().poll(context) {
                    std::task::Poll::Ready(ready) => *output = Some(ready),
                    std::task::Poll::Pending => done = false,
                }
            }
        }
        match done {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        }
    })
    .await;
    waiting
        .into_iter()
        .filter_map(|(_, output)| output)
        .collect()
}
