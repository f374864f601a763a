//! The checker: what is known of each key and each process, and the claims that must hold.
//!
//! The simulation knows the truth, which no process knows: when each load began, when each write
//! was made, and which of two came first. Each claim compares what a process or the server did with
//! that truth. The first claim that fails ends the run.

mod groups;
mod loads;
mod reads;
mod stored;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use everfresh::store::{ChangeKind, Epoch};

use crate::world::{Database, Key, MS, Nanos, Process, SECOND, State};

/// The settings of every cache.
pub const FRESH: Nanos = 4 * SECOND;
pub const STALE: Nanos = 8 * SECOND;
pub const HARD: Nanos = FRESH + STALE;
pub const NOT_FOUND: Nanos = 3 * SECOND;
pub const LEASE: Nanos = 2 * SECOND;
pub const LOAD_TIMEOUT: Nanos = 6 * SECOND;

/// Two writes that are closer than this have no order, because no process knows the time of the
/// server exactly.
pub const BLUR: Nanos = 15 * MS;

/// How long the effects of a fault last after its end.
const MARGIN: Nanos = 3 * SECOND;

/// A promise to the users of a fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Claim {
    OneSuccessor,
    NothingFromBeforeAWrite,
    OneLoaderInTheFleet,
    OneRefreshInAProcess,
    OneLeaseOfDelay,
    TheLaterWriteWins,
    NoValueFromTheDead,
    AgesAreRight,
    WaitingWritesAreSmall,
    NoReadWaitsForAWrite,
    NoLoadWithoutAReader,
    NoReadWaitsInLine,
    HealthyProcessesRead,
    LostValuesAreStored,
    GoodValuesStay,
    EverythingEnds,
    NothingFromBeforeAGroup,
}

impl Claim {
    /// The claim in a sentence, with its name in the documents.
    pub fn text(self) -> &'static str {
        match self {
            Claim::OneSuccessor => "A: each stored epoch has at most one successor",
            Claim::NothingFromBeforeAWrite => {
                "B: no result of a load that began before a write is stored after it"
            }
            Claim::OneLoaderInTheFleet => "C: one process of the fleet loads a key at a time",
            Claim::OneRefreshInAProcess => "D: one load of a key at a time in a process, always",
            Claim::OneLeaseOfDelay => "E: a crash delays a refresh by one lease at most",
            Claim::TheLaterWriteWins => "the later of two writes wins, whenever they arrive",
            Claim::NoValueFromTheDead => {
                "no process serves a value from before a write that it knows"
            }
            Claim::AgesAreRight => "no value is younger than it is, or served past its limit",
            Claim::WaitingWritesAreSmall => "writes that wait keep no values alive",
            Claim::NoReadWaitsForAWrite => "no read waits for a write that cannot be told now",
            Claim::NoLoadWithoutAReader => "no message causes a load",
            Claim::NoReadWaitsInLine => "readers that ask at once get their answers at once",
            Claim::HealthyProcessesRead => {
                "a process whose loads fail does not keep the others from a key"
            }
            Claim::LostValuesAreStored => "values that the server has lost are stored again",
            Claim::GoodValuesStay => "a good fresh value stays",
            Claim::EverythingEnds => "every read and every write ends",
            Claim::NothingFromBeforeAGroup => {
                "nothing is served that was loaded before an invalidation of its group"
            }
        }
    }
}

/// A claim that failed.
#[derive(Clone, Debug, PartialEq)]
pub struct Violation {
    pub claim: Claim,
    pub database: Database,
    pub key: Option<Key>,
    pub at: Nanos,
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n  {}", self.claim.text(), self.text)
    }
}

/// How a load ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Outcome {
    Value,
    NotFound,
    Failed,
    Dropped,
}

/// What the checker reads of a payload.
#[derive(Clone, Debug)]
pub struct Payload {
    pub epoch: Option<Epoch>,
    /// `None` for the answer "not found".
    pub value: Option<u64>,
    /// Whether a caller wrote it.
    pub is_written: bool,
    /// How long it may be served.
    pub lasts: Nanos,
}

#[derive(Default)]
pub struct Claims {
    pub violation: Option<Violation>,
    pub names: BTreeMap<u128, Key>,
    pub processes: Vec<ProcessFacts>,
    /// Whether all keys are in one group. Only the claims about that are checked then.
    pub has_groups: bool,
    /// The steps of the last invalidation of the group that the server of a database made.
    groups: BTreeMap<Database, u64>,
    pub loads: Vec<Load>,
    pub writes: Vec<Write>,
    values: Vec<Made>,
    reads: Vec<Read>,
    keys: BTreeMap<(Database, Key), KeyFacts>,
    views: BTreeMap<(Process, Key), View>,
    /// Orders loads and writes.
    steps: u64,
    /// When the last fault of the server or of any process ended.
    fault: Trouble,
    emptied: u64,
    last_emptied: Option<Nanos>,
    last_death: Option<Nanos>,
}

