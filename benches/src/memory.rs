//! Bytes of each entry beyond its key and value, measured by a counting allocator.
use std::num::NonZeroU64;
use std::thread;
use std::time::Duration;

use dev_support::allocator::Live;

use crate::child;
use crate::contender::{Config, typed};
use crate::ours::{self, Get};
use crate::pairing;
use crate::peers::{self, Peer};
use crate::report::{Figure, Report};

/// The bytes of a key and its value, a `u64` each.
const PAYLOAD: f64 = 16.0;

/// The argument that starts one measurement in a process of its own. The contender and the number
/// of keys follow.
pub const CHILD: &str = "memory-of";

/// Its values are `NonZeroU64`: an entry needs no discriminant to tell whether it has a value.
const WITH_NICHE: &str = "everfresh, values with a niche";

fn contenders() -> Vec<Peer> {
    let mut contenders = vec![
        Peer {
            name: ours::NAME,
            build: |config| typed::<u64, _>(Get(ours::build(config))),
        },
        Peer {
            name: WITH_NICHE,
            build: |config| typed::<NonZeroU64, _>(Get(ours::build(config))),
        },
    ];
    contenders.extend(peers::peers::<u64>());
    contenders
}

pub fn run(report: &mut Report, quick: bool) {
    report.note(peers::WITHOUT_CACHEFLIGHT);
    report.note(
        "keys and values are 8 bytes each; amalgam-cache has string keys, counted as 8 bytes here",
    );
    report.note(
        "each cache is measured in a process of its own, after a small cache of the same kind, so \
         that nothing else is counted",
    );
    report.note(
        "bytes = fixed (a cache for one key, empty) + table (what an empty cache takes beyond \
         that) + entry (what its entries add), for each key, beyond key and value",
    );
    let contenders = contenders();
    let sizes: &[u64] = match quick {
        true => &[1_000, 100_000],
        false => &[1_000, 10_000, 100_000, 1_000_000],
    };
    let rounds = if quick { 1 } else { 3 };
    for &keys in sizes {
        let medians = pairing::paired(contenders.len(), rounds, |at| {
            let args = [contenders[at].name, &keys.to_string()];
            child::run(CHILD, args).unwrap_or([f64::NAN; 3])
        });
        let ours: f64 = medians[0].iter().sum();
        for (contender, [fixed, table, entry]) in contenders.iter().zip(&medians) {
            let bytes = &(fixed + table + entry);
            if bytes.is_nan() {
                report.note(&format!("{} could not be measured", contender.name));
                continue;
            }
            let figure = Figure::new("memory")
                .text("contender", contender.name)
                .count("keys", keys)
                .number("bytes", *bytes)
                .number("fixed", *fixed)
                .number("table", *table)
                .number("entry", *entry)
                .number("ratio", ours / bytes)
                .bar(
                    &format!("memory {keys} keys"),
                    contender.name,
                    *bytes,
                    "bytes an entry",
                );
            report.add(match contender.name {
                ours::NAME if keys >= 100_000 => figure.at_most("bytes", *bytes, 90.0),
                ours::NAME => figure.at_most("bytes", *bytes, 100.0),
                "moka" => figure.at_most("", ours / bytes, 0.6),
                _ => figure,
            });
        }
    }
}

/// Runs one measurement in its own process; takes the arguments after [`CHILD`].
pub fn child(words: &mut dyn Iterator<Item = String>) -> Option<[f64; 3]> {
    let name = words.next()?;
    let keys = words.next()?.parse().ok()?;
    let contender = contenders().into_iter().find(|peer| peer.name == name)?;
    let small = (contender.build)(&Config::lasting(100));
    small.fill(100);
    Live::start();
    let bytes = bytes_per_entry(&contender, keys);
    drop(small);
    Some(bytes)
}

/// Measures a cache that is exactly full: what does not grow with its capacity, what it takes
/// empty beyond that, and what its entries add.
fn bytes_per_entry(contender: &Peer, keys: u64) -> [f64; 3] {
    let one = (contender.build)(&Config::lasting(1));
    let fixed = live();
    drop(one);
    // What stays is shared by all caches, such as the threads of a pool.
    let before = live();
    let subject = (contender.build)(&Config::lasting(keys as usize));
    let empty = live() - before;
    subject.fill(keys);
    let entries = (subject.len() as u64).clamp(1, keys) as f64;
    let full = live() - before;
    drop(subject);
    [
        fixed / entries,
        (empty - fixed) / entries,
        (full - empty) / entries - PAYLOAD,
    ]
}

/// The bytes that are in use, without what threads in the background still hold.
fn live() -> f64 {
    thread::sleep(Duration::from_millis(50));
    Live::bytes() as f64
}
