//! A redis-server on a free port, that ends with this.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Longer than any start takes.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Server {
    child: Child,
    port: u16,
}

impl Server {
    pub fn start() -> Result<Server, String> {
        for _ in 0..5 {
            let port = free_port()?;
            let mut server = Server {
                child: spawn(port)?,
                port,
            };
            // It ends at once if another process took the port.
            if server.comes_up()? {
                return Ok(server);
            }
        }
        Err("redis-server does not come up".to_owned())
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again on its port, empty.
    pub fn restart(&mut self) -> Result<(), String> {
        self.kill();
        self.child = spawn(self.port)?;
        match self.comes_up()? {
            true => Ok(()),
            false => Err("redis-server does not come up again".to_owned()),
        }
    }

    pub fn signal(&self, name: &str) -> Result<(), String> {
        signal(&self.child, name)
    }

    /// Sends one command that is answered in a line.
    pub fn ask(&self, command: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(format!("{command}\r\n").as_bytes())?;
        let mut answer = [0; 64];
        let length = stream.read(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer[..length]).trim().to_owned())
    }

    /// False if it ended.
    fn comes_up(&mut self) -> Result<bool, String> {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return Ok(false);
            }
            if self.ask("PING").is_ok_and(|answer| answer == "+PONG") {
                return Ok(true);
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

pub fn signal(child: &Child, name: &str) -> Result<(), String> {
    let sent = Command::new("kill")
        .args([&format!("-{name}"), &child.id().to_string()])
        .status();
    match sent {
        Ok(status) if status.success() => Ok(()),
        _ => Err(format!("cannot send SIG{name}")),
    }
}

fn free_port() -> Result<u16, String> {
    let bound = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let port = bound.map(|address| address.port());
    port.map_err(|error| format!("no free port: {error}"))
}

fn spawn(port: u16) -> Result<Child, String> {
    Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
        .args(["--save", "", "--appendonly", "no", "--daemonize", "no"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| {
            format!("no redis-server in the path: {error} (apt-get install redis-server)")
        })
}
