//! The contents of payloads, and the payloads that are not read.
use std::time::Duration;

use everfresh::store::{
    Codec, Epoch, Format, Namespace, PayloadError, Postcard, Rejected, StoreKey, Terms, envelope,
};
use everfresh::testing::store_contract::{Raw, key, raw, terms};
use serde::{Deserialize, Serialize};

/// Writes an epoch as a store does.
pub fn stamped(mut payload: Vec<u8>, epoch: u64) -> Vec<u8> {
    payload[4..12].copy_from_slice(&epoch.to_be_bytes());
    payload[12..20].copy_from_slice(&((1_u64 << 53) - 1 - epoch).to_be_bytes());
    payload
}

/// Writes the checksum anew, as a program does that means to change a payload.
pub fn rechecked(mut payload: Vec<u8>) -> Vec<u8> {
    let seed = u64::from(u32::from_be_bytes([b'E', b'V', b'F', 1]));
    let sum = xxhash_rust::xxh3::xxh3_64_with_seed(&payload[28..], seed);
    payload[20..28].copy_from_slice(&sum.to_be_bytes());
    payload
}

pub fn stored(value: &[u8]) -> Vec<u8> {
    let payload = raw().seal(&key("a"), &value.to_vec(), &terms()).unwrap();
    stamped(payload, 1_700_000_000_000_000)
}

#[test]
fn a_sealed_payload_can_be_opened() {
    for value in [&b""[..], b"x", &[7; 5_000]] {
        let payload = stored(value);
        assert_eq!(payload.len(), envelope::HEADER + value.len());
        let opened = raw().open(&key("a"), &payload).unwrap();
        assert_eq!(opened.value, value);
        assert_eq!(opened.terms, terms());
        assert_eq!(opened.epoch.micros(), 1_700_000_000_000_000);
        assert_eq!(envelope::epoch(&payload), Some(opened.epoch));
    }
}

#[test]
fn times_are_whole_microseconds_or_for_ever() {
    let given = Terms {
        fresh_for: Duration::from_nanos(1_999),
        stale_for: Duration::MAX,
        stale_if_error_for: Duration::ZERO,
        cost: Duration::from_secs(u64::MAX / 1_000_000 + 1),
    };
    let payload = stamped(raw().seal(&key("a"), &vec![1], &given).unwrap(), 5);
    let read = raw().open(&key("a"), &payload).unwrap().terms;
    assert_eq!(read.fresh_for, Duration::from_micros(1));
    assert_eq!(read.stale_for, Duration::MAX);
    assert_eq!(read.stale_if_error_for, Duration::ZERO);
    assert_eq!(read.cost, Duration::MAX);
    assert_eq!(read.ttl(), Duration::MAX);
    assert_eq!(terms().ttl(), Duration::from_secs(3660));
}

#[test]
fn a_payload_has_no_epoch_before_it_is_stored() {
    let payload = raw().seal(&key("a"), &vec![1], &terms()).unwrap();
    assert_eq!(envelope::epoch(&payload), None);
    assert_eq!(
        raw().open(&key("a"), &payload).unwrap_err(),
        PayloadError::Epoch
    );
}

#[test]
fn each_kind_of_damage_has_its_name() {
    let whole = stored(b"value");
    let with = |at: usize, byte: u8| {
        let mut payload = whole.clone();
        payload[at] ^= byte;
        raw().open(&key("a"), &payload).unwrap_err()
    };
    assert_eq!(with(0, 1), PayloadError::Foreign);
    assert_eq!(with(3, 2), PayloadError::Version);
    assert_eq!(with(11, 1), PayloadError::Epoch);
    assert_eq!(with(19, 1), PayloadError::Epoch);
    assert_eq!(with(20, 1), PayloadError::Checksum);
    assert_eq!(with(28, 1), PayloadError::Key);
    for at in 36..whole.len() {
        assert_eq!(with(at, 0x80), PayloadError::Checksum, "{at}");
    }
    for short in 0..envelope::HEADER {
        let error = raw().open(&key("a"), &whole[..short]).unwrap_err();
        assert_eq!(error, PayloadError::Short, "{short}");
    }
    let cut = raw().open(&key("a"), &whole[..whole.len() - 1]);
    assert_eq!(cut.unwrap_err(), PayloadError::Checksum);
    let longer = [&whole[..], b"!"].concat();
    assert_eq!(
        raw().open(&key("a"), &longer).unwrap_err(),
        PayloadError::Checksum
    );
    assert_eq!(raw().open(&key("a"), b"").unwrap_err(), PayloadError::Short);
}

#[test]
fn the_moment_of_a_write_is_read_from_its_payload_alone() {
    let value = b"value".to_vec();
    let written = raw().seal_written(&key("a"), &value, &terms(), 77);
    let written = stamped(written.unwrap(), 5_000);
    assert_eq!(envelope::born(&written), Some(77));
    assert_eq!(raw().open(&key("a"), &written).unwrap().value, value);
    assert_eq!(
        envelope::born(&stored(b"a value that is long enough")),
        None
    );
    for short in 0..envelope::HEADER + 8 {
        assert_eq!(envelope::born(&written[..short]), None, "{short}");
        assert!(raw().open(&key("a"), &written[..short]).is_err());
    }
    let mut later_version = written;
    later_version[3] = 2;
    assert_eq!(envelope::born(&later_version), None);
}

