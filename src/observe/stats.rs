//! Counters that cost a hit one plain store to memory of its own thread.
//!
//! The counts of hits live in a block per thread, which only its thread writes. The counts of loads
//! are shared, because a load costs far more than a shared counter. A snapshot adds them up.

use crossbeam::utils::CachePadded;

use crate::observe::breaker_state::BreakerState;
use crate::observe::histogram::{Buckets, Histogram};
use crate::observe::reason::LoadReason;
use crate::protocol::entries::Condition;
use crate::protocol::publish::Published;
use crate::sync::per_thread::PerThread;
use crate::sync::{Counter, Mutex, Ordering, lock};
use crate::time::clock::Tick;

/// Hits that a reader counts by itself before it adds them to the counters.
const BATCH: u64 = 64;

#[derive(Default)]
pub(crate) struct Counters {
    local: PerThread<CachePadded<Local>>,
    /// Counts of threads whose thread-locals are already gone, in destructors.
    late: Local,
    coalesced: Counter,
    loads: Counter,
    batches: Counter,
    refreshes_stale: Counter,
    refreshes_early: Counter,
    published: Counter,
    failed: Counter,
    timed_out: Counter,
    late_published: Counter,
    late_discarded: Counter,
    dropped: Counter,
    shed_early: Counter,
    shed_stale: Counter,
    rejected: Counter,
    breaker_rejected: Counter,
    discarded_overtaken: Counter,
    discarded_taken_over: Counter,
    not_kept: Counter,
    replaced_workers: Counter,
    never_started: Counter,
    load_time: Buckets,
    /// The totals at the last `reset`, which snapshots subtract.
    baseline: Mutex<Stats>,
}

/// Written by one thread.
#[derive(Default)]
struct Local {
    fresh: Counter,
    early: Counter,
    misses: Counter,
    negative: Counter,
    stale_claimed: Counter,
    stale_age: Buckets,
}

/// Adds to a counter that no other thread writes: no locked instruction.
#[inline]
fn bump(counter: &Counter, by: u64) {
    counter.store(counter.load(Ordering::Relaxed) + by, Ordering::Relaxed);
}

