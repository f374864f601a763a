//! The end of a claim: publish, fail, rest, abandon, expire, or give back by dropping it.
//!
//! A [`ClaimGuard`] always ends its flight, so every waiter is released whatever happens to the
//! claimant (P3, P5). Where the order of two steps matters:
//!
//! - *Publish* spends the claim before the successor becomes visible (P1), exchanges exactly the
//!   claimed entry (P4), delivers, and closes the flight last. So a waiter finds the outcome or the
//!   new entry.
//! - *Fail* and *rest* decide the flight before they give the claim up. So a reader that sees the
//!   entry cooling finds the error in its flight, and the next claimant finds a flight that has
//!   ended. They wake the waiters last, so that a waiter which reads again finds the entry cooling.
//! - A placeholder that failed is spent before it is removed, because it belongs to the new
//!   claimant after a takeover.
//! - *Expire* ends a claim at its deadline while its load goes on, in the order of *fail*. The
//!   placeholder stays, so that a late result can replace it.
//! - A value that leaves without a successor is first replaced by a tombstone. Otherwise an
//!   `insert` that overwrites it at that moment would be removed with it (P4).
//!
//! # Late results
//!
//! The first result of an entry is published, even if it comes after the deadline of its claim
//! (slow is not down). A result is a value, or the answer that the key has none. One exchange of
//! the claim word, to `Spent`, decides which result is the first. A late result races with:
//!
//! - *The claim of a takeover*, also one by `refresh`. The takeover finds the word spent, or it
//!   finds its entry gone and abandons. Or it is first: then its waiters get the late result, and
//!   its own result finds the word spent.
//! - *The result of a takeover, or another late result*. One exchange finds the word unspent, and
//!   only that result is published (P1).
//! - *The failure of a takeover*. If the failure spends a placeholder first, the late result is
//!   discarded. Otherwise the failure changes nothing.
//! - *`invalidate`, `insert`, eviction*. The entry has left, so the exchange of the way fails (P4).
//! - *Expire*. The result finds the claim ended or not. The waiters get the first delivery.

use crate::error::Error;
use crate::protocol::claim::{ClaimState, ClaimToken, Cooled, EpochEnd, failures_before};
use crate::protocol::drop_later::DropLater;
use crate::protocol::entries::Entries;
use crate::protocol::entry::Entry;
use crate::protocol::flight::{Flight, Made, Outcome};
use crate::protocol::permits::Permit;
use crate::protocol::removal::Cause;
use crate::protocol::table::Place;
use crate::sync::{Arc, StrongArc, Weak};
use crate::time::clock::Tick;

/// A load that waited for its turn longer than this share of its time gets the full time from its
/// start.
const SHORT: Tick = 16;

/// The right to replace one entry, and the obligation to end its flight.
pub struct ClaimGuard<K, V> {
    entries: Weak<Entries<K, V>>,
    entry: StrongArc<Entry<K, V>>,
    place: Place,
    token: ClaimToken,
    flight: StrongArc<Flight<K, V>>,
    /// When a dropped claim may be taken again.
    rests_until: Tick,
    ended: bool,
}

/// Tells whether the result of a claim is still needed.
pub struct Interest<K, V> {
    entries: Weak<Entries<K, V>>,
    entry: StrongArc<Entry<K, V>>,
    flight: StrongArc<Flight<K, V>>,
}

impl<K, V> Interest<K, V> {
    /// Whether the claim is held and within its deadline, and the cache still exists.
    pub fn is_live(&self, now: Tick) -> bool {
        let token = self.flight.token();
        // While the claim is being renewed, the flight has the later token already.
        let holds = |current: ClaimToken| !current.is_after(token);
        now < token.deadline()
            && self.entries.strong_count() > 0
            && self.entry.claim_word.current().is_some_and(holds)
    }

    /// Whether the entry is claimed no more, because the claimant has published or given up.
    pub fn has_ended(&self) -> bool {
        self.entry.claim_word.current().is_none()
    }
}

/// Ends a claim at its deadline, while its load goes on.
pub struct Expiry<K, V> {
    entry: StrongArc<Entry<K, V>>,
    token: ClaimToken,
    flight: StrongArc<Flight<K, V>>,
}

impl<K, V> Expiry<K, V> {
    pub fn deadline(&self) -> Tick {
        self.token.deadline()
    }

