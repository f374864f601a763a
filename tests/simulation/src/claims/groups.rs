//! Invalidations of a group: nothing that was loaded or written before is served after them.

use super::{Claim, Source};
use crate::log::What;
use crate::world::{Key, Process, State};

impl State {
    /// A caller is about to invalidate the group.
    pub fn group_invalidated(&mut self, process: Process) -> u64 {
        let step = self.claims.step();
        self.claims.processes[process].group = step;
        self.log(What::GroupInvalidated(process, step));
        step
    }

    /// The caller learns whether the server knows it.
    pub fn group_told(&mut self, process: Process, step: u64, is_made: bool) {
        self.log(What::GroupTold(process, step, is_made));
        if is_made {
            let database = self.claims.processes[process].database;
            let last = self.claims.groups.entry(database).or_default();
            *last = (*last).max(step);
        }
    }

    /// A value that a process serves, which knew the invalidation of this step before.
    pub(super) fn is_of_group(&mut self, process: Process, key: Key, value: u64, step: u64) {
        let made = match self.claims.values[value as usize].source {
            Source::Load(load) => self.claims.loads[load].step,
            Source::Write(write) => self.claims.writes[write].step,
        };
        if made < step {
            let text = format!(
                "process {process} serves {} of step {made}, though it knows step {step}",
                self.claims.describe(value)
            );
            let database = self.claims.processes[process].database;
            self.fail(Claim::NothingFromBeforeAGroup, database, Some(key), text);
        }
    }

    /// What a process serves after everything was told.
    pub fn final_of_group(&mut self, process: Process, key: Key, value: u64) {
        let database = self.claims.processes[process].database;
        let last = self.claims.groups.get(&database).copied();
        self.is_of_group(process, key, value, last.unwrap_or(0));
    }
}
