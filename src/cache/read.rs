//! The path of a read: look-up, classification, and, only without a value, a load or a wait.

use std::hash::{BuildHasher, Hash};

use crate::cache::cached::{Cached, Kept, Source};
use crate::cache::call::CallTerms;
use crate::cache::finish::Unread;
use crate::cache::lookup::Lookup;
use crate::error::Error;
use crate::fleet::Level;
use crate::load::engine::RunJob;
use crate::load::job::Job;
use crate::load::negative::Known;
use crate::load::runtime::Caller;
use crate::load::state::CacheState;
use crate::observe::reason::LoadReason;
use crate::protocol::entries::{self, Condition, Entries, Read};
use crate::protocol::entry::Entry;
use crate::protocol::flight::{Flight, Made, Outcome};
use crate::protocol::publish::ClaimGuard;
use crate::protocol::table::Place;
use crate::protocol::times::{Early, Times};
use crate::protocol::wait_graph::WaitNode;
use crate::sync::{Arc, Held, StrongArc};
use crate::time::clock::Tick;

/// One cache, shared by its handles.
pub(crate) struct Core<K, V, S> {
    pub(crate) hasher: S,
    pub(crate) entries: Arc<Entries<K, V>>,
    pub(crate) state: Arc<CacheState<K, V>>,
    pub(crate) start: RunJob<K, V>,
    /// The second level; with one, `start` goes through it.
    pub(crate) fleet: Option<Arc<dyn Level<K, V>>>,
}

/// Callers that waited for a load get its value for this long after the load ended, even if the
/// value's own life is shorter. Without it they could go on for ever to load a value that lives for
/// some microseconds.
const HANDING_OVER: Tick = 100_000_000;

/// The state in which a read found its key, when it could not just take a value.
pub(crate) struct Missed<K, V> {
    pub(crate) found: Option<(Place, Held<Entry<K, V>>)>,
    pub(crate) now: Tick,
}

/// Why a read was not served at once.
pub(crate) enum Unserved<K, V> {
    /// Wait for this flight, which this read or another one started. If it fails, the entry may be
    /// served instead.
    Wait(StrongArc<Flight<K, V>>, Option<Held<Entry<K, V>>>, Source),
    /// The remembered end of an earlier load.
    Failed(Error),
    Missing,
}

impl<K, V, S> Core<K, V, S>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher,
{
    #[inline(always)]
    pub(crate) fn find<Q>(&self, key: &Q, hash: u64) -> Option<(Place, Held<Entry<K, V>>)>
    where
        Q: Lookup<K> + ?Sized,
    {
        self.entries.find(hash, |other| key.is_key(other))
    }

    /// Reads a key: continues with `hit`, or with `miss` if no value that is accepted could just be
    /// taken.
    ///
    /// Inlined, with continuations in place of a result, so that a hit is built where it is wanted.
    /// To copy what was just written part by part would stall the processor for as long as the
    /// whole look-up takes.
    #[inline(always)]
    pub(crate) fn lookup<Q, R>(
        &self,
        key: &Q,
        hash: u64,
        is_accepted: impl FnOnce(&Entry<K, V>, Early, Tick) -> bool,
        hit: impl FnOnce(Cached<K, V>) -> R,
        miss: impl FnOnce(Missed<K, V>) -> R,
    ) -> R
    where
        Q: Lookup<K> + ?Sized,
    {
        let now = self.state.clock.now();
        let found = match self.find(key, hash) {
            Some((place, entry)) => {
                let early_from = entry.early_from();
                if is_accepted(&entry, early_from, now) {
                    let count_fresh = || self.state.counters.fresh(1);
                    if let Some(source) = self.take(&entry, early_from, now, count_fresh) {
                        return hit(Cached::new(entry, now, source));
                    }
                }
                Some((place, entry))
            }
            None => None,
        };
        // In one place, so that it is inlined. As a call it would write its result where a hit is
        // built, which would keep the hit in memory.
        miss(Missed { found, now })
    }

    /// Reads a key, and begins its refresh or load; the error says what the caller has to wait for.
    #[inline(always)]
    pub(crate) fn read<Q>(
        &self,
        key: &Q,
        hash: u64,
        caller: Caller,
    ) -> Result<Cached<K, V>, Unserved<K, V>>
    where
        Q: Lookup<K> + ?Sized,
    {
        let miss = |missed| self.classify(missed, &caller.into()).map(Cached::from);
        self.lookup(key, hash, |_, _, _| true, Ok, miss)
    }

