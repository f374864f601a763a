//! The metrics and the spans of the second level.
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dev_support::caches::*;
use dev_support::until;
use everfresh::store::{ChaosStore, ErrorClass, Fault, MemoryStore, Op, PayloadError};
use everfresh::{Builder, Cache, ManualClock};
use everfresh::{FleetStats, SecondLevel};
use futures_lite::future::block_on;
use tracing::Level;

use crate::recorder::RECORDED;
use crate::subscriber::TRACED;
use crate::{SECRET, reveals_key};

pub struct Process {
    pub cache: Cache<u64, u64>,
    pub chaos: Arc<ChaosStore>,
}

/// A process whose loader returns 0, 1, 2 and so on.
pub fn process_of(name: &str, builder: Builder<u64, u64>, memory: &Arc<MemoryStore>) -> Process {
    let chaos = Arc::new(ChaosStore::new(memory.clone()));
    let next = AtomicU64::new(0);
    let cache = builder
        .name(name)
        .store(SecondLevel::new(chaos.clone(), "test:v1").unwrap())
        .compute(move |_: &u64| next.fetch_add(1, Ordering::Relaxed))
        .build()
        .unwrap();
    Process { cache, chaos }
}

fn process(name: &str, clock: &ManualClock, memory: &Arc<MemoryStore>) -> Process {
    process_of(name, builder(clock), memory)
}

impl Process {
    pub fn get(&self, key: u64) -> u64 {
        *self.cache.get_blocking(&key).unwrap()
    }

    fn stats(&self) -> FleetStats {
        self.cache.store_stats().unwrap()
    }

    pub fn until(&self, what: &str, holds: impl Fn(&FleetStats) -> bool) {
        until(what, || holds(&self.stats()));
    }
}

/// All events between a process, the store and another process; no further ones follow.
fn history(names: [&str; 2]) -> [Process; 2] {
    let (clock, memory) = (ManualClock::new(), Arc::default());
    let [a, b] = names.map(|name| process(name, &clock, &memory));
    // One process loads the value, the other takes it over.
    a.get(SECRET);
    a.until("stored", |stats| stats.published == 1);
    b.get(SECRET);
    // One process changes a key, the other is notified.
    block_on(a.cache.insert_everywhere(1, 500)).unwrap();
    b.until("received", |stats| stats.notifications >= 2);
    block_on(b.cache.invalidate_everywhere(&SECRET)).unwrap();
    a.until("followed", |stats| stats.followed_changes >= 1);
    // A load that an invalidation overtakes in the store, without a notification.
    a.chaos.lose_changes(true);
    a.chaos.next(Op::Publish, Fault::Hold);
    a.get(2);
    a.chaos.wait_for_calls(Op::Publish, 2);
    block_on(b.cache.invalidate_everywhere(&2)).unwrap();
    a.chaos.let_go();
    a.until("refused", |stats| stats.refused == 1);
    a.chaos.lose_changes(false);
    // A payload that cannot be read, a result that cannot be stored, a write that stays pending for
    // a while.
    a.get(3);
    a.until("stored", |stats| stats.published == 2);
    b.chaos.next(Op::Read, Fault::Corrupt);
    b.chaos.next(Op::Acquire, Fault::Corrupt);
    b.get(3);
    a.chaos.next(Op::Publish, Fault::Fail(ErrorClass::Refused));
    a.get(4);
    a.until("not stored", |stats| stats.not_stored == 1);
    a.chaos.disconnect();
    assert!(block_on(a.cache.invalidate_everywhere(&SECRET)).is_err());
    a.get(5);
    a.chaos.reconnect();
    a.until("flushed", |stats| {
        clock.advance(millis(50));
        stats.pending == 0 && stats.rechecks >= 1
    });
    [a, b]
}

