//! The phases of a cache, from open to closed, and the work that a close waits for.
//!
//! Work is loads, and *duties* to the store: leases that are held, results on their way, pending
//! writes. Phase and counts share one word. Races that this must survive:
//!
//! 1. A load starts while a close begins. Both change the word, so either the load is counted
//!    before the phase changes, and the close waits for it, or it is refused.
//! 2. The last work ends while a close begins to wait. The close listens before it looks at the
//!    word. Work that ends changes the word before it notifies.
//! 3. A load that a load of another cache waits for starts while the close finds nothing left. The
//!    phase becomes closed by one exchange, and only from no work. So the load is counted before
//!    it, or refused.
//! 4. The limit passes while a load is about to begin. The load is counted, so the close reports
//!    it as not ended; it looks at the phase before its loader runs.
//!
//! After a close has returned without a load left, no loader runs, and none starts.

use std::fmt;

use crate::sync::event::Event;
use crate::sync::{AtomicU64, Counter, OnceLock, Ordering};
use crate::time::clock::Tick;

/// The close has begun: only loads inside other loads start.
const CLOSING: u64 = 1 << 62;
/// Nothing starts.
const CLOSED: u64 = 1 << 63;
/// One load. There are at most some millions, because the queues are bounded.
const LOAD: u64 = 1;
const DUTY: u64 = 1 << 24;

/// Work that a close waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Work {
    Load,
    Duty,
}

impl Work {
    fn unit(self) -> u64 {
        match self {
            Work::Load => LOAD,
            Work::Duty => DUTY,
        }
    }
}

/// What a close did not finish within its limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Left {
    /// Loads that have not ended. Their leases were given back, so other processes load these keys
    /// at once.
    pub loads: u64,
    /// Results of loads that the store did not take.
    pub results: u64,
    /// Writes that the store does not know. It still has the older values.
    pub writes: u64,
    /// Leases that could not be given back. They end by themselves.
    pub leases: u64,
}

pub struct Lifecycle {
    word: AtomicU64,
    /// Notified when work ends after the close has begun.
    ended: Event,
    /// Notified when the phase becomes closed.
    closed: Event,
    /// When the limit of the close passes.
    limit: OnceLock<Tick>,
    lost: Lost,
    /// The outcome of the close.
    left: OnceLock<Left>,
}

/// The losses after the close had begun.
#[derive(Default)]
pub struct Lost {
    pub results: Counter,
    pub leases: Counter,
    pub writes: Counter,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Lifecycle {
            word: AtomicU64::new(0),
            ended: Event::new(),
            closed: Event::new(),
            limit: OnceLock::new(),
            lost: Lost::default(),
            left: OnceLock::new(),
        }
    }
}

impl Lifecycle {
    /// Counts work that starts; false if the phase refuses it. `is_inside` says whether the work
    /// belongs to a load that runs on this thread.
    #[must_use]
    pub fn start(&self, work: Work, is_inside: impl Fn() -> bool) -> bool {
        let mut word = self.word();
        // Work that is refused is not even counted for a moment, because the close reports the
        // count.
        while word < CLOSING || (word < CLOSED && is_inside()) {
            let counted = word + work.unit();
            // AcqRel, as everywhere here: of a change of the phase and a start, the later one sees
            // everything from before the other.
            match (self.word).compare_exchange(word, counted, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return true,
                Err(present) => word = present,
            }
        }
        false
    }

    /// Counts work that is a part of other work, which is counted.
    pub fn start_part(&self, work: Work) {
        self.word.fetch_add(work.unit(), Ordering::AcqRel);
    }

    /// The work has ended.
    pub fn end(&self, work: Work) {
        let before = self.word.fetch_sub(work.unit(), Ordering::AcqRel);
        if before >= CLOSING {
            self.ended.notify_all();
        }
    }

    #[inline]
    fn word(&self) -> u64 {
        self.word.load(Ordering::Acquire)
    }

    pub fn is_open(&self) -> bool {
        self.word() < CLOSING
    }

    pub fn is_closed(&self) -> bool {
        self.word() >= CLOSED
    }

    /// Whether a load would be refused now.
    pub fn refuses(&self, is_inside: impl FnOnce() -> bool) -> bool {
        let word = self.word();
        word >= CLOSED || (word >= CLOSING && !is_inside())
    }

    /// From now on only loads inside other loads start. Returns the limit of the close, which the
    /// first call sets.
    pub fn begin_close(&self, limit: impl FnOnce() -> Tick) -> Tick {
        self.word.fetch_or(CLOSING, Ordering::AcqRel);
        *self.limit.get_or_init(limit)
    }

    /// Closes if no work is left; returns whether the phase is closed.
    pub fn close_if_idle(&self) -> bool {
        let closes = (self.word)
            .compare_exchange(
                CLOSING,
                CLOSING | CLOSED,
                Ordering::AcqRel,
                Ordering::Acquire,
            )
            .is_ok();
        if closes {
            self.closed.notify_all();
        }
        closes || self.is_closed()
    }

    /// Closes, whatever is left.
    pub fn close(&self) {
        let before = self.word.fetch_or(CLOSING | CLOSED, Ordering::AcqRel);
        if before < CLOSED {
            self.closed.notify_all();
        }
    }

    /// Waits until the phase is closed.
    pub async fn closed(&self) {
        loop {
            let closed = self.closed.listen();
            if self.is_closed() {
                return;
            }
            closed.await;
        }
    }

    /// Waits until `is_over` holds, which is asked again each time when work has ended.
    pub async fn until(&self, is_over: impl Fn(&Self) -> bool) {
        loop {
            let ended = self.ended.listen();
            if is_over(self) {
                return;
            }
            ended.await;
        }
    }

    pub fn loads(&self) -> u64 {
        self.word() & (DUTY - 1)
    }

    pub fn duties(&self) -> u64 {
        (self.word() & (CLOSING - 1)) / DUTY
    }

    /// Counts a loss, if the close has begun.
    pub fn lose(&self, kind: impl FnOnce(&Lost) -> &Counter) {
        if !self.is_open() {
            kind(&self.lost).fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The work that is left now, with so many pending writes. The first call decides.
    pub fn outcome(&self, pending: u64) -> Left {
        let lost = |count: &Counter| count.load(Ordering::Relaxed);
        *self.left.get_or_init(|| Left {
            loads: self.loads(),
            results: lost(&self.lost.results),
            writes: lost(&self.lost.writes) + pending,
            leases: lost(&self.lost.leases) + self.duties().saturating_sub(pending),
        })
    }
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Left {
            loads,
            results,
            writes,
            leases,
        } = self;
        write!(
            f,
            "{loads} loads did not end, {results} results and {writes} writes did not reach the \
             store, {leases} leases were not given back"
        )
    }
}
