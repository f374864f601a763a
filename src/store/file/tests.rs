//! Damage: no bytes make the store serve a payload that is not the last one of its key.
#![allow(clippy::unwrap_used, reason = "a panic is the result of a test")]
use std::collections::HashMap;
use std::io::ErrorKind;

use proptest::prelude::*;
use rand::rngs::SmallRng;
use rand::{Rng, RngExt, SeedableRng};

use super::log::{self, MAGIC, Part};
use super::state::State;
use super::{FileKey, Recovery, replay};
use crate::store::key::Namespace;
use crate::store::record::{Payload, Record};

const LATE: u64 = u64::MAX;

fn key(number: u128) -> FileKey {
    let name = ["a:v1", "other:v1"][number as usize % 2];
    (Namespace::new(name).unwrap(), number / 2)
}

fn payload(bytes: &[u8]) -> Payload {
    Payload {
        bytes: bytes.to_vec(),
        until: LATE,
    }
}

/// A file of frames, and the last payload of each key.
struct Written {
    bytes: Vec<u8>,
    last: HashMap<FileKey, Vec<u8>>,
    /// Where each frame begins, and the end.
    starts: Vec<usize>,
}

fn written(rng: &mut impl Rng) -> Written {
    let mut frames = Vec::new();
    let mut last = HashMap::new();
    let mut starts = Vec::new();
    for number in 0..rng.random_range(1..24_u8) {
        let key = key(rng.random_range(0..6));
        starts.push(MAGIC.len() + frames.len());
        if rng.random_ratio(1, 4) {
            log::frame(&key, None, &mut frames);
            last.remove(&key);
        } else {
            let length = rng.random_range(0..40);
            let bytes = vec![number; length];
            log::frame(&key, Some(&payload(&bytes)), &mut frames);
            last.insert(key, bytes);
        }
    }
    log::seal(&mut frames, MAGIC.len() as u64);
    starts.push(MAGIC.len() + frames.len());
    let bytes = [&MAGIC[..], &frames].concat();
    Written {
        bytes,
        last,
        starts,
    }
}

fn replayed(bytes: &[u8]) -> (State, u64, Recovery) {
    let mut state = State::new(1 << 20);
    let length = bytes.len() as u64;
    let read = replay(&bytes[MAGIC.len()..], length, 1, &mut state);
    let (whole, recovery) = read.unwrap();
    (state, whole, recovery)
}

/// Changes some bytes after the first ones, and leaves the length.
fn damage(written: &Written, rng: &mut impl Rng) -> Vec<u8> {
    let mut bytes = written.bytes.clone();
    let from = MAGIC.len();
    let at = rng.random_range(from..bytes.len());
    let length = rng.random_range(1..=(bytes.len() - at).min(80));
    match rng.random_range(0..5) {
        0 => bytes[at] ^= 1 << rng.random_range(0..8),
        1 => rng.fill(&mut bytes[at..at + length]),
        2 => {
            let source = rng.random_range(from..=bytes.len() - length);
            bytes.copy_within(source..source + length, at);
        }
        // A whole frame, where another one of the same length was.
        3 => {
            let frame = |number: usize| written.starts[number]..written.starts[number + 1];
            let frames = written.starts.len() - 1;
            let source = frame(rng.random_range(0..frames));
            let target = frame(rng.random_range(0..frames));
            if source.len() == target.len() {
                bytes.copy_within(source, target.start);
            }
        }
        _ => {
            // Not up to the end, where zeros count as torn.
            let end = (at + length).min(bytes.len() - 1);
            bytes[at.min(end)..end].fill(0);
        }
    }
    bytes
}

/// The number of tries of a test; more by `EVERFRESH_DAMAGE_TRIES`.
fn tries() -> u64 {
    let tries = std::env::var("EVERFRESH_DAMAGE_TRIES").ok();
    tries.map_or(20_000, |tries| tries.parse().unwrap())
}

#[test]
fn damaged_bytes_are_refused() {
    let mut rng = SmallRng::seed_from_u64(16);
    let (mut refused, mut kept) = (0_u64, 0_u64);
    let mut file = written(&mut rng);
    for number in 0..tries() {
        if number % 100 == 0 {
            file = written(&mut rng);
        }
        let bytes = damage(&file, &mut rng);
        let (state, _, recovery) = replayed(&bytes);
        if bytes == file.bytes {
            assert_eq!(recovery.values, file.last.len() as u64);
            continue;
        }
        refused += u64::from(recovery.damaged + recovery.torn > 0);
        for number in 0..6 {
            let key = key(number);
            if let Some(bytes) = state.payload(&key) {
                assert_eq!(Some(bytes), file.last.get(&key).map(Vec::as_slice));
                kept += 1;
            }
        }
        assert!(recovery.damaged + recovery.torn > 0, "{recovery:?}");
    }
    println!("{} tries: {refused} refused, {kept} payloads kept", tries());
    assert!(refused > tries() / 2 && kept > 0);
}

