//! The page, and the actions of its buttons.
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request, State};
use axum::http::header::{self, HeaderValue};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use dev_support::quantile::quantile;
use dev_support::report::micros;
use everfresh::{Cached, Source};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::Barrier;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::prediction::{LOAD, Pairing};
use crate::refusal::Refusal;
use crate::service::{Service, Shared};

const LARGEST: usize = 1_000;

/// Steady traffic: 200 requests a second, for ten minutes at most.
const EVERY: Duration = Duration::from_millis(5);
const REQUESTS: usize = 10 * 60 * 200;

#[derive(Default)]
pub struct Demo {
    burst: tokio::sync::Mutex<()>,
    traffic: Mutex<Option<JoinHandle<()>>>,
}

pub fn routes() -> Router<Arc<Service>> {
    let file = |kind: &'static str, text: &'static str| {
        let headers = [
            (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
            (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
            (
                header::CONTENT_SECURITY_POLICY,
                HeaderValue::from_static(POLICY),
            ),
        ];
        get(async move || (headers, text))
    };
    let buttons = Router::new()
        .route("/demo/burst", post(burst))
        .route("/demo/loader", post(loader))
        .route("/demo/store", post(store))
        .route("/demo/traffic", post(traffic))
        .layer(from_fn(own_page));
    Router::new()
        .route(
            "/",
            file("text/html; charset=utf-8", include_str!("page/page.html")),
        )
        .route(
            "/page.css",
            file("text/css; charset=utf-8", include_str!("page/page.css")),
        )
        .route(
            "/page.js",
            file(
                "text/javascript; charset=utf-8",
                include_str!("page/page.js"),
            ),
        )
        .merge(buttons)
}

/// Allows no content from other sites.
const POLICY: &str =
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:";

/// Refuses requests that a page of another site sends through the browser of the operator.
async fn own_page(request: Request, next: Next) -> Response {
    let site = request.headers().get("sec-fetch-site");
    let foreign = site.is_some_and(|site| site != "same-origin" && site != "none");
    match foreign {
        true => Refusal::CROSS_SITE.into_response(),
        false => next.run(request).await,
    }
}

impl Service {
    /// Which parts are broken, and whether the traffic is on.
    pub fn switches(&self) -> Value {
        let traffic = self
            .demo
            .traffic
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        json!({
            "loader": self.loader.is_broken(),
            "store": self.store.as_ref().map(|(_, cable)| cable.is_cut()),
            "traffic": traffic.as_ref().is_some_and(|task| !task.is_finished()),
        })
    }
}

#[derive(Deserialize)]
struct Switch {
    on: bool,
}

type Switched = Result<Query<Switch>, QueryRejection>;

/// Makes the loader fail.
async fn loader(State(service): Shared, switch: Switched) -> Result<Json<Value>, Refusal> {
    service.loader.set_broken(switch?.on);
    Ok(Json(service.switches()))
}

/// Cuts the cable to Redis.
async fn store(State(service): Shared, switch: Switched) -> Result<Json<Value>, Refusal> {
    let on = switch?.on;
    let (_, cable) = service.store.as_ref().ok_or(Refusal::NO_STORE)?;
    cable.set_cut(on);
    Ok(Json(service.switches()))
}

/// Sends steady requests for the watched pairing.
async fn traffic(State(service): Shared, switch: Switched) -> Result<Json<Value>, Refusal> {
    let on = switch?.on;
    let old = {
        let mut task = service
            .demo
            .traffic
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let new = on.then(|| tokio::spawn(steady(service.clone())));
        std::mem::replace(&mut *task, new)
    };
    if let Some(old) = old {
        old.abort();
    }
    Ok(Json(service.switches()))
}

async fn steady(service: Arc<Service>) {
    let watched = Pairing::watched();
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for _ in 0..REQUESTS {
        ticks.tick().await;
        if service.is_stopping() {
            return;
        }
        // In a task of its own, so that a request that waits does not delay the next one.
        let (service, watched) = (service.clone(), watched.clone());
        tokio::spawn(async move { drop(service.read(&watched).await) });
    }
}

#[derive(Deserialize)]
struct Size {
    requests: usize,
}

/// The outcomes of a burst.
#[derive(Serialize)]
struct Outcome {
    requests: usize,
    stale: usize,
    waited: usize,
    failed: usize,
    computes: usize,
    failures: usize,
    p50_us: f64,
    p99_us: f64,
}

/// Makes the watched pairing stale, requests it many times at once, and waits for the refresh.
async fn burst(
    State(service): Shared,
    size: Result<Query<Size>, QueryRejection>,
) -> Result<Json<Outcome>, Refusal> {
    let requests = size?.requests;
    if !(1..=LARGEST).contains(&requests) {
        return Err(Refusal::BAD_QUERY);
    }
    let _alone = service.demo.burst.try_lock().map_err(|_| Refusal::BUSY)?;
    let watched = Pairing::watched();
    // A read of a value that is already stale would begin a refresh besides that of the burst.
    let value = match service.cache.peek(&watched) {
        Some(value) => value,
        None => service.read(&watched).await.map_err(Refusal::from)?,
    };
    // A computation for an earlier epoch would be counted too, so wait for its end.
    wait_until(|| service.tally.computing.get() == 0).await;
    let begun = service.tally.begun();
    service.cache.insert(watched.clone(), value.gone_stale());

    let barrier = Arc::new(Barrier::new(requests));
    let started: Vec<_> = (0..requests)
        .map(|_| {
            let (service, barrier, watched) = (service.clone(), barrier.clone(), watched.clone());
            tokio::spawn(async move {
                barrier.wait().await;
                let began = Instant::now();
                let read = service.read(&watched).await;
                (began.elapsed(), read.ok().as_ref().map(Cached::source))
            })
        })
        .collect();
    let mut answers = Vec::with_capacity(requests);
    for request in started {
        answers.extend(request.await);
    }
    // The refresh ends after all requests are answered. In a fleet another process may have run it.
    let is_fresh = || {
        service
            .cache
            .peek(&watched)
            .is_some_and(|value| value.freshness().is_fresh())
    };
    wait_until(|| {
        let failures = service.tally.since(begun).1;
        service.tally.computing.get() == 0 && (failures > 0 || is_fresh())
    })
    .await;
    let (computes, failures) = service.tally.since(begun);
    let mut took: Vec<Duration> = answers.iter().map(|(took, _)| *took).collect();
    took.sort_unstable();
    let quantile = |part| micros(quantile(&took, part));
    let count = |wanted: &dyn Fn(Option<Source>) -> bool| {
        answers.iter().filter(|(_, source)| wanted(*source)).count()
    };
    Ok(Json(Outcome {
        requests: answers.len(),
        stale: count(&|source| matches!(source, Some(Source::Stale | Source::AfterFailure))),
        waited: count(&|source| {
            matches!(
                source,
                Some(Source::Loaded | Source::Coalesced | Source::Store)
            )
        }),
        failed: count(&|source| source.is_none()),
        computes,
        failures,
        p50_us: quantile(0.5),
        p99_us: quantile(0.99),
    }))
}

/// Waits for the condition, but no longer than the time limit of a load.
async fn wait_until(it_is: impl Fn() -> bool) {
    let waiting = async {
        while !it_is() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    // At the time limit the answer shows the figures so far.
    let _ = timeout(LOAD, waiting).await;
}
