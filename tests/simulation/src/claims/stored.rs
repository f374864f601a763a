//! What the server does: claims A and B, and the order of writes.

use everfresh::store::{Acquired, Change, Stored};

use super::{BLUR, Claim, HARD, Payload, Source, removes};
use crate::log::{Served, What, seconds};
use crate::network::{Answer, Arrival, Request};
use crate::world::{Database, Key, MS, Nanos, Process, State};

impl State {
    fn key(&self, hash: u128) -> Option<Key> {
        self.claims.names.get(&hash).copied()
    }

    /// The write that a request carries: the latest one of the process.
    pub fn write_of(&self, process: Process, request: &Request) -> Option<usize> {
        if !matches!(request, Request::Set(..) | Request::Invalidate(..)) {
            return None;
        }
        let key = self.key(request.key()?.hash())?;
        self.claims.views.get(&(process, key))?.own
    }

    /// The load whose answer "not found" a request carries, if it does.
    pub fn not_found_of(&self, process: Process, request: &Request) -> Option<usize> {
        let Request::Publish(key, _) = request else {
            return None;
        };
        let key = self.key(key.hash())?;
        self.claims.views.get(&(process, key))?.last_not_found
    }

    /// The server has served a request. Before it and after it, this was stored.
    pub fn served(
        &mut self,
        database: Database,
        arrival: &Arrival,
        before: Option<Payload>,
        after: Option<Payload>,
        answer: &Answer,
    ) {
        let Some(key) = arrival.request.key().and_then(|key| self.key(key.hash())) else {
            return;
        };
        let process = arrival.process;
        let (operation, served) = described(&arrival.request, answer);
        self.log(What::Served(process, key, operation, served));
        self.claims.facts(database, key).was_stored |= after.is_some();
        if let Some(value) = after.as_ref().and_then(|after| after.value) {
            self.claims.values[value as usize].was_stored = true;
        }
        match (&arrival.request, answer) {
            (Request::Publish(_, publish), Answer::Stored(Stored::Yes { .. })) => {
                let base = publish.base.micros();
                let value = Payload::of(&publish.payload).and_then(|payload| payload.value);
                self.one_successor(database, key, base, before.as_ref());
                self.nothing_from_before(database, key, arrival, value);
                self.right_age(database, key, arrival, after.as_ref());
            }
            (Request::Set(..) | Request::Invalidate(..), Answer::Stored(stored)) => {
                let is_set = matches!(arrival.request, Request::Set(..));
                let is_made = stored.epoch().is_some();
                self.written(database, key, arrival, is_set, is_made, [before, after]);
            }
            _ => {}
        }
    }

    fn one_successor(&mut self, database: Database, key: Key, base: u64, before: Option<&Payload>) {
        let is_first = self.claims.facts(database, key).bases.insert(base);
        let stored = before.and_then(|payload| payload.epoch);
        let is_other = stored.is_some_and(|epoch| epoch.micros() != base);
        if !is_first || is_other {
            let text = format!("a result replaces epoch {base}, which is no longer stored");
            self.fail(Claim::OneSuccessor, database, Some(key), text);
        }
    }

    fn nothing_from_before(
        &mut self,
        database: Database,
        key: Key,
        arrival: &Arrival,
        value: Option<u64>,
    ) {
        let Some((write, step, at)) = self.claims.facts(database, key).last_write else {
            return;
        };
        let claims = &self.claims;
        let source = match value {
            Some(value) => Some(claims.values[value as usize].source),
            None => arrival.not_found.map(Source::Load),
        };
        let (began, what) = match source {
            Some(Source::Load(load)) => (claims.loads[load].step, format!("load {load}")),
            Some(Source::Write(other)) if other != write => {
                (claims.writes[other].step, format!("write {other}"))
            }
            _ => return,
        };
        if began > step {
            return;
        }
        if let Some(value) = value {
            let facts = &claims.processes[arrival.process];
            if facts.has_lost && facts.last_gap >= Some(at) {
                self.claims.values[value as usize].has_outlived_a_write = true;
                return;
            }
        }
        let text = format!(
            "the server stores the result of {what}, which began before the server made write \
             {write}"
        );
        self.fail(Claim::NothingFromBeforeAWrite, database, Some(key), text);
    }