/// A kind of fault that comes and goes.
#[derive(Clone, Copy, Default)]
pub struct Trouble {
    present: u32,
    ended: Option<Nanos>,
}

pub struct ProcessFacts {
    pub database: Database,
    pub is_dead: bool,
    /// The step of the last invalidation of the group that the process knows.
    group: u64,
    /// Faults of its connection, and pauses.
    trouble: Trouble,
    paused: Trouble,
    failing: Trouble,
    /// Since when its connection is refused.
    refused_since: Option<Nanos>,
    last_gap: Option<Nanos>,
    gap_before: Option<Nanos>,
    /// Whether the server had lost its data in that gap.
    has_lost: bool,
}

pub struct Load {
    pub process: Process,
    pub key: Key,
    pub began: Nanos,
    step: u64,
    ended: Option<Nanos>,
    outcome: Option<Outcome>,
}

/// A write of a caller.
pub struct Write {
    pub process: Process,
    pub key: Key,
    pub value: Option<u64>,
    pub made: Nanos,
    step: u64,
    /// The steps in which the server decided about it first and last. A write is repeated if its
    /// answer is lost.
    decided: Option<(u64, u64)>,
}

#[derive(Clone, Copy)]
enum Source {
    Load(usize),
    Write(usize),
}

/// A value.
struct Made {
    source: Source,
    /// By how much the server was told too late how long it lasts.
    extra: Nanos,
    /// Whether it was stored again, in a new history, by a process that had missed a write of that
    /// history. An invalidation leaves no trace from which the process could know.
    has_outlived_a_write: bool,
    was_stored: bool,
}

struct Read {
    process: Process,
    key: Key,
    began: Nanos,
    floor: Option<usize>,
    /// The step of the last invalidation of the group that the process knew.
    group: u64,
    emptied: u64,
    ended: Option<Nanos>,
}

/// A key in one database.
#[derive(Default)]
struct KeyFacts {
    bases: BTreeSet<u64>,
    /// The last write that changed the server in its present history, and the step of that.
    last_write: Option<(usize, u64, Nanos)>,
    /// The latest such write by the moment at which it was made.
    latest: Option<usize>,
    /// When writes were made, and when they changed the server.
    written: Vec<Nanos>,
    loads: Vec<usize>,
    /// Whether the server had a value in its present history.
    was_stored: bool,
}

/// A key in one process.
#[derive(Default)]
struct View {
    open_reads: u32,
    /// How many loads the readers may still lead to that found no fresh value: the load of an entry
    /// that was replaced meanwhile, and one more.
    after_reads: u8,
    /// How many loads the last gap may still lead to: one that was under way, and one more.
    after_gap: u8,
    own: Option<usize>,
    /// Its own writes that the server has not made, nor a later one of them.
    waiting: Vec<usize>,
    settled: Option<usize>,
    /// The latest write that the process knows of, and whose order is decided.
    floor: Option<usize>,
    /// The latest write of which it was told.
    heard: Option<usize>,
    last_not_found: Option<usize>,
    /// When the process last learned of a write.
    told: Option<Nanos>,
}

impl View {
    fn is_pending(&self) -> bool {
        self.own.is_some() && self.settled < self.own
    }
}

impl Trouble {
    fn begin(&mut self) {
        self.present += 1;
    }

    fn end(&mut self, now: Nanos) {
        self.present = self.present.saturating_sub(1);
        self.ended = Some(now);
    }

    /// Whether there was such a fault at this moment or later, or not long before it.
    fn since(&self, moment: Nanos, margin: Nanos) -> bool {
        self.present > 0 || self.ended.is_some_and(|ended| ended + margin >= moment)
    }
}

impl Claims {
    fn step(&mut self) -> u64 {
        self.steps += 1;
        self.steps
    }

    fn facts(&mut self, database: Database, key: Key) -> &mut KeyFacts {
        self.keys.entry((database, key)).or_default()
    }

    fn view(&mut self, process: Process, key: Key) -> &mut View {
        self.views.entry((process, key)).or_default()
    }

    fn later(&self, one: Option<usize>, other: Option<usize>) -> Option<usize> {
        let made = |write: Option<usize>| write.map(|write| self.writes[write].made);
        match made(one) > made(other) {
            true => one,
            false => other,
        }
    }

    /// When a value was made: a load ended, or a write.
    fn made(&self, value: u64) -> Nanos {
        match self.values[value as usize].source {
            Source::Load(load) => self.loads[load].ended.unwrap_or(self.loads[load].began),
            Source::Write(write) => self.writes[write].made,
        }
    }

