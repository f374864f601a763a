//! What happened in a run. The same seed gives the same log.

use std::fmt;

use everfresh::Cause;
use everfresh::store::{ChangeKind, ErrorClass};

use crate::claims::Outcome;
use crate::world::{Database, Key, MS, Nanos, Process, SECOND};

#[derive(Default)]
pub struct Log {
    pub events: Vec<(Nanos, What)>,
}

/// One event.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    Started(Process, Database, u32),
    Killed(Process),
    Paused(Process),
    Resumed(Process),
    Disconnected(Process),
    Silent(Process),
    Slow(Process, bool),
    Connected(Process),
    Failing(Process, bool),
    Absent(Key, bool),
    Emptied,
    LeaseLost(Database, Key),
    DataLost(Database, Key),
    Healed,
    ReadBegan(Process, Key, usize),
    ReadEnded(Process, Key, usize, Found),
    WriteMade(Process, Key, usize, Option<u64>),
    GroupInvalidated(Process, u64),
    GroupTold(Process, u64, bool),
    WriteEnded(Process, Key, usize, Option<ErrorClass>),
    LoadBegan(Process, Key, usize),
    LoadEnded(Process, Key, usize, Outcome, Option<u64>),
    Served(Process, Key, &'static str, Served),
    Told(Process, Key, ChangeKind),
    Removed(Process, Key, u64, Cause),
}

/// The outcome of a read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Found {
    Fresh(u64),
    Stale(u64),
    Nothing,
    Error,
}

/// The answer of the server to a request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Served {
    Done,
    Granted,
    Found,
    Held,
    Cooling,
    Refused,
    Failed,
}

impl Log {
    pub fn add(&mut self, at: Nanos, what: What) {
        self.events.push((at, what));
    }
}

impl What {
    /// The key of the event, with its process; `None` if it concerns all keys.
    pub fn key(&self) -> Option<(Option<Process>, Key)> {
        match *self {
            What::ReadBegan(process, key, _)
            | What::ReadEnded(process, key, ..)
            | What::WriteMade(process, key, ..)
            | What::WriteEnded(process, key, ..)
            | What::LoadBegan(process, key, _)
            | What::LoadEnded(process, key, ..)
            | What::Served(process, key, ..)
            | What::Told(process, key, _)
            | What::Removed(process, key, ..) => Some((Some(process), key)),
            What::Absent(key, _) | What::LeaseLost(_, key) | What::DataLost(_, key) => {
                Some((None, key))
            }
            _ => None,
        }
    }
}

/// A moment, as seconds since the beginning.
pub fn seconds(at: Nanos) -> String {
    format!("{}.{:03} s", at / SECOND, at % SECOND / MS)
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            What::Started(process, database, schema) => write!(
                f,
                "process {process} starts, at database {database}, its values have schema {schema}"
            ),
            What::Killed(process) => write!(f, "process {process} is killed"),
            What::Paused(process) => write!(f, "process {process} is paused"),
            What::Resumed(process) => write!(f, "process {process} runs again"),
            What::Disconnected(process) => write!(f, "process {process} loses its connection"),
            What::Silent(process) => {
                write!(f, "the connection of process {process} falls silent")
            }
            What::Slow(process, true) => write!(f, "the connection of process {process} is slow"),
            What::Slow(process, false) => {
                write!(f, "the connection of process {process} is no longer slow")
            }
            What::Connected(process) => write!(f, "process {process} is connected again"),
            What::Failing(process, true) => {
                write!(f, "process {process} cannot reach the origin")
            }
            What::Failing(process, false) => {
                write!(f, "process {process} can reach the origin again")
            }
            What::Absent(key, true) => write!(f, "the origin has no value for key {key}"),
            What::Absent(key, false) => write!(f, "the origin has a value for key {key} again"),
            What::Emptied => write!(f, "the server comes back without data"),
            What::LeaseLost(database, key) => {
                write!(f, "database {database} evicts the lease of key {key}")
            }
            What::DataLost(database, key) => {
                write!(f, "database {database} evicts the value of key {key}")
            }
            What::Healed => write!(f, "all faults end"),
            What::ReadBegan(process, key, read) => {
                write!(f, "process {process} begins to read key {key}, read {read}")
            }
            What::ReadEnded(process, key, read, found) => {
                write!(
                    f,
                    "process {process} has read key {key}, read {read}: {found}"
                )
            }
            What::WriteMade(process, key, write, Some(value)) => {
                write!(
                    f,
                    "process {process} inserts key {key}, write {write}: value {value}"
                )
            }
            What::WriteMade(process, key, write, None) => {
                write!(f, "process {process} invalidates key {key}, write {write}")
            }
            What::WriteEnded(process, key, write, None) => {
                write!(
                    f,
                    "process {process} learns that write {write} of key {key} is stored"
                )
            }
            What::WriteEnded(process, key, write, Some(class)) => write!(
                f,
                "process {process} learns that write {write} of key {key} is not stored: {}",
                class.name()
            ),
            What::GroupInvalidated(process, step) => {
                write!(f, "process {process} invalidates the group, step {step}")
            }
            What::GroupTold(process, step, is_made) => {
                let not = if *is_made { "" } else { " not" };
                write!(
                    f,
                    "process {process} learns that step {step} is{not} stored"
                )
            }
            What::LoadBegan(process, key, load) => {
                write!(f, "process {process} loads key {key}, load {load}")
            }
            What::LoadEnded(process, key, load, outcome, value) => {
                write!(f, "load {load} of key {key} in process {process} ends: ")?;
                match (outcome, value) {
                    (Outcome::Value, Some(value)) => write!(f, "value {value}"),
                    (Outcome::NotFound, _) => write!(f, "not found"),
                    (Outcome::Dropped, _) => write!(f, "dropped"),
                    _ => write!(f, "it failed"),
                }
            }
            What::Served(process, key, operation, served) => {
                write!(
                    f,
                    "the server gets `{operation}` of key {key} from process {process}: "
                )?;
                f.write_str(match served {
                    Served::Done => "done",
                    Served::Granted => "granted",
                    Served::Found => "here is the value",
                    Served::Held => "another process holds the lease",
                    Served::Cooling => "the key cools down",
                    Served::Refused => "refused",
                    Served::Failed => "an error",
                })
            }
            What::Told(process, key, kind) => {
                write!(f, "process {process} is told about key {key}: {kind:?}")
            }
            What::Removed(process, key, value, cause) => {
                write!(
                    f,
                    "value {value} of key {key} leaves process {process}: {cause:?}"
                )
            }
        }
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Found::Fresh(value) => write!(f, "value {value}, fresh"),
            Found::Stale(value) => write!(f, "value {value}, stale"),
            Found::Nothing => f.write_str("not found"),
            Found::Error => f.write_str("an error"),
        }
    }
}
