//! Payloads of a feature that this build may not have. The suite runs with and without them.

use std::path::Path;

use everfresh::store::{PayloadError, StoreKey};
use everfresh::testing::store_contract::{namespace, raw};

/// Reads a payload of the tests of the store; returns how long its value is.
fn read(name: &str) -> Result<usize, PayloadError> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/store/golden")
        .join(name);
    let text = std::fs::read_to_string(path).unwrap();
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    let payload: Vec<u8> = digits.chunks(2).map(byte).collect();
    let key = StoreKey::new(&namespace(), b"ManCity-Liverpool");
    raw().open(&key, &payload).map(|opened| opened.value.len())
}

#[test]
fn compressed_values_are_read_if_the_feature_is_on_and_else_missing_for_a_reason() {
    let expected = |is_on| match is_on {
        true => Ok(1_000),
        false => Err(PayloadError::Compressed),
    };
    assert_eq!(read("v1-lz4.hex"), expected(cfg!(feature = "lz4")));
    assert_eq!(read("v1-zstd.hex"), expected(cfg!(feature = "zstd")));
}

#[test]
fn encrypted_values_are_missing_for_a_reason_without_keys_and_without_the_feature() {
    for name in ["v1-encrypted.hex", "v1-zstd-encrypted.hex"] {
        assert_eq!(read(name), Err(PayloadError::Encrypted));
    }
}