    /// The server was told of a value with the time that is left to it.
    fn right_age(
        &mut self,
        database: Database,
        key: Key,
        arrival: &Arrival,
        after: Option<&Payload>,
    ) {
        let Some((value, lasts)) = after.and_then(|after| Some((after.value?, after.lasts))) else {
            return;
        };
        let made = self.claims.made(value);
        let extra = (self.now + lasts).saturating_sub(made + HARD);
        let known = self.claims.values[value as usize].extra;
        let paused = self.claims.processes[arrival.process].paused.since(made, 0);
        let underway = self.now - arrival.sent;
        if extra > known + underway + 60 * MS && !paused {
            let text = format!(
                "the server gets {} to keep for {}: {} too long",
                self.claims.describe(value),
                seconds(lasts),
                seconds(extra)
            );
            self.fail(Claim::AgesAreRight, database, Some(key), text);
        }
        self.claims.values[value as usize].extra = extra.max(known);
    }

    /// A write has reached the server.
    fn written(
        &mut self,
        database: Database,
        key: Key,
        arrival: &Arrival,
        is_set: bool,
        is_made: bool,
        [before, after]: [Option<Payload>; 2],
    ) {
        let Some(write) = arrival.write else { return };
        let made = self.claims.writes[write].made;
        let source = |payload: &Option<Payload>| {
            let value = payload.as_ref()?.value?;
            Some(self.claims.values[value as usize].source)
        };
        let after_source = source(&after);
        // A value that was stored again counts as loaded.
        let is_written = before.as_ref().is_some_and(|before| before.is_written);
        let stored = match source(&before) {
            Some(Source::Write(other)) if is_written => {
                Some((other, self.claims.writes[other].made))
            }
            _ => None,
        };
        let wrong = match stored {
            Some((other, at)) if is_made && at > made + BLUR => Some(format!(
                "write {write} replaces write {other}, which was made later"
            )),
            Some((other, at)) if !is_made && at + BLUR < made => Some(format!(
                "write {write} is refused for write {other}, which was made earlier"
            )),
            None if !(is_made || is_set && before.is_some() && after.is_none()) => Some(format!(
                "write {write} is refused, though no later write is stored"
            )),
            _ => None,
        };
        if let Some(text) = wrong {
            self.fail(Claim::TheLaterWriteWins, database, Some(key), text);
        }
        if let Some(Source::Load(load)) = after_source
            && self.claims.loads[load].began + BLUR < made
        {
            let text = format!("write {write} leaves the result of load {load}, which is older");
            self.fail(Claim::TheLaterWriteWins, database, Some(key), text);
        }
        let step = self.decided(arrival.process, key, write);
        if is_made || stored.is_none() {
            let now = self.now;
            let latest = self.claims.facts(database, key).latest;
            let latest = self.claims.later(latest, Some(write));
            let facts = self.claims.facts(database, key);
            facts.latest = latest;
            facts.last_write = Some((write, step, now));
            facts.written.push(now);
        }
        if is_set && is_made {
            self.right_age(database, key, arrival, after.as_ref());
        }
    }

    /// The server has decided about a write, and so about the earlier ones of the process that did
    /// not reach it.
    fn decided(&mut self, process: Process, key: Key, write: usize) -> u64 {
        let step = self.claims.step();
        let waiting = std::mem::take(&mut self.claims.view(process, key).waiting);
        let (decided, left): (Vec<_>, Vec<_>) =
            waiting.into_iter().partition(|other| *other <= write);
        self.claims.view(process, key).waiting = left;
        for write in decided.into_iter().chain([write]) {
            let steps = &mut self.claims.writes[write].decided;
            *steps = Some((steps.map_or(step, |(first, _)| first), step));
        }
        step
    }