    /// [`Cache::get_blocking`](crate::Cache::get_blocking) of a key whose hash is known.
    #[inline(always)]
    pub(crate) fn get_blocking<Q>(&self, key: &Q, hash: u64) -> Result<Cached<K, V>, Error>
    where
        Q: Lookup<K> + ?Sized,
    {
        let miss = |missed| self.finish_blocking(key, hash, missed).map(Cached::from);
        self.lookup(key, hash, |_, _, _| true, Ok, miss)
    }

    /// The source of a value that a read can just take, which is counted as a use; `None` if
    /// something has to be done first. `early_from` is that of the entry; `count_fresh` counts a
    /// fresh value.
    #[inline(always)]
    pub(crate) fn take(
        &self,
        entry: &Entry<K, V>,
        early_from: Early,
        now: Tick,
        count_fresh: impl FnOnce(),
    ) -> Option<Source> {
        let late = || self.fast_state(entry, now);
        self.take_or(entry, early_from, now, count_fresh, late)
    }

    /// The same for a read that never loads; `None` if the value may not be served.
    #[inline(always)]
    pub(crate) fn take_present(&self, entry: &Entry<K, V>, now: Tick) -> Option<Source> {
        let count_fresh = || self.state.counters.fresh(1);
        let late = || self.late_state(entry, now);
        self.take_or(entry, entry.early_from(), now, count_fresh, late)
    }

    #[inline(always)]
    fn take_or(
        &self,
        entry: &Entry<K, V>,
        early_from: Early,
        now: Tick,
        count_fresh: impl FnOnce(),
        late: impl FnOnce() -> Option<Condition>,
    ) -> Option<Source> {
        let is_fresh = early_from.is_after(now)
            || early_from.has_groups() && {
                if !self.entries.has_current_groups(entry) {
                    return None;
                }
                early_from.is_after_with_groups(now)
            };
        let source = match is_fresh {
            true => {
                count_fresh();
                Source::Fresh
            }
            false => late()?.into(),
        };
        entry.touch();
        Some(source)
    }

    /// How an entry is served that may be past its `early_from`, and counts it; `None` if something
    /// has to be done first.
    #[inline(always)]
    fn fast_state(&self, entry: &Entry<K, V>, now: Tick) -> Option<Condition> {
        let draw = |times: &Times| self.state.policy.draw_early(times, now);
        let condition = self.entries.fast_state(entry, now, draw)?;
        self.count(condition, now, entry.times().fresh_until());
        Some(condition)
    }

    #[inline(always)]
    fn count(&self, condition: Condition, now: Tick, fresh_until: Tick) {
        let stale_for = now.saturating_sub(fresh_until);
        self.state.counters.served(condition, stale_for);
    }

    pub(crate) fn serve(
        &self,
        entry: Held<Entry<K, V>>,
        now: Tick,
        condition: Condition,
    ) -> Kept<K, V> {
        entry.touch();
        self.count(condition, now, entry.times().fresh_until());
        Kept::new(entry.into_arc(), now, condition.into())
    }

    /// How a value is shown by a call that never loads; `None` if it may not be served. Counts
    /// nothing.
    pub(crate) fn peek_state(&self, entry: &Entry<K, V>, now: Tick) -> Option<Condition> {
        if !self.entries.is_servable(entry, now) {
            return None;
        }
        // Between the two stale windows `get` would wait for a refresh, and this call does not.
        let known = entries::condition(&entry.times(), entry.claim_word.state(), now);
        Some(known.unwrap_or(Condition::Stale))
    }

    /// How an entry that may be past its `early_from` is served by a read that never loads, and
    /// counts it.
    #[inline(never)]
    fn late_state(&self, entry: &Entry<K, V>, now: Tick) -> Option<Condition> {
        let condition = self.peek_state(entry, now)?;
        self.count(condition, now, entry.times().fresh_until());
        Some(condition)
    }

