//! The cost of writes: an insert into a full cache, which evicts; an insert that overwrites; and an
//! invalidation.

use std::sync::Arc;
use std::time::Duration;

use crate::contender::{Config, Subject, Timed, typed};
use crate::hit::roomy;
use crate::ours::{self, Get};
use crate::pairing::{self, Lane};
use crate::peers;
use crate::report::{Figure, Report};

/// The number of threads of the targets for many threads.
const MANY: usize = 16;
/// How many keys the threads overwrite.
const OVERWRITTEN: u64 = 1_000;

struct Plan {
    rounds: usize,
    /// How many threads write at once.
    threads: Vec<usize>,
    /// A round of one thread writes at most so many keys, for at most this time.
    count: u64,
    longest: Duration,
    /// How many keys each thread invalidates in a round.
    invalidated: u64,
    /// The capacity of the caches that evict.
    capacity: usize,
}

pub fn run(report: &mut Report, quick: bool, threads: Option<&[usize]>) {
    let default = || {
        let mut threads = vec![1, 2, pairing::cores()];
        threads.sort_unstable();
        threads.dedup();
        threads
    };
    let threads = threads.map_or_else(default, <[usize]>::to_vec);
    let plan = match quick {
        true => Plan {
            rounds: 3,
            threads,
            count: 100_000,
            longest: Duration::from_millis(30),
            invalidated: 10_000,
            capacity: 20_000,
        },
        false => Plan {
            rounds: 9,
            threads,
            count: 1_000_000,
            longest: Duration::from_millis(200),
            invalidated: 50_000,
            capacity: 100_000,
        },
    };
    report.note(peers::WITHOUT_CACHEFLIGHT);
    report.note(
        "stretto inserts later, on a thread of its own, and may refuse: its figure is the wait of \
         the caller",
    );
    report.note(peers::WITHOUT_AMALGAM);
    evict(report, &plan);
    overwrite(report, &plan);
    invalidate(report, &plan);
}

fn lanes(config: &Config) -> Vec<Lane<dyn Subject>> {
    let ours = Get(ours::build::<Arc<[u8; 64]>>(config));
    let mut lanes: Vec<Lane<dyn Subject>> = vec![Lane::new(ours::NAME, typed(ours))];
    for peer in peers::evicting::<Arc<[u8; 64]>>() {
        lanes.push(Lane::new(peer.name, (peer.build)(config)));
    }
    lanes
}

/// Every key is new, and evicts another one.
fn evict(report: &mut Report, plan: &Plan) {
    let config = Config::lasting(plan.capacity);
    let mut lanes = lanes(&config);
    let weighed = Get(ours::build_weighed::<Arc<[u8; 64]>>(&config));
    lanes.insert(1, Lane::new(ours::WEIGHED, typed(weighed)));
    let full: Vec<u64> = (0..plan.capacity as u64 * 5 / 4).collect();
    for lane in &lanes {
        pairing::on_threads(1, |_, gate| {
            lane.subject.inserts(&full, Duration::from_secs(5), gate)
        });
    }
    let mut from = full.len() as u64;
    measure(report, plan, "evict", &lanes, |subject, threads| {
        from += threads as u64 * plan.count;
        pairing::on_threads(threads, |thread, gate| {
            let from = from + thread as u64 * plan.count;
            let keys: Vec<u64> = (from..from + plan.count).collect();
            subject.inserts(&keys, plan.longest, gate)
        })
    });
}

/// All threads write the same keys, which stay resident. Each begins with another one.
fn overwrite(report: &mut Report, plan: &Plan) {
    let lanes = lanes(&roomy(OVERWRITTEN));
    for lane in &lanes {
        lane.subject.fill(OVERWRITTEN);
    }
    measure(report, plan, "overwrite", &lanes, |subject, threads| {
        pairing::on_threads(threads, |thread, gate| {
            let from = OVERWRITTEN * thread as u64 / threads as u64;
            // A step that has no common divisor with the number of keys: neighbours do not follow
            // each other.
            let keys = (from..from + plan.count).map(|n| n * 617 % OVERWRITTEN);
            subject.inserts(&keys.collect::<Vec<_>>(), plan.longest, gate)
        })
    });
}

/// Each thread invalidates keys of its own, which it inserted before.
fn invalidate(report: &mut Report, plan: &Plan) {
    let most = plan.threads.iter().max().copied().unwrap_or(1) as u64;
    let lanes = lanes(&roomy(most * plan.invalidated));
    measure(report, plan, "invalidate", &lanes, |subject, threads| {
        pairing::on_threads(threads, |thread, gate| {
            let from = thread as u64 * plan.invalidated;
            let keys: Vec<u64> = (from..from + plan.invalidated).collect();
            subject.invalidates(&keys, plan.longest, gate)
        })
    });
}

fn measure(
    report: &mut Report,
    plan: &Plan,
    what: &str,
    lanes: &[Lane<dyn Subject>],
    mut write: impl FnMut(&dyn Subject, usize) -> Timed,
) {
    for &threads in &plan.threads {
        let medians = pairing::paired(lanes.len(), plan.rounds, |at| {
            [write(&*lanes[at].subject, threads).ns]
        });
        let [ours] = medians[0];
        for (lane, [ns]) in lanes.iter().zip(&medians) {
            let ratio = ours / ns;
            let chart = format!("insert, {what}, {threads} threads");
            let figure = Figure::new("insert")
                .text("contender", &lane.name)
                .text("what", what)
                .threads(threads)
                .number("ns", *ns)
                .number("ratio", ratio)
                .bar(&chart, &lane.name, *ns, "ns");
            let many = pairing::shows(MANY, threads, &plan.threads);
            report.add(match lane.name.as_str() {
                ours::WEIGHED => figure.at_most("", ns / ours, 1.3),
                "moka" => figure.at_most("", ratio, 0.3),
                "quick_cache" if threads == 2 => figure.at_most("", ratio, 2.0),
                "quick_cache" if many => figure.at_most_with(MANY, "", ratio, 3.0),
                "fibre_cache" if many => figure.at_most_with(MANY, "", ratio, 1.0),
                _ => figure,
            });
        }
    }
}
