//! Random faults of processes and their server, and the claims that must hold in spite of them.
use std::time::{Duration, Instant};

use dev_support::redis::Server;
use rand::RngExt;
use rand::rngs::SmallRng;

use crate::figures::{Seen, rest};
use crate::fleet::{Fleet, Result};
use crate::keys::{LASTING, micros, random};
use crate::log::{Broken, Event, Loads};

const KEYS: u64 = 16;

/// The result of a soak.
#[derive(Default)]
pub struct Soaked {
    pub killed: usize,
    pub stopped: usize,
    pub flushed: usize,
    pub server_killed: usize,
    pub server_stopped: usize,
    pub loads: Loads,
    pub published: usize,
    pub writes: usize,
    pub seen: Seen,
    pub broken: Broken,
    /// The time from the end of the faults until an invalidation by one process had reached the
    /// others.
    pub recovered: Duration,
}

impl Soaked {
    pub fn faults(&self) -> usize {
        self.killed + self.stopped + self.flushed + self.server_killed + self.server_stopped
    }
}

pub fn soak(fleet: &mut Fleet, server: &mut Server, time: Duration) -> Result<Soaked> {
    let mut soaked = Soaked::default();
    let mut rng = random();
    busy(fleet)?;
    let until = Instant::now() + time;
    while Instant::now() < until {
        fleet.listen(Duration::from_millis(rng.random_range(50..500)))?;
        one_fault(fleet, server, &mut rng, &mut soaked)?;
    }
    let since = Instant::now();
    recover(fleet)?;
    soaked.recovered = since.elapsed();
    soaked.seen = rest(fleet)?;
    soaked.loads = Loads::of(&fleet.log);
    soaked.broken = Broken::find(&fleet.log);
    for (_, event) in &fleet.log {
        match event {
            Event::Published { .. } => soaked.published += 1,
            Event::Wrote { .. } => soaked.writes += 1,
            _ => {}
        }
    }
    Ok(soaked)
}

fn busy(fleet: &mut Fleet) -> Result<()> {
    fleet.send_all(&format!("read 0 {KEYS}"))?;
    fleet.send_all(&format!("write 0 {KEYS}"))
}

fn one_fault(
    fleet: &mut Fleet,
    server: &mut Server,
    rng: &mut SmallRng,
    soaked: &mut Soaked,
) -> Result<()> {
    let at = rng.random_range(0..fleet.processes.len());
    let short = Duration::from_millis(rng.random_range(50..1_500));
    match rng.random_range(0..5) {
        0 => {
            soaked.killed += 1;
            fleet.kill(at);
            fleet.listen(short)?;
            fleet.replace(at)?;
            fleet.send(at, &format!("read 0 {KEYS}"))?;
            fleet.send(at, &format!("write 0 {KEYS}"))?;
        }
        1 => {
            soaked.stopped += 1;
            fleet.signal(at, "STOP")?;
            fleet.listen(short)?;
            fleet.signal(at, "CONT")?;
        }
        2 => {
            soaked.flushed += 1;
            let answer = server.ask(&["FLUSHALL"]);
            answer.map_err(|error| format!("FLUSHALL: {error}"))?;
        }
        3 => {
            soaked.server_killed += 1;
            server.kill();
            fleet.listen(short)?;
            server.restart()?;
        }
        _ => {
            soaked.server_stopped += 1;
            server.signal("STOP")?;
            fleet.listen(short)?;
            server.signal("CONT")?;
        }
    }
    Ok(())
}

/// Waits until all processes are connected and a change by one reaches the others.
fn recover(fleet: &mut Fleet) -> Result<()> {
    let count = fleet.processes.len();
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        fleet.send_all("state")?;
        let states = fleet.answers("state", count)?;
        if states.iter().all(|(_, numbers)| numbers == &[1]) {
            break;
        }
        if Instant::now() > until {
            return Err("a process does not connect again".to_owned());
        }
        fleet.listen(Duration::from_millis(5))?;
    }
    // A separate key that stays fresh.
    let key = LASTING + micros();
    let mut ids = Vec::new();
    for at in 0..count {
        fleet.send(at, &format!("get {key}"))?;
        ids.push(fleet.answers("got", 1)?[0].1[1]);
    }
    for (at, id) in ids.iter().enumerate() {
        fleet.send(at, &format!("watch {key} {id}"))?;
    }
    fleet.answers("watching", count)?;
    fleet.send(0, &format!("invalidate {key}"))?;
    fleet.answers("gone", count).map(|_| ())
}
