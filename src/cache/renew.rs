//! Values that are too old for a caller, and the limit on the loads that callers force.

use std::hash::{BuildHasher, Hash};

use crate::cache::cached::{Kept, Source};
use crate::cache::call::CallTerms;
use crate::cache::read::{Core, Unserved};
use crate::error::Error;
use crate::protocol::entries::Claimed;
use crate::protocol::entries::explicit::Forced;
use crate::protocol::entry::Entry;
use crate::protocol::table::Place;
use crate::sync::Held;
use crate::time::clock::Tick;

impl<K, V, S> Core<K, V, S>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher,
{
    /// The load of a value that is too old for these terms. It is claimed like that of any reader,
    /// so not while the value rests after a failure, whose error the caller gets.
    pub(super) fn renew(
        &self,
        place: Place,
        entry: Held<Entry<K, V>>,
        now: Tick,
        terms: &CallTerms<V>,
    ) -> Result<Kept<K, V>, Unserved<K, V>> {
        if !self.state.lifecycle.is_open() {
            return Err(Unserved::Failed(Error::closed()));
        }
        if !self.may_load(terms) {
            return Err(Unserved::Failed(Error::without_loader()));
        }
        let every = self.state.policy.forced_every;
        if let Some(error) = self.entries.too_soon(&entry, now, every) {
            // The caller gets the value of the last load, if that is so recent, whatever its age.
            let condition = self.peek_state(&entry, now);
            match condition.filter(|_| !entry.is_older_than(every, now)) {
                Some(condition) => return Ok(self.serve(entry, now, condition)),
                None => {
                    if let Some(error) = error {
                        return Err(Unserved::Failed(error));
                    }
                }
            }
        }
        let claimed = match self.entries.claim_if_due(place, &entry, now) {
            Ok(claimed) => claimed,
            // An attempt that was not tried says nothing about the key.
            Err(error) if error.is_refusal() => match self.force(place, &entry, now) {
                Ok(claimed) => claimed,
                Err(Ok(_)) => Claimed::Changed,
                Err(Err(error)) => return Err(Unserved::Failed(error)),
            },
            Err(error) => return Err(Unserved::Failed(error)),
        };
        Err(match claimed {
            Claimed::Ours(claim) => self.lead(claim, None, terms),
            Claimed::Theirs(flight) => Unserved::Wait(flight, None, Source::Coalesced),
            // The next step reads again.
            Claimed::Changed => Unserved::Missing,
        })
    }

    /// Claims a value for a caller that forces its load; the value itself, or the error of the last
    /// attempt, if the caller may not force one now.
    pub(super) fn force(
        &self,
        place: Place,
        entry: &Held<Entry<K, V>>,
        now: Tick,
    ) -> Result<Claimed<K, V>, Result<Kept<K, V>, Error>> {
        let every = self.state.policy.forced_every;
        match self.entries.claim_forced(place, entry, now, every) {
            Forced::Due(claimed) => Ok(claimed),
            Forced::TooSoon(error) => self
                .at_hand(entry, now, error)
                .map_or(Ok(Claimed::Changed), Err),
        }
    }

    /// What a caller gets that may not force a load of this entry now; `None` if it may.
    pub(super) fn too_soon(
        &self,
        entry: &Held<Entry<K, V>>,
        now: Tick,
    ) -> Option<Result<Kept<K, V>, Error>> {
        let every = self.state.policy.forced_every;
        let error = self.entries.too_soon(entry, now, every)?;
        self.at_hand(entry, now, error)
    }

    fn at_hand(
        &self,
        entry: &Held<Entry<K, V>>,
        now: Tick,
        error: Option<Error>,
    ) -> Option<Result<Kept<K, V>, Error>> {
        match self.peek_state(entry, now) {
            Some(condition) => Some(Ok(Kept::new(entry.arc().clone(), now, condition.into()))),
            None => error.map(Err),
        }
    }
}
