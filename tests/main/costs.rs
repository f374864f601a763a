//! The measured cost of loading a value.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};

use everfresh::{Cache, Loaded, ManualClock, Request};

use crate::support::*;

#[test]
fn the_cost_of_an_inserted_value_is_unknown_until_its_first_load() {
    let clock = ManualClock::new();
    let takes = AtomicU64::new(1);
    let moved = clock.clone();
    let cache: Cache<u64, u64> = builder(&clock)
        .threads(1)
        .compute_with(move |request: &Request<u64, u64>| {
            moved.advance(secs(takes.fetch_add(1, Ordering::Relaxed)));
            Ok::<_, Infallible>(Loaded::new(*request.key()))
        })
        .build()
        .unwrap();
    cache.insert(1, 1);
    assert_eq!(ready(get(&cache, 1)).unwrap().cost(), secs(0));
    // The first measurement is not averaged with an unknown cost.
    assert_eq!(
        wait(refresh(&cache, 1))
            .unwrap()
            .cost()
            .as_secs_f32()
            .round(),
        1.0
    );
    // 0.7 of the average so far and 0.3 of two seconds, rounded down by a thousandth.
    let cost = wait(refresh(&cache, 1)).unwrap().cost().as_secs_f32();
    assert!((1.29..=1.3).contains(&cost), "{cost}");
}
