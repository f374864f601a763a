//! The cost of a hit of a read with terms, compared with a hit of `get`, on a thread and awaited.

use std::pin::pin;
use std::sync::Barrier;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use everfresh::Cache;

use crate::contender::{Config, Reads, Timed, timed, typed};
use crate::ours::{self, Get};
use crate::pairing;
use crate::report::{Figure, Report};

const KEYS: u64 = 1_000;
const AGE: Duration = Duration::from_secs(600);

type Bytes = [u8; 64];
type Values = Cache<u64, Bytes>;

struct WithTerms(Values);
struct Awaited(Values);
struct AwaitedWithTerms(Values);

pub fn run(report: &mut Report, quick: bool) {
    let (rounds, window) = match quick {
        true => (9, Duration::from_millis(20)),
        false => (21, Duration::from_millis(100)),
    };
    let cache: Values = ours::build(&Config::lasting(KEYS as usize * 2));
    let get = typed(Get(cache.clone()));
    get.fill(KEYS);
    let lanes: [(&str, Box<dyn Reads>); 4] = [
        ("get_blocking", get),
        ("max_age, blocking", Box::new(WithTerms(cache.clone()))),
        ("get, awaited", Box::new(Awaited(cache.clone()))),
        ("max_age, awaited", Box::new(AwaitedWithTerms(cache))),
    ];
    let sequences = pairing::sequences(KEYS, 1, 1 << 17);
    let medians = pairing::paired(lanes.len(), rounds, |at| {
        let timed = pairing::read(&*lanes[at].1, &sequences, window);
        [timed.ns, timed.misses as f64]
    });
    for (pair, medians) in lanes.chunks(2).zip(medians.chunks(2)) {
        let [get, _] = medians[0];
        for ((read, _), [ns, misses]) in pair.iter().zip(medians) {
            if *misses > 0.0 {
                report.note(&format!("{misses} misses of {read}"));
            }
            let figure = Figure::new("terms")
                .text("read", *read)
                .count("keys", KEYS)
                .threads(1)
                .number("ns", *ns)
                .number("ratio", ns / get);
            report.add(match read.starts_with("max_age") {
                true => figure.at_most("to get", ns / get, 1.05),
                false => figure,
            });
        }
    }
}

/// Polls a read once.
#[inline]
fn polled(read: impl Future<Output = Option<u8>>) -> Option<u8> {
    match pin!(read).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(byte) => byte,
        Poll::Pending => None,
    }
}

impl Reads for WithTerms {
    fn read(&self, keys: &[u64], window: Duration, gate: &Barrier) -> Timed {
        timed(keys, window, gate, |key| {
            Some(self.0.read(key).max_age(AGE).blocking().ok()?[0])
        })
    }
}

impl Reads for Awaited {
    fn read(&self, keys: &[u64], window: Duration, gate: &Barrier) -> Timed {
        timed(keys, window, gate, |key| {
            polled(async { Some(self.0.get(key).await.ok()?[0]) })
        })
    }
}

impl Reads for AwaitedWithTerms {
    fn read(&self, keys: &[u64], window: Duration, gate: &Barrier) -> Timed {
        timed(keys, window, gate, |key| {
            polled(async { Some(self.0.read(key).max_age(AGE).await.ok()?[0]) })
        })
    }
}
