//! The spans and events of one cache.
use std::sync::{Arc, Mutex};

use dev_support::caches::gates::{End, numbering};
use dev_support::caches::*;
use dev_support::until;
use everfresh::{Breaker, Cache, CountingLoader, InjectedFailure, ManualClock};
use tracing::{Level, Span};

use crate::subscriber::{LoggedEvent, TRACED};
use crate::{SECRET, reveals_key};

fn current() -> Option<&'static str> {
    Span::current().metadata().map(|metadata| metadata.name())
}

/// The level and the span of the only event of a cache with this text.
fn only_event(cache: &str, text: &str) -> (Level, Option<&'static str>) {
    let events: Vec<LoggedEvent> = TRACED.events(cache);
    let found: Vec<_> = events
        .iter()
        .filter(|event| event.fields.contains(text))
        .collect();
    assert_eq!(found.len(), 1, "{text}: {events:?}");
    (found[0].level, found[0].within)
}

const LOAD: Option<&str> = Some("everfresh.load");

#[test]
fn a_load_runs_in_a_span_of_its_own() {
    let traced = &*TRACED;
    let clock = ManualClock::new();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sees = seen.clone();
    let cache: Cache<u64, u64> = builder(&clock)
        .name("spans")
        .compute(move |key: &u64| {
            sees.lock().unwrap().push(current());
            *key
        })
        .build()
        .unwrap();
    // The span of a caller that waits is the parent.
    let span = tracing::info_span!(target: "a test", "a request");
    span.in_scope(|| cache.get_blocking(&SECRET).unwrap());
    clock.advance(secs(11));
    // The span of a caller that is served a stale value does not stay open for the refresh.
    span.in_scope(|| cache.get_blocking(&SECRET).unwrap());
    until("refreshed", || cache.stats().published == 2);
    assert_eq!(*seen.lock().unwrap(), [LOAD, LOAD]);
    let spans = traced.spans("spans");
    let parents: Vec<_> = spans.iter().map(|span| span.parent).collect();
    assert_eq!(parents, [Some("a request"), None]);
    for (span, reason) in spans.iter().zip(["cold", "stale"]) {
        assert_eq!(*span.metadata.level(), Level::DEBUG);
        assert_eq!(span.fields, format!("cache=\"spans\" reason={reason:?} "));
    }
    assert!(traced.events("spans").is_empty(), "nothing happened");
}

#[test]
fn an_async_load_is_in_its_span_only_while_it_is_polled() {
    let traced = &*TRACED;
    let clock = ManualClock::new();
    let (tasks, polls) = (Tasks::default(), Arc::new(Mutex::new(Vec::new())));
    let polled = polls.clone();
    let cache = builder(&clock)
        .name("polls")
        .spawner(tasks.spawner())
        .try_load(move |_: &u64| {
            let polled = polled.clone();
            std::future::poll_fn(move |_| {
                let mut polls = polled.lock().unwrap();
                polls.push(current());
                match polls.len() < 3 {
                    true => std::task::Poll::Pending,
                    false => std::task::Poll::Ready(Ok::<u64, InjectedFailure>(1)),
                }
            })
        })
        .build()
        .unwrap();
    let mut read = get(&cache, SECRET);
    assert!(is_pending(&mut read));
    for _ in 0..3 {
        tasks.poll(0);
        assert_eq!(current(), None, "left between polls");
    }
    ready(read).unwrap();
    assert_eq!(*polls.lock().unwrap(), [LOAD, LOAD, LOAD]);
    let [span] = &traced.spans("polls")[..] else {
        panic!("one load, one span")
    };
    assert!(span.entered >= 3 && span.entered == span.left);
}

#[test]
fn a_hit_has_no_spans_and_events() {
    let traced = &*TRACED;
    let clock = ManualClock::new();
    let cache = computing(builder(&clock).name("hits"), &numbering());
    cache.insert(SECRET, 1);
    for _ in 0..10 {
        cache.get_blocking(&SECRET).unwrap();
    }
    assert!(traced.spans("hits").is_empty() && traced.events("hits").is_empty());
}

