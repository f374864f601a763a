use std::collections::HashSet;
use std::time::{Duration, Instant};

use dev_support::quantile::quantile;
use everfresh::store::Terms;

use super::*;
use crate::cold::Cold;
use crate::crowd::{Answer, Call, Compute, Seen};
use crate::findings::Replayed;
use crate::memory::{Held, Memory};
use crate::spread::Spread;
use crate::stampede::Callers;
use crate::subject::{HARD, SOFT};
use crate::through::{Kept, Through};

const NAMED_TO_HARM: &str = "a<script>&\"'\u{1}.zst";

fn micros(count: u64) -> Duration {
    Duration::from_micros(count)
}

/// A caller each microsecond, each answered after `slowest` or sooner.
fn seen(callers: u64, slowest: Duration, answer: Answer) -> Seen {
    let start = Instant::now();
    let calls = (1..=callers).map(|caller| {
        let began = start + micros(caller);
        let ended = began + slowest * caller as u32 / callers as u32;
        Call {
            began,
            ended,
            answer,
        }
    });
    Seen::of(calls.collect())
}

fn row() -> StampedeRow {
    let mut row = StampedeRow::of(&Callers::Threads(100));
    for run in 1..=3 {
        let read = seen(100, micros(400 * run), Answer::Stale);
        let plain = seen(100, micros(40 * run), Answer::Stale);
        row.include(&read, &plain, 1, 1, None);
    }
    row.compute = micros(200_000);
    row
}

fn cold() -> Cold {
    let mut cold = Cold::of(100);
    for run in 1..=3 {
        let load = micros(200_000);
        let read = seen(100, load + micros(300 * run), Answer::Waited);
        let plain = seen(100, load + micros(30 * run), Answer::Waited);
        cold.include((&read, load), (&plain, load), 1);
    }
    cold
}

fn generation(name: &'static str, load: &'static str, computes: usize) -> evolution::EvolutionRow {
    let seen = seen(100, micros(23_000), Answer::Fresh);
    let pass = (name == "everfresh").then_some(true);
    let ran = seen.calls.iter().enumerate().take(computes);
    let ran = ran.map(|(turn, call)| Compute {
        by: pass.is_none().then_some(turn),
        began: call.began,
        ended: call.began + micros(20_000),
        published: Some(call.began + micros(20_001)),
    });
    evolution::EvolutionRow {
        name,
        load,
        computes,
        ran: ran.collect(),
        seen,
        pass,
    }
}

fn access(name: &'static str) -> trace::TraceRow {
    let took: Vec<Duration> = (1..=1_000).map(micros).collect();
    trace::TraceRow {
        name,
        accesses: 1_000,
        loads: 12_345,
        waited: 7,
        failed: 0,
        stale: 3,
        early: 2,
        p50: quantile(&took, 0.5),
        p99: quantile(&took, 0.99),
        p999: quantile(&took, 0.999),
        spread: Spread::of(&took),
        pass: Some(false),
    }
}

/// With all that can be in a report.
fn everything() -> Findings {
    let held = |keys| Held {
        keys,
        empty: 34 * keys,
        bookkeeping: 16_000 + 98 * keys,
    };
    let generations = evolution::LOADS.iter().flat_map(|load| {
        let generation = |name, computes| generation(name, load.name, computes);
        [
            generation("no protection", 100),
            generation("a re-check before and inside the lock", 1),
            generation("everfresh", 1),
        ]
    });
    Findings {
        intro: Part {
            title: "The value & its cost".to_owned(),
            lead: String::new(),
            table: Table::default(),
            notes: vec!["goals 2.11 to 1.45".to_owned()],
            pass: None,
        },
        light: micros(20_000),
        stale: vec![row(), row()],
        through: Some(Through {
            crowds: vec![row()],
            kept: Kept {
                terms: Terms {
                    fresh_for: SOFT,
                    stale_for: HARD - SOFT,
                    stale_if_error_for: Duration::ZERO,
                    cost: micros(1),
                },
                left: HARD,
                computes: 0,
                from_store: true,
            },
        }),
        cold: cold(),
        generations: generations.collect(),
        memory: Memory {
            full: held(1_000),
            single: held(1),
        },
        replayed: Some(Replayed {
            path: NAMED_TO_HARM.into(),
            keys: vec![1, 2, 2],
            rows: vec![access("plain TTL"), access("stale-while-revalidate")],
        }),
        took: micros(35_000_000),
    }
}

