//! The certification: a crowd on one stale entry, and a crowd on a key that is not there.

use std::time::{Duration, Instant};

use everfresh::BuildError;
use everfresh::store::SecondLevel;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::crowd::{self, Answer, Seen};
use crate::forecast::{FULL, Fixture, Forecast, MATCH};
use crate::report::{Check, Part, Progress, grouped, micros, percent};
use crate::spread::Spread;
use crate::subject::{AGE, HARD, SOFT, Subject};

/// Who calls.
pub enum Callers<'a> {
    Threads(usize),
    Tasks(usize, &'a Runtime),
}

impl Callers<'_> {
    fn count(&self) -> usize {
        match self {
            Callers::Threads(count) | Callers::Tasks(count, _) => *count,
        }
    }

    fn name(&self) -> String {
        let kind = match self {
            Callers::Threads(_) => "threads",
            Callers::Tasks(..) => "tasks",
        };
        format!("{} {kind}", grouped(self.count()))
    }

    fn call(&self, subject: &Subject) -> Seen {
        match self {
            Callers::Threads(count) => crowd::threads(*count, Duration::ZERO, |_| {
                Answer::of(&subject.cache.get_blocking(&MATCH))
            }),
            Callers::Tasks(count, runtime) => crowd::tasks(runtime, *count, &subject.cache),
        }
    }
}

/// Of several runs the worst of each figure.
pub struct Row {
    pub name: String,
    callers: usize,
    pub runs: usize,
    /// The count farthest from the one that is wanted.
    computes: usize,
    refreshes: usize,
    stale: usize,
    waited: usize,
    served: usize,
    p50: Duration,
    p99: Duration,
    total: Duration,
    /// The shortest, by which the limits are strictest.
    pub compute: Duration,
    /// Of each run.
    pub spreads: Vec<Spread>,
}

/// So many runs unless told otherwise, and no new one after so long.
const RUNS: usize = 50;
const TIME: Duration = Duration::from_secs(12);

/// Lets the crowd loose on one stale entry, again and again.
pub fn stale(
    callers: &Callers,
    level: Option<SecondLevel<Fixture, Forecast>>,
    runs: Option<usize>,
    progress: &Progress,
) -> Result<Row, BuildError> {
    let (runs, time) = match runs {
        Some(runs) => (runs, Duration::MAX),
        None => (RUNS, TIME),
    };
    let began = Instant::now();
    let subject = Subject::on(FULL, level)?;
    subject.prepare();
    let mut row = Row::of(callers);
    while row.runs < runs && (row.runs == 0 || began.elapsed() < time) {
        progress.step(&format!("{} on a stale entry", row.name), row.runs, runs);
        let refreshes = || subject.cache.stats().refreshes_stale as usize;
        let before = (subject.computes(), refreshes());
        let seen = callers.call(&subject);
        subject.settles(before.0 + 1);
        row.include(&seen, subject.computes() - before.0, refreshes() - before.1);
        subject.clock.advance(AGE);
    }
    progress.clear();
    row.compute = shortest(&subject);
    Ok(row)
}

fn shortest(subject: &Subject) -> Duration {
    let times = subject.compute_times();
    times.into_iter().min().unwrap_or_default()
}

/// Whichever is farther from one.
fn worse(count: usize, other: usize) -> usize {
    match count.abs_diff(1) >= other.abs_diff(1) {
        true => count,
        false => other,
    }
}

impl Row {
    /// Before the first run.
    pub fn of(callers: &Callers) -> Row {
        let everybody = callers.count();
        Row {
            name: callers.name(),
            callers: everybody,
            runs: 0,
            computes: 1,
            refreshes: 1,
            stale: everybody,
            waited: 0,
            served: everybody,
            p50: Duration::ZERO,
            p99: Duration::ZERO,
            total: Duration::ZERO,
            compute: Duration::MAX,
            spreads: Vec::new(),
        }
    }

