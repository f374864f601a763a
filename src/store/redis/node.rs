//! One master: the two connections to it, and the offset of its clock.

use redis::Value;

use super::classify::{self, Failure};
use super::dial::{PushHandler, Target};
use super::limited_stream::StreamLimit;
use super::messages;
use super::outage_log::OutageLog;
use super::shared::{Shared, both};
use super::supervisor::{Limits, Link, Role, Supervisor};
use super::wire;
use crate::store::key::Namespace;
use crate::store::lease::{CLOCK_ERROR, Epoch};
use crate::sync::event::Event;
use crate::sync::future::or;
use crate::sync::{Arc, AtomicU64, Mutex, Ordering, lock};

/// A master.
pub(super) struct Node {
    /// Host and port in the cluster; empty for a single server.
    pub(super) address: (String, u16),
    pub(super) reads: Supervisor,
    pub(super) scripts: Supervisor,
    /// The quality of the current offset.
    offset: Mutex<Offset>,
    /// The server's clock minus our monotonic clock, in microseconds; 0 before the first
    /// measurement.
    offset_micros: AtomicU64,
    /// The namespaces to which the connection for changes is subscribed.
    subscribed: Mutex<Vec<Namespace>>,
    /// The replication id of the server, if it may be read.
    replication_id: Mutex<Option<String>>,
}

/// The best of the recent measurements of the server's clock.
#[derive(Default)]
struct Offset {
    /// The round-trip time of the best measurement, in microseconds: its error is at most half.
    took: u64,
    /// The number of measurements since.
    age: u32,
}

/// How the clock of a server was set, by more than a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Set {
    Back,
    Ahead,
}

/// The connection for reads.
struct Reads(Arc<Shared>, Arc<Node>);

/// The connection for everything else.
struct Writes(Arc<Shared>, Arc<Node>);

impl Role for Reads {
    fn stream_limit(&self) -> &Arc<StreamLimit> {
        &self.0.stream_limit
    }

    fn push_handler(&self) -> Option<PushHandler> {
        None
    }

    fn runs_scripts(&self) -> bool {
        false
    }

    async fn prepare(&self, _: &Link) -> Result<(), Failure> {
        Ok(())
    }

    fn is_up(&self) {
        self.0.counters.connected();
    }

    async fn heartbeat(&self, link: &Link) -> Result<(), Failure> {
        self.1.measure(&self.0, link, false).await
    }
}

impl Role for Writes {
    fn stream_limit(&self) -> &Arc<StreamLimit> {
        &self.0.stream_limit
    }

    fn push_handler(&self) -> Option<PushHandler> {
        // Weak, because a strong reference would keep the store alive through its own connection.
        let (shared, node) = (Arc::downgrade(&self.0), Arc::downgrade(&self.1));
        // A new connection has no subscriptions.
        lock(&self.1.subscribed).clear();
        Some(Arc::new(move |push| {
            if let (Some(shared), Some(node)) = (shared.upgrade(), node.upgrade()) {
                messages::deliver(&push, &shared, &node);
            }
        }))
    }

    fn runs_scripts(&self) -> bool {
        true
    }

    async fn prepare(&self, link: &Link) -> Result<(), Failure> {
        let is_new = !self.1.is_current(link);
        let history_or_time = async {
            match is_new {
                true => self.1.read_history(&self.0, link).await,
                // A message was a reason to look.
                false => self.1.measure(&self.0, link, true).await,
            }
        };
        // Both in one round trip.
        both(self.1.subscribe(&self.0, link), history_or_time).await?;
        // Greets listeners that subscribed while the connection was up; `is_up` notifies the
        // others.
        if self.1.is_current(link) {
            self.0.greet();
        }
        Ok(())
    }

    fn is_up(&self) {
        self.0.counters.connected();
        self.0.gap(Some(&self.1));
    }

    async fn heartbeat(&self, link: &Link) -> Result<(), Failure> {
        self.1.measure(&self.0, link, true).await
    }
}

impl Node {
    /// `name` is the name of the server in logs.
    pub(super) fn new(address: (String, u16), name: String, changed: &Arc<Event>) -> Self {
        let log = Arc::new(OutageLog::new(name));
        Node {
            address,
            reads: Supervisor::new(changed.clone(), log.clone()),
            scripts: Supervisor::new(changed.clone(), log),
            offset: Mutex::default(),
            offset_micros: AtomicU64::new(0),
            subscribed: Mutex::default(),
            replication_id: Mutex::default(),
        }
    }

