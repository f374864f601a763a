use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// Makes values, and counts those that are alive.
#[derive(Clone, Default)]
pub struct Tally {
    alive: Arc<AtomicI64>,
    made: Arc<AtomicU64>,
}

/// A value that detects a second drop.
pub struct Tracked {
    pub number: u64,
    alive: Arc<AtomicI64>,
    canary: u64,
}

const INTACT: u64 = 0x5afe_5afe_5afe_5afe;

impl Tally {
    pub fn make(&self) -> Tracked {
        self.alive.fetch_add(1, Ordering::SeqCst);
        Tracked {
            number: self.made.fetch_add(1, Ordering::SeqCst),
            alive: self.alive.clone(),
            canary: INTACT,
        }
    }

    pub fn alive(&self) -> i64 {
        self.alive.load(Ordering::SeqCst)
    }

    pub fn made(&self) -> u64 {
        self.made.load(Ordering::SeqCst)
    }
}

impl Tracked {
    /// Fails if the value was dropped.
    pub fn check(&self) {
        assert_eq!(self.canary, INTACT, "a value is read after its drop");
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        assert_eq!(std::mem::replace(&mut self.canary, 0), INTACT);
        self.alive.fetch_sub(1, Ordering::SeqCst);
    }
}
