//! The cost of a hit on a stale value, and on a value in its early window, while its refresh runs,
//! compared with a hit on a fresh value.

use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use everfresh::{Cache, Clock, ManualClock};

use crate::callers::Bytes;
use crate::contender::{Contender, Reads, Timed, Value, typed};
use crate::ours::{Get, Pin, Reader};
use crate::pairing;
use crate::report::{Figure, Report};

const KEYS: u64 = 1_000;
/// Long enough for the coarse clock, as fresh as it needs to be.
const SHORT: Duration = Duration::from_millis(400);
const HOUR: Duration = Duration::from_secs(3_600);

/// While the gate is shut, loads do not end.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    fn load(&self, n: u64) -> Bytes {
        let (shut, opened) = &*self.0;
        let shut = shut.lock().expect("no panic occurs under the lock");
        let open = opened.wait_while(shut, |shut| *shut);
        drop(open.expect("no panic occurs under the lock"));
        Bytes::make(n)
    }

    fn set(&self, is_shut: bool) {
        *self.0.0.lock().expect("no panic occurs under the lock") = is_shut;
        self.0.1.notify_all();
    }
}

/// fibre_cache by its call that serves stale values.
struct StaleFibre(fibre_cache::Cache<u64, Bytes>);

impl Contender<Bytes> for StaleFibre {
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

    fn invalidate(&self, key: &u64) {
        self.0.invalidate(key);
    }

    fn len(&self) -> usize {
        KEYS as usize
    }
}

fn ours(clock: Clock, fresh: Duration, gate: &Gate) -> Cache<u64, Bytes> {
    let gate = gate.clone();
    let cache = Cache::builder()
        .capacity(2 * KEYS as usize)
        .clock(clock)
        .fresh_for(fresh)
        .stale_for(HOUR)
        .load_timeout(2 * HOUR)
        // With this beta every draw in the early window, which is the second half of the fresh
        // time, says "early".
        .beta(1e9)
        .compute(move |n: &u64| gate.load(*n))
        .build();
    cache.expect("the settings are valid")
}

const GET: &str = "everfresh get";

/// The tiers of a cache, by name, `get` first.
fn tiers(cache: &Cache<u64, Bytes>) -> [(&'static str, Box<dyn Reads>); 3] {
    [
        (GET, reads(Get(cache.clone()))),
        ("everfresh reader", Box::new(Reader(cache.clone()))),
        ("everfresh pin", Box::new(Pin(cache.clone()))),
    ]
}

fn reads<C: Contender<Bytes>>(contender: C) -> Box<dyn Reads> {
    typed(contender)
}

fn fibre(fresh: Duration, gate: &Gate) -> StaleFibre {
    let gate = gate.clone();
    let cache = fibre_cache::CacheBuilder::default()
        .capacity(2 * KEYS)
        .time_to_live(fresh)
        .stale_while_revalidate(HOUR)
        .loader(move |n: u64| (gate.load(n), 1))
        .build();
    StaleFibre(cache.expect("the settings are valid"))
}

pub fn run(report: &mut Report, quick: bool) {
    let (rounds, window) = match quick {
        true => (9, Duration::from_millis(10)),
        false => (31, Duration::from_millis(100)),
    };
    report.note(
        "moka, mini-moka, quick_cache, foyer and stretto are left out: they serve no stale values",
    );
    report.note(
        "cacheflight and amalgam-cache are left out: only their async reads refresh; see stampede",
    );
    let gate = Gate::default();
    // The early window needs a measured cost, and a clock that then stands still within it.
    let manual = ManualClock::new();
    let (fresh, stale) = (
        ours(Clock::coarse(), HOUR, &gate),
        ours(Clock::coarse(), SHORT, &gate),
    );
    let fresh_by_hand = ours(Clock::from(ManualClock::new()), HOUR, &gate);
    let early = ours(Clock::from(manual.clone()), HOUR, &gate);
    let (fibre_fresh, fibre_stale) = (fibre(HOUR, &gate), fibre(SHORT, &gate));
    let everything: Vec<u64> = (0..KEYS).collect();
    for cache in [&fresh, &stale, &fresh_by_hand, &early] {
        for key in &everything {
            cache.get_blocking(key).expect("the load succeeds");
        }
    }
    for fibre in [&fibre_fresh, &fibre_stale] {
        for key in &everything {
            fibre.get(key);
        }
    }
    // From here on no refresh that has begun ends.
    gate.set(true);
    thread::sleep(SHORT + Duration::from_millis(50));
    manual.advance(HOUR * 3 / 4);
    // These reads begin the refreshes.
    for key in &everything {
        for cache in [&stale, &early] {
            cache.get_blocking(key).expect("an old value is served");
        }
        fibre_stale.get(key);
    }
    let mut lanes: Vec<StalePair> = Vec::new();
    for ((name, fresh), (_, stale)) in tiers(&fresh).into_iter().zip(tiers(&stale)) {
        lanes.push((name, "stale", [fresh, stale]));
    }
    for ((name, fresh), (_, early)) in tiers(&fresh_by_hand).into_iter().zip(tiers(&early)) {
        lanes.push((name, "early", [fresh, early]));
    }
    lanes.push((
        "fibre_cache",
        "stale",
        [reads(fibre_fresh), reads(fibre_stale)],
    ));
    let sequences = pairing::sequences(KEYS, 1, 1 << 16);
    let medians = pairing::paired(2 * lanes.len(), rounds, |at| {
        let Timed { ns, .. } = pairing::read(&*lanes[at / 2].2[at % 2], &sequences, window);
        [ns]
    });
    gate.set(false);
    let mut of_get = f64::NAN;
    for ((name, window, _), pair) in lanes.iter().zip(medians.chunks(2)) {
        let ([fresh], [other]) = (pair[0], pair[1]);
        if *name == GET {
            of_get = other;
        }
        let ratio = other / fresh;
        let figure = Figure::new("stale")
            .text("contender", *name)
            .text("window", *window)
            .count("keys", KEYS)
            .number("fresh_ns", fresh)
            .number("ns", other)
            .number("to_fresh", ratio)
            .bar(&format!("{window} hit"), name, other, "ns");
        report.add(match *window {
            "stale" if *name == GET => figure.at_most("to fresh", ratio, 1.1),
            "early" if *name == GET => figure.at_most("to fresh", ratio, 1.2),
            _ if name.starts_with("everfresh") => {
                // The `get` of the same window was measured before.
                figure.at_most("to get", other / of_get, 1.0)
            }
            _ => figure,
        });
    }
}

/// A contender, the window of its second subject, and a fresh subject beside that one.
type StalePair = (&'static str, &'static str, [Box<dyn Reads>; 2]);
