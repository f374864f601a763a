//! All interleavings of a group in a fleet: two processes, one cell, one key, a network that delays
//! and loses messages, and a store that loses the cell or whose clock is set back.
//!
//! The model follows the rules of `fleet::cells`, not its source. The claim is P4 for groups: once a
//! process was told of an invalidation, it serves nothing that was loaded before that, neither from
//! its table nor from the store. The protocols that look right and are wrong are models that must
//! fail.

use std::collections::{BTreeSet, VecDeque};

use stateright::{Model, Property};

use crate::explore::explore;

/// A timeline and an epoch of it, by which versions are ordered.
type Version = (u8, u8);

/// A deviation from the rules.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Rules {
    /// None.
    AsSpecified,
    /// A result gets the epoch that is known when it is published.
    EpochOfThePublication,
    /// A payload is installed without a look at its epoch.
    ReaderWithoutCheck,
    /// A payload with a later epoch than the one that is known is valid as well.
    LaterEpochsAreValid,
    /// A payload may be read while an invalidation of this process waits.
    PendingInvalidationIsIgnored,
    /// After a gap the cell is not compared.
    GapIsNotCompared,
    /// The store may learn of an invalidation before it is made in this process.
    SentBeforeItIsMade,
    /// The message of an own invalidation counts also if others may have been missed.
    EchoCountsAfterAGap,
    /// After a gap, a cell that was compared once before counts as told.
    FirstComparisonIsTrusted,
    /// A message is ignored if a comparison has found its version.
    ComparedMessageIsIgnored,
    /// A store that has lost the cell counts as one whose cell was not invalidated.
    LostCellIsUnchanged,
    /// The beginning of a payload is that of its installation, not of its check.
    BeginsAtTheInstallation,
}

