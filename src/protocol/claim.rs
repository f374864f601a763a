//! The claim: the right to refresh one entry, as one word inside that entry.
//!
//! ```text
//!            try_claim                     try_claim (deadline passed: takeover)
//!   Idle ─────────────▶ Claimed{deadline} ───┐ renew (its load starts)
//!                        │  ▲   │     ▲──────┘
//!             rest, cool │  │   │
//!                        ▼  │   │
//!   Cooling{until} ─────────┘   │ spend, end_epoch
//!        │ try_claim            ▼
//!        └──────────────────▶ Spent
//!          end_epoch (a late result), spend_cooled (a late failure)
//! ```
//!
//! A load that is past its deadline goes on, but its claim has ended: `cool` at the deadline, or a
//! takeover. Its result may still come. The first result of any claim of the entry ends the epoch.
//!
//! Invariants, and the promise each serves:
//!
//! 1. Only a successful `try_claim` yields a [`ClaimToken`]. Each claim of one entry has a deadline
//!    strictly later than every earlier claim, so no two tokens are equal (P1, P5).
//! 2. `spend`, `cool`, `rest` and `renew` succeed only while the word is exactly the caller's
//!    claim. So a late failure changes nothing for a later claimant (P5).
//! 3. `Spent` is final, and one caller sets it: the first with a result, in time or late. It does
//!    so *before* the successor becomes visible. So at most one result of an entry is published,
//!    and a straggler that still holds the old entry can never claim it, however late it is (P1).
//! 4. Every transition is one compare-and-swap without a loop: no thread waits for a claimant (P2).

use crate::sync::{AtomicU64, Ordering};
use crate::time::clock::Tick;

/// The bits of a claim word: two bits of state, six bits of consecutive failures, and a time in
/// units of 64 ns.
///
/// Six bits count to 63, so a rest that starts at one nanosecond and doubles reaches every length.
/// 56 bits of 64 ns are 146 years. Clocks end before year 110 and a claim lasts at most 36 years,
/// so no time overflows and a later deadline always exists.
const STATE_SHIFT: u32 = 62;
const FAILURES_SHIFT: u32 = 56;
const FAILURES_MAX: u64 = 0x3f;
const TIME_MASK: u64 = (1 << FAILURES_SHIFT) - 1;
const UNIT_SHIFT: u32 = 6;

const IDLE: u64 = 0;
const CLAIMED: u64 = 1;
const COOLING: u64 = 2;
const SPENT: u64 = 3;

/// The state that a claim word encodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimState {
    /// The entry is not claimed.
    Idle,
    /// A claimant holds the claim until the deadline. After the deadline any caller may take over.
    Claimed { deadline: Tick },
    /// An attempt ended without a successor. The next attempt may start at `until`.
    Cooling { until: Tick, failures: u32 },
    /// This entry has, or is about to have, a successor.
    Spent,
}

impl ClaimState {
    /// Whether a reader could claim the entry now.
    #[inline(always)]
    pub fn is_free(self, now: Tick) -> bool {
        match self {
            ClaimState::Idle => true,
            ClaimState::Claimed { deadline } => deadline <= now,
            ClaimState::Cooling { until, .. } => until <= now,
            ClaimState::Spent => false,
        }
    }
}

/// One particular claim of one entry: the claim word as the claimant wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClaimToken(u64);

impl ClaimToken {
    /// A token later than every real one.
    pub const NEVER: ClaimToken = ClaimToken(u64::MAX);

    pub fn deadline(self) -> Tick {
        time(self.0)
    }

    /// Whether this claim of an entry came after `other`, a claim of the same entry.
    pub fn is_after(self, other: ClaimToken) -> bool {
        self.0 & TIME_MASK > other.0 & TIME_MASK
    }

    /// This claim with the deadline `timeout` after `now`; `None` if that is not later.
    ///
    /// Also `None` in the last 64 ns before the deadline. So a renewed token stays before every
    /// token of a takeover, whose time is the deadline or later.
    pub fn renewed(self, now: Tick, timeout: Tick) -> Option<ClaimToken> {
        let renewed = pack(CLAIMED, self.failures(), units(now.saturating_add(timeout)));
        let in_time = now.saturating_add(1 << UNIT_SHIFT) < self.deadline();
        let renewed = ClaimToken(renewed);
        (in_time && renewed.is_after(self)).then_some(renewed)
    }

    fn failures(self) -> u64 {
        failures(self.0)
    }
}

/// A token that its claimant may renew.
pub struct TokenCell(AtomicU64);

impl TokenCell {
    pub fn new(token: ClaimToken) -> Self {
        TokenCell(AtomicU64::new(token.0))
    }

