//! The service and a Redis, as processes that end with the test.
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use dev_support::redis::{Answer, Server};

use crate::http::{PATIENCE, get};

/// Waits until the condition holds.
pub fn eventually(what: &str, mut it_is: impl FnMut() -> bool) {
    let began = Instant::now();
    while !it_is() {
        assert!(began.elapsed() < PATIENCE, "still not true: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

pub struct RunningService {
    child: Child,
    pub port: u16,
    /// Kept open, because a later write to a closed pipe would kill the service.
    _out: BufReader<ChildStdout>,
}

impl RunningService {
    /// Small predictions, so that tests are short.
    pub fn start(options: &[&str]) -> RunningService {
        RunningService::on(0, options)
    }

    pub fn on(port: u16, options: &[&str]) -> RunningService {
        let mut child = Command::new(env!("CARGO_BIN_EXE_predictions"))
            .args(["--port", &port.to_string(), "--simulations", "2000"])
            .args(options)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the service");
        let mut out = BufReader::new(child.stdout.take().expect("its output"));
        let mut line = String::new();
        out.read_line(&mut line).expect("its address");
        let port = line.trim().trim_end_matches('/').rsplit(':').next();
        let port = port.and_then(|port| port.parse().ok());
        RunningService {
            port: port.unwrap_or_else(|| panic!("no address in {line:?}")),
            child,
            _out: out,
        }
    }

    /// A figure of `/metrics`, summed over its labels.
    pub fn figure(&self, name: &str) -> f64 {
        let text = get(self.port, "/metrics").body;
        let values = text.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let found = series.split('{').next() == Some(name);
            found.then(|| value.parse::<f64>().expect("a number"))
        });
        values.sum()
    }

    pub fn terminate(&self) {
        let sent = Command::new("kill")
            .arg(self.child.id().to_string())
            .status();
        assert!(sent.expect("kill").success());
    }

    pub fn ends(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("the service ends", || {
            status = self.child.try_wait().expect("its status");
            status.is_some()
        });
        status.expect("it ended")
    }

    pub fn kill(mut self) -> u16 {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.port
    }
}

impl Drop for RunningService {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A Redis that tests can query.
pub fn redis() -> Server {
    Server::start().expect("a redis-server")
}

/// The number of keys on a server that match a pattern.
pub fn keys(redis: &Server, pattern: &str) -> usize {
    match redis.ask(&["KEYS", pattern]) {
        Ok(Answer::Many(keys)) => keys.len(),
        other => panic!("not a list of keys: {other:?}"),
    }
}
