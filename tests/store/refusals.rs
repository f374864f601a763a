//! All interleavings of a load whose result the store refuses: because its lease was evicted, or
//! because a set or an invalidation came after the load had begun. The store cannot tell the two
//! apart. The process can, by the messages that it was told, unless some were lost in a gap.
//!
//! Two rules that look right are models that must fail.

use stateright::{Model, Property};

use crate::explore::explore;

/// When a refused value stays in its process.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Rule {
    /// If no later change is known, and there was no gap since the grant.
    AsSpecified,
    Never,
    /// If no later change is known.
    DespiteGaps,
}

const PROCESSES: usize = 2;
const CHANGES: u8 = 2;
const EVICTIONS: u8 = 2;

struct Fleet(Rule);

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct World {
    /// Whether the store has a value, and which process has the lease.
    stored: bool,
    lease: Option<usize>,
    /// Sets and invalidations so far.
    changes: u8,
    evictions: u8,
    processes: [Process; PROCESSES],
    /// A refused value left although it was good.
    good_left: bool,
    /// A refused value stayed.
    stayed: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Process {
    phase: Phase,
    /// The messages that came or were lost in a gap.
    passed: u8,
    /// The last change of which the process was told.
    told: u8,
    had_gap: bool,
    /// The number of changes before the load of the resident value.
    resident: Option<u8>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
enum Phase {
    #[default]
    Idle,
    Loading {
        /// The number of changes before the load.
        since: u8,
        /// Whether there was a gap before it.
        after_gap: bool,
        /// The placeholder left because of a message.
        overtaken: bool,
    },
    Refused {
        since: u8,
        after_gap: bool,
        /// The messages that come before the reply.
        after: u8,
    },
    Done,
}

#[derive(Clone, Debug, PartialEq)]
enum Action {
    Begin(usize),
    Publish(usize),
    Reply(usize),
    Tell(usize),
    Gap(usize),
    EvictLease,
    EvictValue,
    Invalidate,
    Set,
}

impl Model for Fleet {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World::default()]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        for (number, process) in world.processes.iter().enumerate() {
            let is_free = world.lease.is_none() && !world.stored;
            match process.phase {
                // Replies come after the messages of earlier changes.
                Phase::Idle if is_free && process.passed == world.changes => {
                    actions.push(Action::Begin(number));
                }
                Phase::Loading { .. } => actions.push(Action::Publish(number)),
                Phase::Refused { after, .. } if process.passed >= after => {
                    actions.push(Action::Reply(number));
                }
                _ => {}
            }
            if process.passed < world.changes {
                actions.push(Action::Tell(number));
                if !process.had_gap {
                    actions.push(Action::Gap(number));
                }
            }
        }
        if world.evictions < EVICTIONS {
            actions.extend(world.lease.map(|_| Action::EvictLease));
            actions.extend(world.stored.then_some(Action::EvictValue));
        }
        if world.changes < CHANGES {
            actions.extend([Action::Invalidate, Action::Set]);
        }
    }

    fn next_state(&self, last: &World, action: Action) -> Option<World> {
        let mut world = last.clone();
        let changes = world.changes;
        match action {
            Action::Begin(number) => {
                world.lease = Some(number);
                let process = &mut world.processes[number];
                process.phase = Phase::Loading {
                    since: changes,
                    after_gap: process.had_gap,
                    overtaken: false,
                };
            }
            Action::Publish(number) => {
                let process = &mut world.processes[number];
                let Phase::Loading {
                    since,
                    after_gap,
                    overtaken,
                } = process.phase
                else {
                    return None;
                };
                // The callers have the value before the store does.
                process.resident = (!overtaken).then_some(since);
                process.phase = Phase::Refused {
                    since,
                    after_gap,
                    after: changes,
                };
                if world.lease == Some(number) {
                    process.phase = Phase::Done;
                    world.stored = true;
                    world.lease = None;
                }
            }
            Action::Reply(number) => {
                let process = &mut world.processes[number];
                let Phase::Refused {
                    since, after_gap, ..
                } = process.phase
                else {
                    return None;
                };
                let (had_gap, is_known) = (process.had_gap != after_gap, process.told > since);
                let stays = match self.0 {
                    Rule::AsSpecified => !had_gap && !is_known,
                    Rule::Never => false,
                    Rule::DespiteGaps => !is_known,
                };
                process.phase = Phase::Done;
                let resident = process.resident.take_if(|_| !stays).is_some();
                world.stayed |= process.resident.is_some();
                world.good_left |= resident && since == changes && !had_gap;
            }
            Action::Tell(number) => {
                let process = &mut world.processes[number];
                process.passed += 1;
                process.told = process.passed;
                process.leave_if_before(process.told);
                if let Phase::Loading {
                    since, overtaken, ..
                } = &mut process.phase
                {
                    *overtaken |= *since < process.told;
                }
            }
            Action::Gap(number) => {
                let process = &mut world.processes[number];
                process.passed = changes;
                process.had_gap = true;
                // The values that the process knows to be in the store, or has kept, are compared
                // with the store.
                if process.phase == Phase::Done {
                    process.leave_if_before(changes);
                }
            }
            Action::EvictLease => {
                world.lease = None;
                world.evictions += 1;
            }
            Action::EvictValue => {
                world.stored = false;
                world.evictions += 1;
            }
            Action::Invalidate | Action::Set => {
                world.changes += 1;
                world.lease = None;
                world.stored = action == Action::Set;
            }
        }
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("a good value stays", |_, world: &World| !world.good_left),
            Property::always("a wrong value leaves", |_, world: &World| {
                world
                    .processes
                    .iter()
                    .all(|process| process.is_settled(world.changes))
            }),
            Property::sometimes("a refused value stays", |_, world: &World| world.stayed),
        ]
    }
}

impl Process {
    /// Whether the resident value is right, or a message or a reply that removes it is on the way.
    fn is_settled(&self, changes: u8) -> bool {
        let is_wrong = self.resident.is_some_and(|since| since < changes);
        let is_refused = matches!(self.phase, Phase::Refused { .. });
        !is_wrong || is_refused || self.passed < changes
    }

    fn leave_if_before(&mut self, changes: u8) {
        self.resident.take_if(|since| *since < changes);
    }
}

fn check(rule: Rule) -> (usize, Vec<&'static str>) {
    explore(Fleet(rule), &["a refused value stays"])
}

#[test]
fn a_refused_value_stays_exactly_if_it_is_known_to_be_good() {
    let (states, failed) = check(Rule::AsSpecified);
    assert!(failed.is_empty(), "{failed:?}");
    assert!(states > 1_000, "only {states} states");
}

#[test]
fn a_refusal_alone_does_not_say_that_a_value_is_wrong() {
    assert_eq!(check(Rule::Never).1, ["a good value stays"]);
}

#[test]
fn after_a_gap_an_unknown_change_is_no_proof() {
    assert_eq!(check(Rule::DespiteGaps).1, ["a wrong value leaves"]);
}
