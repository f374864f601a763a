//! Alarms wake sleepers at their times: each clock has one list, and the system's clocks share one
//! thread.
//!
//! Nearly every wait is over long before its deadline. So setting an alarm costs a short lock and a
//! weak reference, and wakes the thread only if it would sleep too long. (One timer per waiter
//! would wake a thread twice for each load.)
//!
//! Alarms are not cancelled one by one. A weak reference keeps the memory of its sleeper, so
//! dropped sleepers are counted. Once they may be half of the list, all their alarms are removed
//! together. So at most as many dropped sleepers as live ones keep their memory, and a few more.
//!
//! Invariants:
//!
//! 1. A sleeper that sets an alarm registers to be woken and then checks the clock once more. It
//!    relies on its own clock alone.
//! 2. `next` is never later than an alarm in the list, once the call that set the alarm has
//!    returned. So the thread, or the caller that moves the clock, checks the list in time (P3, P5:
//!    no waiter hangs).
//! 3. Alarms of dropped sleepers are removed in one step under the lock, so no alarm that is set
//!    meanwhile is lost (P3).

use std::thread::park_timeout;
use std::time::Duration;

use crate::panics::isolated;
use crate::sync::event::Event;
use crate::sync::on_demand::OnDemand;
use crate::sync::{
    Arc, ArcCell, AtomicU64, Mutex, OnceLock, Ordering, PoisonError, TryLockError, Weak,
};
use crate::time::clock::{Clock, Tick};

/// The shortest and the longest sleep of the thread.
const SLEEP: (Tick, Tick) = (1_000_000, 86_400_000_000_000);

/// How many sleepers are dropped between two looks at the list. Under the model checker, one.
const LOOK_EVERY: u64 = if cfg!(all(loom, feature = "loom")) {
    1
} else {
    64
};

/// A waiter that an alarm can wake.
pub trait Sleeper: Send + Sync {
    /// Called without any lock, perhaps more than once, never too early.
    fn wake(&self);
}

pub struct Alarms {
    /// One list: a load takes its lock once, for some nanoseconds.
    list: Mutex<Vec<Alarm>>,
    /// When the list has to be checked next.
    next: AtomicU64,
    /// The sleepers that were dropped since their alarms were last removed.
    dropped: AtomicU64,
}

impl Default for Alarms {
    fn default() -> Self {
        Alarms {
            list: Mutex::new(Vec::new()),
            next: AtomicU64::new(Tick::MAX),
            dropped: AtomicU64::new(0),
        }
    }
}

struct Alarm {
    at: Tick,
    sleeper: Weak<dyn Sleeper>,
}

impl Alarms {
    /// Sets an alarm; returns true if the list now has to be checked earlier than before.
    #[must_use]
    pub fn set(&self, at: Tick, sleeper: Weak<dyn Sleeper>) -> bool {
        {
            let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
            if list.len() == list.capacity() {
                list.retain(|alarm| alarm.sleeper.strong_count() > 0);
                // Reserves as much room as is in use, so that the scan for dropped sleepers is
                // rare. No more than that, because a dropped sleeper keeps its memory until the
                // scan.
                let live = list.len();
                if 2 * live >= list.capacity() {
                    list.reserve_exact(live + 1);
                }
            }
            list.push(Alarm { at, sleeper });
        }
        // `ring` exchanges `next` before it takes the lock. So either it takes the lock later and
        // sees this alarm in the list, or this load sees the exchange. Loaded first, because most
        // alarms are later than the next one, and all loads of the process come here.
        self.next.load(Ordering::SeqCst) > at && self.next.fetch_min(at, Ordering::SeqCst) > at
    }

