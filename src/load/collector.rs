//! When a batch leaves: the keys that are collected for one call of a loader.
//!
//! One batch at a time collects. It leaves
//!
//! - when it is full,
//! - when its oldest key has waited for the longest wait,
//! - when a caller waits for one of its keys, no other batch is under way, and no caller is adding
//!   keys under a *hold*,
//! - when a load waits for one of its keys, or the cache closes.
//!
//! A refresh alone, for which no caller waits, makes no batch leave early. Otherwise ten thousand
//! stale keys would be as many batches.
//!
//! Each step takes a short lock, in which it decides as well, and starts nothing in it. Races that
//! this must survive:
//!
//! 1. A caller adds a key while the batch under way ends. The later of the two finds what the
//!    earlier one did, so the key leaves by one of them (P3).
//! 2. A hold ends while a caller adds a key, or while the batch under way ends. The last of them
//!    decides.
//! 3. The alarm rings before it is set, because the caller that set it was descheduled. The caller
//!    looks at the clock once more after it has set the alarm.
//! 4. A batch leaves while a load begins to wait for one of its keys. The load names the batch by
//!    its ticket, so it makes no later batch leave.
//! 5. A forked child has the counts of its parent, and none of the threads that lower them. The
//!    first key of the child clears them, and sets an alarm of its own process.

use std::mem;

use crate::sync::{Arc, Mutex, lock};
use crate::time::clock::Tick;

/// Collects keys of type `T`, whose batch has a ticket of type `U`.
pub struct Collector<T, U> {
    max_keys: usize,
    longest_wait: Tick,
    state: Mutex<State<T, U>>,
}

struct State<T, U> {
    keys: Vec<T>,
    /// That of the batch which collects; none while it has no key.
    ticket: Option<Arc<U>>,
    /// When the oldest key has waited long enough.
    leaves_at: Tick,
    /// Whether a caller waits for one of the keys.
    is_wanted: bool,
    /// The callers that are adding keys.
    holds: usize,
    /// The batches that have left and not ended.
    under_way: usize,
    /// The process to which the counts belong.
    process: u32,
}

/// A batch that leaves. The caller starts it, and reports its end.
#[must_use]
pub struct Leaving<T, U> {
    pub keys: Vec<T>,
    pub ticket: Arc<U>,
}

impl<T, U> Collector<T, U> {
    pub fn new(max_keys: usize, longest_wait: Tick) -> Self {
        Collector {
            max_keys,
            longest_wait,
            state: Mutex::new(State {
                keys: Vec::new(),
                ticket: None,
                leaves_at: 0,
                is_wanted: false,
                holds: 0,
                under_way: 0,
                process: 0,
            }),
        }
    }

    pub fn max_keys(&self) -> usize {
        self.max_keys
    }

    /// Adds a key, in this process. `is_wanted` says that a caller will wait for it. The first key
    /// of a batch brings the ticket. Returns the ticket of the batch, and the batch if it leaves.
    pub fn add(
        &self,
        key: T,
        is_wanted: bool,
        process: u32,
        ticket: impl FnOnce() -> Arc<U>,
        now: impl Fn() -> Tick,
        set_alarm: impl FnOnce(Tick),
    ) -> (Arc<U>, Option<Leaving<T, U>>) {
        let added_at = now();
        let (ticket, leaving, alarm) = {
            let mut state = lock(&self.state);
            let is_forked = state.enter(process);
            let is_first = state.ticket.is_none();
            if is_first {
                state.leaves_at = added_at.saturating_add(self.longest_wait);
            }
            let ticket = state.ticket.get_or_insert_with(ticket).clone();
            state.keys.push(key);
            state.is_wanted |= is_wanted;
            let leaving = match state.keys.len() >= self.max_keys {
                true => state.leave(),
                false => state.decide(),
            };
            let sets_alarm = leaving.is_none() && (is_first || is_forked);
            (ticket, leaving, sets_alarm.then_some(state.leaves_at))
        };
        if let Some(at) = alarm {
            set_alarm(at);
            // Only now: an alarm that was set too late does not ring.
            return (ticket, self.due(now()));
        }
        (ticket, leaving)
    }

    /// A caller begins to add keys, in this process.
    pub fn hold(&self, process: u32) {
        let mut state = lock(&self.state);
        state.enter(process);
        state.holds += 1;
    }

    /// It has added its keys.
    pub fn release(&self) -> Option<Leaving<T, U>> {
        let mut state = lock(&self.state);
        // At 0 already, if the process was forked during the hold.
        state.holds = state.holds.saturating_sub(1);
        state.decide()
    }

    /// A batch that left has ended.
    pub fn ended(&self) -> Option<Leaving<T, U>> {
        let mut state = lock(&self.state);
        state.under_way = state.under_way.saturating_sub(1);
        state.decide()
    }

    /// A caller waits for a key of this batch.
    pub fn wanted(&self, ticket: &U) -> Option<Leaving<T, U>> {
        let mut state = lock(&self.state);
        if !state.collects(ticket) {
            return None;
        }
        state.is_wanted = true;
        state.decide()
    }

    /// This batch leaves at once.
    pub fn leave(&self, ticket: &U) -> Option<Leaving<T, U>> {
        let mut state = lock(&self.state);
        state.collects(ticket).then(|| state.leave()).flatten()
    }

    /// Whatever is there leaves at once.
    pub fn leave_all(&self) -> Option<Leaving<T, U>> {
        lock(&self.state).leave()
    }

    /// The batch that has waited long enough, if it has.
    pub fn due(&self, now: Tick) -> Option<Leaving<T, U>> {
        let mut state = lock(&self.state);
        (now >= state.leaves_at).then(|| state.leave()).flatten()
    }
}

impl<T, U> State<T, U> {
    /// Clears the counts of another process. Returns whether this is a new one.
    fn enter(&mut self, process: u32) -> bool {
        let is_forked = self.process != process;
        if is_forked {
            self.process = process;
            (self.holds, self.under_way) = (0, 0);
        }
        is_forked
    }

    fn collects(&self, ticket: &U) -> bool {
        self.ticket
            .as_ref()
            .is_some_and(|it| std::ptr::eq(&**it, ticket))
    }

    /// Leaves if a caller waits and nothing else is under way.
    fn decide(&mut self) -> Option<Leaving<T, U>> {
        let leaves = self.is_wanted && self.holds == 0 && self.under_way == 0;
        leaves.then(|| self.leave()).flatten()
    }

    fn leave(&mut self) -> Option<Leaving<T, U>> {
        let ticket = self.ticket.take()?;
        self.is_wanted = false;
        self.under_way += 1;
        Some(Leaving {
            keys: mem::take(&mut self.keys),
            ticket,
        })
    }
}
