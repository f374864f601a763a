//! All interleavings of changes with a clock of the store that is set back, as one process sees
//! them: it reads, is told of changes, notices some time later that the clock was set back, and
//! then compares its value with the store.
//!
//! The moments of the clock before it is set back are even, and those after it are odd, because no
//! two changes have the same epoch. The network is faster than the clock: no message or answer is
//! underway for as long as the clock was set back. Five rules that look right are models that must
//! fail.

use stateright::{Model, Property};

use crate::explore::explore;

type Time = u8;

/// A deviation from the order of changes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Rule {
    /// None.
    AsSpecified,
    /// Epochs of two timelines are compared.
    EpochsOnly,
    /// An epoch ahead of the clock is one of the present timeline, and its value is fresh.
    FutureIsNew,
    /// The successor of an epoch ahead of the clock is the next number.
    SuccessorStaysAhead,
    /// An answer has the timeline in which it comes, not that in which the process asked.
    TimelineOfTheAnswer,
    /// The value is not compared with the store.
    NoComparison,
}

const START: Time = 10;
const BACK: Time = 5;
const CHANGES: u8 = 3;
const PASSES: u8 = 2;

struct Clocks(Rule);

/// The payload of a change, which stands for its checksum too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Change {
    epoch: Time,
    number: u8,
}

