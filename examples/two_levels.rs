//! A second level: two processes share one load of a value, receive each other's changes, and start
//! warm.
//!
//! `cargo run --example two_levels` plays both in one program, with a store in memory; with a URL
//! (`-- redis://127.0.0.1/`) they meet in that Redis. In your `Cargo.toml`: `everfresh = { version
//! = "0.1", features = ["redis"] }`.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use everfresh::Cache;
use everfresh::SecondLevel;
use everfresh::store::{MemoryStore, RedisStore, Store};

static LOADS: AtomicU32 = AtomicU32::new(0);

/// Builds the cache of a process, as the process does when it starts.
fn start(store: Arc<impl Store>) -> Result<Cache<String, usize>, everfresh::BuildError> {
    Cache::builder()
        .fresh_for(Duration::from_secs(60))
        .stale_for(Duration::from_secs(600))
        // The name of the type and its version: two versions of a program that run side by side
        // need different names.
        .store(SecondLevel::new(store, "example:lengths:v1")?)
        .load(async |text: &String| {
            LOADS.fetch_add(1, Ordering::Relaxed);
            text.len() // stands for an expensive computation
        })
        .build()
}

async fn play(here: Arc<impl Store>, there: Arc<impl Store>) -> Result<(), Box<dyn Error>> {
    let (one, other) = (start(here)?, start(there.clone())?);
    one.invalidate_everywhere("hello").await?; // removes the value of an earlier run

    assert_eq!(*one.get("hello").await?, 5);
    let taken = other.get("hello").await?; // waits for the load of the first, if it still runs
    assert_eq!((*taken, LOADS.load(Ordering::Relaxed)), (5, 1));
    println!(
        "two processes read it: 1 load, the other took it from {:?}",
        taken.source()
    );

    one.invalidate_everywhere("hello").await?;
    // In memory the other process is notified at once, through Redis some milliseconds later.
    while other.contains_key("hello") {
        tokio::task::yield_now().await;
    }
    println!("one invalidates it: gone in both");

    one.insert_everywhere("hello".to_owned(), 55).await?;
    other.close().await?;
    let restarted = start(there)?;
    assert_eq!(*restarted.get("hello").await?, 55);
    assert_eq!(LOADS.load(Ordering::Relaxed), 1);
    println!("one sets it, the other restarts: it starts warm, without a load");
    restarted.close().await?;
    one.close().await?;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    match std::env::args().nth(1) {
        None => {
            let shared = Arc::new(MemoryStore::new());
            play(shared.clone(), shared).await
        }
        Some(url) => {
            // Two connections, as two processes have.
            let here = RedisStore::builder(url.clone()).connect().await?;
            let there = RedisStore::builder(url).connect().await?;
            play(Arc::new(here), Arc::new(there)).await
        }
    }
}
