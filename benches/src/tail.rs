//! How long the slowest hits take while others insert, evict and refresh.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::contender::{Config, Subject, typed};
use crate::ours::{self, Get};
use crate::pairing::{self, Lane};
use crate::peers;
use crate::report::{Figure, Report};

/// The work of one thread: reads of these keys; every tenth operation inserts a new key.
pub struct Mix {
    pub reads: Vec<u64>,
    pub inserts_from: u64,
    pub until: Instant,
}

const SUB_BITS: u32 = 5;

/// Counts durations in steps of 3 % or finer.
pub struct Histogram(Vec<u64>);

impl Histogram {
    pub fn new() -> Self {
        Histogram(vec![0; 64 << SUB_BITS])
    }

    #[inline]
    pub fn add(&mut self, took: Duration) {
        let ns = took.as_nanos() as u64;
        let shift = (u64::BITS - ns.leading_zeros()).saturating_sub(SUB_BITS + 1);
        self.0[(u64::from(shift << SUB_BITS) + (ns >> shift)) as usize] += 1;
    }

    fn merge(&mut self, other: &Histogram) {
        for (count, more) in self.0.iter_mut().zip(&other.0) {
            *count += more;
        }
    }

    /// The upper end, in nanoseconds, of the step that contains this quantile.
    fn quantile(&self, part: f64) -> f64 {
        let wanted = (self.0.iter().sum::<u64>() as f64 * part).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (at, count) in self.0.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                let shift = (at >> SUB_BITS).saturating_sub(1) as u32;
                let low = (at as u64 - u64::from(shift << SUB_BITS)) << shift;
                return (low + (1 << shift) - 1) as f64;
            }
        }
        0.0
    }
}

const CAPACITY: usize = 20_000;
/// The time to live, and the soft limit of everfresh: every value is refreshed, or expires, this
/// often.
const TTL: Duration = Duration::from_millis(500);

pub fn run(report: &mut Report, quick: bool) {
    let config = Config {
        capacity: CAPACITY,
        ttl: TTL,
    };
    let (rounds, length) = match quick {
        true => (2, Duration::from_millis(300)),
        false => (5, Duration::from_secs(3)),
    };
    report.note(peers::WITHOUT_CACHEFLIGHT);
    report.note("quick_cache and foyer have no expiry: their hits are measured without refreshes");
    let mut lanes: Vec<Lane<dyn Subject>> = vec![Lane::new(
        ours::NAME,
        typed(Get(ours::build::<Arc<[u8; 64]>>(&config))),
    )];
    for peer in peers::peers::<Arc<[u8; 64]>>() {
        lanes.push(Lane::new(peer.name, (peer.build)(&config)));
    }
    let threads = pairing::cores();
    let keys = pairing::sequences(CAPACITY as u64, threads, 1 << 16);
    for lane in &lanes {
        lane.subject.fill(CAPACITY as u64 / 2);
    }
    let mut inserted = CAPACITY as u64;
    let quantiles = pairing::paired(lanes.len(), rounds, |at| {
        let mut all = Histogram::new();
        let until = Instant::now() + length;
        let parts: Vec<Histogram> = thread::scope(|scope| {
            let running: Vec<_> = (0..threads)
                .map(|thread| {
                    let mix = Mix {
                        reads: keys[thread].clone(),
                        inserts_from: inserted + thread as u64 * 1_000_000_000,
                        until,
                    };
                    let subject = &*lanes[at].subject;
                    scope.spawn(move || {
                        pairing::settle_on_core(thread);
                        let mut hits = Histogram::new();
                        subject.tail(&mix, &mut hits);
                        hits
                    })
                })
                .collect();
            let parts = running.into_iter().map(pairing::join);
            parts.collect()
        });
        inserted += 1_000_000;
        parts.iter().for_each(|part| all.merge(part));
        [0.99, 0.999, 0.9999, 1.0].map(|part| all.quantile(part))
    });
    let of = |name: &str| {
        let at = lanes.iter().position(|lane| lane.name == name);
        quantiles[at.expect("it is among the lanes")][1]
    };
    let ours = quantiles[0][1];
    for (lane, [p99, p999, p9999, max]) in lanes.iter().zip(&quantiles) {
        let figure = Figure::new("tail")
            .text("contender", &lane.name)
            .threads(threads)
            .number("p99_ns", *p99)
            .number("p999_ns", *p999)
            .number("p9999_ns", *p9999)
            .number("max_ns", *max)
            .number("ratio", ours / p999)
            .bar("tail p99.9", &lane.name, *p999, "ns");
        let figure = match lane.name.as_str() {
            "moka" => figure.at_most("p99.9 to moka", ours / of("moka"), 0.5),
            "quick_cache" => figure.at_most("p99.9 to quick_cache", ours / of("quick_cache"), 1.0),
            _ => figure,
        };
        report.add(figure);
    }
}
