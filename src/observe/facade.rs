//! The names of all metrics, and the source of each number.

use std::time::Duration;

use ::metrics::{Key, Label, Level, Metadata, Recorder, Unit, with_recorder};

use crate::observe::stats::Stats;
use crate::sync::Arc;
use crate::time::clock::Tick;

static METADATA: Metadata<'static> = Metadata::new("everfresh", Level::INFO, Some("everfresh"));

/// The name of a metric and its description.
pub(crate) struct Metric {
    name: &'static str,
    about: &'static str,
}

pub(crate) const fn metric(name: &'static str, about: &'static str) -> Metric {
    Metric { name, about }
}

/// A label in addition to the cache's: its name and its value, which is one of a few words.
type Word = (&'static str, &'static str);

pub(crate) const LOAD: Metric = metric(
    "everfresh_load_seconds",
    "How long loads and refreshes took, including failed ones.",
);
pub(crate) const STORE: Metric = metric(
    "everfresh_store_operation_seconds",
    "How long store operations took.",
);

impl Metric {
    fn key(&self, cache: &Arc<str>, words: &[Word]) -> Key {
        let cache = Label::new("cache", cache.clone());
        let words = words.iter().map(|(name, word)| Label::new(*name, *word));
        Key::from_parts(
            self.name,
            [cache].into_iter().chain(words).collect::<Vec<_>>(),
        )
    }

    pub(crate) fn record(&self, cache: &Arc<str>, words: &[Word], took: Tick) {
        let key = self.key(cache, words);
        let histogram = with_recorder(|recorder| recorder.register_histogram(&key, &METADATA));
        histogram.record(Duration::from_nanos(took).as_secs_f64());
    }
}

/// Reports the counts of one cache.
pub(crate) struct Report<'a> {
    recorder: &'a dyn Recorder,
    cache: &'a Arc<str>,
}

impl<'a> Report<'a> {
    pub(crate) fn new(recorder: &'a dyn Recorder, cache: &'a Arc<str>) -> Self {
        Report { recorder, cache }
    }

