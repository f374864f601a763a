//! The claim: the right to refresh one entry, as one word inside that entry.
//!
//! ```text
//!            try_claim                     try_claim (deadline passed: takeover)
//!   Idle ─────────────▶ Claimed{deadline} ───┐
//!                        │  ▲   ▲     ▲──────┘
//!             rest, cool │  │   │
//!                        ▼  │   │
//!   Cooling{until} ─────────┘   │ spend
//!        try_claim (until past) ▼
//!                             Spent
//! ```
//!
//! Invariants, and the promise each serves:
//!
//! 1. Only a successful `try_claim` yields a [`ClaimToken`]. Each claim of one entry has a deadline
//!    strictly later than every earlier claim, so no two tokens are equal (P1, P5).
//! 2. `spend`, `cool` and `rest` succeed only while the word is exactly the caller's claim. After a
//!    takeover the old claimant can change nothing (P5).
//! 3. `Spent` is final. The claimant sets it *before* the successor becomes visible. A straggler
//!    that still holds the old entry can therefore never claim it, however late the straggler is
//!    (P1).
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

    fn failures(self) -> u64 {
        failures(self.0)
    }
}

/// The claim word of one entry.
pub struct ClaimWord(AtomicU64);

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
    /// claimant has given it up.
    ///
    /// That claimant has delivered the failure to its waiters and is about to give the claim up.
    /// Its exchange then fails as after a takeover, and changes nothing.
    pub fn force_claim(
        &self,
        now: Tick,
        timeout: Tick,
        last: impl FnOnce() -> Option<ClaimToken>,
        has_failed: impl FnOnce(ClaimToken) -> bool,
    ) -> Option<ClaimToken> {
        let word = self.0.load(Ordering::Acquire);
        let failures = match state(word) {
            ClaimState::Idle | ClaimState::Cooling { .. } => failures(word),
            ClaimState::Claimed { deadline } if deadline <= now => failures(word),
            // Counted here, because the old claimant no longer can.
            ClaimState::Claimed { .. } if has_failed(ClaimToken(word)) => one_more(failures(word)),
            ClaimState::Claimed { .. } | ClaimState::Spent => return None,
        };
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

    /// `Claimed(mine) -> Spent`: the last step before the successor becomes visible.
    ///
    /// Returns false if another claimant took over. Then the caller must not publish.
    pub fn spend(&self, token: ClaimToken) -> bool {
        self.finish(token, pack(SPENT, 0, TIME_MASK))
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
