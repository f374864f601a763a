//! A first cache, for threads: the cost of a missing key, a stale value and an invalidation.
//!
//! `cargo run --example basic`; in your `Cargo.toml`: `everfresh = "0.1"`.

use std::error::Error;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use everfresh::{Cache, Loaded, Source};

const LIMIT: u64 = 100_000;

static COMPUTES: AtomicU32 = AtomicU32::new(0);

/// A computation worth caching: counts the primes below a limit, by trial division.
fn primes_below(limit: &u64) -> usize {
    COMPUTES.fetch_add(1, Ordering::Relaxed);
    let is_prime = |n: &u64| (2..).take_while(|d| d * d <= *n).all(|d| n % d != 0);
    (2..*limit).filter(is_prime).count()
}

/// The number of computes since the last call.
fn computes() -> u32 {
    COMPUTES.swap(0, Ordering::Relaxed)
}

/// The sources of the values that 100 threads get when they read at the same time.
fn read_by_all(primes: &Cache<u64, usize>) -> Result<Vec<(usize, Source)>, everfresh::Error> {
    thread::scope(|scope| {
        let read = || primes.get_blocking(&LIMIT).map(|n| (*n, n.source()));
        let threads: Vec<_> = (0..100).map(|_| scope.spawn(read)).collect();
        threads
            .into_iter()
            .filter_map(|thread| thread.join().ok())
            .collect()
    })
}

fn main() -> Result<(), Box<dyn Error>> {
    let primes: Cache<u64, usize> = Cache::builder()
        .name("primes")
        .capacity(10_000)
        .fresh_for(Duration::from_secs(60)) // the soft limit: refreshed after this
        .stale_for(Duration::from_secs(600)) // the hard limit, 600 s later: not served after this
        .compute(primes_below) // on a pool that all caches share
        .build()?;

    // The key is missing: one of the threads causes the load, the others wait for it.
    let answers = read_by_all(&primes)?;
    assert!(answers.len() == 100 && answers.iter().all(|(n, _)| *n == 9_592));
    assert_eq!(computes(), 1);
    println!("a missing key: 100 threads, 1 compute");

    // The value is wrong: every later reader gets a value whose load began after the invalidation.
    assert!(primes.invalidate(&LIMIT));
    let again = primes.get_blocking(&LIMIT)?;
    assert_eq!((again.source(), computes()), (Source::Loaded, 1));
    println!("invalidated: loaded again, which took {:.0?}", again.cost());

    // A stale value, for example from a file: no reader waits, and one refresh runs in the
    // background.
    primes.insert(LIMIT, Loaded::new(9_591).fresh_for(Duration::ZERO));
    let answers = read_by_all(&primes)?;
    let old = answers.iter().filter(|(n, _)| *n == 9_591).count();
    let waited = |source| matches!(source, Source::Loaded | Source::Coalesced);
    assert!(!answers.iter().any(|(_, source)| waited(*source)));
    // Waits for the refresh in order to count it. Your code does not need this.
    while primes.stats().published < 3 {
        thread::yield_now();
    }
    assert_eq!((computes(), *primes.get_blocking(&LIMIT)?), (1, 9_592));
    println!("a stale value: 100 threads, {old} served the old one, none waited, 1 compute");

    println!("\n{}", primes.stats());
    Ok(())
}