#[test]
fn a_file_that_is_cut_anywhere_has_the_changes_before_the_cut() {
    let mut rng = SmallRng::seed_from_u64(17);
    for _ in 0..50 {
        let file = written(&mut rng);
        for cut in MAGIC.len()..=file.bytes.len() {
            let whole = file.starts.iter().rfind(|start| **start <= cut).unwrap();
            let (state, end, recovery) = replayed(&file.bytes[..cut]);
            assert_eq!((end, recovery.damaged), (*whole as u64, 0));
            assert_eq!(recovery.torn, (cut - whole) as u64);
            let (before, _, _) = replayed(&file.bytes[..*whole]);
            for number in 0..6 {
                assert_eq!(state.payload(&key(number)), before.payload(&key(number)));
            }
            if *whole == file.bytes.len() {
                assert_eq!(recovery.values, file.last.len() as u64);
            }
        }
    }
}

#[test]
fn zeros_at_the_end_are_torn() {
    let file = written(&mut SmallRng::seed_from_u64(18));
    for zeros in [1, 47, 48, 49, 10_000] {
        let bytes = [&file.bytes[..], &vec![0; zeros]].concat();
        let (_, whole, recovery) = replayed(&bytes);
        assert_eq!(whole, file.bytes.len() as u64);
        assert_eq!((recovery.torn, recovery.damaged), (zeros as u64, 0));
    }
}

proptest! {
    #[test]
    fn no_bytes_panic_or_are_taken(bytes: Vec<u8>) {
        let bytes = [&MAGIC[..], &bytes].concat();
        let (_, whole, recovery) = replayed(&bytes);
        prop_assert_eq!((whole, recovery.values), (MAGIC.len() as u64, 0));
    }
}

#[test]
fn a_damaged_payload_takes_the_earlier_one_of_its_key_along() {
    let (a, b) = (key(0), key(2));
    let mut frames = Vec::new();
    log::frame(&a, Some(&payload(b"old")), &mut frames);
    log::frame(&b, Some(&payload(b"other")), &mut frames);
    log::frame(&a, Some(&payload(b"new")), &mut frames);
    log::seal(&mut frames, MAGIC.len() as u64);
    let mut bytes = [&MAGIC[..], &frames].concat();
    *bytes.last_mut().unwrap() ^= 1;
    let (state, whole, recovery) = replayed(&bytes);
    assert_eq!(
        (state.payload(&a), state.payload(&b)),
        (None, Some(&b"other"[..]))
    );
    assert_eq!((whole, recovery.values), (bytes.len() as u64, 1));
    assert!(recovery.damaged > 48);
}

#[test]
fn a_batch_that_failed_is_in_the_next_one() {
    let mut state = State::new(1 << 20);
    let store =
        |bytes: &'static [u8]| |record: &mut Record| record.set_payload(Some(payload(bytes)));
    let (_, first) = state.step(key(0), 1, store(b"one"));
    let first = first.unwrap();
    assert_eq!(state.begin(), [key(0)]);
    let (_, second) = state.step(key(1), 1, store(b"two"));
    assert_eq!(state.result(first), None);
    state.end(Some(ErrorKind::StorageFull));
    assert_eq!(state.result(first), Some(Err(ErrorKind::StorageFull)));
    assert_eq!(state.result(second.unwrap()), None);
    assert_eq!(state.begin().len(), 2);
    state.end(None);
    assert_eq!(state.result(second.unwrap()), Some(Ok(())));
    assert!(!state.is_dirty());
}

#[test]
fn only_steps_that_change_a_payload_wait_for_the_file() {
    let mut state = State::new(1 << 20);
    let lease = |record: &mut Record| record.set_lease(None);
    assert_eq!(state.step(key(0), 1, lease).1, None);
    // A removal counts although nothing is there: an earlier one may not be in the file.
    let remove = |record: &mut Record| record.set_payload(None);
    assert_eq!(state.step(key(0), 1, remove).1, Some(1));
    let mut frames = Vec::new();
    state.frame(&key(0), &mut frames);
    let mut parts = 0;
    log::seal(&mut frames, MAGIC.len() as u64);
    let end = log::read(&frames[..], (MAGIC.len() + frames.len()) as u64, |part| {
        assert!(matches!(part, Part::Removed(found) if found == key(0)));
        parts += 1;
    });
    assert!(end.is_ok() && parts == 1);
}

#[test]
fn a_file_that_is_too_far_behind_is_given_up() {
    let mut state = State::new(1 << 30);
    for number in 0..=65_536 {
        state.step(key(number), 1, |record| record.set_payload(None));
    }
    state.begin();
    state.end(Some(ErrorKind::StorageFull));
    assert!(state.is_given_up && state.is_dirty() && state.begin().is_empty());
}
