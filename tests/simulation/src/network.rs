//! The network between the processes and the server.
//!
//! Each process has a connection of two lines, as with Redis: one for reads, one for everything
//! else and for change messages. What travels on a line in one direction keeps its order. A request
//! that a process gave up may still arrive, also after the end of its connection.

use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::time::Duration;

use everfresh::store::{
    Acquire, Acquired, Birth, Change, ErrorClass, Publish, StoreError, StoreKey, Stored, Token,
};
use std::task::{Poll, Waker};

use crate::log::What;
use crate::world::{MS, Nanos, Process, SECOND, State};

/// The time limit of an operation.
pub const LIMIT: Nanos = SECOND;

/// The longest time between a request and its arrival.
pub const LATEST: Nanos = 2 * SECOND;

pub const READS: usize = 0;
pub const SCRIPTS: usize = 1;

#[derive(Clone)]
pub enum Request {
    Read(Vec<StoreKey>),
    Acquire(StoreKey, Acquire),
    Publish(StoreKey, Publish),
    Renew(StoreKey, Token, Duration),
    Release(StoreKey, Token, Option<Duration>),
    Set(StoreKey, Vec<u8>, Duration, Birth),
    Invalidate(StoreKey, Birth),
}

pub enum Answer {
    Read(Vec<Result<Option<Vec<u8>>, StoreError>>),
    Acquired(Acquired),
    Stored(Stored),
    Done(bool),
    Failed(StoreError),
}

/// A request on its way to the server.
pub struct Arrival {
    pub process: Process,
    pub request: Request,
    pub sent: Nanos,
    /// The write of a caller that it carries.
    pub write: Option<usize>,
    /// The load that found nothing, if it carries that.
    pub not_found: Option<usize>,
    due: Nanos,
    number: u64,
    connection: u64,
}

/// A message or an answer to a process on a line.
pub enum Delivery {
    /// The answer to this request.
    Answer(u64, Answer),
    /// A change, and the write that made it.
    Change(Change, Option<usize>),
}

#[derive(Default)]
pub struct Network {
    pub links: Vec<Link>,
    arrivals: BinaryHeap<Arrival>,
    requests: u64,
    /// The write that the server is making.
    pub making: Option<usize>,
}

/// The connection of one process.
pub struct Link {
    lines: [Line; 2],
    pending: BTreeMap<u64, Pending>,
    /// The number of the connection; `None` while there is none.
    connection: Option<u64>,
    connections: u64,
    /// Whether nothing passes, though the connection is not known to be broken.
    pub is_silent: bool,
    /// Whether it is slow.
    pub is_slow: bool,
    /// The error of the time of the store as the process estimates it, in microseconds.
    pub skew: i64,
}

#[derive(Default)]
struct Line {
    /// When the last request and the last delivery arrive.
    last: [Nanos; 2],
    deliveries: VecDeque<(Nanos, Delivery)>,
    reader: Option<Waker>,
}

struct Pending {
    answer: Option<Answer>,
    write: Option<usize>,
    deadline: Nanos,
    waker: Option<Waker>,
}

impl Link {
    pub fn new(skew: i64) -> Self {
        Link {
            lines: [Line::default(), Line::default()],
            pending: BTreeMap::new(),
            connection: Some(0),
            connections: 0,
            is_silent: false,
            is_slow: false,
            skew,
        }
    }
}

impl Request {
    fn line(&self) -> usize {
        match self {
            Request::Read(_) => READS,
            _ => SCRIPTS,
        }
    }

    /// The key, unless it reads several.
    pub fn key(&self) -> Option<&StoreKey> {
        match self {
            Request::Read(_) => None,
            Request::Acquire(key, _)
            | Request::Publish(key, _)
            | Request::Renew(key, ..)
            | Request::Release(key, ..)
            | Request::Set(key, ..)
            | Request::Invalidate(key, _) => Some(key),
        }
    }
}

impl State {
    fn latency(&mut self, process: Process) -> Nanos {
        match self.network.links[process].is_slow {
            true => self.random.between(100 * MS, LATEST),
            false => self.random.between(MS / 2, 4 * MS),
        }
    }

    /// Sends a request; returns its number.
    pub fn send(&mut self, process: Process, request: Request) -> u64 {
        let write = self.write_of(process, &request);
        let not_found = self.not_found_of(process, &request);
        let latency = self.latency(process);
        let (now, network) = (self.now, &mut self.network);
        network.requests += 1;
        let number = network.requests;
        let link = &mut network.links[process];
        link.pending.insert(
            number,
            Pending {
                answer: None,
                write,
                deadline: now + LIMIT,
                waker: None,
            },
        );
        let due = match link.is_silent {
            false => {
                let last = &mut link.lines[request.line()].last[0];
                *last = (*last).max(now + latency);
                *last
            }
            true if self.random.percent(30) => now + self.random.between(0, LATEST),
            true => return number,
        };
        let Some(connection) = link.connection else {
            return number;
        };
        network.arrivals.push(Arrival {
            process,
            request,
            sent: now,
            write,
            not_found,
            due,
            number,
            connection,
        });
        number
    }