    /// Acquire pairs with `set`.
    pub fn get(&self) -> ClaimToken {
        ClaimToken(self.0.load(Ordering::Acquire))
    }

    /// Only the claimant sets it. Release: see [`ClaimWord::renew`].
    pub fn set(&self, token: ClaimToken) {
        self.0.store(token.0, Ordering::Release);
    }
}

/// The claim word of one entry.
pub struct ClaimWord(AtomicU64);

/// How a result found the claim word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EpochEnd {
    /// Claimed by the claimant that has the result.
    InTime,
    /// Cooling, or claimed by a later claimant. This result is the first nevertheless.
    Late,
    /// Spent: another result was first, or the entry has left.
    Ended,
}

impl ClaimWord {
    pub fn idle() -> Self {
        ClaimWord(AtomicU64::new(pack(IDLE, 0, 0)))
    }

    /// A word that starts as claimed, for the placeholder of a load.
    pub fn claimed(now: Tick, timeout: Tick, failures: u32) -> (Self, ClaimToken) {
        let failures = u64::from(failures).min(FAILURES_MAX);
        let word = pack(CLAIMED, failures, units(now.saturating_add(timeout)));
        (ClaimWord(AtomicU64::new(word)), ClaimToken(word))
    }

    /// A word that no caller can claim.
    pub fn spent() -> Self {
        ClaimWord(AtomicU64::new(pack(SPENT, 0, TIME_MASK)))
    }

    /// Acquire: a reader that sees `Spent` or `Cooling` also sees what the claimant wrote before
    /// it, above all the outcome of the flight.
    #[inline(always)]
    pub fn state(&self) -> ClaimState {
        state(self.0.load(Ordering::Acquire))
    }

    /// The token of the current claim, if the entry is claimed.
    pub fn current(&self) -> Option<ClaimToken> {
        let word = self.0.load(Ordering::Acquire);
        (word >> STATE_SHIFT == CLAIMED).then_some(ClaimToken(word))
    }

    /// Claims the entry if it is free, or if the claimant is past its deadline.
    ///
    /// One compare-and-swap, no loop: a caller that loses it was beaten by another claimant. `last`
    /// returns the latest claim so far, because a cooling word no longer contains it. `last` runs
    /// only after the word was read.
    pub fn try_claim(
        &self,
        now: Tick,
        timeout: Tick,
        last: impl FnOnce() -> Option<ClaimToken>,
    ) -> Option<ClaimToken> {
        // Acquire, as in `state`: a takeover reads the flight of the claim that it takes over.
        let word = self.0.load(Ordering::Acquire);
        match state(word).is_free(now) {
            true => self.exchange_for_claim(word, failures(word), now, timeout, last),
            false => None,
        }
    }

    /// Like [`try_claim`](Self::try_claim), for an explicit refresh. It claims a cooling entry
    /// before the rest is over. It also takes over a claim whose attempt `has_failed` before the
    /// claimant has given it up. Only if it `is_due`, which runs after the word was read: an
    /// attempt that ends after `is_due` has looked changes the word, so this claim fails.
    ///
    /// That claimant has delivered the failure to its waiters and is about to give the claim up.
    /// Its exchange then fails as after a takeover, and changes nothing.
    pub fn force_claim(
        &self,
        now: Tick,
        timeout: Tick,
        last: impl FnOnce() -> Option<ClaimToken>,
        has_failed: impl FnOnce(ClaimToken) -> bool,
        is_due: impl FnOnce() -> bool,
    ) -> Option<ClaimToken> {
        let word = self.0.load(Ordering::Acquire);
        let failures = match state(word) {
            ClaimState::Idle | ClaimState::Cooling { .. } => failures(word),
            ClaimState::Claimed { deadline } if deadline <= now => failures(word),
            // Counted here, because the old claimant no longer can.
            ClaimState::Claimed { .. } if has_failed(ClaimToken(word)) => one_more(failures(word)),
            ClaimState::Claimed { .. } | ClaimState::Spent => return None,
        };
        if !is_due() {
            return None;
        }
        self.exchange_for_claim(word, failures, now, timeout, last)
    }