    /// Counts a sleeper that was dropped after it had set an alarm.
    // Under the model checker the divisor is one.
    #[allow(clippy::modulo_one)]
    pub fn dropped(&self) {
        // Relaxed: a count that is too high or too low only moves the next removal.
        let dropped = self.dropped.fetch_add(1, Ordering::Relaxed) + 1;
        if dropped % LOOK_EVERY != 0 {
            return;
        }
        // Only tried, because a thread of the parent may have held it at a fork. The next look
        // comes soon.
        let mut list = match self.list.try_lock() {
            Ok(list) => list,
            Err(TryLockError::Poisoned(list)) => list.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        if 2 * dropped < list.len() as u64 {
            return;
        }
        self.dropped.swap(0, Ordering::Relaxed);
        list.retain(|alarm| alarm.sleeper.strong_count() > 0);
        let live = list.len();
        if list.capacity() / 4 > live {
            list.shrink_to(2 * live);
        }
    }

    /// Wakes all sleepers whose time has come; returns when to check again if no earlier alarm is
    /// set.
    pub fn ring(&self, now: Tick) -> Tick {
        // Before the list is read: an alarm that is set from here on lowers it again.
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
            // This may be the last reference by now, and a user's value may be dropped with it,
            // whose `Drop` may panic.
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
/// A forked process has the memory of its parent but none of its threads, and any of these threads
/// may have held a lock. So the child creates its own alarms and no longer touches those of the
/// parent.
struct System {
    process: u32,
    alarms: Alarms,
    thread: OnDemand,
}

static SYSTEM: OnceLock<ArcCell<System>> = OnceLock::new();

/// Sets an alarm by the clocks of the system, in this [`process`].
pub(crate) fn set(process: u32, at: Tick, sleeper: Weak<dyn Sleeper>) {
    System::with(process, |system| {
        let thread = system.thread.get().or_else(|| {
            let rung = system.clone();
            (system.thread).get_or_start("everfresh-clock", move || keep_ringing(&rung.alarms))
        });
        if system.alarms.set(at, sleeper) {
            thread.inspect(|thread| thread.unpark());
        }
    });
}

/// Counts a sleeper that was dropped after it had set an alarm by the clocks of the system.
pub(crate) fn dropped() {
    // After a fork these may be the alarms of the parent. Their lock is only tried.
    if let Some(system) = SYSTEM
        .get()
        .map(ArcCell::load)
        .as_deref()
        .and_then(Option::as_ref)
    {
        system.alarms.dropped();
    }
}

/// Identifies the process, because a fork copies alarms to the child but they ring only in the
/// process that set them. A system call.
pub(crate) fn process() -> u32 {
    std::process::id()
}

impl System {
    /// Calls `act` with those of this process.
    fn with(process: u32, act: impl FnOnce(&Arc<System>)) {
        let slot = SYSTEM.get_or_init(ArcCell::empty);
        loop {
            let found = slot.load();
            match &*found {
                Some(system) if system.process == process => return act(system),
                _ => {}
            }
            let new = Arc::new(System {
                process,
                alarms: Alarms::default(),
                thread: OnDemand::default(),
            });
            if slot.compare_exchange((*found).as_ref(), Some(new)) {
                // Never dropped: a thread of the parent may have been changing it at the moment of
                // the fork.
                std::mem::forget((*found).clone());
            }
        }
    }
}

fn keep_ringing(alarms: &Alarms) {
    // The coarse clock, because it lags: a woken sleeper finds that its own clock has reached the
    // time, too.
    let clock = Clock::coarse();
    loop {
        let next = alarms.ring(clock.now());
        let left = next.saturating_sub(clock.now()).clamp(SLEEP.0, SLEEP.1);
        park_timeout(Duration::from_nanos(left));
    }
}

/// A sleeper that waits only for a time.
pub struct Nap(pub Event);

impl Nap {
    /// Completes when `is_over` holds by the clock; the caller has set the alarm before.
    pub async fn sleep(&self, is_over: impl Fn() -> bool) {
        loop {
            // Listens before it checks the clock, so that a wake between the two is not lost.
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
    fn dropped_sleepers_do_not_pile_up_and_live_ones_are_woken() {
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

    #[test]
    fn memory_of_sleepers_goes_when_they_are_dropped() {
        let alarms = Alarms::default();
        let mut sleepers: Vec<Arc<dyn Sleeper>> = Vec::new();
        for _ in 0..10_000 {
            let sleeper: Arc<dyn Sleeper> = Arc::new(Nap(Event::new()));
            let _ = alarms.set(7, Arc::downgrade(&sleeper));
            sleepers.push(sleeper);
        }
        let lasting = sleepers.split_off(9_900);
        for sleeper in sleepers {
            drop(sleeper);
            alarms.dropped();
        }
        let listed = || {
            alarms
                .list
                .lock()
                .map_or((0, 0), |list| (list.len(), list.capacity()))
        };
        let (len, capacity) = listed();
        assert!((100..=300).contains(&len), "{len} alarms of 100");
        assert!(capacity <= 1_000, "room for {capacity} alarms");
        drop(lasting);
        assert_eq!(alarms.ring(7), u64::MAX);
    }
}