/// A timeline and an epoch.
type Version = (u8, Time);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    clock: Time,
    timeline: u8,
    passes: u8,
    stored: Option<Change>,
    changes: u8,
    process: Process,
    later_left: bool,
    future_is_fresh: bool,
    wrote_the_future: bool,
    found_the_same: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Process {
    /// The last timeline that it noticed.
    timeline: u8,
    resident: Option<(Version, u8)>,
    latest: Option<Version>,
    /// In their order.
    messages: Vec<Change>,
    reading: Option<Read>,
    must_compare: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Read {
    asked_in: u8,
    answer: Option<Option<Change>>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Action {
    Set,
    Invalidate,
    Pass,
    SetBack,
    Ask,
    Answer,
    Install,
    Tell,
    Notice,
    Compare,
}

impl World {
    /// The process takes the clock for as far as before until it notices.
    fn expected_time(&self) -> Time {
        match self.process.timeline == self.timeline {
            true => self.clock,
            false => self.clock + BACK,
        }
    }

    /// Whether the process has noticed the timeline and compared its value with the store.
    fn is_compared(&self) -> bool {
        self.process.timeline == self.timeline && !self.process.must_compare
    }

    /// Whether the clock may go on before a message or an answer from its future has come.
    fn may_pass(&self) -> bool {
        let answer = self.process.reading.as_ref().and_then(|read| read.answer);
        let mut underway = self
            .process
            .messages
            .iter()
            .copied()
            .chain(answer.flatten());
        !underway.any(|change| change.epoch > self.clock && change.epoch <= self.clock + 2)
    }
}

impl Clocks {
    fn version(&self, world: &World, timeline: u8, epoch: Time) -> Version {
        match self.0 {
            Rule::EpochsOnly => (0, epoch),
            Rule::FutureIsNew => (timeline, epoch),
            _ if epoch > world.expected_time() => (timeline - 1, epoch),
            _ => (timeline, epoch),
        }
    }

    fn change(&self, world: &mut World, is_set: bool) {
        world.clock += 2;
        world.changes += 1;
        let stored = world.stored.map_or(0, |stored| stored.epoch);
        let epoch = match self.0 {
            Rule::SuccessorStaysAhead => world.clock.max(stored + 1),
            _ if stored > world.clock => world.clock,
            _ => world.clock.max(stored + 1),
        };
        let change = Change {
            epoch,
            number: world.changes,
        };
        world.wrote_the_future |= epoch > world.clock;
        world.stored = is_set.then_some(change);
        world.process.messages.push(change);
    }

    /// Makes a payload resident, if it may be served.
    fn install(&self, world: &mut World, version: Version, payload: Change) {
        let is_ahead = payload.epoch > world.expected_time();
        let process = &mut world.process;
        if process.latest.is_none_or(|latest| latest <= version) {
            process.latest = Some(version);
            process.resident = Some((version, payload.number));
            world.future_is_fresh |= is_ahead && self.0 == Rule::FutureIsNew;
        }
    }

    fn compare(&self, world: &mut World) {
        world.process.must_compare = false;
        let Some((version, number)) = world.process.resident else {
            return;
        };
        let Some(stored) = world.stored else {
            world.process.resident = None;
            return;
        };
        let found = self.version(world, world.process.timeline, stored.epoch);
        if version.0 != found.0 && number == stored.number {
            world.found_the_same = true;
            world.process.resident = Some((version.max(found), number));
        }
        world.process.latest = world.process.latest.max(Some(found));
        if world
            .process
            .resident
            .is_some_and(|(version, _)| version < found)
        {
            self.install(world, found, stored);
        }
    }
}

impl Model for Clocks {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let process = Process {
            timeline: 1,
            resident: None,
            latest: None,
            messages: Vec::new(),
            reading: None,
            must_compare: false,
        };
        let stored = Change {
            epoch: 2,
            number: 0,
        };
        vec![World {
            clock: START,
            timeline: 1,
            passes: 0,
            stored: Some(stored),
            changes: 0,
            process,
            later_left: false,
            future_is_fresh: false,
            wrote_the_future: false,
            found_the_same: false,
        }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        let process = &world.process;
        if world.changes < CHANGES && world.may_pass() {
            actions.extend([Action::Set, Action::Invalidate]);
        }
        if world.passes < PASSES && world.may_pass() {
            actions.push(Action::Pass);
        }
        if world.timeline == 1 {
            actions.push(Action::SetBack);
        }
        match &process.reading {
            None if process.resident.is_none() => actions.push(Action::Ask),
            None => {}
            Some(Read { answer: None, .. }) => actions.push(Action::Answer),
            Some(_) => actions.push(Action::Install),
        }
        if !process.messages.is_empty() {
            actions.push(Action::Tell);
        }
        if process.timeline != world.timeline {
            actions.push(Action::Notice);
        }
        if process.must_compare {
            actions.push(Action::Compare);
        }
    }

    fn next_state(&self, last: &World, action: Action) -> Option<World> {
        let mut world = last.clone();
        match action {
            Action::Set => self.change(&mut world, true),
            Action::Invalidate => self.change(&mut world, false),
            Action::Pass => {
                world.clock += 2;
                world.passes += 1;
            }
            Action::SetBack => {
                world.clock -= BACK;
                world.timeline += 1;
            }
            Action::Ask => {
                world.process.reading = Some(Read {
                    asked_in: world.process.timeline,
                    answer: None,
                });
            }
            Action::Answer => world.process.reading.as_mut()?.answer = Some(world.stored),
            Action::Install => {
                let read = world.process.reading.take()?;
                let timeline = match self.0 {
                    Rule::TimelineOfTheAnswer => world.process.timeline,
                    _ => read.asked_in,
                };
                if let (Some(payload), None) = (read.answer?, world.process.resident) {
                    let version = self.version(&world, timeline, payload.epoch);
                    self.install(&mut world, version, payload);
                }
            }
            Action::Tell => {
                let change = world.process.messages.remove(0);
                let version = self.version(&world, world.process.timeline, change.epoch);
                if world.process.latest < Some(version) {
                    world.process.latest = Some(version);
                    let left = world.process.resident.take();
                    // A value whose timeline is not known for sure may leave, which costs a read.
                    world.later_left |= left.is_some_and(|((timeline, _), number)| {
                        timeline == world.timeline && number > change.number
                    });
                }
            }
            Action::Notice => {
                world.process.timeline = world.timeline;
                world.process.must_compare = self.0 != Rule::NoComparison;
            }
            Action::Compare => self.compare(&mut world),
        }
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("a value that was overwritten leaves", |_, world: &World| {
                let process = &world.process;
                let is_settled =
                    process.messages.is_empty() && process.reading.is_none() && world.is_compared();
                let is_last = |(_, number): (Version, u8)| number == world.changes;
                !is_settled || process.resident.is_none_or(is_last)
            }),
            Property::always(
                "no earlier change removes a value of the timeline",
                |_, world: &World| !world.later_left,
            ),
            Property::always("no value from the future is fresh", |_, world: &World| {
                !world.future_is_fresh
            }),
            Property::always("no value is written in the future", |_, world: &World| {
                !world.wrote_the_future
            }),
            Property::sometimes(SAME, |_, world: &World| world.found_the_same),
        ]
    }
}

const SAME: &str = "a value of another timeline is the same";

fn check(rule: Rule) -> (usize, Vec<&'static str>) {
    explore(Clocks(rule), &[SAME])
}

fn fails(rule: Rule, claim: &str) {
    let (states, failed) = check(rule);
    println!("{rule:?}: {failed:?} after {states} states");
    assert!(failed.contains(&claim), "{failed:?}");
}

#[test]
fn a_clock_that_is_set_back_hides_no_change() {
    let (states, failed) = check(Rule::AsSpecified);
    assert!(failed.is_empty(), "{failed:?}");
    assert!(states > 5_000, "only {states} states");
}

#[test]
fn epochs_of_two_timelines_are_not_ordered() {
    fails(Rule::EpochsOnly, "a value that was overwritten leaves");
}

#[test]
fn an_epoch_ahead_of_the_clock_is_not_new() {
    fails(Rule::FutureIsNew, "no value from the future is fresh");
}

#[test]
fn the_successor_of_an_epoch_ahead_of_the_clock_is_not() {
    fails(
        Rule::SuccessorStaysAhead,
        "no value is written in the future",
    );
}

#[test]
fn an_answer_belongs_to_the_timeline_of_its_question() {
    fails(
        Rule::TimelineOfTheAnswer,
        "a value that was overwritten leaves",
    );
}

#[test]
fn a_change_that_came_before_the_notice_is_found_by_comparison() {
    fails(Rule::NoComparison, "a value that was overwritten leaves");
}
