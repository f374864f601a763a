//! What a codec, a compression and encryption make of one value: the bytes in the store, and the
//! time to make and to read them. The value is a list of forecasts, as an API returns it.
use std::hint::black_box;
use std::time::{Duration, Instant};

use dev_support::forecast::{FULL, Forecast, TEAMS};
use everfresh::store::{
    Codec, EncryptionKeys, Epoch, Format, Json, Namespace, Postcard, StoreKey, Terms, envelope,
};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};

use crate::pairing;
use crate::report::{Figure, Report};

#[derive(Serialize, Deserialize)]
struct Match {
    id: u32,
    home: String,
    away: String,
    kick_off: String,
    forecast: Forecast,
}

type List = Vec<Match>;

/// So many matches, with the probabilities that a simulation would count.
fn list(matches: u32) -> List {
    let mut rng = SmallRng::seed_from_u64(1);
    let mut share = move |most: f64| (rng.random::<f64>() * most * f64::from(FULL)).round();
    let team = |number: u32| TEAMS[number as usize % TEAMS.len()].0.to_owned();
    let of = |id| {
        let (home, draw) = (share(0.6), share(0.3));
        let probability = |count: f64| count / f64::from(FULL);
        Match {
            id: 4_000 + id,
            home: team(id),
            away: team(id + 1 + id / 20),
            kick_off: format!("2026-11-{:02}T{:02}:30:00Z", 1 + id / 10 % 30, 12 + id % 8),
            forecast: Forecast {
                home: probability(home),
                draw: probability(draw),
                away: 1.0 - probability(home) - probability(draw),
                home_goals: probability(share(3.0)),
                away_goals: probability(share(3.0)),
                likeliest: (id as usize % 3, id as usize % 2),
            },
        }
    };
    (0..matches).map(of).collect()
}

/// From 1 KiB on, as the docs advise.
const FROM: usize = 1_024;

fn formats(codec: impl Codec<List> + Copy) -> [(&'static str, Format<List>); 5] {
    let keys = || EncryptionKeys::new(&[7; 32]);
    let format = || Format::new(codec);
    [
        ("none", format()),
        ("lz4", format().lz4_from(FROM)),
        ("zstd", format().zstd_from(FROM)),
        ("encrypted", format().encrypt_with(keys())),
        (
            "zstd, encrypted",
            format().zstd_from(FROM).encrypt_with(keys()),
        ),
    ]
}

pub fn run(report: &mut Report, quick: bool) {
    report.note("bytes of the whole payload; `seal` and `open` include the codec and the checksum");
    let rounds = if quick { 5 } else { 21 };
    for matches in [10, 100, 1_000] {
        let value = list(matches);
        // About the same time for each number of matches.
        let times = 20_000 / matches;
        for (codec, formats) in [("postcard", formats(Postcard)), ("json", formats(Json))] {
            let medians = pairing::paired(formats.len(), rounds, |at| {
                measure(&formats[at].1, &value, times)
            });
            let [raw, ..] = medians[0];
            for ((name, _), [bytes, seal, open]) in formats.iter().zip(medians) {
                let figure = Figure::new("payloads")
                    .count("matches", matches.into())
                    .text("codec", codec)
                    .text("format", *name)
                    .number("bytes", bytes)
                    .number("to_none", bytes / raw)
                    .number("seal_us", seal)
                    .number("open_us", open);
                report.add(figure);
            }
        }
    }
}

/// Bytes, microseconds to seal, microseconds to open.
fn measure(format: &Format<List>, value: &List, times: u32) -> [f64; 3] {
    let namespace = Namespace::new("bench:v1").expect("the name is valid");
    let key = StoreKey::new(&namespace, b"forecasts");
    let hour = Duration::from_secs(3_600);
    let terms = Terms {
        fresh_for: hour,
        stale_for: hour,
        stale_if_error_for: hour,
        cost: hour,
    };
    let seal = || format.seal(&key, value, &terms).expect("it can be encoded");
    let mut payload = seal();
    let epoch = Epoch::from_micros(1).expect("it is an epoch");
    envelope::stamp(&mut payload, epoch);
    let each = |work: &dyn Fn()| {
        let started = Instant::now();
        (0..times).for_each(|_| work());
        started.elapsed().as_secs_f64() * 1e6 / f64::from(times)
    };
    let sealing = each(&|| drop(black_box(seal())));
    let opening = each(&|| drop(black_box(format.open(&key, &payload))));
    format.open(&key, &payload).expect("it can be opened");
    [payload.len() as f64, sealing, opening]
}
