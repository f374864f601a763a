//! A crowd on a missing key.
use std::time::Duration;

use dev_support::forecast::{FULL, MATCH};
use dev_support::report::{Check, micros, time};
use everfresh::BuildError;
use serde_json::{Value, json};

use crate::control;
use crate::crowd::{self, Answer, Seen};
use crate::report::{Part, Progress, joined, worse};
use crate::spread::Times;
use crate::subject::Subject;

/// The worst of each count over several runs, and the times of all runs.
pub struct Cold {
    callers: usize,
    runs: usize,
    loads: usize,
    served: usize,
    waited: usize,
    pub cache: Crowd,
    pub control: Crowd,
    /// The shortest load, because it gives the strictest limits.
    compute: Duration,
}

/// How long the callers waited.
#[derive(Default)]
pub struct Crowd {
    pub times: Times,
    /// The same, less the time of the load.
    beyond: Times,
}

impl Crowd {
    fn include(&mut self, seen: &Seen, load: Duration) {
        self.times.include(&seen.took);
        let beyond = seen.took.iter().map(|took| took.saturating_sub(load));
        self.beyond.include(&beyond.collect::<Vec<_>>());
    }
}

const RUNS: usize = 3;

/// Releases threads on a missing key, and in turn on a plain value that does not exist yet.
pub fn measure(callers: usize, progress: &Progress) -> Result<Cold, BuildError> {
    let mut cold = Cold::of(callers);
    for run in 0..RUNS {
        progress.step("a missing key", run, RUNS);
        let control = control::once(callers, FULL);
        let subject = Subject::new(FULL)?;
        let seen = crowd::threads(callers, Duration::ZERO, |_| {
            Answer::of(&subject.cache.get_blocking(&MATCH))
        });
        subject.settles(1);
        let load = subject.compute_times().first().copied();
        let load = load.unwrap_or_default();
        cold.include((&seen, load), (&control.0, control.1), subject.computes());
    }
    progress.clear();
    Ok(cold)
}

impl Cold {
    /// The state before the first run.
    pub fn of(callers: usize) -> Cold {
        Cold {
            callers,
            runs: 0,
            loads: 1,
            served: callers,
            waited: callers,
            cache: Crowd::default(),
            control: Crowd::default(),
            compute: Duration::MAX,
        }
    }

    /// Adds a run: the calls on the cache and the calls of the control, each with the time of its
    /// load.
    pub fn include(
        &mut self,
        (seen, load): (&Seen, Duration),
        (control, control_load): (&Seen, Duration),
        loads: usize,
    ) {
        self.runs += 1;
        self.loads = worse(self.loads, loads);
        self.served = self.served.min(seen.served);
        self.waited = self.waited.min(seen.waited);
        self.cache.include(seen, load);
        self.control.include(control, control_load);
        self.compute = self.compute.min(load);
    }

    pub fn name(&self) -> String {
        "missing key".to_owned()
    }

    fn checks(&self) -> Vec<Check> {
        let p99 = |crowd: &Crowd| crowd.beyond.quantile(0.99);
        vec![
            Check::exactly("loads", self.loads, 1),
            Check::exactly("callers served", self.served, self.callers),
            Check::beside(
                "p99 beyond the load",
                p99(&self.cache),
                p99(&self.control),
                self.compute,
                "one compute",
            ),
        ]
    }

    pub fn pass(&self) -> bool {
        self.checks().iter().all(|check| check.pass)
    }

    pub fn part(&self) -> Part {
        let title = format!(
            "{} threads on a missing key (all wait, because there is no value yet); {} runs",
            self.callers, self.runs
        );
        let whole = |crowd: &Crowd| time(crowd.times.quantile(0.99));
        let whole_wait = format!(
            "for information, with the load: p99 {}, control {}",
            whole(&self.cache),
            whole(&self.control)
        );
        Part {
            notes: vec![whole_wait],
            ..Part::checked(title, &self.checks())
        }
    }

    pub fn json(&self) -> Value {
        let crowd = |crowd: &Crowd| {
            json!({
                "p50_us": micros(crowd.times.quantile(0.5)),
                "p99_us": micros(crowd.times.quantile(0.99)),
                "p99_beyond_load_us": micros(crowd.beyond.quantile(0.99)),
            })
        };
        let row = json!({
            "callers": self.callers,
            "runs": self.runs,
            "loads": self.loads,
            "computes": self.loads,
            "served": self.served,
            "waited": self.waited,
            "control": crowd(&self.control),
            "compute_us": micros(self.compute),
            "pass": self.pass(),
        });
        joined(row, crowd(&self.cache))
    }
}
