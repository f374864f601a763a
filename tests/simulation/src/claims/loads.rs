//! Loads: claims C and D, and what may cause a load.

use everfresh::Cause;

use super::{Claim, FRESH, LEASE, LOAD_TIMEOUT, Load, MARGIN, Outcome, Source};
use crate::log::What;
use crate::origin::UNSTORABLE;
use crate::world::{Key, Process, State};

impl State {
    pub fn load_began(&mut self, process: Process, key: Key) -> usize {
        let load = self.claims.loads.len();
        self.log(What::LoadBegan(process, key, load));
        self.only_load(process, key, load);
        self.load_has_a_reader(process, key, load);
        let (now, step) = (self.now, self.claims.step());
        self.claims.loads.push(Load {
            process,
            key,
            began: now,
            step,
            ended: None,
            outcome: None,
        });
        let database = self.claims.processes[process].database;
        self.claims.facts(database, key).loads.push(load);
        load
    }

    /// Claims C and D.
    fn only_load(&mut self, process: Process, key: Key, load: usize) {
        let database = self.claims.processes[process].database;
        let loads = self.claims.facts(database, key).loads.clone();
        for other in loads.into_iter().rev().take(32) {
            let Load {
                process: holder,
                began,
                ended,
                ..
            } = self.claims.loads[other];
            let claims = &self.claims;
            let is_late = began + LOAD_TIMEOUT <= self.now;
            // A write ends the load for the processes that know of it.
            let is_over = claims.written_since(database, key, began.saturating_sub(MARGIN)) > 0;
            if ended.is_some() || is_late || is_over {
                continue;
            }
            if holder == process {
                // A load that waited for its lease may begin after a write has ended it.
                let since = began.saturating_sub(LEASE + LOAD_TIMEOUT);
                let told = claims.views.get(&(process, key)).and_then(|view| view.told);
                if claims.written_since(database, key, since) > 0 || told >= Some(since) {
                    continue;
                }
                let text = format!("process {process} begins load {load} while load {other} runs");
                self.fail(Claim::OneRefreshInAProcess, database, Some(key), text);
                continue;
            }
            // Without the server each process loads for itself.
            let may_be_lost = claims.fault.since(began.saturating_sub(LEASE), MARGIN);
            if !may_be_lost && key != UNSTORABLE {
                let text = format!(
                    "process {process} begins load {load} while process {holder} runs load {other}"
                );
                self.fail(Claim::OneLoaderInTheFleet, database, Some(key), text);
            }
        }
    }

    fn load_has_a_reader(&mut self, process: Process, key: Key, load: usize) {
        let database = self.claims.processes[process].database;
        let view = self.claims.view(process, key);
        let has_reader = view.open_reads > 0 || view.after_reads > 0;
        view.after_reads = view.after_reads.saturating_sub(1);
        let had_gap = view.after_gap > 0;
        // On a connection that is not good, values are compared more than once.
        let facts = &self.claims.processes[process];
        let gap = facts.last_gap.unwrap_or(0);
        let is_good = !facts.trouble.since(gap + 1, 0);
        // A load that an earlier gap led to may only begin now.
        let is_alone = facts
            .gap_before
            .is_none_or(|before| before + LOAD_TIMEOUT < gap);
        if has_reader || had_gap {
            let view = self.claims.view(process, key);
            view.after_gap -= u8::from(had_gap && !has_reader && is_good);
            return;
        }
        let has_lost = self.claims.processes[process].has_lost;
        let claim = match has_lost {
            true if key == UNSTORABLE || !is_good || !is_alone => return,
            // The value that is stored there by now may be stale.
            true if self.claims.facts(database, key).was_stored => return,
            // Nor can it know whether its value is older than a write.
            true if self.claims.facts(database, key).last_write.is_some() => return,
            true => Claim::LostValuesAreStored,
            false => Claim::NoLoadWithoutAReader,
        };
        let text = format!("no reader of process {process} asked for load {load}");
        self.fail(claim, database, Some(key), text);
    }

    /// A load has ended; returns the number of its value.
    pub fn load_ended(&mut self, load: usize, outcome: Outcome) -> Option<u64> {
        let now = self.now;
        let known = &mut self.claims.loads[load];
        known.ended = Some(now);
        known.outcome = Some(outcome);
        let (process, key) = (known.process, known.key);
        let value = match outcome {
            Outcome::Value => Some(self.claims.new_value(Source::Load(load))),
            _ => None,
        };
        if outcome == Outcome::NotFound {
            self.claims.view(process, key).last_not_found = Some(load);
        }
        self.log(What::LoadEnded(process, key, load, outcome, value));
        value
    }

    /// A value has left a process.
    pub fn removed(&mut self, process: Process, key: Key, value: u64, cause: Cause) {
        if key > UNSTORABLE {
            return;
        }
        self.log(What::Removed(process, key, value, cause));
        let claims = &self.claims;
        let made = claims.made(value);
        if cause != Cause::Invalidated || self.now >= made + FRESH {
            return;
        }
        let database = claims.processes[process].database;
        let began = match claims.values[value as usize].source {
            Source::Load(load) => claims.loads[load].began,
            Source::Write(_) => made,
        };
        // Any write may be the later one, for all that the process knows.
        let is_written = claims.written_since(database, key, began) > 0;
        let is_own = matches!(claims.values[value as usize].source, Source::Write(_));
        let missed = claims.processes[process].last_gap >= Some(began)
            || claims.processes[process].trouble.present > 0;
        let facts = claims.keys.get(&(database, key));
        let loads = facts.map_or(&[][..], |facts| &facts.loads);
        let not_found = loads.iter().rev().take(32).any(|load| {
            let load = &claims.loads[*load];
            load.outcome == Some(Outcome::NotFound)
                && load.ended >= Some(began.saturating_sub(MARGIN))
        });
        let told = claims.views.get(&(process, key)).and_then(|view| view.told);
        let was_told = told >= Some(began);
        let was_written = is_written && !(is_own && claims.written_since(database, key, made) < 2);
        if !(was_written || was_told || missed || not_found) {
            let text = format!(
                "{} leaves process {process}, though it is fresh and nothing was written",
                claims.describe(value)
            );
            self.fail(Claim::GoodValuesStay, database, Some(key), text);
        }
    }
}
