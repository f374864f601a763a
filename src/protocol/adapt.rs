//! The choice of a setting for eviction, while the cache runs.
//!
//! No setting of S3-FIFO suits every pattern of accesses. So small simulations ("shadows", one for
//! each setting) see the keys of some sets of the table, and the cache uses the setting whose
//! shadow has had the most hits. Caches that are simulated on a sample of their keys are known from
//! Waldspurger et al., "Cache modeling and optimization using miniature simulations" (USENIX ATC
//! 2017). Of the knobs of S3-FIFO, these are the ones for which the traces asked.
//!
//! A hit pays nothing. An insert into a sampled set shows its key to the shadows, and with it the
//! uses that some sampled values have had since they were last examined. So the shadows see a hit a
//! little late, and they do not see all hits of a value that is used all the time. Each setting
//! would have had those.
//!
//! Races that this must survive:
//!
//! 1. Two threads insert into sampled sets at once. One of them finds the shadows in use, and its
//!    insert goes unseen. No thread waits, and no user code runs while the shadows are in use.
//! 2. A setting is chosen during an insert or an eviction. Either one reads the setting once for
//!    each decision, and every decision is right under every setting: the setting only says which
//!    value is worth keeping. So the word needs no order, and no model explores it.
//! 3. The sample changes while a thread collects uses. Then some of them are of keys that are no
//!    longer in the sample. The shadows are empty again at that moment, and soon forget those keys.

use crate::protocol::entries::Entries;
use crate::protocol::entry::Entry;
use crate::protocol::shadows::{MOST_VALUES, SETTINGS, Setting, Shadows};
use crate::protocol::table::{Place, WAYS};
use crate::sync::plain::Mutex;
use crate::sync::{Counter, OnceLock, Ordering, TryLockError};

/// A cache with fewer entries keeps the first setting. Its shadows would see chance only.
const LEAST_ENTRIES: usize = if cfg!(all(loom, feature = "loom")) {
    usize::MAX / 2
} else {
    8
};

/// The sampled sets whose values are examined at each insert into one.
const EXAMINED: usize = 3;

/// The sample halves when a shadow would have too many values, and doubles when it would have fewer
/// than one in this many of them.
const FEW: usize = 8;

/// Apart from what the threads write, because every insert reads `chosen` and `shift`.
pub struct Adaptive {
    /// The number of the setting in use.
    chosen: Counter,
    /// One set in two to the power of this is sampled. No set while there are no shadows.
    shift: Counter,
    /// From the first eviction on. Before it there is nothing to choose.
    shadows: OnceLock<Box<Sampled>>,
}

#[repr(align(128))]
struct Sampled {
    /// How many sampled sets have been examined so far.
    examined: Counter,
    shadows: Mutex<Shadows>,
}

impl Adaptive {
    pub fn new() -> Self {
        Adaptive {
            chosen: Counter::new(0),
            shift: Counter::new(0),
            shadows: OnceLock::new(),
        }
    }

    /// Allocates the shadows of a cache of this capacity, unless another thread has.
    pub fn start(&self, capacity: usize) {
        if capacity >= LEAST_ENTRIES {
            let _ = self.shadows.set(Box::new(Sampled {
                examined: Counter::new(0),
                shadows: Mutex::new(Shadows::new(capacity)),
            }));
        }
    }

    // Relaxed throughout: see race 2.
    pub fn setting(&self) -> Setting {
        SETTINGS[self.chosen.load(Ordering::Relaxed) as usize % SETTINGS.len()]
    }

    #[inline]
    fn samples(&self, set: usize, shift: u64) -> bool {
        set & ((1 << shift) - 1) == 0 && self.shadows.get().is_some()
    }
}

impl<K, V> Entries<K, V> {
    /// Shows the shadows a value that has just become resident, the last step of its insert.
    #[inline]
    pub fn observe(&self, place: Place, entry: &Entry<K, V>, resident: usize) {
        let shift = self.adaptive().shift.load(Ordering::Relaxed);
        if self.adaptive().samples(place.set(), shift) {
            self.observe_sampled(self.name_of(place, entry), resident, shift);
        }
    }

    #[inline(never)]
    fn observe_sampled(&self, name: u64, resident: usize, shift: u64) {
        let Some(sampled) = self.adaptive().shadows.get() else {
            return;
        };
        // Before the shadows are locked, because the reference that is dropped here may be the last
        // one to a value.
        let mut used = [(0, 0); EXAMINED * WAYS];
        let mut length = 0;
        let from = sampled.examined.load(Ordering::Relaxed) as usize;
        // Two threads may examine the same sets, and find no new uses.
        (sampled.examined).store((from + EXAMINED) as u64, Ordering::Relaxed);
        let sets = ((self.table.sets() - 1) >> shift) + 1;
        for set in (from..from + EXAMINED).map(|number| (number % sets) << shift) {
            for (place, entry) in self.table.items(set) {
                let uses = entry.take_new_uses();
                if uses > 0 {
                    used[length] = (self.name_of(place, &entry), uses);
                    length += 1;
                }
            }
        }
        let mut shadows = match sampled.shadows.try_lock() {
            Ok(shadows) => shadows,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        for (name, uses) in &used[..length] {
            (0..*uses).for_each(|_| shadows.access(*name));
        }
        let values = resident >> shift;
        let other = match values {
            _ if values > MOST_VALUES => shift + 1,
            _ if values < MOST_VALUES / FEW && shift > 0 => shift - 1,
            _ => shift,
        };
        if other != shift {
            self.adaptive().shift.store(other, Ordering::Relaxed);
            return shadows.clear();
        }
        shadows.resize(values);
        shadows.access(name);
        let chosen = self.adaptive().chosen.load(Ordering::Relaxed) as usize;
        if let Some(better) = shadows.choice(chosen) {
            self.adaptive()
                .chosen
                .store(better as u64, Ordering::Relaxed);
        }
    }

    fn adaptive(&self) -> &Adaptive {
        &self.queues.adaptive
    }
}