    pub fn include(&mut self, seen: &Seen, computes: usize, refreshes: usize) {
        self.runs += 1;
        self.computes = worse(self.computes, computes);
        self.refreshes = worse(self.refreshes, refreshes);
        self.stale = self.stale.min(seen.stale);
        self.waited = self.waited.max(seen.waited);
        self.served = self.served.min(seen.served);
        self.p50 = self.p50.max(seen.p50);
        self.p99 = self.p99.max(seen.p99);
        self.total = self.total.max(seen.total);
        self.spreads.push(Spread::of(&seen.took));
    }

    pub fn title(&self) -> String {
        let age = AGE.as_secs();
        let (soft, hard) = (SOFT.as_secs(), HARD.as_secs());
        format!(
            "{} on one stale entry (soft limit {soft} s, hard limit {hard} s, age {age} s); the worst of {}",
            self.name,
            self.runs_text()
        )
    }

    fn runs_text(&self) -> String {
        match self.runs {
            1 => "1 run".to_owned(),
            runs => format!("{runs} runs"),
        }
    }

    pub fn checks(&self) -> Vec<Check> {
        let percent_of = self.compute / 100;
        vec![
            Check::exactly("computes", self.computes, 1),
            Check::exactly("background refreshes", self.refreshes, 1),
            Check::exactly("stale served", self.stale, self.callers),
            Check::exactly("callers that waited", self.waited, 0),
            Check {
                figure: "success rate",
                measured: percent(self.served, self.callers),
                target: percent(self.callers, self.callers),
                pass: self.served == self.callers,
            },
            Check::at_most("p50 per caller", self.p50, percent_of, "1 % of a compute"),
            Check::at_most("p99 per caller", self.p99, percent_of, "1 % of a compute"),
            Check::at_most("total time", self.total, self.compute, "one compute"),
        ]
    }

    pub fn pass(&self) -> bool {
        self.checks().iter().all(|check| check.pass)
    }

    pub fn part(&self) -> Part {
        Part::checked(self.title(), &self.checks())
    }

    pub fn json(&self) -> Value {
        json!({
            "callers": self.callers,
            "runs": self.runs,
            "computes": self.computes,
            "refreshes": self.refreshes,
            "stale": self.stale,
            "waited": self.waited,
            "served": self.served,
            "p50_us": micros(self.p50),
            "p99_us": micros(self.p99),
            "compute_us": micros(self.compute),
            "total_us": micros(self.total),
            "pass": self.pass(),
        })
    }
}

/// A crowd on a key that is not there.
pub struct Cold {
    pub callers: usize,
    pub loads: usize,
    pub seen: Seen,
    pub compute: Duration,
}

pub fn cold(callers: usize) -> Result<Cold, BuildError> {
    let subject = Subject::new(FULL)?;
    let seen = Callers::Threads(callers).call(&subject);
    subject.settles(1);
    Ok(Cold {
        callers,
        loads: subject.computes(),
        seen,
        compute: shortest(&subject),
    })
}

impl Cold {
    pub fn name(&self) -> String {
        "absent key".to_owned()
    }

    pub fn spread(&self) -> Spread {
        Spread::of(&self.seen.took)
    }

    pub fn checks(&self) -> Vec<Check> {
        vec![
            Check::exactly("loads", self.loads, 1),
            Check::exactly("callers served", self.seen.served, self.callers),
            Check::at_most(
                "p99 per caller",
                self.seen.p99,
                self.compute * 2,
                "two computes",
            ),
        ]
    }

    pub fn pass(&self) -> bool {
        self.checks().iter().all(|check| check.pass)
    }

    pub fn part(&self) -> Part {
        let title = format!(
            "{} threads on an absent key (they have to wait: there is no value yet)",
            self.callers
        );
        Part::checked(title, &self.checks())
    }

    pub fn json(&self) -> Value {
        json!({
            "callers": self.callers,
            "loads": self.loads,
            "computes": self.loads,
            "served": self.seen.served,
            "waited": self.seen.waited,
            "p50_us": micros(self.seen.p50),
            "p99_us": micros(self.seen.p99),
            "compute_us": micros(self.compute),
            "total_us": micros(self.seen.total),
            "pass": self.pass(),
        })
    }
}
