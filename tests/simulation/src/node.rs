//! One process: a real cache, with a real second level, whose tasks the simulation runs.

use std::hash::{BuildHasherDefault, DefaultHasher};
use std::sync::{Arc, Weak};
use std::time::Duration;

use everfresh::store::{ChangeListener, ChangeListeners, ChaosStore, Format, Store};
use everfresh::{Cache, ManualClock, SecondLevel};

use crate::claims;
use crate::faults::Fault;
use crate::link::{Link, Tap};
use crate::log::{Found, What};
use crate::network;
use crate::origin::{EightBytes, OriginClient, Value, number, value};
use crate::random::Random;
use crate::server::{Server, namespace};
use crate::tasks::Tasks;
use crate::world::{Database, Key, Life, Nanos, Process, World};

/// The hash of a key is the same in each run.
type Fixed = BuildHasherDefault<DefaultHasher>;

pub type SimulatedCache = Cache<Key, Value, Fixed>;

/// The number of values that a cache holds.
pub const CAPACITY: usize = 64;

pub struct Node {
    pub world: Arc<World>,
    pub process: Process,
    pub database: Database,
    pub schema: u32,
    pub cache: SimulatedCache,
    pub chaos: Arc<ChaosStore>,
    pub trouble: Trouble,
    /// Whether the server has lost its data since the connection ended.
    pub has_lost: bool,
    /// When its connection was last slow.
    pub was_slow: Option<Nanos>,
    clock: ManualClock,
    /// How much faster the clock runs than the true time, in millionths.
    drift: i64,
    _taps: Vec<Arc<Tap>>,
}

/// The fault of a process, at most one at a time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Trouble {
    None,
    Refused,
    Silent,
    Slow,
    Paused,
}

/// The settings of one process.
pub struct Settings {
    pub database: Database,
    pub schema: u32,
    pub fault: Option<Fault>,
    /// Whether it starts without a connection.
    pub is_cut_off: bool,
    /// Whether all keys are in one group.
    pub has_groups: bool,
}

/// The group of all keys.
const GROUP: u64 = 7;

fn duration(nanos: Nanos) -> Duration {
    Duration::from_nanos(nanos)
}

impl Node {
    pub fn start(
        world: &Arc<World>,
        server: &Server,
        settings: &Settings,
        random: &mut Random,
    ) -> Self {
        let Settings {
            database,
            schema,
            fault,
            is_cut_off,
            has_groups,
        } = *settings;
        let clock = ManualClock::new();
        clock.advance(Duration::from_millis(random.below(100_000)));
        let skew = random.between(0, 4_000) as i64 - 2_000;
        let process = world.with(|state| {
            state.lives.push(Life::Runs);
            state.network.links.push(network::Link::new(skew));
            state.process_starts(database);
            let process = state.lives.len() - 1;
            state.log(What::Started(process, database, schema));
            process
        });
        let link = Arc::new(Link {
            world: world.clone(),
            process,
            server: server.databases[database].clone(),
            listeners: ChangeListeners::default(),
            namespace: namespace(),
            fault,
        });
        link.listen();
        let taps = server.databases.iter().enumerate();
        let taps = taps.filter(|(other, _)| {
            *other == database || fault == Some(Fault::MessagesCrossDatabases)
        });
        let taps = taps.map(|(_, store)| {
            let tap = Arc::new(Tap {
                world: world.clone(),
                process,
            });
            let listener: Weak<dyn ChangeListener> = Arc::downgrade(&tap) as _;
            store.subscribe(&namespace(), listener);
            tap
        });
        let taps = taps.collect();
        let chaos = Arc::new(ChaosStore::new(link));
        if is_cut_off {
            chaos.not_connected_yet();
            world.with(|state| state.break_connection(process));
        }
        Node {
            cache: Self::cache(world, process, &chaos, schema, &clock, has_groups),
            world: world.clone(),
            process,
            database,
            schema,
            chaos,
            trouble: Trouble::None,
            has_lost: false,
            was_slow: None,
            clock,
            drift: random.between(0, 400) as i64 - 200,
            _taps: taps,
        }
    }