/// Findings without Redis and trace, of one run, with times too short to measure.
fn little() -> Findings {
    let mut findings = everything();
    findings.through = None;
    findings.replayed = None;
    let mut row = StampedeRow::of(&Callers::Threads(1));
    let read = seen(1, Duration::ZERO, Answer::Stale);
    row.include(&read, &read, 0, 0, None);
    row.compute = Duration::ZERO;
    findings.stale = vec![row];
    for generation in &mut findings.generations {
        generation.ran.clear();
        generation.seen = Seen::of(Vec::new());
    }
    findings
}

fn written(findings: &Findings) -> String {
    let circumstances = Circumstances {
        machine: "2 cores of <some maker's> make".to_owned(),
        date: date(0),
    };
    page(findings, &circumstances)
}

/// The texts between the tags. Panics at markup that an XML parser refuses.
fn parsed(page: &str) -> Vec<String> {
    let mut rest = page
        .strip_prefix("<!doctype html>")
        .unwrap_or_else(|| panic!("the page begins with {page:.40}"));
    let (mut open, mut texts) = (Vec::new(), Vec::new());
    while let Some((text, tag)) = rest.split_once('<') {
        let inside = open.last().copied().unwrap_or_default();
        assert!(!text.contains('>') || inside == "style", "> in {text}");
        texts.push(plain(text));
        let (tag, after) = tag
            .split_once('>')
            .unwrap_or_else(|| panic!("open: {tag:.40}"));
        rest = after;
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "closed at {after:.60}");
            continue;
        }
        let (name, attributes) = tag.split_once(' ').unwrap_or((tag, ""));
        assert!(
            name.trim_end_matches('/')
                .chars()
                .all(char::is_alphanumeric),
            "<{tag}>"
        );
        let mut names = HashSet::new();
        let mut pieces = attributes.trim_end_matches('/').split('"');
        while let (Some(name), Some(value)) = (pieces.next(), pieces.next()) {
            let name = name.trim().strip_suffix('=');
            assert!(
                name.is_some_and(|name| names.insert(name.to_owned())),
                "<{tag}>"
            );
            plain(value);
        }
        if !tag.ends_with('/') {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "still open: {open:?}");
    assert!(rest.trim().is_empty(), "after the end: {rest}");
    texts
}

/// Replaces the four entities.
fn plain(text: &str) -> String {
    let allowed = |c: char| c == '\n' || !c.is_control();
    assert!(text.chars().all(allowed), "a control character in {text:?}");
    let entities = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\"")];
    let mut plain = text.replace("&amp;", "\u{0}");
    for (entity, character) in entities {
        plain = plain.replace(entity, character);
    }
    assert!(!plain.contains('&'), "a bare & in {text}");
    plain.replace('\u{0}', "&")
}

/// Removes whitespace, because tables of text contain more of it.
fn dense(text: &str) -> String {
    text.chars().filter(|c| !c.is_whitespace()).collect()
}

#[test]
fn a_page_is_well_formed_for_all_findings() {
    for findings in [everything(), little()] {
        assert!(parsed(&written(&findings)).len() > 100);
    }
}

#[test]
fn all_printed_text_is_in_the_page() {
    for findings in [everything(), little()] {
        let texts = dense(&parsed(&written(&findings)).concat());
        for part in findings.parts() {
            for line in part.text().lines().filter(|line| !line.contains("target")) {
                // The page shows control characters as a mark, because a document must not contain
                // them.
                let line = dense(&line.replace('\u{1}', "\u{fffd}"));
                assert!(texts.contains(&line), "the page lacks {line}");
            }
        }
        for line in findings.intro.text().lines() {
            assert!(texts.contains(&dense(line)), "the page lacks {line}");
        }
    }
}

#[test]
fn the_headline_counts_what_failed() {
    let page = written(&everything());
    let checks = 3 * 8 + 4 + 3 + 1 + 1 + 2;
    let headline = format!("2 of {checks} checks failed");
    assert!(page.contains(&headline), "{headline}");
    let mut findings = everything();
    findings.replayed = None;
    let headline = format!("all {} checks passed", checks - 2);
    assert!(written(&findings).contains(&headline), "{headline}");
}

#[test]
fn names_are_text_and_nothing_else() {
    let page = written(&everything());
    assert!(!page.contains("<script"));
    assert!(page.contains("a&lt;script&gt;&amp;&quot;'\u{fffd}.zst"));
}

