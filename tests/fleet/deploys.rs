//! Two versions of a program share a store while a deployment runs. Between them, two fields of the
//! value changed places, which `Postcard` cannot see.

use std::sync::Arc;
use std::time::Duration;

use everfresh::store::{Format, MemoryStore, Namespace, PayloadError, Postcard};
use everfresh::{Cache, SecondLevel, Source};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::support::until;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Old {
    home: u32,
    away: u32,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct New {
    away: u32,
    home: u32,
}

const OLD: Old = Old { home: 3, away: 1 };
const NEW: New = New { home: 3, away: 1 };

struct Process<V>(Cache<u64, V>);

/// A process of one version.
fn process<V>(
    store: &Arc<MemoryStore>,
    namespace: &str,
    schema: u32,
    value: fn() -> V,
) -> Process<V>
where
    V: Serialize + DeserializeOwned + Send + Sync + 'static,
{
    let format = Format::new(Postcard).schema(schema);
    let namespace = Namespace::new(namespace).unwrap();
    let cache = Cache::builder()
        .capacity(100)
        .fresh_for(Duration::from_secs(3_600))
        .beta(0.0)
        .store(SecondLevel::with(
            store.clone(),
            namespace,
            format,
            Postcard,
        ))
        .compute(move |_: &u64| value())
        .build();
    Process(cache.unwrap())
}

impl<V: Send + Sync + 'static> Process<V> {
    /// Reads the key; returns where the value came from, once the store has it.
    fn source(&self, is_right: impl Fn(&V) -> bool) -> Source {
        let cached = self.0.get_blocking(&1).unwrap();
        assert!(is_right(&cached));
        if cached.source() == Source::Loaded {
            until("the value is published", || {
                self.0.store_stats().unwrap().published > 0
            });
        }
        cached.source()
    }

    fn other_schema(&self) -> u64 {
        let stats = self.0.store_stats().unwrap();
        stats.payload_errors(PayloadError::Schema)
    }
}

#[test]
fn with_one_schema_the_new_version_serves_wrong_values() {
    let store = Arc::new(MemoryStore::new());
    let old = process(&store, "scores:v1", 0, || OLD);
    assert_eq!(old.source(|value| *value == OLD), Source::Loaded);
    let new = process(&store, "scores:v1", 0, || NEW);
    let wrong = New { home: 1, away: 3 };
    assert_eq!(new.source(|value| *value == wrong), Source::Store);
}

#[test]
fn with_a_raised_schema_each_version_loads_for_itself() {
    let store = Arc::new(MemoryStore::new());
    let old = || process(&store, "scores:v1", 0, || OLD);
    let new = || process(&store, "scores:v1", 1, || NEW);
    assert_eq!(old().source(|value| *value == OLD), Source::Loaded);
    let first = new();
    assert_eq!(first.source(|value| *value == NEW), Source::Loaded);
    assert_eq!(first.other_schema(), 1);
    assert_eq!(new().source(|value| *value == NEW), Source::Store);
    // The versions have one place for the value, so a restart of the old one loads it again.
    let second = old();
    assert_eq!(second.source(|value| *value == OLD), Source::Loaded);
    assert_eq!(second.other_schema(), 1);
}

#[test]
fn with_a_new_namespace_each_version_keeps_its_values() {
    let store = Arc::new(MemoryStore::new());
    let old = || process(&store, "scores:v1", 0, || OLD);
    let new = || process(&store, "scores:v2", 0, || NEW);
    assert_eq!(old().source(|value| *value == OLD), Source::Loaded);
    assert_eq!(new().source(|value| *value == NEW), Source::Loaded);
    assert_eq!(old().source(|value| *value == OLD), Source::Store);
    assert_eq!(new().source(|value| *value == NEW), Source::Store);
}