    /// Consecutive failures before this attempt.
    pub fn failures(&self) -> u32 {
        failures_before(self.token)
    }

    pub fn flight(&self) -> &StrongArc<Flight<K, V>> {
        &self.flight
    }

    /// Delivers the time-out, then gives the claim up until then, as after a failure. Changes
    /// nothing if another caller took over or a result came first.
    pub fn expire(&self, error: Error, until: Tick) {
        self.flight.decide(Outcome::Failed(error));
        self.entry.claim_word.cool(self.token, until);
        self.flight.wake_waiters();
    }
}

/// An answer of a loader without a value.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The key has no value. This is a result, even if it comes late.
    NotFound,
    /// No answer: the attempt failed.
    Failed,
}

/// The outcome for a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Published {
    /// It is in the table.
    Yes,
    /// Discarded: the entry was invalidated, overwritten or evicted meanwhile.
    Overtaken,
    /// Discarded: it came after the deadline, and another result of the same entry was first.
    TakenOver,
    /// Given to the waiters, but not kept, because there was no room.
    NotKept,
}

impl<K, V> ClaimGuard<K, V> {
    pub fn new(
        entries: &Arc<Entries<K, V>>,
        entry: StrongArc<Entry<K, V>>,
        place: Place,
        token: ClaimToken,
        flight: StrongArc<Flight<K, V>>,
        now: Tick,
    ) -> Self {
        ClaimGuard {
            entries: Arc::downgrade(entries),
            entry,
            place,
            token,
            // A later flight belongs to a claimant that has already taken over, so this guard must
            // not end it.
            flight: match flight.token() == token {
                true => flight,
                false => Flight::start(token),
            },
            rests_until: now.saturating_add(entries.timing.rest_for),
            ended: false,
        }
    }

    /// The claimed entry: the previous value, or the placeholder of a load.
    pub fn entry(&self) -> &StrongArc<Entry<K, V>> {
        &self.entry
    }

    pub fn flight(&self) -> &StrongArc<Flight<K, V>> {
        &self.flight
    }

    /// The place of the entry.
    pub fn place(&self) -> Place {
        self.place
    }

    /// A handle that tells, without holding the claim, whether its result is still needed.
    pub fn interest(&self) -> Interest<K, V> {
        Interest {
            entries: self.entries.clone(),
            entry: self.entry.clone(),
            flight: self.flight.clone(),
        }
    }

    /// Ends this claim at its deadline, unless the guard ended it before.
    pub fn expiry(&self) -> Expiry<K, V> {
        Expiry {
            entry: self.entry.clone(),
            token: self.token,
            flight: self.flight.clone(),
        }
    }

    /// The load starts: renews the claim if the load waited so long for its turn that its time
    /// would be short. False if the result is no longer needed, or if the deadline has passed.
    pub fn start(&mut self, now: Tick) -> bool {
        let Some(entries) = self.entries.upgrade() else {
            return false;
        };
        let deadline = self.token.deadline();
        if now >= deadline || self.entry.claim_word.current() != Some(self.token) {
            return false;
        }
        let claim_for = entries.timing.claim_for;
        if deadline - now > claim_for - claim_for / SHORT {
            return true;
        }
        let Some(renewed) = self.token.renewed(now, claim_for) else {
            return true;
        };
        // The flight first: see `ClaimWord::renew`. After a takeover the flight is not in the
        // entry.
        self.flight.renew(renewed);
        let held = self.entry.claim_word.renew(self.token, renewed);
        if held {
            self.token = renewed;
        }
        held
    }

    /// When the attempt began; `None` without the cache.
    pub fn began(&self) -> Option<Tick>
    where
        K: Eq,
    {
        let entries = self.entries.upgrade()?;
        Some(entries.claimed_at(self.token))
    }

    /// Consecutive failures before this attempt.
    pub fn failures(&self) -> u32 {
        failures_before(self.token)
    }

    /// Whether a result would still be used: no claimant took over and the cache still exists.
    pub fn is_wanted(&self) -> bool {
        self.entries.strong_count() > 0 && self.entry.claim_word.current() == Some(self.token)
    }