    /// A counter with one more label, for which `counts` lists every value.
    pub(crate) fn counts<const N: usize>(
        &self,
        metric: Metric,
        label: &'static str,
        counts: [(&'static str, u64); N],
    ) {
        self.describe(&metric);
        for (word, count) in counts {
            self.set(&metric, &[(label, word)], count);
        }
    }

    pub(crate) fn count(&self, metric: Metric, count: u64) {
        self.describe(&metric);
        self.set(&metric, &[], count);
    }

    fn describe(&self, metric: &Metric) {
        let (name, about) = (metric.name.into(), metric.about.into());
        self.recorder
            .describe_counter(name, Some(Unit::Count), about);
    }

    fn set(&self, metric: &Metric, words: &[Word], count: u64) {
        let key = metric.key(self.cache, words);
        self.recorder
            .register_counter(&key, &METADATA)
            .absolute(count);
    }

    pub(crate) fn gauge(&self, metric: Metric, value: u64) {
        self.gauge_of(&metric, &[], value);
    }

    /// A gauge with one more label, for which `values` lists every value.
    fn gauges<const N: usize>(
        &self,
        metric: Metric,
        label: &'static str,
        values: [(&'static str, u64); N],
    ) {
        for (word, value) in values {
            self.gauge_of(&metric, &[(label, word)], value);
        }
    }

    fn gauge_of(&self, metric: &Metric, words: &[Word], value: u64) {
        let (name, about) = (metric.name.into(), metric.about.into());
        self.recorder.describe_gauge(name, Some(Unit::Count), about);
        let key = metric.key(self.cache, words);
        self.recorder
            .register_gauge(&key, &METADATA)
            .set(value as f64);
    }

    pub(crate) fn duration(&self, metric: Metric) {
        let (name, about) = (metric.name.into(), metric.about.into());
        self.recorder
            .describe_histogram(name, Some(Unit::Seconds), about);
    }

    pub(crate) fn cache(&self, stats: &Stats) {
        self.counts(
            metric("everfresh_reads_total", "Reads, by outcome."),
            "outcome",
            [
                ("fresh", stats.fresh),
                ("early", stats.early),
                ("stale", stats.stale),
                ("miss", stats.misses),
                ("negative", stats.negative),
            ],
        );
        self.count(
            metric(
                "everfresh_coalesced_total",
                "Reads that waited for a load that another caller had started.",
            ),
            stats.coalesced,
        );
        self.count(
            metric(
                "everfresh_claims_denied_total",
                "Stale hits that started no refresh, because one was running or had just failed.",
            ),
            stats.claims_denied,
        );
        self.counts(
            metric("everfresh_loads_total", "Times the loader ran, by reason."),
            "reason",
            [
                ("cold", stats.loads),
                ("stale", stats.refreshes_stale),
                ("early", stats.refreshes_early),
            ],
        );
        self.count(
            metric(
                "everfresh_load_batches_total",
                "Calls of a loader that takes many keys.",
            ),
            stats.batches,
        );
        self.count(
            metric(
                "everfresh_load_failures_total",
                "Times the loader failed or panicked.",
            ),
            stats.failed,
        );
        self.count(
            metric(
                "everfresh_load_timeouts_total",
                "Loads that passed their deadline. They may have gone on.",
            ),
            stats.timed_out,
        );
        self.counts(
            metric(
                "everfresh_late_results_total",
                "Results that came after the deadline of their load, by outcome.",
            ),
            "outcome",
            [
                ("published", stats.late_published),
                ("discarded", stats.late_discarded),
            ],
        );
        self.count(
            metric(
                "everfresh_loads_dropped_total",
                "Loads that were dropped before they finished.",
            ),
            stats.dropped,
        );
        self.counts(
            metric(
                "everfresh_results_total",
                "Values that were loaded or came from the store, by outcome.",
            ),
            "outcome",
            [
                ("published", stats.published),
                ("overtaken", stats.discarded_overtaken),
                ("taken_over", stats.discarded_taken_over),
                ("not_kept", stats.not_kept),
            ],
        );
        self.counts(
            metric(
                "everfresh_not_tried_total",
                "Loads and refreshes not tried because the loader was busy, by reason.",
            ),
            "reason",
            [
                ("cold", stats.rejected),
                ("stale", stats.shed_stale),
                ("early", stats.shed_early),
            ],
        );
        self.count(
            metric(
                "everfresh_never_started_total",
                "Loads whose turn did not come before their deadline.",
            ),
            stats.never_started,
        );
        self.count(
            metric(
                "everfresh_replaced_workers_total",
                "Times a spare worker took the place of one whose load was past its deadline.",
            ),
            stats.replaced_workers,
        );
        self.count(
            metric(
                "everfresh_breaker_rejected_total",
                "Loads and refreshes not tried because the breaker was open.",
            ),
            stats.breaker_rejected,
        );
        self.gauge(
            metric(
                "everfresh_breaker_state",
                "0 while the breaker is closed, 1 while it is half-open, 2 while it is open.",
            ),
            stats.breaker as u64,
        );
        self.gauge(
            metric("everfresh_loads_running", "Loads and refreshes that run."),
            stats.running,
        );
        self.gauge(
            metric(
                "everfresh_loads_overdue",
                "Loads past their deadline that go on, such as computations that hang.",
            ),
            stats.overdue,
        );
        self.gauges(
            metric(
                "everfresh_loads_waiting",
                "Loads and refreshes that wait for their start, by reason.",
            ),
            "reason",
            [
                ("cold", stats.waiting_cold),
                ("stale", stats.waiting_stale),
                ("early", stats.waiting_early),
            ],
        );
        self.duration(LOAD);
    }
}
