//! The library exports the metrics that its documentation lists, and the dashboard and the alerts
//! query no others.
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use dev_support::caches::*;
use everfresh::store::{ErrorClass, Fault, MemoryStore, Op, PayloadError, StoreStats};
use futures_lite::future::block_on;
use metrics::Unit;

use crate::fleet::process_of;
use crate::recorder::{RECORDED, Series};
use crate::{SECRET, reveals_key};

/// The labels of a metric without that of the cache, each with its values.
type Labels = BTreeMap<String, BTreeSet<String>>;

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// All metrics of a cache with every option.
fn exported(name: &str) -> BTreeMap<String, Labels> {
    let recorded = &*RECORDED;
    let clock = everfresh::ManualClock::new();
    let memory: Arc<MemoryStore> = Arc::default();
    let builder = builder(&clock).max_weight(1_000, |_, _| 1);
    let process = process_of(name, builder, &memory);
    process.get(SECRET);
    process.until("stored", |stats| stats.published == 1);
    process.chaos.next(Op::Set, Fault::Fail(ErrorClass::Busy));
    block_on(process.cache.insert_everywhere(SECRET, 1)).unwrap_err();
    process.cache.record_metrics();
    let of_cache = ("cache".to_owned(), name.to_owned());
    let mut exported: BTreeMap<String, Labels> = BTreeMap::new();
    for Series { name, labels } in recorded.all() {
        if labels.contains(&of_cache) {
            let metric = exported.entry(name).or_default();
            for (label, word) in labels.into_iter().filter(|label| *label != of_cache) {
                metric.entry(label).or_default().insert(word);
            }
        }
    }
    exported
}

#[test]
fn each_metric_has_a_description_and_none_has_a_key() {
    let exported = exported("described");
    let described = RECORDED.described();
    assert_eq!(exported.len(), 42, "{:?}", exported.keys());
    for (name, labels) in &exported {
        let about = &described[name];
        assert!(about.text.ends_with('.'), "{about:?}");
        let unit = match name.ends_with("_seconds") {
            true => Unit::Seconds,
            false => Unit::Count,
        };
        assert_eq!(about.unit, Some(unit), "{name}");
        assert_eq!(about.kind == "counter", name.ends_with("_total"), "{name}");
        let word = |word: &String| word.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        assert!(labels.keys().all(word), "{labels:?}");
        assert!(labels.values().flatten().all(word), "{labels:?}");
    }
    for series in RECORDED.all() {
        assert!(!reveals_key(&format!("{series:?}")), "{series:?}");
    }
}

/// The words between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn the_documentation_lists_every_metric_with_every_word() {
    let exported = exported("documented");
    let described = RECORDED.described();
    let text = read("src/docs/watching.md");
    let mut documented = BTreeSet::new();
    for row in text.lines().filter(|row| row.starts_with("| `everfresh_")) {
        let [_, name, kind, labels, ..] = row.split('|').collect::<Vec<_>>()[..] else {
            panic!("{row}")
        };
        let name = quoted(name).next().unwrap();
        assert_eq!(kind.trim(), described[name].kind, "{name}");
        let exported = &exported[name];
        for part in labels.split(';').filter(|part| !part.trim().is_empty()) {
            let mut words = quoted(part).map(str::to_owned);
            let label = words.next().unwrap();
            let recorded = &exported[&label];
            let words: BTreeSet<String> = match &*label {
                "class" => StoreStats::default()
                    .errors_by_class()
                    .map(|(class, _)| class.name().to_owned())
                    .collect(),
                "reason" if part.contains("PayloadError") => PayloadError::ALL
                    .map(|reason| reason.name().to_owned())
                    .into(),
                _ => words.collect(),
            };
            // A series of durations exists only after its event has happened.
            match name.ends_with("_seconds") {
                true => assert!(
                    recorded.is_subset(&words),
                    "{name}: {recorded:?}, {words:?}"
                ),
                false => assert_eq!(*recorded, words, "{name}"),
            }
        }
        assert_eq!(
            labels.split(';').filter(|part| part.contains('`')).count(),
            exported.len(),
            "{name}"
        );
        assert!(documented.insert(name.to_owned()), "{name} is listed twice");
    }
    let exported: BTreeSet<String> = exported.into_keys().collect();
    assert_eq!(documented, exported);
}