    /// Whether a value is from before a write.
    fn is_before(&self, value: u64, write: usize) -> bool {
        let newer = &self.writes[write];
        if self.values[value as usize].has_outlived_a_write {
            return false;
        }
        match self.values[value as usize].source {
            Source::Load(load) => self.loads[load].step < newer.step,
            Source::Write(other) if other == write => false,
            Source::Write(other) => {
                let older = &self.writes[other];
                // An invalidation leaves no trace, so a value that waited is stored after it.
                let came_first = match (older.decided, newer.decided) {
                    (Some((_, last)), Some((first, _))) => last < first,
                    _ => true,
                };
                older.made + BLUR < newer.made && came_first
            }
        }
    }

    /// A value in words.
    fn describe(&self, value: u64) -> String {
        match self.values[value as usize].source {
            Source::Load(load) => format!(
                "value {value} of load {load}, which began at {}",
                crate::log::seconds(self.loads[load].began)
            ),
            Source::Write(write) => format!(
                "value {value} of write {write}, made at {}",
                crate::log::seconds(self.writes[write].made)
            ),
        }
    }
}

/// Faults, as the run tells the checker of them.
impl State {
    pub fn fail(&mut self, claim: Claim, database: Database, key: Option<Key>, text: String) {
        let of_groups = matches!(
            claim,
            Claim::NothingFromBeforeAGroup | Claim::EverythingEnds
        );
        if self.claims.has_groups && !of_groups {
            return;
        }
        self.claims.violation.get_or_insert(Violation {
            claim,
            database,
            key,
            at: self.now,
            text,
        });
    }

    pub fn trouble_begins(&mut self, process: Process, is_refused: bool) {
        let now = self.now;
        let facts = &mut self.claims.processes[process];
        facts.trouble.begin();
        facts.refused_since = is_refused.then_some(now);
        self.claims.fault.begin();
    }

    pub fn trouble_ends(&mut self, process: Process) {
        let now = self.now;
        let facts = &mut self.claims.processes[process];
        facts.trouble.end(now);
        facts.refused_since = None;
        self.claims.fault.end(now);
    }

    pub fn pause_begins(&mut self, process: Process) {
        self.claims.processes[process].paused.begin();
        self.trouble_begins(process, false);
    }

    pub fn pause_ends(&mut self, process: Process) {
        let now = self.now;
        self.claims.processes[process].paused.end(now);
        self.trouble_ends(process);
    }

    pub fn failing(&mut self, process: Process, fails: bool) {
        let now = self.now;
        let failing = &mut self.claims.processes[process].failing;
        match fails {
            true => failing.begin(),
            false => failing.end(now),
        }
    }

    /// A fault that is over at once.
    pub fn server_fault(&mut self) {
        let now = self.now;
        self.claims.fault.begin();
        self.claims.fault.end(now);
    }

    /// The changes of a while may have been missed. `is_empty` says that the server came back
    /// without data.
    pub fn gap(&mut self, process: Process, is_empty: bool) {
        let facts = &mut self.claims.processes[process];
        facts.gap_before = facts.last_gap.replace(self.now);
        self.claims.processes[process].has_lost = is_empty;
        if !is_empty {
            for ((_, _), view) in self.claims.views.range_mut((process, 0)..(process + 1, 0)) {
                view.after_gap = 2;
            }
        }
    }

    pub fn data_lost(&mut self, database: Database, key: Key) {
        let claims = &mut self.claims;
        for ((process, other), view) in &mut claims.views {
            if *other == key && claims.processes[*process].database == database {
                view.after_gap = 2;
            }
        }
    }

    /// The server has lost everything: nothing is claimed across that.
    pub fn emptied(&mut self) {
        self.server_fault();
        let claims = &mut self.claims;
        claims.emptied += 1;
        claims.last_emptied = Some(self.now);
        for facts in claims.keys.values_mut() {
            facts.bases.clear();
            facts.last_write = None;
            facts.latest = None;
            facts.was_stored = false;
        }
        for view in claims.views.values_mut() {
            view.heard = None;
            view.floor = match view.is_pending() {
                true => view.own,
                false => None,
            };
        }
    }

    pub fn process_starts(&mut self, database: Database) {
        let group = self.claims.groups.get(&database).copied();
        self.claims.processes.push(ProcessFacts {
            database,
            is_dead: false,
            group: group.unwrap_or(0),
            trouble: Trouble::default(),
            paused: Trouble::default(),
            failing: Trouble::default(),
            refused_since: None,
            last_gap: None,
            gap_before: None,
            has_lost: false,
        });
    }

    pub fn process_dies(&mut self, process: Process) {
        self.claims.processes[process].is_dead = true;
        self.claims.last_death = Some(self.now);
        self.server_fault();
    }
}

/// Whether a change removes older values.
fn removes(kind: ChangeKind) -> bool {
    matches!(kind, ChangeKind::Set | ChangeKind::Invalidated)
}
