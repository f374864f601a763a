use super::{Condition, Entries, Limits, Timing};
use crate::protocol::claim::ClaimWord;
use crate::protocol::compact::Weight;
use crate::protocol::entry::{Entry, EvictionState};
use crate::protocol::removal::Removals;
use crate::protocol::times::{Lifetime, Times};
use crate::sync::StrongArc;

const TIMING: Timing = Timing {
    claim_for: 1_000,
    timeout: std::time::Duration::from_nanos(1_000),
    rest_for: 0,
};

#[test]
fn an_early_hit_draws_only_while_the_claim_can_be_had() {
    let limits = Limits {
        entries: 1,
        weight: u64::MAX,
        ways: 1,
        shards: 1,
    };
    let entries = Entries::<u64, u64>::new(limits, TIMING, Removals::new(None));
    let times = Times::new(Lifetime {
        created: 0,
        fresh_for: 100_000,
        stale_for: 0,
        error_for: 0,
        early_for: 50_000,
        cost: 1,
    });
    let eviction_state = EvictionState {
        uses: 0,
        generation: 0,
        weight: Weight::ZERO,
    };
    let entry = StrongArc::new(Entry::ready(1, 2, times, Vec::new(), eviction_state));
    let fast_state = |now, draw: fn(&Times) -> bool| entries.fast_state(&entry, now, draw);
    assert_eq!(fast_state(60_000, |_| false), Some(Condition::Fresh));
    assert_eq!(fast_state(60_000, |_| true), None, "this reader may claim");
    let claim = |now| entry.claim_word.try_claim(now, TIMING.claim_for, || None);
    assert!(claim(60_000).is_some());
    // A draw costs more than the rest of the hit, and a "yes" sends a reader to the slow path.
    let never: fn(&Times) -> bool = |_| panic!("an unnecessary draw");
    assert_eq!(fast_state(60_500, never), Some(Condition::Fresh));
    // The claim is past its deadline, so the next reader may take it over.
    assert_eq!(fast_state(62_000, |_| true), None);
}

#[test]
fn a_placeholder_is_served_in_no_condition() {
    let (claim_word, _) = ClaimWord::claimed(0, 1_000, 0);
    let (entry, ..) = Entry::<u64, u64>::loading(1, 0, 0, 0, 1_000);
    let claim = claim_word.state();
    assert_eq!(super::condition(&entry.times(), claim, 0), None);
    assert_eq!(super::condition(&entry.times(), claim, u64::MAX), None);
}

/// A write of a slot that held something looks at the lanes, or with `arc_swap` at all threads.
#[cfg(not(feature = "arc-swap-slots"))]
#[test]
fn a_write_looks_at_the_lanes_once_for_each_value_that_leaves() {
    use super::Read;
    use crate::protocol::flight::Made;
    use crate::sync::Arc;

    let limits = Limits {
        entries: 100,
        weight: u64::MAX,
        ways: 300,
        shards: 1,
    };
    let entries = Arc::new(Entries::<u64, u64>::new(
        limits,
        TIMING,
        Removals::new(None),
    ));
    let value = |key: u64, created| {
        let times = Times::new(Lifetime {
            created,
            fresh_for: 1_000,
            stale_for: u64::MAX,
            error_for: 0,
            early_for: 0,
            cost: 1,
        });
        let eviction_state = EvictionState {
            uses: 0,
            generation: 0,
            weight: Weight::ZERO,
        };
        StrongArc::new(Entry::ready(key, key, times, Vec::new(), eviction_state))
    };
    let hash = |key: u64| key.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let insert = |key| assert!(entries.insert(hash(key), &value(key, 0), 0));
    let visits = |act: &dyn Fn()| {
        let before = crate::sync::lanes::VISITS.get();
        act();
        crate::sync::lanes::VISITS.get() - before
    };
    assert_eq!(
        visits(&|| (0..100).for_each(insert)),
        0,
        "an empty slot was visited"
    );
    assert_eq!(visits(&|| insert(7)), 1, "of an overwrite");
    assert_eq!(visits(&|| insert(100)), 1, "of an insert that evicts");
    let remove = |key| assert!(entries.remove(hash(key), |other| *other == key).is_some());
    assert_eq!(visits(&|| remove(100)), 1, "of a removal");
    let refresh = |key| {
        let Some((place, entry)) = entries.resident(hash(key), &key) else {
            panic!("the value is there");
        };
        let read = entries.classify(place, entry, 2_000);
        let Read::Serve {
            claim: Some(claim), ..
        } = read
        else {
            panic!("a stale value is served and claimed");
        };
        claim.publish(value(key, 2_000), Made::Here, 2_000);
    };
    // The slot of the table, and that of the flight, which is closed.
    assert_eq!(visits(&|| refresh(7)), 2, "of a refresh");
    assert_eq!(visits(&|| insert(7)), 1, "of an entry that was refreshed");
}
