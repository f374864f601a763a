//! The service and a Redis, as processes that end with the test.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::http::{PATIENCE, connect, get};

/// Waits until it is so.
pub fn eventually(what: &str, mut it_is: impl FnMut() -> bool) {
    let began = Instant::now();
    while !it_is() {
        assert!(began.elapsed() < PATIENCE, "never so: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

pub struct Service {
    child: Child,
    pub port: u16,
    /// Kept, or what it says last would kill it.
    _out: BufReader<ChildStdout>,
}

impl Service {
    /// Small predictions, so that a test is soon over.
    pub fn start(options: &[&str]) -> Service {
        Service::on(0, options)
    }

    pub fn on(port: u16, options: &[&str]) -> Service {
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
        Service {
            port: port.unwrap_or_else(|| panic!("no address in {line:?}")),
            child,
            _out: out,
        }
    }

    /// A figure of `/metrics`, all its labels together.
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

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub struct Redis {
    child: Child,
    pub url: String,
    port: u16,
}

impl Redis {
    pub fn start() -> Redis {
        for _ in 0..5 {
            let port = free_port();
            let mut redis = Redis {
                child: spawn(port),
                url: format!("redis://127.0.0.1:{port}/"),
                port,
            };
            // It ends at once if another process took the port.
            let mut ended = false;
            eventually("redis-server answers", || {
                ended = !matches!(redis.child.try_wait(), Ok(None));
                ended || redis.answers()
            });
            if !ended {
                return redis;
            }
        }
        panic!("no redis-server comes up");
    }

    fn answers(&self) -> bool {
        TcpStream::connect(("127.0.0.1", self.port)).is_ok() && self.ask("PING") == "+PONG"
    }

    /// Sends a command; returns the first line of the answer.
    pub fn ask(&self, command: &str) -> String {
        let mut stream = connect(self.port);
        stream
            .write_all(format!("{command}\r\n").as_bytes())
            .expect("a command");
        let mut answer = [0; 4_096];
        let length = stream.read(&mut answer).expect("an answer");
        let text = String::from_utf8_lossy(&answer[..length]).into_owned();
        text.lines().next().unwrap_or_default().to_owned()
    }

    /// How many keys are called so, as `*N`.
    pub fn keys(&self, pattern: &str) -> String {
        self.ask(&format!("KEYS {pattern}"))
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(port: u16) -> Child {
    Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
        .args(["--save", "", "--appendonly", "no"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("these tests need redis-server in the path: apt-get install redis-server")
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its number").port()
}
