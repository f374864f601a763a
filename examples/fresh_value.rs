//! One value kept fresh, without a map: the keys that sign tokens, which their issuer rotates.
//!
//! `cargo run --example fresh_value`; in your `Cargo.toml`: `everfresh = { version = "0.1",
//! features = ["tokio"] }`.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use everfresh::Fresh;

type Keys = HashMap<u32, String>;

/// The remote issuer: the key that signs now, and the number of requests.
static CURRENT: AtomicU32 = AtomicU32::new(1);
static FETCHES: AtomicU32 = AtomicU32::new(0);

/// Stands for a request to the issuer, which publishes its last two keys.
async fn fetch(_: &()) -> Result<Keys, std::io::Error> {
    FETCHES.fetch_add(1, Relaxed);
    let current = CURRENT.load(Relaxed);
    let published = current.saturating_sub(1)..=current;
    Ok(published.map(|key| (key, secret(key))).collect())
}

fn secret(key: u32) -> String {
    format!("the secret of key {key}")
}

/// The number of a key, and a stand-in for a signature by it.
type Token = (u32, String);

fn sign() -> Token {
    let key = CURRENT.load(Relaxed);
    (key, secret(key))
}

async fn is_valid((key, signature): &Token, keys: &Fresh<Keys>) -> Result<bool, everfresh::Error> {
    if let Some(secret) = keys.get().await?.get(key) {
        return Ok(secret == signature);
    }
    // The key may be newer than ours. All callers that see this at the same time share one fetch.
    // If strangers can send tokens, limit this: see the example `signing_keys`.
    Ok(keys.refresh().await?.get(key) == Some(signature))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let keys: Fresh<Keys> = Fresh::builder()
        .name("signing keys")
        .fresh_for(Duration::from_secs(300)) // then fetched again, while the old keys are used
        .stale_for(Duration::from_secs(3_600)) // bridges an outage of one hour
        .try_load(fetch)
        .build_fresh()?;

    let first = sign();
    for _ in 0..1_000 {
        assert!(is_valid(&first, &keys).await?);
    }
    assert_eq!(FETCHES.load(Relaxed), 1);
    println!("1 000 tokens were checked with one fetch of the keys");

    CURRENT.store(2, Relaxed);
    assert!(is_valid(&sign(), &keys).await?);
    assert!(is_valid(&first, &keys).await?); // the old key is still published
    assert_eq!(FETCHES.load(Relaxed), 2);
    println!("the issuer rotated its keys: the first token with the new key caused a fetch");

    assert!(!is_valid(&(2, secret(1)), &keys).await?);
    assert_eq!(FETCHES.load(Relaxed), 2);
    println!("a forged token was refused without a fetch");

    let mut pinned = keys.pin(); // the cheapest read; each thread or task has its own
    assert_eq!(pinned.get().await?.len(), 2);
    Ok(())
}
