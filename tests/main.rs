//! Behaviour of the whole cache, one module a topic.
use everfresh::*;
use std::time::Duration;

#[test]
fn smoke() {
    let clock = ManualClock::new();
    let cache: Cache<u64, u64> = Cache::builder()
        .fresh_for(Duration::from_secs(5))
        .stale_for(Duration::from_secs(115))
        .clock(clock.clone())
        .compute(|n: &u64| n * n)
        .build()
        .unwrap();
    assert_eq!(*cache.get_blocking(&7).unwrap(), 49);
    clock.advance(Duration::from_secs(6));
    let stale = cache.get_blocking(&7).unwrap();
    assert!(stale.freshness().is_stale());
    while cache.peek(&7).unwrap().freshness().is_stale() {
        std::thread::yield_now();
    }
    println!("{}", cache.stats());
    for n in 0..20_000 {
        assert_eq!(*cache.get_blocking(&n).unwrap(), n * n);
    }
    assert_eq!(cache.len(), 10_000);
    println!("{}", cache.stats());
}
