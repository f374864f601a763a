//! The claims of callers that ask for a refresh.

use super::{Claimed, Entries};
use crate::error::Error;
use crate::protocol::entry::Entry;
use crate::protocol::flight::Outcome;
use crate::protocol::table::Place;
use crate::sync::{Arc, Held};
use crate::time::clock::Tick;

impl<K: Eq, V> Entries<K, V> {
    /// Claims a resident value whatever its age, for an explicit refresh.
    pub fn claim_now(
        self: &Arc<Self>,
        place: Place,
        entry: &Held<Entry<K, V>>,
        now: Tick,
    ) -> Claimed<K, V> {
        self.end_overdue(entry, now);
        let last = || self.last_flight(entry).map(|flight| flight.token());
        let has_failed = |token| {
            let flight = (self.last_flight(entry)).filter(|flight| flight.token() == token);
            flight.is_some_and(|flight| flight.has_ended())
        };
        let claimed = entry
            .claim_word
            .force_claim(now, self.timing.claim_for, last, has_failed);
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
