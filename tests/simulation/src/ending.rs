//! What must hold at the end of a run.

use crate::claims::Claim;
use crate::origin::number;
use crate::run::Run;
use crate::world::SECOND;

impl Run {
    /// After a while without faults and writes.
    pub fn check_the_end(&mut self) {
        for node in self.nodes.values() {
            let process = node.process;
            let pending = node.cache.store_stats().map_or(0, |stats| stats.pending);
            if pending > 0 {
                let text = format!("{pending} writes of process {process} were never told");
                self.world
                    .with(|state| state.fail(Claim::EverythingEnds, node.database, None, text));
            }
            for key in &self.script.keys {
                let Some(found) = node.cache.peek(key) else {
                    continue;
                };
                let value = number(&found);
                // A process that got no answer in time compares its values after a pause.
                // One that cannot read the value of another keeps its own.
                let is_excused = self.script.is_mixed
                    || node.was_slow >= Some(self.world.now().saturating_sub(10 * SECOND));
                self.world.with(|state| {
                    if !is_excused {
                        state.final_value(process, *key, value);
                        state.final_of_group(process, *key, value);
                    }
                });
            }
        }
        self.go_until(self.world.now() + 8 * SECOND);
        self.world.with(|state| state.everything_ended());
    }
}