    /// A process gets a change message about a write.
    pub fn told(&mut self, process: Process, change: &Change, write: Option<usize>) {
        let Some(key) = self.key(change.hash) else {
            return;
        };
        self.log(What::Told(process, key, change.kind));
        let database = self.claims.processes[process].database;
        let Some(write) = write.filter(|_| removes(change.kind)) else {
            return;
        };
        let writer = self.claims.writes[write].process;
        // While its own write is pending, the server decides which of the two is later.
        let now = self.now;
        if self.claims.processes[writer].database != database {
            return;
        }
        let heard = self.claims.view(process, key).heard;
        let heard = self.claims.later(heard, Some(write));
        let view = self.claims.view(process, key);
        view.told = Some(now);
        view.heard = heard;
        if !view.is_pending() {
            let floor = view.floor;
            self.claims.view(process, key).floor = self.claims.later(floor, Some(write));
        }
    }

    /// A process learns what became of its write.
    pub fn settled(&mut self, process: Process, write: usize, is_made: bool) {
        let (now, key) = (self.now, self.claims.writes[write].key);
        let heard = self.claims.view(process, key).heard;
        let later = self.claims.later(heard, Some(write));
        let view = self.claims.view(process, key);
        view.settled = view.settled.max(Some(write));
        if !is_made {
            view.told = Some(now);
        }
        if !view.is_pending() {
            view.floor = later;
        }
    }

    /// A caller is about to write.
    pub fn write_made(&mut self, process: Process, key: Key, is_set: bool) -> (usize, Option<u64>) {
        let (now, step) = (self.now, self.claims.step());
        let write = self.claims.writes.len();
        let value = is_set.then(|| self.claims.new_value(Source::Write(write)));
        self.claims.writes.push(super::Write {
            process,
            key,
            value,
            made: now,
            step,
            decided: None,
        });
        let database = self.claims.processes[process].database;
        self.claims.facts(database, key).written.push(now);
        let view = self.claims.view(process, key);
        view.own = Some(write);
        view.waiting.push(write);
        view.floor = Some(write);
        self.log(What::WriteMade(process, key, write, value));
        (write, value)
    }
}

impl super::Claims {
    pub(super) fn new_value(&mut self, source: Source) -> u64 {
        self.values.push(super::Made {
            source,
            extra: 0,
            has_outlived_a_write: false,
            was_stored: false,
        });
        self.values.len() as u64 - 1
    }

    /// Whether a write came at this moment or later.
    pub(super) fn written_since(&self, database: Database, key: Key, moment: Nanos) -> usize {
        let facts = self.keys.get(&(database, key));
        let written = facts.map_or(&[][..], |facts| &facts.written);
        written.iter().rev().take_while(|at| **at >= moment).count()
    }
}

fn described(request: &Request, answer: &Answer) -> (&'static str, Served) {
    let operation = match request {
        Request::Read(_) => "read",
        Request::Acquire(..) => "acquire",
        Request::Publish(..) => "publish",
        Request::Renew(..) => "renew",
        Request::Release(..) => "release",
        Request::Set(..) => "set",
        Request::Invalidate(..) => "invalidate",
    };
    let served = match answer {
        Answer::Read(_) => Served::Found,
        Answer::Acquired(Acquired::Stored(_)) => Served::Found,
        Answer::Acquired(Acquired::Granted { .. }) => Served::Granted,
        Answer::Acquired(Acquired::Held { .. }) => Served::Held,
        Answer::Acquired(Acquired::Cooling { .. }) => Served::Cooling,
        Answer::Stored(Stored::Yes { .. }) | Answer::Done(true) => Served::Done,
        Answer::Stored(Stored::Refused) | Answer::Done(false) => Served::Refused,
        Answer::Failed(_) => Served::Failed,
    };
    (operation, served)
}