struct Fleet {
    rules: Rules,
    /// By each process.
    invalidations: [u8; 2],
    comparisons: u8,
    loads: u8,
    reads: u8,
    gaps: u8,
    loses_cell: bool,
    sets_clock_back: bool,
    restarts: bool,
    /// Whether the processes know the cell, and the key is stored.
    begins_known: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Payload {
    /// The version of the cell when the load began; the comparison is by its epoch only.
    cell: Version,
    /// The number of invalidations that were called before the load began.
    loaded: u8,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct World {
    cell: Option<Version>,
    data: Option<Payload>,
    /// How often the key was published: the base of a publication.
    base: u8,
    timeline: u8,
    clock: u8,
    /// Calls so far.
    calls: u8,
    has_lost: bool,
    loads: u8,
    reads: u8,
    gaps: u8,
    comparisons: u8,
    has_restarted: bool,
    processes: [Process; 2],
    /// Publications on their way.
    network: BTreeSet<(Payload, u8)>,
    served_from_store: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Process {
    /// The moments of the groups, and the last one of the cell.
    now: u8,
    last: u8,
    known: Option<Version>,
    reached: Option<Version>,
    ours: Option<Version>,
    since: u8,
    gap: u8,
    told_gap: u8,
    /// The gap in which the cell was compared.
    compared: Option<u8>,
    is_connected: bool,
    /// What the store has told, in its order: whose invalidation, and its number and version.
    told: VecDeque<(usize, u8, Version)>,
    calls: u8,
    call: Call,
    /// A comparison under way: the gap, what was known, and the answer.
    comparing: Option<(u8, Option<Version>, Option<Version>)>,
    /// A load: its beginning, the calls before it, and the base.
    loading: Option<(u8, u8, u8)>,
    /// A payload that was read, and the beginning once it was checked.
    reading: Option<(Payload, Option<u8>)>,
    /// The resident value: the calls before its load, and its stamp.
    resident: Option<(u8, u8)>,
    /// The number of the last invalidation of which this process was told.
    knows: u8,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Call {
    #[default]
    None,
    /// Recorded, with this number.
    Begun(u8),
    /// Made in this process.
    Made(u8),
    /// In the store, before it is made in this process.
    SentEarly(u8, Version),
    /// In the store, whose answer is on its way.
    Sent(Version),
}

#[derive(Clone, Debug, PartialEq)]
enum Action {
    Invalidate(usize),
    Make(usize),
    Send(usize),
    Answer(usize),
    Tell(usize),
    Ask(usize),
    Compare(usize),
    Disconnect(usize),
    Reconnect(usize),
    Load(usize),
    Finish(usize),
    Read(usize),
    Check(usize),
    Install(usize),
    Publish((Payload, u8)),
    LoseCell,
    SetClockBack,
    Restart,
}

impl Process {
    fn is_pending(&self) -> bool {
        !matches!(self.call, Call::None)
    }

    fn tick(&mut self) -> u8 {
        self.now += 1;
        self.now
    }

    fn bump(&mut self) {
        self.last = self.tick();
    }

    fn is_in_sync(&self) -> bool {
        self.known.is_some() && self.compared == Some(self.gap) && self.known >= self.ours
    }

    /// The value that a reader of the table gets.
    fn serves(&self) -> Option<u8> {
        let (loaded, stamp) = self.resident?;
        (stamp == self.last).then_some(loaded)
    }

    fn install(&mut self, loaded: u8, began: u8) {
        self.resident = Some((loaded, self.last.min(began)));
    }
}

impl Model for Fleet {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let process = Process {
            is_connected: true,
            ..Process::default()
        };
        let unknown = World {
            clock: 6,
            processes: [process.clone(), process.clone()],
            ..World::default()
        };
        // Both know the cell, and the key is stored.
        let version = (0, 6);
        let knowing = Process {
            known: Some(version),
            compared: Some(0),
            ..process
        };
        let known = World {
            cell: Some(version),
            data: Some(Payload {
                cell: version,
                loaded: 0,
            }),
            processes: [knowing.clone(), knowing],
            ..unknown.clone()
        };
        match self.begins_known {
            true => vec![known],
            false => vec![unknown],
        }
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        for (at, process) in world.processes.iter().enumerate() {
            match process.call {
                Call::None if process.calls < self.invalidations[at] => {
                    actions.push(Action::Invalidate(at));
                }
                Call::None => {}
                Call::Begun(_) => {
                    actions.push(Action::Make(at));
                    if self.rules == Rules::SentBeforeItIsMade {
                        actions.push(Action::Send(at));
                    }
                }
                Call::SentEarly(..) => actions.push(Action::Make(at)),
                Call::Made(_) => actions.push(Action::Send(at)),
                Call::Sent(_) => actions.push(Action::Answer(at)),
            }
            if !process.told.is_empty() {
                actions.push(Action::Tell(at));
            }
            match process.is_connected {
                true if at == 0 && world.gaps < self.gaps => actions.push(Action::Disconnect(at)),
                true => {}
                false => actions.push(Action::Reconnect(at)),
            }
            let is_later =
                |read: &Payload| process.known.is_none_or(|known| read.cell.1 > known.1);
            let asks = !process.is_in_sync()
                || matches!(&process.reading, Some((read, None)) if is_later(read));
            match process.comparing {
                None if asks && process.is_connected && world.comparisons < self.comparisons => {
                    actions.push(Action::Ask(at));
                }
                None => {}
                Some(_) => actions.push(Action::Compare(at)),
            }
            match process.loading {
                None if at == 0 && world.loads < self.loads => actions.push(Action::Load(at)),
                None => {}
                Some(_) => actions.push(Action::Finish(at)),
            }
            match process.reading {
                None if at == 1 && world.reads < self.reads && world.data.is_some() => {
                    actions.push(Action::Read(at));
                }
                None => {}
                Some((_, None)) => actions.push(Action::Check(at)),
                Some((_, Some(_))) => actions.push(Action::Install(at)),
            }
        }
        actions.extend(world.network.iter().copied().map(Action::Publish));
        if self.loses_cell && !world.has_lost && world.cell.is_some() {
            actions.push(Action::LoseCell);
        }
        if self.sets_clock_back && world.timeline == 0 {
            actions.push(Action::SetClockBack);
        }
        if self.restarts && !world.has_restarted && !world.processes[1].is_pending() {
            actions.push(Action::Restart);
        }
    }

    fn next_state(&self, last: &World, action: Action) -> Option<World> {
        let mut world = last.clone();
        match action {
            Action::Invalidate(at) => {
                world.calls += 1;
                world.processes[at].calls += 1;
                world.processes[at].call = Call::Begun(world.calls);
            }
            Action::Make(at) => {
                let process = &mut world.processes[at];
                process.bump();
                let (number, call) = match process.call {
                    Call::Begun(number) => (number, Call::Made(number)),
                    Call::SentEarly(number, version) => (number, Call::Sent(version)),
                    _ => return None,
                };
                process.call = call;
                process.knows = process.knows.max(number);
            }
            Action::Send(at) => {
                let (number, is_early) = match world.processes[at].call {
                    Call::Made(number) => (number, false),
                    Call::Begun(number) => (number, true),
                    _ => return None,
                };
                let version = world.invalidate(at, number);
                world.processes[at].call = match is_early {
                    true => Call::SentEarly(number, version),
                    false => Call::Sent(version),
                };
            }
            Action::Answer(at) => {
                let process = &mut world.processes[at];
                let Call::Sent(version) = process.call else {
                    return None;
                };
                process.call = Call::None;
                process.ours = process.ours.max(Some(version));
            }
            Action::Tell(at) => self.tell(at, &mut world.processes[at]),
            Action::Ask(at) => {
                world.comparisons += 1;
                let cell = world.cell;
                let process = &mut world.processes[at];
                process.comparing = Some((process.gap, process.known, cell));
            }
            Action::Compare(at) => self.compare(at, &mut world)?,
            Action::Disconnect(at) => {
                world.gaps += 1;
                world.processes[at].is_connected = false;
                world.processes[at].told.clear();
            }
            Action::Reconnect(at) => {
                world.processes[at].is_connected = true;
                self.gap(&mut world.processes[at]);
            }
            Action::Load(at) => {
                world.loads += 1;
                let (calls, base) = (world.calls, world.base);
                let process = &mut world.processes[at];
                process.loading = Some((process.now, calls, base));
            }
            Action::Finish(at) => {
                let process = &mut world.processes[at];
                let (began, loaded, base) = process.loading.take()?;
                process.install(loaded, began);
                let at_beginning =
                    process.since <= began || self.rules == Rules::EpochOfThePublication;
                let is_pending = process.is_pending()
                    && self.rules != Rules::PendingInvalidationIsIgnored;
                let is_current = process.last <= began
                    || self.rules == Rules::EpochOfThePublication;
                let is_shared = at_beginning && !is_pending && is_current && self.reads > 0;
                if let Some(cell) = process.known.filter(|_| is_shared) {
                    world.network.insert((Payload { cell, loaded }, base));
                }
            }
            Action::Read(at) => {
                world.reads += 1;
                world.processes[at].reading = world.data.map(|data| (data, None));
            }
            Action::Check(at) => {
                let process = &mut world.processes[at];
                let (payload, _) = process.reading?;
                process.reading = self.is_valid(process, payload).then(|| {
                    let began = process.now;
                    (payload, Some(began))
                });
            }
            Action::Install(at) => {
                world.served_from_store = true;
                let process = &mut world.processes[at];
                let (payload, began) = process.reading.take()?;
                let began = match self.rules {
                    Rules::BeginsAtTheInstallation => process.now,
                    _ => began?,
                };
                process.install(payload.loaded, began);
            }
            Action::Publish((payload, base)) => {
                world.network.remove(&(payload, base));
                if world.base == base {
                    world.base += 1;
                    world.data = Some(payload);
                }
            }
            Action::Restart => {
                world.has_restarted = true;
                world.processes[1] = Process {
                    is_connected: true,
                    knows: world.last_call(),
                    ..Process::default()
                };
            }
            Action::LoseCell => {
                world.has_lost = true;
                world.cell = None;
            }
            Action::SetClockBack => {
                world.timeline = 1;
                world.clock -= 5;
                world.processes.iter_mut().for_each(|process| self.gap(process));
            }
        }
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("P4: nothing outdated is served", |_, world: &World| {
                // Also of those that it does not miss, because the cell is in sync.
                let knows = |process: &Process| {
                    let is_told = process.is_connected && process.told.is_empty();
                    match is_told && process.is_in_sync() {
                        true => process.knows.max(world.last_call()),
                        false => process.knows,
                    }
                };
                let holds = |process: &Process| {
                    process.serves().is_none_or(|loaded| loaded >= knows(process))
                };
                world.processes.iter().all(holds)
            }),
            Property::sometimes("a payload is installed", |_, world: &World| {
                world.served_from_store
            }),
            Property::sometimes("a result is shared", |_, world: &World| world.base > 0),
            Property::sometimes("after an invalidation", |_, world: &World| {
                world.data.is_some_and(|data| data.loaded > 0)
            }),
        ]
    }
}

impl World {
    /// The store makes an invalidation, and tells it to all.
    fn invalidate(&mut self, by: usize, number: u8) -> Version {
        self.clock += 1;
        let version = (self.timeline, self.clock);
        self.cell = Some(version);
        for process in &mut self.processes {
            if process.is_connected {
                process.told.push_back((by, number, version));
            }
        }
        version
    }

    /// The number of the last call that the store knows.
    fn last_call(&self) -> u8 {
        let waits = |process: &Process| match process.call {
            Call::Begun(number) | Call::Made(number) => Some(number),
            _ => None,
        };
        let waiting = self.processes.iter().filter_map(waits).min();
        waiting.map_or(self.calls, |number| number - 1)
    }
}

impl Fleet {
    fn gap(&self, process: &mut Process) {
        process.gap += 1;
        process.told_gap = process.gap;
        if process.known.is_none() {
            process.bump();
        }
        if self.rules == Rules::GapIsNotCompared && process.compared.is_some() {
            process.compared = Some(process.gap);
        }
    }

    fn tell(&self, at: usize, process: &mut Process) {
        let Some((by, number, version)) = process.told.pop_front() else {
            return;
        };
        process.knows = process.knows.max(number);
        if by == at {
            let counts = process.compared == Some(process.gap)
                || self.rules == Rules::EchoCountsAfterAGap;
            if counts {
                process.known = process.known.max(Some(version));
                process.reached = process.reached.max(Some(version));
            }
            return;
        }
        let heard = match self.rules {
            Rules::ComparedMessageIsIgnored => process.known,
            _ => process.reached,
        };
        if heard < Some(version) {
            process.reached = Some(version);
            process.known = process.known.max(Some(version));
            process.since = process.tick();
            process.bump();
        }
    }

    fn compare(&self, at: usize, world: &mut World) -> Option<()> {
        let process = &mut world.processes[at];
        let (gap, before, found) = process.comparing.take()?;
        let found = match self.rules {
            Rules::LostCellIsUnchanged => found.or(before).or(Some((0, 1))),
            _ => found,
        };
        match (process.known, found) {
            (Some(known), Some(found)) if known.1 == found.1 => {
                process.known = Some(known.max(found));
                let is_reached = process.reached >= Some(known) || process.compared == Some(gap);
                if !is_reached && self.rules != Rules::FirstComparisonIsTrusted {
                    // Its message may have been missed after the first comparison.
                    process.reached = process.known;
                    process.bump();
                }
            }
            (known, Some(found)) if known < Some(found) => {
                process.known = Some(found);
                process.since = process.tick();
                if known.is_none() && gap == process.told_gap {
                    // The message of an invalidation comes, or has come.
                    process.compared = Some(gap);
                    return Some(());
                }
                process.reached = process.reached.max(Some(found));
                process.bump();
            }
            (known, _) if known != before => return Some(()),
            (known, _) => {
                // It is lost. A new invalidation is stored, unless the store has a later one.
                if world.cell < known || world.cell.is_none() {
                    let calls = world.last_call();
                    world.invalidate(at, calls);
                }
                return Some(());
            }
        }
        process.compared = Some(gap);
        Some(())
    }

    fn is_valid(&self, process: &Process, payload: Payload) -> bool {
        let is_pending =
            process.is_pending() && self.rules != Rules::PendingInvalidationIsIgnored;
        let is_known = process.known.is_some_and(|known| match self.rules {
            Rules::LaterEpochsAreValid => payload.cell.1 >= known.1,
            _ => payload.cell.1 == known.1,
        });
        self.rules == Rules::ReaderWithoutCheck
            || process.is_in_sync() && is_known && !is_pending
    }
}

const OCCUR: &[&str] = &[
    "a payload is installed",
    "a result is shared",
    "after an invalidation",
];

/// Without faults of the store.
fn plain(rules: Rules) -> Fleet {
    Fleet {
        rules,
        invalidations: [1, 1],
        comparisons: 1,
        loads: 1,
        reads: 1,
        gaps: 0,
        loses_cell: false,
        sets_clock_back: false,
        restarts: false,
        begins_known: true,
    }
}

fn with_a_gap(rules: Rules) -> Fleet {
    Fleet {
        gaps: 1,
        comparisons: 2,
        reads: 0,
        invalidations: [0, 1],
        begins_known: false,
        ..plain(rules)
    }
}

/// The cell may be lost, and a process that knows nothing may come.
fn with_a_loss(rules: Rules) -> Fleet {
    Fleet {
        loses_cell: true,
        restarts: true,
        comparisons: 2,
        invalidations: [0, 1],
        ..plain(rules)
    }
}

fn with_a_clock_set_back(rules: Rules) -> Fleet {
    Fleet {
        sets_clock_back: true,
        comparisons: 2,
        invalidations: [1, 0],
        ..plain(rules)
    }
}

fn explored(fleet: Fleet) -> (usize, Vec<&'static str>) {
    let occur = match (fleet.reads, fleet.loads) {
        (0, _) => &[],
        (_, 0) => &OCCUR[..1],
        _ => OCCUR,
    };
    explore(fleet, occur)
}

fn holds(fleet: Fleet) {
    let (states, failed) = explored(fleet);
    assert!(failed.is_empty(), "{failed:?}");
    assert!(states > 1_000, "only {states} states");
}

fn fails(fleet: Fleet) {
    let rules = fleet.rules;
    let (states, failed) = explored(fleet);
    println!("{rules:?}: {failed:?} after {states} states");
    assert!(!failed.is_empty(), "no claim fails with {rules:?}");
}

#[test]
fn an_invalidation_of_a_group_wins() {
    holds(plain(Rules::AsSpecified));
}

#[test]
fn an_invalidation_of_a_group_wins_although_messages_are_missed() {
    for begins_known in [true, false] {
        holds(Fleet {
            begins_known,
            ..with_a_gap(Rules::AsSpecified)
        });
    }
}

#[test]
fn an_invalidation_of_a_group_wins_although_the_store_loses_it() {
    holds(Fleet {
        loads: 0,
        ..with_a_loss(Rules::AsSpecified)
    });
}

#[test]
fn an_invalidation_of_a_group_wins_although_the_clock_is_set_back() {
    holds(with_a_clock_set_back(Rules::AsSpecified));
}

#[test]
fn a_result_has_the_epoch_of_its_beginning() {
    fails(plain(Rules::EpochOfThePublication));
}

#[test]
fn a_payload_is_compared_with_its_cell() {
    fails(plain(Rules::ReaderWithoutCheck));
}

#[test]
fn a_payload_with_a_later_epoch_may_be_older() {
    fails(with_a_clock_set_back(Rules::LaterEpochsAreValid));
}

#[test]
fn a_payload_is_not_read_while_an_invalidation_waits() {
    fails(plain(Rules::PendingInvalidationIsIgnored));
}

#[test]
fn a_cell_is_compared_after_a_gap() {
    fails(Fleet {
        begins_known: true,
        ..with_a_gap(Rules::GapIsNotCompared)
    });
}

#[test]
fn the_store_learns_of_an_invalidation_after_this_process() {
    fails(plain(Rules::SentBeforeItIsMade));
}

#[test]
fn an_own_message_counts_only_if_every_change_is_told() {
    fails(Fleet {
        invalidations: [1, 1],
        comparisons: 1,
        begins_known: true,
        ..with_a_gap(Rules::EchoCountsAfterAGap)
    });
}

#[test]
fn a_message_counts_although_a_comparison_came_first() {
    fails(Fleet {
        begins_known: false,
        ..plain(Rules::ComparedMessageIsIgnored)
    });
}

#[test]
fn a_first_comparison_is_no_message() {
    fails(with_a_gap(Rules::FirstComparisonIsTrusted));
}

#[test]
fn a_lost_cell_makes_its_values_invalid() {
    fails(Fleet {
        begins_known: false,
        ..with_a_loss(Rules::LostCellIsUnchanged)
    });
}

#[test]
fn a_payload_begins_at_its_check() {
    fails(plain(Rules::BeginsAtTheInstallation));
}
