//! Keys of a batch whose group is invalidated, and groups that the loader of a batch tells.

use everfresh::{Cache, Loaded, ManualClock};

use super::{Origin, calls};
use crate::support::*;

const KEYS: [u64; 4] = [0, 1, 2, 3];

/// A cache in which all odd keys are a group, and all even ones.
fn cache(clock: &ManualClock, origin: &Origin) -> Cache<u64, u64> {
    origin.cache(builder(clock).threads(2).group_by(|key| [key % 2]))
}

fn read(cache: &Cache<u64, u64>) -> Vec<u64> {
    let answers = cache.get_many_blocking(&KEYS).into_iter();
    answers.map(|answer| *answer.unwrap()).collect()
}

/// P4
#[test]
fn a_cold_batch_ends_for_earlier_callers_and_its_group_is_loaded_again_for_later_ones() {
    let clock = ManualClock::new();
    let origin = Origin::new();
    // Full batches leave at once, so nothing depends on when a caller has added its keys.
    let settings = builder(&clock).threads(3).batch(2, secs(1));
    let cache = origin.cache(settings.group_by(|key| [key % 2]));
    origin.calls.hold();
    std::thread::scope(|scope| {
        let earlier = scope.spawn(|| read(&cache));
        calls(&origin, 2);
        cache.invalidate_group(1);
        let later = scope.spawn(|| read(&cache));
        calls(&origin, 3);
        let mut third = origin.batches().remove(2);
        third.sort_unstable();
        assert_eq!(third, [1, 3]);
        origin.calls.release();
        assert_eq!(earlier.join().unwrap(), [1, 1, 1, 1]);
        assert_eq!(later.join().unwrap(), [1, 2, 1, 2]);
    });
    assert_eq!(read(&cache), [1, 2, 1, 2]);
}

/// P4
#[test]
fn refreshes_of_a_group_are_discarded_and_those_of_others_are_published() {
    let clock = ManualClock::new();
    let origin = Origin::new();
    let cache = cache(&clock, &origin);
    assert_eq!(read(&cache), [1, 1, 1, 1]);
    clock.advance(secs(12));
    origin.calls.hold();
    assert_eq!(read(&cache), [1, 1, 1, 1], "stale");
    until("they are refreshed", || {
        clock.advance(millis(1));
        origin.batches().len() == 2
    });
    cache.invalidate_group(1);
    origin.calls.release();
    until("the others are published", || {
        [0, 2]
            .iter()
            .all(|key| cache.peek(key).is_some_and(|value| *value == 2))
    });
    assert!(cache.peek(&1).is_none() && cache.peek(&3).is_none());
    assert_eq!(read(&cache), [2, 3, 2, 3]);
}

#[test]
fn a_loader_of_many_keys_tells_groups() {
    let clock = ManualClock::new();
    let loads = move |keys: &[u64]| -> Vec<(u64, Loaded<u64>)> {
        let loaded = |key: &u64| (*key, Loaded::new(*key).group(key % 2));
        keys.iter().map(loaded).collect()
    };
    let cache = builder(&clock).compute_many(loads).build().unwrap();
    assert_eq!(read(&cache), KEYS);
    cache.invalidate_group(1);
    let left: Vec<bool> = KEYS.iter().map(|key| cache.contains_key(key)).collect();
    assert_eq!(left, [true, false, true, false]);
    assert_eq!(read(&cache), KEYS);
}
