//! A network that delays, stalls, cuts and corrupts.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mood {
    Pass,
    /// Nothing passes in either direction, but the connections stay open.
    Stall,
    /// Connections end.
    Cut,
    /// The next answer begins with a wrong byte. Later answers pass.
    Corrupt,
    /// All data arrive later by this time.
    Delay(Duration),
    /// Answers pass at this rate, in bytes per millisecond.
    Rate(usize),
}

/// Stands between a store and its server.
pub struct Proxy {
    pub port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    mood: Mutex<Mood>,
    /// The first connection that the mood applies to; those before it pass.
    from: AtomicUsize,
    closed: AtomicBool,
    corrupted: AtomicUsize,
}

impl Proxy {
    pub fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let own = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            mood: Mutex::new(Mood::Pass),
            from: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            corrupted: AtomicUsize::new(0),
        });
        let accepting = shared.clone();
        thread::spawn(move || {
            for (number, client) in listener.incoming().enumerate() {
                if accepting.closed.load(Ordering::SeqCst) {
                    return;
                }
                let (Ok(client), Ok(server)) = (client, TcpStream::connect(("127.0.0.1", port)))
                else {
                    continue;
                };
                for (from, to, answers) in [(&client, &server, false), (&server, &client, true)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let shared = accepting.clone();
                    thread::spawn(move || shared.carry(number, from, to, answers));
                }
            }
        });
        Proxy { port: own, shared }
    }

    pub fn mood(&self, mood: Mood) {
        self.only_from(0, mood);
    }

    /// A mood for the connections of this number and above, counted from 0.
    pub fn only_from(&self, number: usize, mood: Mood) {
        self.shared.from.store(number, Ordering::SeqCst);
        *self.shared.mood.lock().unwrap() = mood;
    }

    pub fn corrupted(&self) -> usize {
        self.shared.corrupted.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

impl Shared {
    fn mood_of(&self, number: usize) -> Mood {
        match number >= self.from.load(Ordering::SeqCst) {
            true => *self.mood.lock().unwrap(),
            false => Mood::Pass,
        }
    }

    fn carry(&self, number: usize, mut from: TcpStream, mut to: TcpStream, answers: bool) {
        from.set_read_timeout(Some(Duration::from_millis(5)))
            .unwrap();
        let mut buffer = [0; 4096];
        // Delayed data, and when they arrive.
        let mut late: VecDeque<(Instant, Vec<u8>)> = VecDeque::new();
        while !self.closed.load(Ordering::SeqCst) {
            match self.mood_of(number) {
                Mood::Cut => break,
                Mood::Stall => {
                    thread::park_timeout(Duration::from_millis(5));
                    continue;
                }
                _ => {}
            }
            while late.front().is_some_and(|(due, _)| *due <= Instant::now()) {
                let (_, bytes) = late.pop_front().unwrap();
                if to.write_all(&bytes).is_err() {
                    return;
                }
            }
            let size = match from.read(&mut buffer) {
                Ok(0) => break,
                Ok(size) => size,
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    continue;
                }
                Err(_) => break,
            };
            // Data that arrived during a stall waits for its end.
            while self.mood_of(number) == Mood::Stall && !self.closed.load(Ordering::SeqCst) {
                thread::park_timeout(Duration::from_millis(5));
            }
            match self.mood_of(number) {
                Mood::Corrupt if answers => {
                    *self.mood.lock().unwrap() = Mood::Pass;
                    self.corrupted.fetch_add(1, Ordering::SeqCst);
                    buffer[0] = b'?';
                }
                Mood::Delay(time) => {
                    late.push_back((Instant::now() + time, buffer[..size].to_vec()));
                    continue;
                }
                Mood::Rate(rate) if answers => {
                    thread::park_timeout(Duration::from_micros((size * 1_000 / rate) as u64));
                }
                // Data never overtake those that are late.
                _ if !late.is_empty() => {
                    late.push_back((Instant::now(), buffer[..size].to_vec()));
                    continue;
                }
                _ => {}
            }
            if to.write_all(&buffer[..size]).is_err() {
                break;
            }
        }
        let _ = from.shutdown(std::net::Shutdown::Both);
        let _ = to.shutdown(std::net::Shutdown::Both);
    }
}
