//! HTTP over a plain socket, one request a connection.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

/// A limit that no answer reaches.
pub const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    head: String,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The word for programs in a refusal.
    pub fn error(&self) -> String {
        self.json()["error"].as_str().unwrap_or_default().to_owned()
    }
}

pub fn get(port: u16, path: &str) -> Answer {
    send(port, "GET", path, "", "")
}

pub fn post(port: u16, path: &str) -> Answer {
    send(port, "POST", path, "", "")
}

/// `headers` are whole lines, with their ends.
pub fn send(port: u16, method: &str, path: &str, headers: &str, body: &str) -> Answer {
    let mut stream = connect(port);
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\
         Content-Length: {length}\r\n{headers}\r\n{body}"
    );
    stream.write_all(request.as_bytes()).expect("a request");
    receive(stream)
}

pub fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
    let set = stream.set_read_timeout(Some(PATIENCE));
    set.expect("a time limit");
    stream
}

/// Reads until the other side ends, or has sent the announced length.
pub fn receive(mut stream: TcpStream) -> Answer {
    let mut text = Vec::new();
    let mut part = [0; 65_536];
    loop {
        let length = stream.read(&mut part).expect("an answer");
        text.extend(&part[..length]);
        let so_far = String::from_utf8_lossy(&text);
        let Some((head, body)) = so_far.split_once("\r\n\r\n") else {
            assert!(length > 0, "no answer: {so_far}");
            continue;
        };
        let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
        let answer = Answer {
            status: status.expect("a status"),
            head: head.to_owned(),
            body: body.to_owned(),
        };
        let announced = answer
            .header("content-length")
            .and_then(|length| length.parse().ok());
        if length == 0 || announced.is_some_and(|announced: usize| body.len() >= announced) {
            return answer;
        }
    }
}
