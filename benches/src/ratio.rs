//! Hit ratios on real access traces, and the total time of loads when some cost a hundred times as
//! much as others.

use std::path::PathBuf;

use crate::contender::{Config, Subject, typed};
use crate::ours::{self, Present};
use crate::peers;
use crate::policies::{Lru, S3Fifo};
use crate::report::{Figure, Report};
use crate::traces::{self, Trace};

/// Returns whether there was anything to measure.
pub fn run(report: &mut Report, paths: &[PathBuf]) -> bool {
    if paths.is_empty() {
        report.note(
            "ratio skipped: no traces; give --trace PATH or set EVERFRESH_TRACES to a folder of \
             traces",
        );
        return false;
    }
    report
        .note("a key is got, and inserted after a miss, one access after the other on one thread");
    report.note(
        "foyer, stretto, fibre_cache, cacheflight and amalgam-cache are left out: everfresh is \
         compared with the strongest known hit ratios",
    );
    report.note(
        "load_s is the total time of the misses: every tenth key takes 100 ms, the others 1 ms",
    );
    let files = match traces::files(paths) {
        Ok(files) if !files.is_empty() => files,
        Ok(_) => {
            report.note("ratio skipped: there is no trace (*.zst) at the paths given");
            return false;
        }
        Err(error) => {
            report.note(&format!("ratio skipped: {error}"));
            return false;
        }
    };
    let mut whole = true;
    for file in files {
        match traces::read(&file) {
            Ok(trace) => replay_all(report, &trace),
            Err(error) => {
                report.note(&format!("{} skipped: {error}", file.display()));
                whole = false;
            }
        }
    }
    whole
}

/// The hit ratio in percent, and the load time in seconds.
struct Outcome {
    name: &'static str,
    hit_ratio: f64,
    load_time: f64,
}

fn replay_all(report: &mut Report, trace: &Trace) {
    for percent in [1, 5, 20] {
        let capacity = (trace.keys * percent / 100).max(1);
        let outcomes = outcomes(trace, capacity);
        let of = |name| {
            let found = outcomes.iter().find(|outcome| outcome.name == name);
            found.map_or(0.0, |outcome| outcome.hit_ratio)
        };
        let ours = of(ours::NAME);
        let best = of("moka").max(of("quick_cache")).max(of("s3-fifo"));
        for outcome in &outcomes {
            let figure = Figure::new("ratio")
                .text("trace", &trace.name)
                .count("capacity", capacity as u64)
                .text("contender", outcome.name)
                .number("hit_ratio", outcome.hit_ratio)
                .number("load_s", outcome.load_time)
                .bar(
                    &format!("hit ratio {} {capacity}", trace.name),
                    outcome.name,
                    outcome.hit_ratio,
                    "%",
                );
            report.add(match (outcome.name, trace.name.as_str()) {
                (ours::WEIGHED, _) => figure.at_most("points below", ours - outcome.hit_ratio, 1.0),
                (ours::NAME, "web12" | "orm-busy" | "OLTP") => {
                    figure.at_most("points below the best", best - ours, 0.3)
                }
                (ours::NAME, "2_pools" | "gli" | "loop" | "multi3") => {
                    figure.at_most("points below moka", of("moka") - ours, 3.0)
                }
                _ => figure,
            });
        }
    }
}

/// Calls back at each miss.
type Replay<'a> = &'a mut dyn FnMut(&mut dyn FnMut(u32));

fn outcomes(trace: &Trace, capacity: usize) -> Vec<Outcome> {
    let config = Config::lasting(capacity);
    let mut outcomes = Vec::new();
    let mut add = |name, replay: Replay| {
        let mut misses = 0u64;
        let mut load_ms = 0u64;
        replay(&mut |key| {
            misses += 1;
            load_ms += cost_ms(key);
        });
        let accesses = trace.accesses.len() as f64;
        outcomes.push(Outcome {
            name,
            hit_ratio: 100.0 * (1.0 - misses as f64 / accesses),
            load_time: load_ms as f64 / 1e3,
        });
    };
    let cache: Box<dyn Subject> = typed::<u64, _>(Present(ours::build(&config)));
    add(ours::NAME, &mut |missed| {
        cache.replay(&trace.accesses, missed)
    });
    let weighed = typed::<u64, _>(Present(ours::build_weighed(&config)));
    add(ours::WEIGHED, &mut |missed| {
        weighed.replay(&trace.accesses, missed)
    });
    for peer in peers::peers::<u64>() {
        if ["moka", "mini-moka", "quick_cache"].contains(&peer.name) {
            let cache = (peer.build)(&config);
            add(peer.name, &mut |missed| {
                cache.replay(&trace.accesses, missed)
            });
        }
    }
    let mut exact = S3Fifo::new(capacity);
    add("s3-fifo", &mut |missed| {
        let misses = trace.accesses.iter().filter(|key| !exact.access(**key));
        misses.for_each(|key| missed(*key));
    });
    let mut lru = Lru::new(capacity);
    add("lru", &mut |missed| {
        let misses = trace.accesses.iter().filter(|key| !lru.access(**key));
        misses.for_each(|key| missed(*key));
    });
    outcomes
}

/// Depends on the key only, so that every run has the same cost.
fn cost_ms(key: u32) -> u64 {
    match key.wrapping_mul(0x9e37_79b1) >> 16 {
        mixed if mixed % 10 == 0 => 100,
        _ => 1,
    }
}
