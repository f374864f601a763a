//! All interleavings of the lease protocol: several processes, a network that delays, repeats and
//! loses messages, and a store that expires leases and evicts payloads.
//!
//! The model follows the contracts of a store, not the source of one; the contract tests and the
//! differential test tie the two together. Claims A and B of the protocol are checked in every
//! state that can be reached. Five protocols that look right are models that must fail.

use std::collections::BTreeSet;

use stateright::{Model, Property};

use crate::explore::explore;

type Epoch = u8;
type Token = u8;

/// A deviation from the contracts.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Protocol {
    /// None.
    AsSpecified,
    /// If no payload was stored at the grant and none is stored now, that counts as unchanged.
    NothingIsABase,
    /// The base is the last epoch that the process saw, not the one stored at the grant.
    BaseSeenElsewhere,
    /// A lease records its holder, but not its base.
    LeaseWithoutItsBase,
    /// An overtaken lease keeps its base.
    LeaseKeepsItsBase,
    /// A set or an invalidation leaves the lease to its holder.
    LeaseSurvivesInvalidation,
}

struct Fleet {
    protocol: Protocol,
    /// How often each process may try to load.
    attempts: Vec<u8>,
    /// Whether a process may repeat its request, if no answer comes.
    repeats: bool,
    /// Whether the clock may be set back, once.
    sets_clock: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct World {
    data: Option<Epoch>,
    lease: Option<(Token, Option<Epoch>)>,
    clock: Epoch,
    was_set_back: bool,
    /// Sets and invalidations so far.
    changes: u8,
    evictions: u8,
    processes: Vec<Process>,
    network: BTreeSet<Message>,
    /// The bases that have a successor.
    succeeded: BTreeSet<Epoch>,
    /// A base had a second successor.
    twice: bool,
    /// A result loaded before a change was published after it.
    late: bool,
    /// A result was published.
    published: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Process {
    seen: Option<Epoch>,
    attempts: u8,
    phase: Phase,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
enum Phase {
    #[default]
    Idle,
    Asking {
        token: Token,
        repeated: bool,
    },
    Loading {
        token: Token,
        base: Option<Epoch>,
        /// The number of changes before the load began.
        since: u8,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Message {
    Acquire {
        process: usize,
        token: Token,
        seen: Option<Epoch>,
        /// Whether this is the second request of the attempt.
        repeated: bool,
    },
    Granted {
        process: usize,
        token: Token,
        base: Option<Epoch>,
    },
    Stored {
        process: usize,
        token: Token,
        epoch: Epoch,
    },
    Publish {
        token: Token,
        base: Option<Epoch>,
        since: u8,
    },
}

#[derive(Clone, Debug, PartialEq)]
enum Action {
    Read(usize),
    Ask(usize),
    Repeat(usize),
    Finish(usize),
    Crash(usize),
    Deliver(Message),
    ExpireLease,
    Evict,
    Set,
    Invalidate,
    SetClockBack,
}

impl Model for Fleet {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let world = World {
            clock: 2,
            processes: vec![Process::default(); self.attempts.len()],
            ..World::default()
        };
        let filled = World {
            data: Some(2),
            clock: 4,
            ..world.clone()
        };
        vec![world, filled]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        for (number, process) in world.processes.iter().enumerate() {
            let again = process.attempts < self.attempts[number];
            match process.phase {
                Phase::Idle if again => {
                    if process.seen != world.data {
                        actions.push(Action::Read(number));
                    }
                    actions.push(Action::Ask(number));
                }
                Phase::Idle => {}
                Phase::Asking { repeated, .. } => {
                    if self.repeats && !repeated {
                        actions.push(Action::Repeat(number));
                    }
                    if again {
                        actions.push(Action::Crash(number));
                    }
                }
                Phase::Loading { .. } => {
                    let elsewhere = self.protocol == Protocol::BaseSeenElsewhere;
                    if elsewhere && process.seen != world.data {
                        actions.push(Action::Read(number));
                    }
                    actions.push(Action::Finish(number));
                    if again {
                        actions.push(Action::Crash(number));
                    }
                }
            }
        }
        // A message that is never delivered models a lost message.
        for message in &world.network {
            actions.push(Action::Deliver(message.clone()));
        }
        if world.lease.is_some() {
            actions.push(Action::ExpireLease);
        }
        if world.data.is_some() && world.evictions == 0 {
            actions.push(Action::Evict);
        }
        if world.changes == 0 {
            actions.push(Action::Set);
            actions.push(Action::Invalidate);
        }
        if self.sets_clock && !world.was_set_back && world.clock > 4 {
            actions.push(Action::SetClockBack);
        }
    }

    fn next_state(&self, last: &World, action: Action) -> Option<World> {
        let mut world = last.clone();
        match action {
            Action::Read(number) => world.processes[number].seen = world.data,
            Action::Ask(number) => {
                let process = &mut world.processes[number];
                let token = number as u8 * 10 + process.attempts;
                process.attempts += 1;
                process.phase = Phase::Asking {
                    token,
                    repeated: false,
                };
                world.acquire(number, token, false);
            }
            Action::Repeat(number) => {
                let Phase::Asking { token, repeated } = &mut world.processes[number].phase else {
                    return None;
                };
                *repeated = true;
                let token = *token;
                world.acquire(number, token, true);
            }
            Action::Finish(number) => {
                let process = &mut world.processes[number];
                let Phase::Loading { token, base, since } = process.phase else {
                    return None;
                };
                process.phase = Phase::Idle;
                let base = match self.protocol {
                    Protocol::BaseSeenElsewhere => process.seen,
                    _ => base,
                };
                world
                    .network
                    .insert(Message::Publish { token, base, since });
            }
            Action::Crash(number) => world.processes[number].phase = Phase::Idle,
            Action::Deliver(message) => {
                world.network.remove(&message);
                self.deliver(&mut world, message);
            }
            Action::ExpireLease => world.lease = None,
            Action::Evict => {
                world.data = None;
                world.evictions += 1;
            }
            Action::Set => {
                world.data = Some(world.tick());
                self.fence(&mut world);
            }
            Action::Invalidate => {
                world.data = None;
                self.fence(&mut world);
            }
            Action::SetClockBack => {
                // From even to odd times, because no two changes are made at the same time.
                world.clock -= 3;
                world.was_set_back = true;
            }
        }
        world.forget_unexpected();
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("A: one successor of each epoch", |_, world: &World| {
                !world.twice
            }),
            Property::always("B: nothing late is published", |_, world: &World| {
                !world.late
            }),
            Property::sometimes("something is published", |_, world: &World| world.published),
            Property::sometimes("over something evicted", |_, world: &World| {
                world.published && world.evictions > 0 && world.data.is_some()
            }),
        ]
    }
}

impl World {
    fn tick(&mut self) -> Epoch {
        // Also smaller than what is stored, after the clock was set back.
        self.clock += 2;
        self.clock
    }

    /// Removes answers that no process waits for, because they change nothing.
    fn forget_unexpected(&mut self) {
        let processes = &self.processes;
        self.network.retain(|message| match message {
            Message::Granted { process, token, .. } | Message::Stored { process, token, .. } => {
                let phase = &processes[*process].phase;
                matches!(phase, Phase::Asking { token: asked, .. } if asked == token)
            }
            _ => true,
        });
    }

    fn acquire(&mut self, process: usize, token: Token, repeated: bool) {
        let seen = self.processes[process].seen;
        self.network.insert(Message::Acquire {
            process,
            token,
            seen,
            repeated,
        });
    }
}

impl Fleet {
    fn fence(&self, world: &mut World) {
        world.changes += 1;
        if self.protocol != Protocol::LeaseSurvivesInvalidation {
            world.lease = None;
        }
    }

    fn deliver(&self, world: &mut World, message: Message) {
        match message {
            Message::Acquire {
                process,
                token,
                seen,
                ..
            } => {
                if let Some(epoch) = world.data.filter(|epoch| Some(*epoch) != seen) {
                    let stored = Message::Stored {
                        process,
                        token,
                        epoch,
                    };
                    world.network.insert(stored);
                    return;
                }
                let mine = world.lease.filter(|(holder, _)| *holder == token);
                if world.lease.is_some() && mine.is_none() {
                    return;
                }
                let base = match self.protocol {
                    Protocol::NothingIsABase => world.data,
                    // A lease over a missing payload has a new base each time it is granted.
                    _ => {
                        let known = world.data.or(mine.and_then(|(_, base)| base));
                        Some(known.unwrap_or_else(|| world.tick()))
                    }
                };
                world.lease = Some((token, base));
                world.network.insert(Message::Granted {
                    process,
                    token,
                    base,
                });
            }
            Message::Granted {
                process,
                token,
                base,
            } => {
                let since = world.changes;
                let process = &mut world.processes[process];
                if matches!(process.phase, Phase::Asking { token: asked, .. } if asked == token) {
                    process.phase = Phase::Loading { token, base, since };
                }
            }
            Message::Stored {
                process,
                token,
                epoch,
            } => {
                let process = &mut world.processes[process];
                if matches!(process.phase, Phase::Asking { token: asked, .. } if asked == token) {
                    process.phase = Phase::Idle;
                    process.seen = Some(epoch);
                }
            }
            Message::Publish { token, base, since } => {
                let ours = match self.protocol {
                    Protocol::LeaseWithoutItsBase | Protocol::BaseSeenElsewhere => {
                        world.lease.is_some_and(|(holder, _)| holder == token)
                    }
                    _ => world.lease == Some((token, base)),
                };
                let accepted = match world.data {
                    Some(stored) => base == Some(stored),
                    None if self.protocol == Protocol::NothingIsABase => base.is_none() || ours,
                    None => ours,
                };
                match &mut world.lease {
                    Some((holder, _)) if *holder == token => world.lease = None,
                    // The overtaken holder goes on loading, but its result will be refused.
                    Some((_, base)) if accepted && self.protocol != Protocol::LeaseKeepsItsBase => {
                        *base = None;
                    }
                    _ => {}
                }
                if accepted {
                    world.data = Some(world.tick());
                    world.published = true;
                    world.late |= since < world.changes;
                    if let Some(base) = base {
                        world.twice |= !world.succeeded.insert(base);
                    }
                }
            }
        }
    }
}

fn check(protocol: Protocol, attempts: &[u8], repeats: bool) -> (usize, Vec<&'static str>) {
    let fleet = Fleet {
        protocol,
        attempts: attempts.to_vec(),
        repeats,
        sets_clock: false,
    };
    explore(fleet, OCCUR)
}

const OCCUR: &[&str] = &["something is published", "over something evicted"];

/// Asserts that all claims hold in every state, and that there are enough states.
fn holds(attempts: &[u8], repeats: bool) {
    let (states, failed) = check(Protocol::AsSpecified, attempts, repeats);
    assert!(failed.is_empty(), "{failed:?}");
    assert!(states > 10_000, "only {states} states");
}

fn fails(protocol: Protocol) {
    let repeats = protocol == Protocol::LeaseWithoutItsBase;
    let (states, failed) = check(protocol, &[2, 1], repeats);
    println!("{protocol:?}: {failed:?} after {states} states");
    assert!(!failed.is_empty(), "no claim fails with {protocol:?}");
}

#[test]
fn two_processes_keep_the_claims() {
    holds(&[2, 1], false);
}

#[test]
fn three_processes_keep_the_claims() {
    holds(&[1, 1, 1], false);
}

#[test]
fn two_processes_that_repeat_requests_keep_the_claims() {
    holds(&[1, 1], true);
}

#[test]
fn two_processes_keep_the_claims_when_the_clock_is_set_back() {
    let fleet = Fleet {
        protocol: Protocol::AsSpecified,
        attempts: vec![2, 1],
        repeats: false,
        sets_clock: true,
    };
    let (states, failed) = explore(fleet, OCCUR);
    assert!(failed.is_empty(), "{failed:?}");
    assert!(states > 10_000, "only {states} states");
}

#[test]
fn a_missing_payload_is_no_base() {
    fails(Protocol::NothingIsABase);
}

#[test]
fn a_base_comes_only_from_the_grant() {
    fails(Protocol::BaseSeenElsewhere);
}

#[test]
fn a_lease_knows_its_base() {
    // A repeated request that arrives after an invalidation gives the lease to the load that began
    // before it.
    fails(Protocol::LeaseWithoutItsBase);
}

#[test]
fn an_overtaken_lease_loses_its_base() {
    // Otherwise its holder, after an eviction, publishes a second successor of the same epoch.
    fails(Protocol::LeaseKeepsItsBase);
}

#[test]
fn a_change_takes_the_lease_away() {
    fails(Protocol::LeaseSurvivesInvalidation);
}
