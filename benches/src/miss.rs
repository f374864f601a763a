//! The cost of a cold read: every key is new, so every read loads, and evicts.

use std::ops::Range;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use everfresh::Cache;
use quick_cache::sync::Cache as QuickCache;
use tokio::task::JoinSet;

use crate::callers::{self, Bytes, Loader, LoadingPeer, Windows, spin};
use crate::contender::{Timed, Value, per_operation};
use crate::ours;
use crate::pairing;
use crate::report::{Figure, Report};
use crate::runtime;

const CAPACITY: usize = 10_000;
const HOUR: Duration = Duration::from_secs(3_600);
const WINDOWS: Windows = Windows {
    capacity: CAPACITY,
    fresh: HOUR,
    stale: HOUR,
};

/// The peers that have a call that loads for threads and for tasks.
const PEERS: [&str; 4] = [ours::NAME, "moka", "quick_cache", "fibre_cache"];

const ON_CALLER: &str = "everfresh, run_on_caller";

/// The contenders for threads.
const ON_THREADS: [&str; 5] = [PEERS[0], PEERS[1], PEERS[2], PEERS[3], ON_CALLER];

struct Plan {
    takes: Duration,
    callers: usize,
    rounds: usize,
    window: Duration,
}

pub fn run(report: &mut Report, quick: bool) {
    report.note("foyer, cacheflight and amalgam-cache load from tasks only: see stampede");
    report.note("a loader of 10 µs works for that long; it does not sleep");
    let mut counts = vec![1];
    while counts
        .last()
        .is_some_and(|last| last * 2 <= pairing::cores())
    {
        counts.extend(counts.last().map(|last| last * 2));
    }
    for takes in [Duration::ZERO, Duration::from_micros(10)] {
        for &callers in &counts {
            let plan = Plan {
                takes,
                callers,
                rounds: if quick { 3 } else { 9 },
                window: Duration::from_millis(if quick { 20 } else { 200 }),
            };
            on_threads(report, &plan);
            on_tasks(report, &plan);
        }
    }
}

trait Colds: Sync {
    /// Reads consecutive keys, for at most this time.
    fn colds(&self, keys: Range<u64>, longest: Duration, gate: &Barrier) -> Timed;
}

impl<F: Fn(u64) -> u8 + Sync> Colds for F {
    fn colds(&self, keys: Range<u64>, longest: Duration, gate: &Barrier) -> Timed {
        gate.wait();
        let since = Instant::now();
        let mut done = 0;
        for n in keys {
            std::hint::black_box(self(n));
            done += 1;
            if done % 16 == 0 && since.elapsed() > longest {
                break;
            }
        }
        Timed {
            ns: per_operation(since, done),
            misses: done as u64,
        }
    }
}

fn load(takes: Duration, n: u64) -> Bytes {
    spin(takes);
    Bytes::make(n)
}

/// The contenders for threads, in the order of [`ON_THREADS`].
fn contenders(takes: Duration) -> [Box<dyn Colds>; 5] {
    let ours = |run_on_caller| {
        Cache::builder()
            .capacity(CAPACITY)
            .fresh_for(HOUR)
            .stale_for(HOUR)
            .run_on_caller(run_on_caller)
            .compute(move |n: &u64| load(takes, *n))
            .build()
            .expect("the settings are valid")
    };
    let (ours, on_caller) = (ours(false), ours(true));
    // Starts the pool here, because its threads inherit the core of the thread that starts them.
    ours.get_blocking(&u64::MAX).expect("the load succeeds");
    let moka = moka::sync::Cache::builder()
        .max_capacity(CAPACITY as u64)
        .time_to_live(HOUR)
        .build();
    let quick = QuickCache::<u64, Bytes>::new(CAPACITY);
    let fibre = fibre_cache::CacheBuilder::default()
        .capacity(CAPACITY as u64)
        .time_to_live(HOUR)
        .loader(move |n: u64| (load(takes, n), 1))
        .build()
        .expect("the settings are valid");
    [
        Box::new(move |n| ours.get_blocking(&n).map_or(0, |cached| cached.first())),
        Box::new(move |n| moka.get_with(n, || load(takes, n)).first()),
        Box::new(move |n| {
            let loaded = quick.get_or_insert_with(&n, || Ok::<_, ()>(load(takes, n)));
            loaded.map_or(0, |value| value.first())
        }),
        Box::new(move |n| fibre.fetch_with(&n).first()),
        Box::new(move |n| {
            on_caller
                .get_blocking(&n)
                .map_or(0, |cached| cached.first())
        }),
    ]
}

fn on_threads(report: &mut Report, plan: &Plan) {
    let contenders = contenders(plan.takes);
    let mut from = 0;
    let medians = pairing::paired(contenders.len(), plan.rounds, |at| {
        from += 1 << 32;
        let timed = pairing::on_threads(plan.callers, |thread, gate| {
            let from = from + ((thread as u64) << 24);
            contenders[at].colds(from..from + (1 << 24), plan.window, gate)
        });
        [timed.ns]
    });
    add(report, plan, "threads", &ON_THREADS, &medians);
}

fn on_tasks(report: &mut Report, plan: &Plan) {
    let runtime = runtime::multi(pairing::cores());
    let _within = runtime.enter();
    let peers: Vec<LoadingPeer> = callers::all()
        .into_iter()
        .filter(|peer| PEERS.contains(&peer.name))
        .collect();
    let caches: Vec<_> = peers
        .iter()
        .map(|peer| (peer.build)(WINDOWS, Loader::spinning(plan.takes)))
        .collect();
    let mut from = 0;
    let medians = pairing::paired(caches.len(), plan.rounds, |at| {
        from += 1 << 32;
        let tasks: JoinSet<f64> = (0..plan.callers as u64)
            .map(|task| {
                let from = from + (task << 24);
                let keys = from..from + (1 << 24);
                caches[at].clone().colds(keys, plan.window)
            })
            .collect();
        let parts = runtime.block_on(tasks.join_all());
        [parts.iter().sum::<f64>() / plan.callers as f64]
    });
    add(report, plan, "tasks", &PEERS, &medians);
    drop(caches);
    runtime.shutdown_background();
}

fn add(report: &mut Report, plan: &Plan, by: &str, names: &[&str], medians: &[[f64; 1]]) {
    let ([ours], [moka]) = (medians[0], medians[1]);
    let takes = plan.takes.as_micros() as u64;
    for (&name, [ns]) in names.iter().zip(medians) {
        let figure = Figure::new("miss")
            .text("contender", name)
            .text("by", by)
            .count("load_us", takes)
            .count("callers", plan.callers as u64)
            .number("ns", *ns)
            .number("ratio", ours / ns)
            .bar(
                &format!("miss {takes} µs {} {by}", plan.callers),
                name,
                *ns,
                "ns",
            );
        report.add(match (name, by, takes, plan.callers) {
            (ours::NAME, "threads", 0, 1) => figure.at_most("ns", *ns, 6_000.0),
            (ON_CALLER, _, 0, 1) => figure.at_most("of moka", ns / moka, 1.2),
            (ON_CALLER, _, 0, 16..) => figure.at_most("of moka", ns / moka, 0.5),
            ("moka", "tasks", ..) => figure.at_most("", ours / ns, 1.0),
            _ => figure,
        });
    }
}
