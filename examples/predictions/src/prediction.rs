//! The cached values, their computation, and their limits.
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dev_support::forecast::{Fixture, Forecast, MATCH, TEAMS, forecast};
use everfresh::SecondLevel;
use everfresh::store::RedisStore;
use everfresh::{BuildError, Cache, Loaded};
use serde::{Deserialize, Serialize};

use crate::args::Args;
use crate::tally::Tally;

pub type Predictions = Cache<Pairing, Prediction>;

/// The name of the predictions in a store, and their version.
const NAMESPACE: &str = "predictions:v1";

/// How long the cache remembers that a pairing has no prediction.
const NOT_FOUND: Duration = Duration::from_secs(60);

/// The time limit of a load, equal to that of a request.
pub const LOAD: Duration = Duration::from_secs(10);

/// How long the fleet waits for a process that died during a computation. A shutdown waits at most
/// a third of it.
const LEASE: Duration = Duration::from_millis(1_500);

/// The home team and the away team. Only the loader knows whether they exist.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Pairing {
    pub home: String,
    pub away: String,
}

impl Pairing {
    /// The pairing that the page watches.
    pub fn watched() -> Pairing {
        Pairing {
            home: MATCH.home.to_owned(),
            away: MATCH.away.to_owned(),
        }
    }

    fn is_watched(&self) -> bool {
        self.home == MATCH.home && self.away == MATCH.away
    }

    fn fixture(&self) -> Option<Fixture> {
        let team = |wanted: &str| {
            let found = TEAMS.iter().find(|(name, ..)| *name == wanted);
            found.map(|(name, ..)| *name)
        };
        Some(Fixture {
            home: team(&self.home)?,
            away: team(&self.away)?,
        })
    }
}

/// A forecast, and the number of its computation.
#[derive(Debug, Serialize, Deserialize)]
pub struct Prediction {
    pub forecast: Forecast,
    /// Numbered by the process that computed it.
    pub computation: u64,
    /// Whether a request was answered with this value although it was due: stale, or early.
    ///
    /// It counts the epochs that needed a refresh from the side of the requests, independent of the
    /// cache.
    #[serde(skip)]
    due: AtomicBool,
}

impl Prediction {
    /// True for the first request that finds the value due.
    pub fn becomes_due(&self) -> bool {
        // Read before it is written, because a crowd on one stale value shares the cache line.
        !self.due.load(Ordering::Relaxed) && !self.due.swap(true, Ordering::Relaxed)
    }

    /// The same prediction as a new epoch that is stale from the start.
    pub fn gone_stale(&self) -> Loaded<Prediction> {
        let same = Prediction {
            forecast: self.forecast.clone(),
            computation: self.computation,
            due: AtomicBool::new(false),
        };
        Loaded::new(same).fresh_for(Duration::ZERO)
    }
}

/// Computes predictions, or fails on request.
pub struct Loader {
    simulations: u32,
    broken: AtomicBool,
    tally: Arc<Tally>,
}

impl Loader {
    pub fn new(simulations: u32, tally: Arc<Tally>) -> Loader {
        Loader {
            simulations,
            broken: AtomicBool::new(false),
            tally,
        }
    }

    pub fn set_broken(&self, broken: bool) {
        self.broken.store(broken, Ordering::Relaxed);
    }

    pub fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    /// `None` for teams that do not exist.
    fn load(&self, pairing: &Pairing) -> Result<Option<Prediction>, Broken> {
        let Some(fixture) = pairing.fixture() else {
            self.tally.unknown.add();
            return Ok(None);
        };
        let mut computing = self.tally.begin(pairing.is_watched());
        if self.is_broken() {
            return Err(Broken);
        }
        let forecast = forecast(&fixture, self.simulations);
        Ok(Some(Prediction {
            forecast,
            computation: computing.succeed(),
            due: AtomicBool::new(false),
        }))
    }
}

#[derive(Debug)]
struct Broken;

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the loader is broken on purpose; the page can mend it")
    }
}

impl std::error::Error for Broken {}

/// The cache of the service.
pub fn cache(
    args: &Args,
    loader: Arc<Loader>,
    store: Option<Arc<RedisStore>>,
) -> Result<Predictions, BuildError> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut builder = Cache::builder()
        .name("predictions")
        .capacity(10_000)
        .fresh_for(args.fresh)
        .stale_for(args.stale)
        .not_found_for(NOT_FOUND)
        .load_timeout(LOAD)
        .backoff(Duration::from_millis(200), Duration::from_secs(2))
        .beta(args.beta)
        // Requests keep the other half of the cores.
        .threads((cores / 2).max(1))
        // Above this, a missing pairing is refused (503) instead of queued for seconds.
        .queue(1_000)
        .try_compute(move |pairing: &Pairing| loader.load(pairing));
    if let Some(store) = store {
        builder = builder.store(SecondLevel::new(store, NAMESPACE)?.lease(LEASE));
    }
    builder.build()
}
