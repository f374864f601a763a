//! Bytes of each entry beyond its key and value, measured by a counting allocator.
use std::process::Command;
use std::thread;
use std::time::Duration;

use dev_support::allocator::Live;

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

fn contenders() -> Vec<Peer> {
    let mut contenders = vec![Peer {
        name: ours::NAME,
        build: |config| typed::<u64, _>(Get(ours::build(config))),
    }];
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
    let contenders = contenders();
    let sizes: &[u64] = match quick {
        true => &[1_000, 100_000],
        false => &[1_000, 10_000, 100_000, 1_000_000],
    };
    let rounds = if quick { 1 } else { 3 };
    for &keys in sizes {
        let medians = pairing::paired(contenders.len(), rounds, |at| {
            [in_child(contenders[at].name, keys).unwrap_or(f64::NAN)]
        });
        let [ours] = medians[0];
        for (contender, [bytes]) in contenders.iter().zip(&medians) {
            if bytes.is_nan() {
                report.note(&format!("{} could not be measured", contender.name));
                continue;
            }
            let figure = Figure::new("memory")
                .text("contender", contender.name)
                .count("keys", keys)
                .number("bytes", *bytes)
                .number("ratio", ours / bytes)
                .bar(
                    &format!("memory {keys} keys"),
                    contender.name,
                    *bytes,
                    "bytes an entry",
                );
            report.add(match contender.name {
                ours::NAME => figure.at_most("bytes", *bytes, 100.0),
                "moka" => figure.at_most("", ours / bytes, 0.6),
                _ => figure,
            });
        }
    }
}

fn in_child(contender: &str, keys: u64) -> Option<f64> {
    let program = std::env::current_exe().ok()?;
    let mut child = Command::new(program);
    let output = child.args([CHILD, contender, &keys.to_string()]).output();
    String::from_utf8(output.ok()?.stdout)
        .ok()?
        .trim()
        .parse()
        .ok()
}

/// Runs one measurement in its own process; takes the arguments after [`CHILD`].
pub fn child(mut words: impl Iterator<Item = String>) -> Option<f64> {
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

/// Measures a cache that is exactly full.
fn bytes_per_entry(contender: &Peer, keys: u64) -> f64 {
    let subject = (contender.build)(&Config::lasting(keys as usize));
    subject.fill(keys);
    let entries = (subject.len() as u64).clamp(1, keys) as f64;
    // Memory still held by background threads does not belong to the cache.
    thread::sleep(Duration::from_millis(50));
    let live = Live::bytes() as f64;
    drop(subject);
    live / entries - PAYLOAD
}
