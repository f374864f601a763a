//! All interleavings of loads that fail. The store remembers the processes that failed, so each may
//! try once before the cool-down is over, and none is kept away by the failure of another.
//!
//! Two rules that look right are models that must fail.

use std::collections::BTreeSet;

use stateright::{Model, Property};

use crate::explore::explore;

/// The processes that a cool-down keeps away.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Rule {
    /// Every process that failed.
    AsSpecified,
    All,
    /// The process that failed last.
    TheLast,
}

const PROCESSES: usize = 3;

struct Fleet(Rule);

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct World {
    /// The process that has the lease.
    holder: Option<usize>,
    /// The names in the cool-down or in the lease that was granted in it.
    named: BTreeSet<usize>,
    cools: bool,
    /// The processes that failed since the cool-down began.
    failed: BTreeSet<usize>,
    attempts: [u8; PROCESSES],
    /// A process was kept away by the failure of another.
    kept_away: bool,
    /// A process failed twice in a cool-down.
    twice: bool,
    /// A process succeeded in a cool-down.
    succeeded: bool,
}

#[derive(Clone, Debug, PartialEq)]
enum Action {
    Ask(usize),
    Fail,
    Succeed,
    /// The time of the lease or of the cool-down is over.
    End,
}

impl Model for Fleet {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World::default()]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        for (number, attempts) in world.attempts.iter().enumerate() {
            if *attempts < 3 && world.holder.is_none() {
                actions.push(Action::Ask(number));
            }
        }
        if world.holder.is_some() {
            actions.extend([Action::Fail, Action::Succeed]);
        }
        if world.holder.is_some() || world.cools {
            actions.push(Action::End);
        }
    }

    fn next_state(&self, last: &World, action: Action) -> Option<World> {
        let mut world = last.clone();
        match action {
            Action::Ask(number) => {
                world.attempts[number] += 1;
                let denied = match self.0 {
                    Rule::All => world.cools,
                    Rule::AsSpecified | Rule::TheLast => world.named.contains(&number),
                };
                match denied {
                    true => world.kept_away |= !world.failed.contains(&number),
                    false => {
                        world.holder = Some(number);
                        world.cools = false;
                    }
                }
            }
            Action::Fail => {
                let holder = world.holder.take()?;
                world.twice |= !world.failed.insert(holder);
                if self.0 == Rule::TheLast {
                    world.named.clear();
                }
                world.named.insert(holder);
                world.cools = true;
            }
            Action::Succeed => {
                world.succeeded |= !world.failed.is_empty();
                world.end();
            }
            Action::End => world.end(),
        }
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("none is kept away by another", |_, world: &World| {
                !world.kept_away
            }),
            Property::always("each fails once", |_, world: &World| !world.twice),
            Property::sometimes("a success in a cool-down", |_, world: &World| {
                world.succeeded
            }),
        ]
    }
}

impl World {
    fn end(&mut self) {
        self.holder = None;
        self.cools = false;
        self.named.clear();
        self.failed.clear();
    }
}

fn check(rule: Rule) -> (usize, Vec<&'static str>) {
    explore(Fleet(rule), &["a success in a cool-down"])
}

#[test]
fn each_process_fails_once_in_a_cool_down_and_keeps_no_other_away() {
    let (states, failed) = check(Rule::AsSpecified);
    assert!(failed.is_empty(), "{failed:?}");
    assert!(states > 1_000, "only {states} states");
}

#[test]
fn a_cool_down_without_names_keeps_others_away() {
    assert_eq!(check(Rule::All).1, ["none is kept away by another"]);
}

#[test]
fn a_cool_down_that_names_one_process_lets_the_others_try_again() {
    assert_eq!(check(Rule::TheLast).1, ["each fails once"]);
}
