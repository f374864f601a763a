//! Answers instead of a prediction: a status, a word for programs, a sentence for people.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, HeaderValue, RETRY_AFTER};
use axum::response::{IntoResponse, Response};
use everfresh::Error;
use serde_json::json;

#[derive(Debug)]
pub struct Refusal {
    status: StatusCode,
    error: &'static str,
    message: &'static str,
}

impl Refusal {
    pub const BAD_NAME: Refusal = Refusal::new(
        StatusCode::BAD_REQUEST,
        "bad-name",
        "a team's name has 1 to 32 letters, digits, - or _",
    );
    pub const SAME_TEAM: Refusal = Refusal::new(
        StatusCode::BAD_REQUEST,
        "same-team",
        "a team does not play against itself",
    );
    pub const BAD_QUERY: Refusal = Refusal::new(
        StatusCode::BAD_REQUEST,
        "bad-query",
        "the query lacks a parameter, or has an invalid one",
    );
    pub const CROSS_SITE: Refusal = Refusal::new(
        StatusCode::FORBIDDEN,
        "cross-site",
        "only the page of this service may do that",
    );
    pub const UNKNOWN_TEAM: Refusal = Refusal::new(
        StatusCode::NOT_FOUND,
        "unknown-team",
        "at least one of the teams does not exist",
    );
    pub const NOT_FOUND: Refusal = Refusal::new(
        StatusCode::NOT_FOUND,
        "not-found",
        "no such page; try /predict/ManCity/Liverpool",
    );
    pub const METHOD: Refusal = Refusal::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method-not-allowed",
        "this method is not allowed here",
    );
    pub const BUSY: Refusal = Refusal::new(
        StatusCode::CONFLICT,
        "burst-under-way",
        "a burst is already running",
    );
    pub const NO_STORE: Refusal = Refusal::new(
        StatusCode::CONFLICT,
        "no-store",
        "the service was started without --redis",
    );
    pub const LOAD_FAILED: Refusal = Refusal::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "load-failed",
        "there is no prediction yet and it could not be computed; try again soon",
    );
    pub const OVERLOADED: Refusal = Refusal::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "overloaded",
        "too many predictions are being computed; try again soon",
    );
    pub const STREAMS: Refusal = Refusal::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "too-many-streams",
        "too many pages are watching; try again soon",
    );
    pub const TIMED_OUT: Refusal = Refusal::new(
        StatusCode::GATEWAY_TIMEOUT,
        "timed-out",
        "it took too long; try again soon",
    );

    const fn new(status: StatusCode, error: &'static str, message: &'static str) -> Refusal {
        Refusal {
            status,
            error,
            message,
        }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        if error.is_not_found() {
            return Refusal::UNKNOWN_TEAM;
        }
        tracing::debug!("no prediction: {error:?}");
        match () {
            () if error.is_timeout() => Refusal::TIMED_OUT,
            () if error.is_overloaded() => Refusal::OVERLOADED,
            () => Refusal::LOAD_FAILED,
        }
    }
}

impl From<QueryRejection> for Refusal {
    fn from(_: QueryRejection) -> Self {
        Refusal::BAD_QUERY
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = json!({ "error": self.error, "message": self.message });
        let mut response = (self.status, Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
