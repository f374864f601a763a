//! Hits allocate nothing, and removed values free their memory. An allocator counts for every test
//! of this binary.

use dev_support::allocator::PerThread;
use everfresh::{ManualClock, Source};

use crate::support::*;

#[global_allocator]
static ALLOCATOR: PerThread = PerThread;

/// Counts the allocations of this thread while `work` runs.
fn allocations(work: impl FnOnce()) -> u64 {
    let before = PerThread::allocations();
    work();
    PerThread::allocations() - before
}

#[test]
fn the_allocator_counts() {
    assert!(allocations(|| drop(std::hint::black_box(Box::new(1)))) > 0);
    assert_eq!(allocations(|| {}), 0);
}

/// Reads key 1 in every way from a thread and, with a future ready at its first poll, from a task.
fn reads_allocate(cache: &everfresh::Cache<u64, u64>, source: Source) -> u64 {
    let read = || {
        assert_eq!(cache.get_blocking(&1).unwrap().source(), source);
        let mut future = std::pin::pin!(cache.get(&1));
        let read = ready(&mut future).unwrap();
        assert_eq!(read.source(), source);
    };
    // The first read of a thread makes its counters and its random generator.
    read();
    allocations(|| (0..100).for_each(|_| read()))
}

#[test]
fn fresh_hits_allocate_nothing() {
    let clock = ManualClock::new();
    let (cache, ..) = by_hand(builder(&clock));
    cache.insert(1, 10);
    assert_eq!(reads_allocate(&cache, Source::Fresh), 0);
    assert_eq!(
        allocations(|| assert_eq!(*cache.get_if_present(&1).unwrap(), 10)),
        0
    );
    assert_eq!(allocations(|| assert!(cache.contains_key(&1))), 0);
}

#[test]
fn fresh_hits_in_the_early_window_allocate_nothing() {
    let clock = ManualClock::new();
    let (tasks, moved) = (Tasks::default(), clock.clone());
    let cache = builder(&clock)
        .fresh_for(secs(100))
        .beta(1.0)
        .spawner(tasks.spawner())
        .load(move |_: &u64| {
            moved.advance(secs(2));
            async { 10 }
        })
        .build()
        .unwrap();
    let mut first = get(&cache, 1);
    assert!(is_pending(&mut first));
    tasks.poll_all();
    // The window is the last 41.4 s. At its start every read draws a random number, and refreshes
    // with a chance of one in a billion.
    clock.advance(secs(59));
    assert_eq!(reads_allocate(&cache, Source::Fresh), 0);
    assert_eq!(tasks.spawned(), 1);
}

#[test]
fn stale_hits_allocate_nothing_once_the_refresh_is_under_way() {
    let clock = ManualClock::new();
    let (cache, tasks, gates) = by_hand(builder(&clock).backoff(secs(100), secs(100)));
    cache.insert(1, 10);
    clock.advance(secs(12));
    assert_eq!(reads_allocate(&cache, Source::Stale), 0);
    assert_eq!(tasks.spawned(), 1);
    assert_eq!(
        allocations(|| assert_eq!(*cache.get_if_present(&1).unwrap(), 10)),
        0
    );
    // Hits during the backoff after a failure allocate nothing either.
    tasks.poll_all();
    gates.end(0, crate::support::gates::End::Fail);
    tasks.poll_all();
    assert_eq!(reads_allocate(&cache, Source::AfterFailure), 0);
}

#[test]
fn hits_by_a_reader_and_a_pin_allocate_nothing() {
    let clock = ManualClock::new();
    let (cache, ..) = by_hand(builder(&clock));
    cache.insert(1, 10);
    let (mut reader, mut pin) = (cache.reader(), cache.pin(1));
    let mut read = || {
        assert_eq!(*reader.get_blocking(&1).unwrap(), 10);
        assert_eq!(*pin.get_blocking().unwrap(), 10);
        let pinned = std::pin::pin!(pin.get());
        assert_eq!(*ready(pinned).unwrap(), 10);
    };
    // The first reads cache the location of the value.
    (0..4).for_each(|_| read());
    // More hits than are counted in one batch.
    assert_eq!(allocations(|| (0..1_000).for_each(|_| read())), 0);
}

#[test]
fn hits_on_a_single_value_allocate_nothing() {
    let one = single(ManualClock::new(), 1);
    one.set(10);
    let mut pin = one.pin();
    let mut read = || {
        assert_eq!(*one.get_blocking().unwrap(), 10);
        assert_eq!(*one.get_if_present().unwrap(), 10);
        assert_eq!(*ready(std::pin::pin!(one.get())).unwrap(), 10);
        assert_eq!(*pin.get_blocking().unwrap(), 10);
        assert!(one.is_set());
    };
    (0..4).for_each(|_| read());
    assert_eq!(allocations(|| (0..1_000).for_each(|_| read())), 0);
}

