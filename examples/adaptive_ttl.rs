//! Values that say themselves how long they are good: the loader sets an entry's times from its origin's `Cache-Control`.
//!
//! `cargo run --example adaptive_ttl`; in your `Cargo.toml`: `everfresh = "0.1"`.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use everfresh::{Cache, Loaded};

static FETCHES: AtomicU32 = AtomicU32::new(0);

/// Stands for a request to a server: a body and its `Cache-Control`, or that there is no such page.
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
        // Remembered for so long, apart from the values; `not_found_for` sets the time for all.
        return Loaded::not_found().fresh_for(Duration::from_secs(5));
    };
    let an_hour = Duration::from_secs(3_600); // what the origin gets wrong is wrong no longer here
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
    println!("/logo  is fresh for an hour: one fetch for all who read it");

    pages.get_blocking("/price")?;
    pages.get_blocking("/price")?;
    assert_eq!(FETCHES.swap(0, Relaxed), 2);
    println!("/price is never served twice: whoever reads it waits for a fetch");

    for _ in 0..3 {
        let answer = pages.get_blocking("/gone");
        assert!(answer.is_err_and(|error| error.is_not_found()));
    }
    assert_eq!(FETCHES.swap(0, Relaxed), 1);
    println!("/gone  does not exist, which is remembered: one fetch");

    pages.get_blocking("/news")?;
    assert!(pages.get_blocking("/news")?.freshness().is_stale());
    // So that the refresh is seen to begin. Your code needs none of this.
    while FETCHES.load(Relaxed) < 2 {
        std::thread::yield_now();
    }
    println!("/news  is served at once, and fetched again in the background");
    Ok(())
}
