//! How the service ends.

use std::io::Write;
use std::net::TcpStream;
use std::thread;

use crate::http::{connect, get, receive};
use crate::processes::{RunningService, eventually, keys, redis};

const PAIRING: &str = "/predict/ManCity/Liverpool";

/// A prediction that takes about a second, so that it is under way when the service is asked to
/// end.
const LONG: &str = "5000000";

#[test]
fn requests_under_way_are_finished_and_new_ones_are_not_accepted() {
    let mut service = RunningService::start(&["--simulations", LONG]);
    let port = service.port;
    let mut late = connect(port);
    late.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n")
        .expect("half a request");
    let asking = thread::spawn(move || get(port, PAIRING));
    eventually("it is being computed", || {
        service.figure("predictions_computing") == 1.0
    });
    service.terminate();
    eventually("it accepts no more", || {
        TcpStream::connect(("127.0.0.1", port)).is_err()
    });
    late.write_all(b"\r\n").expect("the other half");
    let health = receive(late);
    assert_eq!(health.status, 503);
    assert_eq!(health.json()["ready"], false);
    let answer = asking.join().expect("an answer");
    assert_eq!(
        (answer.status, answer.json()["source"].as_str()),
        (200, Some("loaded"))
    );
    assert!(service.ends().success());
}

#[test]
fn leases_are_released() {
    let redis = redis();
    let leases = || keys(&redis, "predictions:v1:l:*");
    let mut service = RunningService::start(&["--redis", &redis.url(), "--simulations", LONG]);
    let port = service.port;
    // One is computed, the other queued behind it, or computed by another core.
    let asking = [PAIRING, "/predict/Arsenal/Chelsea"].map(|path| {
        let mut stream = connect(port);
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("a request");
        stream
    });
    eventually("both have their leases", || leases() == 2);
    // No client waits for either any more, so there is no request to finish.
    drop(asking);
    service.terminate();
    assert!(service.ends().success());
    assert_eq!(leases(), 0);
}
