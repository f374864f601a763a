//! Encrypted payloads: only a program that has the key can make one, and each is valid in the place
//! for which it was made, and nowhere else.

use everfresh::store::{EncryptionKeys, Format, Namespace, PayloadError, StoreKey, envelope};
use everfresh::testing::store_contract::{Raw, key, raw, terms};

use crate::envelopes::{rechecked, stamped};

const ONE: [u8; 32] = [1; 32];
const TWO: [u8; 32] = [2; 32];
const TRAILER: usize = 16 + 24 + 4;
const EPOCH: u64 = 1_700_000_000_000_000;

fn with(keys: EncryptionKeys) -> Format<Vec<u8>> {
    raw().encrypt_with(keys)
}

fn encrypting() -> Format<Vec<u8>> {
    with(EncryptionKeys::new(&ONE))
}

fn sealed(format: &Format<Vec<u8>>, value: &[u8]) -> Vec<u8> {
    stamped(
        format.seal(&key("a"), &value.to_vec(), &terms()).unwrap(),
        EPOCH,
    )
}

fn error(format: &Format<Vec<u8>>, key: &StoreKey, payload: &[u8]) -> PayloadError {
    format.open(key, payload).unwrap_err()
}

fn contains(bytes: &[u8], text: &[u8]) -> bool {
    bytes.windows(text.len()).any(|window| window == text)
}

#[test]
fn encrypted_values_come_back_and_cannot_be_read_without_the_key() {
    let text = b"again and again ".repeat(100);
    for value in [&b""[..], b"x", b"a secret of the shop", &text] {
        let payload = sealed(&encrypting(), value);
        assert_eq!(payload.len(), envelope::HEADER + value.len() + TRAILER);
        let opened = encrypting().open(&key("a"), &payload).unwrap();
        assert_eq!((opened.value, opened.terms), (value.to_vec(), terms()));
        assert_eq!(opened.epoch.micros(), EPOCH);
        assert!(value.len() < 4 || !contains(&payload, value));
    }
    let (one, other) = (sealed(&encrypting(), &text), sealed(&encrypting(), &text));
    assert_ne!(one, other, "the nonce is random");
}

#[test]
fn a_written_value_keeps_its_moment() {
    let value = b"value".to_vec();
    let written = encrypting().seal_written(&key("a"), &value, &terms(), 77);
    let written = stamped(written.unwrap(), EPOCH);
    assert_eq!(envelope::born(&written), Some(77));
    assert_eq!(
        encrypting().open(&key("a"), &written).unwrap().value,
        b"value"
    );
    let mut younger = written;
    younger[85] += 1;
    assert_eq!(
        error(&encrypting(), &key("a"), &rechecked(younger)),
        PayloadError::Forged
    );
}

#[test]
fn values_are_compressed_before_they_are_encrypted() {
    let text = b"again and again ".repeat(1_000);
    for format in [encrypting().lz4_from(1_024), encrypting().zstd_from(1_024)] {
        let payload = sealed(&format, &text);
        assert!(payload.len() < 500, "{}", payload.len());
        assert_eq!(encrypting().open(&key("a"), &payload).unwrap().value, text);
    }
}

#[test]
fn a_payload_is_valid_for_its_key_and_namespace_only() {
    let payload = sealed(&encrypting(), b"value");
    let (other_key, other_namespace) = (
        key("b"),
        StoreKey::new(&Namespace::new("test:v2").unwrap(), b"a"),
    );
    // The check of a key is in the payload, so a program that moves one changes it.
    assert_eq!(
        error(&encrypting(), &other_key, &payload),
        PayloadError::Key
    );
    let mut moved = payload.clone();
    moved[28..36].copy_from_slice(&other_key.check().to_be_bytes());
    let moved = rechecked(moved);
    assert_eq!(
        error(&encrypting(), &other_key, &moved),
        PayloadError::Forged
    );
    // The namespace is not in the payload.
    assert_eq!(
        error(&encrypting(), &other_namespace, &payload),
        PayloadError::Forged
    );
    let plain = sealed(&raw(), b"value");
    raw().open(&other_namespace, &plain).unwrap();
}

