//! A redis-server for one test, and a way to talk to it that has nothing to do with the store.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use everfresh::store::{RedisBuilder, RedisStore, Store, StoreKey};

use crate::contract::world::{LIMIT, World, until};

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A server that ends with the test.
pub struct Server {
    child: Child,
    pub port: u16,
    folder: PathBuf,
    options: Vec<String>,
}

/// An answer of a server.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    Nil,
    Text(String),
    Bytes(Vec<u8>),
    Number(i64),
    Error(String),
    Many(Vec<Answer>),
}

impl Server {
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// One with these options, as on the command line.
    pub fn with(options: &[&str]) -> Self {
        let folder = temporary();
        let mut options = options.iter().map(|option| (*option).to_owned()).collect();
        let mut tries = 0;
        loop {
            let port = free_port();
            let child = spawn(port, &folder, &options);
            let mut server = Server {
                child,
                port,
                folder: folder.clone(),
                options,
            };
            if server.is_up() {
                return server;
            }
            tries += 1;
            assert!(tries < 5, "no redis-server comes up");
            // Another process took the port; the folder stays.
            server.kill();
            options = std::mem::take(&mut server.options);
            server.folder = PathBuf::new();
        }
    }

    /// Whether it answers; false if it ended.
    fn is_up(&mut self) -> bool {
        let started = Instant::now();
        loop {
            assert!(
                started.elapsed() < Duration::from_secs(60),
                "the server never answers"
            );
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            if let Ok(mut talk) = Talk::to(self.port) {
                match talk.ask(&["PING"]) {
                    Ok(Answer::Error(text)) if text.contains("LOADING") => {}
                    Ok(_) => return true,
                    Err(_) => {}
                }
            }
            std::thread::park_timeout(Duration::from_millis(2));
        }
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    /// A store with short limits.
    pub fn builder(&self) -> RedisBuilder {
        RedisStore::builder(self.url())
            .timeout(Duration::from_millis(300))
            .limit(LIMIT)
    }

    pub fn store(&self) -> RedisStore {
        self.builder()
            .timeout(Duration::from_secs(10))
            .connect_blocking()
            .unwrap()
    }

    /// Sends a signal, by its name.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args([&format!("-{name}"), &self.child.id().to_string()])
            .status();
        assert!(sent.unwrap().success());
    }

    /// Ends it as a crash does.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again on the same port, with what it has on its disk.
    pub fn restart(&mut self) {
        self.begin_restart();
        assert!(self.is_up(), "the port was taken meanwhile");
    }

    /// The same, without waiting until it answers.
    pub fn begin_restart(&mut self) {
        self.kill();
        self.child = spawn(self.port, &self.folder, &self.options);
    }

    /// Where it saves.
    pub fn dump(&self) -> PathBuf {
        self.folder.join("dump.rdb")
    }

    /// Makes every save fail, for root too: a folder that is not empty is in the way.
    pub fn block_disk(&self) {
        let _ = fs::remove_file(self.dump());
        fs::create_dir_all(self.dump().join("in the way")).unwrap();
    }

    pub fn talk(&self) -> Talk {
        Talk::to(self.port).unwrap()
    }

    /// How many connections there are, that of who asks among them.
    pub fn clients(&self) -> usize {
        match self.ask(&["CLIENT", "LIST"]) {
            Answer::Bytes(list) => String::from_utf8_lossy(&list).lines().count(),
            other => panic!("{other:?}"),
        }
    }

