//! The generations of protection against stampedes, each under the same crowd on the same stale
//! key.
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use dev_support::forecast::{Fixture, Forecast, LIGHT, MATCH, forecast};
use dev_support::report::{Table, grouped, micros, time, verdict};
use dev_support::svg::{Bar, Ink};
use everfresh::BuildError;
use serde_json::{Value, json};

use crate::crowd::{self, Answer, Compute, Seen};
use crate::report::{Part, Progress};
use crate::subject::{SOFT, Subject};
use crate::timeline::Scene;

const CALLERS: usize = 100;

/// How the crowd arrives.
pub struct Load {
    pub name: &'static str,
    /// The arrival, in a sentence.
    pub arrival: &'static str,
    apart: Duration,
}

pub const LOADS: [Load; 2] = [
    Load {
        name: "all at once",
        arrival: "all at once",
        apart: Duration::ZERO,
    },
    Load {
        name: "one each ms",
        arrival: "one each millisecond",
        apart: Duration::from_millis(1),
    },
];

/// The protection between a caller that finds a stale value and the computation.
#[derive(Clone, Copy)]
struct Protection {
    name: &'static str,
    lock: bool,
    check_before: bool,
    check_inside: bool,
}

const GENERATIONS: [Protection; 4] = [
    Protection {
        name: "no protection",
        lock: false,
        check_before: false,
        check_inside: false,
    },
    Protection {
        name: "a lock per key",
        lock: true,
        check_before: false,
        check_inside: false,
    },
    Protection {
        name: "a re-check before the lock",
        lock: true,
        check_before: true,
        check_inside: false,
    },
    Protection {
        name: "a re-check before and inside the lock",
        lock: true,
        check_before: true,
        check_inside: true,
    },
];

/// A plain cache: a map of values with the time until which they are fresh, and a map of locks.
struct Plain {
    protection: Protection,
    values: RwLock<HashMap<Fixture, (Forecast, Instant)>>,
    locks: Mutex<HashMap<Fixture, Arc<Mutex<()>>>>,
    computes: AtomicUsize,
    /// Every compute, for the timeline; with room for one compute per caller.
    ran: Mutex<Vec<Compute>>,
}

impl Plain {
    /// A cache with one value, which is stale now.
    fn new(protection: Protection) -> Plain {
        let value = (forecast(&MATCH, 1_000), Instant::now());
        Plain {
            protection,
            values: RwLock::new(HashMap::from([(MATCH, value)])),
            locks: Mutex::default(),
            computes: AtomicUsize::new(0),
            ran: Mutex::new(Vec::with_capacity(CALLERS)),
        }
    }

    fn get(&self, key: &Fixture, caller: usize) -> Forecast {
        if let Some(fresh) = self.fresh(key) {
            return fresh;
        }
        if !self.protection.lock {
            return self.compute(key, caller);
        }
        let lock = self.lock_of(key);
        if self.protection.check_before
            && let Some(fresh) = self.fresh(key)
        {
            return fresh;
        }
        let _locked = lock.lock().unwrap_or_else(PoisonError::into_inner);
        if self.protection.check_inside
            && let Some(fresh) = self.fresh(key)
        {
            return fresh;
        }
        self.compute(key, caller)
    }

    fn fresh(&self, key: &Fixture) -> Option<Forecast> {
        let values = self.values.read().unwrap_or_else(PoisonError::into_inner);
        let (value, fresh_until) = values.get(key)?;
        (Instant::now() < *fresh_until).then(|| value.clone())
    }

    fn lock_of(&self, key: &Fixture) -> Arc<Mutex<()>> {
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        locks.entry(*key).or_default().clone()
    }

    fn compute(&self, key: &Fixture, caller: usize) -> Forecast {
        self.computes.fetch_add(1, Ordering::SeqCst);
        let began = Instant::now();
        let value = forecast(key, LIGHT);
        let ended = Instant::now();
        let mut values = self.values.write().unwrap_or_else(PoisonError::into_inner);
        values.insert(*key, (value.clone(), ended + SOFT));
        drop(values);
        let published = Some(Instant::now());
        let mut ran = self.ran.lock().unwrap_or_else(PoisonError::into_inner);
        ran.push(Compute {
            by: Some(caller),
            began,
            ended,
            published,
        });
        value
    }
}

/// One generation under one load.
pub struct EvolutionRow {
    pub name: &'static str,
    pub load: &'static str,
    pub computes: usize,
    pub seen: Seen,
    pub ran: Vec<Compute>,
    /// A verdict for everfresh only; the others are for comparison.
    pub pass: Option<bool>,
}