#[test]
fn failures_are_warnings_only_if_no_caller_gets_the_error() {
    let traced = &*TRACED;
    let clock = ManualClock::new();
    let cache: Cache<u64, u64> = builder(&clock)
        .name("failing")
        .try_compute(|key: &u64| Err::<u64, _>(format!("there is no {key}")))
        .build()
        .unwrap();
    let error = cache.get_blocking(&SECRET).unwrap_err();
    let source = std::error::Error::source(&error).unwrap();
    assert!(
        reveals_key(&source.to_string()),
        "the caller gets the whole error"
    );
    assert_eq!(
        only_event("failing", "the loader failed"),
        (Level::DEBUG, LOAD)
    );
    let cache: Cache<u64, u64> = builder(&clock)
        .name("panicking")
        .compute(|key: &u64| -> u64 { panic!("no {key}") })
        .build()
        .unwrap();
    cache.insert(SECRET, 1);
    clock.advance(secs(11));
    cache.get_blocking(&SECRET).unwrap();
    until("failed", || cache.stats().failed == 1);
    until("the event is there", || {
        !traced.events("panicking").is_empty()
    });
    assert_eq!(
        only_event("panicking", "the loader panicked"),
        (Level::WARN, LOAD)
    );
    assert!(!reveals_key(&traced.text()));
}

#[test]
fn discarded_results_are_events() {
    let traced = &*TRACED;
    let clock = ManualClock::new();
    let builder = builder(&clock).name("discarded").load_timeout(secs(5));
    let builder = builder.keep_late_loads(true);
    let (cache, tasks, gates) = by_hand(builder.max_weight(100, |_, value| *value as u32));
    let end = |call, value| {
        gates.end(call, End::Value(value));
        tasks.poll_all();
    };
    assert!(is_pending(&mut get(&cache, SECRET)));
    tasks.poll_all();
    cache.invalidate(&SECRET);
    end(0, 1);
    let event = only_event("discarded", "a result is discarded: overtaken");
    assert_eq!(event, (Level::DEBUG, LOAD));
    assert!(is_pending(&mut get(&cache, SECRET)));
    tasks.poll_all();
    clock.advance(secs(5));
    let event = only_event("discarded", "the loader timed out");
    assert_eq!(event.0, Level::DEBUG);
    clock.advance(secs(1));
    assert!(is_pending(&mut get(&cache, SECRET)));
    tasks.poll_all();
    end(2, 101);
    let event = only_event("discarded", "a result is discarded: no room");
    assert_eq!(event, (Level::DEBUG, LOAD));
    end(1, 1);
    let event = only_event("discarded", "a result is discarded: too late");
    assert_eq!(event, (Level::DEBUG, LOAD));
    assert_eq!(traced.events("discarded").len(), 4);
    assert!(!reveals_key(&traced.text()));
}

#[test]
fn a_load_that_a_busy_loader_leaves_out_is_an_event() {
    let clock = ManualClock::new();
    let loader: CountingLoader<u64, u64> = numbering();
    let cache = computing(
        builder(&clock).name("left out").threads(1).queue(1),
        &loader,
    );
    let _ = &*TRACED;
    loader.hold();
    let mut running = get(&cache, 1);
    assert!(is_pending(&mut running));
    loader.wait_for_calls(1);
    let mut queued = get(&cache, 2);
    assert!(is_pending(&mut queued));
    ready(get(&cache, SECRET)).unwrap_err();
    let event = only_event("left out", "not tried, the loader is busy");
    assert_eq!(event, (Level::DEBUG, None));
    loader.release();
    wait(running).unwrap();
    wait(queued).unwrap();
}

#[test]
fn a_breaker_that_changes_its_state_is_an_event() {
    let _ = &*TRACED;
    let clock = ManualClock::new();
    let breaker = Breaker::new().of_last(1).probe_every(secs(5));
    let (cache, tasks, gates) = by_hand(builder(&clock).name("broken").breaker(breaker));
    for (call, end) in [(0, End::Fail), (1, End::Value(1))] {
        let mut read = get(&cache, SECRET + call);
        assert!(is_pending(&mut read));
        tasks.poll_all();
        gates.end(call as usize, end);
        tasks.poll_all();
        if call == 0 {
            let event = only_event("broken", "the breaker is open, because");
            assert_eq!(event, (Level::WARN, LOAD));
            ready(get(&cache, SECRET + 1)).unwrap_err();
            clock.advance(secs(5));
        }
    }
    let event = only_event("broken", "not tried, the breaker is open");
    assert_eq!(event, (Level::DEBUG, None));
    let event = only_event("broken", "lets one load through");
    assert_eq!(event, (Level::DEBUG, None));
    let event = only_event("broken", "the breaker is closed");
    assert_eq!(event, (Level::INFO, LOAD));
}
