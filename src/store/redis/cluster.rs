//! A cluster: which masters it has, asked again and again, and the connections to each of them.
//!
//! There is no redirection. Who asks a master for what it no longer has is told so at once, as an error that passes, and the
//! cluster is asked for its masters anew.

use std::time::Duration;

use redis::{RedisConnectionInfo, Value};
use tokio::time::{sleep, timeout};

use super::classify;
use super::dial::{Driver, Endpoint, Host, Security, Target, ask, text};
use super::limited_stream::StreamLimit;
use super::node::Node;
use super::shared::Shared;
use super::slots::{Range, Slots};
use super::wire;
use crate::store::error::{ErrorClass, StoreError};
use crate::sync::future::or;
use crate::sync::{Arc, lock};

/// How to find a cluster, and who we are there.
pub(super) struct Cluster {
    pub(super) seeds: Vec<Endpoint>,
    pub(super) login: RedisConnectionInfo,
    pub(super) security: Security,
    /// The longest that anything may take.
    pub(super) limit: Duration,
}

/// A master's address, and its slots.
type Owner = ((String, u16), u16, u16);

impl Cluster {
    /// Keeps up with the cluster, for ever.
    pub(super) async fn keep(&self, shared: &Arc<Shared>) {
        // The masters that are kept, in the order of the slots' nodes.
        let mut kept: Vec<(Arc<Node>, Driver)> = Vec::new();
        for turn in 0.. {
            match self.find(&shared.nodes(), turn).await {
                Ok(owners) => self.adopt(shared, owners, &mut kept),
                Err(error) if kept.is_empty() => {
                    *lock(&shared.unknown) = Some(error);
                    shared.changed.notify_all();
                }
                // What was known stays until somebody knows better.
                Err(_) => {}
            }
            // Not for every error: each asks for the same.
            sleep(self.limit / 10).await;
            or(sleep(self.limit), shared.doubt.notified()).await;
        }
    }

    /// Who has which slots, from the first that knows: a master that we are connected to, in turn, or one of the seeds.
    async fn find(&self, nodes: &[Arc<Node>], turn: usize) -> Result<Vec<Owner>, StoreError> {
        let mut last = StoreError::new(ErrorClass::Unavailable, "no node of the cluster");
        for place in 0..nodes.len() {
            let node = &nodes[(turn + place) % nodes.len()];
            let Ok(link) = node.reads.link() else {
                continue;
            };
            let answers = async {
                let mut answers = Vec::new();
                for command in questions() {
                    let answer = link.send(&command).await;
                    answers.push(answer.map_err(|trouble| trouble.error)?);
                }
                Ok(answers)
            };
            match timeout(self.limit / 3, answers).await {
                Ok(answers) => {
                    match answers.and_then(|answers| owners(&answers, &node.address.0)) {
                        Ok(owners) => return Ok(owners),
                        Err(error) => last = error,
                    }
                }
                Err(_) => last = StoreError::new(ErrorClass::TimedOut, "cluster"),
            }
        }
        for seed in &self.seeds {
            match timeout(self.limit / 3, self.ask_seed(seed)).await {
                Ok(Ok(owners)) => return Ok(owners),
                Ok(Err(error)) => last = error,
                Err(_) => last = StoreError::new(ErrorClass::TimedOut, "cluster"),
            }
        }
        Err(last)
    }

    async fn ask_seed(&self, seed: &Endpoint) -> Result<Vec<Owner>, StoreError> {
        let Host::Tcp(host, _) = &seed.host else {
            let text = "the URLs of a cluster must be redis:// or rediss://";
            return Err(StoreError::new(ErrorClass::Setting, text));
        };
        let (mut connection, driver) = seed.dial(self.limit, &StreamLimit::new(0), None).await?;
        let _driver = Driver(tokio::spawn(driver));
        let mut answers = Vec::new();
        for command in questions() {
            answers.push(ask(&mut connection, command).await?);
        }
        owners(&answers, host)
    }

    /// Connects to masters that are new, leaves those that are none any more, and says whose the slots are.
    fn adopt(&self, shared: &Arc<Shared>, owners: Vec<Owner>, kept: &mut Vec<(Arc<Node>, Driver)>) {
        kept.retain(|(node, _)| owners.iter().any(|(address, ..)| *address == node.address));
        let mut ranges = Vec::with_capacity(owners.len());
        for (address, first, last) in owners {
            let known = kept.iter().position(|(node, _)| node.address == address);
            let node = known.unwrap_or_else(|| {
                let (host, port) = address.clone();
                let target = Target::Standalone(Endpoint {
                    host: Host::Tcp(host, port),
                    security: self.security.clone(),
                    login: self.login.clone(),
                });
                let node = Arc::new(Node::new(address, &shared.changed));
                let (keep, shared, limit) = (node.clone(), shared.clone(), self.limit);
                let keep = async move { keep.keep(shared, &target, limit).await };
                kept.push((node, Driver(tokio::spawn(keep))));
                kept.len() - 1
            });
            ranges.push(Range { first, last, node });
        }
        ranges.sort_by_key(|range| range.first);
        let nodes = kept.iter().map(|(node, _)| node.clone()).collect();
        let slots = Arc::new(Slots::new(nodes, ranges));
        let old = shared.slots.load();
        if old.is_some_and(|old| old.is(&slots)) {
            return;
        }
        shared.slots.swap(Some(slots));
        shared.changed.notify_all();
        // A change may have been heard from a master before its slot was known to be there, and so not told.
        shared.gap(None);
    }
}

/// Whether the cluster works, as seen by the one that is asked; and who has which slots.
fn questions() -> [redis::Cmd; 2] {
    ["INFO", "SLOTS"].map(|what| {
        let mut command = redis::cmd("CLUSTER");
        command.arg(what);
        command
    })
}

/// Understands the answers of a node at this host.
fn owners(answers: &[Value], host: &str) -> Result<Vec<Owner>, StoreError> {
    let [info, slots] = answers else {
        return Err(classify::nonsense().error);
    };
    for answer in answers {
        if let Value::ServerError(error) = answer {
            return Err(classify::server(error).error);
        }
    }
    // One that is cut off from the others knows only how it was.
    match info_text(info) {
        Some(info) if info.contains("cluster_state:ok") => {}
        Some(_) => return Err(StoreError::new(ErrorClass::Busy, "CLUSTERDOWN")),
        None => return Err(classify::nonsense().error),
    }
    let Value::Array(ranges) = slots else {
        return Err(classify::nonsense().error);
    };
    let owners = ranges.iter().map(|range| owner(range, host));
    let owners = owners.collect::<Option<Vec<_>>>();
    let owners = owners.filter(|owners| !owners.is_empty());
    owners.ok_or_else(|| classify::nonsense().error)
}

fn info_text(info: &Value) -> Option<String> {
    match info {
        Value::VerbatimString { text, .. } => Some(text.clone()),
        other => text(other),
    }
}

/// First slot, last slot, the master, its replicas.
fn owner(range: &Value, host: &str) -> Option<Owner> {
    let Value::Array(parts) = range else {
        return None;
    };
    let [first, last, Value::Array(master), ..] = &parts[..] else {
        return None;
    };
    let [name, port, ..] = &master[..] else {
        return None;
    };
    let name = match name {
        // "Where you found me."
        Value::Nil => host.to_owned(),
        name => Some(text(name)?).filter(|name| !name.is_empty())?,
    };
    let number = |value| u16::try_from(wire::number(value)?).ok();
    Some(((name, number(port)?), number(first)?, number(last)?))
}
