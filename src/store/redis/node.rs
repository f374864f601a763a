//! One master: the two connections to it, and what is known of it.

use redis::Value;
use std::time::Duration;

use super::classify::{self, Trouble};
use super::dial::{PushHandler, Target};
use super::limited_stream::StreamLimit;
use super::messages;
use super::shared::Shared;
use super::supervisor::{Link, Role, Supervisor};
use super::wire;
use crate::store::key::Namespace;
use crate::sync::event::Event;
use crate::sync::future::or;
use crate::sync::{Arc, AtomicU64, Mutex, Ordering, lock};
use crate::time::clock::Clock;

/// A master.
pub(super) struct Node {
    /// Where it is in its cluster; nothing if it is the only one.
    pub(super) address: (String, u16),
    pub(super) reads: Supervisor,
    pub(super) scripts: Supervisor,
    /// How good the offset is.
    offset: Mutex<Offset>,
    /// What to add to our monotonic clock to get the server's, in microseconds; 0 before it is known.
    offset_micros: AtomicU64,
    /// What the connection for changes is subscribed to.
    subscribed: Mutex<Vec<Namespace>>,
}

/// The best of the last measurements of the server's clock.
#[derive(Default)]
struct Offset {
    /// How long the best one took, in microseconds: twice its error at most.
    took: u64,
    /// How many there were since.
    age: u32,
}

/// The connection for reads.
struct Reads(Arc<Shared>, Arc<Node>);

/// The connection for everything else.
struct Writes(Arc<Shared>, Arc<Node>);

impl Role for Reads {
    fn cap(&self) -> &Arc<StreamLimit> {
        &self.0.cap
    }

    fn push_handler(&self) -> Option<PushHandler> {
        None
    }

    async fn prepare(&self, _: &Link) -> Result<(), Trouble> {
        Ok(())
    }

    fn is_up(&self) {
        self.0.counters.connected();
    }

    async fn heartbeat(&self, link: &Link) -> Result<(), Trouble> {
        self.1.measure(&self.0.clock, link).await
    }
}

impl Role for Writes {
    fn cap(&self) -> &Arc<StreamLimit> {
        &self.0.cap
    }

    fn push_handler(&self) -> Option<PushHandler> {
        // Weak: it would keep itself alive through its own connection.
        let (shared, node) = (Arc::downgrade(&self.0), Arc::downgrade(&self.1));
        // A connection starts without subscriptions.
        lock(&self.1.subscribed).clear();
        Some(Arc::new(move |push| {
            if let (Some(shared), Some(node)) = (shared.upgrade(), node.upgrade()) {
                messages::tell(&push, &shared, &node);
            }
        }))
    }

    async fn prepare(&self, link: &Link) -> Result<(), Trouble> {
        self.1.subscribe(&self.0, link).await?;
        // Those that came while the connection was up; the others are told when it is.
        if self.1.has(link) {
            self.0.greet();
        }
        Ok(())
    }

    fn is_up(&self) {
        self.0.counters.connected();
        self.0.gap(Some(&self.1));
    }

    async fn heartbeat(&self, link: &Link) -> Result<(), Trouble> {
        self.1.measure(&self.0.clock, link).await
    }
}

impl Node {
    pub(super) fn new(address: (String, u16), changed: &Arc<Event>) -> Self {
        Node {
            address,
            reads: Supervisor::new(changed.clone()),
            scripts: Supervisor::new(changed.clone()),
            offset: Mutex::default(),
            offset_micros: AtomicU64::new(0),
            subscribed: Mutex::default(),
        }
    }

    /// Keeps the connections up, for ever.
    pub(super) async fn keep(
        self: Arc<Self>,
        shared: Arc<Shared>,
        target: &Target,
        limit: Duration,
    ) {
        let reads = Reads(shared.clone(), self.clone());
        let writes = Writes(shared, self.clone());
        // Neither ends.
        or(
            self.reads.supervise(target, limit, &reads),
            self.scripts.supervise(target, limit, &writes),
        )
        .await;
    }

    /// Subscribes to what is followed and not yet heard.
    async fn subscribe(&self, shared: &Shared, link: &Link) -> Result<(), Trouble> {
        let wanted = {
            let subscribed = lock(&self.subscribed);
            let mut wanted = shared.change_listeners.namespaces();
            wanted.retain(|namespace| !subscribed.contains(namespace));
            wanted
        };
        if !wanted.is_empty() {
            let channels = wanted.iter();
            let channels = channels.map(|namespace| messages::channel(namespace.as_str()));
            link.subscribe(channels.collect()).await?;
            lock(&self.subscribed).extend(wanted);
        }
        Ok(())
    }

    /// Whether this is the connection for changes, and up.
    fn has(&self, link: &Link) -> bool {
        let current = self.scripts.link();
        current.is_ok_and(|current| std::ptr::eq(&*current, link))
    }

    /// Whether changes of a namespace arrive from here, or will be announced when the connection is back.
    pub(super) fn hears(&self, namespace: &Namespace) -> bool {
        self.scripts.link().is_err() || self.is_subscribed(namespace)
    }

    pub(super) fn is_subscribed(&self, namespace: &Namespace) -> bool {
        lock(&self.subscribed).contains(namespace)
    }

    /// What to add to our clock to get the server's; `None` before it is known.
    pub(super) fn offset(&self) -> Option<u64> {
        // Relaxed: the number stands for itself.
        Some(self.offset_micros.load(Ordering::Relaxed)).filter(|offset| *offset != 0)
    }

    /// Asks for the server's time, and how far it is from ours.
    async fn measure(&self, clock: &Clock, link: &Link) -> Result<(), Trouble> {
        let before = clock.exact() / 1_000;
        let (seconds, micros) = match link.send(&redis::cmd("TIME")).await? {
            Value::ServerError(error) => return Err(classify::server(&error)),
            Value::Array(parts) => match &parts[..] {
                [seconds, micros] => wire::number(seconds).zip(wire::number(micros)),
                _ => None,
            }
            .ok_or_else(classify::nonsense)?,
            _ => return Err(classify::nonsense()),
        };
        let after = clock.exact() / 1_000;
        let took = after.saturating_sub(before);
        let time = seconds.saturating_mul(1_000_000).saturating_add(micros);
        let mut offset = lock(&self.offset);
        offset.age += 1;
        // A slow answer says little; but clocks drift, so after a while the best one says less.
        if offset.age > 20 || took <= offset.took || self.offset().is_none() {
            *offset = Offset { took, age: 0 };
            let ours = before + took / 2;
            self.offset_micros
                .store(time.wrapping_sub(ours).max(1), Ordering::Relaxed);
        }
        Ok(())
    }
}