    /// Keeps the connections up, for ever.
    pub(super) async fn keep(
        self: Arc<Self>,
        shared: Arc<Shared>,
        target: &Target,
        limits: Limits,
    ) {
        let reads = Reads(shared.clone(), self.clone());
        let writes = Writes(shared, self.clone());
        // Neither ends.
        or(
            self.reads.supervise(target, limits, &reads),
            self.scripts.supervise(target, limits, &writes),
        )
        .await;
    }

    /// Subscribes to the namespaces of listeners that have no subscription yet.
    async fn subscribe(&self, shared: &Shared, link: &Link) -> Result<(), Failure> {
        let wanted = {
            let subscribed = lock(&self.subscribed);
            let mut wanted = shared.change_listeners.namespaces();
            wanted.retain(|namespace| !subscribed.contains(namespace));
            wanted
        };
        if !wanted.is_empty() {
            let channels = wanted.iter();
            let channels = channels.map(|namespace| shared.channel(namespace));
            link.subscribe(channels.collect()).await?;
            lock(&self.subscribed).extend(wanted);
        }
        Ok(())
    }

    /// Finds out whether a single server, or the master behind sentinels, continues the history of
    /// the one that was there before: it has the same replication id, or was its replica.
    ///
    /// Not in a cluster, where a history ends for the keys of one master only.
    async fn read_history(&self, shared: &Shared, link: &Link) -> Result<(), Failure> {
        if !self.address.0.is_empty() {
            return Ok(());
        }
        let reply = link.send(redis::cmd("INFO").arg("replication")).await?;
        // The user may lack the right to ask.
        let Some((id, before)) = wire::replication_ids(&reply) else {
            return Ok(());
        };
        let known = lock(&self.replication_id).replace(id.clone());
        if known.is_some_and(|known| known != id && known != before) {
            shared.begin_history();
        }
        Ok(())
    }

    /// Whether this link is the current connection for changes.
    fn is_current(&self, link: &Link) -> bool {
        let current = self.scripts.link();
        current.is_ok_and(|current| std::ptr::eq(&*current, link))
    }

    /// Whether changes of a namespace arrive from this master, or its listeners will be notified
    /// once the connection is back.
    pub(super) fn receives(&self, namespace: &Namespace) -> bool {
        self.scripts.link().is_err() || self.is_subscribed(namespace)
    }

    pub(super) fn is_subscribed(&self, namespace: &Namespace) -> bool {
        lock(&self.subscribed).contains(namespace)
    }

    /// The server's clock minus ours, in microseconds; `None` before the first measurement.
    pub(super) fn offset(&self) -> Option<u64> {
        // Relaxed: no other data depends on the number.
        Some(self.offset_micros.load(Ordering::Relaxed)).filter(|offset| *offset != 0)
    }

    /// Measures the offset between the server's clock and ours.
    ///
    /// A clock that was set is noticed on the connection of the scripts only, because they give the
    /// epochs. During a failover the other connection may still lead to the old server.
    async fn measure(&self, shared: &Shared, link: &Link, scripts: bool) -> Result<(), Failure> {
        let clock = &shared.clock;
        let before = clock.exact() / 1_000;
        let (seconds, micros) = match link.send(&redis::cmd("TIME")).await? {
            Value::ServerError(error) => return Err(classify::server(&error)),
            Value::Array(parts) => match &parts[..] {
                [seconds, micros] => wire::number(seconds).zip(wire::number(micros)),
                _ => None,
            }
            .ok_or_else(classify::unexpected_reply)?,
            _ => return Err(classify::unexpected_reply()),
        };
        let after = clock.exact() / 1_000;
        let took = after.saturating_sub(before);
        let time = seconds.saturating_mul(1_000_000).saturating_add(micros);
        let changed = self.learn(time, before, took, scripts);
        if changed == Some(Set::Back) {
            shared.begin_timeline();
        }
        // A new connection is a gap in any case. Messages that came since the clock was set may
        // have been ignored.
        if changed.is_some() && self.is_current(link) {
            shared.gap(None);
        }
        Ok(())
    }

