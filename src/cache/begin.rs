//! The beginning of the load of a missing key.

use std::hash::{BuildHasher, Hash};

use crate::cache::cached::Source;
use crate::cache::call::CallTerms;
use crate::cache::lookup::Lookup;
use crate::cache::read::{Core, Unserved};
use crate::error::Error;
use crate::fleet::Reading;
use crate::load::admission::is_inside_a_load;
use crate::load::job::Job;
use crate::load::negative::Known;
use crate::load::runtime::Caller;
use crate::protocol::drop_later::DropLater;
use crate::protocol::entries::{Begun, Loads};
use crate::protocol::flight::Flight;
use crate::sync::StrongArc;
use crate::sync::future::or;

/// What the caller of a missing key waits for, or else the loads that fill its set.
type Begin<K, V> = (Option<Unserved<K, V>>, Loads<K, V>);

impl<K, V, S> Core<K, V, S>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher,
{
    /// Starts the load of a missing key; `None` to read again.
    pub(super) async fn begin<Q>(
        &self,
        key: &Q,
        hash: u64,
        terms: &CallTerms<V>,
    ) -> Result<Option<Unserved<K, V>>, Error>
    where
        Q: Lookup<K> + ?Sized,
    {
        // A caller that goes on has no task that could read.
        let level = self.fleet.as_ref().filter(|level| level.is_idle());
        let level = level.filter(|_| terms.caller != Caller::GoesOn);
        let reading = level.cloned().map(Reading::new);
        let (started, loads) = match &reading {
            Some(reading) => self.start_missing(&|job| reading.push(job), key, hash, terms)?,
            None => self.start_missing(&self.start, key, hash, terms)?,
        };
        if let (Some(reading), Some(Unserved::Wait(flight, ..))) = (reading, &started) {
            self.read_store(reading, flight).await;
        }
        if !loads.is_empty() {
            Flight::land_any(&loads, &self.state.clock).await;
        }
        Ok(started)
    }

    /// Reads keys from the store in this task, at most until the deadline of this load.
    pub(super) async fn read_store(&self, reading: Reading<K, V>, load: &Flight<K, V>) {
        // Not until the load ends: the reading, which ends it, would wake this task once more.
        let deadline = load.token().deadline();
        or(reading, self.state.clock.sleep_until(deadline)).await;
    }

    /// The part of [`begin`](Self::begin) that does not wait; the job begins by `start`.
    pub(super) fn start_missing<Q>(
        &self,
        start: &dyn Fn(Job<K, V>),
        key: &Q,
        hash: u64,
        terms: &CallTerms<V>,
    ) -> Result<Begin<K, V>, Error>
    where
        Q: Lookup<K> + ?Sized,
    {
        let now = self.state.clock.now();
        let failures = match self.known_to(key, now, terms) {
            Known::NotFound(error) => return Ok((Some(Unserved::Failed(error)), Vec::new())),
            Known::Failures(failures) => failures,
        };
        if !self.may_load(terms) && self.fleet.is_none() {
            return Err(Error::without_loader());
        }
        // Before the placeholder, which would end the loads of its other callers too.
        self.state.depth()?;
        if self.state.lifecycle.refuses(is_inside_a_load) {
            return Err(Error::closed());
        }
        let key = key.to_key();
        let mut drop_later = DropLater::new();
        let begun = (self.entries).begin(key, hash, failures, now, &mut drop_later);
        let (claim, loads) = match begun {
            Begun::Ours(claim) => (Some(claim), Vec::new()),
            Begun::Exists => (None, Vec::new()),
            // A caller from outside waits for one of the loads to end. A load must not, because the
            // load that it waits for might wait for it. So it loads without a place.
            Begun::Full(claim, _) if is_inside_a_load() => (Some(claim), Vec::new()),
            Begun::Full(claim, loads) => {
                claim.abandon();
                (None, loads)
            }
        };
        // Another load may have begun and ended between the two steps above, so the negative
        // entries are asked again. Callers that have joined this load meanwhile read again, because
        // a write that came before them may have forgotten the negative entry.
        let started = claim.map(
            |claim| match self.known_to(&claim.entry().key, now, terms) {
                Known::NotFound(error) => {
                    claim.abandon();
                    Unserved::Failed(error)
                }
                // Before the listener and the drops below, which may read this very key.
                Known::Failures(_) => self.lead_by(start, claim, None, terms),
            },
        );
        self.entries.removals.deliver();
        drop(drop_later);
        Ok((started, loads))
    }

    /// The flight of a load that this call or another one began; `None` to read again.
    pub(crate) async fn begun<Q>(
        &self,
        key: &Q,
        hash: u64,
        unserved: Unserved<K, V>,
    ) -> Result<Option<(StrongArc<Flight<K, V>>, Source)>, Error>
    where
        Q: Lookup<K> + ?Sized,
    {
        let begun = match unserved {
            Unserved::Missing => self.begin(key, hash, &Caller::GoesOn.into()).await?,
            begun => Some(begun),
        };
        match begun {
            Some(Unserved::Wait(flight, _, source)) => Ok(Some((flight, source))),
            Some(Unserved::Failed(error)) => Err(error),
            Some(Unserved::Missing) | None => Ok(None),
        }
    }
}