#[test]
fn every_changed_bit_is_found_even_if_the_checksum_is_made_anew() {
    let payload = sealed(&encrypting().zstd_from(64), &b"a value ".repeat(20));
    for at in 0..payload.len() {
        for bit in 0..8 {
            let mut changed = payload.clone();
            changed[at] ^= 1 << bit;
            if !(20..28).contains(&at) {
                changed = rechecked(changed);
            }
            let error = error(&encrypting(), &key("a"), &changed);
            let expected = match at {
                0..3 => PayloadError::Foreign,
                3 => PayloadError::Version,
                4..20 => PayloadError::Epoch,
                20..28 => PayloadError::Checksum,
                28..36 => PayloadError::Key,
                68..72 => PayloadError::Schema,
                76 => PayloadError::Codec,
                77 if bit == 4 => PayloadError::NotEncrypted,
                // The first bytes of the value are taken for the number of its groups.
                77 if bit == 5 && error == PayloadError::Length => PayloadError::Length,
                _ if at >= payload.len() - 4 => PayloadError::UnknownKey,
                // A length above the limit is refused before anything is decrypted.
                72 => PayloadError::TooLarge, // 16 MiB and more
                73 if bit == 7 => PayloadError::TooLarge, // 8 MiB more
                _ => PayloadError::Forged,
            };
            assert_eq!(error, expected, "bit {bit} of {at}");
        }
    }
}

#[test]
fn a_truncated_payload_is_refused() {
    let payload = sealed(&encrypting(), b"a value");
    for length in 0..payload.len() {
        let cut = payload[..length].to_vec();
        let cut = match length {
            0..envelope::HEADER => cut,
            _ => rechecked(cut),
        };
        encrypting().open(&key("a"), &cut).unwrap_err();
    }
    let short = rechecked(payload[..envelope::HEADER + TRAILER - 1].to_vec());
    assert_eq!(
        error(&encrypting(), &key("a"), &short),
        PayloadError::Length
    );
    let longer = rechecked([&payload[..], b"!"].concat());
    assert!(encrypting().open(&key("a"), &longer).is_err());
}

#[test]
fn keys_are_replaced_while_old_values_are_read() {
    let (old, new) = (EncryptionKeys::new(&ONE), EncryptionKeys::new(&TWO));
    let (old, new) = (
        with(old.also_decrypts(&TWO)),
        with(new.also_decrypts(&ONE).also_decrypts(&[3; 32])),
    );
    let (by_old, by_new) = (sealed(&old, b"value"), sealed(&new, b"value"));
    for format in [&old, &new] {
        for payload in [&by_old, &by_new] {
            assert_eq!(format.open(&key("a"), payload).unwrap().value, b"value");
        }
    }
    let last = with(EncryptionKeys::new(&TWO));
    last.open(&key("a"), &by_new).unwrap();
    assert_eq!(error(&last, &key("a"), &by_old), PayloadError::UnknownKey);
    // The number of a key is not secret. With the number of another key nothing can be read.
    let mut renamed = by_old;
    let id = renamed.len() - 4;
    renamed[id..].copy_from_slice(&by_new[id..]);
    assert_eq!(
        error(&last, &key("a"), &rechecked(renamed)),
        PayloadError::Forged
    );
}

#[test]
fn a_format_reads_either_encrypted_payloads_or_others() {
    let (plain, encrypted) = (sealed(&raw(), b"value"), sealed(&encrypting(), b"value"));
    assert_eq!(
        error(&encrypting(), &key("a"), &plain),
        PayloadError::NotEncrypted
    );
    assert_eq!(
        error(&raw(), &key("a"), &encrypted),
        PayloadError::Encrypted
    );
}

#[test]
fn the_limit_is_that_of_the_value() {
    let format = encrypting().limit(1_000);
    let payload = sealed(&format, &[1; 1_000]);
    format.open(&key("a"), &payload).unwrap();
    let larger = format.seal(&key("a"), &vec![1; 1_001], &terms());
    assert_eq!(larger.unwrap_err(), PayloadError::TooLarge);
    let smaller = encrypting().limit(999);
    assert_eq!(error(&smaller, &key("a"), &payload), PayloadError::TooLarge);
}

#[test]
fn secret_keys_are_not_shown() {
    let secret = *b"0123456789abcdef0123456789abcdef";
    let keys = EncryptionKeys::new(&secret).also_decrypts(&secret);
    assert_eq!(format!("{keys:?}"), "EncryptionKeys { .. }");
    let format = Format::new(Raw).encrypt_with(keys);
    let shown = format!("{format:?} {format:#?}");
    assert!(shown.contains("encrypted: true"), "{shown}");
    for part in ["0123", "48, 49", "30, 31", "303132"] {
        assert!(!shown.contains(part), "{shown}");
    }
}
