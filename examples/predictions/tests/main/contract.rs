//! The answers of the service.

use std::io::{Read, Write};

use crate::http::{Answer, connect, get, post, send};
use crate::processes::{RunningService, eventually, keys, redis};

const PAIRING: &str = "/predict/ManCity/Liverpool";

#[test]
fn a_prediction_says_how_old_it_is_and_how_long_it_may_be_kept() {
    let service = RunningService::start(&["--fresh", "60000", "--stale", "120000"]);
    let first = get(service.port, PAIRING);
    assert_eq!(first.status, 200, "{first:?}");
    assert_eq!(first.header("content-type"), Some("application/json"));
    let body = first.json();
    let chance = |result: &str| body["chances"][result].as_f64().expect(result);
    let all = chance("home") + chance("draw") + chance("away");
    assert!((all - 1.0).abs() < 0.001, "{body}");
    assert_eq!(body["source"], "loaded");
    assert!(status(&first).starts_with("everfresh; fwd=miss; stored; ttl="));

    let second = get(service.port, PAIRING);
    assert_eq!(second.json()["source"], "fresh");
    assert_eq!(second.json()["computation"], 1);
    let age: u64 = second
        .header("age")
        .expect("an age")
        .parse()
        .expect("seconds");
    assert_eq!(
        age,
        second.json()["age_ms"].as_u64().expect("an age") / 1_000
    );
    let limits = Some("max-age=60, stale-while-revalidate=120");
    assert_eq!(second.header("cache-control"), limits);
    assert!(status(&second).starts_with("everfresh; hit; ttl="));
    assert_eq!(service.figure("predictions_computes_total"), 1.0);
    assert_eq!(service.figure("everfresh_loads_total"), 1.0);
    assert!(service.figure("everfresh_reads_total") > 0.0);
}

fn status(answer: &Answer) -> &str {
    answer
        .header("cache-status")
        .expect("a status of the cache")
}

#[test]
fn each_epoch_that_went_stale_is_computed_once() {
    let service = RunningService::start(&["--fresh", "1", "--stale", "600000", "--beta", "0"]);
    get(service.port, PAIRING);
    let mut stale = 0;
    eventually("fifty stale answers", || {
        let answer = get(service.port, PAIRING);
        assert_eq!(answer.status, 200);
        if answer.json()["source"] == "stale" {
            stale += 1;
            assert_eq!(
                answer.header("cache-control"),
                Some("max-age=0, stale-while-revalidate=600")
            );
            assert!(
                status(&answer).starts_with("everfresh; hit; ttl=-"),
                "{answer:?}"
            );
        }
        stale == 50
    });
    // The last refresh may still run; all others have ended.
    eventually("a compute for each", || {
        let due = service.figure("predictions_due_epochs_total");
        due > 0.0 && service.figure("predictions_computes_total") == due + 1.0
    });
}

#[test]
fn an_invalid_pairing_is_refused() {
    let service = RunningService::start(&[]);
    let long = format!("/predict/{}/Liverpool", "a".repeat(33));
    for (path, error) in [
        ("/predict/Man%20City/Liverpool", "bad-name"),
        ("/predict/ManCity/..%2f..%2fetc", "bad-name"),
        ("/predict/%ff/Liverpool", "bad-name"),
        ("/predict/ManCity/%C3%96sterreich", "bad-name"),
        (long.as_str(), "bad-name"),
        ("/predict/ManCity/ManCity", "same-team"),
    ] {
        let answer = get(service.port, path);
        assert_eq!(
            (answer.status, answer.error().as_str()),
            (400, error),
            "{path}"
        );
        assert_eq!(answer.header("cache-control"), Some("no-store"));
    }
    let nowhere = get(service.port, "/predict/ManCity");
    assert_eq!(
        (nowhere.status, nowhere.error().as_str()),
        (404, "not-found")
    );
    let method = post(service.port, PAIRING);
    assert_eq!(
        (method.status, method.error().as_str()),
        (405, "method-not-allowed")
    );
    assert_eq!(service.figure("predictions_computes_total"), 0.0);
}

#[test]
fn an_unknown_team_is_loaded_once() {
    let service = RunningService::start(&[]);
    for _ in 0..20 {
        let answer = get(service.port, "/predict/ManCity/Atlantis");
        assert_eq!(
            (answer.status, answer.error().as_str()),
            (404, "unknown-team")
        );
    }
    assert_eq!(service.figure("predictions_unknown_total"), 1.0);
    let metrics = get(service.port, "/metrics");
    assert!(
        metrics
            .header("content-type")
            .is_some_and(|kind| kind.starts_with("text/plain"))
    );
    assert!(
        metrics
            .body
            .contains("predictions_answers_total{kind=\"not-found\"} 20\n")
    );
}