#[test]
fn every_counter_of_the_second_level_is_recorded_and_right() {
    let recorded = &*RECORDED;
    let processes = history(["fleet a", "fleet b"]);
    for (process, name) in processes.iter().zip(["fleet a", "fleet b"]) {
        // Background work may still be under way. The comparison counts when the statistics are the
        // same before and after the metrics are read.
        let series = |stats: &FleetStats| {
            let store = &stats.store;
            let mut series = vec![
                ("reads_total fresh".to_owned(), stats.hits),
                ("reads_total stale".to_owned(), stats.stale),
                ("reads_total miss".to_owned(), stats.misses),
                ("reads_total outdated".to_owned(), stats.outdated),
                ("leases_total granted".to_owned(), stats.leases_granted),
                ("leases_total denied".to_owned(), stats.leases_denied),
                ("leases_total unleased".to_owned(), stats.unleased),
                ("renewals_total renewed".to_owned(), stats.leases_renewed),
                ("renewals_total lost".to_owned(), stats.leases_lost),
                ("results_total published".to_owned(), stats.published),
                ("results_total refused".to_owned(), stats.refused),
                ("results_total not_stored".to_owned(), stats.not_stored),
                ("changes_total sent".to_owned(), stats.flushed),
                ("changes_total received".to_owned(), stats.notifications),
                ("changes_followed_total".to_owned(), stats.followed_changes),
                ("write_retries_total".to_owned(), stats.retried),
                ("given_up_total".to_owned(), stats.given_up),
                ("superseded_total".to_owned(), stats.superseded),
                ("rechecks_total".to_owned(), stats.rechecks),
                ("pending_writes".to_owned(), stats.pending),
                ("followed_keys".to_owned(), stats.followed),
                ("up".to_owned(), 1),
                ("lookups_total found".to_owned(), store.found),
                (
                    "lookups_total missing".to_owned(),
                    store.reads - store.found,
                ),
                ("connections_total".to_owned(), store.connections),
                ("messages_total understood".to_owned(), store.changes),
                ("messages_total foreign".to_owned(), store.changes_foreign),
            ];
            for reason in PayloadError::ALL {
                let name = format!("payload_errors_total {}", reason.name());
                series.push((name, stats.payload_errors(reason)));
            }
            for (class, errors) in store.errors_by_class() {
                series.push((format!("errors_total {}", class.name()), errors));
            }
            series
        };
        let exported = || {
            process.cache.record_metrics();
            let series = recorded.of(name).into_keys();
            let series = series.filter_map(|series| {
                let short = series.strip_prefix("everfresh_store_")?.to_owned();
                let timed = short.starts_with("operation_seconds");
                (!timed).then(|| (short, recorded.number(name, &series) as u64))
            });
            series.collect::<Vec<_>>()
        };
        let sorted = |mut series: Vec<(String, u64)>| {
            series.sort();
            series
        };
        until("nothing more happens", || {
            let before = sorted(series(&process.stats()));
            let recorded = sorted(exported());
            let after = sorted(series(&process.stats()));
            if before == after {
                assert_eq!(recorded, after);
            }
            before == after
        });
    }
    let happened = [
        ("fleet a", "leases_total granted"),
        ("fleet a", "leases_total unleased"),
        ("fleet a", "results_total published"),
        ("fleet a", "results_total refused"),
        ("fleet a", "results_total not_stored"),
        ("fleet a", "changes_total sent"),
        ("fleet a", "write_retries_total"),
        ("fleet a", "rechecks_total"),
        ("fleet a", "reads_total miss"),
        ("fleet b", "reads_total fresh"),
        ("fleet b", "payload_errors_total checksum"),
        ("fleet b", "changes_total received"),
        ("fleet b", "changes_followed_total"),
        ("fleet b", "lookups_total found"),
        ("fleet b", "messages_total understood"),
    ];
    for (process, series) in happened {
        let series = format!("everfresh_store_{series}");
        assert!(recorded.number(process, &series) > 0.0, "{series}");
    }
    assert!(recorded.fallen().is_empty(), "{:?}", recorded.fallen());
}

#[test]
fn the_metrics_show_a_store_that_is_down() {
    let recorded = &*RECORDED;
    let (clock, memory) = (ManualClock::new(), Arc::default());
    let process = process("down", &clock, &memory);
    let up = || {
        process.cache.record_metrics();
        recorded.number("down", "everfresh_store_up")
    };
    assert_eq!(up(), 1.0);
    process.chaos.disconnect();
    assert_eq!(up(), 0.0);
    process.get(SECRET);
    process.chaos.reconnect();
    assert_eq!(up(), 1.0);
    let unavailable = "everfresh_store_errors_total unavailable";
    assert!(recorded.number("down", unavailable) > 0.0);
}

#[test]
fn every_operation_of_the_store_is_timed_and_has_a_span() {
    let (recorded, traced) = (&*RECORDED, &*TRACED);
    let (clock, memory) = (ManualClock::new(), Arc::default());
    let process = process("asked", &clock, &memory);
    // An answer that takes 2 s.
    process.chaos.next(Op::Read, Fault::Hold);
    let mut read = get(&process.cache, SECRET);
    assert!(is_pending(&mut read));
    process.chaos.wait_for_calls(Op::Read, 1);
    clock.advance(secs(2));
    process.chaos.let_go();
    wait(read).unwrap();
    process.until("stored", |stats| stats.published == 1);
    process
        .chaos
        .next(Op::Invalidate, Fault::Fail(ErrorClass::Busy));
    block_on(process.cache.invalidate_everywhere(&SECRET)).unwrap_err();
    let took = |operation| {
        let series = format!("everfresh_store_operation_seconds {operation}");
        recorded.durations("asked", &series)
    };
    assert_eq!(took("read ok"), [2.0]);
    assert_eq!(took("acquire ok"), [0.0]);
    assert_eq!(took("publish ok"), [0.0]);
    assert_eq!(took("invalidate failed"), [0.0]);
    let spans = traced.spans("asked");
    let of = |operation: &str| {
        let field = format!("operation={operation:?} ");
        let spans = spans.iter().filter(|span| span.fields.contains(&field));
        spans.count()
    };
    assert_eq!(
        ["read", "acquire", "publish", "invalidate"].map(of),
        [1, 1, 1, 1]
    );
    for span in spans
        .iter()
        .filter(|span| span.fields.contains("operation="))
    {
        assert_eq!(span.metadata.name(), "everfresh.store");
        assert!(span.entered > 0 && span.entered == span.left, "{span:?}");
    }
    let events = traced.events("asked");
    let failed = events
        .iter()
        .find(|event| event.fields.contains("class=\"busy\""));
    let failed = failed.unwrap();
    assert_eq!(
        (failed.level, failed.within),
        (Level::DEBUG, Some("everfresh.store"))
    );
    assert!(!reveals_key(&traced.text()));
}

#[test]
fn results_that_the_store_refuses_are_events() {
    let traced = &*TRACED;
    let _processes = history(["traced a", "traced b"]);
    let has_event = |text: &str| {
        let events = traced.events("traced a");
        events.iter().any(|event| event.fields.contains(text))
    };
    assert!(has_event(
        "a result is discarded: the store has a newer write"
    ));
    assert!(has_event("the store failed: the store takes no writes"));
    assert!(!reveals_key(&traced.text()));
}
