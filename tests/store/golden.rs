//! Payloads of every version, byte by byte. These files never change, because payloads that are in
//! stores must stay readable.
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use dev_support::until;
use everfresh::store::{
    EncryptionKeys, Format, Json, MemoryStore, MessagePack, Postcard, Store, StoreKey, Terms,
    envelope,
};
use everfresh::testing::store_contract::{Raw, namespace};
use everfresh::{Cache, ManualClock, SecondLevel};
use futures_lite::future::block_on;
use serde::{Deserialize, Serialize};

use crate::envelopes::stamped;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Prediction {
    home: f64,
    away: f64,
    note: Option<String>,
}

fn prediction() -> Prediction {
    Prediction {
        home: 0.1,
        away: 1.0 / 3.0,
        note: Some("derby".to_owned()),
    }
}

fn terms() -> Terms {
    Terms {
        fresh_for: Duration::from_secs(5),
        stale_for: Duration::from_secs(115),
        stale_if_error_for: Duration::MAX,
        cost: Duration::from_micros(1_234),
    }
}

fn key() -> StoreKey {
    StoreKey::new(&namespace(), b"ManCity-Liverpool")
}

const EPOCH: u64 = 1_700_000_000_123_456;

/// Asserts that a value is written as the file of this name, and read from it.
fn is_unchanged<V: PartialEq + std::fmt::Debug + 'static>(name: &str, format: Format<V>, value: V) {
    let written = stamped(format.seal(&key(), &value, &terms()).unwrap(), EPOCH);
    assert_eq!(written, golden(name), "{name}: {}", hex(&written));
    reads_unchanged(name, format, value);
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn reads_unchanged<V: PartialEq + std::fmt::Debug + 'static>(
    name: &str,
    format: Format<V>,
    value: V,
) {
    let opened = format.open(&key(), &golden(name)).unwrap();
    assert_eq!(opened.value, value);
    assert_eq!(opened.terms, terms());
    assert_eq!(opened.epoch.micros(), EPOCH);
}

fn golden(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/store/golden")
        .join(name);
    let text = fs::read_to_string(&path).unwrap_or_default();
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

#[test]
fn version_1_raw() {
    is_unchanged(
        "v1-raw.hex",
        Format::new(Raw).schema(7),
        b"the value".to_vec(),
    );
}

#[test]
fn version_1_postcard() {
    is_unchanged("v1-postcard.hex", Format::new(Postcard), prediction());
}

#[test]
fn version_1_json() {
    is_unchanged("v1-json.hex", Format::new(Json), prediction());
}

#[test]
fn version_1_message_pack() {
    is_unchanged("v1-msgpack.hex", Format::new(MessagePack), prediction());
}

#[test]
fn version_1_written() {
    let format = Format::new(Raw);
    let born = EPOCH - 1_000_000;
    let value = b"the value".to_vec();
    let sealed = format.seal_written(&key(), &value, &terms(), born);
    let written = stamped(sealed.unwrap(), EPOCH);
    assert_eq!(written, golden("v1-written.hex"), "{}", hex(&written));
    assert_eq!(envelope::born(&written), Some(born));
    assert_eq!(envelope::born(&golden("v1-raw.hex")), None);
    reads_unchanged("v1-written.hex", format, value);
}

#[test]
fn version_1_with_groups() {
    let clock = ManualClock::new();
    let store = Arc::new(MemoryStore::with_clock(&clock));
    let level = SecondLevel::with(store.clone(), namespace(), Format::new(Raw), Raw);
    let cache: Cache<Vec<u8>, Vec<u8>> = Cache::builder()
        .clock(&clock)
        .fresh_for(terms().fresh_for)
        .stale_for(Duration::ZERO)
        .group_by(|_| [7, 8])
        .store(level)
        .compute(|_: &Vec<u8>| b"the value".to_vec())
        .build()
        .unwrap();
    cache.get_blocking(&b"ManCity-Liverpool".to_vec()).unwrap();
    let stored = || {
        let read = block_on(store.read(&[key()])).into_iter().next();
        read.unwrap().unwrap()
    };
    until("the value is stored", || stored().is_some());
    let written = stored().unwrap();
    let file = golden("v1-groups.hex");
    assert_eq!(written, file, "{}", hex(&written));
    // It is read by a program whose values have no groups as well.
    let opened = Format::new(Raw).open(&key(), &file).unwrap();
    assert_eq!(opened.value, b"the value");
    assert_eq!(opened.terms.fresh_for, terms().fresh_for);
}

#[test]
fn version_1_lz4() {
    let text = b"again and ".repeat(100);
    // Only read, because the output of the compressor may change.
    reads_unchanged("v1-lz4.hex", Format::new(Raw), text);
}

#[test]
fn version_1_zstd() {
    let text = b"again and ".repeat(100);
    reads_unchanged("v1-zstd.hex", Format::new(Raw), text);
}

#[test]
fn version_1_encrypted() {
    // Only read, because the nonce is random.
    let key = std::array::from_fn(|at| at as u8);
    let format = || Format::new(Raw).encrypt_with(EncryptionKeys::new(&key));
    reads_unchanged("v1-encrypted.hex", format(), b"the value".to_vec());
    let text = b"again and ".repeat(100);
    reads_unchanged("v1-zstd-encrypted.hex", format(), text);
}

#[test]
fn keys_have_unchanged_names() {
    assert_eq!(key().hash(), 279209068016316794664801462967849367197);
    assert_eq!(key().check(), 2382409379335623142);
}
