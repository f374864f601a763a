//! Bytes that any program may have stored: they cause no panic and no large allocation, and damaged
//! payloads are not accepted.
use dev_support::allocator::PerThread;
use everfresh::store::{
    EncryptionKeys, Format, Json, MessagePack, PayloadError, Postcard, envelope,
};
use everfresh::testing::store_contract::{key, raw, terms};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::envelopes::{rechecked, stamped, stored};

#[global_allocator]
static ALLOCATOR: PerThread = PerThread;

/// Reads bytes with all formats. No allocation may be much larger than the limit.
fn open_all(bytes: &[u8]) -> Vec<Result<(), PayloadError>> {
    PerThread::take_largest();
    let limit = 1 << 16;
    let key = key("a");
    let opened = vec![
        raw().limit(limit).open(&key, bytes).map(drop),
        raw()
            .limit(limit)
            .encrypt_with(EncryptionKeys::new(&[7; 32]))
            .open(&key, bytes)
            .map(drop),
        Format::<Vec<String>>::new(Postcard)
            .limit(limit)
            .open(&key, bytes)
            .map(drop),
        Format::<Vec<String>>::new(Json)
            .limit(limit)
            .open(&key, bytes)
            .map(drop),
        Format::<Vec<String>>::new(MessagePack)
            .limit(limit)
            .open(&key, bytes)
            .map(drop),
    ];
    let largest = PerThread::take_largest();
    assert!(largest <= 2 << 20, "{largest} bytes at once");
    envelope::epoch(bytes);
    envelope::born(bytes);
    opened
}

/// A payload with any contents and a correct checksum, as an attacker may make it.
fn forged(codec: u8, flags: u8, length: u32, body: &[u8]) -> Vec<u8> {
    let mut payload = stored(body);
    payload[72..76].copy_from_slice(&length.to_be_bytes());
    payload[76] = codec;
    payload[77] = flags;
    rechecked(payload)
}

#[test]
fn a_forgery_has_the_layout_of_a_payload() {
    assert_eq!(forged(200, 0, 5, b"value"), stored(b"value"));
}

#[test]
fn the_allocator_is_watched() {
    PerThread::take_largest();
    drop(std::hint::black_box(vec![0_u8; 12_345_678]));
    assert!(PerThread::take_largest() >= 12_345_678);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn random_bytes_are_no_payload(bytes in vec(any::<u8>(), 0..300)) {
        prop_assert!(open_all(&bytes).iter().all(Result::is_err));
    }

    #[test]
    fn random_bytes_after_a_true_beginning_are_no_payload(
        keep in 0..78_usize,
        bytes in vec(any::<u8>(), 0..300),
    ) {
        let mut payload = stored(b"value")[..keep].to_vec();
        payload.extend(bytes);
        prop_assert!(open_all(&payload).iter().all(Result::is_err));
    }

    #[test]
    fn no_damaged_payload_is_accepted(
        value in vec(any::<u8>(), 0..200),
        changes in vec((any::<Index>(), 1..=255_u8), 1..6),
        cut in proptest::option::of(any::<Index>()),
        more in vec(any::<u8>(), 0..4),
    ) {
        let whole = stored(&value);
        let mut damaged = whole.clone();
        for (at, by) in changes {
            let at = at.index(damaged.len());
            damaged[at] ^= by;
        }
        if let Some(cut) = cut {
            damaged.truncate(cut.index(whole.len()));
        }
        damaged.extend(more);
        if damaged != whole {
            prop_assert!(open_all(&damaged).iter().all(Result::is_err));
        }
    }

    #[test]
    fn parts_of_two_payloads_are_no_payload(
        at in any::<Index>(),
        to in any::<Index>(),
        length in 1..40_usize,
    ) {
        let one = stored(b"the value of one payload");
        let other = stamped(
            raw().seal(&key("a"), &b"what the other one holds".to_vec(), &terms()).unwrap(),
            1_800_000_000_000_000,
        );
        let (at, to) = (at.index(one.len()), to.index(one.len()));
        let end = (at + length).min(other.len());
        let length = (end - at).min(one.len() - to);
        let mut mixed = one.clone();
        mixed[to..][..length].copy_from_slice(&other[at..][..length]);
        // The store may change the epoch, so a payload that differs in its epoch alone is valid.
        let restored = [&mixed[..4], &one[4..20], &mixed[20..]].concat();
        if restored != one {
            prop_assert!(open_all(&mixed).iter().all(Result::is_err));
        }
    }

    #[test]
    fn forgeries_do_no_harm(
        codec in prop_oneof![Just(1_u8), Just(2), Just(3), Just(200)],
        flags in prop_oneof![
            Just(0_u8),
            Just(1),
            Just(2),
            Just(3),
            Just(8),
            Just(16),
            any::<u8>(),
        ],
        length in prop_oneof![Just(u32::MAX), Just(1 << 16), 0..400_u32, any::<u32>()],
        body in vec(any::<u8>(), 0..300),
    ) {
        open_all(&forged(codec, flags, length, &body));
        open_all(&forged(codec, 0, body.len() as u32, &body));
    }
}
