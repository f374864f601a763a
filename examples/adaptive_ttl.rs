//! Values with times of their own: the loader sets the times of an entry from the `Cache-Control`
//! of its origin.
//!
//! `cargo run --example adaptive_ttl`; in your `Cargo.toml`: `everfresh = "0.1"`.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use everfresh::{Cache, Loaded};

static FETCHES: AtomicU32 = AtomicU32::new(0);

/// Stands for a request to a server: a body and its `Cache-Control`, or `None` if the page does not
/// exist.
fn fetch(path: &str) -> Option<(&'static str, &'static str)> {
    FETCHES.fetch_add(1, Relaxed);
    match path {
        "/logo" => Some(("a picture", "max-age=86400, stale-while-revalidate=600")),
        "/news" => Some(("headlines", "max-age=0, stale-while-revalidate=30")),
        "/price" => Some(("12.50", "max-age=0, must-revalidate")),
        _ => None,
    }
}

/// The seconds that a directive names (RFC 9111 and RFC 5861).
fn seconds(header: &str, directive: &str) -> Option<Duration> {
    let mut directives = header.split(',').filter_map(|d| d.trim().split_once('='));
    let (_, value) = directives.find(|(name, _)| name.eq_ignore_ascii_case(directive))?;
    value.parse().ok().map(Duration::from_secs)
}

fn load(path: &str) -> Loaded<&'static str> {
    let Some((body, header)) = fetch(path) else {
        // The cache remembers "not found" for this time; `not_found_for` sets the time for all
        // keys.
        return Loaded::not_found().fresh_for(Duration::from_secs(5));
    };
    // A limit of our own: a mistake of the origin lasts an hour at most.
    let an_hour = Duration::from_secs(3_600);
    let fresh = seconds(header, "max-age").unwrap_or_default();
    let stale = seconds(header, "stale-while-revalidate").unwrap_or_default();
    let page = Loaded::new(body).fresh_for(fresh.min(an_hour));
    page.stale_for(stale.min(an_hour))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // The limits of the builder are for values whose loader sets none.
    let pages: Cache<String, &'static str> = Cache::builder()
        .compute(|path: &String| load(path))
        .build()?;

    pages.get_blocking("/logo")?;
    assert!(pages.get_blocking("/logo")?.freshness().is_fresh());
    assert_eq!(FETCHES.swap(0, Relaxed), 1);
    println!("/logo  is fresh for an hour: one fetch for all readers");

    pages.get_blocking("/price")?;
    pages.get_blocking("/price")?;
    assert_eq!(FETCHES.swap(0, Relaxed), 2);
    println!("/price is never served twice: each reader waits for a fetch");

    for _ in 0..3 {
        let answer = pages.get_blocking("/gone");
        assert!(answer.is_err_and(|error| error.is_not_found()));
    }
    assert_eq!(FETCHES.swap(0, Relaxed), 1);
    println!("/gone  does not exist, and the cache remembers that: one fetch");

    pages.get_blocking("/news")?;
    assert!(pages.get_blocking("/news")?.freshness().is_stale());
    // Waits until the refresh has begun. Your code does not need this.
    while FETCHES.load(Relaxed) < 2 {
        std::thread::yield_now();
    }
    println!("/news  is served at once, and fetched again in the background");
    Ok(())
}