/// Adds one to a counter that all threads write. Relaxed: a counter orders nothing.
fn add(counter: &Counter) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Counters {
    /// Adds to a counter of this thread's own.
    #[inline]
    fn count(&self, by: u64, which: impl Fn(&Local) -> &Counter) {
        match self.local.get() {
            Some(local) => bump(which(local), by),
            None => self.first_count(by, which),
        }
    }

    /// Out of line: a hit has no room on its stack for a block of counters.
    #[cold]
    #[inline(never)]
    fn first_count(&self, by: u64, which: impl Fn(&Local) -> &Counter) {
        match self.local.get_or_make() {
            Some(local) => bump(which(local), by),
            None => {
                which(&self.late).fetch_add(by, Ordering::Relaxed);
            }
        }
    }

    #[inline]
    pub(crate) fn fresh(&self, hits: u64) {
        self.count(hits, |local| &local.fresh);
    }

    /// Counts a hit of a reader, which adds many at a time.
    #[inline]
    pub(crate) fn hit_in_batch(&self, hits: &mut u64) {
        *hits += 1;
        if *hits == BATCH {
            self.fresh(std::mem::take(hits));
        }
    }

    /// Counts a hit on a value that was not simply fresh.
    #[inline(always)]
    pub(crate) fn served(&self, condition: Condition, stale_for: Tick) {
        self.count(1, |local| match condition {
            Condition::Fresh => &local.fresh,
            Condition::Early => &local.early,
            // The sum of the buckets is the number of stale hits.
            Condition::Stale | Condition::AfterFailure => local.stale_age.of(stale_for),
        });
    }

    /// Counts that the hit in this condition started, or waited for, a refresh.
    pub(crate) fn claimed(&self, condition: Condition) {
        if matches!(condition, Condition::Stale | Condition::AfterFailure) {
            self.count(1, |local| &local.stale_claimed);
        }
    }

    pub(crate) fn missed(&self) {
        self.count(1, |local| &local.misses);
    }

    /// Counts a read that was answered by a remembered error.
    pub(crate) fn negative(&self) {
        self.count(1, |local| &local.negative);
    }

    pub(crate) fn coalesced(&self) {
        add(&self.coalesced);
    }

    pub(crate) fn started(&self, reason: LoadReason) {
        add(match reason {
            LoadReason::Cold => &self.loads,
            LoadReason::Stale => &self.refreshes_stale,
            LoadReason::Early => &self.refreshes_early,
        });
    }

    /// Counts a call of a loader that takes many keys.
    pub(crate) fn batch(&self) {
        add(&self.batches);
    }

    pub(crate) fn took(&self, ticks: Tick) {
        add(self.load_time.of(ticks));
    }

    pub(crate) fn published(&self, published: Published) {
        add(match published {
            Published::Yes => &self.published,
            Published::Overtaken => &self.discarded_overtaken,
            Published::TakenOver => &self.discarded_taken_over,
            Published::NotKept => &self.not_kept,
        });
    }

    pub(crate) fn failed(&self) {
        add(&self.failed);
    }

    pub(crate) fn timed_out(&self) {
        add(&self.timed_out);
    }

    /// A result came after the deadline of its load.
    pub(crate) fn late(&self, published: bool) {
        add(match published {
            true => &self.late_published,
            false => &self.late_discarded,
        });
    }

    pub(crate) fn dropped(&self) {
        add(&self.dropped);
    }

    pub(crate) fn replaced_worker(&self) {
        add(&self.replaced_workers);
    }

    /// The turn of a load did not come before its deadline.
    pub(crate) fn never_started(&self) {
        add(&self.never_started);
    }

    pub(crate) fn shed(&self, reason: LoadReason) {
        add(match reason {
            LoadReason::Cold => &self.rejected,
            LoadReason::Stale => &self.shed_stale,
            LoadReason::Early => &self.shed_early,
        });
    }

    /// Counts a load or refresh that the breaker refused.
    pub(crate) fn breaker_rejected(&self) {
        add(&self.breaker_rejected);
    }

    /// Everything since the last reset.
    pub(crate) fn snapshot(&self) -> Stats {
        let mut now = self.totals();
        now.subtract(&lock(&self.baseline));
        now
    }

    pub(crate) fn reset(&self) {
        let mut baseline = lock(&self.baseline);
        *baseline = self.totals();
    }

    /// The totals since the cache was built; they never decrease.
    pub(crate) fn totals(&self) -> Stats {
        let read = |counter: &Counter| counter.load(Ordering::Relaxed);
        let mut stats = Stats {
            // Ends before starts, so that no snapshot shows a load that ended but never started.
            published: read(&self.published),
            failed: read(&self.failed),
            late_published: read(&self.late_published),
            late_discarded: read(&self.late_discarded),
            timed_out: read(&self.timed_out),
            dropped: read(&self.dropped),
            discarded_overtaken: read(&self.discarded_overtaken),
            discarded_taken_over: read(&self.discarded_taken_over),
            not_kept: read(&self.not_kept),
            load_time: Histogram::of(&self.load_time),
            loads: read(&self.loads),
            batches: read(&self.batches),
            refreshes_stale: read(&self.refreshes_stale),
            refreshes_early: read(&self.refreshes_early),
            shed_early: read(&self.shed_early),
            shed_stale: read(&self.shed_stale),
            rejected: read(&self.rejected),
            breaker_rejected: read(&self.breaker_rejected),
            coalesced: read(&self.coalesced),
            replaced_workers: read(&self.replaced_workers),
            never_started: read(&self.never_started),
            ..Stats::default()
        };
        let locals = self.local.iter().map(|local| &**local);
        for local in locals.chain([&self.late]) {
            // Claims before hits, because a hit is counted before its claim.
            let claimed = read(&local.stale_claimed);
            let stale_age = Histogram::of(&local.stale_age);
            stats.fresh += read(&local.fresh);
            stats.early += read(&local.early);
            stats.stale += stale_age.count();
            stats.misses += read(&local.misses);
            stats.negative += read(&local.negative);
            stats.claims_denied += stale_age.count().saturating_sub(claimed);
            stats.stale_age.add(&stale_age);
        }
        stats
    }
}

