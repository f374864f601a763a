//! The outcome of a run, and its history in plain words.

use crate::claims::Violation;
use crate::log::{What, seconds};
use crate::world::{Key, Nanos, Process};

/// The outcome of a run.
#[derive(Debug, PartialEq)]
pub struct Report {
    pub seed: u64,
    pub violation: Option<Violation>,
    pub events: Vec<(Nanos, What)>,
    /// The database of each process.
    pub databases: Vec<usize>,
}

impl Report {
    /// The history of a key, or of all keys, in plain words.
    pub fn history(&self, of: Option<(usize, Key)>) -> String {
        let concerns = |what: &What| match (of, what.key()) {
            (Some((database, key)), Some((process, other))) => {
                let is_there = |process: Process| self.databases[process] == database;
                key == other && process.is_none_or(is_there)
            }
            _ => true,
        };
        let mut lines = String::new();
        for (at, what) in self.events.iter().filter(|(_, what)| concerns(what)) {
            lines.push_str(&format!("{:>9}  {what}\n", seconds(*at)));
        }
        lines
    }
}
