//! The cost of writes, and of dropping a cache, after many threads have read once. The threads are
//! alive, and sleep.

use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use crate::child;
use crate::contender::{Config, Subject, typed};
use crate::hit::roomy;
use crate::ours::{self, Present};
use crate::pairing;
use crate::peers::{self, Peer};
use crate::report::{Figure, Report};

/// The argument that starts one measurement in a process of its own: what earlier threads left
/// behind must not count. The contender and the number of threads follow.
pub const CHILD: &str = "after-threads";

const CAPACITY: usize = 10_000;
const INSERTED: u64 = 50_000;
const INVALIDATED: u64 = 4_000;
const LONGEST: Duration = Duration::from_millis(50);
const STACK: usize = 64 << 10;

/// The peers that are compared. Every figure takes a process, so the others are left out.
const PEERS: [&str; 4] = ["quick_cache", "moka", "foyer", "fibre_cache"];

type Bytes = Arc<[u8; 64]>;

fn contenders() -> Vec<Peer> {
    let mut contenders = vec![Peer {
        name: ours::NAME,
        build: |config| typed::<Bytes, _>(Present(ours::build(config))),
    }];
    let mut peers = peers::peers::<Bytes>();
    peers.retain(|peer| PEERS.contains(&peer.name));
    contenders.extend(peers);
    contenders
}

pub fn run(report: &mut Report, quick: bool, threads: Option<&[usize]>) {
    report.note("of the peers only quick_cache, moka, foyer and fibre_cache are measured");
    report.note(
        "each figure comes from a process of its own, in which so many threads have read once and \
         sleep; drop is that of the full cache",
    );
    let contenders = contenders();
    let list = threads.unwrap_or(&[1, 16, 256, 4_096]);
    let rounds = if quick { 3 } else { 9 };
    // Everything in turn, so that each contender is also paired with itself after fewer threads.
    let medians = pairing::paired(contenders.len() * list.len(), rounds, |at| {
        let (contender, threads) = (at / list.len(), at % list.len());
        let args = [contenders[contender].name, &list[threads].to_string()];
        child::run(CHILD, args).unwrap_or([f64::NAN; 3])
    });
    for (what, name) in ["insert", "invalidate", "drop"].into_iter().enumerate() {
        for (contender, measured) in contenders.iter().zip(medians.chunks(list.len())) {
            let first = measured[0][what];
            for (threads, figures) in list.iter().zip(measured) {
                let ns = figures[what];
                let chart = format!("{name} after {threads} threads");
                let figure = Figure::new("threads")
                    .text("contender", contender.name)
                    .text("what", name)
                    .count("threads_before", *threads as u64)
                    .number("ns", ns)
                    .number("to_first", ns / first)
                    .bar(&chart, contender.name, ns, "ns");
                report.add(match contender.name {
                    ours::NAME if *threads > list[0] => {
                        figure.at_most("to the first", ns / first, 1.5)
                    }
                    _ => figure,
                });
            }
        }
    }
}

/// Runs one measurement in its own process; takes the arguments after [`CHILD`]. Returns the
/// nanoseconds of an insert, of an invalidation, and of dropping the cache.
pub fn child(words: &mut dyn Iterator<Item = String>) -> Option<[f64; 3]> {
    let name = words.next()?;
    let threads: usize = words.next()?.parse().ok()?;
    let contender = contenders().into_iter().find(|peer| peer.name == name)?;
    let caches = Arc::new(Caches {
        full: (contender.build)(&Config::lasting(CAPACITY)),
        roomy: (contender.build)(&roomy(INVALIDATED)),
    });
    let alone = Barrier::new(1);
    let last = CAPACITY as u64 * 2;
    let keys: Vec<u64> = (0..=last).collect();
    caches.full.inserts(&keys, Duration::from_secs(5), &alone);
    caches.roomy.fill(INVALIDATED);
    let read = Arc::new(Barrier::new(threads + 1));
    for _ in 0..threads {
        let (caches, read) = (caches.clone(), read.clone());
        let reads_once = move || {
            caches.full.touch(last);
            caches.roomy.touch(0);
            drop(caches);
            read.wait();
            // Until the process ends.
            loop {
                thread::park();
            }
        };
        let thread = thread::Builder::new().stack_size(STACK);
        thread.spawn(reads_once).ok()?;
    }
    read.wait();
    let caches = Arc::into_inner(caches)?;
    let new: Vec<u64> = (last + 1..last + 1 + INSERTED).collect();
    let insert = caches.full.inserts(&new, LONGEST, &alone);
    let resident: Vec<u64> = (0..INVALIDATED).collect();
    let invalidate = caches.roomy.invalidates(&resident, LONGEST, &alone);
    let since = Instant::now();
    drop(caches.full);
    Some([insert.ns, invalidate.ns, since.elapsed().as_nanos() as f64])
}

struct Caches {
    /// An insert evicts.
    full: Box<dyn Subject>,
    /// An insert does not.
    roomy: Box<dyn Subject>,
}