/// The metrics in a query, each with its matchers.
fn asked(text: &str) -> Vec<(&str, Vec<(&str, &str)>)> {
    let word = |c: char| !c.is_ascii_alphanumeric() && c != '_';
    let mut asked = Vec::new();
    for (at, _) in text.match_indices("everfresh_") {
        let rest = &text[at..];
        let (name, rest) = rest.split_at(rest.find(word).unwrap_or(rest.len()));
        let matchers = rest.strip_prefix('{').and_then(|rest| rest.split_once('}'));
        let matchers = matchers.map_or("", |(matchers, _)| matchers);
        let matchers = matchers.split(',').filter(|matcher| !matcher.is_empty());
        let matchers = matchers.map(|matcher| {
            let (label, words) = matcher.split_once('"').unwrap();
            (
                label.trim_end_matches(['=', '~', '!']),
                words.trim_end_matches('"'),
            )
        });
        asked.push((name, matchers.collect()));
    }
    asked
}

/// Asserts that a query names only exported metrics, and returns their number.
fn check(queries: &str, exported: &BTreeMap<String, Labels>) -> usize {
    let asked = asked(queries);
    for (name, matchers) in &asked {
        // Prometheus stores a histogram as three series.
        let parts = ["_bucket", "_sum", "_count"];
        let whole = parts.iter().find_map(|part| name.strip_suffix(part));
        let labels = match whole.filter(|whole| whole.ends_with("_seconds")) {
            Some(whole) => exported.get(whole),
            None => exported.get(*name),
        };
        let labels = labels.unwrap_or_else(|| panic!("{name} is not exported"));
        for (label, words) in matchers {
            if !["cache", "instance"].contains(label) {
                let known = labels.get(*label);
                let known = known.unwrap_or_else(|| panic!("{name} has no label {label}"));
                let unknown = words.split('|').find(|word| !known.contains(*word));
                assert_eq!(unknown, None, "{name}, {label}");
            }
        }
    }
    asked.len()
}

#[test]
fn the_dashboard_queries_only_exported_metrics() {
    let exported = exported("dashboard");
    let text = read("examples/predictions/watch/grafana.json");
    let board: serde_json::Value = serde_json::from_str(&text).unwrap();
    let mut ids = BTreeSet::new();
    let mut asked = 0;
    for panel in board["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{panel}");
        let targets = panel["targets"].as_array();
        assert!(
            panel["type"] == "row" || targets.is_some_and(|targets| !targets.is_empty()),
            "{panel}"
        );
        for target in targets.into_iter().flatten() {
            asked += check(target["expr"].as_str().unwrap(), &exported);
        }
    }
    assert!(asked > 40, "{asked}");
    let variables = board["templating"]["list"].to_string();
    assert!(check(&variables, &exported) > 0);
}

#[test]
fn the_alerts_query_only_exported_metrics() {
    let exported = exported("alerts");
    let text = read("examples/predictions/watch/alerts.yml");
    let asked = check(&text, &exported);
    let rules = text.matches("- alert: ").count();
    assert!(
        rules >= 5 && asked > rules,
        "{rules} rules, {asked} metrics"
    );
    for part in ["expr: ", "severity: ", "summary: ", "description: "] {
        assert_eq!(text.matches(part).count(), rules, "{part}");
    }
}

#[test]
fn the_check_finds_wrong_queries() {
    let labels = |label: &str, word: &str| -> Labels {
        BTreeMap::from([(label.to_owned(), BTreeSet::from([word.to_owned()]))])
    };
    let exported = BTreeMap::from([
        ("everfresh_a_total".to_owned(), labels("outcome", "fresh")),
        ("everfresh_b_seconds".to_owned(), labels("outcome", "ok")),
    ]);
    let good = concat!(
        r#"rate(everfresh_a_total{outcome=~"fresh|fresh",cache="$c"}[5m])"#,
        " / everfresh_b_seconds_sum"
    );
    assert_eq!(check(good, &exported), 2);
    for bad in [
        "everfresh_c_total",
        "everfresh_a_total_sum",
        r#"everfresh_a_total{reason="fresh"}"#,
        r#"everfresh_a_total{outcome=~"fresh|rotten"}"#,
    ] {
        let checked = std::panic::catch_unwind(|| check(bad, &exported));
        assert!(checked.is_err(), "{bad}");
    }
}
