//! Unnecessary loads: a hot key that goes stale all the time, read by more threads than cores.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::callers::{self, Loader, LoadingPeer, WhenStale, Windows};
use crate::ours;
use crate::pairing;
use crate::report::{Figure, Report};
use crate::runtime;

const FRESH: Duration = Duration::from_millis(10);

pub fn run(report: &mut Report, quick: bool) {
    let length = Duration::from_secs(if quick { 1 } else { 8 });
    report.note(
        "a load is a duplicate if it begins while another runs, or within half the fresh time \
         after the end of the last",
    );
    report.note(
        "moka, mini-moka, quick_cache, foyer and stretto are left out: they do not refresh stale \
         values",
    );
    let threads = pairing::cores() * 8;
    for takes in [Duration::ZERO, Duration::from_millis(2)] {
        let peers = callers::all().into_iter();
        for peer in peers.filter(|peer| peer.when_stale == WhenStale::Serves) {
            let runtime = runtime::multi(threads);
            let (loads, duplicates) = runtime.block_on(hammer(&peer, takes, threads, length));
            runtime.shutdown_background();
            let share = 100.0 * duplicates as f64 / (loads as f64).max(1.0);
            let figure = Figure::new("duplicates")
                .text("contender", peer.name)
                .count("threads", threads as u64)
                .number("load_ms", takes.as_secs_f64() * 1e3)
                .count("loads", loads)
                .count("duplicates", duplicates)
                .number("percent", share)
                .bar(&format!("duplicate loads {takes:?}"), peer.name, share, "%");
            report.add(match peer.name == ours::NAME {
                true => figure.target("none".to_owned(), duplicates == 0 && loads > 0),
                false => figure,
            });
        }
    }
}

async fn hammer(peer: &LoadingPeer, takes: Duration, tasks: usize, length: Duration) -> (u64, u64) {
    let loader = Loader::new(takes);
    let windows = Windows {
        capacity: 100,
        fresh: FRESH,
        stale: Duration::from_secs(60),
    };
    let cache = (peer.build)(windows, loader.clone());
    cache.clone().call(1).await;
    let until = Instant::now() + length;
    let mut readers = JoinSet::new();
    for _ in 0..tasks {
        let cache = Arc::clone(&cache);
        readers.spawn(async move {
            while Instant::now() < until {
                for _ in 0..64 {
                    cache.clone().call(1).await;
                }
                tokio::task::yield_now().await;
            }
        });
    }
    readers.join_all().await;
    let mut loads = loader.take();
    loads.sort();
    let mut last_end = loads.first().map(|(_, end)| *end);
    let mut duplicates = 0;
    for (begun, ended) in loads.iter().skip(1) {
        if last_end.is_some_and(|end| *begun < end + FRESH / 2) {
            duplicates += 1;
        }
        last_end = last_end.max(Some(*ended));
    }
    (loads.len() as u64, duplicates)
}
