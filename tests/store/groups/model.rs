//! The states and the steps.

use std::collections::{BTreeSet, VecDeque};

use stateright::{Model, Property};

/// A timeline and an epoch of it, by which versions are ordered.
pub type Version = (u8, u8);

/// A deviation from the rules.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rules {
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

pub struct Fleet {
    pub rules: Rules,
    /// By each process.
    pub invalidations: [u8; 2],
    pub comparisons: u8,
    pub loads: u8,
    pub reads: u8,
    pub gaps: u8,
    pub loses_cell: bool,
    pub sets_clock_back: bool,
    pub restarts: bool,
    /// Whether the processes know the cell, and the key is stored.
    pub begins_known: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Payload {
    /// The version of the cell when the load began; the comparison is by its epoch only.
    pub cell: Version,
    /// The number of invalidations that were called before the load began.
    pub loaded: u8,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct World {
    pub cell: Option<Version>,
    pub data: Option<Payload>,
    /// How often the key was published: the base of a publication.
    pub base: u8,
    pub timeline: u8,
    pub clock: u8,
    /// Calls so far.
    pub calls: u8,
    pub has_lost: bool,
    pub loads: u8,
    pub reads: u8,
    pub gaps: u8,
    pub comparisons: u8,
    pub has_restarted: bool,
    pub processes: [Process; 2],
    /// Publications on their way.
    pub network: BTreeSet<(Payload, u8)>,
    pub served_from_store: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Process {
    /// The moments of the groups, and the last one of the cell.
    pub now: u8,
    pub last: u8,
    pub known: Option<Version>,
    pub reached: Option<Version>,
    pub ours: Option<Version>,
    pub since: u8,
    pub gap: u8,
    pub told_gap: u8,
    /// The gap in which the cell was compared.
    pub compared: Option<u8>,
    pub is_connected: bool,
    /// What the store has told, in its order: whose invalidation, and its number and version.
    pub told: VecDeque<(usize, u8, Version)>,
    pub calls: u8,
    pub call: Call,
    /// A comparison under way: the gap, what was known, and the answer.
    pub comparing: Option<(u8, Option<Version>, Option<Version>)>,
    /// A load: its beginning, the calls before it, and the base.
    pub loading: Option<(u8, u8, u8)>,
    /// A payload that was read, and the beginning once it was checked.
    pub reading: Option<(Payload, Option<u8>)>,
    /// The resident value: the calls before its load, and its stamp.
    pub resident: Option<(u8, u8)>,
    /// The number of the last invalidation of which this process was told.
    pub knows: u8,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Call {
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
pub enum Action {
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
    pub fn is_pending(&self) -> bool {
        !matches!(self.call, Call::None)
    }

    pub fn tick(&mut self) -> u8 {
        self.now += 1;
        self.now
    }

    pub fn bump(&mut self) {
        self.last = self.tick();
    }

    pub fn is_in_sync(&self) -> bool {
        self.known.is_some() && self.compared == Some(self.gap) && self.known >= self.ours
    }

    /// The value that a reader of the table gets.
    pub fn serves(&self) -> Option<u8> {
        let (loaded, stamp) = self.resident?;
        (stamp == self.last).then_some(loaded)
    }

    pub fn install(&mut self, loaded: u8, began: u8) {
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
            let is_later = |read: &Payload| process.known.is_none_or(|known| read.cell.1 > known.1);
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
                let is_pending =
                    process.is_pending() && self.rules != Rules::PendingInvalidationIsIgnored;
                let is_current =
                    process.last <= began || self.rules == Rules::EpochOfThePublication;
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
                world
                    .processes
                    .iter_mut()
                    .for_each(|process| self.gap(process));
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
                    process
                        .serves()
                        .is_none_or(|loaded| loaded >= knows(process))
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
