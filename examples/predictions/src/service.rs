//! The routes and their answers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::http::header::{self, HeaderMap, HeaderValue};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use everfresh::store::{RedisStore, Store, StoreState};
use everfresh::{Cached, Error, Freshness, Source};
use metrics_exporter_prometheus::PrometheusHandle;
use serde::Serialize;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::demo::{self, Demo};
use crate::events;
use crate::prediction::{LOAD, Loader, Pairing, Prediction, Predictions};
use crate::proxy::Cable;
use crate::refusal::Refusal;
use crate::tally::{KINDS, Tally, kind};

/// The time limit of a request: longer than that of a load, whose error says more.
const REQUEST: Duration = LOAD.saturating_add(Duration::from_secs(2));

/// The most characters in the name of a team.
const LONGEST: usize = 32;

pub struct Service {
    pub cache: Predictions,
    pub loader: Arc<Loader>,
    pub tally: Arc<Tally>,
    pub store: Option<(Arc<RedisStore>, Arc<Cable>)>,
    pub fresh: Duration,
    pub stale: Duration,
    pub metrics: PrometheusHandle,
    pub stopping: watch::Receiver<bool>,
    pub demo: Demo,
}

pub type Shared = State<Arc<Service>>;

pub fn routes(service: Arc<Service>) -> Router {
    let constant = constant(&service);
    Router::new()
        .route("/predict/{home}/{away}", get(predict))
        .route("/constant", get(constant))
        .route("/metrics", get(metrics))
        .route("/health", get(health))
        .merge(demo::routes())
        .layer(from_fn(in_time))
        // Its answer takes longer than that.
        .route("/events", get(events::stream))
        .fallback(async || Refusal::NOT_FOUND)
        .method_not_allowed_fallback(async || Refusal::METHOD)
        .with_state(service)
}

async fn in_time(request: Request, next: Next) -> Response {
    match timeout(REQUEST, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Refusal::TIMED_OUT.into_response(),
    }
}

impl Service {
    /// Reads a prediction for a request, and counts it.
    pub async fn read(&self, pairing: &Pairing) -> Result<Cached<Pairing, Prediction>, Error> {
        let began = Instant::now();
        let read = self.cache.get(pairing).await;
        let source = read.as_ref().map(Cached::source);
        self.tally.answered(source, began.elapsed());
        let due = matches!(
            source,
            Ok(Source::Early | Source::Stale | Source::AfterFailure)
        );
        if due
            && read
                .as_ref()
                .is_ok_and(|prediction| prediction.becomes_due())
        {
            self.tally.due.add();
        }
        read
    }

    pub fn store_state(&self) -> &'static str {
        match self.store.as_ref().map(|(store, _)| store.state()) {
            None => "none",
            Some(StoreState::Up) => "up",
            Some(StoreState::Connecting) => "connecting",
            Some(_) => "down",
        }
    }

    pub fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }
}

async fn predict(
    State(service): Shared,
    names: Result<Path<(String, String)>, PathRejection>,
) -> Result<Response, Refusal> {
    let Ok(Path((home, away))) = names else {
        return Err(Refusal::BAD_NAME);
    };
    if !(is_name(&home) && is_name(&away)) {
        return Err(Refusal::BAD_NAME);
    }
    if home == away {
        return Err(Refusal::SAME_TEAM);
    }
    let pairing = Pairing { home, away };
    let prediction = service.read(&pairing).await.map_err(Refusal::from)?;
    Ok(answer(&service, &pairing, &prediction))
}

fn is_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (1..=LONGEST).contains(&text.len()) && text.bytes().all(allowed)
}

#[derive(Serialize)]
struct Body<'a> {
    home: &'a str,
    away: &'a str,
    chances: Chances,
    goals: [f64; 2],
    likeliest: (usize, usize),
    source: &'static str,
    age_ms: u64,
    computation: u64,
}

/// The probability of each result, 0 to 1.
#[derive(Serialize)]
struct Chances {
    home: f64,
    draw: f64,
    away: f64,
}