    /// A read that found no value it could just take: claims, starts, or says what to wait for.
    #[inline(never)]
    pub(crate) fn classify(
        &self,
        missed: Missed<K, V>,
        terms: &CallTerms<V>,
    ) -> Result<Kept<K, V>, Unserved<K, V>> {
        let Missed { found, now } = missed;
        let Some((place, entry)) = found else {
            return Err(Unserved::Missing);
        };
        if self.remove_if_outdated(place, &entry) {
            return Err(Unserved::Missing);
        }
        if terms.is_too_old(&entry, now) {
            return self.renew(place, entry, now, terms);
        }
        let refreshes = self.state.lifecycle.is_open() && terms.refreshes && self.may_load(terms);
        if !refreshes {
            if let Some(condition) = self.peek_state(&entry, now) {
                return Ok(self.serve(entry, now, condition));
            }
        }
        if !self.may_load(terms) && !entry.is_loading() && self.fleet.is_none() {
            // As for a missing key, the next step returns the error.
            return Err(Unserved::Missing);
        }
        let unserved = match self.entries.classify(place, entry, now) {
            Read::Serve {
                entry,
                condition,
                claim,
            } => {
                let served = self.serve(entry, now, condition);
                if let Some(claim) = claim {
                    self.state.counters.claimed(condition);
                    let reason = match condition {
                        Condition::Early => LoadReason::Early,
                        _ => LoadReason::Stale,
                    };
                    self.start_refresh(claim, reason, terms);
                }
                return Ok(served);
            }
            Read::Load(claim, fallback) => self.lead(claim, fallback, terms),
            Read::Wait(flight, fallback) => Unserved::Wait(flight, fallback, Source::Coalesced),
            Read::Failed(error) => Unserved::Failed(error),
            Read::Missing => Unserved::Missing,
        };
        Err(unserved)
    }

    /// Starts the load of a claim whose caller will wait for it. It may have ended on return.
    pub(crate) fn lead(
        &self,
        claim: ClaimGuard<K, V>,
        fallback: Option<Held<Entry<K, V>>>,
        terms: &CallTerms<V>,
    ) -> Unserved<K, V> {
        self.lead_by(&self.start, claim, fallback, terms)
    }

    pub(super) fn lead_by(
        &self,
        start: &dyn Fn(Job<K, V>),
        claim: ClaimGuard<K, V>,
        fallback: Option<Held<Entry<K, V>>>,
        terms: &CallTerms<V>,
    ) -> Unserved<K, V> {
        let flight = claim.flight().clone();
        if let Err(error) = self.state.deepen(&flight) {
            claim.rest(error.clone(), 0);
            return Unserved::Failed(error);
        }
        // If the cache was closed, the claim has ended with the error.
        if let Some(job) = Job::new(claim, LoadReason::Cold, self.state.clone(), terms.caller) {
            start(match &terms.call {
                Some(call) => job.by_call(call.clone(), terms.caller),
                None => job,
            });
        }
        Unserved::Wait(flight, fallback, Source::Loaded)
    }

    /// Starts a refresh for which no caller waits: by the loader, if there is one.
    fn start_refresh(&self, claim: ClaimGuard<K, V>, reason: LoadReason, terms: &CallTerms<V>) {
        let caller = Caller::GoesOn;
        if let Some(job) = Job::new(claim, reason, self.state.clone(), caller) {
            (self.start)(match &terms.call {
                Some(call) if !self.state.has_loader => job.by_call(call.clone(), caller),
                _ => job,
            });
        }
    }

    /// Whether there is a function that could load for this read.
    pub(super) fn may_load(&self, terms: &CallTerms<V>) -> bool {
        self.state.has_loader || terms.call.is_some()
    }

