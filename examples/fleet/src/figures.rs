//! Figures of a fleet without faults, and of a fleet whose loading processes are killed.

use std::time::Duration;

use crate::fleet::{Fleet, Result};
use crate::keys::{LASTING, SLOW, hash, micros};
use crate::log::{Event, Loads};

/// The reads of all processes, by outcome.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    pub reads: u64,
    pub stale: u64,
    pub waited: u64,
    pub failed: u64,
}

/// All processes read the same keys for a while.
pub struct Reading {
    pub loads: Loads,
    pub seen: Seen,
}

impl Reading {
    pub fn pass(&self) -> bool {
        let (loads, seen) = (&self.loads, &self.seen);
        loads.duplicates == 0 && loads.unleased == 0 && seen.waited == 0 && seen.failed == 0
    }
}

/// Stops the reads of all processes, and adds up their counts.
pub fn rest(fleet: &mut Fleet) -> Result<Seen> {
    fleet.send_all("rest")?;
    let mut all = Seen::default();
    for (_, numbers) in fleet.answers("seen", fleet.processes.len())? {
        if let [reads, stale, waited, failed] = numbers[..] {
            all.reads += reads;
            all.stale += stale;
            all.waited += waited;
            all.failed += failed;
        }
    }
    Ok(all)
}

/// Gives every process a value for each of these keys.
fn spread(fleet: &mut Fleet, from: u64, keys: u64) -> Result<()> {
    for key in from..from + keys {
        fleet.send_all(&format!("get {key}"))?;
    }
    let count = fleet.processes.len() * keys as usize;
    fleet.answers("got", count).map(|_| ())
}

/// Reads one key until it has gone stale this number of times.
pub fn one_key(fleet: &mut Fleet, epochs: usize) -> Result<Reading> {
    const KEY: u64 = 0;
    spread(fleet, KEY, 1)?;
    let from = fleet.log.len();
    fleet.send_all(&format!("read {KEY} 1"))?;
    let mut at = from;
    while Loads::of(&fleet.log[from..]).epochs < epochs {
        at = 1 + fleet.wait_for("another refresh", at, |(_, event)| {
            matches!(event, Event::Load { .. })
        })?;
    }
    let seen = rest(fleet)?;
    let loads = Loads::of(&fleet.log[from..]);
    Ok(Reading { loads, seen })
}

/// Many keys, some of which are read much more often than others.
pub fn mix(fleet: &mut Fleet, keys: u64, time: Duration) -> Result<Reading> {
    const FIRST: u64 = 1_000;
    spread(fleet, FIRST, keys)?;
    let from = fleet.log.len();
    fleet.send_all(&format!("read {FIRST} {keys}"))?;
    fleet.listen(time)?;
    let seen = rest(fleet)?;
    let loads = Loads::of(&fleet.log[from..]);
    Ok(Reading { loads, seen })
}

/// The times from each invalidation until the last process stopped serving the value, sorted.
pub fn invalidations(fleet: &mut Fleet, rounds: usize) -> Result<Vec<Duration>> {
    let count = fleet.processes.len();
    let mut took = Vec::with_capacity(rounds);
    for round in 0..rounds {
        let key = LASTING + round as u64;
        fleet.send_all(&format!("get {key}"))?;
        let got = fleet.answers("got", count)?;
        let id = got[0].1[1];
        if got.iter().any(|(_, numbers)| numbers[1] != id) {
            return Err(format!("a fresh key has two values: {got:?}"));
        }
        fleet.send_all(&format!("watch {key} {id}"))?;
        fleet.answers("watching", count)?;
        fleet.send(round % count, &format!("invalidate {key}"))?;
        let gone = fleet.gone(count)?;
        took.push(gone);
    }
    took.sort_unstable();
    Ok(took)
}

impl Fleet {
    /// The time from the beginning of the invalidation until all processes have reported that the
    /// value is gone.
    fn gone(&mut self, count: usize) -> Result<Duration> {
        let (mut began, mut last, mut left) = (None, 0, count);
        let until = std::time::Instant::now() + Duration::from_secs(60);
        while left > 0 || began.is_none() {
            let Some((_, line)) = self.next(until)? else {
                return Err(format!(
                    "{left} of {count} still serve a value that was invalidated"
                ));
            };
            let mut words = line.split(' ');
            let word = words.next();
            let numbers: Vec<u64> = words.flat_map(str::parse).collect();
            match (word, &numbers[..]) {
                (Some("gone"), [at]) => {
                    last = last.max(*at);
                    left -= 1;
                }
                (Some("invalidated"), [at, 1]) => began = Some(*at),
                (Some("invalidated"), _) => {
                    return Err("an invalidation did not reach the store".to_owned());
                }
                _ => {}
            }
        }
        Ok(Duration::from_micros(
            last.saturating_sub(began.unwrap_or(last)),
        ))
    }
}

/// The figures after the process that loads a key was killed.
pub struct Killed {
    /// The time until another process began to load, the longest of all rounds.
    pub delay: Duration,
    /// Waits are counted only if there was a stale value.
    pub seen: Seen,
}

/// Kills the process that loads. In every second round all other processes have a stale value; in
/// the other rounds no process has a value.
pub fn killed_loaders(fleet: &mut Fleet, rounds: usize) -> Result<Killed> {
    let mut killed = Killed {
        delay: Duration::ZERO,
        seen: Seen::default(),
    };
    for round in 0..rounds {
        let key = SLOW + round as u64;
        let hash = hash(&fleet.namespace, key);
        if round % 2 == 0 {
            spread(fleet, key, 1)?;
        }
        let from = fleet.log.len();
        let begins = |event: &Event| matches!(event, Event::Load { hash: of, .. } if *of == hash);
        fleet.send_all(&format!("read {key} 1"))?;
        let at = fleet.wait_for("a load", from, |(_, event)| begins(event))?;
        let loader = fleet.log[at].0;
        let Some(place) = fleet.place(loader) else {
            return Err("a killed process loads".to_owned());
        };
        let since = micros();
        fleet.kill(place);
        let at = fleet.wait_for("a load by another process", at + 1, |(by, event)| {
            *by != loader && begins(event)
        })?;
        if let Event::Load { at, .. } = fleet.log[at].1 {
            let delay = Duration::from_micros(at.saturating_sub(since));
            killed.delay = killed.delay.max(delay);
        }
        fleet.wait_for(
            "its result",
            at + 1,
            |(_, event)| matches!(event, Event::Published { hash: of, .. } if *of == hash),
        )?;
        fleet.replace(place)?;
        let seen = rest(fleet)?;
        if round % 2 == 0 {
            killed.seen.waited += seen.waited;
        }
        killed.seen.reads += seen.reads;
        killed.seen.stale += seen.stale;
        killed.seen.failed += seen.failed;
    }
    Ok(killed)
}