    /// Looks for the answer to a request.
    pub fn poll_answer(&mut self, process: Process, number: u64, waker: &Waker) -> Poll<Answer> {
        let now = self.now;
        let pending = &mut self.network.links[process].pending;
        let Some(waiting) = pending.get_mut(&number) else {
            return Poll::Ready(Answer::Failed(unavailable()));
        };
        if let Some(answer) = waiting.answer.take() {
            let write = waiting.write;
            pending.remove(&number);
            if let (Some(write), Answer::Stored(stored)) = (write, &answer) {
                self.settled(process, write, stored.epoch().is_some());
            }
            return Poll::Ready(answer);
        }
        if now >= waiting.deadline {
            pending.remove(&number);
            let error = StoreError::new(ErrorClass::TimedOut, "simulated");
            return Poll::Ready(Answer::Failed(error));
        }
        let (deadline, is_first) = (waiting.deadline, waiting.waker.is_none());
        waiting.waker = Some(waker.clone());
        if is_first {
            self.set_timer(deadline, waker);
        }
        Poll::Pending
    }

    pub fn forget_request(&mut self, process: Process, number: u64) {
        self.network.links[process].pending.remove(&number);
    }

    /// When the next request arrives at the server.
    pub fn next_arrival(&self) -> Option<Nanos> {
        self.network.arrivals.peek().map(|arrival| arrival.due)
    }

    pub fn take_arrival(&mut self) -> Option<Arrival> {
        let is_due = self.next_arrival().is_some_and(|due| due <= self.now);
        is_due.then(|| self.network.arrivals.pop()).flatten()
    }

    /// Sends the answer of the server to a request.
    pub fn reply(&mut self, arrival: &Arrival, answer: Answer) {
        let line = arrival.request.line();
        if self.network.links[arrival.process].connection != Some(arrival.connection) {
            return;
        }
        self.deliver(
            arrival.process,
            line,
            Delivery::Answer(arrival.number, answer),
        );
    }

    /// Sends a change message to a process.
    pub fn tell(&mut self, process: Process, change: &Change) {
        if self.network.links[process].connection.is_some() {
            let making = self.network.making;
            self.deliver(process, SCRIPTS, Delivery::Change(*change, making));
        }
    }

    fn deliver(&mut self, process: Process, line: usize, delivery: Delivery) {
        let due = self.now + self.latency(process);
        let link = &mut self.network.links[process];
        if link.is_silent {
            return;
        }
        let line = &mut link.lines[line];
        line.last[1] = line.last[1].max(due);
        line.deliveries.push_back((line.last[1], delivery));
        if let Some(reader) = line.reader.take() {
            reader.wake();
        }
    }

    /// The next delivery of a line, for the task of the process that reads it.
    pub fn poll_line(&mut self, process: Process, line: usize, waker: &Waker) -> Poll<Delivery> {
        let now = self.now;
        let line = &mut self.network.links[process].lines[line];
        let due = line.deliveries.front().map(|(due, _)| *due);
        if due.is_some_and(|due| due <= now)
            && let Some((_, delivery)) = line.deliveries.pop_front()
        {
            return Poll::Ready(delivery);
        }
        line.reader = Some(waker.clone());
        if let Some(due) = due {
            self.set_timer(due, waker);
        }
        Poll::Pending
    }

    /// An answer has come.
    pub fn answered(&mut self, process: Process, number: u64, answer: Answer) {
        let pending = self.network.links[process].pending.get_mut(&number);
        if let Some(waiting) = pending {
            waiting.answer = Some(answer);
            if let Some(waker) = waiting.waker.take() {
                waker.wake();
            }
        }
    }

    /// The connection of a process ends. Requests that are under way arrive late, or never.
    pub fn break_connection(&mut self, process: Process) {
        let link = &mut self.network.links[process];
        link.connection = None;
        link.is_silent = false;
        for line in &mut link.lines {
            line.deliveries.clear();
            line.last = [0, 0];
        }
        for waiting in link.pending.values_mut() {
            waiting.answer.get_or_insert(Answer::Failed(unavailable()));
            if let Some(waker) = waiting.waker.take() {
                waker.wake();
            }
        }
        let mut underway = std::mem::take(&mut self.network.arrivals).into_sorted_vec();
        underway.retain_mut(|arrival| {
            if arrival.process != process || !self.random.percent(50) {
                return arrival.process != process;
            }
            let latest = arrival.sent + LATEST;
            arrival.due += self.random.below(SECOND);
            arrival.due = arrival.due.min(latest.max(self.now));
            true
        });
        self.network.arrivals.extend(underway);
        self.log(What::Disconnected(process));
    }

    pub fn connect(&mut self, process: Process) {
        let link = &mut self.network.links[process];
        link.connections += 1;
        link.connection = Some(link.connections);
        self.log(What::Connected(process));
    }
}

fn unavailable() -> StoreError {
    StoreError::new(ErrorClass::Unavailable, "simulated")
}

impl PartialEq for Arrival {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Arrival {}

impl PartialOrd for Arrival {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Arrival {
    /// The earliest is the greatest, for the heap.
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.due, other.number).cmp(&(self.due, self.number))
    }
}
