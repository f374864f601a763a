//! Caches whose loader takes many keys.

mod answers;
mod collecting;
mod ends;
mod groups;
mod reads;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use everfresh::{Builder, Cache, CountingLoader, InjectedFailure};

/// A loader of many keys that can be held, and records its batches. The value of a key is the
/// number of the call for it.
#[derive(Clone)]
pub struct Origin {
    calls: CountingLoader<(), ()>,
    batches: Arc<Mutex<Vec<Vec<u64>>>>,
}

impl Origin {
    pub fn new() -> Self {
        Origin {
            calls: CountingLoader::new(|()| ()),
            batches: Arc::default(),
        }
    }

    /// One call; each key with the number of calls that had it.
    pub fn load(&self, keys: &[u64]) -> Result<Vec<(u64, u64)>, InjectedFailure> {
        let counts = self.begin(keys);
        self.calls.compute(&())?;
        Ok(counts)
    }

    /// The same for a task.
    pub async fn answer(&self, keys: &[u64]) -> Result<Vec<(u64, u64)>, InjectedFailure> {
        let counts = self.begin(keys);
        self.calls.load(&()).await?;
        Ok(counts)
    }

    fn begin(&self, keys: &[u64]) -> Vec<(u64, u64)> {
        let mut batches = self.batches.lock().unwrap();
        batches.push(keys.to_vec());
        let count = |key: &u64| {
            batches
                .iter()
                .flatten()
                .filter(|other| *other == key)
                .count()
        };
        keys.iter().map(|key| (*key, count(key) as u64)).collect()
    }

    pub fn batches(&self) -> Vec<Vec<u64>> {
        self.batches.lock().unwrap().clone()
    }

    /// How often each key was asked for.
    pub fn asked(&self) -> HashMap<u64, usize> {
        let mut asked = HashMap::new();
        for key in self.batches.lock().unwrap().iter().flatten() {
            *asked.entry(*key).or_default() += 1;
        }
        asked
    }

    pub fn cache(&self, builder: Builder<u64, u64>) -> Cache<u64, u64> {
        let origin = self.clone();
        let load = move |keys: &[u64]| origin.load(keys);
        builder.compute_many(load).build().unwrap()
    }
}

/// Blocks until this many calls have begun.
pub fn calls(origin: &Origin, calls: usize) {
    origin.calls.wait_for_calls(calls);
}
