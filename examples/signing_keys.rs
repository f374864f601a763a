//! Tokens that are checked by the keys of their issuer (a JWKS), each key found by its `kid`.
//!
//! Anyone can send a token that names a key which does not exist. A thousand of them cause one
//! fetch, and no token with a known key fails, also while the issuer is down.
//!
//! `cargo run --example signing_keys`; in your `Cargo.toml`: `everfresh = { version = "0.1",
//! features = ["tokio"] }`.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use everfresh::{Error, Fresh, ManualClock};

/// The secrets by `kid`.
type Keys = HashMap<String, String>;

/// The remote issuer: how many keys it has issued, whether it answers, and the requests so far.
static ISSUED: AtomicU32 = AtomicU32::new(1);
static IS_DOWN: AtomicBool = AtomicBool::new(false);
static FETCHES: AtomicU32 = AtomicU32::new(0);

/// Stands for a request of the issuer's `/.well-known/jwks.json`, which lists its last two keys.
async fn fetch(_: &()) -> Result<Keys, &'static str> {
    FETCHES.fetch_add(1, Relaxed);
    if IS_DOWN.load(Relaxed) {
        return Err("the issuer does not answer");
    }
    let last = ISSUED.load(Relaxed);
    let listed = last.saturating_sub(1).max(1)..=last;
    Ok(listed.map(|n| (kid(n), format!("secret {n}"))).collect())
}

fn kid(number: u32) -> String {
    format!("key-{number}")
}

async fn is_valid(kid: &str, signature: &str, keys: &Fresh<Keys>) -> Result<bool, Error> {
    if let Some(secret) = keys.get().await?.get(kid) {
        return Ok(secret == signature);
    }
    // The key may be newer than the set here, or made up. Too soon after the last fetch, this is
    // the same set once more.
    Ok(keys
        .refresh()
        .await?
        .get(kid)
        .is_some_and(|secret| secret == signature))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let clock = ManualClock::new(); // so that the example need not wait
    let keys: Fresh<Keys> = Fresh::builder()
        .name("signing keys")
        .fresh_for(Duration::from_secs(300))
        .stale_for(Duration::from_secs(86_400)) // bridges an outage of a day
        .forced_at_most_every(Duration::from_secs(10)) // however many unknown keys come
        .clock(&clock)
        .try_load(fetch)
        .build_fresh()?;
    keys.keep_fresh(); // the first token after a quiet night finds fresh keys

    assert!(is_valid("key-1", "secret 1", &keys).await?);
    for n in 0..1_000 {
        assert!(!is_valid(&format!("made-up-{n}"), "?", &keys).await?);
    }
    assert_eq!(FETCHES.load(Relaxed), 1);
    println!("1 000 tokens with made-up keys were refused, with one fetch in all");

    clock.advance(Duration::from_secs(10));
    ISSUED.store(2, Relaxed);
    assert!(is_valid("key-2", "secret 2", &keys).await?);
    assert_eq!(FETCHES.load(Relaxed), 2);
    println!("the issuer rotated its keys: the first token with the new key caused a fetch");

    clock.advance(Duration::from_secs(10));
    IS_DOWN.store(true, Relaxed);
    for n in 0..1_000 {
        // The first of them tries, and gets the error. The others are refused by the keys at hand.
        assert!(
            !is_valid(&format!("made-up-{n}"), "?", &keys)
                .await
                .unwrap_or(false)
        );
        assert!(is_valid("key-2", "secret 2", &keys).await?);
    }
    assert_eq!(FETCHES.load(Relaxed), 3);
    println!("the issuer was down: one attempt, and every token with a known key was accepted");
    Ok(())
}
