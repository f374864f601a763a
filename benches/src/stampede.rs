//! Many callers of one key at once, with a load of 20 ms: how many loads run, and how long the
//! callers wait.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Barrier;
use tokio::task::JoinSet;

use crate::callers::{self, Loader, LoadingPeer, WhenStale, Windows};
use crate::ours;
use crate::pairing;
use crate::report::{Figure, Report};
use crate::runtime;

const LOAD: Duration = Duration::from_millis(20);
const FRESH: Duration = Duration::from_millis(60);

pub fn run(report: &mut Report, quick: bool) {
    let rounds = if quick { 3 } else { 9 };
    report.note(
        "stretto is left out: like mini-moka it has no call that loads, so every caller loads",
    );
    report.note("mini-moka has no call that loads either; its rows show the effect");
    for stale in [true, false] {
        let all = callers::all().into_iter();
        let (peers, out): (Vec<LoadingPeer>, Vec<LoadingPeer>) =
            all.partition(|peer| !stale || peer.when_stale != WhenStale::Never);
        for peer in out {
            report.note(&format!(
                "{} is left out of the stale rows: it has no expiry",
                peer.name
            ));
        }
        for count in [100, 10_000] {
            let medians = pairing::paired(peers.len(), rounds, |at| {
                let runtime = runtime::multi(pairing::cores());
                let measured = runtime.block_on(stampede(&peers[at], count, stale));
                runtime.shutdown_background();
                measured
            });
            for (peer, measured) in peers.iter().zip(medians) {
                report.add(figure(peer, count, stale, measured));
            }
        }
    }
}

fn figure(peer: &LoadingPeer, count: usize, stale: bool, measured: [f64; 5]) -> Figure {
    let [loads, p50, p99, max, load] = measured;
    let state = if stale { "stale" } else { "cold" };
    let figure = Figure::new("stampede")
        .text("contender", peer.name)
        .text("state", state)
        .count("callers", count as u64)
        .number("loads", loads)
        .number("p50_ms", p50)
        .number("p99_ms", p99)
        .number("max_ms", max)
        .number("p99_to_load", p99 / load)
        .text(
            "when_stale",
            match peer.when_stale {
                WhenStale::Serves => "serves",
                WhenStale::Blocks => "blocks",
                WhenStale::Never => "no expiry",
            },
        )
        .bar(
            &format!("stampede {state} {count} callers p99"),
            peer.name,
            p99,
            "ms",
        );
    if peer.name != ours::NAME {
        return figure;
    }
    let figure = figure.target(format!("{loads} loads, exactly one"), loads == 1.0);
    match stale {
        true => figure.at_most("p99 to the load", p99 / load, 0.01),
        false => figure.at_most("p99 to the load", p99 / load, 1.05),
    }
}

/// The number of loads; p50, p99 and maximum of the wait of the callers, and the time of the load,
/// in milliseconds.
async fn stampede(peer: &LoadingPeer, count: usize, stale: bool) -> [f64; 5] {
    let loader = Loader::new(LOAD);
    let windows = Windows {
        capacity: 100,
        fresh: FRESH,
        stale: Duration::from_secs(60),
    };
    let cache = (peer.build)(windows, loader.clone());
    if stale {
        cache.clone().call(1).await;
    }
    let gate = Arc::new(Barrier::new(count));
    let mut callers = JoinSet::new();
    let ready = Instant::now() + FRESH + FRESH / 2;
    for _ in 0..count {
        let (cache, gate) = (cache.clone(), gate.clone());
        callers.spawn(async move {
            if stale {
                tokio::time::sleep_until(ready.into()).await;
            }
            gate.wait().await;
            // The time of the call alone: the wait of a task for its first poll is the runtime's.
            let since = Instant::now();
            cache.call(1).await;
            since.elapsed()
        });
    }
    if stale {
        // The load that made the stale value does not count.
        loader.take();
    }
    let mut waits: Vec<Duration> = callers.join_all().await;
    waits.sort();
    // A refresh may still run here.
    tokio::time::sleep(2 * LOAD).await;
    let loads = loader.take();
    let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
    let load = loads.iter().map(|(begun, ended)| *ended - *begun).max();
    let at = |part: f64| ms(waits[((count as f64 * part) as usize).min(count - 1)]);
    [
        loads.len() as f64,
        at(0.5),
        at(0.99),
        at(1.0),
        ms(load.unwrap_or(LOAD)),
    ]
}