    /// Whether this answer may still end the entry, as far as this thread can see now.
    pub fn is_effective(&self, answer: Answer) -> bool {
        let may_end = match answer {
            Answer::NotFound => self.entry.claim_word.state() != ClaimState::Spent,
            Answer::Failed => {
                self.entry.claim_word.current() == Some(self.token) || self.cooled().is_some()
            }
        };
        may_end
            && (self.entries.upgrade())
                .is_some_and(|entries| entries.table.holds(self.place, &self.entry))
    }

    /// The rest of a placeholder whose load, this one, passed its deadline: its end, and the number
    /// of failures in a row. `None` once another caller has taken over.
    pub fn rest_of_placeholder(&self) -> Option<(Tick, u32)> {
        self.cooled().map(Cooled::rest)
    }

    fn cooled(&self) -> Option<Cooled> {
        let cooled = self.entry.claim_word.cooled()?;
        // After a later claim the entry has a later flight, and that claim's end left the word.
        let flight = self.entries.upgrade()?.last_flight(&self.entry)?;
        (self.entry.is_loading() && flight.token() == self.token).then_some(cooled)
    }

    /// Replaces the claimed entry by `new`, if this is the first result of the entry and the entry
    /// is still in its place.
    ///
    /// The waiters of this flight get `new` in any case, because they asked before any write that
    /// overtook it. The waiters of a later claim of the entry get it if it is published.
    pub fn publish(mut self, new: StrongArc<Entry<K, V>>, made: Made, now: Tick) -> Published
    where
        K: Clone,
    {
        let Some(entries) = self.entries.upgrade() else {
            self.end(Outcome::Published(new, made));
            return Published::Overtaken;
        };
        // Dropped last, because that runs the user's code.
        let mut drop_later = DropLater::new();
        let permit = entries.admit_successor(self.place, &self.entry, &new, now, &mut drop_later);
        // Before spending, because the clone of a key may panic.
        let tombstone = permit.is_none().then(|| self.tombstone()).flatten();
        let epoch = self.entry.claim_word.end_epoch(self.token);
        if epoch == EpochEnd::Ended {
            drop(permit);
            self.end(Outcome::Published(new, made));
            entries.removals.deliver();
            return Published::TakenOver;
        }
        let published = match permit {
            Some(permit) => self.replace(&entries, permit, &new),
            None => {
                // The new value does not fit, but the old value must not stay either.
                self.remove_claimed(&entries, tombstone, Cause::Size);
                match entries.limit.allows(new.weight()) {
                    // Without a permit, because the old entry had left the table.
                    true => Published::Overtaken,
                    false => Published::NotKept,
                }
            }
        };
        let made = match epoch {
            EpochEnd::Late => Made::Earlier,
            EpochEnd::InTime | EpochEnd::Ended => made,
        };
        let outcome = Outcome::Published(new, made);
        // A later claimant of an entry that has left ends its flight by itself.
        let late =
            (epoch == EpochEnd::Late && published != Published::Overtaken).then(|| outcome.clone());
        self.end(outcome);
        self.close(&entries, late);
        entries.removals.deliver();
        published
    }

    /// From here on waiters read the table again, and the old entry no longer refers to the new
    /// one. After a late end, the waiters of a later claim get the outcome.
    fn close(&self, entries: &Entries<K, V>, late: Option<Outcome<K, V>>) {
        let last = self
            .entry
            .flight
            .swap(Some(entries.closed.clone()), &entries.flights);
        if let (Some(last), Some(outcome)) = (last, late) {
            if !last.is_closed() {
                last.deliver(outcome);
            }
        }
    }

    fn replace(
        &self,
        entries: &Entries<K, V>,
        permit: Permit<'_>,
        new: &StrongArc<Entry<K, V>>,
    ) -> Published {
        if !entries.replace(self.place, &self.entry, new, permit) {
            return Published::Overtaken;
        }
        if self.entry.is_loading() {
            entries.enqueue(self.place, new);
        }
        // The slot may have been on its way out of the table.
        match entries.table.holds(self.place, new) {
            true => Published::Yes,
            false => Published::Overtaken,
        }
    }

    /// Ends the attempt with an error. A resident value cools until `until`; a placeholder is
    /// removed.
    pub fn fail(mut self, error: Error, until: Tick) {
        self.give_up(Outcome::Failed(error), until, true);
    }