    /// Looks at the server's clock at once if an epoch that the server gave since `before` cannot
    /// be its time. So the answer that has it counts as one of the right timeline.
    pub(super) async fn check_time(&self, shared: &Shared, epoch: Epoch, before: u64) {
        if self.expects(epoch, before, shared.clock.exact() / 1_000) {
            return;
        }
        if let Ok(link) = self.scripts.link() {
            // If this fails, the heartbeats find out.
            let _ = self.measure(shared, &link, true).await;
        }
    }

    /// Whether an epoch can be the server's time at a moment between these two of our clock.
    pub(super) fn expects(&self, epoch: Epoch, from: u64, to: u64) -> bool {
        let error = CLOCK_ERROR + lock(&self.offset).took / 2;
        self.offset().is_none_or(|known| {
            let earliest = from.wrapping_add(known).saturating_sub(error);
            let latest = to.wrapping_add(known).saturating_add(error);
            (earliest..=latest).contains(&epoch.micros())
        })
    }

    /// Takes a measurement over: the server's time at a moment between `before` and `took` later,
    /// by our clock. Returns how the server's clock was set, if it was and `may_be_set`.
    fn learn(&self, time: u64, before: u64, took: u64, may_be_set: bool) -> Option<Set> {
        let mut offset = lock(&self.offset);
        offset.age += 1;
        // The difference to the time that was expected, beyond the errors of both measurements.
        let changed = self.offset().and_then(|known| {
            let error = CLOCK_ERROR + offset.took / 2;
            let expected = |ours: u64| ours.wrapping_add(known);
            if time.saturating_add(error) < expected(before) {
                return Some(Set::Back);
            }
            (time > expected(before + took).saturating_add(error)).then_some(Set::Ahead)
        });
        // A slow reply gives a poor measurement. Clocks drift, however, so after 20 measurements
        // the best one is too old and any new one replaces it.
        let is_good = offset.age > 20 || took <= offset.took || self.offset().is_none();
        let replaces = match changed {
            Some(_) => may_be_set,
            None => is_good,
        };
        if replaces {
            *offset = Offset { took, age: 0 };
            let ours = before + took / 2;
            self.offset_micros
                .store(time.wrapping_sub(ours).max(1), Ordering::Relaxed);
        }
        changed.filter(|_| may_be_set)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A node whose clock was 1 000 s ahead of ours at 10 s, measured within 10 ms.
    fn measured() -> Node {
        let node = Node::new((String::new(), 0), String::new(), &Arc::new(Event::new()));
        assert_eq!(node.learn(1_010_000_000, 9_995_000, 10_000, true), None);
        assert_eq!(node.offset(), Some(1_000_000_000));
        node
    }

    fn expects(node: &Node, micros: u64) -> bool {
        Epoch::from_micros(micros).is_some_and(|epoch| node.expects(epoch, 20_000_000, 21_000_000))
    }

    #[test]
    fn a_clock_that_was_set_is_noticed() {
        for (time, changed) in [
            (1_019_100_000, None),
            (1_018_900_000, Some(Set::Back)),
            (1_000_000, Some(Set::Back)),
            (1_020_900_000, None),
            (1_021_200_000, Some(Set::Ahead)),
            (5_000_000_000, Some(Set::Ahead)),
        ] {
            let node = measured();
            assert_eq!(
                node.learn(time, 20_000_000, 100_000, true),
                changed,
                "{time}"
            );
            // A slow measurement counts only if the clock was set.
            let followed = changed.is_some();
            assert_eq!(node.offset() != Some(1_000_000_000), followed, "{time}");
            assert_eq!(node.learn(time, 20_000_000, 100_000, true), None);
            // The connection for reads may lead to another server.
            let node = measured();
            assert_eq!(node.learn(time, 20_000_000, 100_000, false), None);
            assert_eq!(node.offset(), Some(1_000_000_000));
        }
    }

    #[test]
    fn a_slow_answer_is_no_sign_that_the_clock_was_set() {
        for time in [1_020_000_000, 1_025_000_000, 1_030_000_000] {
            let node = measured();
            assert_eq!(node.learn(time, 20_000_000, 10_000_000, true), None);
        }
    }

    #[test]
    fn an_epoch_is_the_time_of_the_server() {
        let node = measured();
        assert!(expects(&node, 1_019_000_000) && expects(&node, 1_022_000_000));
        assert!(!expects(&node, 1_018_900_000) && !expects(&node, 1_022_100_000));
        let unknown = Node::new((String::new(), 0), String::new(), &Arc::new(Event::new()));
        assert!(expects(&unknown, 1));
    }
}
