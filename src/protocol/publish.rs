//! The end of a claim: publish, fail, rest, abandon, or give back by dropping it.
//!
//! A [`ClaimGuard`] always ends its flight, so every waiter is released whatever happens to the
//! claimant (P3, P5). Where the order of two steps matters:
//!
//! - *Publish* spends the claim before the successor becomes visible (P1), exchanges exactly the
//!   claimed entry (P4), delivers, and closes the flight last. So a waiter finds the outcome or the
//!   new entry.
//! - *Fail* and *rest* deliver before they give the claim up. So a reader that sees the entry
//!   cooling finds the error in its flight, and the next claimant finds a flight that has ended.
//! - A placeholder that failed is spent before it is removed, because it belongs to the new
//!   claimant after a takeover.
//! - A value that leaves without a successor is first replaced by a tombstone. Otherwise an
//!   `insert` that overwrites it at that moment would be removed with it (P4).

use crate::error::Error;
use crate::protocol::claim::{ClaimToken, failures_before};
use crate::protocol::drop_later::DropLater;
use crate::protocol::entries::Entries;
use crate::protocol::entry::Entry;
use crate::protocol::eviction::Permit;
use crate::protocol::flight::{Flight, Made, Outcome};
use crate::protocol::removal::Cause;
use crate::protocol::table::Place;
use crate::sync::{Arc, Weak};
use crate::time::clock::Tick;

/// The right to replace one entry, and the obligation to end its flight.
pub struct ClaimGuard<K, V> {
    entries: Weak<Entries<K, V>>,
    entry: Arc<Entry<K, V>>,
    place: Place,
    token: ClaimToken,
    flight: Arc<Flight<K, V>>,
    /// When a dropped claim may be taken again.
    rests_until: Tick,
    ended: bool,
}

/// Tells whether the result of a claim is still needed.
pub struct Interest<K, V> {
    entries: Weak<Entries<K, V>>,
    entry: Arc<Entry<K, V>>,
    token: ClaimToken,
}

impl<K, V> Interest<K, V> {
    /// Whether the claim is held and within its deadline, and the cache still exists.
    pub fn is_live(&self, now: Tick) -> bool {
        now < self.token.deadline()
            && self.entries.strong_count() > 0
            && self.entry.claim_word.current() == Some(self.token)
    }

    /// Whether the entry is claimed no more, because the claimant has published or given up.
    pub fn has_ended(&self) -> bool {
        self.entry.claim_word.current().is_none()
    }
}

/// The outcome for a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Published {
    /// It is in the table.
    Yes,
    /// Discarded: the entry was invalidated, overwritten or evicted meanwhile.
    Overtaken,
    /// Discarded: another claimant took over after the deadline.
    TakenOver,
    /// Given to the waiters, but not kept, because there was no room.
    NotKept,
}

impl<K, V> ClaimGuard<K, V> {
    pub fn new(
        entries: &Arc<Entries<K, V>>,
        entry: Arc<Entry<K, V>>,
        place: Place,
        token: ClaimToken,
        flight: Arc<Flight<K, V>>,
        now: Tick,
    ) -> Self {
        ClaimGuard {
            entries: Arc::downgrade(entries),
            entry,
            place,
            token,
            // A later flight belongs to a claimant that has already taken over, so this guard must
            // not end it.
            flight: match flight.token == token {
                true => flight,
                false => Arc::new(Flight::new(token)),
            },
            rests_until: now.saturating_add(entries.timing.rest_for),
            ended: false,
        }
    }

    /// The claimed entry: the previous value, or the placeholder of a load.
    pub fn entry(&self) -> &Arc<Entry<K, V>> {
        &self.entry
    }

    pub fn flight(&self) -> &Arc<Flight<K, V>> {
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
            token: self.token,
        }
    }

    /// Consecutive failures before this attempt.
    pub fn failures(&self) -> u32 {
        failures_before(self.token)
    }

    /// Whether a result would still be used: no claimant took over and the cache still exists.
    pub fn is_wanted(&self) -> bool {
        self.entries.strong_count() > 0 && self.entry.claim_word.current() == Some(self.token)
    }

    /// Whether this claim may still replace the entry, as far as this thread can see now.
    pub fn is_effective(&self) -> bool {
        self.entry.claim_word.current() == Some(self.token)
            && (self.entries.upgrade())
                .is_some_and(|entries| entries.table.holds(self.place, &self.entry))
    }

    /// Replaces the claimed entry by `new`, if this claim may still replace it.
    ///
    /// The waiters of this flight get `new` in any case, because they asked before any write that
    /// overtook it.
    pub fn publish(mut self, new: Arc<Entry<K, V>>, made: Made, now: Tick) -> Published
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
        if !self.entry.claim_word.spend(self.token) {
            drop(permit);
            self.end(Outcome::Published(new, made));
            entries.removals.deliver();
            return Published::TakenOver;
        }
        let published = match permit {
            Some(permit) => self.replace(&entries, permit, &new, &mut drop_later),
            None => {
                // The new value does not fit, but the old value must not stay either.
                self.remove_claimed(&entries, tombstone, Cause::Size);
                match entries.limit.allows(new.weight) {
                    // Without a permit, because the old entry had left the table.
                    true => Published::Overtaken,
                    false => Published::NotKept,
                }
            }
        };
        self.end(Outcome::Published(new, made));
        // From here on waiters read the table again, and the old entry no longer refers to the new
        // one.
        self.entry.flight.swap(Some(entries.closed.clone()));
        entries.removals.deliver();
        published
    }

    fn replace(
        &self,
        entries: &Entries<K, V>,
        permit: Permit<'_>,
        new: &Arc<Entry<K, V>>,
        drop_later: &mut DropLater<Entry<K, V>>,
    ) -> Published {
        if !entries.replace(self.place, &self.entry, new, permit, drop_later) {
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
    /// entry.
    ///
    /// `commit` gets true if this call removed exactly the claimed entry, so that nothing happened
    /// to its key since the claim. It runs before any waiter is released, so a waiter that gets the
    /// error and reads again finds what `commit` recorded.
    pub fn remove(mut self, error: Error, commit: impl FnOnce(bool))
    where
        K: Clone,
    {
        let tombstone = self.tombstone();
        let removed = self.entry.claim_word.spend(self.token)
            && (self.entries.upgrade()).is_some_and(|entries| {
                self.remove_claimed(&entries, tombstone, Cause::Invalidated)
            });
        commit(removed);
        self.end(Outcome::Failed(error));
        if let Some(entries) = self.entries.upgrade() {
            entries.removals.deliver();
        }
    }

    /// The tombstone that replaces a claimed value while that is removed. A reader that meets it
    /// waits for the end of this attempt.
    fn tombstone(&self) -> Option<Arc<Entry<K, V>>>
    where
        K: Clone,
    {
        let value = (!self.entry.is_loading()).then_some(&self.entry)?;
        Some(Arc::new(Entry::tombstone(
            value.key.clone(),
            self.flight.clone(),
        )))
    }

    /// Removes exactly the claimed entry; false if it was no longer resident.
    fn remove_claimed(
        &self,
        entries: &Entries<K, V>,
        tombstone: Option<Arc<Entry<K, V>>>,
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
        self.end(outcome);
        match failed {
            true => self.entry.claim_word.cool(self.token, until),
            false => self.entry.claim_word.rest(self.token, until),
        };
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
