//! The cost of a hit on a value with groups, and, with a server, the time until a group is
//! invalidated in all caches that share it.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use dev_support::redis::Server;
use everfresh::Cache;

use crate::contender::{Config, Subject, typed};
use crate::hit;
use crate::ours::Get;
use crate::pairing;
use crate::report::{Figure, Report};
use crate::runtime;
use crate::store;

type Bytes = Arc<[u8; 64]>;

/// The caches that share a server.
const CACHES: usize = 4;
const ROUNDS: usize = 1_000;

pub fn run(report: &mut Report, quick: bool) {
    for keys in [1_000, 100_000] {
        hits(report, quick, keys);
    }
    match Server::start() {
        Ok(server) => {
            if let Err(problem) = everywhere(report, &server) {
                report.note(&format!("invalidation everywhere: {problem}"));
            }
        }
        Err(missing) => report.note(&format!("invalidation everywhere skipped: {missing}")),
    }
}

fn hits(report: &mut Report, quick: bool, keys: u64) {
    let (rounds, window) = match quick {
        true => (9, Duration::from_millis(20)),
        false => (21, Duration::from_millis(100)),
    };
    let config = hit::roomy(keys);
    let lanes: [(&str, u64, Box<dyn Subject>); 4] = [
        ("none", 0, subject(&config, |_| [])),
        ("one", 16, subject(&config, |n| [n % 16])),
        ("one", 4_096, subject(&config, |n| [n % 4_096])),
        (
            "three",
            4_096,
            subject(&config, |n| {
                [n % 1_365, 2_000 + n % 1_365, 4_000 + n % 1_366]
            }),
        ),
    ];
    for (_, _, lane) in &lanes {
        lane.fill(keys);
    }
    let sequences = pairing::sequences(keys, 1, if quick { 1 << 17 } else { 1 << 20 });
    let medians = pairing::paired(lanes.len(), rounds, |at| {
        let timed = pairing::read(&*lanes[at].2, &sequences, window);
        [timed.ns, timed.misses as f64]
    });
    let without = medians[0][0];
    for ((groups, in_use, _), [ns, misses]) in lanes.iter().zip(&medians) {
        if *misses > 0.0 {
            report.note(&format!("{misses} misses with groups: {groups}"));
        }
        let figure = Figure::new("groups")
            .text("groups", *groups)
            .count("in_use", *in_use)
            .count("keys", keys)
            .threads(1)
            .number("ns", *ns)
            .number("ratio", ns / without);
        report.add(match *groups {
            "one" => figure.at_most("to none", ns / without, 1.1),
            _ => figure,
        });
    }
}

/// A cache whose keys are in these groups. Another group was invalidated, because until then a hit
/// has no number to compare.
fn subject<const N: usize>(config: &Config, groups: fn(u64) -> [u64; N]) -> Box<dyn Subject> {
    let cache: Cache<u64, Bytes> = Cache::builder()
        .capacity(config.capacity)
        .fresh_for(config.ttl)
        .stale_for(config.ttl)
        .group_by(move |n: &u64| groups(*n))
        .compute(|n: &u64| Arc::new([*n as u8; 64]))
        .build()
        .expect("the settings are valid");
    cache.invalidate_group(u64::MAX);
    typed(Get(cache))
}

/// The time from an invalidation until the last cache no longer serves the value.
fn everywhere(report: &mut Report, server: &Server) -> Result<(), String> {
    let runtime = runtime::multi(1);
    let truth = Arc::new(AtomicU64::new(0));
    let mut caches = Vec::new();
    for _ in 0..CACHES {
        let (store, level) = store::connect::<u64>(&server.url())?;
        let truth = truth.clone();
        let cache: Cache<u64, u64> = Cache::builder()
            .fresh_for(Duration::from_secs(3_600))
            .store(level)
            .group_by(|_| [7])
            .compute(move |_: &u64| truth.load(Ordering::SeqCst))
            .build()
            .map_err(|error| error.to_string())?;
        caches.push((cache, store));
    }
    let mut took = Vec::new();
    for round in 0..ROUNDS {
        let old = truth.load(Ordering::SeqCst);
        for (cache, _) in &caches {
            let value = cache.get_blocking(&0).map_err(|error| error.to_string())?;
            if *value != old {
                return Err(format!("a cache serves {} after an invalidation", *value));
            }
        }
        truth.store(old + 1, Ordering::SeqCst);
        let (first, _) = &caches[round % CACHES];
        let since = Instant::now();
        let mut told = pin!(first.invalidate_group_everywhere(7));
        // The first poll sends it. Caches need not wait until the first one has the answer.
        let polled = (told.as_mut()).poll(&mut Context::from_waker(Waker::noop()));
        while caches.iter().any(|(cache, _)| cache.contains_key(&0)) {
            if since.elapsed() > Duration::from_secs(10) {
                return Err("a cache is never told".to_owned());
            }
            thread::yield_now();
        }
        took.push(since.elapsed());
        let told = match polled {
            Poll::Ready(told) => told,
            Poll::Pending => runtime.block_on(told),
        };
        told.map_err(|error| error.to_string())?;
    }
    took.sort_unstable();
    let ms = |at: usize| took[at].as_secs_f64() * 1e3;
    let p99 = ms(ROUNDS * 99 / 100);
    let figure = Figure::new("groups")
        .text("invalidation", "everywhere")
        .count("caches", CACHES as u64)
        .count("rounds", ROUNDS as u64)
        .number("p50_ms", ms(ROUNDS / 2))
        .number("p99_ms", p99)
        .number("max_ms", ms(ROUNDS - 1));
    report.add(figure.at_most("p99 in ms", p99, 2.0));
    Ok(())
}