    /// Ends an attempt that found no value, or that failed without an old value, and removes the
    /// entry. A load that failed after its deadline removes its placeholder while that cools.
    ///
    /// `commit` gets true if this call removed exactly the claimed entry, so that nothing happened
    /// to its key since the claim. It runs before any waiter is released, so a waiter that gets the
    /// error and reads again finds what `commit` recorded.
    pub fn remove(mut self, error: Error, answer: Answer, commit: impl FnOnce(bool))
    where
        K: Clone,
    {
        let tombstone = self.tombstone();
        let epoch = match answer {
            Answer::NotFound => self.entry.claim_word.end_epoch(self.token),
            Answer::Failed => self.spend_failed(),
        };
        let entries = self.entries.upgrade();
        let removed = epoch != EpochEnd::Ended
            && (entries.as_ref())
                .is_some_and(|entries| self.remove_claimed(entries, tombstone, Cause::Invalidated));
        commit(removed);
        let outcome = match epoch {
            EpochEnd::Late => Outcome::Earlier(error),
            EpochEnd::InTime | EpochEnd::Ended => Outcome::Failed(error),
        };
        let late = (epoch == EpochEnd::Late && removed).then(|| outcome.clone());
        self.end(outcome);
        if let Some(entries) = entries {
            if epoch == EpochEnd::Late {
                self.close(&entries, late);
            }
            entries.removals.deliver();
        }
    }

    fn spend_failed(&self) -> EpochEnd {
        let word = &self.entry.claim_word;
        if word.spend(self.token) {
            return EpochEnd::InTime;
        }
        match self
            .cooled()
            .is_some_and(|cooled| word.spend_cooled(cooled))
        {
            true => EpochEnd::Late,
            false => EpochEnd::Ended,
        }
    }

    /// The tombstone that replaces a claimed value while that is removed. A reader that meets it
    /// waits for the end of this attempt.
    fn tombstone(&mut self) -> Option<StrongArc<Entry<K, V>>>
    where
        K: Clone,
    {
        if self.flight.has_ended() {
            // It ended with a time-out, which is no answer for that reader.
            self.flight = Flight::start(self.token);
        }
        let value = (!self.entry.is_loading()).then_some(&self.entry)?;
        Some(StrongArc::new(Entry::tombstone(
            value.key.clone(),
            self.flight.clone(),
        )))
    }

    /// Removes exactly the claimed entry; false if it was no longer resident.
    fn remove_claimed(
        &self,
        entries: &Entries<K, V>,
        tombstone: Option<StrongArc<Entry<K, V>>>,
        cause: Cause,
    ) -> bool {
        match tombstone {
            Some(tombstone) => {
                entries.remove_through_tombstone(self.place, &self.entry, tombstone, cause)
            }
            // No other thread replaces a placeholder.
            None => (entries.remove_entry(self.place, &self.entry, cause)).is_some(),
        }
    }

    /// Ends an attempt that was not made; not counted as a failure.
    pub fn rest(mut self, error: Error, until: Tick) {
        self.give_up(Outcome::Failed(error), until, false);
    }

    /// Ends an attempt that was dropped before it was over; counted as a failure.
    pub fn cancel(mut self, until: Tick) {
        self.give_up(Outcome::Failed(Error::cancelled()), until, true);
    }

    /// Gives up the claim of an entry that is no longer resident.
    pub fn abandon(mut self) {
        self.give_up(Outcome::Superseded, self.rests_until, false);
    }

    fn give_up(&mut self, outcome: Outcome<K, V>, until: Tick, failed: bool) {
        if self.entry.is_loading() && self.entry.claim_word.spend(self.token) {
            if let Some(entries) = self.entries.upgrade() {
                entries.remove_entry(self.place, &self.entry, Cause::Invalidated);
            }
            self.end(outcome);
            return;
        }
        self.ended = true;
        self.flight.decide(outcome);
        match failed {
            true => self.entry.claim_word.cool(self.token, until),
            false => self.entry.claim_word.rest(self.token, until),
        };
        self.flight.wake_waiters();
    }

    fn end(&mut self, outcome: Outcome<K, V>) {
        self.ended = true;
        self.flight.deliver(outcome);
    }
}

impl<K, V> Drop for ClaimGuard<K, V> {
    fn drop(&mut self) {
        if !self.ended {
            self.give_up(Outcome::Failed(Error::cancelled()), self.rests_until, true);
        }
    }
}
