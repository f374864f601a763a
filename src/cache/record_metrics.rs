//! The metrics of one cache and of its second level, handed to the recorder of the program.

use ::metrics::with_recorder;

use crate::cache::read::Core;
use crate::fleet::FleetStats;
use crate::observe::facade::{Report, STORE, metric};
use crate::store::{ErrorClass, PayloadError, StoreStats};

impl Report<'_> {
    fn level(&self, stats: &FleetStats) {
        self.counts(
            metric(
                "everfresh_store_reads_total",
                "Reads of the store for a missing key, by result.",
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
                "Requests for a lease, by answer; unleased: loads while the store was down.",
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
                "Renewals of a lease, by whether it was still held.",
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
                "Results sent to the store, by outcome.",
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
                "Changes of keys, by whether this process sent or received them.",
            ),
            "direction",
            [("sent", stats.flushed), ("received", stats.notifications)],
        );
        self.count(
            metric(
                "everfresh_store_changes_followed_total",
                "Changes received that concerned a key of this process.",
            ),
            stats.followed_changes,
        );
        self.count(
            metric(
                "everfresh_store_write_retries_total",
                "Attempts to flush a write to the store that failed and were repeated.",
            ),
            stats.retried,
        );
        self.count(
            metric(
                "everfresh_store_given_up_total",
                "Writes given up because too many waited for the store.",
            ),
            stats.given_up,
        );
        self.count(
            metric(
                "everfresh_store_superseded_total",
                "Writes that the store refused, because another process wrote the key later.",
            ),
            stats.superseded,
        );
        self.count(
            metric(
                "everfresh_store_rechecks_total",
                "Comparisons of the resident values with the store, after a gap in the changes.",
            ),
            stats.rechecks,
        );
        self.counts(
            metric(
                "everfresh_store_payload_errors_total",
                "Payloads that could not be read, or values that could not be written, by reason.",
            ),
            "reason",
            PayloadError::ALL.map(|reason| (reason.name(), stats.payload_errors(reason))),
        );
        self.gauge(
            metric(
                "everfresh_store_pending_writes",
                "Writes that the store does not know yet.",
            ),
            stats.pending,
        );
        self.gauge(
            metric(
                "everfresh_store_followed_keys",
                "Keys whose changes this process follows.",
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

impl<K, V, S> Core<K, V, S> {
    pub(crate) fn record_metrics(&self) {
        let mut totals = self.state.counters.totals();
        totals.show(self.state.admission.gauges());
        let limit = &self.entries.limit;
        with_recorder(|recorder| {
            let report = Report::new(recorder, &self.state.name);
            report.cache(&totals);
            report.gauge(
                metric(
                    "everfresh_entries",
                    "Resident values, including expired ones that are not removed yet.",
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
