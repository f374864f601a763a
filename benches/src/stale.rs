//! What a hit on a stale value costs while its refresh runs, against a fresh one.

use std::sync::{Arc, Barrier, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use everfresh::Cache;

use crate::callers::Bytes;
use crate::contender::{Contender, Timed, Value, typed};
use crate::ours::{self, Get};
use crate::pairing;
use crate::report::{Figure, Report};

const KEYS: u64 = 1_000;
/// Long enough for the coarse clock, as fresh as it needs to be.
const SHORT: Duration = Duration::from_millis(400);
const HOUR: Duration = Duration::from_secs(3_600);

/// While it is shut, loads do not end.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    fn load(&self, n: u64) -> Bytes {
        let (shut, opened) = &*self.0;
        let shut = shut.lock().expect("nobody panics with it");
        let open = opened.wait_while(shut, |shut| *shut);
        drop(open.expect("nobody panics with it"));
        Bytes::make(n)
    }

    fn set(&self, is_shut: bool) {
        *self.0.0.lock().expect("nobody panics with it") = is_shut;
        self.0.1.notify_all();
    }
}

/// fibre_cache by its call that serves what is stale.
struct Fibre(fibre_cache::Cache<u64, Bytes>);

impl Contender<Bytes> for Fibre {
    type Key = u64;

    fn key(n: u64) -> u64 {
        n
    }

    #[inline]
    fn get(&self, key: &u64) -> Option<u8> {
        Some(self.0.fetch_with(key).first())
    }

    fn insert(&self, key: &u64, value: Bytes) {
        self.0.insert(*key, value, 1);
    }

    fn len(&self) -> usize {
        KEYS as usize
    }
}

fn ours(fresh: Duration, gate: &Gate) -> Get<Bytes> {
    let gate = gate.clone();
    let cache = Cache::builder()
        .capacity(2 * KEYS as usize)
        .fresh_for(fresh)
        .stale_for(HOUR)
        .load_timeout(HOUR)
        .compute(move |n: &u64| gate.load(*n))
        .build();
    Get(cache.expect("the settings are valid"))
}

fn fibre(fresh: Duration, gate: &Gate) -> Fibre {
    let gate = gate.clone();
    let cache = fibre_cache::CacheBuilder::default()
        .capacity(2 * KEYS)
        .time_to_live(fresh)
        .stale_while_revalidate(HOUR)
        .loader(move |n: u64| (gate.load(n), 1))
        .build();
    Fibre(cache.expect("the settings are valid"))
}

pub fn run(report: &mut Report, quick: bool) {
    let (rounds, window) = match quick {
        true => (9, Duration::from_millis(10)),
        false => (31, Duration::from_millis(100)),
    };
    report
        .note("moka, mini-moka, quick_cache, foyer and stretto left out: they serve nothing stale");
    report.note(
        "cacheflight and amalgam-cache left out: they refresh by awaiting only; see stampede",
    );
    let gate = Gate::default();
    let lanes = [
        typed(ours(HOUR, &gate)),
        typed(ours(SHORT, &gate)),
        typed(fibre(HOUR, &gate)),
        typed(fibre(SHORT, &gate)),
    ];
    for lane in &lanes {
        lane.fill(KEYS);
    }
    // From here on a refresh that was begun goes on running.
    gate.set(true);
    thread::sleep(SHORT + Duration::from_millis(50));
    let sequences = pairing::sequences(KEYS, 1, 1 << 16);
    let everything: Vec<u64> = (0..KEYS).collect();
    let alone = Barrier::new(1);
    for lane in &lanes {
        // Begins the refreshes of those that are stale.
        lane.read(&everything, Duration::ZERO, &alone);
    }
    let medians = pairing::paired(lanes.len(), rounds, |at| {
        let Timed { ns, .. } = pairing::read(&*lanes[at], &sequences, window);
        [ns]
    });
    gate.set(false);
    for (name, pair) in [ours::NAME, "fibre_cache"]
        .into_iter()
        .zip(medians.chunks(2))
    {
        let ([fresh], [stale]) = (pair[0], pair[1]);
        let figure = Figure::new("stale")
            .text("contender", name)
            .count("keys", KEYS)
            .number("fresh_ns", fresh)
            .number("stale_ns", stale)
            .number("stale_to_fresh", stale / fresh)
            .bar("stale hit", name, stale, "ns");
        report.add(match name == ours::NAME {
            true => figure.at_most("", stale / fresh, 1.1),
            false => figure,
        });
    }
}
