//! A recorder that keeps all metrics.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex};

use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
    SharedString, Unit,
};

/// The metrics of all caches of these tests.
pub static RECORDED: LazyLock<Recorded> = LazyLock::new(|| {
    let recorded = Recorded::default();
    metrics::set_global_recorder(recorded.clone()).unwrap();
    recorded
});

#[derive(Clone, Default)]
pub struct Recorded(Arc<Mutex<Tables>>);

#[derive(Default)]
struct Tables {
    described: BTreeMap<String, About>,
    series: BTreeMap<Series, Value>,
    /// Counters that were set to a lower value than before.
    fallen: Vec<Series>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct About {
    pub kind: &'static str,
    pub unit: Option<Unit>,
    pub text: String,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Series {
    pub name: String,
    pub labels: Vec<(String, String)>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Number(f64),
    Durations(Vec<f64>),
}

impl Recorded {
    /// The series of one cache. The key of each is its name and the values of its other labels,
    /// separated by spaces.
    pub fn of(&self, cache: &str) -> BTreeMap<String, Value> {
        let tables = self.0.lock().unwrap();
        let mut found = BTreeMap::new();
        for (series, value) in &tables.series {
            let of_cache = ("cache".to_owned(), cache.to_owned());
            if series.labels.contains(&of_cache) {
                let words = series.labels.iter().filter(|label| **label != of_cache);
                let mut name = series.name.clone();
                words.for_each(|(_, word)| name = format!("{name} {word}"));
                found.insert(name, value.clone());
            }
        }
        found
    }

    pub fn number(&self, cache: &str, series: &str) -> f64 {
        match self.of(cache).get(series) {
            Some(Value::Number(number)) => *number,
            other => panic!("{series} of {cache}: {other:?}"),
        }
    }

    /// The recorded durations, in seconds.
    pub fn durations(&self, cache: &str, series: &str) -> Vec<f64> {
        match self.of(cache).remove(series) {
            Some(Value::Durations(seconds)) => seconds,
            None => Vec::new(),
            other => panic!("{series} of {cache}: {other:?}"),
        }
    }

    pub fn described(&self) -> BTreeMap<String, About> {
        self.0.lock().unwrap().described.clone()
    }

    pub fn all(&self) -> Vec<Series> {
        self.0.lock().unwrap().series.keys().cloned().collect()
    }

    pub fn fallen(&self) -> Vec<Series> {
        self.0.lock().unwrap().fallen.clone()
    }

    fn describe(&self, kind: &'static str, key: KeyName, unit: Option<Unit>, text: SharedString) {
        let text = text.into_owned();
        let about = About { kind, unit, text };
        let mut tables = self.0.lock().unwrap();
        let name = key.as_str().to_owned();
        let before = tables.described.insert(name, about.clone());
        assert!(before.is_none_or(|before| before == about));
    }

    fn handle(&self, key: &Key) -> Arc<Handle> {
        let labels = key.labels();
        Arc::new(Handle {
            series: Series {
                name: key.name().to_owned(),
                labels: labels
                    .map(|label| (label.key().to_owned(), label.value().to_owned()))
                    .collect(),
            },
            tables: self.0.clone(),
        })
    }
}

impl Recorder for Recorded {
    fn describe_counter(&self, key: KeyName, unit: Option<Unit>, text: SharedString) {
        self.describe("counter", key, unit, text);
    }

    fn describe_gauge(&self, key: KeyName, unit: Option<Unit>, text: SharedString) {
        self.describe("gauge", key, unit, text);
    }

    fn describe_histogram(&self, key: KeyName, unit: Option<Unit>, text: SharedString) {
        self.describe("histogram", key, unit, text);
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.handle(key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.handle(key))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.handle(key))
    }
}

struct Handle {
    series: Series,
    tables: Arc<Mutex<Tables>>,
}

impl CounterFn for Handle {
    fn increment(&self, _: u64) {
        unreachable!("counters are set")
    }

    fn absolute(&self, value: u64) {
        let value = Value::Number(value as f64);
        let mut tables = self.tables.lock().unwrap();
        let before = tables.series.insert(self.series.clone(), value.clone());
        if let (Some(Value::Number(before)), Value::Number(now)) = (before, value)
            && now < before
        {
            tables.fallen.push(self.series.clone());
        }
    }
}

impl GaugeFn for Handle {
    fn increment(&self, _: f64) {
        unreachable!("gauges are set")
    }

    fn decrement(&self, _: f64) {
        unreachable!("gauges are set")
    }

    fn set(&self, value: f64) {
        let mut tables = self.tables.lock().unwrap();
        let value = Value::Number(value);
        tables.series.insert(self.series.clone(), value);
    }
}

impl HistogramFn for Handle {
    fn record(&self, value: f64) {
        let mut tables = self.tables.lock().unwrap();
        let durations = tables.series.entry(self.series.clone());
        match durations.or_insert_with(|| Value::Durations(Vec::new())) {
            Value::Durations(durations) => durations.push(value),
            other => unreachable!("{other:?}"),
        }
    }
}