macro_rules! stats {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// The counters of a cache since it was built, or since the last
        /// [`reset_stats`](crate::Cache::reset_stats).
        ///
        /// This is a snapshot: all ratios come from the same numbers, and every load that ended in
        /// it also started in it. The exception is a load that was under way at a reset: only its
        /// end is counted. Counting continues meanwhile, so the last events may be missing: the
        /// waiters of a load are released before its result is counted. `Display` prints a table
        /// for people.
        #[derive(Clone, Debug, Default)]
        #[non_exhaustive]
        pub struct Stats {
            $($(#[$doc])* pub $name: u64,)*
            /// Loads and refreshes that run right now. A computation counts up to its deadline.
            pub running: u64,
            /// Loads past their deadline that go on right now: computations, which keep their
            /// threads, and async loads that are
            /// [kept](crate::Builder::keep_late_loads). They are not in `running` if they compute.
            pub overdue: u64,
            /// Loads that wait for their start right now, with callers that wait for them.
            pub waiting_cold: u64,
            /// Refreshes of stale values that wait for their start right now.
            pub waiting_stale: u64,
            /// Early refreshes that wait for their start right now.
            pub waiting_early: u64,
            /// The state of the breaker right now; of two, the one that is open.
            pub breaker: BreakerState,
            /// How long loads and refreshes took, including failed ones.
            pub load_time: Histogram,
            /// How far past their soft limit stale values were when they were served.
            pub stale_age: Histogram,
        }

        impl Stats {
            fn subtract(&mut self, baseline: &Stats) {
                $(self.$name = self.$name.saturating_sub(baseline.$name);)*
                self.load_time.subtract(&baseline.load_time);
                self.stale_age.subtract(&baseline.stale_age);
            }
        }
    };
}

stats! {
    /// Hits on a fresh value.
    fresh,
    /// Hits on a fresh value that started an early refresh.
    early,
    /// Hits on a stale value.
    stale,
    /// Reads that found nothing to serve, so that they waited for a load, or failed without one.
    misses,
    /// Reads answered by a remembered error: the loader had said that the key has no value, or its
    /// last load had failed and the next one was not due. They are neither hits nor misses.
    negative,
    /// Reads that waited for a load that another caller had started.
    coalesced,
    /// Times the loader ran because a caller waited for the value.
    loads,
    /// Times the loader ran because a value was stale.
    refreshes_stale,
    /// Times the loader ran early, by an X-Fetch draw.
    refreshes_early,
    /// Results that became resident.
    published,
    /// Times the loader failed or panicked.
    failed,
    /// Loads that passed their deadline, [`load_timeout`](crate::Builder::load_timeout). They may
    /// have gone on.
    timed_out,
    /// Results that came after the deadline and were the first for their key nevertheless: a value
    /// that became resident, or "not found". Values are counted in `published` too.
    late_published,
    /// Results that came after the deadline and were thrown away. Values are counted by the cause
    /// too.
    late_discarded,
    /// Loads that were dropped before they finished, by a runtime that shut down or by a panic.
    dropped,
    /// Early refreshes not tried because the pool was busy.
    shed_early,
    /// Refreshes of stale values not tried because the queue was full.
    shed_stale,
    /// Loads refused with [`Error::is_overloaded`](crate::Error::is_overloaded).
    rejected,
    /// Loads and refreshes not tried because the breaker was open. Those with a caller that waits
    /// are refused with [`Error::is_unavailable`](crate::Error::is_unavailable).
    breaker_rejected,
    /// Results discarded because the key was invalidated, overwritten or evicted meanwhile. A
    /// result that was resident but was replaced at that very moment may be counted here too.
    discarded_overtaken,
    /// Results discarded because another load of the same entry was first. One of the two had
    /// passed its deadline.
    discarded_taken_over,
    /// Results that were served but not kept, because they were heavier than the cache.
    not_kept,
    /// Loads and refreshes whose turn did not come before their deadline, so the loader was not
    /// called.
    never_started,
    /// Times a spare worker took the place of one whose load was past its deadline.
    replaced_workers,
    /// Calls of a loader that takes [many keys](crate::Builder::load_many). The loads and refreshes
    /// count each key.
    batches,
    /// Stale hits that started no refresh, because one was running or had just failed.
    claims_denied,
}

/// What is under way in a cache right now.
pub(crate) struct Gauges {
    pub(crate) running: u64,
    pub(crate) overdue: u64,
    pub(crate) waiting_cold: u64,
    pub(crate) waiting_stale: u64,
    pub(crate) waiting_early: u64,
    pub(crate) breaker: BreakerState,
}

impl Stats {
    /// Sets what is under way, which a reset does not change.
    pub(crate) fn show(&mut self, gauges: Gauges) {
        self.running = gauges.running;
        self.overdue = gauges.overdue;
        self.waiting_cold = gauges.waiting_cold;
        self.waiting_stale = gauges.waiting_stale;
        self.waiting_early = gauges.waiting_early;
        self.breaker = gauges.breaker;
    }

    /// Reads that were served without waiting.
    pub fn hits(&self) -> u64 {
        self.fresh + self.early + self.stale
    }

    /// All reads: hits, misses and negative answers.
    pub fn reads(&self) -> u64 {
        self.hits() + self.misses + self.negative
    }

    /// Hits per hit and miss, 0 to 1; 0 before the first of either.
    ///
    /// The part of the reads that needed a value and did not wait for the loader. Negative answers
    /// are left out: they cost no load and have no value, so they say nothing about the capacity or
    /// the limits.
    pub fn hit_ratio(&self) -> f64 {
        ratio(self.hits(), self.hits() + self.misses)
    }

    /// Stale hits per read, 0 to 1.
    pub fn stale_ratio(&self) -> f64 {
        ratio(self.stale, self.reads())
    }

    /// Times the loader ran, for any reason.
    pub fn computes(&self) -> u64 {
        self.loads + self.refreshes_stale + self.refreshes_early
    }

    /// Times the loader ran per read that had a reason for it (a miss, a stale value, an early
    /// draw).
    ///
    /// 1 means a cache without coalescing. The busier the keys, the closer to 0.
    pub fn computes_per_trigger(&self) -> f64 {
        ratio(self.computes(), self.misses + self.stale + self.early)
    }
}

fn ratio(part: u64, whole: u64) -> f64 {
    match whole {
        0 => 0.0,
        _ => part as f64 / whole as f64,
    }
}
