//! All interleavings of writes that reach the store late with loads that are published meanwhile.
//!
//! The model has one key. Each write is made at one moment and arrives at any later one, or never;
//! each load begins at one moment and is published at any later one, unless a change came between.
//! Moments are numbered, so a later event has a greater number. Two orders that look right are
//! models that must fail.

use std::collections::BTreeSet;

use stateright::{Model, Property};

use crate::explore::explore;

type Moment = u8;

/// A deviation from the order of writes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Order {
    /// None.
    AsSpecified,
    /// Of two writes the one that arrives last wins.
    LastToArrive,
    /// A set that is older than a loaded value leaves that value, as it leaves a later set.
    SetLeavesLoadedValue,
    /// A write is compared with the moment at which the stored write arrived, not with its birth.
    ArrivalForBirth,
}

struct LateWrites {
    order: Order,
    writes: usize,
    loads: usize,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct World {
    clock: Moment,
    stored: Option<Stored>,
    /// Writes that have not arrived, with whether each is a set.
    underway: BTreeSet<(Moment, bool)>,
    /// Loads that are not published: when each began, and when its result becomes useless.
    loading: BTreeSet<Moment>,
    writes: usize,
    loads: usize,
    /// A set was replaced by an older write.
    backwards: bool,
    /// A set was refused because of a write that was made before it.
    lost: bool,
    /// A value that was loaded before a write was stored after that write had arrived.
    outdated: bool,
    refused: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stored {
    Loaded { began: Moment, epoch: Moment },
    Written { born: Moment, epoch: Moment },
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Action {
    Load,
    Publish(Moment),
    Write { is_set: bool },
    Arrive(Moment, bool),
    Evict,
}

impl World {
    fn tick(&mut self) -> Moment {
        self.clock += 1;
        self.clock
    }
}

impl LateWrites {
    fn arrive(&self, world: &mut World, born: Moment, is_set: bool) {
        let later = |stored| match (self.order, stored) {
            (Order::LastToArrive, _) => false,
            (Order::ArrivalForBirth, Stored::Written { epoch, .. }) => epoch > born,
            (_, Stored::Written { born: other, .. }) => other > born,
            (_, Stored::Loaded { epoch, .. }) => epoch > born,
        };
        let is_later = world.stored.is_some_and(later);
        let by = |other: Moment| match is_later {
            true => other < born,
            false => other > born,
        };
        match world.stored {
            Some(Stored::Written { born: other, .. }) if is_later => {
                world.refused = true;
                world.lost |= by(other);
                return;
            }
            Some(Stored::Loaded { .. })
                if is_later && is_set && self.order == Order::SetLeavesLoadedValue => {}
            stored => {
                if let Some(Stored::Written { born: other, .. }) = stored {
                    world.backwards |= by(other);
                }
                let epoch = world.tick();
                world.stored = (is_set && !is_later).then_some(Stored::Written { born, epoch });
                // The change ends the lease of every load.
                world.loading.clear();
            }
        }
        if let Some(Stored::Loaded { began, .. }) = world.stored {
            world.outdated |= began < born;
        }
    }
}

impl Model for LateWrites {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World::default()]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        if world.loads < self.loads {
            actions.push(Action::Load);
        }
        if world.writes < self.writes {
            actions.push(Action::Write { is_set: true });
            actions.push(Action::Write { is_set: false });
        }
        for began in &world.loading {
            actions.push(Action::Publish(*began));
        }
        for (born, is_set) in &world.underway {
            actions.push(Action::Arrive(*born, *is_set));
        }
        if world.stored.is_some() {
            actions.push(Action::Evict);
        }
    }

    fn next_state(&self, last: &World, action: Action) -> Option<World> {
        let mut world = last.clone();
        match action {
            Action::Load => {
                world.loads += 1;
                let began = world.tick();
                world.loading.insert(began);
            }
            Action::Publish(began) => {
                // The store accepts one successor of each base.
                world.loading.clear();
                let epoch = world.tick();
                world.stored = Some(Stored::Loaded { began, epoch });
            }
            Action::Write { is_set } => {
                world.writes += 1;
                let born = world.tick();
                world.underway.insert((born, is_set));
            }
            Action::Arrive(born, is_set) => {
                world.underway.remove(&(born, is_set));
                self.arrive(&mut world, born, is_set);
            }
            Action::Evict => world.stored = None,
        }
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("no write replaces a later one", |_, world: &World| {
                !world.backwards
            }),
            Property::always(
                "no write is refused for an earlier one",
                |_, world: &World| !world.lost,
            ),
            Property::always("no older load stays", |_, world: &World| !world.outdated),
            Property::sometimes("a write is refused", |_, world: &World| world.refused),
        ]
    }
}

fn check(order: Order) -> (usize, Vec<&'static str>) {
    let model = LateWrites {
        order,
        writes: 3,
        loads: 2,
    };
    explore(model, &["a write is refused"])
}

#[test]
fn the_later_of_two_writes_wins_whenever_they_arrive() {
    let (states, failed) = check(Order::AsSpecified);
    assert!(failed.is_empty(), "{failed:?}");
    assert!(states > 5_000, "only {states} states");
}

#[test]
fn a_write_does_not_win_by_arriving_last() {
    let (_, failed) = check(Order::LastToArrive);
    assert!(
        failed.contains(&"no write replaces a later one"),
        "{failed:?}"
    );
}

#[test]
fn a_late_set_removes_a_loaded_value_that_it_does_not_replace() {
    let (_, failed) = check(Order::SetLeavesLoadedValue);
    assert_eq!(failed, ["no older load stays"]);
}

#[test]
fn the_birth_of_a_stored_write_counts_not_its_arrival() {
    let (_, failed) = check(Order::ArrivalForBirth);
    assert_eq!(failed, ["no write is refused for an earlier one"]);
}