    /// Loads or waits until there is a value or an error.
    pub(crate) async fn load_or_wait<Q>(
        &self,
        key: &Q,
        hash: u64,
        mut unserved: Unserved<K, V>,
        terms: &CallTerms<V>,
    ) -> Result<Kept<K, V>, Unread>
    where
        Q: Lookup<K> + ?Sized,
    {
        let arrived = self.state.groups.now();
        loop {
            match unserved {
                Unserved::Failed(error) => {
                    return Err(Unread {
                        error,
                        negative: true,
                    });
                }
                Unserved::Wait(flight, fallback, source) => match self.wait(&flight, source).await?
                {
                    Outcome::Published(entry, made) => {
                        let came = match made {
                            Made::Here | Made::Earlier => source,
                            Made::Elsewhere => Source::Store,
                        };
                        let is_own = source == Source::Loaded;
                        let is_accepted = terms.accepts(&entry, made, self.state.clock.now())
                            && (self.entries).is_answer(&entry, made, &flight, is_own, arrived);
                        if is_accepted {
                            if let Some(kept) = self.hand_over(entry, came) {
                                return Ok(kept);
                            }
                        }
                        // This future was polled only after the hard limit, or its caller came
                        // after the invalidation of a group that the load does not know of. So it
                        // reads again, like a caller that comes now.
                    }
                    Outcome::Failed(error) | Outcome::Earlier(error) => {
                        if error.is_timeout() && source == Source::Loaded {
                            // This thread may have run the load past its deadline, for a late
                            // result.
                            if let Some(late) = self.late(&key.to_key(), hash, terms.caller) {
                                return Ok(late);
                            }
                        }
                        return self.fall_back(fallback, error).map_err(Unread::from);
                    }
                    Outcome::Superseded => {}
                },
                Unserved::Missing => {
                    if let Some(ours) = self.begin(key, hash, terms).await? {
                        unserved = ours;
                        continue;
                    }
                }
            }
            // By the key itself. A form whose `is_key` is wrong would not find an entry that
            // exists, and this loop would not end.
            unserved = match self.read_kept(&key.to_key(), hash, terms) {
                Ok(kept) => return Ok(kept),
                Err(unserved) => unserved,
            };
        }
    }

    /// The value of a load for a caller that waited for it; `None` if it has expired long ago.
    pub(crate) fn hand_over(
        &self,
        entry: StrongArc<Entry<K, V>>,
        source: Source,
    ) -> Option<Kept<K, V>> {
        let now = self.state.clock.now();
        let handed_until = entry.times().created().saturating_add(HANDING_OVER);
        let served = entry.is_unexpired(now) || now < handed_until;
        served.then(|| Kept::new(entry, now, source))
    }

    /// The load failed: serves the value inside its stale-if-error window, if there is one.
    fn fall_back(
        &self,
        fallback: Option<Held<Entry<K, V>>>,
        error: Error,
    ) -> Result<Kept<K, V>, Error> {
        let now = self.state.clock.now();
        match fallback {
            Some(entry) if self.entries.is_servable(&entry, now) => {
                self.state.counters.claimed(Condition::AfterFailure);
                Ok(self.serve(entry, now, Condition::AfterFailure))
            }
            _ => Err(error),
        }
    }

    /// The negative entry of a key.
    pub(super) fn known<Q>(&self, key: &Q, now: Tick) -> Known
    where
        Q: Lookup<K> + ?Sized,
    {
        let state = &self.state;
        (state.negative).known(key, |other| key.is_key(other), &state.groups, now)
    }

    /// The same for a read on these terms.
    pub(super) fn known_to<Q>(&self, key: &Q, now: Tick, terms: &CallTerms<V>) -> Known
    where
        Q: Lookup<K> + ?Sized,
    {
        let every = self.state.policy.forced_every;
        match terms.forced {
            true => {
                let state = &self.state;
                let is_key = |other: &K| key.is_key(other);
                (state.negative).known_within(every, key, is_key, &state.groups, now)
            }
            false => self.known(key, now),
        }
    }

    /// Forgets the negative entry of a key.
    pub(crate) fn forget<Q>(&self, key: &Q)
    where
        Q: Lookup<K> + ?Sized,
    {
        self.state.negative.forget(key);
    }

    /// Waits for a flight, at most until its claim's deadline.
    pub(crate) async fn wait(
        &self,
        flight: &StrongArc<Flight<K, V>>,
        source: Source,
    ) -> Result<Outcome<K, V>, Error> {
        if source == Source::Coalesced {
            self.state.counters.coalesced();
        }
        self.state.depth()?;
        let _edge = match WaitNode::current() {
            None => None,
            Some(wait_node) => Some(
                wait_node
                    .wait_for(flight.wait_node())
                    .ok_or_else(Error::recursive)?,
            ),
        };
        let landed = flight.land(&self.state.clock).await;
        Ok(landed.unwrap_or_else(|| Outcome::Failed(self.entries.timed_out(flight))))
    }
}
