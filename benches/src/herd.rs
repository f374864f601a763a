//! Ten thousand values that become stale together: how many loads run at once, and how long the
//! callers of missing keys wait meanwhile.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::callers::{self, AnyCaller, Loader, WhenStale, Windows};
use crate::ours;
use crate::pairing;
use crate::report::{Figure, Report};
use crate::runtime;

const KEYS: u64 = 10_000;
const LOAD: Duration = Duration::from_millis(5);
/// How many missing keys are read, one after the other, while the refreshes run.
const COLD: u64 = 20;
const STALE: Duration = Duration::from_secs(60);

pub fn run(report: &mut Report, quick: bool) {
    let rounds = if quick { 1 } else { 5 };
    // The first loads must end within it.
    let fresh = Duration::from_secs(2);
    report.note("moka and mini-moka have no stale values: all callers wait for their loads");
    report.note("quick_cache and foyer are left out: they have no expiry");
    let mut peers = callers::all();
    peers.retain(|peer| peer.when_stale != WhenStale::Never);
    peers.insert(1, callers::bounded());
    let windows = Windows {
        capacity: KEYS as usize * 2,
        fresh,
        stale: STALE,
    };
    let medians = pairing::paired(peers.len(), rounds, |at| {
        let runtime = runtime::multi(pairing::cores());
        let measured = runtime.block_on(async {
            // The first loads are free, so that all values are of one age.
            let loader = Loader::free_at_first(LOAD);
            let cache = (peers[at].build)(windows, loader.clone());
            read_all(&cache).join_all().await;
            loader.now_slow();
            tokio::time::sleep(fresh + fresh / 4).await;
            let herd = read_all(&cache);
            let mut waits = Vec::new();
            for n in KEYS..KEYS + COLD {
                let since = Instant::now();
                cache.clone().call(n).await;
                waits.push(since.elapsed().as_secs_f64() * 1e3);
            }
            herd.join_all().await;
            let loads = loader.take();
            let most = most_at_once(&loads);
            // The timer of the runtime is late by about a millisecond.
            let longest = loads.iter().map(|(begun, ended)| *ended - *begun).max();
            let load = longest.unwrap_or(LOAD).as_secs_f64() * 1e3;
            waits.sort_by(f64::total_cmp);
            [
                most as f64,
                waits[COLD as usize / 2],
                waits[COLD as usize - 1],
                load,
            ]
        });
        runtime.shutdown_background();
        measured
    });
    for (peer, [most, p50, max, load]) in peers.iter().zip(medians) {
        let figure = Figure::new("herd")
            .text("contender", peer.name)
            .count("stale", KEYS)
            .number("most_loads", most)
            .number("cold_p50_ms", p50)
            .number("cold_max_ms", max)
            .number("load_ms", load)
            .bar("herd cold p50", peer.name, p50, "ms");
        report.add(match peer.name {
            ours::BOUNDED => figure.at_most("loads at once", most, 8.0).at_most(
                "cold p50 to the load",
                p50 / load,
                2.0,
            ),
            _ => figure,
        });
    }
}

fn read_all(cache: &Arc<dyn AnyCaller>) -> JoinSet<u8> {
    (0..KEYS).map(|n| cache.clone().call(n)).collect()
}

/// The most of these loads that ran at one moment.
fn most_at_once(loads: &[(Instant, Instant)]) -> i64 {
    let begun = loads.iter().map(|(begun, _)| (*begun, 1));
    let ended = loads.iter().map(|(_, ended)| (*ended, -1));
    let mut changes: Vec<(Instant, i64)> = begun.chain(ended).collect();
    changes.sort();
    let mut running = 0;
    let counts = changes.into_iter().map(|(_, change)| {
        running += change;
        running
    });
    counts.max().unwrap_or(0)
}
