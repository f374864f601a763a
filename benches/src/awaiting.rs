//! The cost of a hit by `get(..).await`: one poll with a waker that does nothing.

use std::time::Duration;

use crate::callers::{self, Loader, Windows};
use crate::contender::{Config, Contender, per_operation};
use crate::ours::{self, Present};
use crate::pairing;
use crate::report::{Figure, Report};
use crate::runtime;

const KEYS: u64 = 1_000;
const HOUR: Duration = Duration::from_secs(3_600);

pub fn run(report: &mut Report, quick: bool) {
    let (rounds, reads) = match quick {
        true => (5, 1 << 15),
        false => (15, 1 << 19),
    };
    report.note("stretto is left out: its async cache needs a runtime of its own for each cache");
    report.note(
        "quick_cache, foyer, fibre_cache and cacheflight are read by the call that may load, \
         the others by a plain get",
    );
    let runtime = runtime::multi(pairing::cores());
    let _within = runtime.enter();
    let config = Config::lasting(KEYS as usize * 2);
    let cache = ours::build(&config);
    let windows = Windows {
        capacity: config.capacity,
        fresh: HOUR,
        stale: HOUR,
    };
    let present = Present::<callers::Bytes>(cache);
    let callers = callers::all();
    let built: Vec<_> = callers
        .iter()
        .map(|peer| (peer.build)(windows, Loader::new(Duration::ZERO)))
        .collect();
    runtime.block_on(async {
        for n in 0..KEYS {
            present.insert(&n, crate::contender::Value::make(n));
            for caller in &built {
                caller.clone().call(n).await;
            }
        }
    });
    let keys = &pairing::sequences(KEYS, 1, reads)[0];
    let medians = pairing::paired(built.len() + 1, rounds, |at| match at.checked_sub(1) {
        Some(at) => {
            let (ns, not_ready) = built[at].poll_hits(keys);
            [ns, not_ready as f64]
        }
        None => {
            let since = std::time::Instant::now();
            let reads = keys.iter().filter_map(|key| present.get(key));
            reads.for_each(|byte| _ = std::hint::black_box(byte));
            [per_operation(since, keys.len()), 0.0]
        }
    });
    let ([present, _], ours) = (medians[0], medians[1][0]);
    let row = |contender: &str, tier: &str, ns: f64| {
        Figure::new("async")
            .text("contender", contender)
            .count("keys", KEYS)
            .count("threads", 1)
            .text("tier", tier)
            .number("ns", ns)
            .number("ratio", ours / ns)
    };
    report.add(row(ours::NAME, "get_if_present", present).at_most("", ours / present, 1.15));
    for (peer, [ns, not_ready]) in callers.iter().zip(&medians[1..]) {
        if *not_ready > 0.0 {
            report.note(&format!(
                "{}: {not_ready} of {reads} reads were not ready",
                peer.name
            ));
        }
        let figure = row(peer.name, "get().await", *ns).bar("async hit", peer.name, *ns, "ns");
        report.add(match peer.name {
            "moka" => figure.at_most("", ours / ns, 0.15),
            _ => figure,
        });
    }
}