    fn cache(
        world: &Arc<World>,
        process: Process,
        chaos: &Arc<ChaosStore>,
        schema: u32,
        clock: &ManualClock,
        has_groups: bool,
    ) -> SimulatedCache {
        let format = Format::new(EightBytes).schema(schema);
        let level = SecondLevel::with(chaos.clone(), namespace(), format, EightBytes);
        let (spawns, hears) = (world.clone(), world.clone());
        let builder = match has_groups {
            true => Cache::builder().group_by(|_| [GROUP]),
            false => Cache::builder(),
        };
        let built = builder
            .capacity(CAPACITY)
            .clock(clock)
            .hasher(Fixed::default())
            .fresh_for(duration(claims::FRESH))
            .stale_for(duration(claims::STALE))
            .not_found_for(duration(claims::NOT_FOUND))
            .load_timeout(duration(claims::LOAD_TIMEOUT))
            .backoff(Duration::from_millis(100), Duration::from_secs(1))
            .beta(0.0)
            .on_removal(move |key: &Key, left: &Value, cause| {
                hears.with(|state| state.removed(process, *key, number(left), cause));
            })
            .store(level.lease(duration(claims::LEASE)))
            .spawner(move |load| spawns.spawn(process, load))
            .loader(OriginClient {
                world: world.clone(),
                process,
            })
            .build();
        match built {
            Ok(cache) => cache,
            Err(error) => unreachable!("the settings are valid: {error}"),
        }
    }

    /// Moves the clock of the process by this much of the true time.
    pub fn advance(&self, by: Nanos) {
        let drift = by as i64 * self.drift / 1_000_000;
        self.clock
            .advance(duration(by.saturating_add_signed(drift)));
    }

    pub fn read(&self, key: Key) {
        let (world, process, cache) = (self.world.clone(), self.process, self.cache.clone());
        self.run(async move {
            let read = world.with(|state| state.read_began(process, key));
            let found = match cache.get(&key).await {
                Ok(found) if found.freshness().is_fresh() => Found::Fresh(number(&found)),
                Ok(found) => Found::Stale(number(&found)),
                Err(error) if error.is_not_found() => Found::Nothing,
                Err(_) => Found::Error,
            };
            world.with(|state| state.read_ended(read, found));
        });
    }

    /// Inserts or invalidates, and learns in the end whether the store knows it.
    pub fn write(&self, key: Key, is_set: bool) {
        let (world, process, cache) = (self.world.clone(), self.process, self.cache.clone());
        self.run(async move {
            let (write, made) = world.with(|state| state.write_made(process, key, is_set));
            let ended = match made {
                Some(made) => cache.insert_everywhere(key, value(key, made)).await,
                None => cache.invalidate_everywhere(&key).await.map(|_| ()),
            };
            let failed = ended.err().map(|error| error.class());
            world.with(|state| state.log(What::WriteEnded(process, key, write, failed)));
        });
    }

    /// Invalidates the group of all keys, and learns in the end whether the store knows it.
    pub fn invalidate_group(&self) {
        let (world, process, cache) = (self.world.clone(), self.process, self.cache.clone());
        self.run(async move {
            let step = world.with(|state| state.group_invalidated(process));
            let ended = cache.invalidate_group_everywhere(GROUP).await;
            world.with(|state| state.group_told(process, step, ended.is_ok()));
        });
    }

    /// Ends with the cache and all tasks.
    pub fn die(self, tasks: &mut Tasks) {
        let Node {
            cache,
            chaos,
            clock,
            ..
        } = self;
        chaos.disconnect();
        drop(cache);
        tasks.kill(&self.world, self.process, &clock);
    }

    fn run(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.world.spawn(self.process, Box::pin(task));
    }
}
