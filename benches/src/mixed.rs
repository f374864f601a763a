//! How many operations a second a cache does when reads and inserts are mixed.

use std::sync::Arc;
use std::time::Duration;

use crate::contender::{Config, Subject, typed};
use crate::ours::{self, Present};
use crate::pairing::{self, Lane};
use crate::peers;
use crate::report::{Figure, Report};

/// The number of threads of the targets.
const MANY: usize = 16;

/// The work of one thread: reads of these keys; every so many operations one inserts a new key.
pub struct Mixed {
    pub reads: Vec<u64>,
    pub insert_every: usize,
    pub inserts_from: u64,
}

pub fn run(report: &mut Report, quick: bool, threads: Option<&[usize]>) {
    let list = threads.map_or_else(pairing::up_to_all_cores, <[usize]>::to_vec);
    let (rounds, capacity, window) = match quick {
        true => (3, 20_000, Duration::from_millis(30)),
        false => (9, 100_000, Duration::from_millis(200)),
    };
    report.note(peers::WITHOUT_CACHEFLIGHT);
    report.note(peers::WITHOUT_AMALGAM);
    report.note(
        "reads are of as many keys as the cache has places; a read that misses inserts its key on \
         the same thread, for every contender",
    );
    let config = Config::lasting(capacity);
    for percent in [99, 90, 50] {
        let ours = Present(ours::build::<Arc<[u8; 64]>>(&config));
        let mut lanes: Vec<Lane<dyn Subject>> = vec![Lane::new(ours::NAME, typed(ours))];
        for peer in peers::evicting::<Arc<[u8; 64]>>() {
            lanes.push(Lane::new(peer.name, (peer.build)(&config)));
        }
        for lane in &lanes {
            lane.subject.fill(capacity as u64);
        }
        let mut from = capacity as u64;
        for &threads in &list {
            let reads = pairing::sequences(capacity as u64, threads, 1 << 17);
            let mut mixes: Vec<Mixed> = reads
                .into_iter()
                .map(|reads| Mixed {
                    reads,
                    insert_every: 100 / (100 - percent),
                    inserts_from: 0,
                })
                .collect();
            let medians = pairing::paired(lanes.len(), rounds, |at| {
                for mix in &mut mixes {
                    mix.inserts_from = from;
                    from += 1 << 32;
                }
                round(&*lanes[at].subject, &mixes, window)
            });
            let [ours, _] = medians[0];
            for (lane, [rate, misses]) in lanes.iter().zip(&medians) {
                let chart = format!("mixed {percent} percent reads {threads} threads");
                let figure = Figure::new("mixed")
                    .text("contender", &lane.name)
                    .count("reads_percent", percent as u64)
                    .threads(threads)
                    .number("million_a_second", *rate)
                    .number("missed_percent", *misses)
                    .number("ratio", ours / rate)
                    .bar(&chart, &lane.name, *rate, "million a second");
                let shown = pairing::shows(MANY, threads, &list);
                report.add(match (lane.name.as_str(), percent) {
                    (ours::NAME, _) | ("quick_cache", 50) => figure,
                    _ if shown => figure.at_least_with(MANY, "", ours / rate, 1.0),
                    _ => figure,
                });
            }
        }
    }
}

/// Returns millions of operations a second of all threads, and the part of reads that missed, in
/// percent.
fn round(subject: &dyn Subject, mixes: &[Mixed], window: Duration) -> [f64; 2] {
    let parts = pairing::each_of(mixes.len(), |thread, gate| {
        subject.mixes(&mixes[thread], window, gate)
    });
    let rate: f64 = parts.iter().map(|part| 1e3 / part.ns).sum();
    let operations = rate * window.as_secs_f64() * 1e6;
    let every = mixes[0].insert_every as f64;
    let misses: u64 = parts.iter().map(|part| part.misses).sum();
    [
        rate,
        100.0 * misses as f64 / (operations * (every - 1.0) / every),
    ]
}
