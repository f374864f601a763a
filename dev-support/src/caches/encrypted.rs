//! Caches whose values are encrypted in the store: a scenario for any store.

use std::sync::Arc;
use std::time::Duration;

use everfresh::store::{
    Codec, EncryptionKeys, Format, Namespace, PayloadError, Postcard, Store, StoreKey,
};
use everfresh::{Cache, SecondLevel, Source};

use crate::until;

const NAMESPACE: &str = "secrets:v1";
const KEY: &str = "the key in plain text";
const EMPTY: &str = "empty";
const MISSING: &str = "missing";

/// A process whose format has these secret keys.
fn process<S: Store>(store: &Arc<S>, secrets: &[u8]) -> Cache<String, String> {
    let mut format = Format::new(Postcard);
    if let Some((first, others)) = secrets.split_first() {
        let keys = EncryptionKeys::new(&[*first; 32]);
        let keys = others
            .iter()
            .fold(keys, |keys, other| keys.also_decrypts(&[*other; 32]));
        format = format.encrypt_with(keys);
    }
    let namespace = Namespace::new(NAMESPACE).unwrap();
    let level = SecondLevel::with(store.clone(), namespace, format, Postcard);
    let load = |key: &String| match key.as_str() {
        MISSING => None,
        EMPTY => Some(String::new()),
        _ => Some(format!("the secret of {key}; ").repeat(100)),
    };
    Cache::builder()
        .capacity(100)
        .fresh_for(Duration::from_secs(3_600))
        .beta(0.0)
        .store(level)
        .compute(load)
        .build()
        .unwrap()
}

/// The names of the keys in the store.
pub fn names() -> [StoreKey; 3] {
    [KEY, EMPTY, MISSING].map(|key| {
        let mut encoded = Vec::new();
        Postcard.encode(&key.to_owned(), &mut encoded).unwrap();
        StoreKey::new(&Namespace::new(NAMESPACE).unwrap(), &encoded)
    })
}

/// Reads a key; returns where the value came from.
fn read(cache: &Cache<String, String>, key: &str) -> Source {
    let cached = cache.get_blocking(key).unwrap();
    assert_eq!(cached.is_empty(), key == EMPTY);
    cached.source()
}

fn published(cache: &Cache<String, String>, count: u64) {
    until("the values are published", || {
        cache.store_stats().unwrap().published >= count
    });
}

fn refused(cache: &Cache<String, String>, reason: PayloadError) -> u64 {
    cache.store_stats().unwrap().payload_errors(reason)
}

/// Processes with and without secret keys share a store. `bytes` returns the bytes that it holds.
///
/// # Panics
///
/// If the store holds plain text, or a process takes over a value that it should not.
pub fn encrypted<S: Store>(store: &Arc<S>, bytes: impl Fn() -> Vec<u8>) {
    until("the store is up", || store.state().is_up());
    let writer = process(store, &[1]);
    for key in [KEY, EMPTY] {
        assert_eq!(read(&writer, key), Source::Loaded);
    }
    let missing = writer.get_blocking(MISSING);
    assert!(missing.is_err_and(|error| error.is_not_found()));
    published(&writer, 3);

    let count = |text: &str| {
        let (bytes, text) = (bytes(), text.as_bytes());
        bytes.windows(text.len()).filter(|at| *at == text).count()
    };
    until("the store holds three payloads", || count("EVF") >= 3);
    for text in ["the secret of", "plain text", EMPTY, MISSING] {
        assert_eq!(count(text), 0, "the store holds {text:?}");
    }

    let reader = process(store, &[1]);
    for key in [KEY, EMPTY] {
        assert_eq!(read(&reader, key), Source::Store);
    }
    let missing = reader.get_blocking(MISSING);
    assert!(missing.is_err_and(|error| error.is_not_found()));
    assert_eq!(reader.store_stats().unwrap().leases_granted, 0);

    // Without the key, a process loads for itself, and its value replaces the other.
    let stranger = process(store, &[2]);
    assert_eq!(read(&stranger, KEY), Source::Loaded);
    assert_eq!(refused(&stranger, PayloadError::UnknownKey), 1);
    published(&stranger, 1);
    let late = process(store, &[1]);
    assert_eq!(read(&late, EMPTY), Source::Store);
    assert_eq!(read(&late, KEY), Source::Loaded);
    assert_eq!(refused(&late, PayloadError::UnknownKey), 1);
    published(&late, 1);

    // While a key is replaced, processes read the values of both.
    assert_eq!(read(&process(store, &[2, 1]), KEY), Source::Store);
    let replaced = process(store, &[2, 1]);
    replaced.insert("another".to_owned(), "the secret".to_owned());
    until("the write is in the store", || {
        replaced.store_stats().unwrap().pending == 0
    });
    assert_eq!(read(&process(store, &[1, 2]), "another"), Source::Store);

    // Encrypted values are not taken for others, nor others for encrypted ones.
    let plain = process(store, &[]);
    assert_eq!(read(&plain, KEY), Source::Loaded);
    assert_eq!(refused(&plain, PayloadError::Encrypted), 1);
    published(&plain, 1);
    let last = process(store, &[1]);
    assert_eq!(read(&last, KEY), Source::Loaded);
    assert_eq!(refused(&last, PayloadError::NotEncrypted), 1);
}
