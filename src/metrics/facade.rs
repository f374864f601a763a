//! The names of all metrics, and where each gets its number.

use std::time::Duration;

use ::metrics::{Key, Label, Level, Metadata, Recorder, Unit, with_recorder};

use crate::clock::Tick;
use crate::read::Core;
use crate::stats::Stats;
use crate::store::{ErrorClass, FleetStats, StoreStats, Unreadable};
use crate::sync::Arc;

static METADATA: Metadata<'static> = Metadata::new("everfresh", Level::INFO, Some("everfresh"));

/// One name, with what people are told of it.
pub(super) struct Metric {
    name: &'static str,
    about: &'static str,
}

const fn metric(name: &'static str, about: &'static str) -> Metric {
    Metric { name, about }
}

/// A label besides that of the cache: its name and its value, one of a few words.
type Word = (&'static str, &'static str);

pub(super) const LOAD: Metric = metric(
    "everfresh_load_seconds",
    "How long loads and refreshes took, failed ones too.",
);
pub(super) const STORE: Metric = metric(
    "everfresh_store_operation_seconds",
    "How long the store took to answer.",
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

    pub(super) fn record(&self, cache: &Arc<str>, words: &[Word], took: Tick) {
        let key = self.key(cache, words);
        let histogram = with_recorder(|recorder| recorder.register_histogram(&key, &METADATA));
        histogram.record(Duration::from_nanos(took).as_secs_f64());
    }
}

/// One cache, handing over what it has counted.
struct Report<'a> {
    recorder: &'a dyn Recorder,
    cache: &'a Arc<str>,
}