/// Every generation under every load.
pub fn measure(progress: &Progress) -> Result<Vec<EvolutionRow>, BuildError> {
    let of = LOADS.len() * (GENERATIONS.len() + 1);
    let mut rows = Vec::with_capacity(of);
    for load in &LOADS {
        for protection in GENERATIONS {
            progress.step(protection.name, rows.len(), of);
            rows.push(plain(protection, load));
        }
        progress.step("everfresh", rows.len(), of);
        rows.push(everfresh(load)?);
    }
    progress.clear();
    Ok(rows)
}

fn plain(protection: Protection, load: &Load) -> EvolutionRow {
    let cache = Plain::new(protection);
    let seen = crowd::threads(CALLERS, load.apart, |caller| {
        match cache.get(&MATCH, caller).is_sound() {
            true => Answer::Fresh,
            false => Answer::Failed,
        }
    });
    let ran = cache.ran.into_inner();
    EvolutionRow {
        name: protection.name,
        load: load.name,
        computes: cache.computes.load(Ordering::SeqCst),
        seen,
        ran: ran.unwrap_or_else(PoisonError::into_inner),
        pass: None,
    }
}

fn everfresh(load: &Load) -> Result<EvolutionRow, BuildError> {
    let subject = Subject::new(LIGHT)?;
    subject.prepare();
    let before = subject.computes();
    let seen = crowd::threads(CALLERS, load.apart, |_| {
        Answer::of(&subject.cache.get_blocking(&MATCH))
    });
    subject.settles(before + 1);
    let computes = subject.computes() - before;
    Ok(EvolutionRow {
        name: "everfresh",
        load: load.name,
        computes,
        pass: Some(computes == 1 && seen.waited == 0 && seen.served == CALLERS),
        seen,
        ran: subject.refreshes(before),
    })
}

impl EvolutionRow {
    pub fn pass(&self) -> bool {
        self.pass != Some(false)
    }

    pub fn is_under(&self, load: &Load) -> bool {
        self.load == load.name
    }

    /// Callers and computes on a timeline.
    pub fn scene(&self) -> Scene<'_> {
        Scene {
            name: self.name,
            figures: format!(
                "{} {}, p99 {}",
                grouped(self.computes),
                if self.computes == 1 {
                    "compute"
                } else {
                    "computes"
                },
                time(self.seen.p99)
            ),
            calls: &self.seen.calls,
            ran: &self.ran,
        }
    }

    /// The number of computes, for the picture.
    pub fn bar(&self) -> Bar {
        Bar {
            label: self.name.to_owned(),
            value: self.computes as f64,
            shown: grouped(self.computes),
            ink: match self.pass {
                Some(_) => Ink::Ours,
                None => Ink::Other,
            },
        }
    }

    pub fn json(&self) -> Value {
        let mut row = json!({
            "name": self.name,
            "arrival": self.load,
            "callers": CALLERS,
            "computes": self.computes,
            "served": self.seen.served,
            "p50_us": micros(self.seen.p50),
            "p99_us": micros(self.seen.p99),
            "total_us": micros(self.seen.total),
        });
        if let Some(pass) = self.pass {
            row["pass"] = pass.into();
        }
        row
    }
}

/// Both loads side by side.
pub fn part(rows: &[EvolutionRow], compute: Duration) -> Part {
    let [at_once, in_turn] = &LOADS;
    let lines = rows
        .iter()
        .filter(|row| row.is_under(at_once))
        .zip(rows.iter().filter(|row| row.is_under(in_turn)));
    let lines = lines.map(|(at_once, in_turn)| {
        let mut line = vec![at_once.name.to_owned()];
        for row in [at_once, in_turn] {
            line.push(grouped(row.computes));
            line.push(time(row.seen.p50));
            line.push(time(row.seen.p99));
        }
        line.push(match at_once.pass {
            Some(_) => verdict(at_once.pass() && in_turn.pass()).to_owned(),
            None => String::new(),
        });
        line
    });
    Part {
        title: format!(
            "{CALLERS} threads on one stale key, by generation of protection; every row computes \
             the same light forecast ({}).",
            time(compute)
        ),
        lead: "Computes and time per caller; callers come all at once, then one each millisecond."
            .to_owned(),
        table: Table {
            headers: vec!["", "at once", "p50", "p99", "in turn", "p50", "p99", ""],
            rows: lines.collect(),
            left: &[0],
        },
        notes: vec![
            "everfresh passes with 1 compute and no waiting caller; times are for information"
                .to_owned(),
        ],
        pass: Some(rows.iter().all(EvolutionRow::pass)),
    }
}