#[test]
fn a_single_value_has_no_room_for_the_loads_of_other_keys() {
    let built = |loads| {
        let before = PerThread::bytes();
        let one = single(ManualClock::new(), loads);
        let bytes = PerThread::bytes() - before;
        drop(one);
        bytes
    };
    // The lanes of its slots are reused: those of these values, unless other tests take them all.
    let many: Vec<_> = (0..50).map(|_| single(ManualClock::new(), 1)).collect();
    drop(many);
    assert_eq!(built(1), built(1_000));
    // Its largest parts are the counters of its statistics.
    assert!(built(1) < 8_192, "{} bytes", built(1));
}

/// A value of which so many loads may run at once.
fn single(clock: ManualClock, loads: usize) -> everfresh::Fresh<u64> {
    everfresh::Fresh::builder()
        .clock(clock)
        .max_loads(loads)
        .spawner(Tasks::default().spawner())
        .load(async |()| 10)
        .build_fresh()
        .unwrap()
}

#[test]
fn a_capacity_that_does_not_fit_into_memory_is_an_error() {
    let largest = usize::try_from(1u64 << 32).unwrap_or(usize::MAX);
    for entries in [1 << 25, 1 << 31, largest] {
        let tasks = Tasks::default();
        let cache = everfresh::Cache::<u64, u64>::builder()
            .capacity(entries)
            .spawner(tasks.spawner())
            .load(async |key: &u64| *key);
        let error = cache.build().unwrap_err().to_string();
        let beginning = format!("`capacity` is {entries}; there is no memory");
        let error = error.replace(' ', "");
        let beginning = beginning.replace(' ', "");
        assert!(error.starts_with(&beginning), "{error}");
    }
}

#[test]
fn memory_for_the_capacity_is_allocated_when_the_cache_is_built() {
    let clock = ManualClock::new();
    let built = |limits: everfresh::Builder<u64, u64>| {
        let before = PerThread::bytes();
        let cache = by_hand(limits).0;
        let bytes = PerThread::bytes() - before;
        drop(cache);
        bytes as f64
    };
    // The documentation says 34 bytes for each entry, and 6 with the first eviction. The builder
    // checks that there are 42.
    let each = built(builder(&clock).capacity(65_536)) / 65_536.0;
    assert!((30.0..=36.0).contains(&each), "{each} bytes for each entry");
    // A weight limit alone reserves room for at least 65 536 values, and for one value in each 1
    // 024 of weight.
    for (weight, entries) in [(1, 65_536), (64 << 20, 65_536), (128 << 20, 131_072)] {
        let bytes = built(builder(&clock).max_weight(weight, |_, _| 1));
        let expected = each * f64::from(entries);
        assert!(
            (bytes / expected - 1.0).abs() < 0.05,
            "{weight}: {bytes} bytes"
        );
    }
}

#[test]
fn memory_that_only_eviction_needs_is_allocated_by_the_first_one() {
    const ENTRIES: u64 = 20_000;
    let clock = ManualClock::new();
    let (cache, ..) = by_hand(builder(&clock).capacity(ENTRIES as usize));
    (0..ENTRIES).for_each(|key| cache.insert(key, key));
    let grows = |keys: std::ops::Range<u64>| {
        let before = PerThread::bytes();
        keys.for_each(|key| cache.insert(key, key));
        PerThread::bytes() - before
    };
    // Now and then a set was full before the cache was, so some of these evict nothing.
    let first = grows(ENTRIES..ENTRIES + 100) as f64;
    let expected = 6.0 * ENTRIES as f64 + 26_000.0;
    assert!((first / expected - 1.0).abs() < 0.1, "{first} bytes");
    let more = grows(ENTRIES + 100..2 * ENTRIES);
    assert!(more < 10_000, "{more} bytes later");
}

#[test]
fn keys_that_come_and_go_leave_no_memory_behind() {
    let clock = ManualClock::new();
    let (cache, ..) = by_hand(builder(&clock).capacity(100));
    let run = |rounds: u64| {
        for round in 0..rounds {
            cache.insert(1, round);
            assert!(cache.invalidate(&1));
        }
    };
    run(2_000);
    let before = PerThread::bytes();
    // The smallest object that a key could leave behind is a token of 16 bytes.
    run(50_000);
    let more = PerThread::bytes() - before;
    assert!(more < 50_000, "{more} bytes");
}

#[test]
fn keys_that_are_overwritten_leave_no_memory_behind() {
    let clock = ManualClock::new();
    let (cache, ..) = by_hand(builder(&clock).capacity(100));
    let run = |rounds: u64| (0..rounds).for_each(|round| cache.insert(round % 7, round));
    run(2_000);
    let before = PerThread::bytes();
    run(50_000);
    let more = PerThread::bytes() - before;
    assert!(more < 50_000, "{more} bytes");
}
