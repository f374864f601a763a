//! Reads by a watch, which takes no guard.

use everfresh::protocol::Watched;
use loom::thread::spawn;

use crate::Threads::Two;
use crate::fixture::*;
use crate::run_model;

/// P4: whoever's invalidation found nothing left to do, because another one was half done, is not
/// served the old value by its watch either.
#[test]
fn after_an_invalidation() {
    run_model(Two, || {
        let cache = filled();
        let (place, _) = cache.find(hash(KEY), |key| *key == KEY).unwrap();
        let mut watched = Watched::new(&cache, place);
        assert!(watched.look(&cache, |key| *key == KEY).is_some());
        let other = spawn({
            let cache = cache.clone();
            move || cache.invalidate(hash(KEY), |key| *key == KEY)
        });
        cache.invalidate(hash(KEY), |key| *key == KEY);
        assert!(
            watched.look(&cache, |key| *key == KEY).is_none(),
            "a watch saw what was invalidated"
        );
        other.join().unwrap();
    });
}

/// P4: a watch that looks while its key is removed and inserted anew sees one or the other, or
/// nothing; and the new value once it is there.
#[test]
fn against_remove_and_insert() {
    run_model(Two, || {
        let cache = filled();
        let (place, _) = cache.find(hash(KEY), |key| *key == KEY).unwrap();
        let mut watched = Watched::new(&cache, place);
        let other = spawn({
            let cache = cache.clone();
            move || {
                cache.invalidate(hash(KEY), |key| *key == KEY);
                put(&cache, KEY, 200, CREATED)
            }
        });
        let mut seen = Vec::new();
        for _ in 0..2 {
            if let Some(entry) = watched.look(&cache, |key| *key == KEY) {
                seen.push(*entry.value().unwrap());
            }
        }
        assert!(seen.is_sorted(), "a watch saw an older value after a newer");
        assert!(other.join().unwrap());
    });
}
