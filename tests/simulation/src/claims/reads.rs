//! Reads: what they return, and how long they wait.

use super::{Claim, FRESH, HARD, LEASE, LOAD_TIMEOUT, MARGIN, Outcome, ProcessFacts, Read};
use crate::log::{Found, What, seconds};
use crate::network::LIMIT;
use crate::world::{Database, Key, MS, Nanos, Process, SECOND, State};

/// How much older a value may be than it says: clocks differ, and a caller that waited for a load
/// gets its value even if that expires at once.
const ROUNDING: Nanos = 150 * MS;

impl State {
    pub fn read_began(&mut self, process: Process, key: Key) -> usize {
        let (now, emptied) = (self.now, self.claims.emptied);
        let view = self.claims.view(process, key);
        view.open_reads += 1;
        let floor = view.floor;
        let group = self.claims.processes[process].group;
        let read = self.claims.reads.len();
        self.claims.reads.push(Read {
            process,
            key,
            began: now,
            floor,
            group,
            emptied,
            ended: None,
        });
        self.log(What::ReadBegan(process, key, read));
        read
    }

    pub fn read_ended(&mut self, read: usize, found: Found) {
        self.claims.reads[read].ended = Some(self.now);
        let Read {
            process,
            key,
            began,
            floor,
            emptied,
            group,
            ..
        } = self.claims.reads[read];
        self.log(What::ReadEnded(process, key, read, found));
        let view = self.claims.view(process, key);
        view.open_reads -= 1;
        let had_value = matches!(found, Found::Fresh(_)) && self.now == began;
        let after_reads = &mut self.claims.view(process, key).after_reads;
        *after_reads = (*after_reads + u8::from(!had_value)).min(2);
        if self.now > began + 100 * MS {
            self.wait_is_right(process, key, began);
        }
        let database = self.claims.processes[process].database;
        match found {
            Found::Fresh(value) | Found::Stale(value) => {
                let is_fresh = matches!(found, Found::Fresh(_));
                self.age_is_right(process, key, value, is_fresh);
                self.is_of_group(process, key, value, group);
                if let Some(floor) = floor.filter(|_| emptied == self.claims.emptied) {
                    self.value_lives(database, key, value, floor, process);
                }
            }
            Found::Error => self.error_is_right(process, key, began),
            Found::Nothing => {}
        }
    }

    fn value_lives(
        &mut self,
        database: Database,
        key: Key,
        value: u64,
        floor: usize,
        process: Process,
    ) {
        if self.claims.is_before(value, floor) {
            let text = format!(
                "process {process} serves {}, though it knows write {floor}, made at {}",
                self.claims.describe(value),
                seconds(self.claims.writes[floor].made)
            );
            self.fail(Claim::NoValueFromTheDead, database, Some(key), text);
        }
    }

    fn age_is_right(&mut self, process: Process, key: Key, value: u64, is_fresh: bool) {
        let age = self.now - self.claims.made(value);
        let limit = match is_fresh {
            true => FRESH,
            false => HARD,
        };
        let facts = &self.claims.processes[process];
        let extra = self.claims.values[value as usize].extra;
        let was_paused = facts.paused.since(self.now, SECOND);
        if age > limit + extra + ROUNDING && !was_paused {
            let database = facts.database;
            let text = format!(
                "process {process} serves {} as {}, {} after it was made",
                self.claims.describe(value),
                if is_fresh { "fresh" } else { "stale" },
                seconds(age)
            );
            self.fail(Claim::AgesAreRight, database, Some(key), text);
        }
    }

    fn error_is_right(&mut self, process: Process, key: Key, began: Nanos) {
        let facts = &self.claims.processes[process];
        let was_paused = facts.paused.since(began, LOAD_TIMEOUT);
        // A load waits for its lease at most as long as a load may take. That ends all its readers.
        let reads = self.claims.reads.iter().rev();
        let is_over = reads.take(256).any(|read| {
            let is_its_reader = read.process == process && read.key == key;
            let is_open = read.ended.is_none_or(|ended| ended == self.now);
            // The clock of the process may run faster than that of the simulation.
            is_its_reader && is_open && read.began + LOAD_TIMEOUT <= self.now + 10 * MS
        });
        if !(facts.failing.since(began, MARGIN) || was_paused || is_over) {
            let database = facts.database;
            let text = format!("a read of process {process} fails, though its loads do not");
            self.fail(Claim::HealthyProcessesRead, database, Some(key), text);
        }
    }

