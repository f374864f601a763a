//! The backoff of a key after failures, which doubles from the first to the longest.

use everfresh::{CountingLoader, Loaded, ManualClock};

use crate::support::*;

#[test]
fn the_backoff_doubles_up_to_the_longest() {
    let (first, longest) = (millis(1), secs(3_600));
    let clock = ManualClock::new();
    let loader = CountingLoader::new(|key: &u64| *key);
    let cache = computing(builder(&clock).threads(1).backoff(first, longest), &loader);
    loader.fail_next(usize::MAX);
    // 2^22 ms is more than an hour.
    for _ in 0..23 {
        assert!(cache.get_blocking(&1).is_err());
        clock.advance(longest);
    }
    let calls = loader.calls();
    assert!(cache.get_blocking(&1).is_err());
    assert_eq!(loader.calls(), calls + 1);
    // Jitter shortens the backoff by at most a half.
    clock.advance(longest / 2 - NANO);
    assert!(cache.get_blocking(&1).is_err());
    assert_eq!(
        loader.calls(),
        calls + 1,
        "the backoff lasts at least half an hour"
    );
    clock.advance(longest / 2 + NANO);
    assert!(cache.get_blocking(&1).is_err());
    assert_eq!(
        loader.calls(),
        calls + 2,
        "the backoff lasts at most an hour"
    );
}

#[test]
fn the_same_backoff_applies_to_refreshes_of_a_stale_value() {
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
    assert_eq!(gates.calls(), 25, "the backoff lasts at least half an hour");
}
