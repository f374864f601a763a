//! What a value costs to load, as far as it was measured.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};

use everfresh::{Cache, Loaded, ManualClock, Request};

use crate::support::*;

#[test]
fn the_cost_of_an_inserted_value_is_unknown_until_it_was_loaded_once() {
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
    // A measurement is not averaged with a cost that was never measured.
    assert_eq!(
        wait(refresh(&cache, 1))
            .unwrap()
            .cost()
            .as_secs_f32()
            .round(),
        1.0
    );
    // 0.7 of the average so far and 0.3 of the two seconds, rounded down by a thousandth.
    let cost = wait(refresh(&cache, 1)).unwrap().cost().as_secs_f32();
    assert!((1.29..=1.3).contains(&cost), "{cost}");
}