#[test]
fn a_page_loads_nothing_from_other_places() {
    let page = written(&everything());
    for reference in ["http:", "https:", "//", "src=", "href=", "url(", "@import"] {
        assert!(!page.contains(reference), "{reference}");
    }
}

#[test]
fn every_picture_says_in_words_what_it_shows() {
    let page = written(&everything());
    let pictures = page.split("<svg").skip(1);
    let pictures: Vec<&str> = pictures
        .filter_map(|picture| picture.split("</svg>").next())
        .collect();
    // Two pictures of computes, and all others in two widths.
    assert_eq!(pictures.len(), 2 + 2 * (3 + 3));
    for picture in pictures {
        assert!(picture.starts_with(" role=\"img\""));
        let words = picture
            .split_once("<desc>")
            .and_then(|(_, after)| after.split_once("</desc>"));
        assert!(
            words.is_some_and(|(words, _)| words.len() > 40),
            "{picture:.200}"
        );
        assert!(
            !picture.contains("NaN") && !picture.contains("inf"),
            "{picture}"
        );
    }
    assert!(page.contains("100 threads: p50 328 µs, p99 1.16 ms, slowest 1.20 ms"));
    assert!(page.contains("control, 100 threads: p50 32.8 µs, p99 116 µs, slowest 120 µs"));
    assert!(page.contains("everfresh: 100 callers, 1 compute, p99"));
}

#[test]
fn dates_know_leap_years() {
    assert_eq!(date(0), "1970-01-01 00:00 UTC");
    assert_eq!(date(951_782_399), "2000-02-28 23:59 UTC");
    assert_eq!(date(951_782_400), "2000-02-29 00:00 UTC");
    assert_eq!(date(1_709_251_199), "2024-02-29 23:59 UTC");
    assert_eq!(date(1_798_761_600), "2027-01-01 00:00 UTC");
    assert_eq!(date(4_107_542_400), "2100-03-01 00:00 UTC");
}

#[test]
fn one_unlucky_run_is_reported_and_not_judged() {
    let mut row = row();
    let plain = seen(100, micros(40), Answer::Stale);
    for _ in 0..47 {
        row.include(&seen(100, micros(400), Answer::Stale), &plain, 1, 1, None);
    }
    let mut unlucky = seen(100, micros(400), Answer::Stale).calls;
    for call in &mut unlucky[90..] {
        call.ended = call.began + micros(90_000);
    }
    row.include(&Seen::of(unlucky), &plain, 1, 1, None);
    assert!(row.pass(), "{}", row.part().text());
    let worst = "worst run: p99 90.0 ms, slowest 90.0 ms (control 119 µs, 120 µs)";
    assert!(row.part().text().contains(worst), "{}", row.part().text());
}

#[test]
fn one_caller_that_waits_for_the_refresh_in_each_run_fails() {
    let mut row = row();
    let plain = seen(100, micros(40), Answer::Stale);
    for _ in 0..47 {
        let mut calls = seen(100, micros(400), Answer::Stale).calls;
        calls[0].ended = calls[0].began + micros(200_000);
        row.include(&Seen::of(calls), &plain, 1, 1, None);
    }
    assert!(!row.pass(), "{}", row.part().text());
    assert_eq!(row.part().text().matches("FAIL").count(), 1);
    assert_eq!(row.json()["pass"], false);
}

#[test]
fn callers_that_all_wait_fail_also_beside_a_control_that_loses_its_core() {
    let mut row = StampedeRow::of(&Callers::Threads(100));
    row.compute = micros(200_000);
    let plain = seen(100, micros(30_000), Answer::Stale);
    let mut calls = seen(100, micros(200_000), Answer::Stale).calls;
    for call in &mut calls {
        call.ended = call.began + micros(200_000);
    }
    row.include(&Seen::of(calls), &plain, 1, 1, None);
    assert_eq!(row.part().text().matches("FAIL").count(), 3);
}

#[test]
fn a_fresh_value_is_right_only_for_callers_that_come_after_the_refresh() {
    let passes = |refreshed: Duration| {
        let mut row = row();
        let mut read = seen(100, micros(400), Answer::Stale);
        let came = read.calls[99].began;
        read.calls[99].answer = Answer::Fresh;
        let read = Seen::of(read.calls);
        let plain = seen(100, micros(40), Answer::Stale);
        row.include(&read, &plain, 1, 1, came.checked_add(refreshed));
        (row.pass(), row.json()["after_refresh"].clone())
    };
    assert_eq!(passes(micros(100)), (true, 1.into()));
    assert_eq!(passes(micros(401)), (false, 0.into()));
}
