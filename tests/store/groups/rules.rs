//! What the rules decide in a step.

use super::model::{Call, Fleet, Payload, Process, Rules, Version, World};

impl World {
    /// The store makes an invalidation, and tells it to all.
    pub fn invalidate(&mut self, by: usize, number: u8) -> Version {
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
    pub fn last_call(&self) -> u8 {
        let waits = |process: &Process| match process.call {
            Call::Begun(number) | Call::Made(number) => Some(number),
            _ => None,
        };
        let waiting = self.processes.iter().filter_map(waits).min();
        waiting.map_or(self.calls, |number| number - 1)
    }
}

impl Fleet {
    pub fn gap(&self, process: &mut Process) {
        process.gap += 1;
        process.told_gap = process.gap;
        if process.known.is_none() {
            process.bump();
        }
        if self.rules == Rules::GapIsNotCompared && process.compared.is_some() {
            process.compared = Some(process.gap);
        }
    }

    pub fn tell(&self, at: usize, process: &mut Process) {
        let Some((by, number, version)) = process.told.pop_front() else {
            return;
        };
        process.knows = process.knows.max(number);
        if by == at {
            let counts =
                process.compared == Some(process.gap) || self.rules == Rules::EchoCountsAfterAGap;
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

    pub fn compare(&self, at: usize, world: &mut World) -> Option<()> {
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

    pub fn is_valid(&self, process: &Process, payload: Payload) -> bool {
        let is_pending = process.is_pending() && self.rules != Rules::PendingInvalidationIsIgnored;
        let is_known = process.known.is_some_and(|known| match self.rules {
            Rules::LaterEpochsAreValid => payload.cell.1 >= known.1,
            _ => payload.cell.1 == known.1,
        });
        self.rules == Rules::ReaderWithoutCheck || process.is_in_sync() && is_known && !is_pending
    }
}
