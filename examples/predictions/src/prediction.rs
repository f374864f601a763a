//! What is cached, how it is computed, and by which limits.
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

/// Names the predictions in a store, and their version.
const NAMESPACE: &str = "predictions:v1";

/// How long it is believed that a pairing has no prediction.
const ABSENT: Duration = Duration::from_secs(60);

/// A load that takes longer is given up; the same as the time limit of a request.
pub const LOAD: Duration = Duration::from_secs(10);

/// How long the fleet waits for a process that died while it computed; and at most a third of it does a shutdown.
const LEASE: Duration = Duration::from_millis(1_500);

/// Who plays at home, and against whom; whether there are such teams only the loader knows.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Pairing {
    pub home: String,
    pub away: String,
}

impl Pairing {
    /// The one that the page watches.
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

/// A forecast, and which computation made it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Prediction {
    pub forecast: Forecast,
    /// Counted by the process that computed it.
    pub computation: u64,
    /// Whether a request was answered with it although it was due: stale, or early.
    ///
    /// A count of the epochs that needed a refresh, made by those who are served and not by the cache.
    #[serde(skip)]
    due: AtomicBool,
}

impl Prediction {
    /// True for the first request that finds it due.
    pub fn becomes_due(&self) -> bool {
        // Looked at before it is written: a crowd on one stale value shares the line.
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

/// Computes predictions, unless it is told to fail.
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
        f.write_str("the loader is broken, on purpose; the page can mend it")
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
        .not_found_for(ABSENT)
        .load_timeout(LOAD)
        .backoff(Duration::from_millis(200), Duration::from_secs(2))
        .beta(args.beta)
        // Requests keep the other half of the cores.
        .threads((cores / 2).max(1))
        // Above it a pairing that nobody asked for yet is refused (503) rather than queued for seconds.
        .queue(1_000)
        .try_compute(move |pairing: &Pairing| loader.load(pairing));
    if let Some(store) = store {
        builder = builder.store(SecondLevel::new(store, NAMESPACE)?.lease(LEASE));
    }
    builder.build()
}