#[test]
fn another_key_schema_or_codec_is_not_read() {
    let payload = stored(b"value");
    assert_eq!(
        raw().open(&key("b"), &payload).unwrap_err(),
        PayloadError::Key
    );
    // The namespace is a part of the name in the store, not of the payload.
    let elsewhere = StoreKey::new(&Namespace::new("other").unwrap(), b"a");
    raw().open(&elsewhere, &payload).unwrap();
    let schema = raw().schema(1).open(&key("a"), &payload);
    assert_eq!(schema.unwrap_err(), PayloadError::Schema);
    let codec = Format::<Vec<u8>>::new(Postcard).open(&key("a"), &payload);
    assert_eq!(codec.unwrap_err(), PayloadError::Codec);
}

#[test]
fn sizes_are_limited_both_ways() {
    let format = raw().limit(100);
    let seal = |size| format.seal(&key("a"), &vec![1; size], &terms());
    assert_eq!(seal(101).unwrap_err(), PayloadError::TooLarge);
    let exact = stamped(seal(100).unwrap(), 5);
    format.open(&key("a"), &exact).unwrap();
    let smaller = raw().limit(99).open(&key("a"), &exact);
    assert_eq!(smaller.unwrap_err(), PayloadError::TooLarge);
    // The size is checked before the contents.
    let error = format.open(&key("a"), &vec![0; 100_000]).unwrap_err();
    assert_eq!(error, PayloadError::TooLarge);
}

/// Values of 1 KiB and more are compressed, and read by a format that does not compress.
fn compresses(format: Format<Vec<u8>>) {
    let text = b"again and ".repeat(1_000);
    let payload = stamped(format.seal(&key("a"), &text, &terms()).unwrap(), 5);
    assert!(payload.len() < 500, "{}", payload.len());
    assert_eq!(raw().open(&key("a"), &payload).unwrap().value, text);
    // Short values and values that would grow are not compressed.
    let short = format.seal(&key("a"), &text[..1_000].to_vec(), &terms());
    assert_eq!(short.unwrap().len(), envelope::HEADER + 1_000);
    let noise: Vec<u8> = (0..4_000_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let noise = format.seal(&key("a"), &noise, &terms()).unwrap();
    assert!(noise.len() <= envelope::HEADER + 4_000);
    // The limit is for the value before compression.
    let error = raw().limit(9_999).open(&key("a"), &payload).unwrap_err();
    assert_eq!(error, PayloadError::TooLarge);
    // Another length, or damage for which the checksum was made anew.
    for length in [0_u32, 9_999, 10_001] {
        let mut wrong = payload.clone();
        wrong[72..76].copy_from_slice(&length.to_be_bytes());
        let error = raw().open(&key("a"), &rechecked(wrong)).unwrap_err();
        assert_eq!(error, PayloadError::Length, "{length}");
    }
    for cut in envelope::HEADER..payload.len() {
        let cut = rechecked(payload[..cut].to_vec());
        assert_eq!(
            raw().open(&key("a"), &cut).unwrap_err(),
            PayloadError::Length
        );
    }
    // What failed leaves nothing behind.
    assert_eq!(raw().open(&key("a"), &payload).unwrap().value, text);
}

#[test]
fn lz4_compresses_values_from_a_size_on() {
    compresses(raw().lz4_from(1_024));
}

#[test]
fn zstd_compresses_values_from_a_size_on() {
    compresses(raw().zstd_from(1_024));
}

#[test]
fn flags_of_two_compressions_are_of_an_unknown_version() {
    let text = b"again and ".repeat(1_000);
    let payload = raw().zstd_from(1_024).seal(&key("a"), &text, &terms());
    let mut payload = stamped(payload.unwrap(), 5);
    assert_eq!(payload[77], 8);
    payload[77] = 9;
    let error = raw().open(&key("a"), &rechecked(payload)).unwrap_err();
    assert_eq!(error, PayloadError::Version);
}

struct Moody;

impl Codec<Vec<u8>> for Moody {
    fn id(&self) -> u8 {
        Codec::id(&Raw)
    }

    fn encode(&self, value: &Vec<u8>, out: &mut Vec<u8>) -> Result<(), Rejected> {
        match value[..] {
            [0] => panic!("on request"),
            [1] => Err("on request".into()),
            [2] => {
                out.clear();
                Ok(())
            }
            _ => Raw.encode(value, out),
        }
    }

    fn decode(&self, bytes: &[u8]) -> Result<Vec<u8>, Rejected> {
        match bytes {
            [0] => panic!("on request"),
            [1] => Err("on request".into()),
            _ => Raw.decode(bytes),
        }
    }
}

#[test]
fn a_codec_that_fails_or_panics_is_an_error() {
    let moody = Format::new(Moody);
    let seal = |value| moody.seal(&key("a"), &vec![value], &terms());
    assert_eq!(seal(0).unwrap_err(), PayloadError::Panicked);
    assert_eq!(seal(1).unwrap_err(), PayloadError::Codec);
    assert_eq!(seal(2).unwrap_err(), PayloadError::Codec);
    seal(3).unwrap();
    assert_eq!(
        moody.open(&key("a"), &stored(&[0])).unwrap_err(),
        PayloadError::Panicked
    );
    assert_eq!(
        moody.open(&key("a"), &stored(&[1])).unwrap_err(),
        PayloadError::Codec
    );
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Prediction {
    home: f64,
    away: f64,
}

#[test]
fn a_type_of_ones_own_by_the_default_codec() {
    let format = Format::new(Postcard);
    let value = Prediction {
        home: 0.1,
        away: f64::INFINITY,
    };
    let payload = stamped(format.seal(&key("a"), &value, &terms()).unwrap(), 5);
    let opened = format.open(&key("a"), &payload).unwrap();
    assert_eq!(opened.value, value);
    assert_eq!(Some(opened.epoch), Epoch::from_micros(5));
}
