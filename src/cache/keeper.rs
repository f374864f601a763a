//! A value that is refreshed on time, whether or not it is read.
//!
//! A keeper looks at the value: at its alarm, at the end of each load, and after each write. A look
//! finds a load under way, which ends with a look; or it starts one; or it sets the alarm for the
//! time at which one is due. The alarm is set for the deadline of a load as well, because one that
//! hangs has no end. Races that this must survive:
//!
//! 1. A value is published, or written, while the alarm for the old one rings: see `time::rearm`.
//! 2. Two looks find the value due at once. Both claim, as readers do, and one of them wins.
//! 3. A value is invalidated while its refresh runs. The write looks, and starts a load. The
//!    refresh ends with a look, which finds that load.
//! 4. The cache is closed during a look. A load that begins is refused, like that of a reader, and
//!    no look sets the alarm any more.
//! 5. The last handle goes during a look. The look holds one for that time.

use foldhash::quality::RandomState;

use crate::cache::call::CallTerms;
use crate::cache::read::{Core, Unserved};
use crate::load::job::Job;
use crate::load::runtime::Caller;
use crate::load::state::Keep;
use crate::observe::reason::LoadReason;
use crate::protocol::claim::ClaimState;
use crate::protocol::entry::Entry;
use crate::protocol::publish::ClaimGuard;
use crate::sync::runtime::Runtime;
use crate::sync::{Arc, AtomicU64, Mutex, Ordering, Weak, lock};
use crate::time::alarm::{self, Sleeper};
use crate::time::clock::Tick;
use crate::time::rearm::Rearm;
use std::hash::BuildHasher;

/// How many times the cost of a load it begins before the soft limit, times `beta`. A load takes
/// longer than that once in some twenty times, if its time varies as that of a queue does.
const LEAD: f64 = 3.0;

/// Keeps the value of one [`Fresh`](crate::Fresh) fresh.
pub(super) struct Keeper<V> {
    me: Weak<Keeper<V>>,
    core: Weak<Core<(), V, RandomState>>,
    rearm: Rearm,
    /// The process in which the alarm was set.
    process: AtomicU64,
    /// Where async loads run: the runtime of the last call of `keep_fresh`.
    runtime: Mutex<Option<Runtime>>,
}

/// What a look found.
enum Next {
    /// Look again then.
    At(Tick),
    /// The value changed during the look.
    Again,
    /// Another thread looks when its work ends.
    Later,
}

impl<V: Send + Sync + 'static> Core<(), V, RandomState> {
    pub(super) fn keep_fresh(self: &Arc<Self>) {
        let keeper = self.state.keeper.get_or_init(|| {
            let core = Arc::downgrade(self);
            Arc::<Keeper<V>>::new_cyclic(|me| Keeper {
                me: me.clone(),
                core,
                rearm: Rearm::default(),
                process: AtomicU64::new(0),
                runtime: Mutex::new(None),
            })
        });
        keeper.begins();
    }
}

impl<V: Send + Sync + 'static> Keep for Keeper<V> {
    fn begins(&self) {
        let runtime = Runtime::current();
        if runtime.is_some() {
            *lock(&self.runtime) = runtime;
        }
        self.look(true);
    }

    fn look(&self, may_start: bool) {
        let Some(core) = self.core.upgrade() else {
            return;
        };
        loop {
            if !core.state.lifecycle.is_open() {
                return;
            }
            let now = core.state.clock.now();
            match self.next(&core, now, may_start) {
                Next::At(at) => return self.set_alarm(&core, at),
                Next::Later => return,
                Next::Again => {}
            }
        }
    }
}

impl<V: Send + Sync + 'static> Keeper<V> {
    /// The next step of a look. At the end of a load none starts, so that a load whose result is
    /// not kept, or due at once, does not follow upon itself.
    fn next(&self, core: &Core<(), V, RandomState>, now: Tick, may_start: bool) -> Next {
        let later = Next::At(now.saturating_add(core.state.policy.backoff_from));
        let Some((place, entry)) = core.find(&(), core.hasher.hash_one(())) else {
            let rests_until = (core.state.negative).rests_until(&(), |()| true, &core.state.groups);
            return match rests_until.filter(|until| now < *until) {
                Some(until) => Next::At(until),
                None if may_start => self.begin(core, later),
                None => later,
            };
        };
        if core.remove_if_outdated(place, &entry) {
            return Next::Again;
        }
        let due = match entry.is_loading() {
            true => now,
            false => core.due(&entry),
        };
        match entry.claim_word.state() {
            // A result has come, whose end looks.
            ClaimState::Spent => Next::Later,
            ClaimState::Claimed { deadline } if now < deadline => Next::At(deadline),
            ClaimState::Cooling { until, .. } if now < until => Next::At(until.max(due)),
            _ if now < due => Next::At(due),
            _ if !may_start => later,
            _ => match core.entries.claim(place, &entry, now) {
                Some(claim) => self.refresh(core, claim, now),
                None => Next::Again,
            },
        }
    }

    /// Starts the load of a missing value.
    fn begin(&self, core: &Core<(), V, RandomState>, later: Next) -> Next {
        let start = |job| self.start(core, job);
        let terms = CallTerms::from(Caller::GoesOn);
        match core.start_missing(&start, &(), core.hasher.hash_one(()), &terms) {
            Ok((Some(Unserved::Wait(flight, ..)), _)) => Next::At(flight.token().deadline()),
            Ok((Some(_), _)) | Err(_) => later,
            Ok((None, _)) => Next::Again,
        }
    }

    fn refresh(
        &self,
        core: &Core<(), V, RandomState>,
        claim: ClaimGuard<(), V>,
        now: Tick,
    ) -> Next {
        let entry = claim.entry();
        let reason = match core.entries.is_servable(entry, now) {
            false => LoadReason::Cold,
            true if now < entry.times().fresh_until() => LoadReason::Early,
            true => LoadReason::Stale,
        };
        let deadline = claim.flight().token().deadline();
        if let Some(job) = Job::new(claim, reason, core.state.clone(), Caller::GoesOn) {
            self.start(core, job);
        }
        Next::At(deadline)
    }

    fn start(&self, core: &Core<(), V, RandomState>, job: Job<(), V>) {
        let runtime = lock(&self.runtime).clone();
        (core.start)(match runtime {
            Some(runtime) => job.on(runtime),
            None => job,
        });
    }

    fn set_alarm(&self, core: &Core<(), V, RandomState>, at: Tick) {
        let process = alarm::process();
        // The alarms of the parent do not ring in a child made by `fork`.
        if self.process.swap(process.into(), Ordering::AcqRel) != u64::from(process) {
            self.rearm.forget();
        }
        if self.rearm.arm(at) {
            let me: Weak<dyn Sleeper> = self.me.clone();
            core.state.clock.wake_at(process, at, me);
        }
    }
}

impl<V: Send + Sync + 'static> Sleeper for Keeper<V> {
    fn wake(&self) {
        let Some(core) = self.core.upgrade() else {
            return;
        };
        if self.rearm.rings(core.state.clock.now()) {
            self.look(true);
        }
    }
}

impl<K, V, S> Core<K, V, S> {
    /// When a value has to be refreshed, so that its successor is there before the soft limit.
    fn due(&self, entry: &Entry<K, V>) -> Tick {
        let times = entry.times();
        let fresh_for = times.fresh_until().saturating_sub(times.created());
        let lead = LEAD * self.state.policy.beta * times.cost() as f64;
        let lead = (lead as Tick).saturating_add(self.state.clock.lateness());
        times.fresh_until().saturating_sub(lead.min(fresh_for / 2))
    }
}
