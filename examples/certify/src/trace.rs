//! Real accesses, replayed at a steady pace against a short soft limit, once for each policy.
//!
//! All four policies run on the same table, so that they differ only in their behaviour at a value
//! past its soft limit. Every key is loaded once before, so the measurement covers refreshes and
//! not first loads.
use std::collections::HashSet;
use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use dev_support::quantile::quantile;
use dev_support::report::{Table, grouped, micros, time, verdict};
use everfresh::{BuildError, Cache, Error, Source};
use ruzstd::decoding::StreamingDecoder;
use serde_json::{Value, json};

use crate::report::{Part, Progress, percent};
use crate::spread::Spread;

/// The most accesses that are replayed, from the beginning of the trace.
const ACCESSES: usize = 60_000;
/// The threads that access in turn.
const THREADS: usize = 16;
/// The time between two accesses, over all threads.
const PACE: Duration = Duration::from_micros(33);
/// The time of a load: a wait, as for a database.
pub const LOAD: Duration = Duration::from_millis(1);
const SOFT: Duration = Duration::from_millis(250);
/// Longer than a replay, so that values past their soft limit are stale and never expired.
const HARD: Duration = Duration::from_secs(60);
const LOADERS: usize = 32;

/// Reads the beginning of a trace: zstd, keys as little-endian u32.
pub fn read(path: &Path) -> Result<Vec<u32>, PayloadError> {
    let mut file = BufReader::new(File::open(path).map_err(PayloadError::because)?);
    file.fill_buf().map_err(PayloadError::because)?;
    let not_zstd = |_| PayloadError("it is not compressed with zstd".to_owned());
    let decoder = StreamingDecoder::new(file).map_err(not_zstd)?;
    let mut bytes = Vec::new();
    decoder
        .take(4 * ACCESSES as u64)
        .read_to_end(&mut bytes)
        .map_err(PayloadError::because)?;
    let keys = bytes.chunks_exact(4);
    if !keys.remainder().is_empty() {
        return Err(PayloadError("it ends in the middle of a key".to_owned()));
    }
    let keys: Vec<u32> = keys
        .map(|key| u32::from_le_bytes([key[0], key[1], key[2], key[3]]))
        .collect();
    match keys.is_empty() {
        true => Err(PayloadError("it has no accesses".to_owned())),
        false => Ok(keys),
    }
}

/// Why a trace cannot be replayed.
pub struct PayloadError(String);

impl PayloadError {
    fn because(error: impl fmt::Display) -> Self {
        PayloadError(error.to_string())
    }
}

impl fmt::Display for PayloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Policy {
    /// Past the soft limit every caller loads for itself.
    Ttl,
    /// Past the soft limit one caller loads and the rest wait for it.
    Coalescing,
    /// Past the soft limit the stale value is served and one refresh runs.
    Stale { beta: f64 },
}

const POLICIES: [(&str, Policy); 4] = [
    ("plain TTL", Policy::Ttl),
    ("TTL with coalescing", Policy::Coalescing),
    ("stale-while-revalidate", Policy::Stale { beta: 0.0 }),
    (
        "stale-while-revalidate, X-Fetch",
        Policy::Stale { beta: 1.0 },
    ),
];

pub struct TraceRow {
    pub name: &'static str,
    pub accesses: usize,
    pub loads: usize,
    pub waited: usize,
    pub failed: usize,
    pub stale: usize,
    pub early: usize,
    pub p50: Duration,
    pub p99: Duration,
    pub p999: Duration,
    pub spread: Spread,
    /// A verdict for the policies of everfresh only: no caller waits, no caller fails.
    pub pass: Option<bool>,
}

pub fn measure(keys: &[u32], progress: &Progress) -> Result<Vec<TraceRow>, BuildError> {
    let mut rows = Vec::with_capacity(POLICIES.len());
    for (name, policy) in POLICIES {
        progress.step(&format!("replay: {name}"), rows.len(), POLICIES.len());
        rows.push(row(name, policy, keys)?);
    }
    progress.clear();
    Ok(rows)
}

fn row(name: &'static str, policy: Policy, keys: &[u32]) -> Result<TraceRow, BuildError> {
    let replay = Replay::new(policy, keys)?;
    let before = replay.loads.load(Ordering::Relaxed);
    let accesses = replay.run(keys);
    let count = |wanted| accesses.iter().filter(|access| access.1 == wanted).count();
    let (waited, failed) = (count(Met::Waited), count(Met::Failed));
    let mut took: Vec<Duration> = accesses.iter().map(|access| access.0).collect();
    took.sort_unstable();
    Ok(TraceRow {
        name,
        accesses: accesses.len(),
        loads: replay.loads.load(Ordering::Relaxed) - before,
        waited,
        failed,
        stale: count(Met::Stale),
        early: count(Met::Early),
        p50: quantile(&took, 0.5),
        p99: quantile(&took, 0.99),
        p999: quantile(&took, 0.999),
        spread: Spread::of(&took),
        pass: matches!(policy, Policy::Stale { .. }).then_some(waited == 0 && failed == 0),
    })
}

/// The outcome of an access.
#[derive(Clone, Copy, PartialEq)]
enum Met {
    Fresh,
    /// Fresh, and this access started a refresh.
    Early,
    Stale,
    Waited,
    Failed,
}

