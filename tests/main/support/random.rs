//! Seeds and sizes of the random tests.
//!
//! - `EVERFRESH_SEED`: the seed, a number. Default: random. A failing test prints it.
//! - `PROPTEST_CASES`: the number of programs for each property.
//! - `EVERFRESH_STRESS_ROUNDS`: the number of rounds of each stress test.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::OnceLock;

pub fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    match text.parse() {
        Ok(number) => Some(number),
        Err(_) => panic!("{name} must be a number, not {text:?}"),
    }
}

pub fn seed() -> u64 {
    static SEED: OnceLock<u64> = OnceLock::new();
    let drawn = || RandomState::new().build_hasher().finish();
    *SEED.get_or_init(|| number("EVERFRESH_SEED").unwrap_or_else(drawn))
}

pub fn rounds(default: u64) -> u64 {
    number("EVERFRESH_STRESS_ROUNDS").unwrap_or(default)
}

/// A small generator (SplitMix64); each number selects a stream.
pub struct Rng(u64);

impl Rng {
    pub fn new(stream: u64) -> Self {
        Rng(seed() ^ stream.wrapping_mul(0xd134_2543_de82_ef95))
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}