#[test]
fn a_broken_loader_fails_only_requests_for_missing_keys() {
    let service = RunningService::start(&["--fresh", "1", "--stale", "600000"]);
    get(service.port, PAIRING);
    assert_eq!(post(service.port, "/demo/loader?on=true").status, 200);
    eventually("a stale value after a failed refresh", || {
        let answer = get(service.port, PAIRING);
        assert_eq!(answer.status, 200);
        // It was fresh for a millisecond, at any age.
        let limits = answer.header("cache-control").expect("limits");
        assert!(limits.starts_with("max-age=0,"), "{limits}");
        let is_old = answer.header("age").is_some_and(|age| age != "0");
        is_old && answer.json()["source"] == "after-failure"
    });
    let other = get(service.port, "/predict/Arsenal/Chelsea");
    assert_eq!((other.status, other.error().as_str()), (503, "load-failed"));
    assert_eq!(other.header("retry-after"), Some("1"));

    assert_eq!(post(service.port, "/demo/loader?on=false").status, 200);
    eventually("it recovers", || {
        get(service.port, "/predict/Arsenal/Chelsea").status == 200
    });
}

#[test]
fn health_reports_the_store_and_does_not_depend_on_it() {
    let alone = RunningService::start(&[]);
    let healthy = get(alone.port, "/health");
    assert_eq!(healthy.status, 200);
    assert_eq!(healthy.body, r#"{"live":true,"ready":true,"store":"none"}"#);
    let refused = post(alone.port, "/demo/store?on=true");
    assert_eq!(
        (refused.status, refused.error().as_str()),
        (409, "no-store")
    );

    let redis = redis();
    let service = RunningService::start(&["--redis", &redis.url()]);
    let store_is = |state: &str| {
        let health = get(service.port, "/health");
        assert_eq!(health.status, 200, "{health:?}");
        health.json()["store"] == state
    };
    assert!(store_is("up"));
    assert_eq!(get(service.port, PAIRING).status, 200);
    assert_eq!(post(service.port, "/demo/store?on=true").status, 200);
    eventually("the store is down", || store_is("down"));
    assert_eq!(get(service.port, PAIRING).json()["source"], "fresh");
    assert_eq!(get(service.port, "/predict/Arsenal/Chelsea").status, 200);
    assert_eq!(post(service.port, "/demo/store?on=false").status, 200);
    eventually("the store is up again", || store_is("up"));
}

#[test]
fn stored_predictions_outlive_the_process() {
    let redis = redis();
    let url = redis.url();
    let options = ["--redis", url.as_str(), "--fresh", "600000"];
    let service = RunningService::start(&options);
    get(service.port, PAIRING);
    eventually("it is stored", || keys(&redis, "predictions:v1:d:*") == 1);
    service.kill();

    let again = RunningService::start(&options);
    let answer = get(again.port, PAIRING);
    assert_eq!(
        (answer.status, answer.json()["source"].as_str()),
        (200, Some("store"))
    );
    assert_eq!(again.figure("predictions_computes_total"), 0.0);
}

#[test]
fn a_burst_on_a_stale_value_costs_one_compute() {
    let service = RunningService::start(&["--fresh", "600000"]);
    for requests in [1, 100, 1_000] {
        let met = post(service.port, &format!("/demo/burst?requests={requests}")).json();
        assert_eq!(met["requests"], requests);
        assert_eq!(
            (&met["computes"], &met["waited"]),
            (&1.into(), &0.into()),
            "{met}"
        );
        assert_eq!(met["failed"], 0);
    }
    for query in ["", "?requests=0", "?requests=1001", "?requests=many"] {
        let answer = post(service.port, &format!("/demo/burst{query}"));
        assert_eq!((answer.status, answer.error().as_str()), (400, "bad-query"));
    }
    let foreign = "Sec-Fetch-Site: cross-site\r\n";
    let refused = send(service.port, "POST", "/demo/loader?on=true", foreign, "");
    assert_eq!(
        (refused.status, refused.error().as_str()),
        (403, "cross-site")
    );
}

#[test]
fn the_number_of_watching_pages_is_limited() {
    let service = RunningService::start(&[]);
    let watch = || {
        let mut stream = connect(service.port);
        let request = "GET /events HTTP/1.1\r\nHost: x\r\n\r\n";
        stream.write_all(request.as_bytes()).expect("a request");
        let mut start = [0; 12];
        stream.read_exact(&mut start).expect("an answer");
        (stream, start.ends_with(b"200"))
    };
    let watching: Vec<_> = (0..32).map(|_| watch()).collect();
    assert!(watching.iter().all(|(_, admitted)| *admitted));
    assert!(!watch().1);
    drop(watching);
    eventually("their places are free again", || watch().1);
}