    fn exchange_for_claim(
        &self,
        word: u64,
        failures: u64,
        now: Tick,
        timeout: Tick,
        last: impl FnOnce() -> Option<ClaimToken>,
    ) -> Option<ClaimToken> {
        let before = match word >> STATE_SHIFT {
            CLAIMED => word & TIME_MASK,
            // The rest may end before the deadline of the claim that failed.
            COOLING => last().map_or(0, |token| token.0 & TIME_MASK),
            _ => 0,
        };
        // Strictly later than every earlier claim (invariant 1), even if the clock stands still.
        let deadline = units(now.saturating_add(timeout)).max(before + 1);
        let claimed = pack(CLAIMED, failures, deadline);
        // AcqRel. Acquire: what the previous claimant wrote is visible. This thread releases
        // nothing of its own yet, but its exchange keeps the release sequence alive for readers of
        // the word.
        self.0
            .compare_exchange(word, claimed, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
            .then_some(ClaimToken(claimed))
    }

    /// Any state `-> Spent`: the last step of a result before the successor becomes visible.
    ///
    /// One exchange decides between all results of this entry. If it found the word spent already,
    /// the caller must not publish.
    pub fn end_epoch(&self, token: ClaimToken) -> EpochEnd {
        // AcqRel. Release as in `finish`. Acquire: a late result sees what the later claimant wrote
        // before its claim.
        let word = self.0.swap(pack(SPENT, 0, TIME_MASK), Ordering::AcqRel);
        match state(word) {
            ClaimState::Spent => EpochEnd::Ended,
            _ if word == token.0 => EpochEnd::InTime,
            _ => EpochEnd::Late,
        }
    }

    /// `Claimed(mine) -> Spent` without a result, before a placeholder is removed.
    ///
    /// Returns false if another claimant took over, or a late result was first.
    pub fn spend(&self, token: ClaimToken) -> bool {
        self.finish(token, pack(SPENT, 0, TIME_MASK))
    }

    /// `Cooling -> Spent` without a result, before the placeholder of a load that failed after its
    /// deadline is removed. `cooled` is the state that the end of its own claim left.
    pub fn spend_cooled(&self, cooled: Cooled) -> bool {
        self.finish(ClaimToken(cooled.0), pack(SPENT, 0, TIME_MASK))
    }

    /// The word, if it is cooling.
    pub fn cooled(&self) -> Option<Cooled> {
        let word = self.0.load(Ordering::Acquire);
        (word >> STATE_SHIFT == COOLING).then_some(Cooled(word))
    }

    /// `Claimed(mine) -> Claimed(mine, later)`, when the load starts.
    ///
    /// The flight of the claim gets the later token first. So a caller that reads the new word
    /// finds a flight with this token, and does not take it for the flight of an earlier claim.
    pub fn renew(&self, token: ClaimToken, to: ClaimToken) -> bool {
        self.finish(token, to.0)
    }

    /// `Claimed(mine) -> Cooling` after a failure, which is counted.
    pub fn cool(&self, token: ClaimToken, until: Tick) -> bool {
        let failures = one_more(token.failures());
        self.finish(token, pack(COOLING, failures, units(until)))
    }

    /// `Claimed(mine) -> Cooling` without a failure: the attempt was shed, not tried.
    ///
    /// Rounds down, because a caller that comes at `until` must be able to try.
    pub fn rest(&self, token: ClaimToken, until: Tick) -> bool {
        self.finish(token, pack(COOLING, token.failures(), until >> UNIT_SHIFT))
    }

    fn finish(&self, token: ClaimToken, word: u64) -> bool {
        // Release: what the claimant wrote (the outcome that it delivered) is visible to every
        // thread that reads the new word. A failed exchange needs no edge, because its caller only
        // gives up.
        self.0
            .compare_exchange(token.0, word, Ordering::Release, Ordering::Relaxed)
            .is_ok()
    }
}

/// The word of a cooling entry.
#[derive(Clone, Copy)]
pub struct Cooled(u64);

impl Cooled {
    /// When the rest is over, and the number of failures in a row.
    pub fn rest(self) -> (Tick, u32) {
        (time(self.0), failures(self.0) as u32)
    }
}

/// The number of consecutive failures before the claim `token`.
pub fn failures_before(token: ClaimToken) -> u32 {
    token.failures() as u32
}

fn pack(state: u64, failures: u64, time: u64) -> u64 {
    state << STATE_SHIFT | failures << FAILURES_SHIFT | time.min(TIME_MASK)
}

#[inline(always)]
fn failures(word: u64) -> u64 {
    (word >> FAILURES_SHIFT) & FAILURES_MAX
}

fn one_more(failures: u64) -> u64 {
    (failures + 1).min(FAILURES_MAX)
}

/// Rounds up, so that a deadline is never early.
fn units(tick: Tick) -> u64 {
    tick.div_ceil(1 << UNIT_SHIFT)
}

#[inline]
fn time(word: u64) -> Tick {
    (word & TIME_MASK) << UNIT_SHIFT
}

#[inline(always)]
fn state(word: u64) -> ClaimState {
    match word >> STATE_SHIFT {
        IDLE => ClaimState::Idle,
        CLAIMED => ClaimState::Claimed {
            deadline: time(word),
        },
        COOLING => ClaimState::Cooling {
            until: time(word),
            failures: failures(word) as u32,
        },
        _ => ClaimState::Spent,
    }
}