struct Replay {
    policy: Policy,
    cache: Cache<u32, u64>,
    loads: Arc<AtomicUsize>,
}

fn load(key: u32, loads: &AtomicUsize) -> u64 {
    loads.fetch_add(1, Ordering::Relaxed);
    thread::sleep(LOAD);
    u64::from(key)
}

impl Replay {
    /// A cache in which every key was loaded once.
    fn new(policy: Policy, keys: &[u32]) -> Result<Replay, BuildError> {
        let distinct: Vec<u32> = HashSet::<u32>::from_iter(keys.iter().copied())
            .into_iter()
            .collect();
        let (stale_for, beta) = match policy {
            Policy::Ttl | Policy::Coalescing => (Duration::ZERO, 0.0),
            Policy::Stale { beta } => (HARD - SOFT, beta),
        };
        let loads = Arc::new(AtomicUsize::new(0));
        let counted = loads.clone();
        let cache = Cache::builder()
            .name("replay")
            // Room for all keys, so that only age causes loads.
            .capacity(2 * distinct.len())
            .fresh_for(SOFT)
            .stale_for(stale_for)
            .beta(beta)
            // More threads than cores, because these loads only wait.
            .threads(LOADERS)
            .compute(move |key: &u32| load(*key, &counted))
            .build()?;
        thread::scope(|scope| {
            for part in distinct.chunks(distinct.len().div_ceil(LOADERS)) {
                let cache = &cache;
                scope.spawn(move || {
                    for key in part {
                        let _ = cache.get_blocking(key);
                    }
                });
            }
        });
        Ok(Replay {
            policy,
            cache,
            loads,
        })
    }

    fn run(&self, keys: &[u32]) -> Vec<(Duration, Met)> {
        let start = Instant::now();
        let player = |first: usize| {
            let mut accesses = Vec::with_capacity(keys.len().div_ceil(THREADS));
            for at in (first..keys.len()).step_by(THREADS) {
                let due = start + PACE * at as u32;
                if let Some(early) = due.checked_duration_since(Instant::now()) {
                    thread::sleep(early);
                }
                let began = Instant::now();
                let met = self.access(keys[at]);
                accesses.push((began.elapsed(), met));
            }
            accesses
        };
        let player = &player;
        thread::scope(|scope| {
            let players: Vec<_> = (0..THREADS)
                .map(|first| scope.spawn(move || player(first)))
                .collect();
            players
                .into_iter()
                .filter_map(|player| player.join().ok())
                .flatten()
                .collect()
        })
    }

    fn access(&self, key: u32) -> Met {
        if self.policy == Policy::Ttl {
            if self.cache.get_if_present(&key).is_some() {
                return Met::Fresh;
            }
            self.cache.insert(key, load(key, &self.loads));
            return Met::Waited;
        }
        let read: Result<_, Error> = self.cache.get_blocking(&key);
        match read.map(|cached| (*cached, cached.source())) {
            Ok((value, _)) if value != u64::from(key) => Met::Failed,
            Ok((_, Source::Fresh)) => Met::Fresh,
            Ok((_, Source::Early)) => Met::Early,
            Ok((_, Source::Stale | Source::AfterFailure)) => Met::Stale,
            Ok(_) => Met::Waited,
            Err(_) => Met::Failed,
        }
    }
}

impl TraceRow {
    pub fn pass(&self) -> bool {
        self.pass != Some(false)
    }

    pub fn json(&self) -> Value {
        let mut row = json!({
            "name": self.name,
            "accesses": self.accesses,
            "threads": THREADS,
            "loads": self.loads,
            "waited": self.waited,
            "failed": self.failed,
            "stale": self.stale,
            "early": self.early,
            "stale_share": self.stale as f64 / self.accesses.max(1) as f64,
            "p50_us": micros(self.p50),
            "p99_us": micros(self.p99),
            "p999_us": micros(self.p999),
        });
        if let Some(pass) = self.pass {
            row["pass"] = pass.into();
        }
        row
    }
}

pub fn part(rows: &[TraceRow], keys: &[u32], path: &Path) -> Part {
    let lines = rows.iter().map(|row| {
        vec![
            row.name.to_owned(),
            grouped(row.loads),
            grouped(row.waited),
            percent(row.stale, row.accesses),
            grouped(row.early),
            time(row.p50),
            time(row.p99),
            time(row.p999),
            row.pass.map_or("", verdict).to_owned(),
        ]
    });
    let distinct = HashSet::<&u32>::from_iter(keys).len();
    Part {
        title: format!(
            "{} accesses to {} keys from {}",
            grouped(keys.len()),
            grouped(distinct),
            path.display(),
        ),
        lead: format!(
            "{THREADS} threads, one access each {} over all; soft limit {}, a load takes {}; every \
             key was loaded once before.",
            time(PACE),
            time(SOFT),
            time(LOAD),
        ),
        table: Table {
            headers: vec![
                "", "loads", "waited", "stale", "early", "p50", "p99", "p99.9", "",
            ],
            rows: lines.collect(),
            left: &[0],
        },
        notes: vec![
            "waited: accesses that loaded or waited for a load; early: refreshes that X-Fetch \
             started before the soft limit."
                .to_owned(),
            "everfresh (the last two) passes if no access waits".to_owned(),
        ],
        pass: Some(rows.iter().all(TraceRow::pass)),
    }
}
