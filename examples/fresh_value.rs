//! One value kept fresh, without a map: the keys that tokens are signed with, which their issuer rotates.
//!
//! `cargo run --example fresh_value`; in your `Cargo.toml`: `everfresh = { version = "0.1", features = ["tokio"] }`.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use everfresh::Fresh;

type Keys = HashMap<u32, String>;

/// The issuer, far away: the key it signs with now, and how often it was asked.
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

/// The number of a key, and what stands for a signature by it.
type Token = (u32, String);

fn sign() -> Token {
    let key = CURRENT.load(Relaxed);
    (key, secret(key))
}

async fn is_valid((key, signature): &Token, keys: &Fresh<Keys>) -> Result<bool, everfresh::Error> {
    if let Some(secret) = keys.get().await?.get(key) {
        return Ok(secret == signature);
    }
    // Perhaps a key that is younger than what we have. Everybody who finds that at the same time joins one fetch.
    // Where strangers may send tokens, allow this once in a second or so.
    Ok(keys.refresh().await?.get(key) == Some(signature))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let keys: Fresh<Keys> = Fresh::builder()
        .name("signing keys")
        .fresh_for(Duration::from_secs(300)) // then fetched again, while these are used
        .stale_for(Duration::from_secs(3_600)) // an issuer that is down for an hour stops nobody
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
    println!(
        "the issuer rotated its keys: fetched when the first token came that needs the new one"
    );

    assert!(!is_valid(&(2, secret(1)), &keys).await?);
    assert_eq!(FETCHES.load(Relaxed), 2);
    println!("a forged token was refused without a fetch");

    let mut pinned = keys.pin(); // the cheapest read there is, one for each thread or task
    assert_eq!(pinned.get().await?.len(), 2);
    Ok(())
}
