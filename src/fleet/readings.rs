//! The callers whose tasks read the store, as a close sees them.
//!
//! A close waits for their loads. The task of a caller may not be polled meanwhile, for example
//! because the close blocks its thread. So the close has their work handed over.
//!
//! Race that this must survive: a caller begins while a close does. The close changes the phase
//! before it looks here, and the caller looks at the phase after it was added here. Both take the
//! lock, so either the close finds the caller, or the caller finds the phase.

use std::collections::HashMap;

use foldhash::quality::RandomState;

use crate::protocol::flight::Help;
use crate::sync::{Arc, Mutex, Weak, lock};

/// The number of shards, so that callers on several cores do not wait for each other.
const SHARDS: usize = 16;

/// Callers by their addresses.
type Shard = HashMap<usize, Weak<dyn Help>, RandomState>;

#[derive(Default)]
pub struct Readings([Mutex<Shard>; SHARDS]);

impl Readings {
    fn shard(&self, address: usize) -> &Mutex<Shard> {
        // The lowest bits of an address are the same for all.
        &self.0[(address >> 7) % SHARDS]
    }

    /// A caller begins. Returns what `is_open` says about the cache afterwards.
    pub fn begin(
        &self,
        address: usize,
        caller: Weak<dyn Help>,
        is_open: impl FnOnce() -> bool,
    ) -> bool {
        lock(self.shard(address)).insert(address, caller);
        is_open()
    }

    pub fn end(&self, address: usize) {
        lock(self.shard(address)).remove(&address);
    }

    /// Has the work of all callers handed over.
    pub fn hand_over(&self) {
        for shard in &self.0 {
            let callers: Vec<Arc<dyn Help>> =
                lock(shard).values().filter_map(Weak::upgrade).collect();
            for caller in callers {
                caller.help();
            }
        }
    }
}
