//! Caches that play the processes of a fleet.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

pub use dev_support::until;
use everfresh::store::{
    ChaosStore, Codec, Format, MemoryStore, Namespace, Postcard, Store, StoreKey,
};
use everfresh::{Builder, Cache, ManualClock};
use everfresh::{FleetStats, SecondLevel};

/// The namespace of all processes.
const NAMESPACE: &str = "test:v1";

pub const FRESH: Duration = Duration::from_secs(10);
pub const STALE: Duration = Duration::from_secs(100);
/// A gate at which the loaders stop while it is shut.
#[derive(Clone, Default)]
pub struct Gate(Arc<(Mutex<Passage>, Condvar)>);

#[derive(Default)]
struct Passage {
    is_shut: bool,
    /// How many loads may pass nevertheless.
    tickets: usize,
}

impl Gate {
    pub fn shut(&self) {
        self.0.0.lock().unwrap().is_shut = true;
    }

    pub fn open(&self) {
        self.0.0.lock().unwrap().is_shut = false;
        self.0.1.notify_all();
    }

    /// Lets one load pass while the gate is shut.
    pub fn let_one_pass(&self) {
        self.0.0.lock().unwrap().tickets += 1;
        self.0.1.notify_all();
    }

    pub fn pass(&self) {
        let passage = self.0.0.lock().unwrap();
        let waits = |passage: &mut Passage| passage.is_shut && passage.tickets == 0;
        let mut passage = self.0.1.wait_while(passage, waits).unwrap();
        if passage.is_shut {
            passage.tickets -= 1;
        }
    }
}

/// The origin of all values, shared by the fleet. It counts loads, and returns the number of
/// earlier loads.
#[derive(Clone, Default)]
pub struct Origin {
    loads: Arc<AtomicU64>,
    pub gate: Gate,
    failing: Arc<Mutex<bool>>,
    empty: Arc<Mutex<bool>>,
}

impl Origin {
    pub fn loads(&self) -> u64 {
        self.loads.load(Ordering::SeqCst)
    }

    pub fn fail(&self, fails: bool) {
        *self.failing.lock().unwrap() = fails;
    }

    /// Whether it has no value.
    pub fn empty(&self, is_empty: bool) {
        *self.empty.lock().unwrap() = is_empty;
    }

    fn load(&self) -> Result<Option<u64>, &'static str> {
        let number = self.loads.fetch_add(1, Ordering::SeqCst);
        self.gate.pass();
        match *self.failing.lock().unwrap() {
            true => Err("the origin is down"),
            false => Ok((!*self.empty.lock().unwrap()).then_some(number)),
        }
    }
}

pub struct Fleet {
    pub clock: ManualClock,
    pub memory: Arc<MemoryStore>,
    pub origin: Origin,
    pub fresh: Duration,
}

/// A call of the origin.
pub type Load = Box<dyn Fn() -> Result<Option<u64>, &'static str> + Send + Sync>;

/// One process: its cache, and its connection to the store.
pub struct Process {
    pub cache: Cache<u64, u64>,
    pub chaos: Arc<ChaosStore>,
}

impl Fleet {
    pub fn new() -> Self {
        let clock = ManualClock::new();
        Fleet {
            memory: Arc::new(MemoryStore::with_clock(&clock)),
            clock,
            origin: Origin::default(),
            fresh: FRESH,
        }
    }

    /// Another fleet at the same store, with an origin of its own.
    pub fn beside(&self) -> Self {
        Fleet {
            clock: self.clock.clone(),
            memory: self.memory.clone(),
            origin: Origin::default(),
            fresh: self.fresh,
        }
    }

    /// Two processes with the values of so many keys, which the first one loaded.
    pub fn filled(&self, keys: u64) -> (Process, Process) {
        let (a, b) = (self.process(), self.process());
        for key in 0..keys {
            a.get(key);
        }
        a.published(keys);
        for key in 0..keys {
            b.get(key);
        }
        (a, b)
    }

    pub fn process(&self) -> Process {
        self.process_with(SecondLevel::lease, Duration::from_secs(3))
    }

    pub fn process_with<T>(
        &self,
        set: impl FnOnce(SecondLevel<u64, u64>, T) -> SecondLevel<u64, u64>,
        to: T,
    ) -> Process {
        let chaos = self.chaos();
        let level = set(SecondLevel::new(chaos.clone(), NAMESPACE).unwrap(), to);
        self.process_at(chaos, level)
    }

    /// A process whose values have this schema, so that no process with another one reads them.
    pub fn process_of_schema(&self, schema: u32) -> Process {
        self.process_of(Format::new(Postcard).schema(schema))
    }

    pub fn process_of(&self, format: Format<u64>) -> Process {
        let chaos = self.chaos();
        let namespace = Namespace::new(NAMESPACE).unwrap();
        let level = SecondLevel::with(chaos.clone(), namespace, format, Postcard);
        self.process_at(chaos, level)
    }

    fn chaos(&self) -> Arc<ChaosStore> {
        let memory: Arc<dyn Store> = self.memory.clone();
        Arc::new(ChaosStore::new(memory))
    }

    fn process_at(&self, chaos: Arc<ChaosStore>, level: SecondLevel<u64, u64>) -> Process {
        let origin = self.origin.clone();
        let builder = self.builder(level);
        let builder = builder.try_compute(move |_: &u64| origin.load());
        let cache = builder.build().unwrap();
        Process { cache, chaos }
    }

    /// A process that this function builds, from a builder and a call of the origin.
    pub fn process_where(
        &self,
        with: impl FnOnce(Builder<u64, u64>, Load) -> Builder<u64, u64>,
    ) -> Process {
        let (chaos, origin) = (self.chaos(), self.origin.clone());
        let level = SecondLevel::new(chaos.clone(), NAMESPACE).unwrap();
        let load: Load = Box::new(move || origin.load());
        let cache = with(self.builder(level), load).build().unwrap();
        Process { cache, chaos }
    }

    fn builder(&self, level: SecondLevel<u64, u64>) -> Builder<u64, u64> {
        Cache::builder()
            .capacity(1_000)
            .clock(&self.clock)
            .fresh_for(self.fresh)
            .stale_for(STALE)
            .beta(0.0)
            .threads(2)
            .store(level)
    }
}

/// The store's name of a key.
pub fn name(key: u64) -> StoreKey {
    let mut encoded = Vec::new();
    Postcard.encode(&key, &mut encoded).unwrap();
    StoreKey::new(&Namespace::new(NAMESPACE).unwrap(), &encoded)
}

impl Process {
    pub fn get(&self, key: u64) -> u64 {
        *self.cache.get_blocking(&key).unwrap()
    }

    pub fn stats(&self) -> FleetStats {
        self.cache.store_stats().unwrap()
    }

    /// Waits until this many loaded values are in the store.
    pub fn published(&self, count: u64) {
        until("the values are published", || {
            self.stats().published >= count
        });
    }
}
