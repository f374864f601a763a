//! The figures of the page, sent a few times a second as server-sent events.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{self, HeaderValue};
use axum::response::{IntoResponse, Response};
use everfresh::Freshness;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::time::{MissedTickBehavior, interval};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::IntervalStream;

use crate::prediction::Pairing;
use crate::refusal::Refusal;
use crate::service::{Service, Shared};
use crate::tally::KINDS;

/// The most pages that can watch at the same time.
const STREAMS: usize = 32;

const EVERY: Duration = Duration::from_millis(250);

/// A stream ends after 15 minutes. A page that still watches opens another by itself.
const EVENTS: usize = 15 * 60 * 4;

static PLACES: Semaphore = Semaphore::const_new(STREAMS);

pub async fn stream(State(service): Shared) -> Result<Response, Refusal> {
    let place = PLACES.try_acquire().map_err(|_| Refusal::STREAMS)?;
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let watched = Pairing::watched();
    let events = IntervalStream::new(ticks).take(EVENTS).map_while(move |_| {
        let _held = &place;
        let event = || format!("data: {}\n\n", snapshot(&service, &watched));
        (!service.is_stopping()).then(event)
    });
    let headers = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/event-stream"),
        ),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    let body = Body::from_stream(events.map(Ok::<_, Infallible>));
    Ok((headers, body).into_response())
}

/// Totals, from which the page computes rates.
fn snapshot(service: &Arc<Service>, watched: &Pairing) -> Value {
    let tally = &service.tally;
    let answers = KINDS.into_iter().zip(tally.answers());
    // This reads the cache without a request, so the tally does not count it.
    let value = service.cache.get_if_present(watched);
    let state = match value.as_ref().map(|value| value.freshness()) {
        None => "none",
        Some(Freshness::Fresh) => "fresh",
        Some(Freshness::Stale { .. }) => "stale",
    };
    let stats = service.cache.stats();
    json!({
        "at": tally.now(),
        "answers": answers
            .map(|(kind, count)| (kind.to_owned(), count.into()))
            .collect::<serde_json::Map<_, _>>(),
        "computes": tally.computes.get(),
        "failures": tally.failures.get(),
        "running": stats.running,
        "waiting": stats.waiting_cold + stats.waiting_stale + stats.waiting_early,
        "due": tally.due.get(),
        "latency": tally.latency(),
        "key": {
            "state": state,
            "age_ms": value.map(|value| value.age().as_millis() as u64),
            "spans": tally.recent(),
        },
        "store": service.store_state(),
        "switches": service.switches(),
    })
}
