//! One key that all threads read: how much a second thread slows the first one down.

use std::sync::Arc;
use std::time::Duration;

use crate::hit::{filled, roomy, tiers};
use crate::ours::{self, PinOfOne};
use crate::pairing::{self, Lane};
use crate::peers;
use crate::report::{Figure, Report};

pub fn run(report: &mut Report, quick: bool) {
    let (rounds, window) = match quick {
        true => (5, Duration::from_millis(20)),
        false => (15, Duration::from_millis(200)),
    };
    report.note(peers::WITHOUT_CACHEFLIGHT);
    let config = roomy(1_000);
    let mut tiers = tiers::<Arc<[u8; 64]>>(&config, 1_000);
    let one = ours::build_one::<Arc<[u8; 64]>>(&config);
    tiers.push(Lane::new("pin of Fresh", Box::new(PinOfOne(one))));
    let peers = filled(report, &peers::peers::<Arc<[u8; 64]>>(), &config, 1_000);
    let one = vec![vec![7; 1_024]];
    let two = vec![vec![7; 1_024]; 2];
    let medians = pairing::paired(tiers.len() + peers.len(), rounds, |at| {
        let read = |sequences| match at.checked_sub(tiers.len()) {
            None => pairing::read(&*tiers[at].subject, sequences, window).ns,
            Some(at) => pairing::read(&*peers[at].subject, sequences, window).ns,
        };
        [read(&one), read(&two)]
    });
    let (ours, theirs) = medians.split_at(tiers.len());
    let row = |contender: &str, tier: &str, threads: usize, ns: f64| {
        Figure::new("hot")
            .text("contender", contender)
            .count("keys", 1)
            .threads(threads)
            .text("tier", tier)
            .number("ns", ns)
    };
    for (tier, [one, two]) in tiers.iter().zip(ours) {
        let label = format!("everfresh {}", tier.name);
        let figure = row(ours::NAME, &tier.name, 1, *one)
            .number("ratio", 1.0)
            .number("to_one_thread", 1.0);
        report.add(match tier.name.as_str() {
            "Fresh" => figure.at_most("to get", one / ours[0][0], 0.7),
            "pin of Fresh" => figure.target(format!("{one:.1} ns, at most 8 ns"), *one <= 8.0),
            _ => figure,
        });
        let figure = row(ours::NAME, &tier.name, 2, *two)
            .number("ratio", 1.0)
            .number("to_one_thread", two / one)
            .bar("hot key 2 threads", &label, *two, "ns");
        report.add(figure.at_most("to 1 thread", two / one, 1.1));
    }
    for (peer, [one, two]) in peers.iter().zip(theirs) {
        let [our_one, our_two] = ours[0];
        let figure = row(&peer.name, "get", 1, *one).number("ratio", our_one / one);
        report.add(figure.number("to_one_thread", 1.0));
        let figure = row(&peer.name, "get", 2, *two).number("ratio", our_two / two);
        report.add(figure.number("to_one_thread", two / one).bar(
            "hot key 2 threads",
            &peer.name,
            *two,
            "ns",
        ));
    }
}