    /// A read has waited; compares that with the loads meanwhile.
    fn wait_is_right(&mut self, process: Process, key: Key, began: Nanos) {
        let (now, claims) = (self.now, &self.claims);
        let facts = &claims.processes[process];
        let database = facts.database;
        if facts.paused.since(began, LEASE) {
            return;
        }
        let refused = facts.refused_since.is_some_and(|since| since <= began);
        let (mut longest, mut rounds) = (0, 2);
        let known = claims.keys.get(&(database, key));
        let loads = known.map_or(&[][..], |facts| &facts.loads);
        for load in loads.iter().rev().take(64).map(|load| &claims.loads[*load]) {
            let ended = load.ended.unwrap_or(now);
            if ended < began || refused && load.process != process {
                continue;
            }
            longest = longest.max(ended - load.began);
            rounds += u64::from(matches!(
                load.outcome,
                Some(Outcome::Failed | Outcome::Dropped)
            ));
        }
        rounds += claims.written_since(database, key, began) as u64;
        let was_calm = !claims.fault.since(began.saturating_sub(LEASE), MARGIN);
        // A load that waits for the lease of another process does not look at its connection.
        let is_alone = (facts.refused_since).is_some_and(|since| since + LEASE <= began);
        let (claim, more) = match (refused, was_calm) {
            (true, _) if is_alone => (Claim::NoReadWaitsForAWrite, 100 * MS),
            (true, _) => (Claim::NoReadWaitsForAWrite, LEASE + 100 * MS),
            (false, true) => (Claim::NoReadWaitsInLine, 300 * MS),
            (false, false) => (Claim::OneLeaseOfDelay, LEASE + 8 * LIMIT),
        };
        let waited = now - began;
        if waited > rounds * longest + more {
            let text = format!(
                "a read of process {process} waits {}, and no load takes longer than {}",
                seconds(waited),
                seconds(longest)
            );
            self.fail(claim, database, Some(key), text);
        }
    }

    /// The run is over.
    pub fn everything_ended(&mut self) {
        let hangs = self.claims.reads.iter().position(|read| {
            let is_dead = self.claims.processes[read.process].is_dead;
            read.ended.is_none() && !is_dead
        });
        if let Some(read) = hangs {
            let Read { process, key, .. } = self.claims.reads[read];
            let database = self.claims.processes[process].database;
            let text = format!("read {read} of process {process} does not end");
            self.fail(Claim::EverythingEnds, database, Some(key), text);
        }
    }

    /// What a process serves after everything was told.
    pub fn final_value(&mut self, process: Process, key: Key, value: u64) {
        let database = self.claims.processes[process].database;
        let last_write = self.claims.facts(database, key).last_write;
        let Some((_, _, at)) = last_write else { return };
        let facts = &self.claims.processes[process];
        // It cannot know of an invalidation that came after the server had lost its data.
        let has_missed = facts.has_lost && facts.last_gap >= Some(at);
        let latest = self
            .claims
            .facts(database, key)
            .latest
            .filter(|_| !has_missed);
        if let Some(latest) = latest {
            self.value_lives(database, key, value, latest, process);
        }
    }

    /// A process has a fresh value that the server had, and has no more.
    pub fn fresh_but_lost(&mut self, process: Process, key: Key, value: u64) {
        let claims = &self.claims;
        let facts = &claims.processes[process];
        // The process that was to store the value has had the time for it.
        let is_good = |facts: &ProcessFacts| {
            let gap = facts.last_gap.unwrap_or(0);
            facts.is_dead || !facts.trouble.since(gap + 1, 0)
        };
        let is_good = facts.has_lost
            && claims.processes.iter().all(is_good)
            && claims.last_death < claims.last_emptied;
        let known = claims.keys.get(&(facts.database, key));
        let is_changed = known.is_some_and(|known| known.last_write.is_some() || known.was_stored);
        // A load keeps the key to itself, and that of a process that died for the time of a lease.
        let emptied = claims.last_emptied.unwrap_or(0);
        let has_loads = known.is_some_and(|known| {
            let ended = |load: &usize| claims.loads[*load].ended;
            let mut loads = known.loads.iter().rev().take(32);
            loads.any(|load| ended(load).is_none_or(|ended| ended >= emptied))
        });
        let was_stored = claims.values[value as usize].was_stored;
        if is_good && was_stored && !is_changed && !has_loads {
            let database = facts.database;
            let text = format!(
                "process {process} has {}, and does not store it again",
                claims.describe(value)
            );
            self.fail(Claim::LostValuesAreStored, database, Some(key), text);
        }
    }
}
