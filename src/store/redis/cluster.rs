//! A cluster: finds its masters again and again, and keeps the connections to each of them.
//!
//! Commands are not redirected. If a master no longer owns a key, the caller gets a temporary error
//! at once, and the cluster is asked for its masters again.

use redis::Value;
use tokio::time::{Instant, sleep, timeout};

use super::classify;
use super::dial::{Driver, Endpoint, Host, Login, Security, Target, setting};
use super::greeting::Expected;
use super::node::Node;
use super::shared::Shared;
use super::slots::{SlotRange, Slots};
use super::supervisor::Limits;
use super::wire::{self, text};
use crate::store::error::{ErrorClass, StoreError};
use crate::sync::future::or;
use crate::sync::{Arc, lock};

/// How to find a cluster, and the login for it.
pub(super) struct Cluster {
    pub(super) seeds: Vec<Endpoint>,
    pub(super) login: Login,
    pub(super) security: Security,
    pub(super) limits: Limits,
}

/// A master's address, and its slots.
type Owner = ((String, u16), u16, u16);

impl Cluster {
    /// Follows changes of the cluster, for ever.
    pub(super) async fn keep(&self, shared: &Arc<Shared>) {
        // The connected masters, in the order of the nodes of the slots.
        let mut kept: Vec<(Arc<Node>, Driver)> = Vec::new();
        for turn in 0.. {
            match self.find(&shared.nodes(), turn).await {
                Ok(owners) => self.adopt(shared, owners, &mut kept),
                Err(error) if kept.is_empty() => {
                    *lock(&shared.discovery_error) = Some(error);
                    shared.changed.notify_all();
                }
                // The last known masters stay until a node reports others.
                Err(_) => {}
            }
            // A pause, because one question serves many errors.
            sleep(self.limits.operation / 10).await;
            or(sleep(self.limits.operation), shared.recheck.notified()).await;
        }
    }

    /// Asks which master owns which slots: first the connected masters, in turn, then the seeds.
    /// The first valid reply counts.
    async fn find(&self, nodes: &[Arc<Node>], turn: usize) -> Result<Vec<Owner>, StoreError> {
        let mut last = StoreError::new(ErrorClass::Unavailable, "no node of the cluster");
        for place in 0..nodes.len() {
            let node = &nodes[(turn + place) % nodes.len()];
            let Ok(link) = node.reads.link() else {
                continue;
            };
            let answers = async {
                let mut answers = Vec::new();
                for command in discovery_commands() {
                    let answer = link.send(&command).await;
                    answers.push(answer.map_err(|failure| failure.error)?);
                }
                Ok(answers)
            };
            match timeout(self.limits.operation / 3, answers).await {
                Ok(answers) => {
                    match answers.and_then(|answers| owners(&answers, &node.address.0)) {
                        Ok(owners) => return Ok(owners),
                        Err(error) => last = error,
                    }
                }
                Err(_) => last = StoreError::new(ErrorClass::TimedOut, "cluster"),
            }
        }
        // A seed that hangs must leave time for the others.
        let each = self.limits.connect / self.seeds.len().max(1) as u32;
        for seed in &self.seeds {
            match self.ask_seed(seed, Instant::now() + each).await {
                Ok(owners) => return Ok(owners),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn ask_seed(&self, seed: &Endpoint, deadline: Instant) -> Result<Vec<Owner>, StoreError> {
        let Host::Tcp(host, _) = &seed.host else {
            return Err(setting(
                "the URLs of a cluster must begin with redis:// or rediss://",
            ));
        };
        let questions = discovery_commands();
        let answers = seed.ask(deadline, Expected::ClusterNode, &questions);
        owners(&answers.await?, host)
    }

    /// Connects to new masters, disconnects from former ones, and stores the new slots.
    fn adopt(&self, shared: &Arc<Shared>, owners: Vec<Owner>, kept: &mut Vec<(Arc<Node>, Driver)>) {
        kept.retain(|(node, _)| owners.iter().any(|(address, ..)| *address == node.address));
        let mut ranges = Vec::with_capacity(owners.len());
        for (address, first, last) in owners {
            let known = kept.iter().position(|(node, _)| node.address == address);
            let node = known.unwrap_or_else(|| {
                let (host, port) = address.clone();
                let target = Target::ClusterMaster(Endpoint {
                    host: Host::Tcp(host, port),
                    security: self.security.clone(),
                    login: self.login.clone(),
                });
                let node = Arc::new(Node::new(address, target.name(), &shared.changed));
                let (keep, shared, limits) = (node.clone(), shared.clone(), self.limits);
                let keep = async move { keep.keep(shared, &target, limits).await };
                kept.push((node, Driver(tokio::spawn(keep))));
                kept.len() - 1
            });
            ranges.push(SlotRange { first, last, node });
        }
        ranges.sort_by_key(|range| range.first);
        let nodes = kept.iter().map(|(node, _)| node.clone()).collect();
        let slots = Arc::new(Slots::new(nodes, ranges));
        let old = shared.slots.load();
        if old.as_ref().is_some_and(|old| old.is(&slots)) {
            return;
        }
        shared.slots.swap(Some(slots));
        shared.changed.notify_all();
        // A change may have arrived before its slot was known to belong to the master that sent it,
        // and so was not delivered.
        shared.gap(None);
    }
}

/// Commands that ask a node for the state of the cluster and for the owners of the slots.
fn discovery_commands() -> [redis::Cmd; 2] {
    ["INFO", "SLOTS"].map(|what| {
        let mut command = redis::cmd("CLUSTER");
        command.arg(what);
        command
    })
}

/// Decodes the replies of a node at this host.
fn owners(answers: &[Value], host: &str) -> Result<Vec<Owner>, StoreError> {
    let [info, slots] = answers else {
        return Err(classify::unexpected_reply().error);
    };
    for answer in answers {
        if let Value::ServerError(error) = answer {
            return Err(classify::server(error).error);
        }
    }
    // A node that is cut off from the others reports an old state.
    match text(info) {
        Some(info) if info.contains("cluster_state:ok") => {}
        Some(_) => return Err(StoreError::new(ErrorClass::Busy, "CLUSTERDOWN")),
        None => return Err(classify::unexpected_reply().error),
    }
    let Value::Array(ranges) = slots else {
        return Err(classify::unexpected_reply().error);
    };
    let owners = ranges.iter().map(|range| owner(range, host));
    let owners = owners.collect::<Option<Vec<_>>>();
    let owners = owners.filter(|owners| !owners.is_empty());
    owners.ok_or_else(|| classify::unexpected_reply().error)
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
        // The node at which the question was asked.
        Value::Nil => host.to_owned(),
        name => text(name).filter(|name| !name.is_empty())?.to_owned(),
    };
    let number = |value| u16::try_from(wire::number(value)?).ok();
    Some(((name, number(port)?), number(first)?, number(last)?))
}
