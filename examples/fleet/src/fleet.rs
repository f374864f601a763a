//! The processes, from the view of the process that starts them.
use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use dev_support::redis::signal;
use everfresh::store::Namespace;
use rand::RngExt;

use crate::keys::random;
use crate::log::{Event, LoggedEvent};
use crate::process::HIDDEN;

/// A limit that no answer reaches; it only ends a run that has failed.
const PATIENCE: Duration = Duration::from_secs(60);

pub type Result<T> = std::result::Result<T, String>;

pub struct Process {
    /// Its number among all processes that were ever started.
    pub number: usize,
    child: Child,
    stdin: ChildStdin,
}

pub struct Fleet {
    url: String,
    pub namespace: Namespace,
    lease: Duration,
    pub processes: Vec<Process>,
    /// All events, in the order in which they were received.
    pub log: Vec<LoggedEvent>,
    lines: Receiver<(usize, Option<String>)>,
    speak: Sender<(usize, Option<String>)>,
    started: usize,
    killed: HashSet<usize>,
}

impl Fleet {
    pub fn start(url: &str, count: usize, lease: Duration) -> Result<Fleet> {
        let (speak, lines) = channel();
        let name = format!("fleet-example:{:016x}", random().random::<u64>());
        let namespace = Namespace::new(&name).map_err(|error| error.to_string())?;
        let mut fleet = Fleet {
            url: url.to_owned(),
            namespace,
            lease,
            processes: Vec::new(),
            log: Vec::new(),
            lines,
            speak,
            started: 0,
            killed: HashSet::new(),
        };
        for _ in 0..count {
            let process = fleet.process()?;
            fleet.processes.push(process);
        }
        fleet.answers("ready", count)?;
        Ok(fleet)
    }

    fn process(&mut self) -> Result<Process> {
        let fails = |error: std::io::Error| format!("a process cannot be started: {error}");
        let program = std::env::current_exe().map_err(fails)?;
        let mut child = Command::new(program)
            .args([HIDDEN, &self.url, self.namespace.as_str()])
            .arg(self.lease.as_millis().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(fails)?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let Some((stdin, stdout)) = pipes else {
            return Err("a process has no pipes".to_owned());
        };
        let number = self.started;
        self.started += 1;
        let speak = self.speak.clone();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(|line| line.ok()) {
                let _ = speak.send((number, Some(line)));
            }
            let _ = speak.send((number, None));
        });
        Ok(Process {
            number,
            child,
            stdin,
        })
    }

    pub fn send(&mut self, at: usize, command: &str) -> Result<()> {
        let sent = writeln!(self.processes[at].stdin, "{command}");
        sent.map_err(|error| format!("a process does not take commands: {error}"))
    }

    pub fn send_all(&mut self, command: &str) -> Result<()> {
        (0..self.processes.len()).try_for_each(|at| self.send(at, command))
    }

    /// The next line of any process, unless none arrives before `until`. Events are added to the
    /// log first.
    pub fn next(&mut self, until: Instant) -> Result<Option<(usize, String)>> {
        loop {
            let wait = until.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(wait) {
                Ok((by, Some(line))) => {
                    if let Some(event) = Event::parse(&line) {
                        self.log.push((by, event));
                    }
                    return Ok(Some((by, line)));
                }
                Ok((by, None)) if self.killed.contains(&by) => {}
                Ok((by, None)) => return Err(format!("process {by} has ended")),
                Err(RecvTimeoutError::Timeout) => return Ok(None),
                Err(RecvTimeoutError::Disconnected) => return Err("no process is left".to_owned()),
            }
        }
    }

    /// Waits for this number of lines that begin with `word`. Returns their processes and the
    /// numbers in them.
    pub fn answers(&mut self, word: &str, count: usize) -> Result<Vec<(usize, Vec<u64>)>> {
        let until = Instant::now() + PATIENCE;
        let mut answers = Vec::new();
        while answers.len() < count {
            let Some((by, line)) = self.next(until)? else {
                return Err(format!(
                    "{} of {count} processes answered `{word}`",
                    answers.len()
                ));
            };
            let mut words = line.split(' ');
            if words.next() == Some(word) {
                answers.push((by, words.flat_map(str::parse).collect()));
            }
        }
        Ok(answers)
    }

    /// Waits for an event of the log that comes after the first `from`, and returns where it is.
    pub fn wait_for(
        &mut self,
        what: &str,
        mut from: usize,
        is: impl Fn(&LoggedEvent) -> bool,
    ) -> Result<usize> {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.log[from..].iter().position(&is) {
                return Ok(from + at);
            }
            from = self.log.len();
            if self.next(until)?.is_none() {
                return Err(format!("waited in vain: {what}"));
            }
        }
    }

    /// Receives lines for this time.
    pub fn listen(&mut self, time: Duration) -> Result<()> {
        let until = Instant::now() + time;
        while self.next(until)?.is_some() {}
        Ok(())
    }

    /// Ends a process like a crash.
    pub fn kill(&mut self, at: usize) {
        let process = &mut self.processes[at];
        self.killed.insert(process.number);
        let _ = process.child.kill();
        let _ = process.child.wait();
    }

    /// Starts a process in the place of a killed one.
    pub fn replace(&mut self, at: usize) -> Result<()> {
        self.processes[at] = self.process()?;
        let number = self.processes[at].number;
        let until = Instant::now() + PATIENCE;
        loop {
            match self.next(until)? {
                Some((by, line)) if by == number && line == "ready" => return Ok(()),
                Some(_) => {}
                None => return Err("a process does not start".to_owned()),
            }
        }
    }

    pub fn signal(&self, at: usize, name: &str) -> Result<()> {
        signal(&self.processes[at].child, name)
    }

    /// The index of the process with this number.
    pub fn place(&self, number: usize) -> Option<usize> {
        self.processes
            .iter()
            .position(|process| process.number == number)
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = process.child.kill();
            let _ = process.child.wait();
        }
    }
}
