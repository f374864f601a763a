//! The claims of callers that ask for a refresh.
//!
//! A limit on loads that callers force must hold however many of them come at once, and however
//! late one of them goes on. So a caller decides by what it finds after it has read the claim word,
//! and claims by an exchange of this very word: an attempt that begins or ends in between changes
//! it.

use super::{Claimed, Entries};
use crate::error::Error;
use crate::protocol::claim::ClaimToken;
use crate::protocol::entry::Entry;
use crate::protocol::flight::Outcome;
use crate::protocol::table::Place;
use crate::sync::{Arc, Held};
use crate::time::clock::Tick;

/// The result of a claim that is limited in time.
pub enum Forced<K, V> {
    Due(Claimed<K, V>),
    /// Not yet; with the error of the last attempt, if that failed.
    TooSoon(Option<Error>),
}

impl<K: Eq, V> Entries<K, V> {
    /// Claims a resident value whatever its age, for an explicit refresh.
    pub fn claim_now(
        self: &Arc<Self>,
        place: Place,
        entry: &Held<Entry<K, V>>,
        now: Tick,
    ) -> Claimed<K, V> {
        self.claim_if(place, entry, now, || true)
    }

    /// The same, but not within `every` after the value was made, nor after the begin of an attempt
    /// that failed. An attempt that is under way is joined in any case.
    pub fn claim_forced(
        self: &Arc<Self>,
        place: Place,
        entry: &Held<Entry<K, V>>,
        now: Tick,
        every: Tick,
    ) -> Forced<K, V> {
        let mut too_soon = None;
        let claimed = self.claim_if(place, entry, now, || {
            too_soon = self.too_soon(entry, now, every);
            too_soon.is_none()
        });
        match too_soon {
            Some(last) => Forced::TooSoon(last),
            None => Forced::Due(claimed),
        }
    }

    /// Why no caller may force a load of this entry now: `None` if one may, else the error of the
    /// last attempt, or none if there is only the value.
    pub fn too_soon(&self, entry: &Entry<K, V>, now: Tick, every: Tick) -> Option<Option<Error>> {
        if every == 0 {
            return None;
        }
        let is_recent = |then: Tick| now < then.saturating_add(every);
        let last = (self.last_flight(entry)).filter(|flight| !flight.is_closed());
        if let Some(flight) = last {
            match flight.outcome() {
                None => return None,
                Some(Outcome::Failed(error) | Outcome::Earlier(error)) if !error.is_refusal() => {
                    if is_recent(self.claimed_at(flight.token())) {
                        return Some(Some(error));
                    }
                }
                Some(_) => {}
            }
        }
        // An expired value is none that the caller could get.
        let has_value = self.is_servable(entry, now) && is_recent(entry.times().created());
        has_value.then_some(None)
    }

    /// When this claim was made, or renewed because its load waited long for its turn.
    pub fn claimed_at(&self, token: ClaimToken) -> Tick {
        token.deadline().saturating_sub(self.timing.claim_for)
    }

    fn claim_if(
        self: &Arc<Self>,
        place: Place,
        entry: &Held<Entry<K, V>>,
        now: Tick,
        is_due: impl FnOnce() -> bool,
    ) -> Claimed<K, V> {
        self.end_overdue(entry, now);
        let last = || self.last_flight(entry).map(|flight| flight.token());
        let has_failed = |token| {
            let flight = (self.last_flight(entry)).filter(|flight| flight.token() == token);
            flight.is_some_and(|flight| flight.has_ended())
        };
        let claimed =
            entry
                .claim_word
                .force_claim(now, self.timing.claim_for, last, has_failed, is_due);
        let claimed = match claimed {
            Some(token) => self.confirm(place, entry, token, now).map(Claimed::Ours),
            // A flight that has its outcome began before this call, so the caller does not join it.
            // Its claimant has published, or has just given the claim up.
            None => (self.join(entry))
                .filter(|flight| !flight.has_ended())
                .map(Claimed::Theirs),
        };
        claimed.unwrap_or(Claimed::Changed)
    }

    /// Claims a resident value for callers that want exactly this one replaced, and only once: not
    /// while it rests after a failure, whose error they get.
    ///
    /// The claim is that of a reader. [`claim_now`](Self::claim_now) would claim the value again
    /// for a caller that was descheduled while another one claimed it and failed.
    pub fn claim_if_due(
        self: &Arc<Self>,
        place: Place,
        entry: &Held<Entry<K, V>>,
        now: Tick,
    ) -> Result<Claimed<K, V>, Error> {
        if let Some(claim) = self.claim(place, entry, now) {
            return Ok(Claimed::Ours(claim));
        }
        let Some(flight) = self.join(entry) else {
            return Ok(Claimed::Changed);
        };
        match flight.outcome() {
            None => Ok(Claimed::Theirs(flight)),
            Some(Outcome::Failed(error) | Outcome::Earlier(error)) => Err(error),
            Some(Outcome::Published(..) | Outcome::Superseded) => Ok(Claimed::Changed),
        }
    }
}
