//! Wakes those whose time has come: one list for a clock, and one thread for the clocks of the system.
//!
//! Nearly everything that waits is over long before its deadline. So setting an alarm costs a short lock and a weak reference, and wakes the
//! thread only if that would have slept too long; nothing is taken back, and alarms of what is gone are dropped when the list would
//! grow. (A timer for each waiter woke a thread twice for each load.)
//!
//! Invariants:
//!
//! 1. Whoever sets an alarm looks at the clock once more after it has registered to be woken, and goes by its own clock alone.
//! 2. `next` is never later than an alarm that is in the list, once whoever set it has gone on: the thread, or whoever moves
//!    the clock, looks again in time (P3, P5: none hangs).

use std::thread::park_timeout;
use std::time::Duration;

use crate::panics::isolated;
use crate::sync::event::Event;
use crate::sync::on_demand::OnDemand;
use crate::sync::{Arc, AtomicU64, Held, Mutex, OnceLock, Ordering, PoisonError, Slot, Weak};
use crate::time::clock::{Clock, Tick};

/// The thread never sleeps longer, and never shorter.
const SLEEP: (Tick, Tick) = (1_000_000, 86_400_000_000_000);

/// Who waits for a time.
pub trait Sleeper: Send + Sync {
    /// Called without any lock, perhaps more than once, never too early.
    fn wake(&self);
}

pub struct Alarms {
    /// One list: a load takes its lock once, for some nanoseconds.
    list: Mutex<Vec<Alarm>>,
    /// When to look at the list.
    next: AtomicU64,
}

impl Default for Alarms {
    fn default() -> Self {
        Alarms {
            list: Mutex::new(Vec::new()),
            next: AtomicU64::new(Tick::MAX),
        }
    }
}

struct Alarm {
    at: Tick,
    sleeper: Weak<dyn Sleeper>,
}

impl Alarms {
    /// Sets an alarm; true if the list has to be looked at earlier than was known so far.
    #[must_use]
    pub fn set(&self, at: Tick, sleeper: Weak<dyn Sleeper>) -> bool {
        {
            let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
            if list.len() == list.capacity() {
                list.retain(|alarm| alarm.sleeper.strong_count() > 0);
                // As much room as is taken, so that looking for the gone is rare; and no more, for what is gone keeps its memory until then.
                let live = list.len();
                if 2 * live >= list.capacity() {
                    list.reserve_exact(live + 1);
                }
            }
            list.push(Alarm { at, sleeper });
        }
        // SeqCst with the exchange in `ring`: either that sees the alarm in the list, or this sees the exchange.
        self.next.fetch_min(at, Ordering::SeqCst) > at
    }

    /// Wakes all whose time has come; returns when to look again, if nobody sets an earlier alarm.
    pub fn ring(&self, now: Tick) -> Tick {
        // Before the list: an alarm that is set from here on lowers it again.
        self.next.swap(Tick::MAX, Ordering::SeqCst);
        let mut next = Tick::MAX;
        let mut due = Vec::new();
        {
            let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
            list.retain(|alarm| {
                if alarm.at <= now {
                    due.push(alarm.sleeper.clone());
                    return false;
                }
                let live = alarm.sleeper.strong_count() > 0;
                if live {
                    next = next.min(alarm.at);
                }
                live
            });
        }
        for sleeper in due {
            // The last reference may be this one by now, and a user's value with it, whose `Drop`
            // may panic.
            isolated(|| {
                if let Some(sleeper) = sleeper.upgrade() {
                    sleeper.wake();
                }
            });
        }
        self.next.fetch_min(next, Ordering::SeqCst).min(next)
    }
}

/// The alarms of the system's clocks in one process, and the thread that rings them.
///
/// A process that was forked has the memory of its parent, but none of its threads; and any lock
/// may have been held by one of them. So it makes its own alarms, and touches those of the parent
/// no more.
struct System {
    process: u32,
    alarms: Alarms,
    thread: OnDemand,
}

static SYSTEM: OnceLock<Slot<System>> = OnceLock::new();

/// Sets an alarm by the clocks of the system.
pub(crate) fn set(at: Tick, sleeper: Weak<dyn Sleeper>) {
    let system = System::of_this_process();
    let rung = system.clone();
    let thread =
        (system.thread).get_or_start("everfresh-clock", move || keep_ringing(&rung.alarms));
    if system.alarms.set(at, sleeper) {
        thread.inspect(|thread| thread.unpark());
    }
}

/// What tells the processes apart that a fork made of one: an alarm that was set in another one
/// rings there only.
pub(crate) fn process() -> u32 {
    std::process::id()
}

impl System {
    fn of_this_process() -> Arc<System> {
        let slot = SYSTEM.get_or_init(|| Slot::new(None));
        loop {
            let found = slot.load();
            let found = found.as_ref().map(Held::arc);
            if let Some(system) = found.filter(|system| system.process == process()) {
                return system.clone();
            }
            let new = Arc::new(System {
                process: process(),
                alarms: Alarms::default(),
                thread: OnDemand::default(),
            });
            if slot.compare_exchange(found, Some(new.clone())) {
                // Never dropped: a thread of the parent may have been changing it at the moment of
                // the fork.
                std::mem::forget(found.cloned());
                return new;
            }
        }
    }
}

fn keep_ringing(alarms: &Alarms) {
    // The one that lags: whoever is woken finds its own clock there, too.
    let clock = Clock::coarse();
    loop {
        let next = alarms.ring(clock.now());
        let left = next.saturating_sub(clock.now()).clamp(SLEEP.0, SLEEP.1);
        park_timeout(Duration::from_nanos(left));
    }
}

/// One that waits for nothing but a time.
pub struct Nap(pub Event);

impl Nap {
    /// Completes when it is over by the clock; its alarm was set before.
    pub async fn sleep(&self, is_over: impl Fn() -> bool) {
        loop {
            // Before the look at the clock, so that a wake between the two is not lost.
            let woken = self.0.listen();
            if is_over() {
                return;
            }
            woken.await;
        }
    }
}

impl Sleeper for Nap {
    fn wake(&self) {
        self.0.notify_all();
    }
}

#[cfg(all(test, not(all(loom, feature = "loom"))))]
mod tests {
    use super::{Alarms, Arc, Event, Nap, Sleeper};

    #[test]
    fn what_is_gone_does_not_pile_up_and_what_is_not_is_woken() {
        let alarms = Alarms::default();
        let lasting: Vec<Arc<dyn Sleeper>> =
            (0..10).map(|_| Arc::new(Nap(Event::new())) as _).collect();
        for sleeper in &lasting {
            let _ = alarms.set(7, Arc::downgrade(sleeper));
            for _ in 0..100 {
                let gone: Arc<dyn Sleeper> = Arc::new(Nap(Event::new()));
                let _ = alarms.set(7, Arc::downgrade(&gone));
            }
        }
        let listed = alarms.list.lock().map_or(0, |list| list.len());
        assert!((10..=21).contains(&listed), "{listed} alarms of 10");
        assert_eq!(alarms.ring(6), 7, "none is due");
        assert_eq!(alarms.ring(7), u64::MAX, "none is left");
    }
}
