//! A redis-server on a free port that ends with its owner, and a client that shares no code with
//! the store.

use std::fs;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// A limit that no start reaches.
const PATIENCE: Duration = Duration::from_secs(60);

/// A redis-server that ends when this value is dropped.
pub struct Server {
    child: Child,
    pub port: u16,
    folder: Folder,
    options: Vec<String>,
}

impl Server {
    pub fn start() -> Result<Server, String> {
        Server::with(&[])
    }

    /// A server with these options, as on its command line.
    pub fn with(options: &[&str]) -> Result<Server, String> {
        for _ in 0..5 {
            let folder = Folder(temporary()?);
            let port = free_port()?;
            let options = options.iter().map(|option| (*option).to_owned()).collect();
            let mut server = Server {
                child: spawn(port, &folder.0, &options)?,
                port,
                folder,
                options,
            };
            // It ends at once if another process took the port.
            if server.comes_up()? {
                return Ok(server);
            }
        }
        Err("redis-server does not start".to_owned())
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    /// Ends the server like a crash.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts the server again on its port, with the data of its last save.
    pub fn restart(&mut self) -> Result<(), String> {
        self.begin_restart()?;
        match self.comes_up()? {
            true => Ok(()),
            false => Err("redis-server does not start again".to_owned()),
        }
    }

    /// Starts the server again without waiting for its first answer.
    pub fn begin_restart(&mut self) -> Result<(), String> {
        self.kill();
        self.child = spawn(self.port, &self.folder.0, &self.options)?;
        Ok(())
    }

    /// Sends a signal, by its name.
    pub fn signal(&self, name: &str) -> Result<(), String> {
        signal(&self.child, name)
    }

    /// The file in which the server saves its data.
    pub fn dump(&self) -> PathBuf {
        self.folder.0.join("dump.rdb")
    }

    pub fn talk(&self) -> io::Result<Talk> {
        Talk::to(self.port)
    }

    /// Returns the answer to one command. An error of the server is an answer too.
    pub fn ask(&self, command: &[&str]) -> io::Result<Answer> {
        self.talk()?.ask(command)
    }

    /// Waits until the server answers. Returns false if it ended instead.
    fn comes_up(&mut self) -> Result<bool, String> {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return Ok(false);
            }
            match self.ask(&["PING"]) {
                Ok(Answer::Error(text)) if text.contains("LOADING") => {}
                Ok(_) => return Ok(true),
                Err(_) => {}
            }
            thread::sleep(Duration::from_millis(2));
        }
        Err("redis-server does not answer".to_owned())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A folder that is removed at the end, after its server has ended.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Sends a signal to a process, by its name.
pub fn signal(child: &Child, name: &str) -> Result<(), String> {
    let sent = Command::new("kill")
        .args([&format!("-{name}"), &child.id().to_string()])
        .status();
    match sent {
        Ok(status) if status.success() => Ok(()),
        _ => Err(format!("cannot send SIG{name}")),
    }
}

/// A new folder for temporary files.
pub fn temporary() -> Result<PathBuf, String> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("everfresh-{}-{number}", std::process::id()));
    match fs::create_dir_all(&folder) {
        Ok(()) => Ok(folder),
        Err(error) => Err(format!(
            "cannot create the folder {}: {error}",
            folder.display()
        )),
    }
}

/// A port on which no process listens now.
pub fn free_port() -> Result<u16, String> {
    let bound = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let port = bound.map(|address| address.port());
    port.map_err(|error| format!("no free port: {error}"))
}

fn spawn(port: u16, folder: &Path, options: &Vec<String>) -> Result<Child, String> {
    Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
        .args(["--save", "", "--appendonly", "no", "--daemonize", "no"])
        .args(["--enable-debug-command", "yes"])
        .arg("--dir")
        .arg(folder)
        .args(options)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| {
            format!("no redis-server in the path: {error} (apt-get install redis-server)")
        })
}

/// An answer of the server.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    Nil,
    Text(String),
    Bytes(Vec<u8>),
    Number(i64),
    Error(String),
    Many(Vec<Answer>),
}

/// A connection that speaks the protocol of Redis and nothing else.
pub struct Talk(BufReader<TcpStream>);

impl Talk {
    pub fn to(port: u16) -> io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Talk(BufReader::new(stream)))
    }

    pub fn ask<B: AsRef<[u8]>>(&mut self, command: &[B]) -> io::Result<Answer> {
        self.send(command)?;
        self.answer()
    }

    pub fn send<B: AsRef<[u8]>>(&mut self, command: &[B]) -> io::Result<()> {
        let mut bytes = format!("*{}\r\n", command.len()).into_bytes();
        for part in command {
            let part = part.as_ref();
            bytes.extend(format!("${}\r\n", part.len()).bytes());
            bytes.extend(part);
            bytes.extend(b"\r\n");
        }
        self.0.get_mut().write_all(&bytes)
    }

    pub fn answer(&mut self) -> io::Result<Answer> {
        let mut line = String::new();
        if self.0.read_line(&mut line)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let wrong = || io::Error::new(ErrorKind::InvalidData, "not the protocol of Redis");
        let line = line.trim_end();
        let (kind, rest) = line.split_at_checked(1).ok_or_else(wrong)?;
        let count = || rest.parse::<usize>().map_err(|_| wrong());
        Ok(match kind {
            "+" => Answer::Text(rest.to_owned()),
            "-" => Answer::Error(rest.to_owned()),
            ":" => Answer::Number(rest.parse().map_err(|_| wrong())?),
            "$" | "*" if rest == "-1" => Answer::Nil,
            "$" => {
                let mut bytes = vec![0; count()? + 2];
                self.0.read_exact(&mut bytes)?;
                bytes.truncate(bytes.len() - 2);
                Answer::Bytes(bytes)
            }
            "*" => {
                let answers = (0..count()?).map(|_| self.answer());
                Answer::Many(answers.collect::<io::Result<_>>()?)
            }
            _ => return Err(wrong()),
        })
    }
}
