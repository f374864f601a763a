//! The cost of an insert into a full cache, which evicts.

use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use crate::contender::{Config, Subject, typed};
use crate::ours::{self, Get};
use crate::pairing::{self, Lane};
use crate::peers;
use crate::report::{Figure, Report};

pub fn run(report: &mut Report, quick: bool) {
    let (rounds, count, capacity, longest) = match quick {
        true => (3, 100_000, 20_000, Duration::from_millis(30)),
        false => (9, 1_000_000, 100_000, Duration::from_millis(200)),
    };
    report.note(peers::WITHOUT_CACHEFLIGHT);
    report.note(
        "stretto inserts later, on a thread of its own, and may refuse: its figure is the wait of \
         the caller",
    );
    report.note(
        "each round ends after a fixed time, not after a number of inserts, because amalgam-cache \
         sorts all its entries to evict",
    );
    let config = Config::lasting(capacity);
    let ours = Get(ours::build::<Arc<[u8; 64]>>(&config));
    let weighed = Get(ours::build_weighed::<Arc<[u8; 64]>>(&config));
    let mut lanes: Vec<Lane<dyn Subject>> = vec![
        Lane::new(ours::NAME, typed(ours)),
        Lane::new(ours::WEIGHED, typed(weighed)),
    ];
    for peer in peers::peers::<Arc<[u8; 64]>>() {
        lanes.push(Lane::new(peer.name, (peer.build)(&config)));
    }
    let full = capacity as u64 + capacity as u64 / 4;
    for lane in &lanes {
        pairing::insert(&*lane.subject, 1, 0, full, Duration::from_secs(5));
    }
    let mut from = full;
    for threads in [1, 2] {
        let medians = pairing::paired(lanes.len(), rounds, |at| {
            from += threads as u64 * count;
            [pairing::insert(&*lanes[at].subject, threads, from, count, longest).ns]
        });
        let [ours] = medians[0];
        for (lane, [ns]) in lanes.iter().zip(&medians) {
            let figure = Figure::new("insert")
                .text("contender", &lane.name)
                .count("capacity", capacity as u64)
                .count("threads", threads as u64)
                .number("ns", *ns)
                .number("ratio", ours / ns)
                .bar(
                    &format!("insert and evict {threads} threads"),
                    &lane.name,
                    *ns,
                    "ns",
                );
            report.add(match lane.name.as_str() {
                ours::WEIGHED => figure.at_most("", ns / ours, 1.3),
                "moka" => figure.at_most("", ours / ns, 0.5),
                "quick_cache" => figure.at_most("", ours / ns, 1.3),
                _ => figure,
            });
        }
    }
    drop(lanes);
    dropped(report, quick);
}

/// The cost of dropping an empty cache after many threads have used another one.
fn dropped(report: &mut Report, quick: bool) {
    let threads = if quick { 100 } else { 1_000 };
    let other = ours::build::<u64>(&Config::lasting(10));
    let gate = Barrier::new(threads);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                // All threads read before any of them ends, so that each has a place of its own.
                other.get_if_present(&0);
                gate.wait();
            });
        }
    });
    for capacity in [10_000, 1_000_000] {
        let times = (0..5).map(|_| {
            let cache = ours::build::<u64>(&Config::lasting(capacity));
            let since = Instant::now();
            drop(cache);
            since.elapsed().as_secs_f64() * 1e3
        });
        let ms = pairing::median(times.collect());
        let figure = Figure::new("drop")
            .count("capacity", capacity as u64)
            .count("threads_before", threads as u64)
            .number("ms", ms);
        report.add(figure.at_most("ms", ms, 50.0));
    }
}