impl Report<'_> {
    /// A counter with one label more, whose words are all there are.
    fn counts<const N: usize>(
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

    fn count(&self, metric: Metric, count: u64) {
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

    fn gauge(&self, metric: Metric, value: u64) {
        let (name, about) = (metric.name.into(), metric.about.into());
        self.recorder.describe_gauge(name, Some(Unit::Count), about);
        let key = metric.key(self.cache, &[]);
        self.recorder
            .register_gauge(&key, &METADATA)
            .set(value as f64);
    }

    fn duration(&self, metric: Metric) {
        let (name, about) = (metric.name.into(), metric.about.into());
        self.recorder
            .describe_histogram(name, Some(Unit::Seconds), about);
    }

    fn cache(&self, stats: &Stats) {
        self.counts(
            metric("everfresh_reads_total", "Reads, by what they found."),
            "outcome",
            [
                ("fresh", stats.fresh),
                ("early", stats.early),
                ("stale", stats.stale),
                ("miss", stats.misses),
            ],
        );
        self.count(
            metric(
                "everfresh_coalesced_total",
                "Reads that waited for a load which somebody else had started.",
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
            metric("everfresh_loads_total", "Times the loader ran, by why."),
            "reason",
            [
                ("cold", stats.loads),
                ("stale", stats.refreshes_stale),
                ("early", stats.refreshes_early),
            ],
        );
        self.count(
            metric(
                "everfresh_load_failures_total",
                "Times the loader failed or panicked.",
            ),
            stats.failed,
        );
        self.counts(
            metric(
                "everfresh_results_total",
                "Values that were loaded, or taken from the store, by what became of them.",
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
                "Loads and refreshes left out because the loader was busy, by why they were wanted.",
            ),
            "reason",
            [
                ("cold", stats.rejected),
                ("stale", stats.shed_stale),
                ("early", stats.shed_early),
            ],
        );
        self.duration(LOAD);
    }

    fn level(&self, stats: &FleetStats) {
        self.counts(
            metric(
                "everfresh_store_reads_total",
                "Times the store was asked for a value and could answer, by what it had.",
            ),
            "outcome",
            [
                ("fresh", stats.hits),
                ("stale", stats.stale),
                ("miss", stats.misses),
                ("outdated", stats.outdated),
            ],
        );
        self.counts(
            metric(
                "everfresh_store_leases_total",
                "Times the right to load for the fleet was wanted, by the answer; unleased: loaded without, the store could not be asked.",
            ),
            "outcome",
            [
                ("granted", stats.leases_granted),
                ("denied", stats.leases_denied),
                ("unleased", stats.unleased),
            ],
        );
        self.counts(
            metric(
                "everfresh_store_renewals_total",
                "Times a lease was to be renewed, by whether it was still held.",
            ),
            "outcome",
            [
                ("renewed", stats.leases_renewed),
                ("lost", stats.leases_lost),
            ],
        );
        self.counts(
            metric(
                "everfresh_store_results_total",
                "Results on their way to the store, by what became of them.",
            ),
            "outcome",
            [
                ("published", stats.published),
                ("refused", stats.refused),
                ("not_stored", stats.not_stored),
            ],
        );
        self.counts(
            metric(
                "everfresh_store_changes_total",
                "Changes of keys, by whether this process told them or heard them from others.",
            ),
            "direction",
            [("told", stats.told), ("heard", stats.heard)],
        );
        self.count(
            metric(
                "everfresh_store_changes_followed_total",
                "Changes heard that concerned a key of this process.",
            ),
            stats.followed_changes,
        );
        self.count(
            metric(
                "everfresh_store_tell_retries_total",
                "Attempts to tell the store of a write that failed, and were or are repeated.",
            ),
            stats.retried,
        );
        self.count(
            metric(
                "everfresh_store_given_up_total",
                "Writes that the store will never be told of, because too many waited.",
            ),
            stats.given_up,
        );
        self.count(
            metric(
                "everfresh_store_rechecks_total",
                "Times what is resident was compared with the store, because changes may have been missed.",
            ),
            stats.rechecks,
        );
        self.counts(
            metric(
                "everfresh_store_unreadable_total",
                "Payloads that could not be read, or values that could not be written, by why.",
            ),
            "reason",
            Unreadable::ALL.map(|reason| (reason.name(), stats.unreadable(reason))),
        );
        self.gauge(
            metric(
                "everfresh_store_untold",
                "Writes that the store has not been told of yet.",
            ),
            stats.untold,
        );
        self.gauge(
            metric(
                "everfresh_store_followed_keys",
                "Keys of which this process follows the changes.",
            ),
            stats.followed,
        );
        self.gauge(
            metric(
                "everfresh_store_up",
                "1 while the store can be used, else 0.",
            ),
            stats.state.is_up().into(),
        );
        self.duration(STORE);
    }

    fn store(&self, stats: &StoreStats) {
        self.counts(
            metric(
                "everfresh_store_lookups_total",
                "Keys looked up in the store, by all caches that use it.",
            ),
            "outcome",
            [
                ("found", stats.found),
                ("missing", stats.reads.saturating_sub(stats.found)),
            ],
        );
        self.count(
            metric(
                "everfresh_store_connections_total",
                "Connections made to the store, by all caches that use it.",
            ),
            stats.connections,
        );
        self.counts(
            metric(
                "everfresh_store_messages_total",
                "Messages of changes received, by all caches that use the store.",
            ),
            "outcome",
            [
                ("understood", stats.changes),
                ("foreign", stats.changes_foreign),
            ],
        );
        self.counts(
            metric(
                "everfresh_store_errors_total",
                "Errors that the store returned, to all caches that use it, by class.",
            ),
            "class",
            ErrorClass::ALL.map(|class| (class.name(), stats.errors(class))),
        );
    }
}

impl<K: Clone, V, S> Core<K, V, S> {
    pub(crate) fn record_metrics(&self) {
        let totals = self.shared.counters.totals();
        let limit = &self.residents.limit;
        with_recorder(|recorder| {
            let report = Report {
                recorder,
                cache: &self.shared.name,
            };
            report.cache(&totals);
            report.gauge(
                metric(
                    "everfresh_entries",
                    "Values that are resident, expired ones that nobody has touched since included.",
                ),
                limit.entries() as u64,
            );
            report.gauge(
                metric("everfresh_capacity", "How many values may be resident."),
                limit.max_entries(),
            );
            report.gauge(
                metric(
                    "everfresh_weight",
                    "The weight of all resident values, by the cache's weigher; 0 without one.",
                ),
                limit.weight(),
            );
            if let Some(max_weight) = limit.max_weight() {
                report.gauge(
                    metric("everfresh_max_weight", "How much all values may weigh."),
                    max_weight,
                );
            }
            if let Some(fleet) = &self.fleet {
                let stats = fleet.stats();
                report.level(&stats);
                report.store(&stats.store);
            }
        });
    }
}
