//! The cost of a hit: all keys are resident, nothing expires, keys by zipf 0.99.

use std::sync::Arc;
use std::time::Duration;

use crate::contender::{Config, Reads, Subject, Value, typed};
use crate::ours::{self, Get, One, Pin, Present, Reader};
use crate::pairing::{self, Lane};
use crate::peers::{self, Peer};
use crate::report::{Figure, Report};

/// How many times as long as the fastest peer a `get` may take on one thread.
const FASTEST: f64 = 1.15;

/// The plan of the measurements at one size.
struct Plan {
    bench: &'static str,
    keys: u64,
    threads: Vec<usize>,
    rounds: usize,
    reads: usize,
    window: Duration,
}

pub fn run(report: &mut Report, quick: bool, threads: Option<&[usize]>) {
    let threads = threads.map_or_else(pairing::up_to_all_cores, <[usize]>::to_vec);
    report.note(peers::WITHOUT_CACHEFLIGHT);
    report.note(peers::WITHOUT_HASHERS);
    report.note("quick_cache and foyer have no expiry: their hits check none");
    report.note(
        "pin and Fresh read one value all the time; their ratios at many keys compare that with \
         reads of all keys",
    );
    for keys in [1, 1_000, 100_000, 1_000_000] {
        let plan = |bench| Plan {
            bench,
            keys,
            threads: match keys {
                1 => vec![1],
                _ => threads.clone(),
            },
            rounds: if quick { 3 } else { 9 },
            reads: if quick { 1 << 17 } else { 1 << 20 },
            window: Duration::from_millis(if quick { 10 } else { 50 }),
        };
        // The other hashers and values change little at other sizes, and all of them would take too
        // long for a quick run.
        let all = !quick || keys == 1_000;
        let mut peers = peers::peers::<Arc<[u8; 64]>>();
        if all {
            peers.extend(peers::peers_with_foldhash::<Arc<[u8; 64]>>());
        }
        measure::<Arc<[u8; 64]>>(report, &plan("hit"), &peers);
        if all {
            measure::<[u8; 64]>(report, &plan("hit_inline"), &peers::peers::<[u8; 64]>());
        }
    }
}

/// The tiers of everfresh over one cache, by name.
pub fn tiers<V: Value>(config: &Config, keys: u64) -> Vec<Lane<dyn Reads>> {
    let cache = ours::build::<V>(config);
    typed(Get(cache.clone())).fill(keys);
    vec![
        Lane::new("get", typed(Get(cache.clone()))),
        Lane::new("get_if_present", typed(Present(cache.clone()))),
        Lane::new("reader", Box::new(Reader(cache.clone()))),
        Lane::new("pin", Box::new(Pin(cache))),
        Lane::new("Fresh", Box::new(One(ours::build_one::<V>(config)))),
    ]
}

/// The peers, with these keys resident.
pub fn filled(
    report: &mut Report,
    peers: &[Peer],
    config: &Config,
    keys: u64,
) -> Vec<Lane<dyn Subject>> {
    let mut lanes = Vec::new();
    for peer in peers {
        let subject = (peer.build)(config);
        let missing = subject.fill(keys);
        if missing > 0 {
            report.note(&format!(
                "{} did not keep {missing} of {keys} keys",
                peer.name
            ));
        }
        lanes.push(Lane::new(peer.name, subject));
    }
    lanes
}

/// A quarter more than the keys, so that no shard or set with more than its share evicts any.
pub fn roomy(keys: u64) -> Config {
    Config::lasting(keys as usize * 5 / 4 + 64)
}

fn measure<V: Value>(report: &mut Report, plan: &Plan, peers: &[Peer]) {
    let config = roomy(plan.keys);
    let tiers = tiers::<V>(&config, plan.keys);
    let peers = filled(report, peers, &config, plan.keys);
    for &threads in &plan.threads {
        let sequences = pairing::sequences(plan.keys, threads, plan.reads);
        let medians = pairing::paired(tiers.len() + peers.len(), plan.rounds, |at| {
            let timed = match at.checked_sub(tiers.len()) {
                None => pairing::read(&*tiers[at].subject, &sequences, plan.window),
                Some(at) => pairing::read(&*peers[at].subject, &sequences, plan.window),
            };
            [timed.ns, timed.misses as f64]
        });
        let (ours, theirs) = medians.split_at(tiers.len());
        let own_hashers = peers
            .iter()
            .zip(theirs)
            .filter(|(peer, _)| has_own_hasher(peer));
        let fastest = own_hashers
            .map(|(_, [ns, _])| *ns)
            .fold(f64::INFINITY, f64::min);
        let chart = format!("{} {} keys {threads} threads", plan.bench, plan.keys);
        let row = |contender: &str, tier: &str, ns: f64| {
            Figure::new(plan.bench)
                .text("contender", contender)
                .count("keys", plan.keys)
                .threads(threads)
                .text("tier", tier)
                .number("ns", ns)
        };
        for (tier, [ns, _]) in tiers.iter().zip(ours) {
            let label = format!("everfresh {}", tier.name);
            let figure = row(ours::NAME, &tier.name, *ns)
                .number("ratio", 1.0)
                .bar(&chart, &label, *ns, "ns");
            let [get, _] = ours[0];
            report.add(match (tier.name.as_str(), threads, plan.keys) {
                ("reader", ..) => figure.at_most("to get", ns / get, 1.0),
                ("get", 1, 1_000..) if plan.bench == "hit" => {
                    figure.at_most("to the fastest peer", get / fastest, FASTEST)
                }
                _ => figure,
            });
        }
        for (peer, [ns, misses]) in peers.iter().zip(theirs) {
            if *misses > 0.0 {
                report.note(&format!("{} missed {misses} reads", peer.name));
            }
            for (tier, [our_ns, _]) in tiers.iter().zip(ours) {
                let ratio = our_ns / ns;
                let mut figure = row(&peer.name, &tier.name, *ns).number("ratio", ratio);
                if tier.name == "get" {
                    figure = figure.bar(&chart, &peer.name, *ns, "ns");
                }
                if plan.bench == "hit" && has_own_hasher(peer) {
                    figure = with_target(
                        figure, plan.keys, threads, &peer.name, &tier.name, ratio, *our_ns,
                    );
                }
                report.add(figure);
            }
        }
    }
}

/// The targets compare with the peers as they come.
fn has_own_hasher(peer: &Lane<dyn Subject>) -> bool {
    !peer.name.ends_with("+foldhash")
}

fn with_target(
    figure: Figure,
    keys: u64,
    threads: usize,
    peer: &str,
    tier: &str,
    ratio: f64,
    our_ns: f64,
) -> Figure {
    let figure = match (tier, threads, keys) {
        ("get", 2.., 1_000..) => figure.at_most("", ratio, 1.0),
        _ => figure,
    };
    let limit = match (peer, tier, threads, keys) {
        ("quick_cache", "pin", 1, 1) => {
            let met = ratio <= 0.25 || our_ns <= 5.0;
            return figure.target(format!("{our_ns:.1} ns, at most 5 ns or 0.25"), met);
        }
        ("moka", "get", _, 1_000..) => 0.2,
        ("quick_cache", "reader", 1, 1_000) => 0.45,
        _ => return figure,
    };
    figure.at_most("", ratio, limit)
}
