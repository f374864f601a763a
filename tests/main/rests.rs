//! How long a key rests after failures: doubling from the first rest to the longest.

use everfresh::{CountingLoader, Loaded, ManualClock};

use crate::support::*;

#[test]
fn the_rest_doubles_until_it_is_as_long_as_the_longest() {
    let (first, longest) = (millis(1), secs(3_600));
    let clock = ManualClock::new();
    let loader = CountingLoader::new(|key: &u64| *key);
    let cache = computing(builder(&clock).threads(1).backoff(first, longest), &loader);
    loader.fail_next(usize::MAX);
    // 2^22 ms are more than an hour.
    for _ in 0..23 {
        assert!(cache.get_blocking(&1).is_err());
        clock.advance(longest);
    }
    let calls = loader.calls();
    assert!(cache.get_blocking(&1).is_err());
    assert_eq!(loader.calls(), calls + 1);
    // A half of the rest may be taken off at random, and no more.
    clock.advance(longest / 2 - NANO);
    assert!(cache.get_blocking(&1).is_err());
    assert_eq!(
        loader.calls(),
        calls + 1,
        "it rests for half an hour at least"
    );
    clock.advance(longest / 2 + NANO);
    assert!(cache.get_blocking(&1).is_err());
    assert_eq!(loader.calls(), calls + 2, "and for an hour at most");
}

#[test]
fn a_stale_value_is_refreshed_as_rarely_as_that() {
    let (first, longest) = (millis(1), secs(3_600));
    let clock = ManualClock::new();
    let (cache, tasks, gates) = by_hand(builder(&clock).backoff(first, longest));
    let hour = longest + NANO;
    cache.insert(1, Loaded::new(1).fresh_for(NANO).stale_for(100 * hour));
    clock.advance(NANO);
    let attempt = |number: usize| {
        assert_eq!(*ready(get(&cache, 1)).unwrap(), 1);
        tasks.poll_all();
        assert_eq!(gates.calls(), number + 1);
        gates.end(number, gates::End::Fail);
        tasks.poll_all();
    };
    for number in 0..24 {
        attempt(number);
        clock.advance(hour);
    }
    attempt(24);
    clock.advance(longest / 2 - NANO);
    assert_eq!(*ready(get(&cache, 1)).unwrap(), 1);
    tasks.poll_all();
    assert_eq!(gates.calls(), 25, "it rests for half an hour at least");
}