/// A prediction as JSON, with the headers that HTTP caches read: `Age` and `Cache-Control` (RFC
/// 9111, RFC 5861), and `Cache-Status` (RFC 9211).
fn answer(
    service: &Service,
    pairing: &Pairing,
    prediction: &Cached<Pairing, Prediction>,
) -> Response {
    let rounded = |number: f64| (number * 10_000.0).round() / 10_000.0;
    let (forecast, age) = (&prediction.forecast, prediction.age());
    let body = Body {
        home: &pairing.home,
        away: &pairing.away,
        chances: Chances {
            home: rounded(forecast.home),
            draw: rounded(forecast.draw),
            away: rounded(forecast.away),
        },
        goals: [rounded(forecast.home_goals), rounded(forecast.away_goals)],
        likeliest: forecast.likeliest,
        source: kind(prediction.source()),
        age_ms: age.as_millis() as u64,
        computation: prediction.computation,
    };
    // A value that was stale from the start had no fresh time.
    let (fresh_for, left) = match prediction.freshness() {
        Freshness::Fresh => (
            service.fresh,
            service.fresh.saturating_sub(age).as_secs() as i64,
        ),
        Freshness::Stale { by } => (age.saturating_sub(by), -(by.as_secs_f64().ceil() as i64)),
    };
    let mut headers = HeaderMap::with_capacity(4);
    let mut put = |name, text: String| {
        // Only digits and our own words, so always a valid header.
        if let Ok(value) = HeaderValue::try_from(text) {
            headers.insert(name, value);
        }
    };
    put(header::AGE, age.as_secs().to_string());
    let (max_age, stale) = (fresh_for.as_secs(), service.stale.as_secs());
    put(
        header::CACHE_CONTROL,
        format!("max-age={max_age}, stale-while-revalidate={stale}"),
    );
    put(CACHE_STATUS, status(prediction.source(), left));
    (headers, Json(body)).into_response()
}

const CACHE_STATUS: header::HeaderName = header::HeaderName::from_static("cache-status");

fn status(source: Source, left: i64) -> String {
    match source {
        Source::Loaded => format!("everfresh; fwd=miss; stored; ttl={left}; detail=loaded"),
        Source::Coalesced => {
            format!("everfresh; fwd=miss; collapsed; ttl={left}; detail=coalesced")
        }
        hit => format!("everfresh; hit; ttl={left}; detail={}", kind(hit)),
    }
}

/// An answer of the same size without a cache, for comparison in measurements.
fn constant(service: &Service) -> (HeaderMap, &'static str) {
    let (max_age, stale) = (service.fresh.as_secs(), service.stale.as_secs());
    let limits = format!("max-age={max_age}, stale-while-revalidate={stale}");
    let mut headers = HeaderMap::new();
    let json = HeaderValue::from_static("application/json");
    headers.insert(header::CONTENT_TYPE, json);
    headers.insert(header::AGE, HeaderValue::from_static("0"));
    if let Ok(limits) = HeaderValue::try_from(limits) {
        headers.insert(header::CACHE_CONTROL, limits);
    }
    let status = HeaderValue::from_static("everfresh; hit; ttl=1; detail=fresh");
    headers.insert(CACHE_STATUS, status);
    (headers, CONSTANT)
}

const CONSTANT: &str = concat!(
    r#"{"home":"ManCity","away":"Liverpool","#,
    r#""chances":{"home":0.4813,"draw":0.2311,"away":0.2876},"goals":[1.7391,1.3132],"#,
    r#""likeliest":[1,1],"source":"fresh","age_ms":512,"computation":12}"#,
);

/// The metrics in the text format of Prometheus.
async fn metrics(State(service): Shared) -> Response {
    let tally = &service.tally;
    for (kind, count) in KINDS.into_iter().zip(tally.answers()) {
        metrics::counter!("predictions_answers_total", "kind" => kind).absolute(count);
    }
    for (name, count) in [
        ("predictions_computes_total", &tally.computes),
        ("predictions_failures_total", &tally.failures),
        ("predictions_unknown_total", &tally.unknown),
        ("predictions_due_epochs_total", &tally.due),
    ] {
        metrics::counter!(name).absolute(count.get());
    }
    metrics::gauge!("predictions_computing").set(tally.computing.get() as f64);
    service.cache.record_metrics();
    service.metrics.run_upkeep();
    let text = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    ([(header::CONTENT_TYPE, text)], service.metrics.render()).into_response()
}

/// The service stays ready while the store is down, because it goes on without it.
async fn health(State(service): Shared) -> Response {
    let ready = !service.is_stopping();
    let status = match ready {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    let body = json!({ "live": true, "ready": ready, "store": service.store_state() });
    let never_kept = [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    (status, never_kept, Json(body)).into_response()
}