    /// One command that must not fail.
    pub fn ask(&self, command: &[&str]) -> Answer {
        match self.talk().ask(command).unwrap() {
            Answer::Error(text) => panic!("{}: {text}", command[0]),
            answer => answer,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        if self.folder != PathBuf::new() {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

/// A folder of one's own.
pub fn temporary() -> PathBuf {
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("everfresh-{}-{number}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    folder
}

pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn spawn(port: u16, folder: &PathBuf, options: &Vec<String>) -> Child {
    Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
        .args(["--save", "", "--appendonly", "no", "--daemonize", "no"])
        .args(["--enable-debug-command", "yes"])
        .arg("--dir")
        .arg(folder)
        .args(options)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("these tests need redis-server in the path: apt-get install redis-server")
}

/// A connection that knows nothing but the protocol.
pub struct Talk(BufReader<TcpStream>);

impl Talk {
    pub fn to(port: u16) -> std::io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        Ok(Talk(BufReader::new(stream)))
    }

    pub fn ask<B: AsRef<[u8]>>(&mut self, command: &[B]) -> std::io::Result<Answer> {
        self.send(command)?;
        self.answer()
    }

    pub fn send<B: AsRef<[u8]>>(&mut self, command: &[B]) -> std::io::Result<()> {
        let mut bytes = format!("*{}\r\n", command.len()).into_bytes();
        for part in command {
            let part = part.as_ref();
            bytes.extend(format!("${}\r\n", part.len()).bytes());
            bytes.extend(part);
            bytes.extend(b"\r\n");
        }
        self.0.get_mut().write_all(&bytes)
    }

    pub fn answer(&mut self) -> std::io::Result<Answer> {
        let mut line = String::new();
        if self.0.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let (kind, rest) = line.trim_end().split_at(1);
        Ok(match kind {
            "+" => Answer::Text(rest.to_owned()),
            "-" => Answer::Error(rest.to_owned()),
            ":" => Answer::Number(rest.parse().unwrap()),
            "$" if rest == "-1" => Answer::Nil,
            "$" => {
                let mut bytes = vec![0; rest.parse::<usize>().unwrap() + 2];
                self.0.read_exact(&mut bytes)?;
                bytes.truncate(bytes.len() - 2);
                Answer::Bytes(bytes)
            }
            "*" if rest == "-1" => Answer::Nil,
            "*" => {
                let count = rest.parse::<usize>().unwrap();
                Answer::Many(
                    (0..count)
                        .map(|_| self.answer())
                        .collect::<Result<_, _>>()?,
                )
            }
            other => panic!("not the protocol: {other}"),
        })
    }
}

pub fn data(key: &StoreKey) -> String {
    format!("{}:d:{{{:032x}}}", key.namespace().as_str(), key.hash())
}

pub fn lease(key: &StoreKey) -> String {
    format!("{}:l:{{{:032x}}}", key.namespace().as_str(), key.hash())
}

/// A server with one store at it.
pub struct OnServer {
    pub server: Server,
    pub store: RedisStore,
}

impl OnServer {
    pub fn new() -> Self {
        let server = Server::start();
        let store = server.store();
        OnServer { server, store }
    }

    /// With short limits, so that what hangs ends soon.
    pub fn hurried() -> Self {
        Self::of(Server::start())
    }

    pub fn of(server: Server) -> Self {
        let store = server.builder().connect_blocking().unwrap();
        OnServer { server, store }
    }

    /// Waits until the store can be used.
    pub fn wait_until_up(&self) {
        until("the store is up", || self.store.state().is_up());
    }

    pub fn wait_until_down(&self) {
        until("the store is down", || !self.store.state().is_up());
    }

    /// Waits until the store has noticed that its server was restarted, and can be used.
    pub fn wait_until_down_or_new(&self) {
        until("a new connection of both", || {
            self.store.stats().connections >= 4
        });
        self.wait_until_up();
    }

    fn left(&self, name: &str) -> Option<Duration> {
        match self.server.ask(&["PTTL", name]) {
            Answer::Number(left) => u64::try_from(left).ok().map(Duration::from_millis),
            other => panic!("{other:?}"),
        }
    }
}

impl World for OnServer {
    fn store(&self) -> &dyn Store {
        &self.store
    }

    fn lose_lease(&self, key: &StoreKey) {
        self.server.ask(&["DEL", &lease(key)]);
    }

    fn lose_data(&self, key: &StoreKey) {
        self.server.ask(&["DEL", &data(key)]);
    }

    fn plant(&self, key: &StoreKey, bytes: Vec<u8>) {
        let set = self
            .server
            .talk()
            .ask(&[b"SET".as_slice(), data(key).as_bytes(), &bytes]);
        assert_eq!(set.unwrap(), Answer::Text("OK".to_owned()));
    }

    fn lease_left(&self, key: &StoreKey) -> Option<Duration> {
        self.left(&lease(key))
    }

    fn data_left(&self, key: &StoreKey) -> Option<Duration> {
        self.left(&data(key))
    }
}
